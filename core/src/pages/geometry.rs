//! The shape of chunks.

use crate::class::{BLOCK, GRANULE};
use crate::provider::PageProvider;
use core::marker::PhantomData;

/// The number of no depot.
pub(crate) const NO_DEPOT: u16 = u16::MAX;

/// The shape of `P`'s chunks.
#[derive(Debug)]
pub(crate) struct Geometry<P>(PhantomData<P>);

impl<P: PageProvider> Geometry<P> {
    pub(crate) const CHUNK: usize = {
        assert!(
            P::CHUNK_SIZE.is_power_of_two(),
            "CHUNK_SIZE is a power of two"
        );
        assert!(P::CHUNK_SIZE >= BLOCK, "CHUNK_SIZE is at least 64 KiB");
        assert!(P::CHUNK_SIZE <= 4 << 20, "CHUNK_SIZE is at most 4 MiB");
        P::CHUNK_SIZE
    };
    pub(crate) const BLOCKS: usize = Self::CHUNK / BLOCK;
    pub(super) const ENTRIES: usize = Self::CHUNK / GRANULE;
}
