//! Extents that are split, merged and given back while the provider works on pages, which is between two sections under the
//! pages' lock: each section of another thread that can come there comes there, in this one.

use crate::common::host::HostProvider;
use crate::common::{Rng, layout, steps, walk};
use core::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};
use temporal_slab::config::Checked;
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab::{DefaultLock, Heap, Policy};

const KIB: usize = 1 << 10;
/// What is kept warm.
const KEEP: usize = 512 * KIB;
/// Calls of the provider in which others come.
const DEPTH: usize = 3;

type Host = HostProvider<{ 1 << 18 }>;

static HEAP: Heap<Interrupted, DefaultLock, Checked> = Heap::new(Interrupted);
static HOST: Mutex<Option<Host>> = Mutex::new(None);
static WORLD: Mutex<World> = Mutex::new(World {
    rng: Rng(7),
    live: Vec::new(),
    transit: Vec::new(),
    interrupted: 0,
});

/// An object, where it ends, and what it is filled with.
struct Object(usize, usize, u8);

struct World {
    rng: Rng,
    live: Vec<Object>,
    /// What the provider works on, from where to where.
    transit: Vec<(usize, usize)>,
    interrupted: usize,
}

impl World {
    fn get() -> MutexGuard<'static, Self> {
        WORLD.lock().unwrap()
    }
}

/// Some places of an object.
fn places(Object(base, end, _): &Object) -> impl Iterator<Item = *mut u8> {
    let at = |address| core::ptr::with_exposed_provenance_mut(address);
    (*base..*end).step_by(64 * KIB).chain([*end - 1]).map(at)
}

/// An object is out: of nothing that another has or that the provider works on.
fn gets(object: NonNull<u8>, size: usize) {
    let mut world = World::get();
    let base = object.as_ptr().expose_provenance();
    let mark = world.rng.below(255) as u8 + 1;
    let object = Object(base, base + size, mark);
    for transit in &world.transit {
        assert!(
            object.1 <= transit.0 || transit.1 <= object.0,
            "in transit: {transit:?}"
        );
    }
    // SAFETY: the object is so long, and the test's.
    places(&object).for_each(|place| unsafe { place.write(mark) });
    world.live.push(object);
}

/// One that is out, which is as it was filled, and no longer the world's.
fn takes() -> Option<(NonNull<u8>, usize)> {
    let mut world = World::get();
    let count = world.live.len();
    let chosen = (count > 0).then(|| world.rng.below(count))?;
    let object = world.live.swap_remove(chosen);
    for place in places(&object) {
        // SAFETY: as above, and it was written.
        assert_eq!(unsafe { place.read() }, object.2);
    }
    let base = core::ptr::with_exposed_provenance_mut(object.0);
    Some((NonNull::new(base)?, object.1 - object.0))
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
            if let Some((object, size)) = takes() {
                // SAFETY: it is live and used no more.
                unsafe { HEAP.free(object, layout(size)) }.unwrap();
            }
        }
        7 | 8 => {
            if let Some((object, old)) = takes() {
                // SAFETY: it is live, of this layout, and what comes is used instead.
                let moved = unsafe { HEAP.resize_large(object, layout(old), layout(size)) };
                match moved {
                    Some(moved) => gets(moved, size),
                    None => gets(object, old),
                }
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
        for object in &world.live {
            assert!(
                object.1 <= pages.0 || pages.1 <= object.0,
                "in use: {pages:?}"
            );
        }
        for transit in &world.transit {
            assert!(
                transit.1 <= pages.0 || pages.1 <= transit.0,
                "twice: {pages:?}"
            );
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
    HEAP.set_policy(Policy::Batched { bytes: KEEP });
    for number in 0..steps(20_000, 60) {
        step();
        if number % 64 == 0 {
            walk(&HEAP);
        }
    }
    while let Some((object, size)) = takes() {
        // SAFETY: it is live and used no more.
        unsafe { HEAP.free(object, layout(size)) }.unwrap();
    }
    HEAP.reclaim();
    assert_eq!(walk(&HEAP).runs, 0);
    let interrupted = World::get().interrupted;
    assert!(interrupted > steps(2000, 1), "{interrupted} times only");
}
