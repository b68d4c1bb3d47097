//! Runs of granules: which are free, which are warm, which went back. All under the pages' lock.
//!
//! # Invariants
//!
//! For each block, with the bits of its granules:
//! - `free` and the runs handed out are disjoint, and with the header's granules they are all 64,
//!   except while a decommit is under way: its granules are then in neither (*in transit*);
//! - `dirty` holds every granule that may have been written since its memory was fresh;
//! - `gone` holds the granules that were decommitted and not committed since.
//!
//! A block is in one of four states: *free* (its bit is in the chunk's `free_blocks`), *owned* by a
//! row (it is in the row's bucket for its longest free run, if it has one), part of a *long run*, or
//! *in transit*. A page is *warm* when all its granules are free and some granule is dirty: it is
//! what a decommit would give back. `State::warm` is the sum over all blocks, at all times.

use super::arena::{Arena, Kind};
use super::block::{PageShape, longest_run, mask};
use super::chain::{Chain, Linked, Links};
use super::map::{Geometry, Map, NO_ROW};
use super::meta::META_KINDS;
use super::tree::{Node, Tree, Use};
use crate::class::{BLOCK, GRANULE};
use crate::provider::{PageProvider, Region};
use crate::slab::Slab;
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr::{self, NonNull};

/// Chunks with a free block.
pub(super) const OPEN: usize = 0;
/// Chunks with warm pages.
pub(super) const WARM: usize = 1;

/// 64 granules of a chunk.
#[derive(Debug)]
pub(crate) struct Block {
    pub(super) free: u64,
    pub(super) dirty: u64,
    pub(super) gone: u64,
    /// The row's buckets, for an owned block.
    pub(super) row: *mut RowBlocks,
    links: Links<Block>,
    bucket: u8,
    pub(super) index: u8,
}

/// A chunk's description. `blocks` is followed in memory by as many as the geometry says.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Chunk {
    node: Node,
    /// Where the chunk begins: its region's base.
    pub(super) base: *mut u8,
    pub(super) free_blocks: u64,
    /// The blocks of which some granule is dirty.
    pub(super) touched: u64,
    pub(super) warm: usize,
    open_links: Links<Chunk>,
    warm_links: Links<Chunk>,
    blocks: [Block; 0],
}

impl Linked<OPEN> for Chunk {
    fn links(&mut self) -> &mut Links<Self> {
        &mut self.open_links
    }
}
impl Linked<WARM> for Chunk {
    fn links(&mut self) -> &mut Links<Self> {
        &mut self.warm_links
    }
}
impl Linked<0> for Block {
    fn links(&mut self) -> &mut Links<Self> {
        &mut self.links
    }
}

/// A row's blocks by the length of their longest free run: bucket `b` has runs of `2^b` or more.
#[derive(Debug)]
pub(crate) struct RowBlocks {
    pub(super) id: u16,
    /// Slabs, single objects and regions that are out. A row with none is drained.
    pub(super) pieces: usize,
    /// Bytes that came back since the row's era began, less those that it took since: what a close is to give back beside
    /// what it finds. Others may have them by now, who give them back instead.
    freed: usize,
    pub(super) buckets: [Chain<Block, 0>; 7],
}

impl RowBlocks {
    pub(crate) const fn new(id: u16) -> Self {
        Self {
            id,
            pieces: 0,
            freed: 0,
            buckets: [const { Chain::new() }; 7],
        }
    }

    /// A piece of so many bytes is out.
    pub(super) fn took(&mut self, bytes: usize) {
        self.pieces += 1;
        self.freed = self.freed.saturating_sub(bytes);
    }

    /// A piece of so many bytes is back.
    pub(super) fn gave(&mut self, bytes: usize) {
        self.pieces -= 1;
        self.freed += bytes;
    }

    /// What came back in the era that ends.
    pub(super) fn end_era(&mut self) -> usize {
        core::mem::take(&mut self.freed)
    }
}

