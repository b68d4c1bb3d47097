//! Statistics: at rest every number is that of the walker or of what was done; under load none is negative and
//! what only grows never shrinks.

mod common;

use common::host::HostProvider;
use common::model::{Action, World};
use common::{Rng, ShortRing, free, layout, steps, walk};
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeMap;
use temporal_slab::config::{Checked, Config, Unchecked};
use temporal_slab::lock_api::{GuardSend, RawMutex};
use temporal_slab::provider::{PageProvider, StaticProvider};
use temporal_slab::snapshot::{ClassStats, HeapStats, SlowPathStats, VERSION};
use temporal_slab::stats::metric::{self, Kind, Value};
use temporal_slab::{AllocError, DefaultLock, FreeError, HandleError, Heap, Policy, RawHandle};

type Host = HostProvider<{ 1 << 18 }>;
type TestHeap<C = Checked> = Heap<Host, DefaultLock, C>;

/// Compares every number of a heap at rest with the walker's.
fn agree<P: PageProvider, C: Config>(heap: &Heap<P, DefaultLock, C>) -> HeapStats {
    let mut found: BTreeMap<usize, [usize; 5]> = BTreeMap::new();
    // SAFETY: the tests' heaps are at rest here.
    let census = unsafe {
        heap.walk_each(|slab| {
            let class = found.entry(slab.class).or_default();
            class[0] += 1;
            class[1] += usize::from(slab.is_cached);
            class[2] += slab.live;
            class[3] += slab.free;
            class[4] += slab.held;
        })
    }
    .unwrap_or_else(|violation| panic!("{violation}"));
    let stats = heap.stats();
    assert_eq!(stats.version, VERSION);
    let mut sum = [0; 5];
    for index in 0..heap.class_count() {
        let class: ClassStats = heap.class_stats(index).unwrap();
        let slabs = &class.slabs;
        let ours = [
            slabs.slabs,
            slabs.cached,
            slabs.live_slots,
            slabs.free_slots,
            slabs.held_slots,
        ];
        let theirs = found.get(&index).copied().unwrap_or_default();
        assert_eq!(ours, theirs.map(|n| n as u64), "class {index}");
        assert_eq!(slabs.made - slabs.recycled, slabs.slabs, "class {index}");
        assert_eq!(slabs.full_to_partial - slabs.partial_to_full, slabs.listed);
        // A cached slab was emptied, and came back or left or is there still.
        assert!(slabs.cached_so_far >= class.slow.from_cache + slabs.cached);
        assert_eq!(class.slow.new_slabs, slabs.made);
        assert!(class.slow.depot_visits >= class.slow.new_slabs);
        sum.iter_mut().zip(ours).for_each(|(sum, n)| *sum += n);
    }
    assert_eq!(heap.class_stats(heap.class_count()), None);
    let slabs = &stats.slabs;
    let ours = [
        slabs.slabs,
        slabs.cached,
        slabs.live_slots,
        slabs.free_slots,
        slabs.held_slots,
    ];
    assert_eq!(ours, sum, "the heap's slabs are its classes'");
    let theirs = [
        census.slabs,
        census.cached_slabs,
        census.live_slots,
        census.free_slots,
        census.held_slots,
    ];
    assert_eq!(
        ours,
        theirs.map(|n| n as u64),
        "the heap's slabs are the walker's"
    );
    let live = census.live_slot_bytes + census.run_bytes + census.region_bytes;
    assert_eq!(stats.live_bytes, live as u64);
    assert_eq!(stats.large.objects(), (census.runs + census.regions) as u64);
    assert_eq!(
        stats.large.bytes(),
        (census.run_bytes + census.region_bytes) as u64
    );
    assert_eq!(stats.pages.committed, census.taken as u64);
    assert_eq!(stats.pages.resident, census.resident as u64);
    let parts: u64 = stats.residency.parts().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(
        parts, stats.pages.resident,
        "the parts are the whole: {:?}",
        stats.residency
    );
    let empty = stats.residency.cached + stats.residency.warm;
    assert_eq!(empty, heap.bytes().reclaimable as u64);
    // The epochs' sums are the heap's.
    let (mut bytes, mut live, mut objects, mut made) = (0, 0, 0, 0);
    for epoch in (0..stats.ring as usize).filter_map(|index| heap.epoch_at(index)) {
        let stats = heap.epoch_stats(epoch).unwrap();
        assert_eq!(heap.epoch_bytes(epoch), Ok(stats.bytes));
        bytes += stats.bytes;
        live += stats.live_bytes;
        objects += stats.live_objects();
        made += stats.slabs.slabs;
    }
    assert_eq!(
        (live, objects, made),
        (stats.live_bytes, stats.live_objects(), slabs.slabs)
    );
    let of_slabs: u64 = (0..heap.class_count())
        .filter_map(|index| heap.class_stats(index))
        .map(|class| class.bytes())
        .sum();
    assert_eq!(bytes, of_slabs + stats.large.bytes());
    assert_eq!(stats.locks.all().contended, 0, "one thread never waits");
    assert!(stats.slabs.fragmentation() <= 1.0 && stats.waste() <= 1.0);
    stats
}

