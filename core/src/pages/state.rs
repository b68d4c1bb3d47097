//! Everything that the pages' lock guards.

use super::arena::Arena;
use super::block::PageShape;
use super::chain::Chain;
use super::chunk::{Chunk, LONG, OPEN, WARM};
use super::meta::META_KINDS;
use super::tree::Tree;
use crate::provider::PageProvider;
use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr;

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
    /// Nothing can help: the depot's epoch is closed.
    Closed,
}

/// Everything that the pages' lock guards.
#[derive(Debug)]
pub(super) struct State<P> {
    pub(super) tree: Tree,
    pub(super) arena: Arena,
    /// Descriptions of chunks that are not held, linked as the open ones are.
    pub(super) unused_chunks: Chain<Chunk, OPEN>,
    /// Unused records, by kind.
    pub(super) unused_records: [*const (); META_KINDS],
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
            unused_records: [ptr::null(); META_KINDS],
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
}
