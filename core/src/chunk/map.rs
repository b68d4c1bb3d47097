//! The page map: from any address to the slab that owns it, read without a lock.
//!
//! # Structure
//!
//! An open hash table leads from a chunk's number (its address divided by the chunk size) to the chunk's description,
//! which has an [`Entry`] for each granule. Neighbouring chunks have neighbouring places, so a heap whose provider puts
//! chunks side by side finds each at the first look. Invariants, under the pages' lock:
//!
//! - a chunk that is held is at `place`, and no place from its home (`number & mask`) to there is unused, which is to say
//!   leads to [`NOWHERE`];
//! - at most half of the places are in use, so each search ends;
//! - an entry is [`Entry::NONE`] exactly while its granule is free, in the middle of a single object, or of no chunk.
//!
//! # Why a look-up is sound for any bits, at any time
//!
//! Tables and descriptions lie in metadata, which is reused only as what it was and goes back when the heap is dropped.
//! All that a look-up reads is atomic. A description that another chunk has by now says so by its number. An entry that
//! is out of date leads to metadata that is a slab still, and a caller that acts on it checks the slab's mark, tag or identity.
//!
//! # Orderings
//!
//! - `table` and the places are stored with `Release` and read with `Acquire`: what they lead to is initialised. (Under the
//!   lock they are read `Relaxed`; that a place is unused again is stored so.)
//! - An entry is stored with `Release` and read with `Acquire`: the slab and its marks are initialised.
//! - `number` is `Relaxed`: the free of a live object was ordered behind its allocation by the code that passed the pointer
//!   on, and for anybody else an outdated number is an outdated answer.

use super::runs::{Chunk, State};
use crate::class::{BLOCK, GRANULE};
use crate::provider::PageProvider;
use crate::slab::{Key, Slab};
use crate::sync::{AtomicPtr, AtomicU64, Ordering};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr;

/// The number of no row.
pub(crate) const NO_ROW: u16 = u16::MAX;

/// The number of a chunk that is not held. No address divides to it.
pub(super) const VACANT: usize = usize::MAX;

/// Places of the first table.
const FIRST: usize = 16;

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

/// What the page map says of a granule: `[63:16] the slab's address | [15] bumped | [14] home | [13:6] class | [5:0] 0`.
///
/// The class is that of the slab's key. Fast paths free two kinds at once: *home* marks slots of a plain class in the
/// root epoch, and *bumped* bump blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(u64);

impl Entry {
    pub(crate) const NONE: Self = Self(0);
    const CLASS: u32 = 6;
    const HOME: u64 = 1 << 14;
    const BUMPED: u64 = 1 << 15;
    const SLAB: u32 = 16;

    pub(crate) fn new(slab: &Slab, class: u8, is_home: bool) -> Self {
        let address = ptr::from_ref(slab).addr() as u64;
        debug_assert!(can_name(address as usize));
        let kind = match class {
            Key::BLOCK => Self::BUMPED,
            _ if is_home => Self::HOME,
            _ => 0,
        };
        Self(address << Self::SLAB | kind | u64::from(class) << Self::CLASS)
    }

    /// Whether the granule has no slab.
    #[inline(always)]
    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether the granule is of a slab of a plain class in the root epoch.
    #[inline(always)]
    pub(crate) const fn is_home(self) -> bool {
        self.0 & Self::HOME != 0
    }

    /// Whether the granule is of a bump block.
    #[inline(always)]
    pub(crate) const fn is_bumped(self) -> bool {
        self.0 & Self::BUMPED != 0
    }

    /// The class, times 64: how far in bytes its cell is from the first.
    #[inline(always)]
    pub(crate) const fn class_by_64(self) -> usize {
        const { assert!(Self::CLASS == 6) };
        self.0 as usize & 0xFF << Self::CLASS
    }

    /// The class of the slab's key.
    #[inline(always)]
    pub(crate) const fn class(self) -> usize {
        (self.0 >> Self::CLASS) as usize & 0xFF
    }

    /// The address of the slab, or null.
    #[inline(always)]
    pub(crate) fn slab_at(self) -> *const Slab {
        let address = (self.0.cast_signed() >> Self::SLAB) as usize;
        ptr::with_exposed_provenance(address)
    }

    /// The slab.
    ///
    /// # Safety
    /// The entry is of a heap that lives as long as `'s`.
    #[inline(always)]
    pub(crate) unsafe fn slab<'s>(self) -> Option<&'s Slab> {
        // SAFETY: entries name slabs, which lie in exposed metadata memory that stays until the heap is dropped.
        unsafe { self.slab_at().as_ref() }
    }
}

/// Whether an entry has room for the address: 48 bits, the highest of which is the sign.
pub(super) const fn can_name(address: usize) -> bool {
    let address = (address as u64).cast_signed();
    address << 16 >> 16 == address
}

