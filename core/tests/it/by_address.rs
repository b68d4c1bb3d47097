//! Objects by their address alone: found, sized and freed like any, and whatever else an address may be is refused by
//! its kind, with nothing changed.

use crate::common::host::HostProvider;
use crate::common::{Rng, layout, steps, walk};
use core::alloc::Layout;
use core::ptr::NonNull;
use std::sync::Mutex;
use temporal_slab::config::{Checked, Unchecked};
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region, StaticProvider};
use temporal_slab::{FreeError, Heap};

const CHUNK: usize = 1 << 18;

/// What the heap did not write itself is no address of anything.
const NONSENSE: u8 = 0xA5;

/// Regions `TIMES` as long as what was asked for, full of nonsense, also when they were given back.
#[derive(Debug, Default)]
struct Nonsense<const TIMES: usize>(HostProvider<CHUNK, TIMES>, Mutex<Vec<Region>>);

// SAFETY: memory comes from the host's provider, to which it goes back later.
unsafe impl<const TIMES: usize> PageProvider for Nonsense<TIMES> {
    const CHUNK_SIZE: usize = CHUNK;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        let region = self.0.acquire(size, align)?;
        // SAFETY: it is new.
        unsafe { region.base.write_bytes(NONSENSE, region.size) };
        Some(region)
    }
    unsafe fn release(&self, region: Region) {
        // SAFETY: it is nobody's now.
        unsafe { region.base.write_bytes(NONSENSE, region.size) };
        self.1.lock().unwrap().push(region);
    }
    unsafe fn decommit(&self, _pages: Region) -> Result<(), ProviderError> {
        Ok(())
    }
    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        Ok(())
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}

impl<const TIMES: usize> Drop for Nonsense<TIMES> {
    fn drop(&mut self) {
        for region in self.1.get_mut().unwrap().drain(..) {
            // SAFETY: it came from there, and was given back.
            unsafe { self.0.release(region) };
        }
    }
}

type Host = HostProvider<CHUNK>;
type TestHeap<C = Checked<Host>> = Heap<C>;

/// Classes, runs in a block, runs of blocks, regions.
const SIZES: [usize; 9] = [1, 16, 100, 2_000, 9_000, 30_000, 70_000, 120_000, 900_000];

fn at(address: usize) -> NonNull<u8> {
    NonNull::new(core::ptr::without_provenance_mut(address)).unwrap()
}

/// What was allocated with a layout is as large as that, by its address, in epochs and out of them, through a local and
/// without one, and is freed by it. Catches a size that is too small, and an object that is not found.
#[test]
fn objects_are_found_sized_and_freed() {
    fn run<C: temporal_slab::config::Config>(heap: &TestHeap<C>) {
        let (mut local, epoch) = (heap.local().unwrap(), heap.open_epoch().unwrap());
        for round in 0..steps(6, 2) {
            let mut objects = Vec::new();
            for size in SIZES {
                for align in [1, 16, 64, 4096] {
                    let layout = Layout::from_size_align(size, align).unwrap();
                    let object = match round % 3 {
                        0 => local.alloc(layout),
                        1 => local.alloc_in(epoch, layout),
                        _ => heap.alloc(layout),
                    };
                    objects.push((object.unwrap(), layout));
                }
            }
            for (object, layout) in &objects {
                let (ours, theirs) = (local.usable_size(*object), heap.usable_size(*object));
                assert_eq!(ours, theirs);
                assert!(ours.unwrap() >= layout.size(), "{layout:?}");
                assert_eq!(ours.unwrap(), heap.good_size(*layout), "{layout:?}");
            }
            walk(heap);
            for (number, (object, _)) in objects.into_iter().enumerate() {
                // SAFETY: it is live and freed once.
                unsafe {
                    match number % 2 {
                        0 => local.free_unsized(object),
                        _ => heap.free_unsized(object),
                    }
                }
                .unwrap();
            }
            local.leave(epoch);
            local.flush();
            assert_eq!(heap.stats().live_objects(), 0);
        }
        drop(local);
        heap.reclaim();
        assert_eq!(walk(heap).slabs, 0);
    }
    run(&TestHeap::<Checked<Host>>::new(Host::default()));
    run(&TestHeap::<Unchecked<Host>>::new(Host::default()));
}

