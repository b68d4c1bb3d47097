//! Scopes: what is in them is right, stays put, and goes all at once. That nothing outlives one is the
//! compiler's work: see the documentation of `Scope`.

use crate::common::Rng;
use crate::common::host::HostProvider;
use allocator_api2::vec::Vec as VecIn;
use core::alloc::Layout;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use hashbrown::{DefaultHashBuilder, HashMap};
use std::panic::catch_unwind;
use std::sync::Arc;
use temporal_slab::config::Checked;
use temporal_slab::provider::{Fault, FaultyProvider};
use temporal_slab::{AllocError, HandleError, Heap, RawHandle, Scope};

type Host = HostProvider<{ 1 << 18 }>;
type TestHeap = Heap<Checked<Host>>;

/// The heap holds no object any more.
fn assert_empty(heap: &TestHeap) {
    // SAFETY: no thread and no local is at work.
    let census = unsafe { heap.walk() }.unwrap();
    assert_eq!((census.live_slots, census.runs, census.regions), (0, 0, 0));
}

/// Values of all sizes and alignments lie apart from each other, aligned, and keep their bytes; a reset
/// or a drop frees all of them. Catches an overlap, a wrong bound and a block that is lost.
#[test]
fn values_lie_apart_and_go_together() {
    let heap = TestHeap::new(Host::default());
    let mut scope = Scope::new(&heap);
    let mut rng = Rng(5);
    for round in 0..4 {
        let mut taken: Vec<(usize, usize)> = Vec::new();
        let mut slices: Vec<(&mut [u8], u8)> = Vec::new();
        for step in 0..if cfg!(miri) { 40 } else { 2000 } {
            let size = if rng.below(100) == 0 {
                rng.below(300_000)
            } else {
                rng.below(200)
            };
            let layout = Layout::from_size_align(size, 1 << rng.below(14)).unwrap();
            let bytes = scope.alloc_zeroed(layout).unwrap();
            assert!(
                bytes.as_ptr().addr().is_multiple_of(layout.align()),
                "{layout:?}"
            );
            assert!(bytes.iter().step_by(97).all(|byte| *byte == 0));
            taken.push((bytes.as_ptr().addr(), size));
            bytes.fill(step as u8);
            slices.push((bytes, step as u8));
        }
        assert!(
            slices
                .iter()
                .all(|(bytes, mark)| bytes.iter().step_by(61).all(|byte| byte == mark))
        );
        taken.sort_unstable();
        for pair in taken.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "two values overlap");
        }
        drop(slices);
        scope.reset();
        assert!(scope.allocated_bytes() <= 1 << 20, "round {round}");
    }
    drop(scope);
    assert_empty(&heap);
}

/// An empty scope takes nothing from the heap.
#[test]
fn an_empty_scope_costs_nothing() {
    let heap = TestHeap::new(Host::default());
    for _ in 0..100 {
        let mut scope = Scope::new(&heap);
        scope.reset();
    }
    assert_eq!(heap.bytes().taken, 0);
}

/// Values, texts and slices are what they were made of.
#[test]
fn values_texts_and_slices() {
    let heap = TestHeap::new(Host::default());
    let scope = Scope::new(&heap);
    let (number, unit) = (scope.alloc(7u128).unwrap(), scope.alloc(()).unwrap());
    let text = scope.alloc_str("größer").unwrap();
    let squares = scope.alloc_slice_fill_with(1000, |n| n * n).unwrap();
    let copy = scope.alloc_slice_copy(&[1u16, 2, 3]).unwrap();
    text.make_ascii_uppercase();
    *number += 1;
    copy[0] = 9;
    assert_eq!(
        (*number, *unit, &*text, squares[999], &*copy),
        (8, (), "GRößER", 998_001, &[9, 2, 3][..])
    );
    assert_eq!(
        scope
            .alloc_slice_fill_with(usize::MAX, |_| 0u8)
            .map(|s| s.len()),
        Err(AllocError::TooLarge)
    );
}

/// Maps and vectors live in a scope.
#[test]
fn collections_in_a_scope() {
    let heap = TestHeap::new(Host::default());
    let scope = Scope::new(&heap);
    {
        let mut map: HashMap<u64, VecIn<u64, _>, DefaultHashBuilder, _> = HashMap::new_in(&scope);
        for key in 0..if cfg!(miri) { 30 } else { 3000 } {
            let mut list = VecIn::new_in(&scope);
            list.extend(0..key % 20);
            map.insert(key, list);
        }
        assert!(map.iter().all(|(key, list)| list.len() as u64 == key % 20));
    }
    drop(scope);
    assert_empty(&heap);
}

/// Counts its drops, and panics in the one that it is told to.
struct Counted {
    drops: Arc<AtomicUsize>,
    panics: bool,
}
impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics, "as told");
    }
}

