//! Which free granules are handed out. All under the pages' lock.
//!
//! Principles:
//! - A depot's own blocks come first, then free blocks that are in memory, then, unless there are empty slabs that
//!   could be used instead, free ones that are not.
//! - Each search is bounded, but for the last one before a request is refused.

use super::Run;
use super::block::{UNIT, fit, mask, ones};
use super::chain::Chain;
use super::chunk::{Chunk, LONG};
use super::depot_blocks::{Block, DepotBlocks};
use super::geometry::Geometry;
use super::state::{Short, State};
use crate::class::{BLOCK, GRANULE, MAX_CLASS_SIZE};
use crate::provider::PageProvider;

/// How long to look for a run in blocks that are partly in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// Briefly, and no block of which nothing is in memory: there may be empty slabs to use instead.
    Thrifty,
    /// Briefly: there may be whole blocks, or the provider may have more.
    Bounded,
    /// To the end: the provider refused.
    Full,
}

/// The blocks of the longest slab of a class.
const SHORT: u32 = (MAX_CLASS_SIZE / BLOCK) as u32;

/// Regions of several chunks that are looked at for an extent.
const REGION_LOOKS: usize = 64;

/// Free blocks in a row, in a region.
#[derive(Debug, Clone, Copy)]
struct Hole {
    chunk: *mut Chunk,
    first: u32,
    len: u32,
    /// How far the first of them is in it of which something is in memory.
    touched_at: Option<u32>,
}

/// Where an extent may begin, and how many of its blocks something is in memory of.
#[derive(Debug, Clone, Copy)]
struct Place {
    chunk: *mut Chunk,
    first: u32,
    touched: u32,
}

/// Chunks with warm pages that are looked at for a free block that is in memory.
const WARM_LOOKS: usize = 16;

impl<P: PageProvider> State<P> {
    /// A run of `len` granules from the depot's blocks, or from a block that it gets for it.
    ///
    /// # Safety
    /// `depot` is a valid depot of this heap; its buckets are only touched under this lock.
    pub(super) unsafe fn take_run(
        &mut self,
        depot: *mut DepotBlocks,
        len: u32,
        align: u32,
        effort: Effort,
    ) -> Result<Run, Short> {
        // SAFETY: the depot and the blocks in its buckets are valid.
        unsafe {
            if let Some((block, start)) = Self::find_run(&(*depot).buckets, len, align, effort) {
                let chunk = Self::chunk_of(block);
                return Ok(self.carve(chunk, 1 << (*block).index, mask(start, len)));
            }
            let (chunk, index) = self.find_blocks(1, effort)?;
            self.close_blocks(chunk, 1 << index);
            let block = Self::block(chunk, index);
            (*block).depot = depot;
            Ok(self.carve(chunk, 1 << index, mask(0, len)))
        }
    }

    /// An extent of so many granules, from the beginning of a block on. What it leaves of its last block stays free and is
    /// nobody's until the extent comes back.
    pub(super) fn take_extent(&mut self, granules: u32, effort: Effort) -> Result<Run, Short> {
        let blocks = granules.div_ceil(64);
        let effort = match effort {
            // Whether there are empty slabs that could be used instead is asked for what is about as long as these.
            Effort::Thrifty if blocks <= SHORT => match self.find_blocks(blocks, effort) {
                Err(Short::Fresh) => return Err(Short::Fresh),
                _ => Effort::Bounded,
            },
            Effort::Thrifty => Effort::Bounded,
            effort => effort,
        };
        let (mut chunk, first) = match self.find_extent(blocks, effort) {
            Some(found) => found,
            None if blocks as usize > Geometry::<P>::BLOCKS => return Err(Short::Extent(blocks)),
            None => return Err(Short::Chunk),
        };
        let (mut index, mut left) = (first, granules);
        let (mut whole, mut watch): (Option<Run>, _) = (None, 0);
        while left > 0 {
            // SAFETY: the chunk and those behind it in its region are valid, and the blocks are free and whole.
            let (run, count, untouched) = unsafe {
                if index as usize == Geometry::<P>::BLOCKS {
                    (chunk, index) = ((*chunk).next, 0);
                }
                // Whole blocks, as many as are left in the chunk, or the part of the last one.
                let count = (left / 64).min(Geometry::<P>::BLOCKS as u32 - index).max(1);
                let untouched = !(*chunk).touched & mask(index, count);
                self.close_blocks(chunk, mask(index, count));
                let run = self.carve(chunk, mask(index, count), mask(0, left.min(64)));
                (run, count, untouched)
            };
            let number = |block: u32| (granules - left) / 64 + block - index;
            // The last one but for its end, which may be touched for itself.
            let inner = |block: &u32| (1..blocks - 1).contains(&number(*block));
            if blocks >= UNIT {
                watch = ones(untouched).filter(inner).last().map_or(watch, number);
            }
            (index, left) = (index + count, left.saturating_sub(count * 64));
            whole = Some(whole.map_or(run, |whole| whole.and(run)));
        }
        whole
            .map(|whole| Run { watch, ..whole })
            .ok_or(Short::Chunk)
    }

