//! Handles: 64 bits that claim to name an object, and the tags that decide whether that is true.
//!
//! Principles:
//! - A handle is `[63:42] id | [41:18] generation | [17:10] slot | [9:2] class | [1:0] version = 01`.
//!   The bits are types ([`bits`]); nobody shifts by hand.
//! - A live slot's tag *is* its handle, with the count of those who read the object in place of the
//!   slot. So a handle is accepted exactly if one load finds its own bits, and a free is one
//!   compare-and-swap of its own bits: nothing is put together from parts that could change between.
//! - Tags lie in metadata memory that stays what it is until the heap is dropped, and ids lead to
//!   them through a table that does not know addresses. Any of the 2^64 values can be looked up; only
//!   metadata is read for it.
//! - Nothing wraps. A slot whose generations are used up retires; when the rest of its slab is empty
//!   the slab gets a fresh id, under which all generations begin anew. When the ids are used up, the
//!   answer is an error.
//!
//! # After how many operations is that?
//!
//! There are 2^22 ids, up to 64 slots in each, and 2^24 generations of a slot. An id is replaced when
//! its slab is empty and one of its slots has retired, so at worst, a slab that holds one object at a
//! time in one and the same slot, an id lasts 2^24 objects and the space 2^46: eight days at a hundred
//! million a second. At best, with slots used evenly, it lasts 2^52. Then a slab that needs an id is
//! refused with [`AllocError::HandlesExhausted`](crate::AllocError); objects without handles, and slabs
//! that have their ids, go on.

mod bits;
#[cfg(not(loom))]
mod ids;
#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod races;
mod tag;
mod tagged;
#[cfg(all(test, not(loom)))]
mod tests;

use core::fmt;

use bits::{Class, Generation, Id, Slot, Version};
#[cfg(not(loom))]
pub(crate) use ids::Ids;
pub(crate) use tag::{Abandoned, Ended, Finished, FreeWord, Unpinned};
pub(crate) use tagged::TaggedSlab;

/// A handle without a type: plain data that claims to name an object.
///
/// It can be copied, sent, stored and forged; looking it up decides. Zero is never valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RawHandle(u64);

impl RawHandle {
    /// The handle of a slot's tag, in whatever state.
    pub(crate) const fn of_word(word: FreeWord) -> Self {
        Self(word.0)
    }

    /// The handle that has these bits, whatever they are.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The id of the slab that it claims.
    #[must_use]
    pub const fn id(self) -> u32 {
        Id::of(self.0) as u32
    }

    /// The generation of the slot that it claims.
    #[must_use]
    pub const fn generation(self) -> u32 {
        Generation::of(self.0) as u32
    }

    /// The slot that it claims.
    #[must_use]
    pub const fn slot(self) -> usize {
        Slot::of(self.0) as usize
    }

    /// The index of the class that it claims.
    #[must_use]
    pub const fn class(self) -> usize {
        Class::of(self.0) as usize
    }

    /// Whether it is of this format at all.
    #[must_use]
    #[inline]
    pub const fn is_well_formed(self) -> bool {
        Version::of(self.0) == Version::V1 && Slot::of(self.0) < tagged::SLOTS as u64
    }
}

impl fmt::Debug for RawHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RawHandle(id {}, generation {}, slot {}, class {}, version {})",
            self.id(),
            self.generation(),
            self.slot(),
            self.class(),
            Version::of(self.0),
        )
    }
}

/// Why a handle was refused. The heap is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandleError {
    /// The bits are no handle: of another version, or with a slot or class that cannot be.
    Malformed,
    /// This heap never made it.
    Foreign,
    /// Its object was freed.
    Stale,
    /// Its object lives, but in another class than the handle claims.
    WrongClass,
    /// Others are reading the object: it cannot be taken, or be read by one more than 255.
    InUse,
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the bits are no handle of this format",
            Self::Foreign => "the handle was not made by this heap",
            Self::Stale => "the handle's object was freed already",
            Self::WrongClass => "the handle names a live object but claims another class for it",
            Self::InUse => "the object is being read: try again when its readers are gone",
        })
    }
}

impl core::error::Error for HandleError {}
