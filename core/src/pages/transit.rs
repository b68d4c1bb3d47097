//! What the provider does to free pages, between two sections under the pages' lock: they are taken out of circulation
//! before it decommits them or makes them present, and brought back after. While they are *in transit* nobody can have them, and
//! their chunk cannot be released.

use super::block::{PageShape, UNIT, mask, ones};
use super::chunk::Chunk;
use super::depot_blocks::Block;
use super::state::State;
use crate::class::{BLOCK, GRANULE};
use crate::provider::{PageProvider, Region};
use core::ptr::NonNull;

/// Memory that is being decommitted: in no list, so nobody else can have it.
#[derive(Debug)]
pub(super) struct Transit {
    chunk: *mut Chunk,
    /// Whole blocks, or none.
    blocks: u64,
    /// Of the first and the last of them, the granules from the first touched page on, and up to the last.
    ends: (u64, u64),
    /// The block and its granules, if no whole blocks.
    part: (u32, u64),
    pub(super) region: Region,
}

impl<P: PageProvider> State<P> {
    /// Takes some warm pages out of circulation, as long a run as there is in their chunk: the one that has been warm for the
    /// longest. Of whole blocks no more than it takes for `most` bytes.
    pub(super) fn begin_decommit(&mut self, most: usize) -> Option<Transit> {
        let chunk = self.warm_chunks.last();
        if chunk.is_null() {
            return None;
        }
        // SAFETY: a linked chunk and its blocks are valid.
        unsafe {
            // Whole blocks, if there are any: as long a run as there is from the first one on.
            let whole = first_run((*chunk).free_blocks & (*chunk).touched);
            let (mut blocks, mut bytes) = (0u64, 0);
            for index in ones(whole) {
                blocks |= 1 << index;
                let touched = self.page.touching((*Self::block(chunk, index)).dirty);
                bytes += touched.count_ones() as usize * GRANULE;
                // What may be a huge page goes as a whole.
                let unit = mask(index / UNIT * UNIT, UNIT);
                let is_inside = whole & unit == unit && !(index + 1).is_multiple_of(UNIT);
                if bytes >= most && !is_inside {
                    break;
                }
            }
            let base = (*chunk).base;
            if blocks != 0 {
                self.close_blocks(chunk, blocks);
                let first = blocks.trailing_zeros();
                let count = blocks.count_ones();
                // What was never touched at the two ends stays fresh.
                let touched = |index| self.page.touching((*Self::block(chunk, index)).dirty);
                let lead = touched(first).trailing_zeros();
                let tail = touched(first + count - 1).leading_zeros();
                self.change(chunk, blocks, |block, _| block.free = 0);
                return Some(Transit {
                    chunk,
                    blocks,
                    ends: (!0 << lead, !0 >> tail),
                    part: (0, 0),
                    region: region(
                        base.add(first as usize * BLOCK + lead as usize * GRANULE),
                        count as usize * BLOCK - (lead + tail) as usize * GRANULE,
                    )?,
                });
            }
            let part = |index| {
                let block = &*Self::block(chunk, index);
                let warm = self.page.within(block.free) & self.page.touching(block.dirty);
                (warm != 0).then(|| (index, first_run(warm)))
            };
            let (index, granules) = ones((*chunk).touched).find_map(part)?;
            self.change(chunk, 1 << index, |block, _| block.free &= !granules);
            let start = index as usize * BLOCK + granules.trailing_zeros() as usize * GRANULE;
            Some(Transit {
                chunk,
                blocks: 0,
                ends: (0, 0),
                part: (index, granules),
                region: region(base.add(start), granules.count_ones() as usize * GRANULE)?,
            })
        }
    }

    /// Brings the pages back into circulation, as gone or, if the provider failed, as they were.
    /// A chunk that failed is left alone until something else in it becomes warm.
    pub(super) fn end_decommit(&mut self, transit: &Transit, done: bool) {
        let chunk = transit.chunk;
        let give = |block: &mut Block, granules: u64, page: PageShape| {
            if done {
                let pages = page.within(granules);
                block.dirty &= !pages;
                block.gone |= pages;
            } else {
                // Their content may be lost all the same: nothing of it counts as clean any more. What was never touched has
                // none.
                block.dirty |= granules & page.touching(block.dirty);
            }
        };
        // SAFETY: memory in transit keeps its chunk from being released.
        unsafe {
            let blocks = transit.blocks;
            let first = blocks.trailing_zeros();
            let last = 63 - blocks.leading_zeros().min(63);
            self.change(chunk, blocks, |block, page| {
                let index = u32::from(block.index);
                let lead = if index == first { transit.ends.0 } else { !0 };
                let tail = if index == last { transit.ends.1 } else { !0 };
                block.free = !0;
                give(block, lead & tail, page);
            });
            self.settle(chunk, blocks);
            let (index, granules) = transit.part;
            if granules != 0 {
                self.change(chunk, 1 << index, |block, page| {
                    block.free |= granules;
                    give(block, granules, page);
                });
                self.settle(chunk, 1 << index);
            }
            if !done {
                self.warm_chunks.remove(chunk);
            }
        }
    }
}

/// Blocks that are being made present.
#[derive(Debug)]
pub(super) struct Ahead {
    chunk: *mut Chunk,
    blocks: u64,
    pub(super) region: Region,
}

impl<P: PageProvider> State<P> {
    /// Takes the blocks behind one that is opened out of circulation of which nothing is in memory either: at most a sixty-fourth of what
    /// is in memory, so that a program that is small stays so.
    ///
    /// # Safety
    /// The chunk is valid, and `index` one of its blocks.
    pub(super) unsafe fn begin_ahead(&mut self, chunk: *mut Chunk, index: u32) -> Option<Ahead> {
        let most = (self.resident / (BLOCK * AHEAD_SHARE)).min(MAX_AHEAD) as u32;
        // SAFETY: the chunk and its blocks are valid.
        unsafe {
            let fresh = (*chunk).free_blocks & !(*chunk).touched;
            let behind = fresh.checked_shr(index + 1)?;
            let count = behind.trailing_ones().min(most);
            if count == 0 {
                return None;
            }
            let blocks = mask(index + 1, count);
            self.close_blocks(chunk, blocks);
            self.change(chunk, blocks, |block, _| block.free = 0);
            let region = region(
                (*chunk).base.add((index + 1) as usize * BLOCK),
                count as usize * BLOCK,
            )?;
            Some(Ahead {
                chunk,
                blocks,
                region,
            })
        }
    }

    /// Brings the blocks back into circulation, as warm ones.
    pub(super) fn end_ahead(&mut self, ahead: &Ahead) {
        // SAFETY: memory in transit keeps its chunk from being released.
        unsafe {
            self.change(ahead.chunk, ahead.blocks, |block, _| {
                (block.free, block.dirty, block.gone) = (!0, !0, 0);
            });
            self.settle(ahead.chunk, ahead.blocks);
        }
    }
}

/// The share of what is in memory that is made present ahead of need, and the most blocks.
const AHEAD_SHARE: usize = 64;
const MAX_AHEAD: usize = 3;

/// The lowest run of set bits, if any is set.
fn first_run(bits: u64) -> u64 {
    // Adding one at its start carries to its end.
    let start = bits & bits.wrapping_neg();
    bits & !bits.wrapping_add(start)
}

fn region(base: *mut u8, size: usize) -> Option<Region> {
    Some(Region {
        base: NonNull::new(base)?,
        size,
    })
}