/// What must be got from the provider before a request can be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// A metadata region.
    Meta,
    /// A block of which nothing is in memory yet. There is one.
    Fresh,
    /// A chunk.
    Chunk,
    /// Nothing can help: the row's epoch is closed.
    Closed,
}

/// Everything that the pages' lock guards.
#[derive(Debug)]
pub(super) struct State<P> {
    pub(super) tree: Tree,
    pub(super) arena: Arena,
    /// Unused metadata of slabs, by kind.
    pub(super) unused_slabs: [*const Slab; META_KINDS],
    pub(super) open: Chain<Chunk, OPEN>,
    pub(super) warm_chunks: Chain<Chunk, WARM>,
    pub(super) page: PageShape,
    /// Whether what is gone wants a commit: a run of it is still gone when it is handed out, until it had one.
    pub(super) commits: bool,
    /// Bytes of warm pages.
    pub(super) warm: usize,
    /// The least that `warm` was since somebody asked.
    pub(super) least_warm: usize,
    /// Bytes of chunk pages that were touched and not decommitted, and of other regions.
    pub(super) resident: usize,
    /// Chunks.
    pub(super) chunks: usize,
    /// Bytes of metadata regions.
    pub(super) meta: usize,
    /// Chunks of which every block is free.
    pub(super) empty_chunks: usize,
    provider: PhantomData<P>,
}

// SAFETY: the pointers name metadata that only this state reaches, under its lock.
unsafe impl<P> Send for State<P> {}

impl<P: PageProvider> State<P> {
    pub(super) const fn new() -> Self {
        Self {
            tree: Tree::new(),
            arena: Arena::new(),
            unused_slabs: [ptr::null(); META_KINDS],
            open: Chain::new(),
            warm_chunks: Chain::new(),
            page: match PageShape::new(4096) {
                Some(shape) => shape,
                None => panic!("a block is made of 4 KiB pages"),
            },
            commits: true,
            warm: 0,
            least_warm: 0,
            resident: 0,
            chunks: 0,
            meta: 0,
            empty_chunks: 0,
            provider: PhantomData,
        }
    }

    pub(super) fn chunk_layout() -> Layout {
        let size = size_of::<Chunk>() + Geometry::<P>::BLOCKS * size_of::<Block>();
        Layout::new::<Chunk>()
            .align_to(64)
            .map_or(Layout::new::<Chunk>(), |l| {
                Layout::from_size_align(size, l.align()).unwrap_or(l)
            })
    }

    /// Takes a chunk in: `region` was checked, `piece` is memory of [`Self::chunk_layout`].
    ///
    /// # Safety
    /// Both are ours and unused; the region overlaps nothing in the tree.
    pub(super) unsafe fn add_chunk(&mut self, region: Region, piece: NonNull<u8>) -> *mut Chunk {
        let chunk: *mut Chunk = piece.as_ptr().cast();
        let base = region.base.as_ptr();
        // SAFETY: the piece is long enough for the chunk and its blocks, and the region is ours.
        unsafe {
            Geometry::<P>::write_map(base);
            chunk.write(Chunk {
                node: Node::new(region, Use::Chunk),
                base,
                free_blocks: Self::all_blocks(),
                touched: 0,
                warm: 0,
                open_links: Links::UNLINKED,
                warm_links: Links::UNLINKED,
                blocks: [],
            });
            for index in 0..Geometry::<P>::BLOCKS {
                let full = Self::full(index as u32);
                Self::block(chunk, index as u32).write(Block {
                    free: full,
                    dirty: !full,
                    gone: 0,
                    row: ptr::null_mut(),
                    links: Links::UNLINKED,
                    bucket: 0,
                    index: index as u8,
                });
            }
            self.tree.insert(chunk.cast());
            self.open.insert(chunk);
        }
        self.empty_chunks += 1;
        self.chunks += 1;
        self.resident += Self::header_bytes(self.page);
        chunk
    }

    /// Says that all pages of a chunk that was just added are in memory.
    ///
    /// # Safety
    /// `chunk` is here.
    pub(super) unsafe fn touch_chunk(&mut self, chunk: *mut Chunk) {
        for index in 0..Geometry::<P>::BLOCKS as u32 {
            // SAFETY: the chunk is valid.
            unsafe { self.change(chunk, index, |block, _| block.dirty |= Self::full(index)) };
        }
    }

