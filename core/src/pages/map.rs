//! The page map: from any address to the slab that owns it, read without a lock.
//!
//! # Structure
//!
//! A hash table ([`Table`]) leads from a chunk's number (its address divided by the chunk size) to the chunk's description,
//! which has an [`Entry`] for each granule. Neighbouring chunks have neighbouring places, so a heap whose provider puts
//! chunks side by side finds each at the first look. Invariant, under the pages' lock: an entry is [`Entry::NONE`] exactly
//! while its granule is free, in the middle of a single object, or of no chunk.
//!
//! # Why a look-up is sound for any bits, at any time
//!
//! Tables and descriptions lie in metadata, which is reused only as what it was and goes back when the heap is dropped.
//! All that a look-up reads is atomic. A description that another chunk has by now says so by its number. An entry that
//! is out of date leads to metadata that is a slab still, and a caller that acts on it checks the slab's mark, tag or identity.
//!
//! The orderings are at the head of `table` and at `EntryWord`; loom's models of both are in `models.rs`.

use super::chunk::Chunk;
use super::entry::{Entry, EntryWord};
use super::geometry::Geometry;
use super::state::State;
use super::table::{Numbered, Table};
use crate::class::GRANULE;
use crate::provider::PageProvider;
use core::mem::offset_of;

/// The page map of a heap. Looked up by anybody, changed under the pages' lock.
#[derive(Debug)]
pub(crate) struct PageMap {
    /// Leads to what is numbered in descriptions of chunks.
    pub(super) table: Table,
}

impl PageMap {
    pub(crate) const fn new() -> Self {
        Self {
            table: Table::new(),
        }
    }

    /// What is at an address.
    #[inline(always)]
    pub(crate) fn entry<P: PageProvider>(&self, address: usize) -> Entry {
        match self.table.at_once(number_of::<P>(address)) {
            // SAFETY: what the table leads to is a description's.
            Some(found) => unsafe { read_entry::<P>(found, address) },
            None => self.search::<P>(address),
        }
    }

    #[cold]
    #[inline(never)]
    fn search<P: PageProvider>(&self, address: usize) -> Entry {
        let found = self.table.search(number_of::<P>(address));
        // SAFETY: as above.
        found.map_or(Entry::NONE, |found| unsafe {
            read_entry::<P>(found, address)
        })
    }

    /// What is at an address, if its chunk is at the first place that is looked at. Else nothing, which says nothing.
    #[inline(always)]
    pub(crate) fn entry_at_once<P: PageProvider>(&self, address: usize) -> Entry {
        match self.table.at_once(number_of::<P>(address)) {
            // SAFETY: as above.
            Some(found) => unsafe { read_entry::<P>(found, address) },
            None => Entry::NONE,
        }
    }
}

/// The number of the chunk that an address is in.
#[inline(always)]
pub(super) const fn number_of<P: PageProvider>(address: usize) -> usize {
    address / Geometry::<P>::CHUNK
}

/// The entry of a granule, as it is now.
///
/// # Safety
/// What is numbered is a field of a description, by a pointer that is good for all of it, as those that were taken in are.
#[inline(always)]
unsafe fn read_entry<P: PageProvider>(numbered: *const Numbered, address: usize) -> Entry {
    // SAFETY: the caller's promise; descriptions stay.
    unsafe {
        let chunk = numbered.byte_sub(offset_of!(Chunk, numbered)).cast();
        entry_of::<P>(chunk, address).get()
    }
}

/// The entry of a granule of a chunk.
///
/// # Safety
/// `chunk` is a description, and stays as long as `'c`.
#[inline(always)]
unsafe fn entry_of<'c, P: PageProvider>(chunk: *const Chunk, address: usize) -> &'c EntryWord {
    let granule = address / GRANULE % Geometry::<P>::ENTRIES;
    // SAFETY: the entries lie in the description's piece of memory, and are only accessed atomically.
    unsafe {
        &*chunk
            .byte_add(State::<P>::ENTRIES_AT)
            .cast::<EntryWord>()
            .add(granule)
    }
}

/// Sets the entries of `count` granules from the one at `address`.
///
/// # Safety
/// `chunk` is held, the granules are its own, and the caller has them.
pub(crate) unsafe fn set_entries<P: PageProvider>(
    chunk: *mut Chunk,
    address: usize,
    count: usize,
    entry: Entry,
) {
    for granule in 0..count {
        // SAFETY: the caller's promise.
        unsafe { entry_of::<P>(chunk, address + granule * GRANULE) }.set(entry);
    }
}
