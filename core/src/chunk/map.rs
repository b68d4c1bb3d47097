//! What lies at the start of each chunk: the map from a granule to its slab, and each block's row.
//!
//! The map's own first entries describe the granules that the map lies in, which no object is ever
//! in. The block's rows are kept in the last of those entries; the ones before them stay unused, so
//! a write that runs past the last object of the chunk below meets nothing at first.
//!
//! # Orderings
//!
//! All accesses are `Relaxed`. An entry is written before any object of its slab is handed out, and
//! read only on behalf of a live object; whoever passed the object's pointer to the reader has
//! ordered the two. A read for a wild pointer (a checked heap) may see any entry, old or new: each
//! is null or a type-stable slab.
//!
//! # Provenance
//!
//! A pointer that comes back from a caller may carry only its object's provenance (a `Box` narrows
//! it), so masking it and reading there would be undefined. The chunk's base is exposed when the
//! chunk is taken in, and recovered here from the address. Metadata that stands beside a slab (a tag, a mark) is reached
//! from the slab's address in the same way.

use crate::class::{BLOCK, GRANULE};
use crate::provider::PageProvider;
use crate::slab::Slab;
use crate::sync::{AtomicPtr, AtomicU16, Ordering};
use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr;

/// The owner of a block that no row owns.
pub(crate) const NO_ROW: u16 = u16::MAX;

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
    const ENTRIES: usize = Self::CHUNK / GRANULE;
    const MAP_BYTES: usize = Self::ENTRIES * size_of::<*const Slab>();
    const ROW_BYTES: usize = Self::BLOCKS * size_of::<u16>();
    /// Bytes of the entries for the map's own granules.
    const SPARE: usize = Self::MAP_BYTES.div_ceil(GRANULE) * size_of::<*const Slab>();
    const ROWS_AT: usize = if Self::SPARE >= Self::ROW_BYTES {
        Self::SPARE - Self::ROW_BYTES
    } else {
        Self::MAP_BYTES
    };
    /// Granules at the start of a chunk that are not for objects.
    pub(crate) const HEADER: u32 = {
        let end = if Self::ROWS_AT < Self::MAP_BYTES {
            Self::MAP_BYTES
        } else {
            Self::MAP_BYTES + Self::ROW_BYTES
        };
        end.div_ceil(GRANULE) as u32
    };

    /// The map of the chunk that holds the object at `address`.
    ///
    /// # Safety
    /// `address` is in a chunk that the heap holds for as long as the result is used.
    #[inline]
    pub(crate) unsafe fn map_of(address: usize) -> Map<P> {
        Map {
            chunk: ptr::with_exposed_provenance(address & !(Self::CHUNK - 1)),
            geometry: PhantomData,
        }
    }

    /// Writes an empty map at the start of a chunk and exposes the chunk.
    ///
    /// # Safety
    /// `base` is a chunk that nobody uses yet.
    pub(crate) unsafe fn write_map(base: *mut u8) {
        let _exposed = base.expose_provenance();
        // SAFETY: the header lies inside the chunk, which is ours; null pointers are zero bytes.
        unsafe {
            base.write_bytes(0, Self::HEADER as usize * GRANULE);
            let rows: *mut u16 = base.add(Self::ROWS_AT).cast();
            for block in 0..Self::BLOCKS {
                rows.add(block).write(NO_ROW);
            }
        }
    }
}

/// The map of one chunk.
#[derive(Debug)]
pub(crate) struct Map<P> {
    chunk: *const u8,
    geometry: PhantomData<P>,
}

impl<P: PageProvider> Map<P> {
    /// The map of a chunk, from the chunk's own pointer.
    ///
    /// # Safety
    /// `chunk` is the base of a chunk that the heap holds for as long as the result is used.
    pub(crate) const unsafe fn at(chunk: *const u8) -> Self {
        Self {
            chunk,
            geometry: PhantomData,
        }
    }

    /// The row of the block that holds `address`.
    #[inline]
    pub(crate) fn row(&self, address: usize) -> u16 {
        let block = (address & (Geometry::<P>::CHUNK - 1)) / BLOCK;
        self.row_cell(block).load(Ordering::Relaxed)
    }

    pub(crate) fn set_row(&self, block: usize, row: u16) {
        self.row_cell(block).store(row, Ordering::Relaxed);
    }

    /// The slab whose run holds `address`, or null.
    #[inline]
    pub(crate) fn slab(&self, address: usize) -> *const Slab {
        let granule = (address & (Geometry::<P>::CHUNK - 1)) / GRANULE;
        self.entry(granule).load(Ordering::Relaxed)
    }

    /// As [`Map::slab`] for an address that may be wild: null inside the header.
    #[inline]
    pub(crate) fn slab_checked(&self, address: usize) -> *const Slab {
        let offset = address & (Geometry::<P>::CHUNK - 1);
        if offset < Geometry::<P>::HEADER as usize * GRANULE {
            return ptr::null();
        }
        self.slab(address)
    }

    /// Says that `count` granules from the one at `address` belong to `slab` (null: to none).
    pub(crate) fn set_slab(&self, address: usize, count: usize, slab: *const Slab) {
        let first = (address & (Geometry::<P>::CHUNK - 1)) / GRANULE;
        for granule in first..first + count {
            self.entry(granule)
                .store(slab.cast_mut(), Ordering::Relaxed);
        }
    }

    #[inline]
    fn entry(&self, granule: usize) -> &AtomicPtr<Slab> {
        debug_assert!(
            granule < Geometry::<P>::ENTRIES && granule >= Geometry::<P>::HEADER as usize
        );
        // SAFETY: the granule is inside the chunk, so its entry is inside the map, which is valid
        // and only accessed atomically while the chunk is held.
        unsafe { &*self.chunk.cast::<AtomicPtr<Slab>>().add(granule) }
    }

    #[inline]
    fn row_cell(&self, block: usize) -> &AtomicU16 {
        // SAFETY: as for `entry`.
        unsafe {
            &*self
                .chunk
                .add(Geometry::<P>::ROWS_AT)
                .cast::<AtomicU16>()
                .add(block)
        }
    }
}