    /// Free blocks in a row: in one chunk if there are so many, else in one region, and then where the most of them are in
    /// memory.
    fn find_extent(&self, blocks: u32, effort: Effort) -> Option<(*mut Chunk, u32)> {
        if blocks as usize <= Geometry::<P>::BLOCKS
            && let Ok(found) = self.find_blocks(blocks, effort)
        {
            return Some(found);
        }
        let mut best: Option<Place> = None;
        let mut at = self.long_regions.first();
        let mut looks = if effort == Effort::Full {
            usize::MAX
        } else {
            REGION_LOOKS
        };
        while !at.is_null() && looks > 0 {
            // SAFETY: linked regions' chunks are valid.
            unsafe {
                Self::best_place(at, blocks, &mut best);
                at = Chain::<Chunk, LONG>::after(at);
            }
            looks -= 1;
        }
        best.map(|place| (place.chunk, place.first))
    }

    /// Looks for a better place for so many blocks in a region: with more of what was touched. In each hole that is long
    /// enough it is the one that begins at the first touched block.
    ///
    /// # Safety
    /// The chunk is the first of a valid region.
    unsafe fn best_place(mut chunk: *mut Chunk, blocks: u32, best: &mut Option<Place>) {
        let all = Geometry::<P>::BLOCKS as u32;
        let mut hole: Option<Hole> = None;
        while !chunk.is_null() {
            // SAFETY: the chunks of a valid region are valid.
            let (free, touched, next) =
                unsafe { ((*chunk).free_blocks, (*chunk).touched, (*chunk).next) };
            let mut index = 0;
            while index < all {
                let here = (free >> index).trailing_ones().min(all - index);
                if here > 0 {
                    let hole = hole.get_or_insert(Hole {
                        chunk,
                        first: index,
                        len: 0,
                        touched_at: None,
                    });
                    let warm = touched >> index & mask(0, here);
                    if hole.touched_at.is_none() && warm != 0 {
                        hole.touched_at = Some(hole.len + warm.trailing_zeros());
                    }
                    hole.len += here;
                    index += here;
                }
                if index < all {
                    // SAFETY: as above.
                    unsafe { Self::judge(hole.take(), blocks, best) };
                    index += (free >> index).trailing_zeros().min(all - index);
                }
            }
            chunk = next;
        }
        // SAFETY: as above.
        unsafe { Self::judge(hole, blocks, best) };
    }

    /// # Safety
    /// The hole is one of a valid region.
    unsafe fn judge(hole: Option<Hole>, blocks: u32, best: &mut Option<Place>) {
        let Some(hole) = hole.filter(|hole| hole.len >= blocks) else {
            return;
        };
        let all = Geometry::<P>::BLOCKS as u32;
        let mut index = hole.first + hole.touched_at.unwrap_or(0).min(hole.len - blocks);
        let mut chunk = hole.chunk;
        while index >= all {
            // SAFETY: the hole goes on in the next chunk of its region.
            (chunk, index) = (unsafe { (*chunk).next }, index - all);
        }
        let mut place = Place {
            chunk,
            first: index,
            touched: 0,
        };
        let mut left = blocks;
        while left > 0 {
            let here = left.min(all - index);
            // SAFETY: as above.
            unsafe {
                place.touched += ((*chunk).touched & mask(index, here)).count_ones();
                chunk = (*chunk).next;
            }
            (index, left) = (0, left - here);
        }
        if best.is_none_or(|best| place.touched > best.touched) {
            *best = Some(place);
        }
    }

    /// Takes free blocks in front of an extent's end into it, so that it is `granules` long.
    ///
    /// # Safety
    /// `base` is that of an extent of `old` granules that was handed out from `chunk`, and `granules` is more.
    pub(super) unsafe fn grow_extent(
        &mut self,
        chunk: *mut Chunk,
        base: usize,
        old: u32,
        granules: u32,
    ) -> Option<Run> {
        let start = ((base & (Geometry::<P>::CHUNK - 1)) / BLOCK) as u32;
        let all = Geometry::<P>::BLOCKS as u32;
        // The block that a granule of the extent is in.
        let block_of = |granule: u32| {
            let (mut at, mut index) = (chunk, start + granule / 64);
            while index >= all && !at.is_null() {
                // SAFETY: the caller's promise; a region's chunks are valid.
                (at, index) = (unsafe { (*at).next }, index - all);
            }
            (at, index)
        };
        let first_new = old.div_ceil(64);
        for number in first_new..granules.div_ceil(64) {
            let (at, index) = block_of(number * 64);
            // SAFETY: as above.
            if at.is_null() || unsafe { (*at).free_blocks >> index & 1 == 0 } {
                return None;
            }
        }
        let mut whole: Option<Run> = None;
        let mut from = old;
        while from < granules {
            let (at, index) = block_of(from);
            let (low, here) = (from % 64, (granules - from).min(64 - from % 64));
            // SAFETY: as above; the blocks are free, and of the last one the rest was the extent's to have, unless it is
            // in transit.
            let run = unsafe {
                if low == 0 {
                    self.close_blocks(at, 1 << index);
                } else if (*Self::block(at, index)).free & mask(low, here) != mask(low, here) {
                    return None;
                }
                self.carve(at, 1 << index, mask(low, here))
            };
            whole = Some(whole.map_or(run, |whole| whole.and(run)));
            from += here;
        }
        whole
    }

