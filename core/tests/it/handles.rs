//! Handles: a handle is accepted exactly while the object that it was made for lives.
//!
//! What the tests here catch is said at each. Those that only count acceptances were seen to fail with
//! a tag whose generation does not move on a free.

use crate::common::host::HostProvider;
use crate::common::{Rng, layout, steps, walk};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::collections::HashSet;
use std::sync::Barrier;
use temporal_slab::config::{Checked, Config, Unchecked};
use temporal_slab::{AllocError, Epoch, HandleError, Heap, Local, Policy, RawHandle};

const CHUNK: usize = 1 << 18;
type Host = HostProvider<CHUNK>;
type TestHeap<C = Checked<Host>> = Heap<C>;

/// Slots retire after 16 objects.
const GENERATION_BITS: u32 = if cfg!(miri) { 1 } else { 4 };
const GENERATIONS: usize = 1 << GENERATION_BITS;

temporal_slab_actions::configs! {
    struct FewGenerations {
        const HANDLE_GENERATION_BITS: u32 = GENERATION_BITS;
        const HANDLE_IDS_LOG2: u32 = if cfg!(miri) { 10 } else { 18 };
        const CHECKED: bool = true;
    }
}

temporal_slab_actions::configs! {
    /// As few generations, and ids for 16 slabs.
    struct FewIds {
        const HANDLE_GENERATION_BITS: u32 = GENERATION_BITS;
        const HANDLE_IDS_LOG2: u32 = 4;
    }
}

/// An object with a handle, and what was written to it.
struct Live {
    handle: RawHandle,
    at: NonNull<u8>,
    size: usize,
    mark: u8,
}

impl Live {
    fn write(handle: RawHandle, at: NonNull<u8>, size: usize, mark: u8) -> Self {
        // SAFETY: the object is live, this long, and this test's alone.
        unsafe { at.write_bytes(mark, size) };
        Self {
            handle,
            at,
            size,
            mark,
        }
    }

    fn check(&self) {
        // SAFETY: the object is live and this long.
        let bytes = unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.size) };
        assert!(bytes.iter().all(|b| *b == self.mark), "{:?}", self.handle);
    }
}

/// One way to allocate and free.
enum Way<'a, 'h, C: Config<Provider = Host>> {
    Shared(&'h TestHeap<C>),
    Local(&'a mut Local<'h, C>),
}

impl<C: Config<Provider = Host>> Way<'_, '_, C> {
    fn alloc(&mut self, epoch: Option<Epoch>, size: usize) -> RawHandle {
        match (self, epoch) {
            (Self::Shared(heap), Some(epoch)) => heap.alloc_raw_in(epoch, layout(size)),
            (Self::Shared(heap), None) => heap.alloc_raw(layout(size)),
            (Self::Local(local), Some(epoch)) => local.alloc_raw_in(epoch, layout(size)),
            (Self::Local(local), None) => local.alloc_raw(layout(size)),
        }
        .unwrap()
    }