/// What unused places lead to: a description that is of no chunk, so that a look-up need not ask whether there is one.
static NOWHERE: Nowhere = Nowhere(Chunk::VACANT);

struct Nowhere(Chunk);
// SAFETY: nobody writes to it, and nothing but its number, which is atomic, is read.
unsafe impl Sync for Nowhere {}

const fn nowhere() -> *mut Chunk {
    (&raw const NOWHERE.0).cast_mut()
}

/// The places of a page map. `mask` and one is their number, and they follow it in memory.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Table {
    mask: usize,
    /// As many as `mask` says, and one. `Acquire` and `Release`: see the head.
    places: [AtomicPtr<Chunk>; 1],
}

/// The table of a heap that has no chunk.
static EMPTY: Table = Table {
    mask: 0,
    places: [AtomicPtr::new(nowhere())],
};

impl Table {
    fn layout(places: usize) -> Layout {
        let size = size_of::<usize>() + places * size_of::<AtomicPtr<Chunk>>();
        Layout::new::<usize>()
            .align_to(64)
            .and_then(|l| Layout::from_size_align(size, l.align()))
            .unwrap_or(Layout::new::<Self>())
    }

    /// # Safety
    /// `this` is a table that stays as long as `'t`.
    #[inline(always)]
    unsafe fn place<'t>(this: *const Self, number: usize) -> &'t AtomicPtr<Chunk> {
        // SAFETY: the mask keeps the index below the number of places.
        unsafe {
            let places: *const AtomicPtr<Chunk> = (&raw const (*this).places).cast();
            &*places.add(number & (*this).mask)
        }
    }

    /// What the place of a number leads to: a description, or [`NOWHERE`].
    ///
    /// # Safety
    /// `this` is a table of a heap that is there.
    #[inline(always)]
    unsafe fn chunk_at(this: *const Self, number: usize) -> *mut Chunk {
        // SAFETY: the caller's promise.
        let place = unsafe { Self::place(this, number) };
        place.load(Ordering::Acquire)
    }
}

/// The page map of a heap. Looked up by anybody, changed under the pages' lock.
#[derive(Debug)]
pub(crate) struct PageMap {
    /// `Acquire` and `Release`: see the head.
    table: AtomicPtr<Table>,
}

impl PageMap {
    pub(crate) const fn new() -> Self {
        Self {
            table: AtomicPtr::new((&raw const EMPTY).cast_mut()),
        }
    }

    #[inline(always)]
    fn table(&self) -> *const Table {
        self.table.load(Ordering::Acquire)
    }

    /// What is at an address.
    #[inline(always)]
    pub(crate) fn entry<P: PageProvider>(&self, address: usize) -> Entry {
        let (number, table) = (address / Geometry::<P>::CHUNK, self.table());
        // SAFETY: tables and the descriptions that they lead to stay as long as the heap; what is read is atomic.
        unsafe {
            let chunk = Table::chunk_at(table, number);
            if (*chunk).number.load(Ordering::Relaxed) != number {
                return search::<P>(table, number, address);
            }
            read_entry::<P>(chunk, address)
        }
    }

    /// What is at an address, if its chunk is at the first place that is looked at. Else nothing, which says nothing.
    #[inline(always)]
    pub(crate) fn entry_at_once<P: PageProvider>(&self, address: usize) -> Entry {
        let (number, table) = (address / Geometry::<P>::CHUNK, self.table());
        // SAFETY: as in `entry`.
        unsafe {
            let chunk = Table::chunk_at(table, number);
            if (*chunk).number.load(Ordering::Relaxed) != number {
                return Entry::NONE;
            }
            read_entry::<P>(chunk, address)
        }
    }

    /// Whether there is room for one more beside so many chunks.
    pub(super) fn has_room_beside(&self, chunks: usize) -> bool {
        // `Relaxed`: it was set under this lock.
        let table = self.table.load(Ordering::Relaxed);
        // SAFETY: as in `entry`.
        (chunks + 1) * 2 <= unsafe { (*table).mask } + 1
    }

    /// The layout of the table after this one.
    pub(super) fn next_layout(&self) -> Layout {
        Table::layout(self.next_len())
    }

    fn next_len(&self) -> usize {
        // SAFETY: as in `entry`.
        let places = unsafe { (*self.table.load(Ordering::Relaxed)).mask } + 1;
        (places * 2).max(FIRST)
    }

