//! What the snapshots of classes, epochs, locals and the heap have in common.

use super::share;

/// How often the fast path was left, and what for.
///
/// An allocation leaves it when neither a freed slot nor a current word is at hand: that is a *hit*, and each
/// hit is served from the local's stash or asks the depot. A free leaves it when the magazine is full: a
/// *spill*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowPathStats {
    /// Hits that found that there had never been a current word: the first use of a class by a local in an
    /// epoch, if it did not serve one before in the same place. The others found theirs used up.
    pub no_word: u64,
    /// Hits that a local served from its own stash.
    pub from_stash: u64,
    /// Hits that asked the depot, by locals and by the shared path.
    pub depot_visits: u64,
    /// Slabs that the depot had in its cache. One visit may take several.
    pub from_cache: u64,
    /// Visits that found nothing in the depot and made a slab from a chunk.
    pub new_slabs: u64,
    /// Allocations that were refused because the epoch was closed...
    pub epoch_closed: u64,
    /// ...because of the heap's byte limit...
    pub limit: u64,
    /// ...or because the provider had no memory, or no id was left for a handle.
    pub out_of_memory: u64,
    /// Frees that found the magazine full.
    pub spills: u64,
    /// Words that locals took from the depot.
    pub words_taken: u64,
    /// Words that locals gave back.
    pub words_given: u64,
}

impl SlowPathStats {
    /// Allocations that left the fast path.
    #[must_use]
    pub const fn hits(&self) -> u64 {
        self.from_stash.saturating_add(self.depot_visits)
    }

    /// Hits that found the current word used up. A difference, as [`SlowPathStats::from_depot`].
    #[must_use]
    pub const fn word_used_up(&self) -> u64 {
        self.hits().saturating_sub(self.no_word)
    }

    /// Visits to the depot that made no slab: they found slots there, or were refused. A difference, which may
    /// be less at a later reading.
    #[must_use]
    pub const fn from_depot(&self) -> u64 {
        self.depot_visits.saturating_sub(self.new_slabs)
    }

    /// Allocations that were refused.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.epoch_closed
            .saturating_add(self.limit)
            .saturating_add(self.out_of_memory)
    }

    /// The causes, each with its name and its count, which only grows. The first two are the hits; a visit to the
    /// depot may end with a new slab or a refusal.
    #[must_use]
    pub const fn causes(&self) -> [(&'static str, u64); 7] {
        [
            ("stash", self.from_stash),
            ("depot", self.depot_visits),
            ("new_slab", self.new_slabs),
            ("spill", self.spills),
            ("epoch_closed", self.epoch_closed),
            ("limit", self.limit),
            ("out_of_memory", self.out_of_memory),
        ]
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.no_word = self.no_word.saturating_add(other.no_word);
        self.from_stash = self.from_stash.saturating_add(other.from_stash);
        self.depot_visits = self.depot_visits.saturating_add(other.depot_visits);
        self.from_cache = self.from_cache.saturating_add(other.from_cache);
        self.new_slabs = self.new_slabs.saturating_add(other.new_slabs);
        self.epoch_closed = self.epoch_closed.saturating_add(other.epoch_closed);
        self.limit = self.limit.saturating_add(other.limit);
        self.out_of_memory = self.out_of_memory.saturating_add(other.out_of_memory);
        self.spills = self.spills.saturating_add(other.spills);
        self.words_taken = self.words_taken.saturating_add(other.words_taken);
        self.words_given = self.words_given.saturating_add(other.words_given);
    }
}

/// Slabs: how many there are, in which state, and what became of those that were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlabStats {
    /// Slabs that there are, those in the cache included.
    pub slabs: u64,
    /// Of these, those with free slots that are listed in the depot.
    pub listed: u64,
    /// Of the listed ones, those that are empty and stay open for the shared path's next allocation.
    pub whole: u64,
    /// Empty slabs in the depot's cache.
    pub cached: u64,
    /// Slots of all slabs but the cached ones.
    pub slots: u64,
    /// Slots that nobody holds.
    pub free_slots: u64,
    /// Slots that locals hold.
    pub held_slots: u64,
    /// Slots with live objects: the others. While the heap is used this is off by what came and went during
    /// the reading.
    pub live_slots: u64,
    /// Slabs that were made so far; of an epoch, those that it took over from one before it, too.
    pub made: u64,
    /// Slabs whose memory went back to the pages so far.
    pub recycled: u64,
    /// Emptied slabs that went into the cache so far.
    pub cached_so_far: u64,
    /// Emptied slabs that the cache had no room for.
    pub overflowed: u64,
    /// Moves into the list of slabs with free slots: a used up slab got a free slot, or a slab was opened.
    pub full_to_partial: u64,
    /// Moves out of that list: a slab's slots were taken, or it became empty.
    pub partial_to_full: u64,
    /// The list was changed while it was counted: what is free and what is live are estimates.
    pub is_cut: bool,
}