/// A panic in the k-th destructor, for every k: the others run, each once, and the heap is as it should
/// be afterwards.
#[test]
fn destructors_run_once_whichever_panics() {
    let heap = TestHeap::new(Host::default());
    let most = if cfg!(miri) { 4 } else { 100 };
    std::panic::set_hook(Box::new(|_| {}));
    for count in [1, 2, most] {
        for which in 0..=count {
            let drops = Arc::new(AtomicUsize::new(0));
            let mut scope = Scope::new(&heap);
            for number in 0..count {
                let counted = Counted {
                    drops: Arc::clone(&drops),
                    panics: number == which,
                };
                if number % 3 == 1 {
                    scope.insert(counted).unwrap();
                } else {
                    scope.alloc_with_drop(counted).unwrap();
                }
                scope.alloc([0u8; 100]).unwrap();
            }
            let resets = which % 2 == 0;
            let result = catch_unwind(AssertUnwindSafe(|| {
                if resets { scope.reset() } else { drop(scope) }
            }));
            assert_eq!(result.is_err(), which < count);
            assert_eq!(drops.load(Ordering::Relaxed), count, "each once");
        }
    }
    let _default = std::panic::take_hook();
    assert_empty(&heap);
}

/// A boxed value is used through its reference as any other, and dropped after that. Catches, under
/// Miri, a destructor that runs through a pointer that the use made invalid.
#[test]
fn boxed_values_are_used_and_dropped() {
    let heap = TestHeap::new(Host::default());
    let scope = Scope::new(&heap);
    let text = scope.alloc_with_drop(String::from("a")).unwrap();
    text.push('b');
    *text += "c";
    assert_eq!(text, "abc");
    *text = String::from("another");
}

/// A large request takes what it needs and not the next power of two.
#[test]
fn a_large_request_takes_its_size() {
    let heap = TestHeap::new(Host::default());
    let scope = Scope::new(&heap);
    scope
        .alloc_layout(Layout::from_size_align(1 << 20, 8).unwrap())
        .unwrap();
    assert_eq!(scope.allocated_bytes(), 1 << 20);
}

