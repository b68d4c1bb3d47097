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
//! depot (it is in the depot's bucket for its longest free run, if it has one), part of an *extent* (all of it, or in the
//! extent's last block the first granules), or *in transit*. A page is *warm* when all its granules are free and some granule is dirty: it is
//! what a decommit would give back. `State::warm` is the sum over all blocks, at all times.

use super::block::{PageShape, longest_run, mask, ones};
use super::chunk::Chunk;
use super::depot_blocks::Block;
use super::geometry::Geometry;
use super::state::State;
use crate::class::{BLOCK, GRANULE};
use crate::provider::PageProvider;
use core::mem::size_of;
use core::ptr;

impl<P: PageProvider> State<P> {
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
        // SAFETY: the chunk, its blocks and the depots that own them are valid.
        unsafe {
            for index in ones(blocks) {
                let block = Self::block(chunk, index);
                if (*block).free != !0 {
                    continue;
                }
                if !(*block).depot.is_null() {
                    (&mut (*(*block).depot).buckets)[(*block).bucket as usize].remove(block);
                    (*block).depot = ptr::null_mut();
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

    /// Changes the bits of a set of blocks and keeps everything that is derived from them: the depots' buckets, the
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
        // SAFETY: the chunk, its blocks, and the depots that own blocks are valid.
        unsafe {
            for index in ones(blocks) {
                let block = Self::block(chunk, index);
                before.add(&*block, page);
                f(&mut *block, page);
                after.add(&*block, page);
                touched |= u64::from((*block).dirty != 0) << index;
                if let Some(depot) = (*block).depot.as_mut() {
                    depot.buckets[(*block).bucket as usize].remove(block);
                    let longest = longest_run((*block).free);
                    if longest > 0 {
                        (*block).bucket = longest.ilog2() as u8;
                        depot.buckets[(*block).bucket as usize].insert(block);
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
