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
//! row (it is in the row's bucket for its longest free run, if it has one), part of a *long run*, or
//! *in transit*. A page is *warm* when all its granules are free and some granule is dirty: it is
//! what a decommit would give back. `State::warm` is the sum over all blocks, at all times.

use super::arena::Arena;
use super::block::{PageShape, longest_run, mask};
use super::chain::{Chain, Linked, Links};
use super::map::{Geometry, PageMap, VACANT};
use super::meta::META_KINDS;
use super::tree::{Node, Tree, Use};
use crate::class::{BLOCK, GRANULE};
use crate::provider::{PageProvider, Region};
use crate::slab::Slab;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
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

/// A chunk's description. `blocks` is followed in memory by as many as the geometry says, and these by the page map's
/// entries. Its memory is a description for as long as the heap lives: see `map`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Chunk {
    node: Node,
    /// The chunk's number, or [`VACANT`]. `Relaxed`: see the head of `map`.
    pub(super) number: AtomicUsize,
    /// Where the page map has the chunk.
    pub(super) place: usize,
    /// Where the chunk begins: its region's base.
    pub(super) base: *mut u8,
    pub(super) free_blocks: u64,
    /// The blocks of which some granule is dirty.
    pub(super) touched: u64,
    pub(super) warm: usize,
    /// Bytes of its entries that went back to the provider, while it is unused.
    pub(super) cooled: usize,
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
    /// A metadata region that has room for so much.
    Meta(Layout),
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
    /// Descriptions of chunks that are not held, linked as the open ones are.
    unused_chunks: Chain<Chunk, OPEN>,
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
            unused_chunks: Chain::new(),
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
            cooled: 0,
            is_meta_zero: false,
            is_meta_lazy: false,
            empty_chunks: 0,
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

    /// The whole pages of an unused description's entries, which are all zero.
    ///
    /// # Safety
    /// `chunk` is a description that the caller has.
    pub(super) unsafe fn entry_pages(chunk: *mut Chunk, page: usize) -> Option<Region> {
        // SAFETY: the entries lie in the description's piece of memory.
        let first = unsafe { chunk.byte_add(Self::ENTRIES_AT) }.cast::<u8>();
        let end = first.addr() + Geometry::<P>::ENTRIES * size_of::<AtomicU64>();
        let base = first.addr().next_multiple_of(page);
        let size = (end & !(page - 1))
            .checked_sub(base)
            .filter(|size| *size > 0)?;
        let base = NonNull::new(first.wrapping_add(base - first.addr()))?;
        Some(Region { base, size })
    }

    /// Where a description's entries begin.
    pub(super) const ENTRIES_AT: usize =
        (size_of::<Chunk>() + Geometry::<P>::BLOCKS * size_of::<Block>()).next_multiple_of(64);

    fn chunk_layout() -> Layout {
        let size = Self::ENTRIES_AT + Geometry::<P>::ENTRIES * size_of::<AtomicU64>();
        match Layout::from_size_align(size, 64) {
            Ok(layout) => layout,
            Err(_) => Layout::new::<Chunk>(),
        }
    }

    /// Memory for a chunk's description, and room for it in the page map.
    pub(super) fn take_chunk(&mut self, map: &PageMap) -> Result<*mut Chunk, Short> {
        if !map.has_room_beside(self.chunks) {
            let layout = map.next_layout();
            let table = self.arena.bump(layout).ok_or(Short::Meta(layout))?;
            // SAFETY: fresh memory of that layout.
            unsafe { map.grow(table.as_ptr()) };
        }
        let unused = self.unused_chunks.first();
        if !unused.is_null() {
            // SAFETY: it is the first of that chain.
            unsafe {
                self.unused_chunks.remove(unused);
                self.cooled -= core::mem::take(&mut (*unused).cooled);
            }
            return Ok(unused);
        }
        let layout = Self::chunk_layout();
        let piece = self.arena.bump(layout).ok_or(Short::Meta(layout))?;
        let chunk: *mut Chunk = piece.as_ptr().cast();
        // SAFETY: the piece is long enough for the chunk, its blocks and its entries; entries of nothing are zero bytes.
        unsafe {
            if !self.is_meta_zero {
                piece.write_bytes(0, layout.size());
            }
            chunk.write(Chunk {
                node: Node::new(Self::NOWHERE, Use::Chunk),
                number: AtomicUsize::new(VACANT),
                place: 0,
                base: ptr::null_mut(),
                free_blocks: 0,
                touched: 0,
                warm: 0,
                cooled: 0,
                open_links: Links::UNLINKED,
                warm_links: Links::UNLINKED,
                blocks: [],
            });
        }
        Ok(chunk)
    }

    const NOWHERE: Region = Region {
        base: NonNull::dangling(),
        size: 0,
    };

    /// Takes a description back, of whose entries so many bytes went back to the provider.
    ///
    /// # Safety
    /// It came from [`Self::take_chunk`] and was not used, or from [`Self::pop_empty_chunk`].
    pub(super) unsafe fn put_chunk(&mut self, chunk: *mut Chunk, cooled: usize) {
        // SAFETY: it is in no chain.
        unsafe {
            (*chunk).cooled = cooled;
            self.unused_chunks.insert(chunk);
        }
        self.cooled += cooled;
    }

    /// Takes a chunk in: `region` was checked.
    ///
    /// # Safety
    /// Both are ours and unused; the region overlaps nothing in the tree; there is room in the map.
    pub(super) unsafe fn add_chunk(&mut self, map: &PageMap, region: Region, chunk: *mut Chunk) {
        let base = region.base.as_ptr();
        let _exposed = base.expose_provenance();
        // SAFETY: the description is long enough for its blocks, and the region is ours. Only the parts that others do
        // not read are written as a whole.
        unsafe {
            (*chunk).node = Node::new(region, Use::Chunk);
            (*chunk).base = base;
            (*chunk).free_blocks = Self::all_blocks();
            (*chunk).touched = 0;
            (*chunk).warm = 0;
            for index in 0..Geometry::<P>::BLOCKS {
                Self::block(chunk, index as u32).write(Block {
                    free: !0,
                    dirty: 0,
                    gone: 0,
                    row: ptr::null_mut(),
                    links: Links::UNLINKED,
                    bucket: 0,
                    index: index as u8,
                });
            }
            let number = base.addr() / Geometry::<P>::CHUNK;
            (*chunk).number.store(number, Ordering::Relaxed);
            map.insert(chunk);
            self.tree.insert(chunk.cast());
            self.open.insert(chunk);
        }
        self.empty_chunks += 1;
        self.chunks += 1;
    }

    /// Says that all pages of a chunk that was just added are in memory.
    ///
    /// # Safety
    /// `chunk` is here.
    pub(super) unsafe fn touch_chunk(&mut self, chunk: *mut Chunk) {
        for index in 0..Geometry::<P>::BLOCKS as u32 {
            // SAFETY: the chunk is valid.
            unsafe { self.change(chunk, index, |block, _| block.dirty = !0) };
        }
    }

    /// Lets an unused chunk go: its region, for the provider.
    ///
    /// # Safety
    /// `chunk` is here and every block of it is free.
    unsafe fn remove_chunk(&mut self, map: &PageMap, chunk: *mut Chunk) -> Region {
        // SAFETY: the chunk is here.
        unsafe {
            for index in 0..Geometry::<P>::BLOCKS {
                self.change(chunk, index as u32, |block, _| block.dirty = 0);
            }
            self.empty_chunks -= 1;
            self.chunks -= 1;
            let region = (*chunk).node.region;
            map.remove(chunk);
            self.tree.remove(chunk.cast());
            self.open.remove(chunk);
            self.warm_chunks.remove(chunk);
            region
        }
    }

    /// A chunk of which no byte is in use and, if `only_cold`, nothing is warm: its region and its description.
    pub(super) fn pop_empty_chunk(
        &mut self,
        map: &PageMap,
        only_cold: bool,
    ) -> Option<(Region, *mut Chunk)> {
        if self.empty_chunks == 0 {
            return None;
        }
        let mut at = self.open.first();
        while !at.is_null() {
            // SAFETY: linked chunks are valid.
            unsafe {
                let is_empty = (*at).free_blocks == Self::all_blocks();
                if is_empty && !(only_cold && (*at).warm > 0) {
                    return Some((self.remove_chunk(map, at), at));
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
                self.change(chunk, index, |block, _| block.free = !0);
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
            if (*block).free != !0 {
                return;
            }
            if !(*block).row.is_null() {
                (&mut (*(*block).row).buckets)[(*block).bucket as usize].remove(block);
                (*block).row = ptr::null_mut();
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
            (*chunk).touched |= u64::from((*block).dirty != 0) << index;
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

pub(super) fn warm_bytes(block: &Block, page: PageShape) -> usize {
    let warm = page.within(block.free) & page.touching(block.dirty);
    warm.count_ones() as usize * GRANULE
}

/// Touched pages.
pub(super) fn resident_bytes(block: &Block, page: PageShape) -> usize {
    page.touching(block.dirty).count_ones() as usize * GRANULE
}
