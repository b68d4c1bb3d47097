//! How many objects of a bump block live, between its owner and the others that free in it.
//!
//! # Invariant
//!
//! With `made` objects laid, `own` of them freed by the owner and `others` by others,
//!
//! ```text
//! owned:  shared = OWNED - others          live = made - own - others
//! left:   shared = live, or OWNED still if its owner left it empty
//! ```
//!
//! The owner counts `made - own` by itself, without atomics, and adds it when it leaves. So `shared` becomes 0 once: by the
//! owner's leave, if nothing lives then, or by the free of the last object after it. The thread that makes it 0 has the block.
//!
//! # Orderings
//!
//! `leave` and `free` are `AcqRel`: what the owner and each freer did with its objects happens before the block is used again, by
//! the thread that made the count 0 (all changes are read-modify-writes, so each continues the release sequences of those before).
//! `others` is `Acquire`, for the owner that finds all its objects dead and lays new ones over them; it pairs with the `Release`
//! of `free`. `begin` is `Relaxed`: nobody else has an object of the block.

use crate::sync::{AtomicU64, Ordering};

/// The shared count of a block. Orderings: see the head.
#[derive(Debug)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// More than a block has objects.
    const OWNED: u64 = 1 << 32;

    /// Of a block that is owned and has no objects.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Self::OWNED))
    }

    /// The block is owned from now on, and has no objects.
    #[inline]
    pub(crate) fn begin(&self) {
        self.0.store(Self::OWNED, Ordering::Relaxed);
    }

    /// How many objects others freed since it began. For the owner.
    #[inline]
    pub(crate) fn others(&self) -> u64 {
        Self::OWNED.wrapping_sub(self.0.load(Ordering::Acquire))
    }

    /// The owner leaves, by whose count so many objects live. Whether none does: the caller then has the block.
    #[inline]
    #[must_use]
    pub(crate) fn leave(&self, live: u64) -> bool {
        let less = Self::OWNED - live;
        self.0.fetch_sub(less, Ordering::AcqRel) == less
    }

    /// One who is not the owner freed so many objects. Whether nothing lives in a block that was left: the caller then has it.
    #[inline]
    #[must_use]
    pub(crate) fn free(&self, objects: u64) -> bool {
        self.0.fetch_sub(objects, Ordering::AcqRel) == objects
    }

    /// How many objects live, where so many do by the owner's count, if there is an owner. True at rest.
    #[cfg(not(loom))]
    pub(crate) fn live(&self, is_owned: bool, by_owner: u64) -> u64 {
        let shared = self.0.load(Ordering::Relaxed);
        if is_owned {
            by_owner.saturating_sub(Self::OWNED.wrapping_sub(shared))
        } else {
            // One that its owner left empty still says that it is owned.
            shared % Self::OWNED
        }
    }
}