    fn free(&mut self, handle: RawHandle) -> Result<(), HandleError> {
        match self {
            Self::Shared(heap) => heap.free_raw(handle),
            Self::Local(local) => local.free_raw(handle),
        }
    }
}

/// Random operations against a model that knows which objects live. Every handle that dies is retried at
/// once, old ones again and again, and all of them at the end; what lives is compared byte by byte.
/// Catches a dead handle that is accepted, by a get or by a free, whatever its slot, slab and id serve
/// since; a live one that is refused; and an object that is handed out twice.
fn random_operations<C: Config<Provider = Host>>(count: usize, seed: u64) {
    let heap = TestHeap::<C>::new(Host::default());
    let mut locals = [heap.local().unwrap(), heap.local().unwrap()];
    let mut rng = Rng(seed);
    let (mut live, mut dead): (Vec<Live>, Vec<RawHandle>) = (Vec::new(), Vec::new());
    let mut epoch = heap.open_epoch().unwrap();
    for step in 0..count {
        let way = rng.below(3);
        let mut way = match locals.get_mut(way) {
            Some(local) => Way::Local(local),
            None => Way::Shared(&heap),
        };
        // The number of live objects goes up and down, so that slabs empty.
        let target = steps(400 + 350 * ((step / 3000) % 3), 15);
        if rng.below(2 * target) >= live.len() {
            let size = [1, 64, 65, 200, 700, 3000][rng.below(6)];
            let epoch = (rng.below(2) == 0).then_some(epoch);
            let handle = way.alloc(epoch, size);
            let at = heap.get_raw(handle).expect("it was just made");
            live.push(Live::write(handle, at, size, step as u8));
        } else if !live.is_empty() {
            let gone = live.swap_remove(rng.below(live.len()));
            gone.check();
            assert_eq!(heap.get_raw(gone.handle), Some(gone.at));
            way.free(gone.handle).unwrap();
            assert_eq!(heap.get_raw(gone.handle), None);
            assert_eq!(way.free(gone.handle), Err(HandleError::Stale));
            dead.push(gone.handle);
        }
        if !dead.is_empty() {
            let old = dead[rng.below(dead.len())];
            assert_eq!(heap.get_raw(old), None, "{old:?}");
            assert_eq!(way.free(old), Err(HandleError::Stale), "{old:?}");
        }
        if step % 2500 == 0 {
            match rng.below(5) {
                0 => heap.reclaim(),
                1 => locals[0].flush(),
                2 => heap.set_policy(Policy::EAGER),
                3 => heap.set_policy(Policy::DEFAULT),
                _ => {
                    heap.close(epoch).unwrap();
                    epoch = heap.open_epoch().unwrap();
                }
            }
        }
        if step % (count / steps(8, 2)) == 0 {
            live.iter().for_each(Live::check);
            walk(&heap);
        }
    }
    for old in &dead {
        assert_eq!(heap.try_get_raw(*old), Err(HandleError::Stale), "{old:?}");
        assert_eq!(heap.free_raw(*old), Err(HandleError::Stale), "{old:?}");
    }
    for gone in live {
        gone.check();
        heap.free_raw(gone.handle).unwrap();
    }
    drop(locals);
    heap.reclaim();
    let census = walk(&heap);
    assert_eq!((census.slabs, census.live_slots), (0, 0));
}

#[test]
fn every_dead_handle_is_refused() {
    random_operations::<Unchecked<Host>>(steps(10_000_000, 16), 1);
}

/// The same where slots retire after a few objects and slabs get new ids all the time. Catches a
/// generation that wraps, an id that leads to another slab's objects, and a slot that retires and is
/// used on.
#[test]
fn every_dead_handle_is_refused_when_generations_run_out() {
    random_operations::<FewGenerations<Host>>(steps(1_000_000, 32), 2);
}

/// Handles of all earlier cycles of a position that is used again and again. Catches a generation that
/// begins anew when a slab is recycled.
#[test]
fn handles_of_closed_epochs_are_refused_for_ever() {
    let heap = TestHeap::<Unchecked<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let mut dead: Vec<RawHandle> = Vec::new();
    for cycle in 0..steps(10_000, 8) {
        let epoch = heap.open_epoch().unwrap();
        let sizes = [64, 300, 64];
        let new = sizes.map(|size| local.alloc_raw_in(epoch, layout(size)).unwrap());
        let survivor = new[cycle % 3];
        for handle in new {
            if handle != survivor {
                local.free_raw(handle).unwrap();
            }
        }
        local.leave(epoch);
        heap.close(epoch).unwrap();
        // Live objects stay valid after the close, and are freed like any other.
        assert!(heap.get_raw(survivor).is_some());
        heap.free_raw(survivor).unwrap();
        dead.extend(new);
        // All of late, and of those before so many that each has its turn again and again.
        let late = dead.iter().rev().take(64);
        for old in late.chain(dead.iter().skip(cycle % 61).step_by(61)) {
            assert!(heap.get_raw(*old).is_none(), "{old:?} in cycle {cycle}");
        }
    }
    for old in dead {
        assert_eq!(heap.free_raw(old), Err(HandleError::Stale));
    }
    assert_eq!(walk(&heap).live_slots, 0);
}

/// Of eight threads that free the same handle one wins, a million times over. Catches a free that tests
/// and then sets.
#[test]
fn one_of_many_frees_wins() {
    const THREADS: usize = 8;
    let (rounds, batch) = (steps(1000, 2), steps(1000, 10));
    let heap = TestHeap::<Unchecked<Host>>::new(Host::default());
    let won: Vec<AtomicU64> = (0..batch).map(|_| AtomicU64::new(0)).collect();
    let handles: Vec<AtomicU64> = (0..batch).map(|_| AtomicU64::new(0)).collect();
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (heap, won, handles, barrier) = (&heap, &won, &handles, &barrier);
            scope.spawn(move || {
                let mut local = heap.local().unwrap();
                for round in 0..rounds {
                    if thread == round % THREADS {
                        for handle in handles {
                            let new = local.alloc_raw(layout(64)).unwrap();
                            handle.store(new.bits(), Ordering::Relaxed);
                        }
                        won.iter().for_each(|w| w.store(0, Ordering::Relaxed));
                    }
                    barrier.wait();
                    for index in 0..batch {
                        // Some go up and some down, so that they meet.
                        let index = if thread % 2 == 0 {
                            index
                        } else {
                            batch - 1 - index
                        };
                        let handle = handles[index].load(Ordering::Relaxed);
                        let handle = RawHandle::from_bits(handle);
                        let freed = if thread % 4 < 2 {
                            local.free_raw(handle)
                        } else {
                            heap.free_raw(handle)
                        };
                        match freed {
                            Ok(()) => won[index].fetch_add(1, Ordering::Relaxed),
                            Err(error) => {
                                assert_eq!(error, HandleError::Stale);
                                0
                            }
                        };
                    }
                    barrier.wait();
                    assert!(won.iter().all(|w| w.load(Ordering::Relaxed) == 1));
                    barrier.wait();
                }
            });
        }
    });
    heap.reclaim();
    assert_eq!(walk(&heap).slabs, 0);
}

