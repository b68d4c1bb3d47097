//! What the snapshots of classes, epochs, locals and the heap have in common.

use super::share;

/// Adds fields of one to those of the other.
macro_rules! add_fields {
    ($into:ident, $from:ident, $($field:ident),+) => {
        $($into.$field = $into.$field.saturating_add($from.$field);)+
    };
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

    /// Adds what another counted.
    pub const fn add(&mut self, other: &Self) {
        add_fields!(
            self,
            other,
            slabs,
            listed,
            whole,
            cached,
            slots,
            free_slots,
            held_slots,
            live_slots,
            made,
            recycled,
            cached_so_far,
            overflowed,
            full_to_partial,
            partial_to_full
        );
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

    /// Adds what another counted.
    pub const fn add(&mut self, other: &Self) {
        add_fields!(self, other, takes, retries, checks, switches, spread);
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

    /// Adds what another counted.
    pub const fn add(&mut self, other: &Self) {
        add_fields!(self, other, taken, contended);
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
