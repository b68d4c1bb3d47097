//! Counts that are known beforehand: each cause by itself, and what two who count the same thing say of it.

use crate::common::figures::agree;
use crate::common::hooked::{Hooked, hooked};
use crate::common::host::HostProvider;
use crate::common::{Rng, ShortRing, free, layout, steps};
use temporal_slab::config::{Checked, Unchecked};
use temporal_slab::provider::StaticProvider;
use temporal_slab::snapshot::SlowPathStats;
use temporal_slab::{Heap, Policy};

type Host = HostProvider<{ 1 << 18 }>;
type TestHeap<C = Checked<Host>> = Heap<C>;

/// What two locals did is what the classes and the epoch say was done, field by field. Catches what is counted in
/// one place and not in another.
#[test]
fn locals_classes_and_epochs_say_the_same() {
    let heap = TestHeap::<Unchecked<Host>>::new(Host::default());
    heap.set_policy(Policy::NEVER);
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
/// what it does there is the new era's. Catches an epoch cache that counts for the era that it was made in.
#[test]
fn an_epoch_cache_outlives_its_era() {
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
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
        "and after the cache is gone"
    );
    agree(&heap);
}

/// What a close looked at and gave back, what a decommit gave back, and what an epoch was refused.
#[test]
fn closes_decommits_and_refusals_are_counted() {
    const SIZE: usize = steps(256, 2048);
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    heap.set_policy(Policy::ON_CLOSE);
    let epoch = heap.open_epoch().unwrap();
    let slots = heap
        .class_stats(heap.class_of(layout(SIZE)).unwrap())
        .unwrap()
        .slots_per_slab;
    // Five slabs, of which one keeps an object and one stays open where the shared path looks first.
    let mut objects: Vec<_> = (0..5 * slots)
        .map(|_| heap.alloc_in(epoch, layout(SIZE)).unwrap())
        .collect();
    let kept = objects.swap_remove(0);
    for object in objects {
        free(&heap, object, SIZE);
    }
    let stats = heap.epoch_stats(epoch).unwrap();
    assert_eq!((stats.slabs.slabs, stats.slabs.empty()), (5, 4));
    let before = heap.stats().pages;
    heap.close(epoch).unwrap();
    let closes = heap.stats().closes;
    assert_eq!(
        (closes.closes, closes.slabs_scanned, closes.slabs_recycled),
        (1, 5, 4)
    );
    let after = heap.stats().pages;
    assert!(after.decommitted_bytes > 0 && after.chunks_released == 0);
    assert_eq!(before.resident - after.resident, after.decommitted_bytes);
    free(&heap, kept, SIZE);
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
    let heap: Heap<Checked<StaticProvider<'_>>> = Heap::new(provider);
    assert!(heap.alloc(layout(64)).is_err() && heap.local().is_err());
    assert!(heap.alloc_raw(layout(64)).is_err());
    assert_eq!(heap.stats().errors.allocs, [3, 0, 0, 0, 0, 0]);
}

/// A list that is taken away and listed again, in another order, at each moment of its being counted: it is never
/// counted twice, and if it changed the figures say that they are estimates.
#[test]
#[cfg(not(miri))]
fn a_list_that_changes_is_not_counted_twice() {
    let heap: &'static Heap<Unchecked<Host, Hooked>> =
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
    for at in 1..=40 {
        let then = move || {
            let mut local = heap.local().unwrap();
            let objects: Vec<_> = (0..4800)
                .map(|_| local.alloc(layout(1024)).unwrap())
                .collect();
            for object in objects {
                // SAFETY: as above.
                unsafe { local.free(object, layout(1024)) }.unwrap();
            }
        };
        let after = move |is_lock: bool, number| {
            if (is_lock, number) == (false, at) {
                then();
            }
        };
        let slabs = hooked(after, || heap.class_stats(class).unwrap().slabs);
        assert!(
            slabs.listed <= rest.listed && slabs.free_slots <= slabs.slots,
            "at {at}: {slabs:?}"
        );
        changed += usize::from(slabs.is_cut);
    }
    assert!(changed > 0, "some of them came between two steps");
}

/// Chunks that come and go, the lock under which they do, and what lay empty between two questions. Catches a count that
/// stands still, and idle bytes that were in use for a moment.
#[test]
fn chunks_and_idle_bytes_are_counted() {
    let heap = TestHeap::<Unchecked<Host>>::new(Host::default());
    heap.set_policy(Policy::NEVER);
    assert_eq!(heap.chunks_acquired(), 0);
    let fill = || -> Vec<_> {
        (0..40)
            .map(|_| heap.alloc(layout(20_000)).unwrap())
            .collect()
    };
    let empty = |objects: Vec<_>| {
        for object in objects {
            // SAFETY: it is live and freed once.
            unsafe { heap.free(object, layout(20_000)) }.unwrap();
        }
    };
    let objects = fill();
    let stats = heap.stats();
    assert_eq!(heap.chunks_acquired(), stats.pages.chunks_acquired);
    assert!(stats.pages.chunks_acquired >= 4, "{:?}", stats.pages);
    assert_eq!(stats.pages.chunks, stats.pages.chunks_acquired);
    let taken = stats.locks.pages.taken;
    assert!(taken >= 40, "a run is taken under the lock each time");
    assert_eq!((heap.take_idle_bytes(), heap.bytes().reclaimable), (0, 0));

    empty(objects);
    assert!(heap.stats().locks.pages.taken >= taken + 40);
    let free = heap.bytes().reclaimable;
    assert!(free >= 800_000);
    assert_eq!(heap.take_idle_bytes(), 0, "it was all in use since");
    assert_eq!(heap.take_idle_bytes(), free, "and none of it since then");
    let few = [(); 10].map(|()| heap.alloc(layout(20_000)).unwrap());
    empty(few.to_vec());
    let idle = heap.take_idle_bytes();
    assert!(
        idle <= free - 100_000 && idle >= free - 10 * 20_480,
        "{idle} of {free}"
    );
    heap.reclaim();
    let pages = heap.stats().pages;
    assert_eq!(
        (pages.chunks, pages.chunks_released),
        (0, pages.chunks_acquired)
    );
}

