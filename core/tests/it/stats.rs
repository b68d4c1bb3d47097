//! Statistics: at rest every number is that of the walker or of what was done; under load none is negative and
//! what only grows never shrinks.

use crate::common::figures::{agree, only_grows};
use crate::common::host::HostProvider;
use crate::common::{Action, World};
use crate::common::{Rng, ShortRing, free, layout, steps, walk};
use core::sync::atomic::{AtomicBool, Ordering};
use temporal_slab::config::{Checked, Config, Unchecked};
use temporal_slab::provider::StaticProvider;
use temporal_slab::{AllocError, FreeError, HandleError, Heap, Policy, RawHandle};

type Host = HostProvider<{ 1 << 18 }>;
type TestHeap<C = Checked<Host>> = Heap<C>;

fn run<C: Config>(heap: &Heap<C>, seed: u64) {
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

/// Every counter at rest against the walker, after random operations of all kinds. Catches a count that is
/// missed, doubled, or kept under another class.
#[test]
fn counters_agree_with_the_walker() {
    for seed in 0..steps(12, 1) as u64 {
        run(&TestHeap::<Checked<Host>>::new(Host::default()), seed);
        if !cfg!(miri) {
            run(&TestHeap::<Unchecked<Host>>::new(Host::default()), seed);
        }
    }
    if cfg!(miri) {
        return;
    }
    let mut memory = Box::<[u8]>::new_uninit_slice(700_000);
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
    for seed in 0..steps(6, 1) as u64 {
        run(&Heap::<Checked<_>>::new(&provider), seed);
    }
}

/// Epochs that come and go in a short ring, with locals that stay behind: each era's figures are its own, and
/// the classes' are of all eras. Catches counts of one era that are found in the next, or lost with it.
#[test]
fn an_era_has_its_own_figures() {
    let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
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
        // Of an epoch cache that served an epoch before the cells are there.
        assert!(stats.slow.no_word <= 2 && (round > 0 || stats.slow.no_word == 2));
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
    let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let errors = || heap.stats().errors;
    let epoch = heap.open_epoch().unwrap();
    let object = local.alloc_in(epoch, layout(64)).unwrap();
    heap.close(epoch).unwrap();
    crate::common::takes_nothing(&heap, &mut local, epoch);
    assert_eq!(errors().allocs, [0, 0, 0, 2, 0, 0]);
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
    let handle = heap.alloc_raw(layout(64)).unwrap();
    heap.free_raw(handle).unwrap();
    assert_eq!(heap.free_raw(handle), Err(HandleError::Stale));
    assert_eq!(local.free_raw(handle), Err(HandleError::Stale));
    assert_eq!(
        heap.free_raw(RawHandle::from_bits(0)),
        Err(HandleError::Malformed)
    );
    assert_eq!(heap.get_raw(handle), None);
    let now = errors();
    assert_eq!(now.handles, [1, 0, 2, 0, 0], "asking is no error");
    assert_eq!(now.misuses(), 6, "stale handles are none");
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
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    let scope = temporal_slab::Scope::new(&heap);
    let numbers = scope.alloc_slice_fill_with(3000, |n| n).unwrap();
    numbers[0] = 1;
    let handle = scope.alloc_raw(layout(100)).unwrap();
    let stats = heap.stats();
    assert!(
        stats.residency.scoped > 0 && stats.large.objects() > 0,
        "{:?}",
        stats.residency
    );
    let parts: u64 = stats.residency.parts().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(parts, stats.pages.resident);
    assert!(heap.try_get_raw(handle).is_ok());
    drop(scope);
    heap.reclaim();
    let stats = agree(&heap);
    assert_eq!((stats.residency.scoped, stats.large.objects()), (0, 0));
}

/// Slots whose generations are used up are no slots: the sums hold while they are retired and after.
#[test]
fn retired_slots_are_accounted() {
    temporal_slab_actions::configs! {
        struct Few {
            const HANDLE_GENERATION_BITS: u32 = 2;
            const CHECKED: bool = true;
            const RING: usize = ShortRing::<P, L>::RING;
            const EPOCHS: usize = Self::RING;
        }
    }
    let heap = TestHeap::<Few<Host>>::new(Host::default());
    let keep = heap.alloc_raw(layout(64)).unwrap();
    for _ in 0..steps(500, 6) {
        let handle = heap.alloc_raw(layout(64)).unwrap();
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
    let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
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
                            Policy::EAGER
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
            for index in 0..heap.epoch_records() {
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