    /// Lets an unused chunk go: its region, for the provider.
    ///
    /// # Safety
    /// `chunk` is here and every block of it is free.
    unsafe fn remove_chunk(&mut self, chunk: *mut Chunk) -> Region {
        // SAFETY: the chunk is valid until its piece is put back, which comes last.
        unsafe {
            for index in 0..Geometry::<P>::BLOCKS {
                self.change(chunk, index as u32, |block, page| {
                    block.dirty &= page.touching(!Self::full(u32::from(block.index)));
                });
            }
            self.resident -= Self::header_bytes(self.page);
            self.empty_chunks -= 1;
            self.chunks -= 1;
            let region = (*chunk).node.region;
            self.tree.remove(chunk.cast());
            self.open.remove(chunk);
            self.warm_chunks.remove(chunk);
            if let Some(piece) = NonNull::new(chunk.cast()) {
                self.arena.put(Kind::Chunk, piece);
            }
            region
        }
    }

    /// A chunk of which no byte is in use and, if `only_cold`, nothing is warm.
    pub(super) fn pop_empty_chunk(&mut self, only_cold: bool) -> Option<Region> {
        if self.empty_chunks == 0 {
            return None;
        }
        let mut at = self.open.first();
        while !at.is_null() {
            // SAFETY: linked chunks are valid.
            unsafe {
                let is_empty = (*at).free_blocks == Self::all_blocks();
                if is_empty && !(only_cold && (*at).warm > 0) {
                    return Some(self.remove_chunk(at));
                }
                at = Chain::<Chunk, OPEN>::after(at);
            }
        }
        None
    }

    /// Notes that a run that is out, and in which something was gone, was committed.
    ///
    /// # Safety
    /// `base` is that of a run of `count` granules that was handed out from `chunk`.
    pub(super) unsafe fn mark_present(&mut self, chunk: *mut Chunk, base: usize, count: usize) {
        let first = (base & (Geometry::<P>::CHUNK - 1)) / GRANULE;
        let (mut at, end) = (first, first + count);
        while at < end {
            let next = end.min((at / 64 + 1) * 64);
            let granules = mask((at % 64) as u32, (next - at) as u32);
            // SAFETY: the chunk is valid while a run of it is out.
            unsafe {
                self.change(chunk, (at / 64) as u32, |block, _| {
                    block.dirty |= granules;
                    block.gone &= !granules;
                });
            }
            at = next;
        }
    }

    /// Takes a run of one block back.
    ///
    /// # Safety
    /// `base` and `len` are those of a run that was handed out from `chunk`.
    pub(super) unsafe fn put_run(&mut self, chunk: *mut Chunk, base: usize, len: u32) {
        let offset = base & (Geometry::<P>::CHUNK - 1);
        let granules = mask((offset % BLOCK / GRANULE) as u32, len);
        // SAFETY: the chunk is valid while a run of it was out.
        unsafe {
            let index = (offset / BLOCK) as u32;
            (*(*Self::block(chunk, index)).row).gave(len as usize * GRANULE);
            self.change(chunk, index, |block, _| block.free |= granules);
            self.settle_block(chunk, index);
        }
    }

    /// Takes a run of whole blocks back.
    ///
    /// # Safety
    /// As for [`Self::put_run`].
    pub(super) unsafe fn put_long_run(&mut self, chunk: *mut Chunk, base: usize, count: u32) {
        let first = ((base & (Geometry::<P>::CHUNK - 1)) / BLOCK) as u32;
        for index in first..first + count {
            // SAFETY: as above.
            unsafe {
                self.change(chunk, index, |block, _| {
                    block.free = Self::full(u32::from(block.index));
                });
                self.settle_block(chunk, index);
            }
        }
    }

