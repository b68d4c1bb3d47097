//! A checked heap tells at the call what is wrong with a free, and stays as it was.

mod common;

use common::host::HostProvider;
use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::config::{Checked, Unchecked};
use temporal_slab::{DefaultLock, FreeError, Heap};

type TestHeap = Heap<HostProvider, DefaultLock, Checked>;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Each way to free wrongly, through a local and through the shared path, for a slot, a run, a long
/// run and a region. Catches a wrong free that is accepted, one that is named wrongly, and one that
/// changes anything: the walker compares the tags, the words and the sums afterwards.
#[test]
fn wrong_frees_are_told_at_the_call() {
    let heap = TestHeap::new(HostProvider::default());
    let mut local = heap.local().unwrap();
    let other = TestHeap::new(HostProvider::default());
    let mut on_stack = [0u64; 64];
    for size in [16, 100, 128, 768, 5000, 20_000, 200_000] {
        let layout = layout(size);
        let object = heap.alloc(layout).unwrap();
        let foreign = other.alloc(layout).unwrap();
        let stack = NonNull::from(&mut on_stack).cast::<u8>();
        // SAFETY: the object is long enough for both.
        let (inside, next_slot) = unsafe { (object.add(8), object.add(heap.usable_size(layout))) };
        let wrong_layout = self::layout(if size < 1000 { size * 2 + 40 } else { size * 4 });
        let mut try_free = |object, layout| {
            // SAFETY: a checked heap refuses what is wrong, which is all that is tried here.
            let shared = unsafe { heap.free(object, layout) };
            // SAFETY: as above.
            let by_local = unsafe { local.free(object, layout) };
            assert_eq!(shared, by_local);
            shared.expect_err("a wrong free is refused")
        };
        assert_eq!(try_free(foreign, layout), FreeError::Foreign, "{size}");
        assert_eq!(try_free(stack, layout), FreeError::Foreign, "{size}");
        assert_eq!(
            try_free(NonNull::dangling(), layout),
            FreeError::Foreign,
            "{size}"
        );
        assert_ne!(
            try_free(object, wrong_layout),
            FreeError::DoubleFree,
            "{size}"
        );
        let what = try_free(inside, layout);
        assert!(
            matches!(what, FreeError::Interior | FreeError::Foreign),
            "{size}: {what}"
        );
        if size <= 768 {
            assert_eq!(what, FreeError::Interior);
            assert_eq!(
                try_free(next_slot, layout),
                FreeError::DoubleFree,
                "a slot that was never out"
            );
        }
        // SAFETY: the object is live; it is freed once rightly.
        unsafe { heap.free(object, layout) }.unwrap();
        // SAFETY: as in `try_free`.
        let twice = unsafe { heap.free(object, layout) }.expect_err("a double free is refused");
        assert!(
            matches!(twice, FreeError::DoubleFree | FreeError::Foreign),
            "{size}: {twice}"
        );
        // SAFETY: nobody else uses the heap.
        let census = unsafe { heap.walk() }.unwrap();
        assert_eq!(
            (census.live_slots, census.runs, census.regions),
            (0, 0, 0),
            "{size}"
        );
        // SAFETY: live in the other heap.
        unsafe { other.free(foreign, layout) }.unwrap();
    }
}

/// A double free that goes through magazines is told at the second call, not when it spills.
#[test]
fn double_frees_in_a_local_are_told_at_the_call() {
    let heap = TestHeap::new(HostProvider::default());
    let mut local = heap.local().unwrap();
    let objects: Vec<_> = (0..500).map(|_| local.alloc(layout(64)).unwrap()).collect();
    for object in &objects {
        // SAFETY: it is live; the second free is refused.
        unsafe {
            local.free(*object, layout(64)).unwrap();
            assert_eq!(local.free(*object, layout(64)), Err(FreeError::DoubleFree));
        }
    }
    drop(local);
    assert_eq!(heap.late_double_frees(), 0);
    // SAFETY: nobody else uses the heap.
    assert_eq!(unsafe { heap.walk() }.unwrap().live_slots, 0);
}

/// An unchecked heap finds a double free when the words meet.
#[test]
fn unchecked_heaps_find_double_frees_when_words_meet() {
    let heap = Heap::<_, DefaultLock, Unchecked>::new(HostProvider::<65536>::default());
    let object = heap.alloc(layout(64)).unwrap();
    let kept = heap.alloc(layout(64)).unwrap();
    // SAFETY: the second free breaks the contract; the object is not used, and the word tells.
    unsafe {
        heap.free(object, layout(64)).unwrap();
        assert_eq!(heap.free(object, layout(64)), Err(FreeError::DoubleFree));
    }
    let mut local = heap.local().unwrap();
    // SAFETY: as above.
    unsafe {
        local.free(object, layout(64)).unwrap();
        local.flush();
    }
    assert_eq!(heap.late_double_frees(), 2);
    // SAFETY: it is live.
    unsafe { heap.free(kept, layout(64)).unwrap() };
    drop(local);
    // SAFETY: nobody else uses the heap.
    unsafe { heap.walk() }.unwrap();
}