/// Everything that is no object is refused by its kind, on both ways, and the heap is as it was. Catches a wild address
/// that is followed, and a refusal that frees.
#[test]
fn what_is_no_object_is_refused() {
    let (heap, other) = (
        TestHeap::<Checked<Host>>::new(Host::default()),
        TestHeap::<Checked<Host>>::new(Host::default()),
    );
    let mut local = heap.local().unwrap();
    let on_stack = 0u64;
    let mut wrong = vec![
        (
            at(core::ptr::from_ref(&on_stack).addr()),
            FreeError::Foreign,
        ),
        (at(1), FreeError::Foreign),
        (at(usize::MAX), FreeError::Foreign),
        (at(usize::MAX / 2 + 1), FreeError::Foreign),
        (other.alloc(layout(64)).unwrap(), FreeError::Foreign),
        (other.alloc(layout(900_000)).unwrap(), FreeError::Foreign),
    ];
    let mut live = Vec::new();
    for size in SIZES {
        let object = local.alloc(layout(size)).unwrap();
        live.push(object);
        if size >= 16 {
            wrong.push((at(object.addr().get() + 8), FreeError::Interior));
            wrong.push((at(object.addr().get() + 1), FreeError::Interior));
        }
    }
    // In the middle of a large object its beginning is known only near it.
    wrong.push((at(live[8].addr().get() + 800_000), FreeError::Foreign));
    wrong.push((at(live[7].addr().get() + 100_000), FreeError::Foreign));
    let named = local.alloc_raw(layout(64)).unwrap();
    wrong.push((heap.get_raw(named).unwrap(), FreeError::WrongLayout));
    let dead = [16, 100].map(|size| {
        let object = local.alloc(layout(size)).unwrap();
        // SAFETY: it is live; that it is freed again is what is tried.
        unsafe { local.free_unsized(object) }.unwrap();
        object
    });
    wrong.extend(dead.map(|object| (object, FreeError::DoubleFree)));
    let before = walk(&heap);
    for (object, error) in wrong {
        let found = [
            heap.usable_size(object).map(|_| ()),
            local.usable_size(object).map(|_| ()),
        ];
        // SAFETY: a checked heap refuses what is no object.
        let freed = unsafe { [heap.free_unsized(object), local.free_unsized(object)] };
        for result in found.into_iter().chain(freed) {
            let is_region = result == Err(FreeError::Interior) && error == FreeError::Foreign;
            assert!(
                result == Err(error) || is_region,
                "{object:p}: {result:?}, not {error}"
            );
        }
    }
    assert_eq!(walk(&heap), before);
    for object in live {
        // SAFETY: it is live and freed once.
        unsafe { local.free_unsized(object) }.unwrap();
    }
    heap.free_raw(named).unwrap();
    drop(local);
    assert_eq!(walk(&heap).live_slots, 0);
}

/// Addresses at random, in the heap's chunks and around them: each is a live object's beginning or is refused. Catches
/// an address between that passes for one.
#[test]
fn random_addresses() {
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let mut rng = Rng(3);
    let mut live = std::collections::BTreeMap::new();
    for _ in 0..steps(2000, 60) {
        let object = local.alloc(layout(1 + rng.below(3000))).unwrap();
        live.insert(object.addr().get(), object);
    }
    let (low, high) = (
        *live.keys().next().unwrap() - CHUNK,
        *live.keys().last().unwrap() + CHUNK,
    );
    for _ in 0..steps(300_000, 300) {
        let address = low + rng.below(high - low);
        assert_eq!(
            heap.usable_size(at(address)).is_ok(),
            live.contains_key(&address)
        );
        if !live.contains_key(&address) {
            // SAFETY: it is no object, and a checked heap refuses it.
            assert!(unsafe { local.free_unsized(at(address)) }.is_err());
        }
    }
    for object in live.into_values() {
        // SAFETY: it is live and freed once.
        unsafe { heap.free_unsized(object) }.unwrap();
    }
    drop(local);
    assert_eq!(walk(&heap).live_slots, 0);
}

