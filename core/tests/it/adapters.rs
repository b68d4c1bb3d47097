//! The heap under other people's collections.

use crate::common::Bumping;
use crate::common::host::HostProvider;
use allocator_api2::boxed::Box as BoxIn;
use allocator_api2::vec::Vec as VecIn;
use core::alloc::{GlobalAlloc, Layout};
use hashbrown::{DefaultHashBuilder, HashMap};
use temporal_slab::Heap;
use temporal_slab::adapter::{FindLocal as _, Global, LocalAllocator, LockedLocal, SharedOnly};
use temporal_slab::config::{Checked, Standard};
use temporal_slab::provider::StaticProvider;

type TestHeap = Heap<Checked<HostProvider>>;

const COUNT: u64 = if cfg!(miri) { 200 } else { 50_000 };

/// Maps, vectors and boxes that grow, shrink and drop, on the shared path and on a local.
#[test]
fn collections_live_in_a_heap() {
    let heap = TestHeap::new(HostProvider::default());
    let local = LocalAllocator::new(heap.local().unwrap());
    {
        let mut shared: HashMap<u64, BoxIn<u64, &TestHeap>, DefaultHashBuilder, _> =
            HashMap::new_in(&heap);
        let mut own: HashMap<u64, VecIn<u8, _>, DefaultHashBuilder, _> = HashMap::new_in(&local);
        for key in 0..COUNT {
            shared.insert(key, BoxIn::new_in(key * 3, &heap));
            let mut bytes = VecIn::new_in(&local);
            bytes.extend((0..key % 90).map(|b| b as u8));
            own.insert(key, bytes);
        }
        shared.retain(|key, _| key % 3 == 0);
        own.retain(|key, _| key % 2 == 0);
        shared.shrink_to_fit();
        assert!(shared.iter().all(|(key, value)| **value == key * 3));
        for (key, bytes) in &own {
            assert!(bytes.iter().copied().eq((0..key % 90).map(|b| b as u8)));
        }
        assert_eq!(shared.len() as u64, COUNT.div_ceil(3));
    }
    drop(local.into_inner());
    heap.reclaim();
    // SAFETY: nobody else uses the heap.
    let census = unsafe { heap.walk() }.unwrap();
    assert_eq!((census.live_slots, census.runs, census.regions), (0, 0, 0));
}

const SIZE: usize = 4 << 20;
static mut MEMORY: [u8; SIZE] = [0; SIZE];
type Pages = Standard<StaticProvider<'static>>;
// SAFETY: nothing else names MEMORY.
static HEAP: Heap<Pages> =
    Heap::new(unsafe { StaticProvider::from_raw((&raw mut MEMORY).cast(), SIZE) });
static LOCKED: Global<Pages, LockedLocal<Pages>> = Global::new(&HEAP, LockedLocal::new());
static SHARED: Global<Pages, SharedOnly> = Global::new(&HEAP, SharedOnly);

/// `GlobalAlloc` by its own contract: zeroed memory, moves that keep bytes, failures as null; from
/// several threads, of which one at a time has the local; allocated by one adapter and freed by the
/// other.
#[test]
fn global_alloc_over_a_static_heap() {
    let layout = Layout::from_size_align(100, 16).unwrap();
    let rounds = if cfg!(miri) { 20 } else { 5_000 };
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            scope.spawn(move || {
                for _ in 0..rounds {
                    // SAFETY: by the contract of `GlobalAlloc`.
                    unsafe {
                        let object = LOCKED.alloc_zeroed(layout);
                        assert!((0..100).all(|i| *object.add(i) == 0));
                        object.write_bytes(thread, 100);
                        let object = LOCKED.realloc(object, layout, 3000);
                        let moved = Layout::from_size_align(3000, 16).unwrap();
                        assert!((0..100).all(|i| *object.add(i) == thread));
                        let object = SHARED.realloc(object, moved, 40);
                        assert!((0..40).all(|i| *object.add(i) == thread));
                        SHARED.dealloc(object, Layout::from_size_align(40, 16).unwrap());
                    }
                }
            });
        }
    });
    let huge = Layout::from_size_align(SIZE * 2, 8).unwrap();
    // SAFETY: the size is not zero.
    assert!(unsafe { LOCKED.alloc(huge) }.is_null());
    // SAFETY: as above.
    assert!(unsafe { SHARED.alloc_zeroed(huge) }.is_null());
    // SAFETY: the object is live; a size that no layout has is refused and it stays as it is.
    unsafe {
        let object = LOCKED.alloc(layout);
        assert!(
            LOCKED
                .realloc(object, layout, isize::MAX as usize)
                .is_null()
        );
        LOCKED.dealloc(object, layout);
    }
    assert!(!format!("{LOCKED:?} {HEAP:?}").is_empty());
}

