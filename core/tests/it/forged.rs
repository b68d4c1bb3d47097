//! Handles that nobody made, or another heap did: accepted only if bit-equal to a live one, and each refusal
//! has its name.

use crate::common::host::HostProvider;
use crate::common::{Rng, layout, steps, walk};
use core::alloc::Layout;
use std::collections::HashSet;
use temporal_slab::config::{Checked, Unchecked};
use temporal_slab::{AllocError, Handle, HandleError, Heap, RawHandle};

type Host = HostProvider<{ 1 << 18 }>;
type TestHeap<C = Checked<Host>> = Heap<C>;

/// A heap with live, dead and never used slots of many classes; the live handles.
fn populated(heap: &TestHeap<Unchecked<Host>>, count: usize) -> Vec<RawHandle> {
    let mut live = Vec::new();
    for index in 0..count + count / 4 {
        let size = [64, 96, 128, 500, 1000][index % 5];
        live.push(heap.alloc_raw(layout(size)).unwrap());
    }
    let mut index = 0;
    live.retain(|handle| {
        index += 1;
        let stays = index % 5 != 0;
        if !stays {
            heap.free_raw(*handle).unwrap();
        }
        stays
    });
    live
}

/// Random bits, half of them with the id of a slab that exists, so that they get further than the first
/// look. Accepted are only those that are bit-equal to a live handle.
fn forge(count: u64, seed: u64) {
    let heap = TestHeap::<Unchecked<Host>>::new(Host::default());
    let live = populated(&heap, steps(10_000, 40));
    let known: HashSet<u64> = live.iter().map(|handle| handle.bits()).collect();
    let ids: Vec<u64> = live.iter().map(|handle| u64::from(handle.id())).collect();
    let mut rng = Rng(seed);
    for step in 0..count {
        let mut bits = rng.next();
        if step % 2 == 0 {
            // A known id, a small generation, the right version: as near as a guess can come.
            bits = bits & 0x3_fffc | 1 | (rng.next() % 4) << 18 | ids[rng.below(ids.len())] << 42;
        }
        let is_live = known.contains(&bits);
        let handle = RawHandle::from_bits(bits);
        assert_eq!(heap.get_raw(handle).is_some(), is_live, "{handle:?}");
        if !is_live {
            assert!(heap.free_raw(handle).is_err(), "{handle:?}");
        }
    }
    assert!(live.iter().all(|handle| heap.get_raw(*handle).is_some()));
    walk(&heap);
}

#[test]
fn forged_handles_are_refused() {
    forge(steps(1 << 24, 200) as u64, 3);
}

/// Run once with `--ignored --release`: 2^30 values, none accepted that was not live.
#[test]
#[ignore = "takes minutes"]
fn a_billion_forged_handles_are_refused() {
    forge(1 << 30, 4);
}

/// All flips of one bit and of two of live handles. Catches a field that no check looks at.
#[test]
fn near_misses_are_refused() {
    let heap = TestHeap::<Unchecked<Host>>::new(Host::default());
    let live = populated(&heap, steps(10_000, 2));
    let known: HashSet<u64> = live.iter().map(|handle| handle.bits()).collect();
    for handle in &live {
        for first in 0..64 {
            for second in first..64 {
                // The same bit twice stands for one flip.
                let bits = handle.bits() ^ (1u64 << first | 1 << second);
                let accepted = heap.get_raw(RawHandle::from_bits(bits)).is_some();
                assert!(
                    !accepted || known.contains(&bits),
                    "{handle:?}: {first} {second}"
                );
            }
        }
    }
    for bad in [
        0,
        u64::MAX,
        0b01,
        live[0].bits() ^ 0b11,
        live[0].bits() | 0xff << 10,
    ] {
        assert!(
            heap.free_raw(RawHandle::from_bits(bad)).is_err(),
            "{bad:#x}"
        );
    }
}

