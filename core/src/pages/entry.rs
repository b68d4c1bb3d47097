//! What the page map says of a granule, in a word.

use crate::sync::{AtomicU64, Ordering};

/// What the page map says of a granule: `[63:16] the slab's address | [15] bumped | [14] home | [13:6] class | [5:0] 0`.
///
/// The class is that of the slab's key. Fast paths free two kinds at once: *home* marks slots of a plain class in the
/// root epoch, and *bumped* bump blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(u64);

/// What fast paths tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A bump block.
    Bumped,
    /// A slab of a plain class in the root epoch.
    Home,
    /// Another slab.
    Other,
}

impl Entry {
    pub(crate) const NONE: Self = Self(0);
    const CLASS: u32 = 6;
    const HOME: u64 = 1 << 14;
    const BUMPED: u64 = 1 << 15;
    const SLAB: u32 = 16;

    /// An entry that leads to a slab at an exposed address, of a class.
    pub(crate) fn new(slab: usize, class: u8, kind: EntryKind) -> Self {
        debug_assert!(can_name(slab));
        let kind = match kind {
            EntryKind::Bumped => Self::BUMPED,
            EntryKind::Home => Self::HOME,
            EntryKind::Other => 0,
        };
        Self((slab as u64) << Self::SLAB | kind | u64::from(class) << Self::CLASS)
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

    /// The address of the slab, or 0.
    #[inline(always)]
    pub(crate) const fn slab_address(self) -> usize {
        (self.0.cast_signed() >> Self::SLAB) as usize
    }
}

impl From<u64> for Entry {
    #[inline(always)]
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

/// Whether an entry has room for the address: 48 bits, the highest of which is the sign.
pub(super) const fn can_name(address: usize) -> bool {
    let address = (address as u64).cast_signed();
    address << 16 >> 16 == address
}

/// The entry of a granule, where anybody may read it: `Release` and `Acquire`, so that the slab and its marks are initialised.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct EntryWord(AtomicU64);

impl EntryWord {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(Entry::NONE.0))
    }

    #[inline(always)]
    pub(super) fn get(&self) -> Entry {
        self.0.load(Ordering::Acquire).into()
    }

    #[inline(always)]
    pub(super) fn set(&self, entry: Entry) {
        self.0.store(entry.0, Ordering::Release);
    }

    /// Sets it to [`Entry::NONE`] again, after a decommit that failed and may have destroyed it. `Relaxed`: its description is
    /// of no chunk, so what is read of it is out of date.
    #[cfg(not(loom))]
    pub(super) fn clear(&self) {
        self.0.store(Entry::NONE.0, Ordering::Relaxed);
    }
}
