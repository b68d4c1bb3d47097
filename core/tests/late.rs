//! Who comes late to an era's end: a taker or a reclaimer that stands still between two locks while the epoch closes
//! and its row begins to serve the next. A lock with a hook has them stand still where they do harm.
#![cfg(not(miri))]

mod common;

use common::hooked::{Hooked, hooked};
use common::host::HostProvider;
use common::{ShortRing, layout, walk};
use core::sync::atomic::{AtomicUsize, Ordering};
use temporal_slab::{AllocError, Epoch, Heap, Policy};

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

type TheHeap = Heap<HostProvider<{ 1 << 18 }>, Hooked, ShortRing>;

/// A heap in which one slab of 64 waits for the next epoch.
fn with_a_slab_that_waits() -> TheHeap {
    let heap = TheHeap::new(HostProvider::default());
    heap.set_policy(Policy::Warm { bytes: 1 << 20 });
    one_object(&heap);
    heap
}

/// An epoch that has its row.
fn open(heap: &TheHeap) -> Epoch {
    let epoch = heap.open_epoch().unwrap();
    let object = heap.alloc_in(epoch, layout(20_000)).unwrap();
    // SAFETY: it is live and freed once.
    unsafe { heap.free(object, layout(20_000)) }.unwrap();
    epoch
}

fn one_object(heap: &TheHeap) {
    let epoch = heap.open_epoch().unwrap();
    let object = heap.alloc_in(epoch, layout(64)).unwrap();
    // SAFETY: it is live and freed once.
    unsafe { heap.free(object, layout(64)) }.unwrap();
    heap.close(epoch).unwrap();
}

/// A taker found its epoch open and stands still; the epoch is closed, and its row is found to be drained; the taker takes
/// the slab that waits, which the next era then does not find; it sees the tag and gives the slab back. Until it goes
/// on, and after that, the slab is known to the row: it is counted, reclaimed, and keeps no position of the ring.
#[test]
fn a_taker_that_comes_late() {
    let heap = with_a_slab_that_waits();
    let old = open(&heap);
    let steps: &'static Steps = Box::leak(Box::default());
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            let stands_still = |is_lock, number| match (is_lock, number) {
                // Before the bin's lock, and behind the check of the tag.
                (true, 1) => {
                    steps.go(1);
                    steps.wait(2);
                }
                // It has the slab.
                (false, 1) => {
                    steps.go(3);
                    steps.wait(4);
                }
                // It gave it back.
                (false, 2) => {
                    steps.go(5);
                    steps.wait(6);
                }
                _ => {}
            };
            hooked(stands_still, || heap.alloc_in(old, layout(64)).map(|_| ()))
        });
        steps.wait(1);
        heap.close(old).unwrap();
        // The ring's lock twice, for the position and for the row, the pages', by which that is drained, and then that of the
        // bin's beginning.
        let begins = |is_lock, number| {
            if (is_lock, number) == (true, 4) {
                steps.go(2);
                steps.wait(3);
            }
        };
        let next = hooked(begins, || open(&heap));
        steps.go(4);
        steps.wait(5);
        let stats = heap.epoch_stats(next).unwrap();
        assert_eq!(
            (stats.slabs.slabs, stats.slow.new_slabs),
            (1, 0),
            "it was taken over"
        );
        walk(&heap);
        heap.close(next).unwrap();
        heap.reclaim();
        assert_eq!(walk(&heap).slabs, 0, "a slab that nobody finds");
        let open: Vec<_> = (0..5).map(|_| heap.open_epoch().unwrap()).collect();
        steps.go(6);
        assert_eq!(late.join().unwrap(), Err(AllocError::EpochClosed));
        open.into_iter()
            .for_each(|epoch| heap.close(epoch).unwrap());
    });
    let census = walk(&heap);
    assert_eq!((census.slabs, census.live_slots), (0, 0));
}

/// A reclaimer took the slab that waits and stands still before it is counted as recycled, while the next era begins:
/// in no era there is a slab too many or too few. Catches counts that begin anew while a slab is in somebody's hands.
#[test]
fn a_reclaim_under_way() {
    for stop in 1..12 {
        let heap = with_a_slab_that_waits();
        let steps: &'static Steps = Box::leak(Box::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                steps.wait(1);
                let stands_still = move |is_lock: bool, number: usize| {
                    if !is_lock && number == stop {
                        steps.go(2);
                        steps.wait(3);
                    }
                };
                hooked(stands_still, || heap.reclaim_to(0));
                steps.go(4);
            });
            let begins = |is_lock, number| {
                if (is_lock, number) == (true, 4) {
                    steps.go(1);
                    steps.wait(2);
                }
            };
            hooked(begins, || one_object(&heap));
            steps.go(4);
        });
        let class = heap.class_of(layout(64)).unwrap();
        for _ in 0..3 {
            let census = walk(&heap);
            let slabs = heap.class_stats(class).unwrap().slabs;
            assert_eq!(slabs.slabs, census.slabs as u64, "stopped at {stop}");
            assert!(slabs.made < 100 && slabs.recycled <= slabs.made);
            let epoch = heap.open_epoch().unwrap();
            let object = heap.alloc_in(epoch, layout(64)).unwrap();
            let stats = heap.epoch_stats(epoch).unwrap();
            assert_eq!(
                (stats.slabs.slabs, stats.live_objects()),
                (1, 1),
                "stopped at {stop}"
            );
            // SAFETY: it is live and freed once.
            unsafe { heap.free(object, layout(64)) }.unwrap();
            heap.close(epoch).unwrap();
        }
        heap.reclaim();
        assert_eq!(walk(&heap).slabs, 0);
    }
}
