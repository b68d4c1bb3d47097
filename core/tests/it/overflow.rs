//! Sizes and counts at the ends of what there is, at every entry point: each is refused by an error, and nothing has
//! changed. Catches a sum that wraps, a panic, a request that takes something before it fails, and a figure that counts it.

use crate::common::{layout, steps, walk};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use temporal_slab::adapter::{Global, SharedOnly};
use temporal_slab::config::Checked;
use temporal_slab::provider::StaticProvider;
use temporal_slab::{AllocError, FreeError, Heap, Policy, Scope};

type TestHeap<'m> = Heap<Checked<StaticProvider<'m>>>;

const MOST: usize = isize::MAX as usize;

/// The largest sizes that layouts of each alignment can have, and some below; and small ones that are aligned to what no
/// machine has.
fn layouts() -> Vec<Layout> {
    let mut all = Vec::new();
    for shift in 0..usize::BITS - 1 {
        let align = 1usize << shift;
        let largest = (MOST + 1) - align;
        for less in [0, 1, 15, 16, 1023, 1024, 4095, 4096, 65535, 65536, 1 << 22] {
            all.extend(Layout::from_size_align(largest.saturating_sub(less), align));
        }
        if shift >= 30 {
            all.extend(
                [0, 1, 5000]
                    .map(|size| Layout::from_size_align(size, align).ok())
                    .into_iter()
                    .flatten(),
            );
        }
    }
    all.retain(|layout| layout.size() > 1 << 28 || layout.align() >= 1 << 30);
    all
}

/// One of the refusals that a size can have.
fn is_refused<T>(result: Result<T, AllocError>) -> bool {
    matches!(
        result.err(),
        Some(AllocError::TooLarge | AllocError::OutOfMemory | AllocError::Limit)
    )
}

#[test]
fn sizes_near_the_end_are_refused_everywhere() {
    let mut memory = Box::<[u8]>::new_uninit_slice(2 << 20);
    let heap = TestHeap::new(StaticProvider::new(&mut memory));
    let mut local = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    let small = layout(100);
    let kept = local.alloc(small).unwrap();
    // SAFETY: it is live and this long.
    unsafe { kept.write_bytes(7, 100) };
    let scope = Scope::new(&heap);
    scope.alloc_layout(small).unwrap();
    // What is made once is made, and what is empty is gone.
    heap.free_raw(heap.alloc_raw_in(epoch, small).unwrap())
        .unwrap();
    assert!(is_refused(heap.alloc(layout(1 << 30))));
    heap.reclaim();
    let before = walk(&heap);
    let all = layouts();
    assert!(all.len() > 100);
    for huge in all.into_iter().step_by(steps(1, 37)) {
        assert!(is_refused(heap.alloc(huge)), "{huge:?}");
        assert!(is_refused(heap.alloc_zeroed(huge)), "{huge:?}");
        assert!(is_refused(heap.alloc_in(epoch, huge)), "{huge:?}");
        assert!(is_refused(heap.alloc_zeroed_in(epoch, huge)), "{huge:?}");
        assert!(is_refused(heap.alloc_raw(huge)), "{huge:?}");
        assert!(is_refused(heap.alloc_raw_in(epoch, huge)), "{huge:?}");
        assert!(is_refused(local.alloc(huge)), "{huge:?}");
        assert!(is_refused(local.alloc_zeroed(huge)), "{huge:?}");
        assert!(is_refused(local.alloc_in(epoch, huge)), "{huge:?}");
        assert!(is_refused(local.alloc_raw(huge)), "{huge:?}");
        assert!(is_refused(local.alloc_raw_in(epoch, huge)), "{huge:?}");
        assert!(is_refused(scope.alloc_layout(huge)), "{huge:?}");
        assert!(is_refused(scope.alloc_zeroed(huge)), "{huge:?}");
        assert!(is_refused(scope.alloc_raw(huge)), "{huge:?}");
        assert!(!heap.resize_in_place(kept, small, huge), "{huge:?}");
        assert_eq!(heap.class_of(huge), None);
        assert!(heap.good_size(huge) == 0 || heap.good_size(huge) >= huge.size());
        // SAFETY: it is live; a resize that fails leaves it, and a checked heap refuses the free.
        unsafe {
            assert!(is_refused(heap.resize(kept, small, huge)), "{huge:?}");
            assert!(is_refused(local.resize(kept, small, huge)), "{huge:?}");
            let freed: [Result<(), FreeError>; 2] = [heap.free(kept, huge), local.free(kept, huge)];
            assert!(freed.iter().all(Result::is_err), "{huge:?}: {freed:?}");
        }
    }
    heap.reclaim();
    assert_eq!(walk(&heap), before, "a refused request took something");
    let pages = heap.page_stats();
    assert!(
        pages.most_committed <= 2 << 20 && pages.committed <= pages.most_committed,
        "{pages:?}"
    );
    // SAFETY: it is live and this long; it is freed once.
    unsafe {
        assert!(
            core::slice::from_raw_parts(kept.as_ptr(), 100)
                .iter()
                .all(|byte| *byte == 7)
        );
        local.free(kept, small).unwrap();
    }
}