/// With 4-bit generations a slot serves 16 objects and retires; when its slab is empty it comes back
/// under another id. Catches a generation that wraps (a handle is given out twice), a slab that never
/// comes back, and memory that is lost with an id.
#[test]
fn a_slot_retires_and_returns() {
    let heap = TestHeap::<FewGenerations<Host>>::new(Host::default());
    heap.set_policy(Policy::EAGER);
    // One object keeps the slab, the other slots are used up one after the other.
    let keeper = heap.alloc_raw(layout(64)).unwrap();
    let id = keeper.id();
    let mut seen = HashSet::new();
    for _ in 0..63 * GENERATIONS {
        let handle = heap.alloc_raw(layout(64)).unwrap();
        assert_eq!(handle.id(), id, "the slab still has slots");
        assert!((handle.generation() as usize) < GENERATIONS);
        assert!(seen.insert(handle.bits()), "{handle:?} was given out twice");
        heap.free_raw(handle).unwrap();
    }
    walk(&heap);
    // All other slots have retired: the next object needs another slab.
    let next = heap.alloc_raw(layout(64)).unwrap();
    assert_ne!(next.id(), id);
    assert_eq!(walk(&heap).slabs, 2);
    heap.free_raw(next).unwrap();
    let taken = heap.bytes().taken;
    heap.free_raw(keeper).unwrap();
    // The slab was empty, so it is back, with an id that nobody had.
    for _ in 0..steps(5000, 30) {
        let handle = heap.alloc_raw(layout(64)).unwrap();
        assert_ne!(handle.id(), id);
        assert!(seen.insert(handle.bits()), "{handle:?} was given out twice");
        heap.free_raw(handle).unwrap();
    }
    assert_eq!(heap.bytes().taken, taken, "nothing but numbers was used up");
    assert_eq!(walk(&heap).live_slots, 0);
    for bits in seen {
        assert!(heap.get_raw(RawHandle::from_bits(bits)).is_none());
    }
    assert_eq!(heap.get_raw(keeper), None);
}

