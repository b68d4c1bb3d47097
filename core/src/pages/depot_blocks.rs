//! Blocks of 64 granules, and those that a depot owns. Under the pages' lock.

use super::chain::{Chain, Linked, Links};

/// 64 granules of a chunk.
#[derive(Debug)]
pub(crate) struct Block {
    pub(super) free: u64,
    pub(super) dirty: u64,
    pub(super) gone: u64,
    /// The depot's buckets, for an owned block.
    pub(super) depot: *mut DepotBlocks,
    pub(super) links: Links<Block>,
    pub(super) bucket: u8,
    pub(super) index: u8,
}

impl Linked<0> for Block {
    unsafe fn links(member: *mut Self) -> *mut Links<Self> {
        // SAFETY: the member is valid.
        unsafe { &raw mut (*member).links }
    }
}

/// A depot's blocks by the length of their longest free run: bucket `b` has runs of `2^b` or more.
#[derive(Debug)]
pub(crate) struct DepotBlocks {
    #[cfg(feature = "walker")]
    pub(super) id: u16,
    /// Slabs, single objects and regions that are out. A depot with none is drained.
    pub(super) pieces: usize,
    /// Bytes that came back since the depot's era began, less those that it took since: what a close is to give back beside
    /// what it finds. Others may have them by now, who give them back instead.
    freed: usize,
    pub(super) buckets: [Chain<Block, 0>; 7],
}

impl DepotBlocks {
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
