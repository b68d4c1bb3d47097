//! What others do while the provider works on pages, which is between two sections under the pages' lock: allocations, frees,
//! resizes and reclaims of extents come there, at random, in the same thread.

use crate::common::host::HostProvider;
use crate::common::{Rng, layout, steps, walk};
use core::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};
use temporal_slab::config::Checked;
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab::{Heap, Policy};

const KIB: usize = 1 << 10;
/// What is kept warm.
const KEEP: usize = 512 * KIB;
/// How deep such calls are nested.
const DEPTH: usize = 3;

type Host = HostProvider<{ 1 << 18 }>;

static HEAP: Heap<Checked<Interrupted>> = Heap::new(Interrupted);
static HOST: Mutex<Option<Host>> = Mutex::new(None);
static WORLD: Mutex<World> = Mutex::new(World {
    rng: Rng(7),
    live: Vec::new(),
    transit: Vec::new(),
    resized: Vec::new(),
    interrupted: 0,
});

/// An object, where it ends, and what it is filled with.
struct Object(usize, usize, u8);

struct World {
    rng: Rng,
    live: Vec<Object>,
    /// What the provider works on, from where to where.
    transit: Vec<(usize, usize)>,
    /// What is kept of objects that are being resized, from where to where.
    resized: Vec<(usize, usize)>,
    interrupted: usize,
}

impl World {
    fn get() -> MutexGuard<'static, Self> {
        WORLD.lock().unwrap()
    }

    /// What is nobody else's, from where to where.
    fn taken(&self) -> impl Iterator<Item = (usize, usize)> {
        let live = self.live.iter().map(|object| (object.0, object.1));
        live.chain(self.transit.iter().copied())
            .chain(self.resized.iter().copied())
    }
}

/// Some places of an object.
fn places(Object(base, end, _): &Object) -> impl Iterator<Item = *mut u8> {
    let at = |address| core::ptr::with_exposed_provenance_mut(address);
    (*base..*end).step_by(64 * KIB).chain([*end - 1]).map(at)
}

fn are_disjoint(a: (usize, usize), b: (usize, usize)) -> bool {
    a.1 <= b.0 || b.1 <= a.0
}

/// An object is out: of nothing that another has or that the provider works on.
fn gets(object: NonNull<u8>, size: usize) {
    let mut world = World::get();
    let base = object.as_ptr().expose_provenance();
    let mark = world.rng.below(255) as u8 + 1;
    let object = Object(base, base + size, mark);
    for other in world.taken() {
        assert!(are_disjoint((base, base + size), other), "taken: {other:?}");
    }
    // SAFETY: the object is so long, and the test's.
    places(&object).for_each(|place| unsafe { place.write(mark) });
    world.live.push(object);
}

/// Takes a live object from the world's, and says what it is filled with.
fn takes() -> Option<(NonNull<u8>, usize, u8)> {
    let mut world = World::get();
    let count = world.live.len();
    let chosen = (count > 0).then(|| world.rng.below(count))?;
    let object = world.live.swap_remove(chosen);
    check(&object);
    let base = core::ptr::with_exposed_provenance_mut(object.0);
    Some((NonNull::new(base)?, object.1 - object.0, object.2))
}

/// An object is filled as it was, but for its last byte, which it may have lost.
fn check(object: &Object) {
    for place in places(object).filter(|place| place.addr() + 1 < object.1) {
        // SAFETY: the object is so long, the test's, and was written there.
        assert_eq!(unsafe { place.read() }, object.2);
    }
}

/// What somebody does. No lock is held while the heap is called.
fn step() {
    let (what, size) = {
        let mut world = World::get();
        let what = world.rng.below(10);
        let size = match world.rng.below(3) {
            0 => 33 * KIB + world.rng.below(100 * KIB),
            1 => 60 * KIB + world.rng.below(400 * KIB),
            _ => 300 * KIB + world.rng.below(700 * KIB),
        };
        (what, size)
    };
    match what {
        0..4 if World::get().live.len() < 16 => {
            gets(HEAP.alloc(layout(size)).unwrap(), size);
        }
        0..7 => {
            if let Some((object, size, _)) = takes() {
                // SAFETY: it is live and used no more.
                unsafe { HEAP.free(object, layout(size)) }.unwrap();
            }
        }
        7 | 8 => {
            if let Some((object, old, mark)) = takes() {
                let base = object.addr().get();
                let kept = (base, base + old.min(size));
                World::get().resized.push(kept);
                // SAFETY: it is live, of this layout, and what comes is used instead.
                let moved = unsafe { HEAP.resize_large(object, layout(old), layout(size)) };
                World::get().resized.retain(|other| *other != kept);
                let (now, long) = moved.map_or((object, old), |moved| (moved, size));
                let base = now.as_ptr().expose_provenance();
                check(&Object(base, base + long.min(old), mark));
                gets(now, long);
            }
        }
        _ => {
            let keep = World::get().rng.below(KEEP);
            HEAP.reclaim_to(keep);
        }
    }
}

/// What others do while the provider works on pages.
fn interrupt(pages: Region) {
    let from = pages.base.addr().get();
    let pages = (from, from + pages.size);
    let count = {
        let mut world = World::get();
        for other in world.taken() {
            assert!(are_disjoint(pages, other), "{pages:?} of {other:?}");
        }
        if world.transit.len() == DEPTH {
            return;
        }
        world.transit.push(pages);
        world.interrupted += 1;
        world.rng.below(4)
    };
    (0..count).for_each(|_| step());
    World::get().transit.retain(|transit| *transit != pages);
}

/// The host's provider, whose work on pages takes long.
#[derive(Debug)]
struct Interrupted;

fn host<T>(f: impl FnOnce(&Host) -> T) -> T {
    f(HOST.lock().unwrap().get_or_insert_default())
}

// SAFETY: memory comes from the host's provider.
unsafe impl PageProvider for Interrupted {
    const CHUNK_SIZE: usize = Host::CHUNK_SIZE;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        host(|host| host.acquire(size, align))
    }
    unsafe fn release(&self, region: Region) {
        // SAFETY: passed on.
        host(|host| unsafe { host.release(region) });
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        interrupt(pages);
        let fails = World::get().rng.below(16) == 0;
        if fails {
            return Err(ProviderError);
        }
        // SAFETY: passed on.
        host(|host| unsafe { host.decommit(pages) })
    }
    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        Ok(())
    }
    fn capabilities(&self) -> Capabilities {
        host(|host| host.capabilities())
    }
}

/// Catches pages that are handed out, or given back again, while the provider works on them, an extent that is split or
/// merged over them, pages that go back in use, and a sum that drifts where two such works end in another order than they
/// began.
#[test]
fn pages_in_transit_are_nobodys() {
    HEAP.set_policy(Policy::keeping(KEEP));
    for number in 0..steps(20_000, 60) {
        step();
        if number % 64 == 0 {
            walk(&HEAP);
        }
    }
    while let Some((object, size, _)) = takes() {
        // SAFETY: it is live and used no more.
        unsafe { HEAP.free(object, layout(size)) }.unwrap();
    }
    HEAP.reclaim();
    assert_eq!(walk(&HEAP).runs, 0);
    let interrupted = World::get().interrupted;
    assert!(interrupted > steps(2000, 1), "{interrupted} times only");
}