/// When the ids are used up the answer is an error by name, again and again; what has an id goes on, and
/// so do objects without handles. Catches an id that is given out twice, and a panic.
#[test]
fn ids_run_out_with_an_error() {
    let heap = TestHeap::<FewIds<Host>>::new(Host::default());
    heap.set_policy(Policy::EAGER);
    let mut seen = HashSet::new();
    let error = loop {
        match heap.alloc_raw(layout(64)) {
            Ok(handle) => {
                assert!(seen.insert(handle.bits()), "{handle:?} was given out twice");
                heap.free_raw(handle).unwrap();
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, AllocError::HandlesExhausted);
    // Each of the 16 ids served one slot until it retired: then the slab was empty.
    assert_eq!(seen.len(), 16 * GENERATIONS);
    let ids = heap.stats().handle_ids;
    assert_eq!((ids.given, ids.total), (16, 16));
    assert_eq!(
        heap.alloc_raw(layout(64)),
        Err(AllocError::HandlesExhausted)
    );
    let plain = heap.alloc(layout(64)).unwrap();
    // SAFETY: it was just allocated.
    unsafe { heap.free(plain, layout(64)) }.unwrap();
    assert_eq!(walk(&heap).slabs, 0);
}

/// When the ids are used up, slabs that have theirs are used on until their generations are used up, too:
/// whichever was recycled last. Catches one that is stranded behind one without an id.
#[test]
fn slabs_with_ids_go_on_when_there_are_no_more() {
    let heap = TestHeap::<FewIds<Host>>::new(Host::default());
    heap.set_policy(Policy::EAGER);
    // All ids but one are with slabs that have served one object.
    let kept: Vec<RawHandle> = (0..15)
        .map(|_| heap.alloc_raw(layout(8192)).unwrap())
        .collect();
    let slabs: HashSet<u32> = kept.iter().map(|handle| handle.id()).collect();
    let mut served = 0;
    let mut fillers = Vec::new();
    while heap.stats().handle_ids.given < 16 {
        fillers.push(heap.alloc_raw(layout(8192)).unwrap());
    }
    for handle in kept.into_iter().chain(fillers) {
        heap.free_raw(handle).unwrap();
    }
    while let Ok(handle) = heap.alloc_raw(layout(8192)) {
        served += 1;
        heap.free_raw(handle).unwrap();
    }
    // Each of the 16 ids serves one slot until that retires. The first generations of some are used.
    println!("{served} more objects of {} slabs", slabs.len());
    assert!(served >= 16 * (GENERATIONS - 1), "{served}");
    assert_eq!(walk(&heap).slabs, 0);
}

/// Many threads make the first handles of a heap at the same time: all of them are its own. Catches a first
/// id that is decided while another thread goes on without it.
#[test]
fn first_handles_of_many_threads() {
    for round in 0..steps(2000, 1) {
        let heap = TestHeap::<Unchecked<Host>>::new(Host::default());
        let barrier = Barrier::new(4);
        let sets = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (heap, barrier, sets) = (&heap, &barrier, &sets);
                scope.spawn(move || {
                    barrier.wait();
                    if thread == 0 && heap.set_first_handle_id(0x3f_ffff) {
                        sets.fetch_add(1, Ordering::Relaxed);
                    }
                    let handle = heap.insert(thread).unwrap();
                    assert_eq!(*heap.get(handle).unwrap(), thread, "round {round}");
                    heap.discard(handle).unwrap();
                });
            }
        });
        assert!(!heap.set_first_handle_id(1));
        assert!(sets.into_inner() <= 1);
    }
}

/// Handles and plain objects of one class never share a slab. Catches a class list that serves both.
#[test]
fn handles_and_pointers_do_not_mix() {
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let mut slabs: [HashSet<usize>; 2] = [HashSet::new(), HashSet::new()];
    let mut plain = Vec::new();
    for index in 0..steps(5000, 100) {
        let named = if index % 2 == 0 {
            local.alloc_raw(layout(64))
        } else {
            heap.alloc_raw(layout(64))
        };
        let named = named.unwrap();
        let object = local.alloc(layout(64)).unwrap();
        slabs[0].insert(heap.get_raw(named).unwrap().addr().get() / 1024);
        slabs[1].insert(object.addr().get() / 1024);
        if index % 3 == 0 {
            local.free_raw(named).unwrap();
        }
        plain.push(object);
    }
    assert!(slabs[0].is_disjoint(&slabs[1]));
    for object in plain {
        // SAFETY: each is freed once.
        unsafe { local.free(object, layout(64)) }.unwrap();
    }
    drop(local);
    walk(&heap);
}