/// Collections in an epoch, through a local: what they hold is the epoch's however they grow, and is whole. Catches a
/// growth that moves to another epoch, and one that loses bytes.
#[test]
fn collections_stay_in_their_epoch() {
    let heap = TestHeap::new(HostProvider::default());
    let allocator = LocalAllocator::new(heap.local().unwrap());
    let epoch = heap.open_epoch().unwrap();
    let mut numbers = VecIn::new_in(allocator.in_epoch(epoch));
    let mut map: HashMap<u64, u64, DefaultHashBuilder, _> =
        HashMap::new_in(allocator.in_epoch(epoch));
    for n in 0..COUNT {
        numbers.push(n);
        map.insert(n, n * 3);
    }
    assert!(numbers.iter().copied().eq(0..COUNT) && (0..COUNT).all(|n| map[&n] == n * 3));
    let stats = heap.epoch_stats(epoch).unwrap();
    assert_eq!(stats.live_objects(), heap.stats().live_objects());
    assert!(stats.live_bytes >= COUNT * 24);
    drop((numbers, map));
    assert_eq!(heap.epoch_stats(epoch).unwrap().live_objects(), 0);
    allocator.leave(epoch);
    heap.close(epoch).unwrap();
    assert_eq!(heap.epoch_bytes(epoch), Ok(0));
}

/// A vector in an epoch with blocks grows and shrinks where it is while nothing lies behind it, and moves within its epoch otherwise; once
/// that is closed and left it does not grow. Catches a growth that copies what could stay, and one that goes to another epoch.
#[test]
fn what_grows_in_an_epoch_stays_where_it_is() {
    let heap: Heap<Bumping<HostProvider>> = Heap::new(HostProvider::default());
    let allocator = LocalAllocator::new(heap.local().unwrap());
    let epoch = heap.open_epoch().unwrap();
    let here = &allocator.in_epoch(epoch);
    let mut numbers = VecIn::with_capacity_in(4, here);
    numbers.extend(0..4u64);
    let begin = numbers.as_ptr();
    for n in 4..200 {
        numbers.push(n);
        assert_eq!(numbers.as_ptr(), begin, "{n}");
    }
    numbers.shrink_to_fit();
    let behind = BoxIn::new_in(0u64, here);
    let rooms = [numbers.as_ptr().addr(), (&raw const *behind).addr()];
    // Sixteen bytes are what objects in a block are multiples of.
    assert_eq!((begin.addr(), rooms[1] - rooms[0]), (rooms[0], 200 * 8));
    numbers.push(200);
    assert_ne!(numbers.as_ptr(), begin);
    assert!(numbers.iter().copied().eq(0..=200));
    assert_eq!(heap.epoch_stats(epoch).unwrap().live_objects(), 2);

    allocator.leave(epoch);
    heap.close(epoch).unwrap();
    assert!(numbers.try_reserve(10_000).is_err());
    assert!(numbers.iter().copied().eq(0..=200));
    drop((numbers, behind));
    assert_eq!(heap.stats().live_objects(), 0);
}

/// Who comes while the local is in use, as an interrupt handler does, gets none and takes the shared path, and what it
/// does is whole; one that panics leaves the local for the next. Catches a local that two have at once, and one that is
/// lost.
#[test]
fn an_interrupt_inside_a_local_takes_the_shared_path() {
    let layout = Layout::from_size_align(64, 8).unwrap();
    let place = LockedLocal::new();
    place.with(&HEAP, |outer| {
        let outer = outer.expect("nobody has it");
        let first = outer.alloc(layout).unwrap();
        // Here comes the handler.
        let made = place.with(&HEAP, |inner| {
            assert!(inner.is_none(), "it is in use");
            // SAFETY: it is live and freed once.
            unsafe { HEAP.free(first, layout) }.unwrap();
            [HEAP.alloc(layout).unwrap(), HEAP.alloc(layout).unwrap()]
        });
        let own = outer.alloc(layout).unwrap();
        assert!(!made.contains(&own) && made[0] != made[1]);
        for object in made.into_iter().chain([own]) {
            // SAFETY: as above.
            unsafe { outer.free(object, layout) }.unwrap();
        }
    });
    let panicked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        place.with(&HEAP, |_| panic!("on purpose"));
    }));
    assert!(panicked.is_err());
    place.with(&HEAP, |local| assert!(local.is_some(), "it is there again"));
    // It lives as long as the heap; what it holds it gives back.
    place.with(&HEAP, |local| local.unwrap().flush());
}