/// A local that has once met a chunk looks in it without a lock, however many there are side by side. Catches a memory of
/// chunks in which some that are in use push each other out, again and again.
#[test]
fn known_chunks_are_looked_up_without_a_lock() {
    const CHUNKS: usize = steps(100, 20);
    let mut memory = Box::<[u8]>::new_uninit_slice((CHUNKS + 8) << 16);
    let heap: Heap<Checked<StaticProvider<'_>>> = Heap::new(StaticProvider::new(&mut memory));
    let mut local = heap.local().unwrap();
    let layout = layout(2_000);
    let mut of_each = Vec::new();
    while of_each.len() < CHUNKS {
        let object = local.alloc(layout).unwrap();
        let chunk = object.addr().get() >> 16;
        if of_each.last().is_none_or(|(_, last)| *last != chunk) {
            of_each.push((object, chunk));
        }
    }
    let look = |local: &mut temporal_slab::Local<'_, _>| {
        for (object, _) in &of_each {
            assert!(local.usable_size(*object).unwrap() >= 2_000);
        }
    };
    look(&mut local);
    let before = heap.stats().locks.pages.taken;
    (0..steps(20, 3)).for_each(|_| look(&mut local));
    let taken = heap.stats().locks.pages.taken - before;
    assert!(taken < 10, "{taken} for looks at {CHUNKS} chunks");
}

/// Memory of a chunk that was given back is nobody's, for a local that knew the chunk, too. Catches what is remembered beyond
/// that.
#[test]
fn a_released_chunk_is_forgotten() {
    let heap: Heap<Checked<Nonsense<1>>> = Heap::new(Nonsense::default());
    let mut local = heap.local().unwrap();
    for round in 0..3 {
        let object = local.alloc(layout(9_000)).unwrap();
        assert_eq!(local.usable_size(object), heap.usable_size(object));
        assert!(local.usable_size(object).is_ok(), "round {round}");
        // SAFETY: it is live and freed once.
        unsafe { local.free_unsized(object) }.unwrap();
        local.flush();
        heap.reclaim();
        assert_eq!(heap.stats().pages.chunks, 0, "round {round}");
        assert_eq!(local.usable_size(object), Err(FreeError::Foreign));
        // SAFETY: a checked heap refuses what is no object.
        let freed = unsafe { local.free_unsized(object) };
        assert_eq!(freed, Err(FreeError::Foreign), "round {round}");
    }
}

/// What lies behind a chunk in a region that is longer is nobody's. Catches its first byte taken for the chunk's.
#[test]
fn behind_a_chunk_is_nothing() {
    let heap: Heap<Checked<Nonsense<2>>> = Heap::new(Nonsense::default());
    let mut local = heap.local().unwrap();
    let object = local.alloc(layout(9_000)).unwrap();
    let chunk = object.addr().get() & !(CHUNK - 1);
    for address in [chunk + CHUNK, chunk + CHUNK + 64, chunk + 2 * CHUNK - 64] {
        assert_eq!(local.usable_size(at(address)), Err(FreeError::Foreign));
        assert_eq!(heap.usable_size(at(address)), Err(FreeError::Foreign));
    }
    assert!(local.usable_size(object).is_ok());
    // SAFETY: it is live and freed once.
    unsafe { local.free_unsized(object) }.unwrap();
}