/// A slot that is freed where all others are taken is where the shared path looks next, without the lists' lock. Catches a
/// free that leaves the next allocation to search.
#[test]
fn the_shared_path_is_led_to_what_was_freed() {
    let heap: Heap<Unchecked<Host, Hooked>> = Heap::new(Host::default());
    let class = heap.class_of(layout(64)).unwrap();
    let slots = heap.class_stats(class).unwrap().slots_per_slab;
    let objects: Vec<_> = (0..3 * slots)
        .map(|_| heap.alloc(layout(64)).unwrap())
        .collect();
    free(&heap, objects[0], 64);
    free(&heap, objects[1], 64);
    let again = hooked(
        |_, _| panic!("a lock"),
        || [(); 2].map(|()| heap.alloc(layout(64)).unwrap()),
    );
    assert!(again.contains(&objects[0]) && again.contains(&objects[1]));
    for object in objects {
        free(&heap, object, 64);
    }
}

/// A local that begins with a class takes two words of the lists, and no more.
#[test]
fn a_first_visit_takes_two_words() {
    let heap = TestHeap::<Unchecked<Host>>::new(Host::default());
    let class = heap.class_of(layout(64)).unwrap();
    let slots = heap.class_stats(class).unwrap().slots_per_slab;
    let objects: Vec<_> = (0..5 * slots)
        .map(|_| heap.alloc(layout(64)).unwrap())
        .collect();
    let (freed, kept): (Vec<_>, Vec<_>) = (0..objects.len()).partition(|n| n % slots == 3);
    for n in freed {
        free(&heap, objects[n], 64);
    }
    let mut local = heap.local().unwrap();
    let object = local.alloc(layout(64)).unwrap();
    let slow = local.slow_paths();
    assert_eq!((slow.depot_visits, slow.words_taken), (1, 2));
    // SAFETY: it is live and freed once.
    unsafe { local.free(object, layout(64)) }.unwrap();
    for n in kept {
        free(&heap, objects[n], 64);
    }
}

/// A position whose eras follow each other, through a local: what each of them was given and took is counted once. Catches
/// a count that goes on into the next era and is told with the last one, too.
#[test]
fn eras_are_counted_apart() {
    let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    for round in 0..steps(30, 7) {
        let epoch = heap.open_epoch().unwrap();
        let objects: Vec<_> = (0..steps(300, 80))
            .map(|_| local.alloc_in(epoch, layout(64)).unwrap())
            .collect();
        for object in objects {
            // SAFETY: it is live and freed once.
            unsafe { local.free(object, layout(64)) }.unwrap();
        }
        local.leave(epoch);
        heap.close(epoch).unwrap();
        assert!(heap.alloc_in(epoch, layout(64)).is_err());
        let refused = heap.epoch_stats(epoch).unwrap().slow.epoch_closed;
        assert_eq!(refused, 1, "round {round}");
        let (slow, of_local) = (heap.stats().slow, local.slow_paths());
        assert!(slow.words_given > 0, "round {round}");
        let mut slow = slow;
        slow.epoch_closed = 0;
        assert_eq!(slow, of_local, "round {round}");
    }
}

/// What was refused, by its reason, in the epoch and in the heap.
#[test]
fn refusals_have_their_reasons() {
    let mut memory = Box::<[u8]>::new_uninit_slice(6 << 16);
    let heap: Heap<Checked<StaticProvider<'_>>> = Heap::new(StaticProvider::new(&mut memory));
    let (full, closed) = (heap.open_epoch().unwrap(), heap.open_epoch().unwrap());
    let mut local = heap.local().unwrap();
    let kept = local.alloc_in(closed, layout(64)).unwrap();
    heap.close(closed).unwrap();
    // What it has in hand it may use.
    let mut more = Vec::new();
    while let Ok(object) = local.alloc_in(closed, layout(64)) {
        more.push(object);
    }
    for size in [64, 30_000] {
        assert!(local.alloc_in(closed, layout(size)).is_err());
        assert!(heap.alloc_in(closed, layout(size)).is_err());
    }
    let mut objects = Vec::new();
    while let Ok(object) = heap.alloc_in(full, layout(2_000)) {
        objects.push(object);
    }
    assert!(heap.alloc_in(full, layout(30_000)).is_err());
    let slow = heap.epoch_stats(closed).unwrap().slow;
    assert_eq!(
        (slow.epoch_closed, slow.out_of_memory, slow.limit),
        (5, 0, 0)
    );
    assert_eq!(heap.stats().errors.allocs, [2, 0, 0, 5, 0, 0]);
    let slow = heap.epoch_stats(full).unwrap().slow;
    assert_eq!(
        (slow.epoch_closed, slow.out_of_memory, slow.limit),
        (0, 2, 0)
    );
    for object in objects {
        free(&heap, object, 2_000);
    }
    for object in more.into_iter().chain([kept]) {
        free(&heap, object, 64);
    }
}
