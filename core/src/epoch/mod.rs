//! Epochs: a position in a ring and an era that never repeats.
//!
//! Principles:
//! - A token names one era for good. When its era is over, it is an error and never somebody else's.
//! - The arithmetic of eras is in [`Epoch`] and [`Tag`]; nobody else shifts or compares bits.
//! - This layer keeps the ring's books. It does not know pages or slabs; what an epoch's memory is
//!   doing it is told by the heap.
//!
//! # States of a position
//!
//! *free* (never used, or its epoch has no live object left) -> *active* (allocation) -> *closing*
//! (no allocation; live objects stay valid) -> free. A free position is *claimed* by one compare-and-swap of `open`, and is its thread's
//! until that opens it; an active one is closed by another. Only what has to do with depots is under the ring's lock: an epoch gets one there,
//! and loses it, so a position that has one is claimed there. What else is known of an epoch, its record, is under this lock, too. It
//! begins anew when it is first asked for in a new era.
//!
//! # Orderings
//!
//! `open` is the era in which a position accepts allocations, or 0. It is read `Relaxed` on each
//! allocation that names an epoch, as a hint that is right for whoever was told of the close. What
//! decides is the depot's [`Tag`], read after the allocation holds a slot of it; see `depot::EpochDepot`. That it ends is `SeqCst`: it pairs
//! with the count of pins (`Position::pin`), and with the depot that an epoch gets (`Position::close_at_once`). That it begins is `Release`:
//! who finds an era open finds its number in the position.
//! `depot` is stored with `Release` when an epoch first needs one and read with `Acquire`: the reader sees
//! a placed depot.

mod label;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod positions;
mod ring;

use crate::sync::{AtomicU64, Ordering};
use core::fmt;
use core::num::NonZeroU64;

pub use label::Label;
#[cfg(not(loom))]
pub(crate) use positions::Positions;
pub(crate) use ring::{AtOnce, Books, Openings, Pin, Position};

/// A token for an epoch of a heap.
///
/// It is plain data: copying or keeping one pins nothing. Using it after its epoch was closed is an
/// error by name, however often the position was used since.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    index: u32,
    era: NonZeroU64,
}

/// Eras are below this, so that a tag has room for one, and a position can say that it is claimed. One in each nanosecond takes three
/// centuries.
const ERAS: u64 = 1 << 63;

impl Epoch {
    pub(crate) const fn new(index: u32, era: NonZeroU64) -> Self {
        Self { index, era }
    }

    /// A token from its parts, for languages that keep tokens as numbers. Any parts may be asked for: a token that names
    /// no epoch is one of an epoch that is over, and there is none of an era that no epoch can have.
    #[must_use]
    pub const fn from_parts(index: u32, era: u64) -> Option<Self> {
        match NonZeroU64::new(era) {
            Some(era) if era.get() < ERAS => Some(Self { index, era }),
            _ => None,
        }
    }

    /// The position in the ring.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The era. No two epochs of a heap have the same.
    #[must_use]
    pub const fn era(self) -> u64 {
        self.era.get()
    }
}

impl Epoch {
    /// What the depot of this epoch says while it accepts allocations.
    #[inline]
    pub(crate) const fn tag(self) -> Tag {
        Tag::open(self.era)
    }

    pub(crate) const fn era_id(self) -> NonZeroU64 {
        self.era
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({}, era {})", self.index, self.era)
    }
}

/// What a depot serves: `era << 1 | open`. Zero: nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag(u64);

impl Tag {
    /// The root epoch's: the first era, which is never closed.
    pub(crate) const ROOT: Self = Self::open(NonZeroU64::MIN);

    pub(crate) const fn open(era: NonZeroU64) -> Self {
        Self(era.get() << 1 | 1)
    }
    pub(crate) const fn closed(self) -> Self {
        Self(self.0 & !1)
    }
    pub(crate) const fn is_open(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The tag of a depot, which changes under the pages' lock.
///
/// `Relaxed` throughout. Whoever decides by it holds a slot of the depot, which it took with `Acquire`
/// from slabs that were made when the depot began to serve; or it holds the lock.
#[derive(Debug)]
pub(crate) struct Serves(AtomicU64);

impl Serves {
    /// Nothing yet.
    pub(crate) fn nothing() -> Self {
        Self(AtomicU64::new(0))
    }
    /// This.
    pub(crate) fn tag(tag: Tag) -> Self {
        Self(AtomicU64::new(tag.0))
    }
    #[inline]
    pub(crate) fn get(&self) -> Tag {
        Tag(self.0.load(Ordering::Relaxed))
    }
    pub(crate) fn set(&self, tag: Tag) {
        self.0.store(tag.0, Ordering::Relaxed);
    }
}

/// What an epoch is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EpochState {
    /// It accepts allocations.
    Active,
    /// It accepts none. Its live objects are valid, and what empties is given back.
    Closing,
}

/// Why an epoch could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EpochError {
    /// The token's epoch is over, or closed where an open one is needed.
    Closed,
    /// Every position of the ring has live objects or is open: close epochs, or free what they hold.
    RingFull,
    /// The root epoch is immortal.
    Immortal,
    /// There was no memory for the ring or the epoch's lists.
    OutOfMemory,
    /// The domain is over another heap.
    OtherHeap,
}

impl fmt::Display for EpochError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the epoch is closed: its token must not be used any more",
            Self::RingFull => {
                "every position of the ring is open or has live objects: close epochs \
                               or free what is in them, or use a longer ring"
            }
            Self::Immortal => "the root epoch cannot be closed",
            Self::OutOfMemory => "no memory for the epoch's lists",
            Self::OtherHeap => "the domain is over another heap",
        })
    }
}

impl core::error::Error for EpochError {}
