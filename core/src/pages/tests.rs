//! Pages by themselves: runs, long runs, regions and decommit against a model, with nothing but
//! strict provenance. What is above this layer recovers pointers from addresses; this does not.

extern crate std;

use super::arena::META_HEADER;
use super::{DepotBlocks, Geometry, Kind, META_REGION, MetaShape, Pages, Run};
use crate::class::{BLOCK, GRANULE};
use crate::error::AllocError;
use crate::provider::{FaultyProvider, StaticProvider};
use crate::slab::Slab;
use core::alloc::Layout;
use core::ptr::NonNull;
use std::boxed::Box;
use std::vec::Vec;

type Provider<'m> = FaultyProvider<StaticProvider<'m, { 4 * BLOCK }>, true, 64>;

/// Something that is out.
enum Out<'s> {
    Slab(*mut DepotBlocks, &'s Slab, Run, u32),
    Region(NonNull<u8>, usize),
}

impl Out<'_> {
    fn bytes(&self) -> (*mut u8, usize) {
        match self {
            Out::Slab(_, _, run, granules) => (run.base, *granules as usize * GRANULE),
            Out::Region(base, size) => (base.as_ptr(), *size),
        }
    }

    /// Writes a mark at both ends.
    fn mark(&self, mark: u8) {
        let (base, size) = self.bytes();
        // SAFETY: it is out, so it is ours.
        unsafe {
            base.write(mark);
            base.add(size - 1).write(mark);
        }
    }

    fn is_marked(&self, mark: u8) -> bool {
        let (base, size) = self.bytes();
        // SAFETY: as above, and both were written.
        unsafe { base.read() == mark && base.add(size - 1).read() == mark }
    }
}