/// Without memory a scope says so, keeps what it has, and goes on when there is memory again. A value
/// that found no room is dropped, once.
#[test]
fn a_scope_without_memory() {
    let provider: FaultyProvider<Host> = FaultyProvider::new(Host::default());
    let heap = Heap::<Checked<_>>::new(&provider);
    let scope = Scope::new(&heap);
    let first = scope.alloc([1u8; 64]).unwrap();
    provider.break_calls(0, u64::MAX, Fault::Refuse);
    let mut values = 0;
    let error = loop {
        match scope.alloc([2u8; 4000]) {
            Ok(_) => values += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, AllocError::OutOfMemory);
    let drops = Arc::new(AtomicUsize::new(0));
    while scope.alloc([0u8; 8]).is_ok() {}
    let counted = Counted {
        drops: Arc::clone(&drops),
        panics: false,
    };
    assert!(scope.alloc_with_drop(counted).is_err());
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    provider.mend();
    scope.alloc([3u8; 4000]).unwrap();
    assert!(values > 1 && first.iter().all(|byte| *byte == 1));
}

/// Handles in a scope: valid while it lives, refused for ever after it or a reset, whether they were
/// freed before or not; the memory goes with the scope, at one visit for each slab. Catches a handle that
/// survives its scope, a slot that is used again before the scope goes, and a slab that is lost.
#[test]
fn handles_end_with_their_scope() {
    let heap = TestHeap::new(Host::default());
    let count = if cfg!(miri) { 24 } else { 2000 };
    let mut dead = Vec::new();
    let rounds = if cfg!(miri) { 1 } else { 4 };
    for round in 0..rounds {
        let mut scope = Scope::new(&heap);
        for resets in [true, false] {
            let mut live: Vec<RawHandle> = Vec::new();
            for number in 0..count {
                let size = [1, 64, 200, 3000][number % 4];
                let layout = Layout::from_size_align(size, 8).unwrap();
                let handle = scope.alloc_raw(layout).unwrap();
                let at = heap.get_raw(handle).unwrap();
                // SAFETY: the object is live and this long.
                unsafe { at.write_bytes(number as u8, size) };
                live.push(handle);
                if number % 3 == 0 {
                    heap.free_raw(handle).unwrap();
                    assert_eq!(heap.free_raw(handle), Err(HandleError::Stale));
                }
            }
            for (number, handle) in live.iter().enumerate() {
                let size = [1, 64, 200, 3000][number % 4];
                match heap.get_raw(*handle) {
                    // SAFETY: the object is live and this long.
                    Some(at) => unsafe {
                        let bytes = core::slice::from_raw_parts(at.as_ptr(), size);
                        assert!(bytes.iter().all(|b| *b == number as u8));
                    },
                    None => assert_eq!(number % 3, 0),
                }
            }
            // SAFETY: no thread and no local is at work.
            unsafe { heap.walk() }.unwrap();
            if resets {
                scope.reset();
            } else {
                drop(scope);
                scope = Scope::new(&heap);
            }
            dead.append(&mut live);
            assert!(dead.iter().all(|h| heap.get_raw(*h).is_none()), "{round}");
            assert!(dead.iter().all(|h| heap.free_raw(*h).is_err()));
        }
    }
    assert_empty(&heap);
    heap.reclaim();
    // SAFETY: as above.
    assert_eq!(unsafe { heap.walk() }.unwrap().slabs, 0);
}

/// Values with handles are dropped once: when they are removed, else with the scope; one that is being
/// read then, by its reader. Catches a scope that frees a slot under a reader, and a slab that its last
/// reader does not give back.
#[test]
fn values_with_handles_end_with_their_scope() {
    let heap = TestHeap::new(Host::default());
    let drops = Arc::new(AtomicUsize::new(0));
    let dropped = || drops.load(Ordering::Relaxed);
    let counted = || Counted {
        drops: Arc::clone(&drops),
        panics: false,
    };
    let scope = Scope::new(&heap);
    let removed = scope.insert(counted()).unwrap();
    let kept = scope.insert(counted()).unwrap();
    let read = scope.insert(counted()).unwrap();
    let removed_while_read = scope.insert(counted()).unwrap();
    let plain = scope.insert(7u64).unwrap();
    assert_eq!(*heap.get(plain).unwrap(), 7);
    heap.discard(removed).unwrap();
    assert_eq!(dropped(), 1);
    let reading = heap.get(read).unwrap();
    let other = heap.get(removed_while_read).unwrap();
    let number = heap.get(plain).unwrap();
    heap.discard(removed_while_read).unwrap();
    assert_eq!(dropped(), 1, "it is being read");
    drop(scope);
    assert_eq!(dropped(), 2, "the one that nobody read");
    for handle in [removed, kept, read, removed_while_read] {
        assert_eq!(heap.get(handle).err(), Some(HandleError::Stale));
    }
    heap.reclaim();
    // SAFETY: no thread and no local is at work.
    let census = unsafe { heap.walk() }.unwrap();
    assert_eq!(census.slabs, 1, "the readers' slab");
    assert_eq!(*number, 7);
    drop((reading, number));
    assert_eq!(dropped(), 3);
    drop(other);
    assert_eq!(dropped(), 4);
    heap.reclaim();
    // SAFETY: as above.
    assert_eq!(unsafe { heap.walk() }.unwrap().slabs, 0);
    assert_empty(&heap);
}

/// A hint that is out of date leads a take into a slab that a scope used since, and that is on its way back,
/// held by the scope's readers: what it got there it gives back, and the slab with it.
#[test]
fn an_outdated_hint_into_a_scopes_slab() {
    let heap = TestHeap::new(Host::default());
    let layout = Layout::from_size_align(8192, 8).unwrap();
    let handle = heap.alloc_raw(layout).unwrap();
    heap.free_raw(handle).unwrap();
    heap.reclaim();
    // The metadata of the slab that the class list remembers is this scope's now.
    let scope = Scope::new(&heap);
    let values: Vec<_> = (0..4u8).map(|n| scope.insert([n; 8192]).unwrap()).collect();
    let readings: Vec<_> = values[1..].iter().map(|h| heap.get(*h).unwrap()).collect();
    drop(scope);
    let other = heap.alloc_raw(layout).unwrap();
    assert_ne!(other.id(), values[0].raw().id());
    for (number, reading) in readings.iter().enumerate() {
        assert!(reading.iter().all(|b| usize::from(*b) == number + 1));
    }
    drop(readings);
    heap.free_raw(other).unwrap();
    heap.reclaim();
    // SAFETY: no thread and no local is at work.
    assert_eq!(unsafe { heap.walk() }.unwrap().slabs, 0);
}

/// Readers, removers and the scope that goes race for the same values, and each is dropped once.
#[test]
fn a_scope_goes_under_its_readers() {
    let heap = TestHeap::new(Host::default());
    let (rounds, count) = if cfg!(miri) { (2, 6) } else { (300, 100) };
    let drops = Arc::new(AtomicUsize::new(0));
    for _ in 0..rounds {
        let scope = Scope::new(&heap);
        let handles: Vec<_> = (0..count)
            .map(|_| {
                let counted = Counted {
                    drops: Arc::clone(&drops),
                    panics: false,
                };
                scope.insert(counted).unwrap()
            })
            .collect();
        std::thread::scope(|threads| {
            for thread in 0..2 {
                let (heap, handles) = (&heap, &handles);
                threads.spawn(move || {
                    for (number, handle) in handles.iter().enumerate() {
                        let reading = heap.get(*handle);
                        if number % 2 == thread {
                            let _gone = heap.discard(*handle);
                        }
                        drop(reading);
                    }
                });
            }
            threads.spawn(move || drop(scope));
        });
    }
    assert_eq!(drops.load(Ordering::Relaxed), rounds * count);
    heap.reclaim();
    // SAFETY: no thread and no local is at work.
    assert_eq!(unsafe { heap.walk() }.unwrap().slabs, 0);
}
