//! The snapshot of a heap.

use super::{BlockStats, LocalsStats, LockStats, SharedPathStats, SlabStats, SlowPathStats, share};
use crate::error::{AllocError, FreeError};
use crate::handle::HandleError;
use crate::pages::PageStats;

/// A heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapStats {
    /// [`VERSION`](super::VERSION).
    pub version: u32,
    /// How many epochs there can be at a time.
    pub ring: u64,
    /// Epochs that accept allocations, the root epoch included.
    pub open_epochs: u64,
    /// Closed epochs of which something is left.
    pub closing_epochs: u64,
    /// Its locals.
    pub locals: LocalsStats,
    /// Where its resident bytes are.
    pub residency: Residency,
    /// What it has from its provider, and what it gave back.
    pub pages: PageStats,
    /// Its slabs, those of scopes left out.
    pub slabs: SlabStats,
    /// Bytes of live objects, as large as their classes and routes make them.
    pub live_bytes: u64,
    /// Bytes of emptied slabs that the cache had no room for, so far.
    pub overflowed_bytes: u64,
    /// Why the fast path was left.
    pub slow: SlowPathStats,
    /// Collisions on the shared path.
    pub shared: SharedPathStats,
    /// Its locks.
    pub locks: Locks,
    /// Objects that no class serves.
    pub large: LargeStats,
    /// Bump blocks, and what lies in them.
    pub blocks: BlockStats,
    /// Closes of epochs.
    pub closes: CloseStats,
    /// What was refused.
    pub errors: ErrorStats,
    /// Ids of slabs with handles.
    pub handle_ids: HandleIds,
}

impl HeapStats {
    /// Live objects of all kinds.
    #[must_use]
    pub const fn live_objects(&self) -> u64 {
        let slots = self.slabs.live_slots;
        slots.saturating_add(self.large.objects() + self.blocks.live_objects)
    }

    /// Of the resident bytes, the share that is not of live objects.
    #[must_use]
    pub fn waste(&self) -> f64 {
        let resident = self.pages.resident;
        share(resident.saturating_sub(self.live_bytes), resident)
    }
}

/// Ids of slabs with handles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandleIds {
    /// How many were given out.
    pub given: u64,
    /// How many there are.
    pub total: u64,
}

/// Where a heap's resident bytes are. At rest the parts are the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Residency {
    /// Live objects.
    pub live: u64,
    /// Slots that locals hold for their next allocations: [`Local::flush`](crate::Local::flush) gives them
    /// back.
    pub held: u64,
    /// Free slots between live ones: their slabs are pinned, and nothing but the end of those objects gives
    /// them back.
    pub pinned: u64,
    /// Empty slabs that stay open for the shared path; [`Heap::reclaim`](crate::Heap::reclaim) takes them.
    pub open: u64,
    /// Empty slabs in the depot's cache, ready for their epoch.
    pub cached: u64,
    /// Empty pages, ready for anyone.
    pub warm: u64,
    /// What remains of slabs behind their last slot, and slots that are retired.
    pub tails: u64,
    /// Slabs that scopes hold, whatever of them lives.
    pub scoped: u64,
    /// Metadata, the headers of chunks included.
    pub metadata: u64,
    /// Parts of pages beside parts that are in use.
    pub fragments: u64,
}

impl Residency {
    /// The parts, each with its name.
    #[must_use]
    pub const fn parts(&self) -> [(&'static str, u64); 10] {
        [
            ("live", self.live),
            ("held", self.held),
            ("pinned", self.pinned),
            ("open", self.open),
            ("cached", self.cached),
            ("warm", self.warm),
            ("tails", self.tails),
            ("scoped", self.scoped),
            ("metadata", self.metadata),
            ("fragments", self.fragments),
        ]
    }

    /// What [`Heap::reclaim`](crate::Heap::reclaim) would give back, or more: pages go back whole.
    #[must_use]
    pub const fn reclaimable(&self) -> u64 {
        self.open
            .saturating_add(self.cached)
            .saturating_add(self.warm)
    }
}

/// The heap's locks: none is taken on a fast path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Locks {
    /// Those of the lists, together.
    pub lists: LockStats,
    /// The pages'.
    pub pages: LockStats,
    /// The ring's.
    pub ring: LockStats,
    /// That of the list of locals.
    pub locals: LockStats,
}