fn run<P: PageProvider, C: Config>(heap: &Heap<P, DefaultLock, C>, seed: u64) {
    let mut rng = Rng(seed);
    let mut world = World::new(heap, 3);
    let mut before = heap.stats();
    for step in 0..steps(600, 10) {
        let _refused = world.step(Action::random(&mut rng));
        if step % 5 == 0 {
            let now = agree(heap);
            only_grows(&before, &now);
            assert_eq!(now.live_objects(), world.live() as u64);
            assert_eq!(now.locals.locals, world.locals.len() as u64);
            let held: u64 = world
                .locals
                .iter()
                .map(|local| local.stats().held_bytes)
                .sum();
            assert_eq!(now.residency.held, held, "held is what the locals say");
            before = now;
        }
    }
    world.finish();
    let stats = agree(heap);
    assert_eq!(
        (stats.live_objects(), stats.live_bytes, stats.slabs.slabs),
        (0, 0, 0)
    );
    assert_eq!(stats.slabs.made, stats.slabs.recycled);
    assert_eq!(stats.residency.reclaimable(), 0);
}

/// What the tables call a counter never goes back.
fn only_grows(before: &HeapStats, now: &HeapStats) {
    let counters = |stats: &HeapStats| {
        let mut all = Vec::new();
        metric::of_heap(stats, &mut |metric| {
            if let (Kind::Counter, Value::Count(count)) = (metric.kind, metric.value) {
                all.push((metric.name, metric.part, count));
            }
        });
        all
    };
    for ((name, part, before), (_, _, now)) in counters(before).into_iter().zip(counters(now)) {
        assert!(before <= now, "{name} {part:?}: {before} and then {now}");
    }
}

/// Every counter at rest against the walker, after random operations of all kinds. Catches a count that is
/// missed, doubled, or kept under another class.
#[test]
fn counters_agree_with_the_walker() {
    for seed in 0..steps(12, 1) as u64 {
        run(&TestHeap::<Checked>::new(Host::default()), seed);
        if !cfg!(miri) {
            run(&TestHeap::<Unchecked>::new(Host::default()), seed);
        }
    }
    if cfg!(miri) {
        return;
    }
    let mut memory = Box::<[u8]>::new_uninit_slice(700_000);
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
    for seed in 0..steps(6, 1) as u64 {
        run(&Heap::<_, DefaultLock, Checked>::new(&provider), seed);
    }
}

/// Epochs that come and go in a short ring, with locals that stay behind: each era's figures are its own, and
/// the classes' are of all eras. Catches counts of one era that are found in the next, or lost with it.
#[test]
fn an_era_has_its_own_figures() {
    let heap = TestHeap::<ShortRing>::new(Host::default());
    let (mut first, mut second) = (heap.local().unwrap(), heap.local().unwrap());
    let mut allocated = 0u64;
    let mut before = heap.stats();
    for round in 0..steps(40, 2) as u64 {
        let epoch = heap.advance().unwrap();
        heap.set_label(epoch, &format!("round {round}")).unwrap();
        let mut objects = Vec::new();
        for n in 0..steps(100, 70) as u64 + 10 * round {
            let local = if n % 2 == 0 { &mut first } else { &mut second };
            objects.push(local.alloc_in(epoch, layout(64)).unwrap());
            allocated += 1;
        }
        let large = heap.alloc_in(epoch, layout(50_000)).unwrap();
        let stats = heap.epoch_stats(epoch).unwrap();
        assert_eq!(stats.live_objects(), objects.len() as u64 + 1);
        assert_eq!(
            (stats.large_objects, stats.is_current, stats.younger),
            (1, true, 0)
        );
        // Of this era alone: each slab of 64 is one visit of a local, and two more for what is not full.
        let slabs = objects.len().div_ceil(64) as u64;
        assert!((slabs..=slabs + 2).contains(&stats.slabs.made), "{stats:?}");
        assert_eq!(stats.slow.no_word, 2);
        assert_eq!(
            stats.slow.hits(),
            stats.slow.new_slabs + stats.slow.from_stash + stats.slow.from_depot()
        );
        agree(&heap);
        for object in objects {
            // SAFETY: each is live and freed once.
            unsafe { first.free(object, layout(64)) }.unwrap();
        }
        free(&heap, large, 50_000);
        if round % 3 == 0 {
            first.leave(epoch);
            second.leave(epoch);
        }
        let now = agree(&heap);
        only_grows(&before, &now);
        before = now;
    }
    let class = (0..heap.class_count())
        .filter_map(|i| heap.class_stats(i))
        .find(|c| c.size == 64)
        .unwrap();
    // Locals that count what they do, so that it is not lost with them.
    let spills = class.slow.spills;
    assert!(class.slow.new_slabs * 64 >= allocated / 40 && (spills > 0 || cfg!(miri)));
    drop((first, second));
    let now = agree(&heap);
    only_grows(&before, &now);
    let class = heap.class_stats(class.index).unwrap();
    assert_eq!(
        class.slow.spills, spills,
        "what locals counted outlives them"
    );
}