    /// Puts a wholly free block back into its chunk.
    ///
    /// # Safety
    /// The chunk is valid, and no granule of the block is in use or in transit if all are free.
    pub(super) unsafe fn settle_block(&mut self, chunk: *mut Chunk, index: u32) {
        // SAFETY: the chunk, its blocks and the row that owns the block are valid.
        unsafe {
            let block = Self::block(chunk, index);
            if (*block).free != Self::full(index) {
                return;
            }
            if !(*block).row.is_null() {
                (&mut (*(*block).row).buckets)[(*block).bucket as usize].remove(block);
                (*block).row = ptr::null_mut();
                Map::<P>::at((*chunk).base).set_row(index as usize, NO_ROW);
            }
            (*chunk).free_blocks |= 1 << index;
            self.empty_chunks += usize::from((*chunk).free_blocks == Self::all_blocks());
            self.open.insert(chunk);
        }
    }

    /// Changes a block's bits and keeps everything that is derived from them: the row's buckets, the
    /// chunk's and the heap's warm bytes, and the resident bytes.
    ///
    /// # Safety
    /// The chunk is valid.
    pub(super) unsafe fn change(
        &mut self,
        chunk: *mut Chunk,
        index: u32,
        f: impl FnOnce(&mut Block, PageShape),
    ) {
        let page = self.page;
        // SAFETY: the chunk, its blocks, and the row that owns the block are valid.
        unsafe {
            let block = Self::block(chunk, index);
            let (warm, resident) = (warm_bytes(&*block, page), resident_bytes(&*block, page));
            f(&mut *block, page);
            let now = warm_bytes(&*block, page);
            self.warm = self.warm - warm + now;
            self.least_warm = self.least_warm.min(self.warm);
            self.resident = self.resident - resident + resident_bytes(&*block, page);
            (*chunk).warm = (*chunk).warm - warm + now;
            (*chunk).touched &= !(1 << index);
            (*chunk).touched |= u64::from((*block).dirty & Self::full(index) != 0) << index;
            if (*chunk).warm == 0 {
                self.warm_chunks.remove(chunk);
            } else if now > warm {
                self.warm_chunks.insert(chunk);
            }
            if let Some(row) = (*block).row.as_mut() {
                row.buckets[(*block).bucket as usize].remove(block);
                let longest = longest_run((*block).free);
                if longest > 0 {
                    (*block).bucket = longest.ilog2() as u8;
                    row.buckets[(*block).bucket as usize].insert(block);
                }
            }
        }
    }

    pub(super) const fn full(index: u32) -> u64 {
        if index == 0 {
            !0 << Geometry::<P>::HEADER
        } else {
            !0
        }
    }

    pub(super) const fn all_blocks() -> u64 {
        mask(0, Geometry::<P>::BLOCKS as u32)
    }

    pub(super) fn header_bytes(page: PageShape) -> usize {
        page.touching(!Self::full(0)).count_ones() as usize * GRANULE
    }

    /// # Safety
    /// `chunk` is valid and `index` one of its blocks.
    pub(super) unsafe fn block(chunk: *mut Chunk, index: u32) -> *mut Block {
        // SAFETY: the blocks follow the chunk's description, in the same piece of memory.
        unsafe {
            chunk
                .byte_add(size_of::<Chunk>())
                .cast::<Block>()
                .add(index as usize)
        }
    }

    /// # Safety
    /// `block` is a block of a valid chunk.
    pub(super) unsafe fn chunk_of(block: *mut Block) -> *mut Chunk {
        // SAFETY: block `index` lies that far behind block 0, which follows the chunk.
        unsafe {
            block
                .sub((*block).index as usize)
                .byte_sub(size_of::<Chunk>())
                .cast()
        }
    }
}

pub(super) fn warm_bytes(block: &Block, page: PageShape) -> usize {
    let warm = page.within(block.free) & page.touching(block.dirty);
    warm.count_ones() as usize * GRANULE
}

/// Touched pages. The header's granules are dirty from the start.
pub(super) fn resident_bytes(block: &Block, page: PageShape) -> usize {
    page.touching(block.dirty).count_ones() as usize * GRANULE
}
