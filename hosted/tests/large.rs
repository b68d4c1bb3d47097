//! Large objects on the system's pages: moved, made longer and shorter, and in huge pages.
#![cfg(target_os = "linux")]

mod common;

use common::{MIB, Rng, TestHeap, alone, layout, page_faults, touched};
use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::{AllocError, Policy};
use temporal_slab_hosted::MmapProvider;
use temporal_slab_hosted::rss::{Rollup, mappings};

/// A large object grows and shrinks by moving its pages: content stays, nothing is copied, and what was
/// beyond it reads as zero.
#[test]
fn large_objects_are_moved_by_pages() {
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    let mut size = 9 * MIB;
    let mut object = local.alloc(layout(size)).unwrap();
    // In the way of growth where it is.
    let mut others = vec![local.alloc(layout(9 * MIB)).unwrap()];
    let mut rng = Rng(1);
    let stamp = |object: NonNull<u8>, size: usize| {
        for page in (0..size).step_by(4096) {
            // SAFETY: the object is ours and this long.
            unsafe { object.add(page).cast::<usize>().write(page ^ 77) };
        }
    };
    stamp(object, size);
    for round in 0..30 {
        let new = 5 * MIB + rng.below(60 * MIB);
        // SAFETY: the object is live, of this size.
        object = unsafe { local.resize(object, layout(size), layout(new)) }.unwrap();
        for page in (0..size.min(new)).step_by(4096) {
            // SAFETY: the object is ours and this long.
            let found = unsafe { object.add(page).cast::<usize>().read() };
            assert_eq!(found, page ^ 77, "round {round}");
        }
        size = new;
        stamp(object, size);
        if round % 10 == 0 {
            others.push(local.alloc(layout(9 * MIB)).unwrap());
        }
        assert_eq!(heap.bytes().taken, heap.provider().mapped_bytes());
    }
    // Against the time that copying takes: 64 MiB back and forth a hundred times in no time at all.
    let start = std::time::Instant::now();
    for _ in 0..100 {
        for new in [64 * MIB, 128 * MIB] {
            // SAFETY: as above.
            object = unsafe { local.resize(object, layout(size), layout(new)) }.unwrap();
            size = new;
        }
    }
    println!("a move of 64 MiB takes {:?}", start.elapsed() / 200);
    // SAFETY: as above.
    unsafe { local.free(object, layout(size)) }.unwrap();
    for other in others {
        // SAFETY: as above.
        unsafe { local.free(other, layout(9 * MIB)) }.unwrap();
    }
    drop(local);
    heap.reclaim();
    assert!(heap.bytes().taken <= 9 * MIB);
}

/// A large object that is to be aligned to more than it was is so afterwards, whether it shrinks, stays or
/// grows. Catches a move that looks at the size alone.
#[test]
fn a_resize_to_another_alignment() {
    let heap = TestHeap::new(MmapProvider::new());
    let with = |size: usize, align: usize| Layout::from_size_align(size, align).unwrap();
    for new in [5 * MIB, 9 * MIB, 10 * MIB] {
        for _ in 0..8 {
            let old = with(9 * MIB, 8);
            let object = heap.alloc(old).unwrap();
            // SAFETY: the object is ours and this long.
            unsafe { object.write_bytes(3, 4096) };
            let new = with(new, 64 * MIB);
            // SAFETY: the object is live, of this layout.
            let moved = unsafe { heap.resize(object, old, new) }.unwrap();
            assert!(moved.addr().get().is_multiple_of(64 * MIB), "{new:?}");
            // SAFETY: as above.
            unsafe {
                assert_eq!(moved.add(4095).read(), 3);
                heap.free(moved, new).unwrap();
            }
        }
    }
    assert_eq!(heap.bytes().taken, heap.provider().mapped_bytes());
}

/// At its limit a heap shrinks what is large, and grows it where what is empty is all that is in the way.
#[test]
fn large_objects_at_the_limit() {
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    let object = local.alloc(layout(100 * MIB)).unwrap();
    heap.set_limit(50 * MIB);
    // SAFETY: the object is live, of this layout; so below.
    let object = unsafe { local.resize(object, layout(100 * MIB), layout(30 * MIB)) }.unwrap();
    heap.set_limit(80 * MIB);
    let small: Vec<_> = (0..30 * 1024).map(|_| touched(&mut local, 1024)).collect();
    for small in small {
        // SAFETY: it is live and used no more.
        unsafe { local.free(small, layout(1024)) }.unwrap();
    }
    local.flush();
    assert!(heap.bytes().taken > 60 * MIB);
    // SAFETY: as above.
    let object = unsafe { local.resize(object, layout(30 * MIB), layout(60 * MIB)) }.unwrap();
    // SAFETY: as above.
    let too_large = unsafe { local.resize(object, layout(60 * MIB), layout(90 * MIB)) };
    assert_eq!(too_large, Err(AllocError::Limit));
    // SAFETY: as above.
    unsafe { local.free(object, layout(60 * MIB)) }.unwrap();
}

/// Huge pages come where they are asked for, if the system has them.
#[test]
fn huge_pages_by_choice() {
    if alone("huge_pages_by_choice") {
        return;
    }
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let may = enabled.is_ok_and(|text| text.contains("[madvise]") || text.contains("[always]"));
    let heap = TestHeap::new(MmapProvider::new().with_huge_pages());
    let mut local = heap.local().unwrap();
    let objects: Vec<_> = (0..40_000).map(|_| touched(&mut local, 1024)).collect();
    let huge = Rollup::read().unwrap().huge_bytes;
    println!("{huge} bytes in huge pages; the system allows it: {may}");
    assert!(!may || huge > 0);
    for object in objects {
        // SAFETY: it is live and used no more.
        unsafe { local.free(object, layout(1024)) }.unwrap();
    }
    local.flush();
    heap.reclaim();
    assert!(heap.bytes().resident < MIB);
}

/// Long objects that are used whole come in huge pages, without being asked for, and go with them; the kernel has no more mappings for
/// it. Catches advice that stays and splits them, and memory that does not go back.
#[test]
fn long_objects_come_in_huge_pages() {
    const SIZE: usize = 24 * MIB;
    if alone("long_objects_come_in_huge_pages") {
        return;
    }
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    // Where the system gives them unasked there is nothing to see.
    let may = enabled.is_ok_and(|text| text.contains("[madvise]"));
    let heap = TestHeap::new(MmapProvider::new());
    heap.set_policy(Policy::EAGER);
    let mut local = heap.local().unwrap();
    let mut one = || {
        let before = page_faults();
        let object = touched(&mut local, SIZE);
        let (faults, huge) = (page_faults() - before, Rollup::read().unwrap().huge_bytes);
        // SAFETY: it is live and used no more.
        unsafe { local.free(object, layout(SIZE)) }.unwrap();
        (faults, huge)
    };
    let (first, small) = one();
    let before = mappings().unwrap();
    assert!(
        !may || first > 6000 && small == 0,
        "{first} faults, {small} bytes"
    );
    let all: Vec<_> = (0..20).map(|_| one()).collect();
    println!("faults, and bytes in huge pages: {all:?}; the system allows it: {may}");
    let few = all.iter().filter(|(faults, _)| *faults < 1200).count();
    let huge = all.iter().filter(|(_, huge)| *huge >= 18 * MIB as u64);
    assert!(!may || (few >= 10 && huge.count() >= 10), "{all:?}");
    assert!(mappings().unwrap() <= before + 1);
    assert!(heap.bytes().resident < MIB && Rollup::read().unwrap().huge_bytes == 0);
}