impl Locks {
    /// All of them together.
    #[must_use]
    pub const fn all(&self) -> LockStats {
        let mut all = self.lists;
        all.add(&self.pages);
        all.add(&self.ring);
        all.add(&self.locals);
        all
    }
}

/// One way to serve objects that no class serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteStats {
    /// Allocations so far.
    pub allocated: u64,
    /// Frees so far.
    pub freed: u64,
    /// Bytes that are out.
    pub bytes: u64,
}

impl RouteStats {
    /// Objects that are out.
    #[must_use]
    pub const fn objects(&self) -> u64 {
        self.allocated.saturating_sub(self.freed)
    }
}

/// Objects that no class serves, by route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LargeStats {
    /// Runs of granules in a block.
    pub runs: RouteStats,
    /// Runs of whole blocks.
    pub long_runs: RouteStats,
    /// Regions of their own.
    pub regions: RouteStats,
}

impl LargeStats {
    /// Objects that are out.
    #[must_use]
    pub const fn objects(&self) -> u64 {
        self.runs
            .objects()
            .saturating_add(self.long_runs.objects())
            .saturating_add(self.regions.objects())
    }

    /// Their bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.runs
            .bytes
            .saturating_add(self.long_runs.bytes)
            .saturating_add(self.regions.bytes)
    }
}

/// Closes of epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseStats {
    /// How many there were.
    pub closes: u64,
    /// Slabs that they looked at.
    pub slabs_scanned: u64,
    /// Of these, slabs that they gave back.
    pub slabs_recycled: u64,
    /// The time that they took, if the provider has a clock.
    pub time_ns: u64,
}

/// What was refused, by kind. Each is an error that somebody got, but for the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorStats {
    /// Allocations, in the order of [`ErrorStats::ALLOC`].
    pub allocs: [u64; Self::ALLOC.len()],
    /// Frees, in the order of [`ErrorStats::FREE`].
    pub frees: [u64; 4],
    /// Handles, in the order of [`ErrorStats::HANDLE`]. Only asking for an object
    /// ([`Heap::get`](crate::Heap::get), [`Heap::try_get_raw`](crate::Heap::try_get_raw)) is no error.
    pub handles: [u64; 5],
    /// Slots that turned out, when words met, to have been freed twice.
    pub late_double_frees: u64,
}

impl ErrorStats {
    /// The kinds of refused allocations.
    pub const ALLOC: [(&'static str, AllocError); 6] = [
        ("out_of_memory", AllocError::OutOfMemory),
        ("limit", AllocError::Limit),
        ("too_large", AllocError::TooLarge),
        ("epoch_closed", AllocError::EpochClosed),
        ("handles_exhausted", AllocError::HandlesExhausted),
        ("other_heap", AllocError::OtherHeap),
    ];
    /// The kinds of refused frees.
    pub const FREE: [(&'static str, FreeError); 4] = [
        ("double_free", FreeError::DoubleFree),
        ("foreign", FreeError::Foreign),
        ("interior", FreeError::Interior),
        ("wrong_layout", FreeError::WrongLayout),
    ];
    /// The kinds of refused handles.
    pub const HANDLE: [(&'static str, HandleError); 5] = [
        ("malformed", HandleError::Malformed),
        ("foreign", HandleError::Foreign),
        ("stale", HandleError::Stale),
        ("wrong_class", HandleError::WrongClass),
        ("in_use", HandleError::InUse),
    ];

    /// What only a bug of the program can cause: frees that were refused, doubled frees that were found late, and
    /// handles that were never this heap's. A handle that is stale or in use is none: that is what handles are for.
    #[must_use]
    pub fn misuses(&self) -> u64 {
        let [malformed, foreign, _stale, wrong_class, _in_use] = self.handles;
        self.frees
            .iter()
            .chain(&[malformed, foreign, wrong_class])
            .fold(self.late_double_frees, |sum, n| sum.saturating_add(*n))
    }
}
