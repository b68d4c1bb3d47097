//! Heaps that are hard on whoever reads what was freed or foresees what comes next. Under Miri a run of the property tests does the same.
#![cfg(not(miri))]

use crate::common::host::HostProvider;
use crate::common::{Hard, layout, steps, walk};
use core::ptr::NonNull;
use std::collections::HashSet;
use temporal_slab::{Heap, Scope};

type TestHeap = Heap<Hard<HostProvider<{ 1 << 18 }>>>;

fn fill(object: NonNull<u8>, size: usize) {
    // SAFETY: called with live objects of this size.
    unsafe { object.write_bytes(0xAA, size) };
}

fn is_zero(object: NonNull<u8>, size: usize) -> bool {
    // SAFETY: called with live objects of this size; what a heap of this kind hands out was written by it or is fresh from
    // a provider whose memory is zero.
    let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), size) };
    bytes.iter().all(|byte| *byte == 0)
}

/// What anybody wrote is gone when it was freed, by whichever way: what is handed out next reads as zero. Catches a way
/// that does not overwrite.
#[test]
fn what_was_freed_is_gone() {
    let heap = TestHeap::new(HostProvider::default());
    heap.set_policy(temporal_slab::Policy::NEVER);
    let mut local = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    for size in [1, 16, 100, 768, 3000, 9000, 40_000, 120_000, 700_000] {
        for round in 0..steps(60, 8) {
            let layout = layout(size);
            let object = match round % 3 {
                0 => local.alloc(layout),
                1 => local.alloc_in(epoch, layout),
                _ => heap.alloc(layout),
            };
            let object = object.unwrap();
            assert!(is_zero(object, size), "{size} bytes, round {round}");
            fill(object, size);
            // SAFETY: it is live and freed once.
            unsafe {
                match round % 4 {
                    0 => local.free(object, layout),
                    1 => local.free_unsized(object),
                    2 => heap.free(object, layout),
                    _ => heap.free_unsized(object),
                }
            }
            .unwrap();
        }
    }
    for round in 0..steps(200, 12) {
        let handle = local.alloc_raw_in(epoch, layout(100)).unwrap();
        let object = heap.get_raw(handle).unwrap();
        assert!(is_zero(object, 100), "round {round}");
        fill(object, 100);
        if round % 2 == 0 {
            local.free_raw(handle).unwrap();
        } else {
            heap.free_raw(handle).unwrap();
        }
    }
    let mut scope = Scope::new(&heap);
    for _ in 0..steps(20, 3) {
        for size in [10, 500, 9000] {
            let object = scope.alloc_layout(layout(size)).unwrap();
            assert!(is_zero(object, size));
            fill(object, size);
        }
        scope.reset();
    }
    drop((scope, local));
    assert_eq!(walk(&heap).live_slots, 0);
}

/// The same where objects with handles end in other ways: with their scope, before it, under a reader that outlives it, and
/// in the last generation of a slot. Catches memory that comes back as it was left, in whatever it is used for next.
#[test]
fn what_ended_in_any_way_is_gone() {
    temporal_slab_actions::configs! {
        struct Short {
            const CHECKED: bool = true;
            const ZERO_ON_FREE: bool = true;
            const HANDLE_GENERATION_BITS: u32 = 1;
        }
    }
    type Bytes = [u8; 300];
    let full = || -> Bytes { [0xAA; 300] };
    let heap = Heap::<Short<HostProvider<{ 1 << 18 }>>>::new(HostProvider::default());
    heap.set_policy(temporal_slab::Policy::NEVER);
    // All that is free, looked at by way of objects that are allocated and given back again.
    let look = |what: &str| {
        let sizes = [100, 300, 3000, 20_000];
        let objects = sizes.map(|size| {
            let take = |_| (heap.alloc(layout(size)).unwrap(), size);
            (0..200_000 / size).map(take).collect::<Vec<_>>()
        });
        for (object, size) in objects.into_iter().flatten() {
            assert!(is_zero(object, size), "{what}: {size} bytes");
            // SAFETY: it is live and freed once.
            unsafe { heap.free(object, layout(size)) }.unwrap();
        }
    };
    for _ in 0..steps(10, 2) {
        let scope = Scope::new(&heap);
        let handles: Vec<_> = (0..90).map(|_| scope.insert(full()).unwrap()).collect();
        handles[..30].iter().for_each(|h| heap.discard(*h).unwrap());
        let readers: Vec<_> = handles[60..]
            .iter()
            .map(|h| heap.get(*h).unwrap())
            .collect();
        drop(scope);
        assert!(readers.iter().all(|value| **value == full()));
        look("a scope, and one before it");
        drop(readers);
        heap.reclaim_to(usize::MAX);
        look("the last reader");
        for _ in 0..4 {
            let kept: Vec<_> = (0..300).map(|_| heap.insert(full()).unwrap()).collect();
            for three in kept.chunks(3) {
                heap.remove(three[0]).unwrap();
                heap.discard(three[1]).unwrap();
                heap.free_raw(three[2].raw()).unwrap();
            }
        }
        look("the last generation");
    }
}

/// Slots come in an order that is not that of their addresses, in none that another heap has, and what was freed last is
/// seldom the next. Catches a heap that draws the same, or not at all.
#[test]
fn slots_come_in_no_order() {
    let order = |is_shared: bool| {
        let heap = TestHeap::new(HostProvider::default());
        let mut local = heap.local().unwrap();
        let objects: Vec<_> = (0..64)
            .map(|_| {
                let object = if is_shared {
                    heap.alloc(layout(64))
                } else {
                    local.alloc(layout(64))
                };
                object.unwrap()
            })
            .collect();
        let first = objects
            .iter()
            .map(|object| object.addr().get())
            .min()
            .unwrap();
        let order: Vec<_> = objects
            .iter()
            .map(|object| object.addr().get() - first)
            .collect();
        for object in objects {
            // SAFETY: it is live and freed once.
            unsafe { local.free(object, layout(64)) }.unwrap();
        }
        order
    };
    for is_shared in [false, true] {
        let orders: HashSet<_> = (0..steps(20, 4)).map(|_| order(is_shared)).collect();
        assert!(orders.len() >= steps(20, 4) - 1, "two heaps draw the same");
        for order in orders {
            let ascends = order.windows(2).filter(|pair| pair[0] < pair[1]).count();
            assert!((10..54).contains(&ascends), "{order:?}");
            assert_eq!(order.iter().collect::<HashSet<_>>().len(), 64);
        }
    }
    let heap = TestHeap::new(HostProvider::default());
    let mut local = heap.local().unwrap();
    let kept: Vec<_> = (0..40).map(|_| local.alloc(layout(64)).unwrap()).collect();
    for object in &kept[..30] {
        // SAFETY: it is live and freed once.
        unsafe { local.free(*object, layout(64)) }.unwrap();
    }
    let mut same = 0;
    for _ in 0..steps(1000, 50) {
        let object = local.alloc(layout(64)).unwrap();
        // SAFETY: as above.
        unsafe { local.free(object, layout(64)) }.unwrap();
        let next = local.alloc(layout(64)).unwrap();
        same += usize::from(object == next);
        // SAFETY: as above.
        unsafe { local.free(next, layout(64)) }.unwrap();
    }
    assert!(
        same < steps(1000, 50) / 4,
        "{same} times the next was the last"
    );
}