    /// Goes on with a table of [`Self::next_layout`]. The one before stays where it is: somebody may be reading it.
    ///
    /// # Safety
    /// The memory is of that layout, and nobody else's.
    pub(super) unsafe fn grow(&self, memory: *mut u8) {
        let (old, len) = (self.table.load(Ordering::Relaxed), self.next_len());
        let new: *mut Table = memory.cast();
        // SAFETY: the memory is long enough; the old table and its chunks are valid.
        unsafe {
            (&raw mut (*new).mask).write(len - 1);
            let places: *mut AtomicPtr<Chunk> = (&raw mut (*new).places).cast();
            for place in 0..len {
                places.add(place).write(AtomicPtr::new(nowhere()));
            }
            for place in 0..=(*old).mask {
                let chunk = Table::place(old, place).load(Ordering::Relaxed);
                if Self::is_at(chunk, place) {
                    Self::insert_into(new, chunk);
                }
            }
        }
        self.table.store(new, Ordering::Release);
    }

    /// Whether a chunk that is held is at a place. What else a place leads to is out of date.
    ///
    /// # Safety
    /// `chunk` is a description, or [`NOWHERE`].
    unsafe fn is_at(chunk: *mut Chunk, place: usize) -> bool {
        // SAFETY: the caller's promise; `place` is read under the lock.
        unsafe { (*chunk).number.load(Ordering::Relaxed) != VACANT && (*chunk).place == place }
    }

    /// Takes a chunk in, whose number is set.
    ///
    /// # Safety
    /// The chunk is valid and not in the map, and there is room.
    pub(super) unsafe fn insert(&self, chunk: *mut Chunk) {
        // SAFETY: the caller's promise.
        unsafe { Self::insert_into(self.table.load(Ordering::Relaxed), chunk) };
    }

    unsafe fn insert_into(table: *mut Table, chunk: *mut Chunk) {
        // SAFETY: the table and what it leads to are valid, and half of its places are unused or out of date.
        unsafe {
            let mut at = (*chunk).number.load(Ordering::Relaxed);
            loop {
                let place = Table::place(table, at);
                let index = at & (*table).mask;
                if !Self::is_at(place.load(Ordering::Relaxed), index) {
                    (*chunk).place = index;
                    place.store(chunk, Ordering::Release);
                    return;
                }
                at = at.wrapping_add(1);
            }
        }
    }

    /// Lets a chunk go. Its description may be taken in again as that of another.
    ///
    /// # Safety
    /// The chunk is in the map.
    pub(super) unsafe fn remove(&self, chunk: *mut Chunk) {
        let table = self.table.load(Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe {
            (*chunk).number.store(VACANT, Ordering::Relaxed);
            // What is out of date at the end of a run of places may be unused again: a search that gets there ends at the
            // next place anyway.
            let mut at = (*chunk).place;
            let next = Table::place(table, at.wrapping_add(1)).load(Ordering::Relaxed);
            if next != nowhere() {
                return;
            }
            loop {
                let (place, index) = (Table::place(table, at), at & (*table).mask);
                let found = place.load(Ordering::Relaxed);
                if found == nowhere() || Self::is_at(found, index) {
                    return;
                }
                // `Relaxed`: what is there is a constant.
                place.store(nowhere(), Ordering::Relaxed);
                at = at.wrapping_sub(1);
            }
        }
    }
}

impl From<u64> for Entry {
    #[inline(always)]
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

/// The entry of a granule of a chunk.
///
/// # Safety
/// `chunk` is a description, and stays as long as `'c`.
#[inline(always)]
unsafe fn entry_of<'c, P: PageProvider>(chunk: *const Chunk, address: usize) -> &'c AtomicU64 {
    let granule = address / GRANULE % Geometry::<P>::ENTRIES;
    // SAFETY: the entries lie in the description's piece of memory, and are only accessed atomically.
    unsafe {
        &*chunk
            .byte_add(State::<P>::ENTRIES_AT)
            .cast::<AtomicU64>()
            .add(granule)
    }
}

/// The entry of a granule, as it is now.
///
/// # Safety
/// As for [`entry_of`].
#[inline(always)]
unsafe fn read_entry<P: PageProvider>(chunk: *const Chunk, address: usize) -> Entry {
    // SAFETY: the caller's promise.
    let word = unsafe { entry_of::<P>(chunk, address) };
    word.load(Ordering::Acquire).into()
}

/// Looks on behind the first place.
///
/// # Safety
/// `table` is a table of a heap that is there.
#[cold]
#[inline(never)]
unsafe fn search<P: PageProvider>(table: *const Table, number: usize, address: usize) -> Entry {
    // SAFETY: as in `entry`.
    unsafe {
        for step in 0..=(*table).mask {
            let chunk = Table::chunk_at(table, number.wrapping_add(step));
            if (*chunk).number.load(Ordering::Relaxed) == number {
                return read_entry::<P>(chunk, address);
            }
            if chunk == nowhere() {
                break;
            }
        }
    }
    Entry::NONE
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
        let word = unsafe { entry_of::<P>(chunk, address + granule * GRANULE) };
        word.store(entry.0, Ordering::Release);
    }
}
