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
    /// Where the chunk begins.
    pub(super) base: *mut u8,
    /// The first chunk of its region, whose node is the region's, and its neighbours in the region.
    pub(super) lead: *mut Chunk,
    pub(super) next: *mut Chunk,
    pub(super) prev: *mut Chunk,
    /// Of the first chunk of a region: chunks of the region that are in use.
    in_use: usize,
    pub(super) free_blocks: u64,
    /// The blocks of which some granule is dirty.
    pub(super) touched: u64,
    pub(super) warm: usize,
    /// Bytes of its entries that went back to the provider, while it is unused.
    pub(super) cooled: usize,
    open_links: Links<Chunk>,
    warm_links: Links<Chunk>,
    long_links: Links<Chunk>,
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
        number: AtomicUsize::new(VACANT),
        place: 0,
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
    unused_chunks: Chain<Chunk, OPEN>,
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
        let size = size.next_multiple_of(64);
        match Layout::from_size_align(size, 64) {
            Ok(layout) => layout,
            Err(_) => Layout::new::<Chunk>(),
        }
    }

    /// Memory for the descriptions of so many chunks, linked by `next`, and room for them in the page map.
    pub(super) fn take_chunks(&mut self, map: &PageMap, count: usize) -> Result<*mut Chunk, Short> {
        while !map.has_room_beside(self.chunks + count - 1) {
            let layout = map.next_layout();
            let table = self.arena.bump(layout).ok_or(Short::Meta(layout))?;
            // SAFETY: fresh memory of that layout.
            unsafe { map.grow(table.as_ptr()) };
        }
        let mut first = ptr::null_mut();
        let mut missing = count;
        while missing > 0 {
            let chunk = self.unused_chunks.first();
            if chunk.is_null() {
                break;
            }
            // SAFETY: it is the first of that chain.
            unsafe {
                self.unused_chunks.remove(chunk);
                self.cooled -= core::mem::take(&mut (*chunk).cooled);
                (*chunk).next = first;
            }
            (first, missing) = (chunk, missing - 1);
        }
        // The others in one piece.
        let size = Self::chunk_layout().size();
        let layout = Layout::from_size_align(size * missing, 64).unwrap_or(Self::chunk_layout());
        let Some(piece) = (missing == 0)
            .then(NonNull::dangling)
            .or_else(|| self.arena.bump(layout))
        else {
            // SAFETY: they were just taken, and not used.
            unsafe { self.put_chunks(first) };
            return Err(Short::Meta(layout));
        };
        for number in 0..missing {
            // SAFETY: the piece is long enough for so many chunks, each with its blocks and its entries; entries of nothing
            // are zero bytes.
            unsafe {
                let chunk: *mut Chunk = piece.as_ptr().add(number * size).cast();
                if !self.is_meta_zero {
                    chunk.cast::<u8>().write_bytes(0, size);
                }
                chunk.write(Chunk::VACANT);
                (*chunk).next = first;
                first = chunk;
            }
        }
        Ok(first)
    }

    /// Takes descriptions back that are linked by `next`.
    ///
    /// # Safety
    /// They came from [`Self::take_chunks`] and were not used.
    pub(super) unsafe fn put_chunks(&mut self, mut first: *mut Chunk) {
        while !first.is_null() {
            // SAFETY: the caller's promise.
            unsafe {
                let next = (*first).next;
                self.put_chunk(first, 0);
                first = next;
            }
        }
    }

    /// Takes a description back, of whose entries so many bytes went back to the provider.
    ///
    /// # Safety
    /// It came from [`Self::take_chunks`] and was not used, or from [`Self::pop_empty_region`].
    pub(super) unsafe fn put_chunk(&mut self, chunk: *mut Chunk, cooled: usize) {
        // SAFETY: it is in no chain.
        unsafe {
            (*chunk).cooled = cooled;
            self.unused_chunks.insert(chunk);
        }
        self.cooled += cooled;
    }

    /// Takes a region in, which was checked, as the chunks that `first` begins.
    ///
    /// # Safety
    /// All are ours and unused; the region overlaps nothing in the tree, and is as long as so many chunks; there is room in
    /// the map.
    pub(super) unsafe fn add_region(&mut self, map: &PageMap, region: Region, first: *mut Chunk) {
        let _exposed = region.base.as_ptr().expose_provenance();
        let (mut base, mut chunk, mut prev) = (region.base.as_ptr(), first, ptr::null_mut());
        // SAFETY: the descriptions are long enough for their blocks, and the region is ours. Only the parts that others do
        // not read are written as a whole.
        unsafe {
            (*first).node = Node::new(region, Use::Chunk);
            (*first).in_use = 0;
            self.tree.insert(first.cast());
            if !(*first).next.is_null() {
                self.long_regions.insert(first);
            }
            while !chunk.is_null() {
                (*chunk).base = base;
                (*chunk).lead = first;
                (*chunk).prev = prev;
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
                self.open.insert(chunk);
                self.chunks += 1;
                prev = chunk;
                (base, chunk) = (base.add(Geometry::<P>::CHUNK), (*chunk).next);
            }
        }
        self.empty_regions += 1;
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

    /// Lets an unused region go: for the provider.
    ///
    /// # Safety
    /// `first` is the first chunk of a region that is here, every block of which is free.
    unsafe fn remove_region(&mut self, map: &PageMap, first: *mut Chunk) -> Region {
        let mut chunk = first;
        // SAFETY: the chunks are here.
        unsafe {
            while !chunk.is_null() {
                for index in 0..Geometry::<P>::BLOCKS {
                    self.change(chunk, index as u32, |block, _| block.dirty = 0);
                }
                self.chunks -= 1;
                map.remove(chunk);
                self.open.remove(chunk);
                self.warm_chunks.remove(chunk);
                chunk = (*chunk).next;
            }
            self.empty_regions -= 1;
            self.long_regions.remove(first);
            self.tree.remove(first.cast());
            (*first).node.region
        }
    }

    /// A region of which no byte is in use and, if `only_cold`, nothing is warm; and its descriptions.
    pub(super) fn pop_empty_region(
        &mut self,
        map: &PageMap,
        only_cold: bool,
    ) -> Option<(Region, *mut Chunk)> {
        if self.empty_regions == 0 {
            return None;
        }
        let mut at = self.open.first();
        while !at.is_null() {
            // SAFETY: linked chunks are valid, and so are those of their regions.
            unsafe {
                let is_empty = (*at).lead == at && (*at).in_use == 0;
                if is_empty && !(only_cold && Self::is_warm(at)) {
                    return Some((self.remove_region(map, at), at));
                }
                at = Chain::<Chunk, OPEN>::after(at);
            }
        }
        None
    }

    /// Whether anything is warm in a region.
    ///
    /// # Safety
    /// `chunk` is its first, and here.
    unsafe fn is_warm(mut chunk: *mut Chunk) -> bool {
        while !chunk.is_null() {
            // SAFETY: chunks of a region that is here are valid.
            unsafe {
                if (*chunk).warm > 0 {
                    return true;
                }
                chunk = (*chunk).next;
            }
        }
        false
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

    /// Puts a block back into its chunk if it is wholly free.
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
            if (*chunk).free_blocks == Self::all_blocks() {
                (*(*chunk).lead).in_use -= 1;
                self.empty_regions += usize::from((*(*chunk).lead).in_use == 0);
            }
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