/// Each refusal is counted under its kind, in its class and its epoch.
#[test]
fn refusals_are_counted_by_kind() {
    let heap = TestHeap::<Checked>::new(Host::default());
    let mut local = heap.local().unwrap();
    let errors = || heap.stats().errors;
    let epoch = heap.open_epoch().unwrap();
    let object = local.alloc_in(epoch, layout(64)).unwrap();
    heap.close(epoch).unwrap();
    assert_eq!(
        local.alloc_in(epoch, layout(64)),
        Err(AllocError::EpochClosed)
    );
    assert_eq!(
        heap.alloc_in(epoch, layout(64)),
        Err(AllocError::EpochClosed)
    );
    assert_eq!(errors().allocs, [0, 0, 0, 2, 0]);
    // SAFETY: each free is of a live object or of none, which a checked heap finds out.
    unsafe {
        local.free(object, layout(64)).unwrap();
        assert_eq!(local.free(object, layout(64)), Err(FreeError::DoubleFree));
        assert_eq!(heap.free(object, layout(64)), Err(FreeError::DoubleFree));
        let live = heap.alloc(layout(64)).unwrap();
        assert_eq!(heap.free(live.add(8), layout(64)), Err(FreeError::Interior));
        assert_eq!(heap.free(live, layout(2000)), Err(FreeError::WrongLayout));
        let foreign = Box::leak(Box::new(0u64));
        let pointer = core::ptr::NonNull::from(&mut *foreign);
        assert_eq!(
            heap.free(pointer.cast(), layout(64)),
            Err(FreeError::Foreign)
        );
        drop(Box::from_raw(foreign));
        assert_eq!(errors().frees, [2, 1, 1, 1]);
        heap.free(live, layout(64)).unwrap();
    }
    let handle = heap.alloc_handle(layout(64)).unwrap();
    heap.free_raw(handle).unwrap();
    assert_eq!(heap.free_raw(handle), Err(HandleError::Stale));
    assert_eq!(local.free_raw(handle), Err(HandleError::Stale));
    assert_eq!(
        heap.free_raw(RawHandle::from_bits(0)),
        Err(HandleError::Malformed)
    );
    assert_eq!(heap.get_raw(handle), None);
    assert_eq!(errors().handles, [1, 0, 2, 0, 0], "asking is no error");
    assert_eq!(errors().misuses(), 6, "stale handles are none");
    // The limit.
    heap.set_limit(heap.bytes().taken);
    let class = heap.class_stats(17).unwrap();
    let mut kept = Vec::new();
    let refused = loop {
        match local.alloc(layout(class.size)) {
            Ok(object) => kept.push(object),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AllocError::Limit);
    assert_eq!(heap.class_stats(17).unwrap().slow.limit, 1);
    assert_eq!((errors().allocs[1], local.slow_paths().limit), (1, 1));
    assert!(heap.alloc(layout(1 << 20)).is_err());
    assert_eq!(errors().allocs[1], 2);
    heap.set_limit(usize::MAX);
    for object in kept {
        free(&heap, object, class.size);
    }
    drop(local);
    agree(&heap);
}

/// Scopes' slabs and blocks are where the residency says, and the parts are still the whole.
#[test]
fn what_scopes_hold_is_seen() {
    let heap = TestHeap::<Checked>::new(Host::default());
    let scope = temporal_slab::Scope::new(&heap);
    let numbers = scope.slice_with(3000, |n| n).unwrap();
    numbers[0] = 1;
    let handle = scope.alloc_handle(layout(100)).unwrap();
    let stats = heap.stats();
    assert!(
        stats.residency.scoped > 0 && stats.large.objects() > 0,
        "{:?}",
        stats.residency
    );
    let parts: u64 = stats.residency.parts().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(parts, stats.pages.resident);
    assert!(heap.check_handle(handle).is_ok());
    drop(scope);
    heap.reclaim();
    let stats = agree(&heap);
    assert_eq!((stats.residency.scoped, stats.large.objects()), (0, 0));
}

/// Slots whose generations are used up are no slots: the sums hold while they are retired and after.
#[test]
fn retired_slots_are_accounted() {
    #[derive(Debug)]
    struct Few;
    impl Config for Few {
        const HANDLE_GENERATION_BITS: u32 = 2;
        const CHECKED: bool = true;
    }
    let heap = TestHeap::<Few>::new(Host::default());
    let keep = heap.alloc_handle(layout(64)).unwrap();
    for _ in 0..steps(500, 6) {
        let handle = heap.alloc_handle(layout(64)).unwrap();
        heap.free_raw(handle).unwrap();
        agree(&heap);
    }
    heap.free_raw(keep).unwrap();
    heap.reclaim();
    assert_eq!(agree(&heap).slabs.slabs, 0);
}

/// Snapshots while four threads use the heap, its epochs and its policy. Catches a count that goes back, a
/// share beyond 1, a list that is followed while it changes, and a reader that makes others wait for ever.
#[test]
fn snapshots_under_load() {
    let heap = TestHeap::<ShortRing>::new(Host::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (heap, stop) = (&heap, &stop);
        for seed in 0..3u64 {
            scope.spawn(move || {
                let mut rng = Rng(seed);
                let mut local = heap.local().unwrap();
                for round in 0..steps(400, 2) {
                    let epoch = heap.open_epoch();
                    let mut objects = Vec::new();
                    for _ in 0..steps(300, 20) {
                        let layout = layout(1 + rng.below(600));
                        let object = match epoch {
                            Ok(epoch) if rng.below(3) > 0 => local.alloc_in(epoch, layout),
                            _ if rng.below(2) == 0 => heap.alloc(layout),
                            _ => local.alloc(layout),
                        };
                        objects.push((object.unwrap(), layout));
                        if rng.below(3) == 0 {
                            let (object, layout) = objects.swap_remove(rng.below(objects.len()));
                            // SAFETY: each is live and freed once.
                            unsafe { local.free(object, layout) }.unwrap();
                        }
                    }
                    if let Ok(epoch) = epoch {
                        heap.close(epoch).unwrap();
                    }
                    for (object, layout) in objects {
                        // SAFETY: as above.
                        unsafe { local.free(object, layout) }.unwrap();
                    }
                    if round % 16 == 0 {
                        heap.set_policy(if round % 32 == 0 {
                            Policy::Eager
                        } else {
                            Policy::DEFAULT
                        });
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
        let mut before = heap.stats();
        while !stop.load(Ordering::Relaxed) {
            let now = heap.stats();
            only_grows(&before, &now);
            for part in [
                now.waste(),
                now.slabs.fragmentation(),
                now.slabs.recycle_rate(),
                now.shared.retry_rate(),
            ] {
                assert!((0.0..=1.0).contains(&part), "{part}");
            }
            for index in 0..now.ring as usize {
                if let Some(epoch) = heap.epoch_at(index)
                    && let Ok(stats) = heap.epoch_stats(epoch)
                {
                    assert!((0.0..=1.0).contains(&stats.waste()));
                }
            }
            before = now;
        }
    });
    let census = walk(&heap);
    assert_eq!(census.live_slots, 0);
    let stats = heap.stats();
    assert_eq!((stats.live_objects(), stats.locals.locals), (0, 0));
    assert_eq!(stats.slabs.slabs, census.slabs as u64);
}

/// What two locals did is what the classes and the epoch say was done, field by field. Catches what is counted in
/// one place and not in another.
#[test]
fn locals_classes_and_epochs_say_the_same() {
    let heap = TestHeap::<Unchecked>::new(Host::default());
    heap.set_policy(Policy::Never);
    let epoch = heap.open_epoch().unwrap();
    let mut locals = [heap.local().unwrap(), heap.local().unwrap()];
    let mut rng = Rng(3);
    let mut objects = Vec::new();
    for round in 0..steps(40, 2) {
        for _ in 0..steps(400, 150) {
            let size = 1 + rng.below(300);
            let object = locals[rng.below(2)].alloc_in(epoch, layout(size)).unwrap();
            objects.push((object, size));
        }
        while objects.len() > 100 * (round % 3) {
            let (object, size) = objects.swap_remove(rng.below(objects.len()));
            // SAFETY: it is live and freed once.
            unsafe { locals[rng.below(2)].free(object, layout(size)) }.unwrap();
        }
        // Nothing is live in every third round.
        if round % 3 == 0 {
            locals.iter_mut().for_each(|local| local.flush());
        }
    }
    let add = |sum: SlowPathStats, slow: SlowPathStats| {
        let mut sum = sum;
        sum.no_word += slow.no_word;
        sum.from_stash += slow.from_stash;
        sum.depot_visits += slow.depot_visits;
        sum.from_cache += slow.from_cache;
        sum.new_slabs += slow.new_slabs;
        sum.spills += slow.spills;
        sum.words_taken += slow.words_taken;
        sum.words_given += slow.words_given;
        sum
    };
    let of_locals = locals
        .iter()
        .map(|local| local.slow_paths())
        .fold(SlowPathStats::default(), add);
    assert_eq!(heap.stats().slow, of_locals);
    assert_eq!(heap.epoch_stats(epoch).unwrap().slow, of_locals);
    if !cfg!(miri) {
        let all = [
            of_locals.from_stash,
            of_locals.from_cache,
            of_locals.spills,
            of_locals.words_taken,
            of_locals.words_given,
        ];
        assert!(all.iter().all(|count| *count > 0), "{of_locals:?}");
    }
    for (object, size) in objects {
        free(&heap, object, size);
    }
}

/// A local whose epoch was closed, drained and followed by another in the same place, between two of its slow paths:
/// what it does there is the new era's. Catches a seat that counts for the era that it was made in.
#[test]
fn a_seat_outlives_its_era() {
    let heap = TestHeap::<Checked>::new(Host::default());
    let mut local = heap.local().unwrap();
    let class = heap
        .class_stats(heap.class_of(layout(64)).unwrap())
        .unwrap();
    let first = heap.open_epoch().unwrap();
    // Slabs that the depot has words of, so that the local has some in its stash; it holds nothing in the end.
    let count = 4 * class.slots_per_slab;
    for through_local in [false, true] {
        let objects: Vec<_> = (0..count)
            .map(|_| match through_local {
                true => local.alloc_in(first, layout(64)).unwrap(),
                false => heap.alloc_in(first, layout(64)).unwrap(),
            })
            .collect();
        for object in objects {
            free(&heap, object, 64);
        }
    }
    let before = local.slow_paths().from_stash;
    assert!(
        before > 0 && local.stats().held_slots == 0,
        "{:?}",
        local.stats()
    );
    heap.close(first).unwrap();
    let second = heap.open_epoch().unwrap();
    let objects: Vec<_> = (0..steps(2000, 300))
        .map(|_| local.alloc_in(second, layout(64)).unwrap())
        .collect();
    for object in objects {
        // SAFETY: it is live and freed once.
        unsafe { local.free(object, layout(64)) }.unwrap();
    }
    let spills = local.slow_paths().spills;
    assert!(spills > 0);
    let slow = heap.epoch_stats(second).unwrap().slow;
    assert_eq!(slow.spills, spills);
    assert_eq!(slow.from_stash, local.slow_paths().from_stash - before);
    local.flush();
    assert_eq!(
        heap.epoch_stats(second).unwrap().slow.spills,
        spills,
        "and after the seat is gone"
    );
    agree(&heap);
}

/// What a close looked at and gave back, what a decommit gave back, and what an epoch was refused.
#[test]
fn closes_decommits_and_refusals_are_counted() {
    let heap = TestHeap::<Checked>::new(Host::default());
    heap.set_policy(Policy::Never);
    let epoch = heap.open_epoch().unwrap();
    let slots = heap
        .class_stats(heap.class_of(layout(256)).unwrap())
        .unwrap()
        .slots_per_slab;
    // Five slabs, of which one keeps an object and one stays open where the shared path looks first.
    let mut objects: Vec<_> = (0..5 * slots)
        .map(|_| heap.alloc_in(epoch, layout(256)).unwrap())
        .collect();
    let kept = objects.swap_remove(0);
    for object in objects {
        free(&heap, object, 256);
    }
    let stats = heap.epoch_stats(epoch).unwrap();
    assert_eq!((stats.slabs.slabs, stats.slabs.empty()), (5, 4));
    heap.close(epoch).unwrap();
    let closes = heap.stats().closes;
    assert_eq!(
        (closes.closes, closes.slabs_scanned, closes.slabs_recycled),
        (1, 5, 4)
    );
    let before = heap.stats().pages;
    heap.reclaim();
    let after = heap.stats().pages;
    assert!(after.decommitted_bytes > 0 && after.chunks_released == 0);
    assert_eq!(before.resident - after.resident, after.decommitted_bytes);
    free(&heap, kept, 256);
    // Refused by the limit: a slab, and a large object.
    let epoch = heap.open_epoch().unwrap();
    heap.set_limit(1);
    let sizes = [64, 1 << 20];
    for size in sizes {
        let mut kept = Vec::new();
        while let Ok(object) = heap.alloc_in(epoch, layout(size)) {
            kept.push(object);
        }
        for object in kept {
            free(&heap, object, size);
        }
    }
    let slow = heap.epoch_stats(epoch).unwrap().slow;
    assert_eq!(slow.limit, 2);
    assert_eq!(heap.stats().errors.allocs[1], 2);
    heap.set_limit(usize::MAX);
    agree(&heap);
}

/// A heap that never had memory says so. Catches failures before there is a class or an epoch to count them in.
#[test]
fn failures_before_the_first_object_are_counted() {
    let mut memory = [core::mem::MaybeUninit::uninit(); 4096];
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
    let heap: Heap<StaticProvider<'_>, DefaultLock, Checked> = Heap::new(provider);
    assert!(heap.alloc(layout(64)).is_err() && heap.local().is_err());
    assert!(heap.alloc_handle(layout(64)).is_err());
    assert_eq!(heap.stats().errors.allocs, [3, 0, 0, 0, 0]);
}

/// A lock that runs something after one of its unlocks: as if another thread came just then.
struct Interrupted(AtomicBool);

type Then = (usize, Box<dyn FnOnce()>);

std::thread_local! {
    static THEN: Cell<Option<Then>> = const { Cell::new(None) };
}

// SAFETY: the flag goes from false to true by one compare-and-swap, so one context has it.
unsafe impl RawMutex for Interrupted {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;
    fn lock(&self) {
        while !self.try_lock() {
            core::hint::spin_loop();
        }
    }
    fn try_lock(&self) -> bool {
        self.0
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
        match THEN.take() {
            Some((0, then)) => then(),
            Some((left, then)) => THEN.set(Some((left - 1, then))),
            None => {}
        }
    }
}

/// A list that is taken away and listed again, in another order, at each moment of its being counted: it is never
/// counted twice, and if it changed the figures say that they are estimates.
#[test]
#[cfg(not(miri))]
fn a_list_that_changes_is_not_counted_twice() {
    let heap: &'static Heap<Host, Interrupted, Unchecked> =
        Box::leak(Box::new(Heap::new(Host::default())));
    let mut local = heap.local().unwrap();
    let objects: Vec<_> = (0..9600)
        .map(|_| local.alloc(layout(1024)).unwrap())
        .collect();
    local.flush();
    let class = heap.class_of(layout(1024)).unwrap();
    for object in objects.iter().step_by(2) {
        // SAFETY: it is live and freed once.
        unsafe { heap.free(*object, layout(1024)) }.unwrap();
    }
    let rest = heap.class_stats(class).unwrap().slabs;
    assert!(rest.listed > 256 && !rest.is_cut, "{rest:?}");
    let mut changed = 0;
    for at in 0..40 {
        let then = Box::new(move || {
            let mut local = heap.local().unwrap();
            let objects: Vec<_> = (0..4800)
                .map(|_| local.alloc(layout(1024)).unwrap())
                .collect();
            for object in objects {
                // SAFETY: as above.
                unsafe { local.free(object, layout(1024)) }.unwrap();
            }
        });
        THEN.set(Some((at, then)));
        let slabs = heap.class_stats(class).unwrap().slabs;
        drop(THEN.take());
        assert!(
            slabs.listed <= rest.listed && slabs.free_slots <= slabs.slots,
            "at {at}: {slabs:?}"
        );
        changed += usize::from(slabs.is_cut);
    }
    assert!(changed > 0, "some of them came between two steps");
}