/// Each refusal has its name.
#[test]
fn refusals_are_named() {
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    let live = heap.alloc_raw(layout(64)).unwrap();
    let gone = heap.alloc_raw(layout(64)).unwrap();
    heap.free_raw(gone).unwrap();
    let why = |bits| heap.try_get_raw(RawHandle::from_bits(bits)).unwrap_err();
    assert_eq!(why(0), HandleError::Malformed);
    assert_eq!(why(live.bits() ^ 0b11), HandleError::Malformed);
    assert_eq!(
        why(live.bits() | 0xff << 10),
        HandleError::Malformed,
        "slot"
    );
    assert_eq!(
        why(live.bits() | 0xff << 2),
        HandleError::Malformed,
        "class"
    );
    assert_eq!(why(live.bits() ^ 1 << 41), HandleError::Foreign, "to come");
    assert_eq!(why(live.bits() ^ 1 << 63), HandleError::Foreign, "id");
    assert_eq!(why(gone.bits()), HandleError::Stale);
    let other_class = live.bits() & !(0xff << 2) | (live.class() as u64 + 1) << 2;
    assert_eq!(why(other_class), HandleError::WrongClass);
    assert_eq!(heap.free_raw(live), Ok(()));
    let too_large = Layout::from_size_align(8193, 8).unwrap();
    assert_eq!(heap.alloc_raw(too_large), Err(AllocError::TooLarge));
    // A pointer of an object with a handle is no plain pointer.
    let named = heap.alloc_raw(layout(64)).unwrap();
    let at = heap.get_raw(named).unwrap();
    // SAFETY: a checked heap refuses what is wrong.
    let freed = unsafe { heap.free(at, layout(64)) };
    assert_eq!(freed, Err(temporal_slab::FreeError::WrongLayout));
    heap.free_raw(named).unwrap();
}

/// A handle with a class that no object can have is refused under the same name by every way of asking, also where its
/// slot is in use. Found by fuzzing: those with a type called it a wrong class.
#[test]
fn a_refusal_has_one_name() {
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    let live = heap.alloc_raw(layout(64)).unwrap();
    let forged = RawHandle::from_bits(live.bits() & !(0xff << 2));
    // SAFETY: nothing is live under this handle.
    let plain = unsafe { Handle::<u64>::from_raw(forged, &heap) };
    // SAFETY: as above.
    let dropped = unsafe { Handle::<String>::from_raw(forged, &heap) };
    let why = HandleError::Malformed;
    assert_eq!(heap.try_get_raw(forged), Err(why));
    assert_eq!(heap.free_raw(forged), Err(why));
    assert_eq!(heap.get(plain).err(), Some(why));
    assert_eq!(heap.remove(plain), Err(why));
    assert_eq!(heap.discard(plain), Err(why));
    assert_eq!(heap.discard(dropped), Err(why));
}

/// Two heaps of a program refuse each other's handles, all of them: their ids lie apart. With ids that
/// are made to agree, what is left is that class, slot and generation must, too: of a million handles
/// then those are accepted, and only those, whose 64 bits are those of a live one.
#[test]
fn handles_of_another_heap_are_refused() {
    let count = steps(1_000_000, 30);
    let make = |heap: &TestHeap<Unchecked<Host>>, seed| -> Vec<RawHandle> {
        let mut rng = Rng(seed);
        (0..count)
            .map(|_| {
                let size = [64, 128, 256][rng.below(3)];
                let handle = heap.alloc_raw(layout(size)).unwrap();
                // Some slots are at a later generation than others.
                if rng.below(3) == 0 {
                    heap.free_raw(handle).unwrap();
                    return heap.alloc_raw(layout(size)).unwrap();
                }
                handle
            })
            .collect()
    };
    let accepted = |heap: &TestHeap<Unchecked<Host>>, handles: &[RawHandle]| {
        let accepted = handles.iter().filter(|h| heap.get_raw(**h).is_some());
        accepted.count()
    };
    let heaps = [(); 2].map(|()| TestHeap::<Unchecked<Host>>::new(Host::default()));
    let handles = [make(&heaps[0], 5), make(&heaps[1], 6)];
    assert_eq!(accepted(&heaps[0], &handles[1]), 0);
    assert_eq!(accepted(&heaps[1], &handles[0]), 0);
    for (heap, foreign) in [(&heaps[0], &handles[1]), (&heaps[1], &handles[0])] {
        assert!(
            foreign
                .iter()
                .all(|h| heap.free_raw(*h) == Err(HandleError::Foreign))
        );
    }
    drop(heaps);
    let heaps = [(); 2].map(|()| {
        let heap = TestHeap::<Unchecked<Host>>::new(Host::default());
        assert!(heap.set_first_handle_id(77));
        heap
    });
    let handles = [make(&heaps[0], 5), make(&heaps[1], 6)];
    assert!(!heaps[0].set_first_handle_id(78), "too late");
    let own: HashSet<u64> = handles[0].iter().map(|h| h.bits()).collect();
    let equal = handles[1]
        .iter()
        .filter(|h| own.contains(&h.bits()))
        .count();
    let taken = accepted(&heaps[0], &handles[1]);
    println!("ids made to agree: {taken} of {count} foreign handles are bit-equal to live ones");
    assert_eq!(taken, equal);
    // A typed handle knows its heap, so even then it is refused.
    let typed = heaps[1].insert(5u64).unwrap();
    assert_eq!(heaps[0].get(typed).unwrap_err(), HandleError::Foreign);
    assert_eq!(*heaps[1].get(typed).unwrap(), 5);
}
