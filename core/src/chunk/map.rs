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
//! The orderings are at the heads of `table` and at `EntryWord`; `models` has the models.

use super::entry::{Entry, EntryWord};
use super::runs::{Chunk, State};
use super::table::{Numbered, Places, Table};
use crate::class::{BLOCK, GRANULE};
use crate::provider::PageProvider;
use crate::sync::AtomicUsize;
use core::alloc::Layout;
use core::marker::PhantomData;

/// The number of no row.
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
    pub(super) const ENTRIES: usize = Self::CHUNK / GRANULE;
}

/// What unused places lead to.
static NOWHERE: Nowhere = Nowhere(Chunk::VACANT);

struct Nowhere(Chunk);
// SAFETY: nobody writes to it, and nothing but its number, which is atomic, is read.
unsafe impl Sync for Nowhere {}

const fn nowhere() -> *mut Chunk {
    (&raw const NOWHERE.0).cast_mut()
}

/// The table of a heap that has no chunk.
static EMPTY: Places<Chunk> = Places::empty(nowhere());

// SAFETY: descriptions lie in metadata, which stays and is reused as what it was until the heap is dropped.
unsafe impl Numbered for Chunk {
    #[inline(always)]
    fn nowhere() -> *mut Self {
        nowhere()
    }

    #[inline(always)]
    unsafe fn number<'n>(this: *const Self) -> &'n AtomicUsize {
        // SAFETY: the caller's promise.
        unsafe { &(*this).number }
    }

    unsafe fn place(this: *mut Self) -> *mut usize {
        // SAFETY: the caller's promise.
        unsafe { &raw mut (*this).place }
    }
}

/// The page map of a heap. Looked up by anybody, changed under the pages' lock.
#[derive(Debug)]
pub(crate) struct PageMap {
    table: Table<Chunk>,
}

impl PageMap {
    pub(crate) const fn new() -> Self {
        Self {
            table: Table::new((&raw const EMPTY).cast_mut()),
        }
    }

    /// What is at an address.
    #[inline(always)]
    pub(crate) fn entry<P: PageProvider>(&self, address: usize) -> Entry {
        let number = address / Geometry::<P>::CHUNK;
        self.table.at_once_or(
            number,
            // SAFETY: what the table leads to are descriptions, and they stay.
            |chunk| unsafe { entry_of::<P>(chunk, address) }.get(),
            // SAFETY: the places were this table's just now.
            |places| unsafe { search::<P>(places, number, address) },
        )
    }

    /// What is at an address, if its chunk is at the first place that is looked at. Else nothing, which says nothing.
    #[inline(always)]
    pub(crate) fn entry_at_once<P: PageProvider>(&self, address: usize) -> Entry {
        let number = address / Geometry::<P>::CHUNK;
        self.table.at_once_or(
            number,
            // SAFETY: as in `entry`.
            |chunk| unsafe { entry_of::<P>(chunk, address) }.get(),
            |_| Entry::NONE,
        )
    }

    /// Whether there is room for one more beside so many chunks.
    pub(super) fn has_room_beside(&self, chunks: usize) -> bool {
        self.table.has_room_beside(chunks)
    }

    /// The layout of what [`Self::grow`] wants.
    pub(super) fn next_layout(&self) -> Layout {
        self.table.next_layout()
    }

    /// Goes on with a longer table. The one before stays where it is.
    ///
    /// # Safety
    /// The memory is of [`Self::next_layout`], and nobody else's.
    pub(super) unsafe fn grow(&self, memory: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { self.table.grow(memory) };
    }

    /// Takes a chunk in, whose number is set.
    ///
    /// # Safety
    /// The chunk is valid and not in the map, and there is room.
    pub(super) unsafe fn insert(&self, chunk: *mut Chunk) {
        // SAFETY: the caller's promise.
        unsafe { self.table.insert(chunk) };
    }

    /// Lets a chunk go. Its description may be taken in again as that of another.
    ///
    /// # Safety
    /// The chunk is in the map.
    pub(super) unsafe fn remove(&self, chunk: *mut Chunk) {
        // SAFETY: the caller's promise.
        unsafe { self.table.remove(chunk) };
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

/// Looks on behind the first place.
///
/// # Safety
/// They are places of a page map that is there.
#[cold]
#[inline(never)]
unsafe fn search<P: PageProvider>(
    places: *const Places<Chunk>,
    number: usize,
    address: usize,
) -> Entry {
    // SAFETY: the caller's promise; as in `entry`.
    unsafe {
        Table::search(places, number)
            .map_or(Entry::NONE, |chunk| entry_of::<P>(chunk, address).get())
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