    /// Gives the end of an extent back, so that it is `granules` long.
    ///
    /// # Safety
    /// As for [`Self::grow_extent`], but `granules` is less than `old`; if it is 0 nothing is left of the extent.
    pub(super) unsafe fn shrink_extent(
        &mut self,
        mut chunk: *mut Chunk,
        base: usize,
        old: u32,
        granules: u32,
    ) {
        let all = Geometry::<P>::BLOCKS as u32;
        let mut index = ((base & (Geometry::<P>::CHUNK - 1)) / BLOCK) as u32;
        // From the end: the first chunk is then the one that became warm last, and what is taken next begins where this did.
        let mut number = old.div_ceil(64);
        index += number - 1;
        while index >= all {
            // SAFETY: the caller's promise; an extent goes on in the next chunk of its region.
            (chunk, index) = (unsafe { (*chunk).next }, index - all);
        }
        loop {
            let last = number - 1;
            let keep = granules.saturating_sub(last * 64).min(64);
            let had = (old - last * 64).min(64);
            // Whole blocks, as many as are left in the chunk, or a part of one.
            let is_whole = keep == 0 && had == 64;
            let wanted = if is_whole {
                number - granules.div_ceil(64)
            } else {
                1
            };
            let count = wanted.min(index + 1);
            let blocks = mask(index + 1 - count, count);
            // And no more: what is behind its end may be in transit.
            let back = mask(keep, had - keep);
            // SAFETY: as above.
            unsafe {
                self.change(chunk, blocks, |block, _| block.free |= back);
                self.settle(chunk, blocks);
                number -= count;
                if number * 64 <= granules {
                    return;
                }
                (chunk, index) = if index + 1 == count {
                    ((*chunk).prev, all - 1)
                } else {
                    (chunk, index - count)
                };
            }
        }
    }

    /// The best-fitting bucket first. Unless nothing else is left, a few of its blocks are looked at.
    unsafe fn find_run(
        buckets: &[Chain<Block, 0>; 7],
        len: u32,
        align: u32,
        effort: Effort,
    ) -> Option<(*mut Block, u32)> {
        let most = match effort {
            Effort::Thrifty | Effort::Bounded => 4,
            Effort::Full => usize::MAX,
        };
        for bucket in buckets.iter().skip(len.ilog2() as usize) {
            // SAFETY: blocks in buckets are valid.
            let fits = |block: *mut Block| unsafe { fit((*block).free, len, align) };
            if let Some(found) = bucket.first_of(most, fits) {
                return Some(found);
            }
        }
        None
    }

    /// `count` neighbouring free blocks of one chunk.
    fn find_blocks(&self, count: u32, effort: Effort) -> Result<(*mut Chunk, u32), Short> {
        // SAFETY: linked chunks are valid.
        let free = |chunk: *mut Chunk| unsafe { (*chunk).free_blocks };
        // SAFETY: as above.
        let touched = |chunk: *mut Chunk| unsafe { free(chunk) & (*chunk).touched };
        let warm = self
            .warm_chunks
            .first_of(WARM_LOOKS, |chunk| fit(touched(chunk), count, 1));
        let any = || {
            self.open
                .first_of(usize::MAX, |chunk| fit(free(chunk), count, 1))
        };
        let found = warm.or_else(any).ok_or(Short::Chunk)?;
        if effort == Effort::Thrifty && warm.is_none() {
            return Err(Short::Fresh);
        }
        Ok(found)
    }

    /// Marks the same free granules of each of some blocks in a row as handed out.
    ///
    /// # Safety
    /// They are free granules of these blocks, which are of this chunk: all of each, if there are several.
    unsafe fn carve(&mut self, chunk: *mut Chunk, blocks: u64, granules: u64) -> Run {
        let (mut clean, mut gone, commits) = (true, false, self.commits);
        let first = blocks.trailing_zeros();
        // SAFETY: the chunk and its blocks are valid.
        unsafe {
            let fresh = blocks & !(*chunk).touched;
            self.change(chunk, blocks, |block, _| {
                clean &= block.dirty & granules == 0;
                gone |= block.gone & granules != 0;
                let present = if commits {
                    granules & !block.gone
                } else {
                    granules
                };
                block.free &= !granules;
                block.dirty |= present;
                block.gone &= !present;
            });
            let offset = first as usize * BLOCK + granules.trailing_zeros() as usize * GRANULE;
            Run {
                base: (*chunk).base.add(offset),
                chunk,
                clean,
                gone,
                opens: fresh >> first & 1 == 1,
                fresh: fresh.count_ones(),
                watch: 0,
            }
        }
    }
}
