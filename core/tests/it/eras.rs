//! What one epoch leaves for the next: pages, and nothing else.
//!
//! Not under Miri: these are figures at each step. What is unsafe here `eras_under_contention` has, among the epochs.
#![cfg(not(miri))]

use crate::common::figures::agree;
use crate::common::host::HostProvider;
use crate::common::{Rng, free, layout, walk};
use core::ptr::NonNull;
use temporal_slab::config::Checked;
use temporal_slab::{Epoch, HandleError, Heap, Policy};

const CHUNK: usize = 1 << 18;
type Host = HostProvider<CHUNK>;
type TestHeap<C = Checked<Host>> = Heap<C>;

/// Sizes of several classes.
const SIZES: [usize; 4] = [16, 64, 200, 700];

/// What an epoch leaves is memory for anything: no slab is left of it, whatever the policy, and the next one takes no more from the
/// provider where the policy keeps it. All figures are those of the era alone, at each step. Catches slabs that are counted in two
/// eras or stay in none, and class lists that do not open again.
#[test]
fn an_era_leaves_pages() {
    let policies = [
        (Policy::keeping(1 << 20), true),
        (Policy::NEVER, true),
        (Policy::DEFAULT, true),
        (Policy::ON_CLOSE, false),
    ];
    let ways = policies
        .into_iter()
        .flat_map(|of| [(of, false), (of, true)]);
    for ((policy, keeps), is_shared) in ways {
        let heap = TestHeap::<Checked<Host>>::new(Host::default());
        heap.set_policy(policy);
        let mut local = heap.local().unwrap();
        let mut first = None;
        let mut warm = 0;
        for round in 0..12 {
            let epoch = heap.open_epoch().unwrap();
            let fresh = heap.epoch_stats(epoch).unwrap();
            assert_eq!(
                (
                    fresh.slow.new_slabs,
                    fresh.live_objects(),
                    fresh.slow.hits()
                ),
                (0, 0, 0)
            );
            let count = 90;
            let objects: Vec<_> = (0..count * SIZES.len())
                .map(|n| {
                    let size = SIZES[n % SIZES.len()];
                    let object = if is_shared {
                        heap.alloc_in(epoch, layout(size))
                    } else {
                        local.alloc_in(epoch, layout(size))
                    };
                    (object.unwrap(), size)
                })
                .collect();
            let stats = agree(&heap);
            let of_epoch = heap.epoch_stats(epoch).unwrap();
            assert_eq!(of_epoch.slabs.slabs, stats.slabs.slabs, "they are all its");
            assert_eq!(of_epoch.live_objects(), objects.len() as u64);
            let slabs = of_epoch.slow.new_slabs;
            assert_eq!(
                *first.get_or_insert(slabs),
                slabs,
                "round {round} under {policy:?}"
            );
            for (object, size) in objects {
                // SAFETY: it is live and freed once.
                unsafe { local.free(object, layout(size)) }.unwrap();
            }
            local.leave(epoch);
            let closed = heap.close(epoch).unwrap();
            assert_eq!(closed.survivors, 0);
            let stats = agree(&heap);
            assert_eq!(
                (stats.open_epochs, stats.closing_epochs),
                (1, 0),
                "nothing is left of it"
            );
            assert_eq!((stats.slabs.slabs, stats.residency.cached), (0, 0));
            assert_eq!(stats.residency.warm > 0, keeps, "under {policy:?}");
            if keeps && round > 0 {
                assert_eq!(stats.residency.warm, warm, "the same pages");
            }
            warm = stats.residency.warm;
            crate::common::takes_nothing(&heap, &mut local, epoch);
        }
        heap.reclaim();
        let stats = agree(&heap);
        assert_eq!((stats.slabs.slabs, stats.residency.reclaimable()), (0, 0));
    }
}