/// A count times a size, and values that are larger than what has handles.
#[test]
fn products_do_not_wrap() {
    let mut memory = Box::<[u8]>::new_uninit_slice(1 << 20);
    let heap = TestHeap::new(StaticProvider::new(&mut memory));
    let scope = Scope::new(&heap);
    for count in [usize::MAX, usize::MAX / 8 + 1, usize::MAX / 8, MOST / 8 + 1] {
        let made = scope
            .alloc_slice_fill_with(count, |_| 5u64)
            .map(|slice| slice.len());
        assert_eq!(made, Err(AllocError::TooLarge), "{count}");
    }
    let most = scope
        .alloc_slice_fill_with(MOST / 8, |_| 5u64)
        .map(|slice| slice.len());
    assert!(is_refused(most));
    assert!(is_refused(heap.insert([0u8; 8193])));
    #[repr(align(8192))]
    struct Wide;
    assert!(is_refused(heap.insert(Wide)), "no class is aligned so");
    assert!(is_refused(scope.insert(Wide)));
    // Of nothing there can be any number.
    assert_eq!(
        scope
            .alloc_slice_fill_with(9, |_| ())
            .map(|slice| slice.len()),
        Ok(9)
    );
}

/// Limits and reserves at the ends of the numbers. Catches a reserve of a number that went below zero which takes all
/// that there is, and a limit that wraps when something is added to it.
#[test]
fn limits_and_reserves_do_not_wrap() {
    let mut memory = Box::<[u8]>::new_uninit_slice(4 << 20);
    let heap = TestHeap::new(StaticProvider::new(&mut memory));
    heap.set_limit(0);
    assert_eq!(heap.alloc(layout(64)), Err(AllocError::Limit));
    assert_eq!(heap.local().map(|_| ()), Err(AllocError::Limit));
    assert_eq!(heap.reserve(1), Err(AllocError::Limit));
    assert_eq!(heap.bytes().taken, 0);
    for limit in [usize::MAX, usize::MAX - 1, MOST, MOST + 1] {
        heap.set_limit(limit);
        let object = heap.alloc(layout(64)).unwrap();
        assert!(is_refused(
            heap.alloc(Layout::from_size_align(MOST - 7, 8).unwrap())
        ));
        crate::common::free(&heap, object, 64);
    }
    heap.reclaim();
    let before = heap.bytes().taken;
    for bytes in [usize::MAX, usize::MAX - 65536, MOST + 1] {
        assert_eq!(heap.reserve(bytes), Err(AllocError::TooLarge));
        assert_eq!(heap.bytes().taken, before, "it took what there is");
    }
    assert_eq!(heap.reserve(0), Ok(()));
    heap.reserve(1 << 20).unwrap();
    assert!(heap.bytes().taken >= before + (1 << 20));
    heap.set_limit(heap.bytes().taken + 1000);
    assert_eq!(heap.reserve(1), Err(AllocError::Limit));
    for bytes in [0, 1, MOST, usize::MAX] {
        for policy in [Policy::proportional(bytes), Policy::keeping(bytes)] {
            heap.set_policy(policy);
            crate::common::free(&heap, heap.alloc(layout(3000)).unwrap(), 3000);
            heap.reclaim_to(bytes);
        }
    }
    assert_eq!(walk(&heap).live_slots, 0);
}

/// As `GlobalAlloc` each of them is a null pointer.
#[test]
#[cfg_attr(miri, ignore = "a static that is leaked")]
fn the_global_face_gives_null() {
    let memory = Box::leak(Box::<[u8]>::new_uninit_slice(1 << 20));
    let heap: &'static TestHeap<'static> =
        Box::leak(Box::new(Heap::new(StaticProvider::new(memory))));
    let global: Global<Checked<_>, _> = Global::new(heap, SharedOnly);
    for huge in layouts() {
        // SAFETY: what is tried with sizes that are not zero; a resize that fails leaves the object.
        unsafe {
            assert!(huge.size() == 0 || global.alloc(huge).is_null(), "{huge:?}");
            assert!(
                huge.size() == 0 || global.alloc_zeroed(huge).is_null(),
                "{huge:?}"
            );
            let small = Layout::from_size_align(10, huge.align().min(4096)).unwrap();
            let object = global.alloc(small);
            assert!(NonNull::new(object).is_some());
            let size = (MOST + 1) - small.align();
            assert!(global.realloc(object, small, size).is_null());
            global.dealloc(object, small);
        }
    }
    assert_eq!(heap.stats().live_objects(), 0);
}
