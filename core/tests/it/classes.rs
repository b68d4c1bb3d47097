//! What is counted of classes and their slabs: ids, slots that are out of use, and as many classes as there can be.

use crate::common::figures::agree;
use crate::common::host::HostProvider;
use crate::common::{free, layout, steps};
use temporal_slab::config::Unchecked;
use temporal_slab::{Heap, Policy};

type Host = HostProvider<{ 1 << 18 }>;

/// Slabs that come back from the cache are counted as such, and keep their ids. Catches an id for each use of a slab, of
/// which there are not so many.
#[test]
fn cached_slabs_keep_their_ids() {
    for first in [0, 1, 77].into_iter().take(steps(3, 1)) {
        let heap = Heap::<Unchecked<Host>>::new(Host::default());
        heap.set_policy(Policy::NEVER);
        assert!(heap.set_first_handle_id(first));
        let ids = heap.stats().handle_ids;
        assert_eq!((ids.given, ids.total), (0, 1 << 22));
        let slots = heap
            .class_stats(heap.class_of(layout(64)).unwrap())
            .unwrap()
            .slots_per_slab;
        for round in 0..steps(4, 2) {
            let handles: Vec<_> = (0..3 * slots)
                .map(|_| heap.alloc_raw(layout(64)).unwrap())
                .collect();
            for handle in handles {
                heap.free_raw(handle).unwrap();
            }
            let stats = heap.stats();
            assert_eq!(stats.handle_ids.given, stats.slabs.slabs, "round {round}");
            assert_eq!(stats.slow.from_cache > 0, round > 0, "round {round}");
        }
        // Nor does one that went back to the pages need another, while it has generations.
        let given = heap.stats().handle_ids;
        for _ in 0..steps(4, 1) {
            heap.reclaim();
            assert_eq!(heap.stats().slabs.slabs, 0);
            let handles: Vec<_> = (0..3 * slots)
                .map(|_| heap.alloc_raw(layout(64)).unwrap())
                .collect();
            for handle in handles {
                heap.free_raw(handle).unwrap();
            }
        }
        assert_eq!(heap.stats().handle_ids, given);
        assert_eq!(given.total, 1 << 22);
    }
}

temporal_slab_actions::configs! {
    /// Two generations for each slot.
    struct Brief {
        const HANDLE_GENERATION_BITS: u32 = 1;
        const CHECKED: bool = true;
    }
}

/// Slots that are out of use are neither free nor live.
#[test]
fn retired_slots_are_counted() {
    let heap = Heap::<Brief<Host>>::new(Host::default());
    let keeper = heap.alloc_raw(layout(64)).unwrap();
    for _ in 0..40 {
        let handle = heap.alloc_raw(layout(64)).unwrap();
        heap.free_raw(handle).unwrap();
    }
    let stats = agree(&heap);
    assert_eq!(stats.live_bytes, 64);
    let slots = heap
        .class_stats(heap.class_of(layout(64)).unwrap())
        .unwrap()
        .slots_per_slab as u64;
    assert_eq!(stats.slabs.slabs, 1);
    assert!(
        stats.slabs.free_slots <= slots - 1 - 20,
        "{:?}",
        stats.slabs
    );
    // As the heap, so its class.
    let classes = (0..).map_while(|class| heap.class_stats(class));
    let class = classes.map(|class| class.slabs).find(|s| s.slabs > 0);
    let class = class.unwrap();
    assert_eq!(class.slots, stats.slabs.slots);
    assert!(class.slots <= slots - 20, "{class:?}");
    heap.free_raw(keeper).unwrap();
    agree(&heap);
}

temporal_slab_actions::configs! {
    /// As many classes as there can be, so that those for handles have numbers of two words.
    struct ManyClasses {
        const SIZES: &'static [usize] = &{
            let mut sizes = [0; 48];
            let mut class = 0;
            while class < 48 {
                sizes[class] = 16 * (class + 1);
                class += 1;
            }
            sizes
        };
        const CHECKED: bool = true;
    }
}

/// Objects of every class, with handles and without: each is counted where it is, and goes with its epoch.
#[test]
#[cfg_attr(miri, ignore = "sums over a hundred classes and positions")]
fn many_classes_are_counted() {
    let heap = Heap::<ManyClasses<Host>>::new(Host::default());
    let epoch = heap.open_epoch().unwrap();
    let objects: Vec<_> = (1..=48)
        .map(|n| {
            let layout = layout(16 * n);
            (
                heap.alloc_in(epoch, layout).unwrap(),
                heap.alloc_raw_in(epoch, layout).unwrap(),
            )
        })
        .collect();
    let stats = agree(&heap);
    assert!(stats.slabs.slabs > 64, "of more classes than a word has");
    let of_epoch = heap.epoch_stats(epoch).unwrap();
    assert_eq!(of_epoch.slabs.slabs, stats.slabs.slabs);
    for (n, (object, handle)) in (1..).zip(objects) {
        free(&heap, object, 16 * n);
        heap.free_raw(handle).unwrap();
    }
    heap.close(epoch).unwrap();
    heap.reclaim();
    assert_eq!(agree(&heap).slabs.slabs, 0);
}

/// A slab that lingers where the shared path looks first is a whole one, of its class as of the heap.
#[test]
fn slabs_that_linger_are_whole() {
    let heap = Heap::<Unchecked<Host>>::new(Host::default());
    let object = heap.alloc(layout(64)).unwrap();
    let class = heap.class_of(layout(64)).unwrap();
    let whole = || {
        let of_class = heap.class_stats(class).unwrap().slabs.whole;
        (heap.stats().slabs.whole, of_class)
    };
    assert_eq!(whole(), (0, 0));
    free(&heap, object, 64);
    assert_eq!(whole(), (1, 1));
    heap.reclaim();
    assert_eq!(whole(), (0, 0));
}