/// What is freed after the close leaves no slab either; and while one object lives the depot serves no other era. Catches a depot that is
/// taken for drained while it is not.
#[test]
fn a_late_free_leaves_no_slab() {
    for policy in [Policy::keeping(1 << 20), Policy::ON_CLOSE] {
        let heap = TestHeap::<Checked<Host>>::new(Host::default());
        heap.set_policy(policy);
        let old = heap.open_epoch().unwrap();
        let mut objects: Vec<_> = (0..100)
            .map(|_| heap.alloc_in(old, layout(64)).unwrap())
            .collect();
        assert_eq!(heap.close(old).unwrap().survivors, 100);
        let last = objects.pop().unwrap();
        objects
            .into_iter()
            .for_each(|object| free(&heap, object, 64));
        let next = heap.open_epoch().unwrap();
        let other = heap.alloc_in(next, layout(64)).unwrap();
        let block = |object: NonNull<u8>| object.addr().get() >> 16;
        assert_ne!(block(last), block(other), "two eras in one block");
        assert_eq!(heap.epoch_stats(old).unwrap().live_objects(), 1);
        walk(&heap);
        free(&heap, last, 64);
        free(&heap, other, 64);
        heap.close(next).unwrap();
        let stats = agree(&heap);
        assert_eq!((stats.closing_epochs, stats.slabs.slabs), (0, 0));
    }
}

/// A handle of an era that is over is refused, though its slab serves again, in the same depot. Catches a slab that
/// begins another life with its old tags.
#[test]
fn handles_of_an_era_before_are_stale() {
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    heap.set_policy(Policy::NEVER);
    let mut dead = Vec::new();
    let mut slabs = None;
    for _ in 0..20 {
        let epoch = heap.open_epoch().unwrap();
        let handles: Vec<_> = (0..50)
            .map(|_| heap.alloc_raw_in(epoch, layout(48)).unwrap())
            .collect();
        for handle in &dead {
            assert_eq!(heap.try_get_raw(*handle), Err(HandleError::Stale));
        }
        for handle in handles {
            assert!(heap.get_raw(handle).is_some());
            heap.free_raw(handle).unwrap();
            dead.push(handle);
        }
        heap.close(epoch).unwrap();
        let now = agree(&heap).residency.metadata;
        assert_eq!(*slabs.get_or_insert(now), now, "the same metadata");
    }
}

/// The bound is one for all depots, however their epochs come and go: what waits is never more, and is counted to the byte. Catches what
/// is told twice or not at all.
#[test]
fn what_waits_is_bounded() {
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    let bytes = 96 << 10;
    heap.set_policy(Policy::keeping(bytes));
    let mut locals: Vec<_> = (0..3).map(|_| heap.local().unwrap()).collect();
    let mut rng = Rng(5);
    for _ in 0..200 {
        let epochs: Vec<Epoch> = (0..3).map(|_| heap.open_epoch().unwrap()).collect();
        let mut objects = Vec::new();
        for _ in 0..rng.below(900) {
            let (number, size) = (rng.below(3), SIZES[rng.below(4)]);
            let object = locals[number]
                .alloc_in(epochs[number], layout(size))
                .unwrap();
            objects.push((object, size));
        }
        walk(&heap);
        for (object, size) in objects {
            // SAFETY: it is live and freed once.
            unsafe { locals[rng.below(3)].free(object, layout(size)) }.unwrap();
        }
        for (local, epoch) in locals.iter_mut().zip(&epochs) {
            if rng.below(4) > 0 {
                local.leave(*epoch);
            }
            if rng.below(8) == 0 {
                local.flush();
            }
            heap.close(*epoch).unwrap();
        }
        let stats = agree(&heap);
        assert!(
            stats.residency.cached <= bytes as u64,
            "{:?}",
            stats.residency
        );
    }
    drop(locals);
    assert!(heap.bytes().reclaimable <= bytes + CHUNK);
    heap.reclaim();
    assert_eq!(heap.bytes().reclaimable, 0);
    assert_eq!(walk(&heap).slabs, 0);
}
