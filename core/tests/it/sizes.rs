//! Every size by every alignment: never a panic, a wrap or an object that is too small.

use crate::common::host::HostProvider;
use crate::common::steps;
use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::config::{Checked, Config, Fine};
use temporal_slab::{AllocError, Heap};

/// 0, 1, every power of two and what lies about it, and the ends of the address space.
fn sizes() -> Vec<usize> {
    let mut sizes = vec![
        0,
        1,
        isize::MAX as usize - 1,
        isize::MAX as usize,
        isize::MAX as usize + 1,
        usize::MAX,
    ];
    for shift in (1..usize::BITS).step_by(steps(1, 3)) {
        let power = 1usize << shift;
        for off in if cfg!(miri) {
            &[1][..]
        } else {
            &[0, 1, 31, 32]
        } {
            sizes.extend([power.saturating_sub(*off), power.saturating_add(*off)]);
        }
    }
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn try_all<C: Config<Provider: Default>>() {
    let heap = Heap::<C>::new(C::Provider::default());
    heap.set_limit(if cfg!(miri) { 4 << 20 } else { 16 << 20 });
    let mut local = heap.local().unwrap();
    let (mut served, mut refused) = (0, 0);
    for shift in 0..=30 {
        let align = 1usize << shift;
        // The host of a Miri run really moves its memory about.
        if cfg!(miri) && ![0, 12, 21].contains(&shift) {
            continue;
        }
        for size in sizes() {
            let Ok(layout) = Layout::from_size_align(size, align) else {
                continue;
            };
            for use_local in [false, true] {
                let object = if use_local {
                    local.alloc(layout)
                } else {
                    heap.alloc(layout)
                };
                let object = match object {
                    Ok(object) => object,
                    Err(error) => {
                        let too_much = size > (1 << 20) || align > (1 << 20) || cfg!(miri);
                        assert!(too_much, "{layout:?}: {error}");
                        assert!(matches!(
                            error,
                            AllocError::Limit | AllocError::TooLarge | AllocError::OutOfMemory
                        ));
                        refused += 1;
                        continue;
                    }
                };
                served += 1;
                let usable = heap.good_size(layout);
                assert!(object.addr().get().is_multiple_of(align), "{layout:?}");
                assert!(usable >= size.max(1), "{layout:?}: {usable} usable");
                // SAFETY: the object has that many bytes; it is live and freed once.
                unsafe {
                    object.write(1);
                    object.add(usable - 1).write(2);
                    if use_local {
                        local.free(object, layout).unwrap();
                    } else {
                        heap.free(object, layout).unwrap();
                    }
                }
            }
        }
    }
    assert!(served > steps(100, 40) && refused > 0);
    drop(local);
    heap.reclaim();
    // SAFETY: there are no locals and no other threads.
    let census = unsafe { heap.walk() }.unwrap();
    assert_eq!((census.live_slots, census.runs, census.regions), (0, 0, 0));
}

#[test]
fn every_size_by_every_alignment() {
    try_all::<Checked<HostProvider<{ 1 << 20 }>>>();
}

#[test]
#[cfg_attr(miri, ignore = "the other table is enough of that")]
fn every_size_by_every_alignment_with_the_fine_table() {
    try_all::<Fine<HostProvider<{ 1 << 20 }>>>();
}

/// What resizes in place really has the room, and shrinking to another class moves.
#[test]
fn in_place_only_where_the_object_is_the_same() {
    let heap = Heap::<Checked<_>>::new(HostProvider::<{ 1 << 20 }>::default());
    for old in (0..300_000usize).step_by(steps(97, 9973)) {
        for new in [
            old / 2,
            old.saturating_sub(1),
            old + 1,
            old + 7,
            old + 600,
            old * 2,
        ] {
            let old = Layout::from_size_align(old, 8).unwrap();
            let new = Layout::from_size_align(new, 8).unwrap();
            if heap.resize_in_place(NonNull::dangling(), old, new) {
                assert!(heap.good_size(old) >= new.size());
                assert_eq!(heap.good_size(old), heap.good_size(new));
            }
        }
    }
}
