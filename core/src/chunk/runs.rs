//! Runs of granules: which are free, which are warm, which went back. All under the pages' lock.
//!
//! # Invariants
//!
//! For each block, with the bits of its granules:
//! - `free` and the runs handed out are disjoint, and together they are all 64, except while a decommit
//!   is under way: its granules are then in neither (*in transit*);
//! - `dirty` holds every granule that may have been written since its memory was fresh;
//! - `gone` holds the granules that were decommitted and not committed since.
//!
//! A block is in one of four states: *free* (its bit is in the chunk's `free_blocks`), *owned* by a
//! row (it is in the row's bucket for its longest free run, if it has one), part of an *extent* (all of it, or in the
//! extent's last block the first granules), or *in transit*. A page is *warm* when all its granules are free and some granule is dirty: it is
//! what a decommit would give back. `State::warm` is the sum over all blocks, at all times.

use super::arena::Arena;
use super::block::{PageShape, longest_run, mask, ones};
use super::chain::{Chain, Linked, Links};
use super::map::Geometry;
use super::meta::META_KINDS;
use super::table::Numbered;
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
/// First chunks of regions of several.
pub(super) const LONG: usize = 2;

/// 64 granules of a chunk.
#[derive(Debug)]
pub(crate) struct Block {
    pub(super) free: u64,
    pub(super) dirty: u64,
    pub(super) gone: u64,
    /// The row's buckets, for an owned block.
    pub(super) row: *mut RowBlocks,
    pub(super) links: Links<Block>,
    pub(super) bucket: u8,
    pub(super) index: u8,
}

/// A chunk's description. `blocks` is followed in memory by as many as the geometry says, and these by the page map's
/// entries. Its memory is a description for as long as the heap lives: see `map`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Chunk {
    pub(super) node: Node,
    /// What the page map's table leads to.
    pub(super) numbered: Numbered,
    /// Where the chunk begins.
    pub(super) base: *mut u8,
    /// The first chunk of its region, whose node is the region's, and its neighbours in the region.
    pub(super) lead: *mut Chunk,
    pub(super) next: *mut Chunk,
    pub(super) prev: *mut Chunk,
    /// Of the first chunk of a region: chunks of the region that are in use.
    pub(super) in_use: usize,
    pub(super) free_blocks: u64,
    /// The blocks of which some granule is dirty.
    pub(super) touched: u64,
    pub(super) warm: usize,
    /// Bytes of its entries that went back to the provider, while it is unused.
    pub(super) cooled: usize,
    open_links: Links<Chunk>,
    warm_links: Links<Chunk>,
    pub(super) long_links: Links<Chunk>,
    blocks: [Block; 0],
}

impl Chunk {
    /// A description of no chunk.
    #[expect(
        clippy::declare_interior_mutable_const,
        reason = "it is copied into place, not used"
    )]
    pub(super) const VACANT: Self = Self {
        node: Node::new(
            Region {
                base: NonNull::dangling(),
                size: 0,
            },
            Use::Chunk,
        ),
        numbered: Numbered::new(),
        base: ptr::null_mut(),
        lead: ptr::null_mut(),
        next: ptr::null_mut(),
        prev: ptr::null_mut(),
        in_use: 0,
        free_blocks: 0,
        touched: 0,
        warm: 0,
        cooled: 0,
        open_links: Links::UNLINKED,
        warm_links: Links::UNLINKED,
        long_links: Links::UNLINKED,
        blocks: [],
    };
}

impl Linked<OPEN> for Chunk {
    unsafe fn links(member: *mut Self) -> *mut Links<Self> {
        // SAFETY: the member is valid.
        unsafe { &raw mut (*member).open_links }
    }
}
impl Linked<WARM> for Chunk {
    unsafe fn links(member: *mut Self) -> *mut Links<Self> {
        // SAFETY: the member is valid.
        unsafe { &raw mut (*member).warm_links }
    }
}
impl Linked<LONG> for Chunk {
    unsafe fn links(member: *mut Self) -> *mut Links<Self> {
        // SAFETY: the member is valid.
        unsafe { &raw mut (*member).long_links }
    }
}
impl Linked<0> for Block {
    unsafe fn links(member: *mut Self) -> *mut Links<Self> {
        // SAFETY: the member is valid.
        unsafe { &raw mut (*member).links }
    }
}