/// Catches two runs that overlap, a decommit of memory in use, a sum that drifts, and memory that
/// does not come back.
#[test]
fn runs_and_regions_are_disjoint_and_come_back() {
    let mut memory = Box::<[u8]>::new_uninit_slice(3 << 20);
    let provider: Provider<'_> = FaultyProvider::new(StaticProvider::new(&mut memory));
    let mut pages: Pages<&Provider<'_>, spin::Mutex<()>> = Pages::new(&provider);
    let mut depots = [DepotBlocks::new(0), DepotBlocks::new(1)];
    let depots = depots.as_mut_ptr();
    let meta = MetaShape::plain(Layout::new::<Slab>());
    let mut out: Vec<(Out<'_>, u8)> = Vec::new();
    let mut seed = 11u64;
    let mut random = |n: usize| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as usize % n
    };
    let steps = if cfg!(miri) { 250 } else { 20_000 };
    for step in 0..steps {
        let mark = step as u8;
        let taken = match random(16) {
            0..6 => {
                let (granules, align) = (1 + random(32) as u32, [1, 1, 2, 4][random(4)]);
                // SAFETY: the depots outlive the pages' use of them.
                let depot = unsafe { depots.add(random(2)) };
                // SAFETY: as above.
                let taken =
                    unsafe { pages.take_slab(depot, meta, granules, align, || true, |_| false) };
                taken.map(|(slab, run, _)| {
                    assert!(run.base.addr().is_multiple_of(align as usize * GRANULE));
                    Out::Slab(depot, slab, run, granules)
                })
            }
            6 => {
                // More than half a block.
                let granules = 33 + random(4 * 64 - 32) as u32;
                // SAFETY: the depots outlive the pages' use of them.
                let taken =
                    unsafe { pages.take_slab(depots, meta, granules, 1, || true, |_| false) };
                taken.map(|(slab, run, _)| {
                    assert!(run.base.addr().is_multiple_of(BLOCK));
                    Out::Slab(depots, slab, run, granules)
                })
            }
            7 => {
                let size = 4096 * (1 + random(20));
                // SAFETY: as above.
                let taken = unsafe {
                    pages.take_region(depots, size, Geometry::<&Provider<'_>>::CHUNK, || true)
                };
                taken.map(|(base, _)| {
                    assert!(
                        base.addr()
                            .get()
                            .is_multiple_of(Geometry::<&Provider<'_>>::CHUNK)
                    );
                    Out::Region(base, size)
                })
            }
            8..14 if !out.is_empty() => {
                let (gone, mark) = out.swap_remove(random(out.len()));
                assert!(gone.is_marked(mark), "somebody wrote to what was out");
                // SAFETY: it was out and is used no more.
                unsafe {
                    match gone {
                        Out::Slab(depot, slab, run, n) => {
                            let slab = Some((slab, meta));
                            pages.put_slab(depot, slab, run.chunk, run.base.addr(), n);
                        }
                        Out::Region(base, n) => {
                            pages
                                .put_region(base.addr().get(), n, |_| true, |_| {})
                                .unwrap();
                        }
                    }
                }
                continue;
            }
            14 => {
                pages.cool(random(100_000));
                continue;
            }
            _ => {
                pages.release_empty_chunks();
                continue;
            }
        };
        if let Ok(taken) = taken {
            taken.mark(mark);
            out.push((taken, mark));
        }
        let bytes = pages.bytes();
        assert_eq!(bytes.taken, provider.accounts().bytes);
        assert!(bytes.resident <= bytes.taken && bytes.warm <= bytes.resident);
    }
    assert!(out.iter().all(|(one, mark)| one.is_marked(*mark)));
    assert!(provider.accounts().decommits > 0);
    pages.dissolve();
    let accounts = provider.accounts();
    assert_eq!(
        (accounts.regions, accounts.bytes, accounts.wrong_releases),
        (0, 0, 0)
    );
}

fn aligned(size: usize) -> Layout {
    Layout::from_size_align(size, 64).unwrap()
}

/// A piece that leaves nothing, what is left put aside and used later to its last byte, and what is too long for any
/// region. Catches a region too many, and one piece over another's end.
#[test]
fn metadata_is_used_to_its_end() {
    const ROOM: usize = META_REGION - META_HEADER;
    /// The least that is put aside.
    const WORTH: usize = 256;
    let mut memory = Box::<[u8]>::new_uninit_slice(1 << 20);
    let provider: Provider<'_> = FaultyProvider::new(StaticProvider::new(&mut memory));
    let mut pages: Pages<&Provider<'_>, spin::Mutex<()>> = Pages::new(&provider);
    let take = |kind, layout| {
        let piece = pages.take_meta(kind, layout).unwrap();
        // SAFETY: it is ours, and so long.
        unsafe { piece.write_bytes(0xEE, layout.size()) };
        provider.accounts().regions
    };
    for over in [ROOM - 63, ROOM, META_REGION, 1 << 30] {
        assert_eq!(
            pages.take_meta(Kind::EpochDepot, aligned(over)),
            Err(AllocError::TooLarge)
        );
    }
    assert_eq!(provider.accounts().regions, 0);
    assert_eq!(take(Kind::Counters, aligned(ROOM - 1024)), 1);
    assert_eq!(take(Kind::Large, aligned(1024)), 1, "it just fits");
    assert_eq!(take(Kind::EpochDepot, aligned(ROOM - 64)), 2, "the longest");
    assert_eq!(take(Kind::Ring, aligned(ROOM - 2048)), 3);
    assert_eq!(take(Kind::Local, aligned(4096)), 4, "2,048 are put aside");
    assert_eq!(take(Kind::CacheState, aligned(ROOM - 4096 - WORTH)), 4);
    assert_eq!(
        take(Kind::SmallStore, aligned(2048)),
        4,
        "what was put aside"
    );
    assert_eq!(take(Kind::FullStore, aligned(WORTH)), 4, "and so was this");
    assert_eq!(pages.bytes().meta, 4 * META_REGION);
    assert_eq!(pages.bytes().taken, 4 * META_REGION);
    assert_eq!(pages.bytes().resident, 4 * META_REGION);
    pages.dissolve();
    assert_eq!(provider.accounts().bytes, 0);
}

/// All of a chunk is for objects: its description and its part of the page map lie in metadata.
#[test]
fn chunks_are_for_objects_alone() {
    let mut memory = Box::<[u8]>::new_uninit_slice(3 << 20);
    let provider: Provider<'_> = FaultyProvider::new(StaticProvider::new(&mut memory));
    let mut pages: Pages<&Provider<'_>, spin::Mutex<()>> = Pages::new(&provider);
    let mut depot = DepotBlocks::new(0);
    let meta = MetaShape::plain(Layout::new::<Slab>());
    for chunks in 1..4 {
        // SAFETY: the depot outlives the pages' use of it.
        let taken =
            unsafe { pages.take_slab::<Slab>(&raw mut depot, meta, 4 * 64, 1, || true, |_| false) };
        assert!(taken.is_ok());
        assert_eq!(pages.bytes().meta, META_REGION);
        assert_eq!(
            pages.bytes().taken,
            META_REGION + chunks * Geometry::<&Provider<'_>>::CHUNK
        );
    }
    pages.dissolve();
}
