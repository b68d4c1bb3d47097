//! Which free granules are handed out. All under the pages' lock.
//!
//! Principles:
//! - A row's own blocks come first, then free blocks that are in memory, then, unless there are empty slabs that
//!   could be used instead, free ones that are not.
//! - Each search is bounded, but for the last one before a request is refused.

use super::Run;
use super::block::{fit, mask};
use super::chain::Chain;
use super::runs::{Block, Chunk, RowBlocks, Short, State};
use crate::class::{BLOCK, GRANULE};
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

/// Chunks with warm pages that are looked at for a free block that is in memory.
const WARM_LOOKS: usize = 16;

impl<P: PageProvider> State<P> {
    /// A run of `len` granules from the row's blocks, or from a block that it gets for it.
    ///
    /// # Safety
    /// `row` is a valid row of this heap; its buckets are only touched under this lock.
    pub(super) unsafe fn take_run(
        &mut self,
        row: *mut RowBlocks,
        len: u32,
        align: u32,
        effort: Effort,
    ) -> Result<Run, Short> {
        // SAFETY: the row and the blocks in its buckets are valid.
        unsafe {
            if let Some((block, start)) = Self::find_run(&(*row).buckets, len, align, effort) {
                let chunk = Self::chunk_of(block);
                return Ok(self.carve(chunk, u32::from((*block).index), mask(start, len)));
            }
            let (chunk, index) = self.take_blocks(1, effort)?;
            let block = Self::block(chunk, index);
            (*block).row = row;
            Ok(self.carve(chunk, index, mask(0, len)))
        }
    }

    /// A run of whole blocks.
    pub(super) fn take_long_run(&mut self, count: u32, effort: Effort) -> Result<Run, Short> {
        let (chunk, first) = self.take_blocks(count, effort)?;
        let mut whole: Option<Run> = None;
        for index in first..first + count {
            // SAFETY: the blocks were just taken, and are whole.
            let run = unsafe { self.carve(chunk, index, !0) };
            whole = Some(match whole {
                None => run,
                Some(w) => Run {
                    clean: w.clean && run.clean,
                    gone: w.gone || run.gone,
                    ..w
                },
            });
        }
        whole.ok_or(Short::Chunk)
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
    fn take_blocks(&mut self, count: u32, effort: Effort) -> Result<(*mut Chunk, u32), Short> {
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
        let (chunk, first) = warm.or_else(any).ok_or(Short::Chunk)?;
        if effort == Effort::Thrifty && warm.is_none() {
            return Err(Short::Fresh);
        }
        // SAFETY: the chunk is valid, and they are free.
        unsafe { self.close_blocks(chunk, mask(first, count)) };
        Ok((chunk, first))
    }

    /// Takes free blocks out of their chunk's free ones.
    ///
    /// # Safety
    /// The chunk is valid, and they are free.
    pub(super) unsafe fn close_blocks(&mut self, chunk: *mut Chunk, blocks: u64) {
        // SAFETY: the chunk is valid.
        unsafe {
            self.empty_chunks -= usize::from((*chunk).free_blocks == Self::all_blocks());
            (*chunk).free_blocks &= !blocks;
            if (*chunk).free_blocks == 0 {
                self.open.remove(chunk);
            }
        }
    }

    /// Marks free granules as handed out.
    ///
    /// # Safety
    /// They are free granules of this block.
    unsafe fn carve(&mut self, chunk: *mut Chunk, index: u32, granules: u64) -> Run {
        // SAFETY: the chunk and its blocks are valid.
        unsafe {
            let block = Self::block(chunk, index);
            let clean = (*block).dirty & granules == 0;
            let gone = (*block).gone & granules != 0;
            let opens = (*chunk).touched & (1 << index) == 0;
            let commits = self.commits;
            self.change(chunk, index, |block, _| {
                let present = if commits {
                    granules & !block.gone
                } else {
                    granules
                };
                block.free &= !granules;
                block.dirty |= present;
                block.gone &= !present;
            });
            let offset = index as usize * BLOCK + granules.trailing_zeros() as usize * GRANULE;
            Run {
                base: (*chunk).base.add(offset),
                chunk,
                clean,
                gone,
                opens,
            }
        }
    }
}
