//! A checked heap tells at the call what is wrong with a free, and stays as it was.

use crate::common::host::HostProvider;
use crate::common::{layout, steps};
use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::config::{Checked, Unchecked};
use temporal_slab::{FreeError, Heap};

type TestHeap = Heap<Checked<HostProvider>>;

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
        let (inside, next_slot) = unsafe { (object.add(8), object.add(heap.good_size(layout))) };
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
    assert_eq!(heap.stats().errors.late_double_frees, 0);
    // SAFETY: nobody else uses the heap.
    assert_eq!(unsafe { heap.walk() }.unwrap().live_slots, 0);
}

/// An unchecked heap finds a double free when the words meet.
#[test]
fn unchecked_heaps_find_double_frees_when_words_meet() {
    let heap = Heap::<Unchecked<_>>::new(HostProvider::<65536>::default());
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
    assert_eq!(heap.stats().errors.late_double_frees, 2);
    // SAFETY: it is live.
    unsafe { heap.free(kept, layout(64)).unwrap() };
    drop(local);
    // SAFETY: nobody else uses the heap.
    unsafe { heap.walk() }.unwrap();
}

/// Freed objects are written to, with anything: which object is free, which is next and what is whole is decided as if
/// they were not. Catches a list, a mark or a count that lies in objects.
#[test]
fn what_is_written_to_freed_objects_decides_nothing() {
    let heap = TestHeap::new(HostProvider::default());
    let mut local = heap.local().unwrap();
    let sizes = [16, 64, 100, 768, 5000, 20_000];
    // One of each size stays, so that the memory does.
    let kept = sizes.map(|size| local.alloc(layout(size)).unwrap());
    for junk in [0x00, 0xFF, 0xA5, 0x01] {
        for size in sizes {
            let objects: Vec<_> = (0..steps(100, 12))
                .map(|_| local.alloc(layout(size)).unwrap())
                .collect();
            for (number, object) in objects.iter().enumerate() {
                // SAFETY: it is live and freed once. What is written then is what is tried; the chunk is there, and
                // nobody else is given the object meanwhile.
                unsafe {
                    object.write_bytes(junk, size);
                    match number % 2 {
                        0 => local.free(*object, layout(size)).unwrap(),
                        _ => heap.free(*object, layout(size)).unwrap(),
                    }
                    if size < 1000 {
                        object.write_bytes(junk, size);
                        assert_eq!(heap.free(*object, layout(size)), Err(FreeError::DoubleFree));
                    }
                }
            }
        }
        // SAFETY: nobody else uses the heap.
        assert_eq!(unsafe { heap.walk() }.unwrap().live_slots, 5);
    }
    for (object, size) in kept.into_iter().zip(sizes) {
        // SAFETY: it is live and freed once.
        unsafe { local.free(object, layout(size)) }.unwrap();
    }
}

/// A live object freed with each of many layouts: a checked heap takes those that mean the same object, which is then as
/// free as ever, and refuses all others, and the object stays. Catches a size or an alignment that is not looked at.
#[test]
fn wrong_layouts_are_refused() {
    let heap = TestHeap::new(HostProvider::default());
    let mut local = heap.local().unwrap();
    let layouts: Vec<Layout> = [
        0, 1, 16, 17, 64, 100, 768, 769, 5000, 8192, 8193, 9000, 32_768, 40_000, 200_000,
    ]
    .into_iter()
    .flat_map(|size| [1, 8, 64, 1024, 4096, 32_768, 65_536, 1 << 18].map(|align| (size, align)))
    .map(|(size, align)| Layout::from_size_align(size, align).unwrap())
    .collect();
    let (mut taken, mut refused) = (0, 0);
    for right in layouts.iter().step_by(steps(1, 29)) {
        let mut object = local.alloc(*right).unwrap();
        for (number, wrong) in layouts.iter().enumerate() {
            // SAFETY: a checked heap refuses what is wrong.
            let freed = unsafe {
                match number % 2 {
                    0 => heap.free(object, *wrong),
                    _ => local.free(object, *wrong),
                }
            };
            if heap.resize_in_place(object, *right, *wrong) {
                assert_eq!(freed, Ok(()), "{right:?} is {wrong:?}");
            }
            if freed.is_ok() {
                taken += 1;
                assert_eq!(
                    heap.good_size(*right),
                    heap.good_size(*wrong),
                    "{right:?}, {wrong:?}"
                );
                assert!(heap.usable_size(object).is_err(), "{right:?}, {wrong:?}");
                object = local.alloc(*right).unwrap();
            } else {
                refused += 1;
                assert_eq!(
                    heap.usable_size(object),
                    Ok(heap.good_size(*right)),
                    "it lives"
                );
            }
        }
        // SAFETY: it is live and freed once.
        unsafe { local.free(object, *right) }.unwrap();
        assert_eq!(heap.stats().live_objects(), 0, "{right:?}");
    }
    assert!(taken > 0 && refused > taken);
    drop(local);
    // SAFETY: nobody else uses the heap.
    assert_eq!(unsafe { heap.walk() }.unwrap().live_slots, 0);
}

/// Two threads free the same object at the same moment, through locals or without: one of the two is refused, or both
/// pass and are found when their words meet. Catches a free too many that nobody ever sees.
#[test]
fn simultaneous_double_frees_are_found_in_the_end() {
    let heap = TestHeap::new(HostProvider::default());
    let rounds = if cfg!(miri) { 4 } else { 2000 };
    let refused = core::sync::atomic::AtomicUsize::new(0);
    let barrier = std::sync::Barrier::new(2);
    for round in 0..rounds {
        // One that stays, so that the slab does.
        let (kept, object) = (
            heap.alloc(layout(64)).unwrap(),
            heap.alloc(layout(64)).unwrap(),
        );
        let address = object.addr();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut local = heap.local().unwrap();
                    let object = NonNull::without_provenance(address);
                    barrier.wait();
                    // SAFETY: it is live, and a checked heap refuses the second free or finds it; nobody uses it.
                    let freed = unsafe {
                        match round % 2 {
                            0 => local.free(object, layout(64)),
                            _ => heap.free(object, layout(64)),
                        }
                    };
                    refused.fetch_add(
                        usize::from(freed.is_err()),
                        core::sync::atomic::Ordering::Relaxed,
                    );
                    // Nobody goes before both have freed.
                    barrier.wait();
                });
            }
        });
        // SAFETY: it is live.
        unsafe { heap.free(kept, layout(64)) }.unwrap();
    }
    let refused = refused.into_inner();
    let late = usize::try_from(heap.stats().errors.late_double_frees).unwrap();
    println!("{rounds} times: {refused} refused, {late} found when words met");
    // By the shared path both are: it is refused because words met.
    assert!(refused <= rounds && refused + late >= rounds);
    // SAFETY: nobody else uses the heap.
    assert_eq!(unsafe { heap.walk() }.unwrap().live_slots, 0);
}
