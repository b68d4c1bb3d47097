//! What the walker is shown of the pages.

use super::Pages;
use super::chunk::Chunk;
use super::geometry::{Geometry, NO_DEPOT};
use super::runs::{resident_bytes, warm_bytes};
use super::state::State;
use super::tree::{Node, Use};
use crate::class::BLOCK;
use crate::provider::PageProvider;
use lock_api::RawMutex;

/// What the walker is told of a region.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RegionView {
    pub(crate) size: usize,
    /// What of it is in memory; of metadata see [`super::PageBytes`].
    pub(crate) resident: usize,
    pub(crate) warm: usize,
    pub(crate) sums_agree: bool,
    pub(crate) is_large: bool,
}

/// What the walker is told of each block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockView {
    pub(crate) base: *mut u8,
    pub(crate) free: u64,
    pub(crate) depot: u16,
    pub(crate) is_free: bool,
}

impl<P: PageProvider, R: RawMutex> Pages<P, R> {
    /// Calls `f` for each region and, before it, `g` for each of its blocks.
    pub(crate) fn view(&self, mut f: impl FnMut(RegionView), mut g: impl FnMut(BlockView)) {
        self.state.with(|state| {
            state.tree.for_each(&mut |node| {
                // SAFETY: nodes in the tree are valid under the lock.
                let (size, purpose) = unsafe { ((*node).region.size, (*node).purpose) };
                let (warm, resident, sums_agree) = if purpose == Use::Chunk {
                    // SAFETY: it is the node of a chunk.
                    unsafe { state.view_chunk(node, &mut g) }
                } else {
                    let is_meta = purpose == Use::Meta;
                    (0, if is_meta { 0 } else { size }, true)
                };
                let is_large = matches!(purpose, Use::Large { .. });
                f(RegionView {
                    size,
                    resident,
                    warm,
                    sums_agree,
                    is_large,
                });
            });
        });
    }
}

impl<P: PageProvider> State<P> {
    /// Calls `f` for each block of a region of chunks, then gives the sums as they should be.
    ///
    /// # Safety
    /// `node` is the node of such a region that is here.
    pub(super) unsafe fn view_chunk(
        &self,
        node: *mut Node,
        f: &mut impl FnMut(BlockView),
    ) -> (usize, usize, bool) {
        let mut chunk: *mut Chunk = node.cast();
        let (mut all_warm, mut all_resident, mut agrees) = (0, 0, true);
        // SAFETY: the chunks of the region are valid; the lock is held.
        while !chunk.is_null() {
            // SAFETY: as above.
            let (warm, resident, agree) = unsafe { self.view_one(chunk, f) };
            all_warm += warm;
            all_resident += resident;
            agrees &= agree;
            // SAFETY: as above.
            chunk = unsafe { (*chunk).next };
        }
        (all_warm, all_resident, agrees)
    }

    /// # Safety
    /// As for [`Self::view_chunk`].
    unsafe fn view_one(
        &self,
        chunk: *mut Chunk,
        f: &mut impl FnMut(BlockView),
    ) -> (usize, usize, bool) {
        let (mut warm, mut resident, mut touched) = (0, 0, 0);
        // SAFETY: the chunk is valid; the lock is held.
        unsafe {
            for index in 0..Geometry::<P>::BLOCKS as u32 {
                let block = &*Self::block(chunk, index);
                warm += warm_bytes(block, self.page);
                resident += resident_bytes(block, self.page);
                touched |= u64::from(block.dirty != 0) << index;
                let base = (*chunk).base.add(index as usize * BLOCK);
                f(BlockView {
                    base,
                    free: block.free,
                    depot: block.depot.as_ref().map_or(NO_DEPOT, |depot| depot.id),
                    is_free: (*chunk).free_blocks >> index & 1 == 1,
                });
            }
            let agrees = warm == (*chunk).warm && touched == (*chunk).touched;
            (warm, resident, agrees)
        }
    }
}
