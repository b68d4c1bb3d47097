//! Snapshots of one class, one epoch, one local.

use super::{BlockStats, LockStats, SharedPathStats, SizeCounts, SlabStats, SlowPathStats, share};
use crate::epoch::{Epoch, EpochState, Label};

/// A class, over all epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// [`VERSION`](super::VERSION).
    pub version: u32,
    /// Its index in the heap's table.
    pub index: usize,
    /// Bytes of an object.
    pub size: usize,
    /// Whether its objects have handles.
    pub has_handles: bool,
    /// Slots of a slab.
    pub slots_per_slab: usize,
    /// Bytes of a slab.
    pub slab_bytes: usize,
    /// Its slabs.
    pub slabs: SlabStats,
    /// Why the fast path was left.
    pub slow: SlowPathStats,
    /// Collisions on the shared path.
    pub shared: SharedPathStats,
    /// The locks of its lists.
    pub lock: LockStats,
}

impl ClassStats {
    /// Bytes of live objects, as large as the class makes them.
    #[must_use]
    pub const fn live_bytes(&self) -> u64 {
        self.slabs.live_slots.saturating_mul(self.size as u64)
    }

    /// Bytes of its slabs.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.slabs.slabs.saturating_mul(self.slab_bytes as u64)
    }
}

/// An epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EpochStats {
    /// [`VERSION`](super::VERSION).
    pub version: u32,
    /// Its token.
    pub epoch: Epoch,
    /// What it is doing.
    pub state: EpochState,
    /// Whether it is the one that is current.
    pub is_current: bool,
    /// What it was called.
    pub label: Label,
    /// When it was opened, by the provider's clock, if it has one...
    pub opened_at_ns: Option<u64>,
    /// ...and how long ago that was.
    pub age_ns: Option<u64>,
    /// Domains that are inside.
    pub domains: u32,
    /// Epochs that were opened after it.
    pub younger: u64,
    /// Bytes that it holds: of its slabs, the cached ones included, and of its large objects.
    pub bytes: u64,
    /// Bytes of its live objects, as large as their classes make them.
    pub live_bytes: u64,
    /// Live objects that no class serves.
    pub large_objects: u64,
    /// Their bytes.
    pub large_bytes: u64,
    /// Its slabs.
    pub slabs: SlabStats,
    /// Free slots of slabs that live objects keep...
    pub pinned_slots: u64,
    /// ...and their bytes.
    pub pinned_bytes: u64,
    /// Why the fast path was left.
    pub slow: SlowPathStats,
    /// Collisions on the shared path.
    pub shared: SharedPathStats,
    /// The locks of its lists.
    pub lock: LockStats,
    /// Resident bytes before and after the last close: of the process, if the provider knows, else of the
    /// heap, as accounted.
    pub last_close: Option<LastClose>,
    /// Its bump blocks, and what lies in them: also in `bytes`, `live_bytes` and `pinned_bytes`.
    pub blocks: BlockStats,
    /// Its live objects in slabs that are shared by epochs...
    pub mixed_objects: u64,
    /// ...and their bytes: also in `bytes` and `live_bytes`.
    pub mixed_bytes: u64,
    /// All its live objects by size.
    pub sizes: SizeCounts,
}

impl EpochStats {
    /// Objects that were allocated and not freed.
    #[must_use]
    pub const fn live_objects(&self) -> u64 {
        let slots = self.slabs.live_slots.saturating_add(self.mixed_objects);
        slots.saturating_add(self.large_objects + self.blocks.live_objects)
    }

    /// Of the bytes that it holds, the share that is not of live objects.
    #[must_use]
    pub fn waste(&self) -> f64 {
        share(self.bytes.saturating_sub(self.live_bytes), self.bytes)
    }

    /// Whether it accepts allocations.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == EpochState::Active
    }
}

/// A local.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalStats {
    /// [`VERSION`](super::VERSION).
    pub version: u32,
    /// Its number: locals of a heap are counted from 1 as they are made.
    pub number: u64,
    /// Epochs that it serves.
    pub epochs: u64,
    /// Of these, those that were closed since; it leaves them at its next slow path.
    pub closed_epochs: u64,
    /// Slots that it holds.
    pub held_slots: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// Of these bytes, those in closed epochs.
    pub held_in_closed_bytes: u64,
    /// Why it left its fast path.
    pub slow: SlowPathStats,
}

/// All locals of a heap together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalsStats {
    /// How many there are.
    pub locals: u64,
    /// Epochs that they serve, each counted for each of them.
    pub epoch_caches: u64,
    /// Of these, epochs that were closed since.
    pub closed_epoch_caches: u64,
    /// Bytes of the slots that they hold.
    pub held_bytes: u64,
    /// Of these, in closed epochs.
    pub held_in_closed_bytes: u64,
    /// The number of the local that holds the most in one closed epoch, and how many bytes.
    pub most_held_in_closed: HeldInClosed,
}

/// Resident bytes around the close of an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastClose {
    /// Before it.
    pub resident_before: u64,
    /// After it.
    pub resident_after: u64,
}

/// What a local holds in closed epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldInClosed {
    /// The local's number.
    pub local: u64,
    /// Bytes that it holds.
    pub bytes: u64,
}