impl SlabStats {
    /// Of the slabs that were made, the share that was recycled since.
    #[must_use]
    pub fn recycle_rate(&self) -> f64 {
        share(self.recycled, self.made)
    }

    /// Slabs made less slabs recycled.
    #[must_use]
    pub const fn net_slabs(&self) -> u64 {
        self.made.saturating_sub(self.recycled)
    }

    /// Of the slots of slabs in use, the share that has no live object.
    #[must_use]
    pub fn fragmentation(&self) -> f64 {
        share(self.slots.saturating_sub(self.live_slots), self.slots)
    }

    /// Empty slabs: in the cache, or open for the shared path.
    #[must_use]
    pub const fn empty(&self) -> u64 {
        self.cached.saturating_add(self.whole)
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.slabs = self.slabs.saturating_add(other.slabs);
        self.listed = self.listed.saturating_add(other.listed);
        self.whole = self.whole.saturating_add(other.whole);
        self.cached = self.cached.saturating_add(other.cached);
        self.slots = self.slots.saturating_add(other.slots);
        self.free_slots = self.free_slots.saturating_add(other.free_slots);
        self.held_slots = self.held_slots.saturating_add(other.held_slots);
        self.live_slots = self.live_slots.saturating_add(other.live_slots);
        self.made = self.made.saturating_add(other.made);
        self.recycled = self.recycled.saturating_add(other.recycled);
        self.cached_so_far = self.cached_so_far.saturating_add(other.cached_so_far);
        self.overflowed = self.overflowed.saturating_add(other.overflowed);
        self.full_to_partial = self.full_to_partial.saturating_add(other.full_to_partial);
        self.partial_to_full = self.partial_to_full.saturating_add(other.partial_to_full);
        self.is_cut |= other.is_cut;
    }
}

/// How takes on the shared path collided, and what was done about it: where CPUs collide, each starts to look
/// for a slot at a place of its own.
///
/// A take is one read-modify-write that cannot fail but may find its bit gone: a *retry*. A give back is one
/// that never retries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedPathStats {
    /// Slots that were put before the shared path. One that is taken and given back over and over, while its slab
    /// stays where the shared path looks first, is counted once: a take costs one access, and counting it would
    /// cost another.
    pub takes: u64,
    /// Takes that found their bit gone.
    pub retries: u64,
    /// Windows of takes that were judged.
    pub checks: u64,
    /// Changes between sequential starts and starts spread by CPU.
    pub switches: u64,
    /// Lists whose starts are spread now.
    pub spread: u64,
}

impl SharedPathStats {
    /// Retries for each slot that was put before the shared path: the rate of takes that collide, or more.
    #[must_use]
    pub fn retry_rate(&self) -> f64 {
        share(self.retries, self.takes)
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.takes = self.takes.saturating_add(other.takes);
        self.retries = self.retries.saturating_add(other.retries);
        self.checks = self.checks.saturating_add(other.checks);
        self.switches = self.switches.saturating_add(other.switches);
        self.spread = self.spread.saturating_add(other.spread);
    }
}

/// How often a lock was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockStats {
    /// Times that it was taken.
    pub taken: u64,
    /// Of these, times that somebody else had it at first.
    pub contended: u64,
}

impl LockStats {
    /// The share that had to wait.
    #[must_use]
    pub fn contention(&self) -> f64 {
        share(self.contended, self.taken)
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.taken = self.taken.saturating_add(other.taken);
        self.contended = self.contended.saturating_add(other.contended);
    }
}

/// Bump blocks: of an epoch, or of all and of none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockStats {
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that live in them.
    pub live_objects: u64,
    /// How many bytes these have: in an unchecked heap about, as many as an object has in the mean.
    pub live_bytes: u64,
    /// What else there is of blocks in which anything lives.
    pub pinned_bytes: u64,
}