/// A row's blocks by the length of their longest free run: bucket `b` has runs of `2^b` or more.
#[derive(Debug)]
pub(crate) struct RowBlocks {
    #[cfg(feature = "walker")]
    pub(super) id: u16,
    /// Slabs, single objects and regions that are out. A row with none is drained.
    pub(super) pieces: usize,
    /// Bytes that came back since the row's era began, less those that it took since: what a close is to give back beside
    /// what it finds. Others may have them by now, who give them back instead.
    freed: usize,
    pub(super) buckets: [Chain<Block, 0>; 7],
}

impl RowBlocks {
    #[cfg_attr(not(feature = "walker"), expect(unused_variables))]
    pub(crate) const fn new(id: u16) -> Self {
        Self {
            #[cfg(feature = "walker")]
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
    /// A metadata region that has room for so much.
    Meta(Layout),
    /// A block of which nothing is in memory yet. There is one.
    Fresh,
    /// A chunk.
    Chunk,
    /// Chunks in a row, as many as so many blocks.
    Extent(u32),
    /// Nothing can help: the row's epoch is closed.
    Closed,
}

/// Everything that the pages' lock guards.
#[derive(Debug)]
pub(super) struct State<P> {
    pub(super) tree: Tree,
    pub(super) arena: Arena,
    /// Descriptions of chunks that are not held, linked as the open ones are.
    pub(super) unused_chunks: Chain<Chunk, OPEN>,
    /// Unused metadata of slabs, by kind.
    pub(super) unused_slabs: [*const Slab; META_KINDS],
    pub(super) open: Chain<Chunk, OPEN>,
    pub(super) warm_chunks: Chain<Chunk, WARM>,
    pub(super) long_regions: Chain<Chunk, LONG>,
    pub(super) page: PageShape,
    /// Whether what is gone wants a commit: a run of it is still gone when it is handed out, until it had one.
    pub(super) commits: bool,
    /// Bytes of warm pages.
    pub(super) warm: usize,
    /// The least that `warm` was since somebody asked.
    pub(super) least_warm: usize,
    /// Bytes of chunk pages that were touched and not decommitted, and of large objects.
    pub(super) resident: usize,
    /// Chunks.
    pub(super) chunks: usize,
    /// Bytes of metadata regions.
    pub(super) meta: usize,
    /// Bytes of entries of unused descriptions that went back to the provider.
    pub(super) cooled: usize,
    /// Whether fresh metadata memory reads as zero, and whether it is there only once it is touched.
    pub(super) is_meta_zero: bool,
    pub(super) is_meta_lazy: bool,
    /// Regions of chunks of which every block is free.
    pub(super) empty_regions: usize,
    provider: PhantomData<P>,
}

// SAFETY: the pointers name metadata that only this state reaches, under its lock.
unsafe impl<P> Send for State<P> {}

impl<P: PageProvider> State<P> {
    pub(super) const fn new() -> Self {
        Self {
            tree: Tree::new(),
            arena: Arena::new(),
            unused_chunks: Chain::new(),
            unused_slabs: [ptr::null(); META_KINDS],
            open: Chain::new(),
            warm_chunks: Chain::new(),
            long_regions: Chain::new(),
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
            cooled: 0,
            is_meta_zero: false,
            is_meta_lazy: false,
            empty_regions: 0,
            provider: PhantomData,
        }
    }

    /// Bytes of metadata that are in memory.
    pub(super) fn resident_meta(&self) -> usize {
        if self.is_meta_lazy {
            self.arena.touched().saturating_sub(self.cooled)
        } else {
            self.meta
        }
    }

    /// Notes that a run that is out, and in which something was gone, was committed.
    ///
    /// # Safety
    /// `base` is that of a run of `count` granules that was handed out from `chunk`.
    pub(super) unsafe fn mark_present(&mut self, chunk: *mut Chunk, base: usize, count: usize) {
        let first = (base & (Geometry::<P>::CHUNK - 1)) / GRANULE;
        let (mut chunk, mut at, mut end) = (chunk, first, first + count);
        while at < end {
            // SAFETY: the chunks that a run is in are valid while it is out, and one behind the other.
            unsafe {
                if at == Geometry::<P>::ENTRIES {
                    (chunk, at, end) = ((*chunk).next, 0, end - at);
                }
                let next = end.min((at / 64 + 1) * 64);
                let granules = mask((at % 64) as u32, (next - at) as u32);
                self.change(chunk, 1 << (at / 64), |block, _| {
                    block.dirty |= granules;
                    block.gone &= !granules;
                });
                at = next;
            }
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
            self.change(chunk, 1 << index, |block, _| block.free |= granules);
            self.settle(chunk, 1 << index);
        }
    }

    /// Puts the blocks of a set that are wholly free back into their chunk.
    ///
    /// # Safety
    /// The chunk is valid, and no granule of a block is in use or in transit if all are free.
    pub(super) unsafe fn settle(&mut self, chunk: *mut Chunk, blocks: u64) {
        let mut free = 0;
        // SAFETY: the chunk, its blocks and the rows that own them are valid.
        unsafe {
            for index in ones(blocks) {
                let block = Self::block(chunk, index);
                if (*block).free != !0 {
                    continue;
                }
                if !(*block).row.is_null() {
                    (&mut (*(*block).row).buckets)[(*block).bucket as usize].remove(block);
                    (*block).row = ptr::null_mut();
                }
                free |= 1 << index;
            }
            if free == 0 {
                return;
            }
            (*chunk).free_blocks |= free;
            if (*chunk).free_blocks == Self::all_blocks() {
                (*(*chunk).lead).in_use -= 1;
                self.empty_regions += usize::from((*(*chunk).lead).in_use == 0);
            }
            self.open.insert(chunk);
        }
    }

    /// Changes the bits of a set of blocks and keeps everything that is derived from them: the rows' buckets, the
    /// chunk's and the heap's warm bytes, and the resident bytes.
    ///
    /// # Safety
    /// The chunk is valid.
    pub(super) unsafe fn change(
        &mut self,
        chunk: *mut Chunk,
        blocks: u64,
        mut f: impl FnMut(&mut Block, PageShape),
    ) {
        let page = self.page;
        let (mut before, mut after) = (Sums::default(), Sums::default());
        let mut touched = 0;
        // SAFETY: the chunk, its blocks, and the rows that own blocks are valid.
        unsafe {
            for index in ones(blocks) {
                let block = Self::block(chunk, index);
                before.add(&*block, page);
                f(&mut *block, page);
                after.add(&*block, page);
                touched |= u64::from((*block).dirty != 0) << index;
                if let Some(row) = (*block).row.as_mut() {
                    row.buckets[(*block).bucket as usize].remove(block);
                    let longest = longest_run((*block).free);
                    if longest > 0 {
                        (*block).bucket = longest.ilog2() as u8;
                        row.buckets[(*block).bucket as usize].insert(block);
                    }
                }
            }
            self.warm = self.warm - before.warm + after.warm;
            self.least_warm = self.least_warm.min(self.warm);
            self.resident = self.resident - before.resident + after.resident;
            (*chunk).warm = (*chunk).warm - before.warm + after.warm;
            (*chunk).touched = (*chunk).touched & !blocks | touched;
            if (*chunk).warm == 0 {
                self.warm_chunks.remove(chunk);
            } else if after.warm > before.warm && self.warm_chunks.first() != chunk {
                // What became warm last is taken first, and goes back last.
                self.warm_chunks.remove(chunk);
                self.warm_chunks.insert(chunk);
            }
        }
    }

    /// Notes that free blocks of a chunk are not any more.
    ///
    /// # Safety
    /// The chunk is valid, and they are free.
    pub(super) unsafe fn close_blocks(&mut self, chunk: *mut Chunk, blocks: u64) {
        // SAFETY: the chunk is valid, and so is the first of its region.
        unsafe {
            if (*chunk).free_blocks == Self::all_blocks() {
                self.empty_regions -= usize::from((*(*chunk).lead).in_use == 0);
                (*(*chunk).lead).in_use += 1;
            }
            (*chunk).free_blocks &= !blocks;
            if (*chunk).free_blocks == 0 {
                self.open.remove(chunk);
            }
        }
    }

    pub(super) const fn all_blocks() -> u64 {
        mask(0, Geometry::<P>::BLOCKS as u32)
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

/// Bytes of blocks by where they are.
#[derive(Debug, Default)]
struct Sums {
    warm: usize,
    resident: usize,
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, block: &Block, page: PageShape) {
        self.warm += warm_bytes(block, page);
        self.resident += resident_bytes(block, page);
    }
}

pub(super) fn warm_bytes(block: &Block, page: PageShape) -> usize {
    // Most blocks are wholly in use, or wholly one or the other.
    match (block.free, block.dirty) {
        (0, _) | (_, 0) => return 0,
        (u64::MAX, u64::MAX) => return BLOCK,
        _ => {}
    }
    let warm = page.within(block.free) & page.touching(block.dirty);
    warm.count_ones() as usize * GRANULE
}

/// Touched pages.
pub(super) fn resident_bytes(block: &Block, page: PageShape) -> usize {
    match block.dirty {
        0 => return 0,
        u64::MAX => return BLOCK,
        _ => {}
    }
    page.touching(block.dirty).count_ones() as usize * GRANULE
}
