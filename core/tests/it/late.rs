//! Who comes late to an era's end: a taker or a reclaimer that stands still between two locks while the epoch closes
//! and its depot begins to serve the next. A lock with a hook has them stand still where they do harm.
#![cfg(not(miri))]

use crate::common::hooked::{Hooked, hooked};
use crate::common::host::HostProvider;
use crate::common::{ShortRing, layout, walk};
use core::sync::atomic::{AtomicUsize, Ordering};
use temporal_slab::{AllocError, Epoch, Heap};

/// Two threads in step.
#[derive(Debug, Default)]
struct Steps(AtomicUsize);

impl Steps {
    fn go(&self, step: usize) {
        self.0.store(step, Ordering::SeqCst);
    }

    fn wait(&self, step: usize) {
        while self.0.load(Ordering::SeqCst) < step {
            std::thread::yield_now();
        }
    }
}

type TheHeap = Heap<ShortRing<HostProvider<{ 1 << 18 }>, Hooked>>;

/// An epoch that has its depot.
fn open(heap: &TheHeap) -> Epoch {
    let epoch = heap.open_epoch().unwrap();
    let object = heap.alloc_in(epoch, layout(20_000)).unwrap();
    // SAFETY: it is live and freed once.
    unsafe { heap.free(object, layout(20_000)) }.unwrap();
    epoch
}

/// A taker found its epoch open and stands still; the epoch is closed, and its depot serves the next, which has a slab there; the taker
/// takes a slot of that, sees the tag and gives it back. Catches an object of one era in a slab of another, and a slot that is lost.
#[test]
fn a_taker_that_comes_late() {
    let heap = TheHeap::new(HostProvider::default());
    let old = open(&heap);
    let steps: &'static Steps = Box::leak(Box::default());
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            let stands_still = |is_lock, number| match (is_lock, number) {
                // Before the class list's lock, and behind the check of the tag.
                (true, 1) => {
                    steps.go(1);
                    steps.wait(2);
                }
                // It has the slot.
                (false, 1) => {
                    steps.go(3);
                    steps.wait(4);
                }
                _ => {}
            };
            hooked(stands_still, || heap.alloc_in(old, layout(64)).map(|_| ()))
        });
        steps.wait(1);
        heap.close(old).unwrap();
        let next = open(&heap);
        let objects = [(); 2].map(|()| heap.alloc_in(next, layout(64)).unwrap());
        steps.go(2);
        steps.wait(3);
        let slots = heap.epoch_stats(next).unwrap().slabs;
        assert_eq!((slots.slabs, slots.live_slots), (1, 3), "in its slab");
        steps.go(4);
        assert_eq!(late.join().unwrap(), Err(AllocError::EpochClosed));
        assert_eq!(heap.epoch_stats(next).unwrap().live_objects(), 2);
        walk(&heap);
        for object in objects {
            crate::common::free(&heap, object, 64);
        }
        heap.close(next).unwrap();
        heap.reclaim();
        assert_eq!(walk(&heap).slabs, 0, "a slab that nobody finds");
    });
}

/// A reclaimer took a slab from the cache of an epoch and stands still, while that is closed and the next begins: in no era there is a slab
/// too many or too few. Catches a depot that serves again while a slab of it is in somebody's hands.
#[test]
fn a_reclaim_under_way() {
    for stop in 1..12 {
        let heap = TheHeap::new(HostProvider::default());
        let old = open(&heap);
        let objects: Vec<_> = (0..300)
            .map(|_| heap.alloc_in(old, layout(64)).unwrap())
            .collect();
        for object in objects {
            crate::common::free(&heap, object, 64);
        }
        assert!(heap.stats().slabs.cached > 0);
        let steps: &'static Steps = Box::leak(Box::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let stands_still = move |is_lock: bool, number: usize| {
                    if !is_lock && number == stop {
                        steps.go(1);
                        steps.wait(2);
                    }
                };
                hooked(stands_still, || heap.reclaim_to(0));
                steps.go(1);
            });
            steps.wait(1);
            heap.close(old).unwrap();
            let next = heap.open_epoch().unwrap();
            let object = heap.alloc_in(next, layout(64)).unwrap();
            let stats = heap.epoch_stats(next).unwrap();
            assert_eq!(
                (stats.slabs.slabs, stats.live_objects()),
                (1, 1),
                "stopped at {stop}"
            );
            crate::common::free(&heap, object, 64);
            heap.close(next).unwrap();
            steps.go(2);
        });
        let class = heap.class_of(layout(64)).unwrap();
        let (census, slabs) = (walk(&heap), heap.class_stats(class).unwrap().slabs);
        assert_eq!(slabs.slabs, census.slabs as u64, "stopped at {stop}");
        assert_eq!(slabs.made - slabs.recycled, slabs.slabs);
        heap.reclaim();
        assert_eq!(walk(&heap).slabs, 0);
    }
}
