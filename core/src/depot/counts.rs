//! What has happened in a class list, counted where it costs nothing: under the class list's lock, or where the pages'
//! lock is taken anyway.

use super::ClassList;
use super::list::List;
use super::lists::{ListCounts, Lists, all_of};
use super::spread::SpreadCounts;
use crate::class::Class;
#[cfg(not(loom))]
use crate::error::AllocError;
use crate::slab::{Identity, Slab};
#[cfg(not(loom))]
use crate::snapshot::SlowPathStats;
#[cfg(not(loom))]
use crate::sync::AtomicU64;
use crate::sync::{LockCounts, Ordering::Relaxed};

/// All that a class list has counted. What every era counts is in the first line: CPUs whose epochs end add to it by turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct ClassListCounts {
    pub(crate) lists: ListCounts,
    /// Words that were given back by locals.
    pub(crate) given: u64,
    pub(crate) lock: LockCounts,
    /// Slabs that left the list of those with free slots.
    pub(crate) unlisted: u64,
    /// Slabs that were made for the class list.
    pub(crate) made: u64,
    /// Slabs whose memory went back to the pages.
    pub(crate) recycled: u64,
    pub(crate) spread: SpreadCounts,
}

/// What a class list holds, beside what is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stock {
    /// Slabs with free slots.
    pub(crate) listed: usize,
    /// Of these, those of which no slot is in use.
    pub(crate) whole: usize,
    /// Their free slots.
    pub(crate) free_slots: usize,
    /// Empty slabs in the cache.
    pub(crate) cached: usize,
    /// Slots that are out of use.
    pub(crate) retired: usize,
    /// The list changed under the count: these are estimates.
    pub(crate) is_cut: bool,
}

impl Stock {
    /// Adds another class list's.
    pub(crate) const fn add(&mut self, other: &Self) {
        self.listed += other.listed;
        self.whole += other.whole;
        self.free_slots += other.free_slots;
        self.cached += other.cached;
        self.retired += other.retired;
        self.is_cut |= other.is_cut;
    }
}

macro_rules! add_fields {
    ($into:expr, $from:expr, $($field:ident),+) => {
        // What stays as it is is not written: other CPUs may have its line.
        $(if $from.$field != 0 {
            $into.$field = $into.$field.wrapping_add($from.$field);
        })+
    };
}

impl ClassListCounts {
    /// Adds another class list's, or the same class list's of an earlier time.
    pub(crate) fn add(&mut self, other: &Self) {
        let (into, from) = (&mut self.lists, &other.lists);
        add_fields!(
            into, from, visits, taken, from_cache, cached, overflowed, listed
        );
        add_fields!(self, other, unlisted, made, recycled, given);
        let (into, from) = (&mut self.spread, &other.spread);
        add_fields!(into, from, checks, switches, takes, retries);
        let (into, from) = (&mut self.lock, &other.lock);
        add_fields!(into, from, taken, contended);
    }
}

impl ClassListCounts {
    /// Slabs that there are, of a class list or of all class lists.
    pub(crate) const fn slabs(&self) -> u64 {
        self.made.saturating_sub(self.recycled)
    }
}

impl<R: lock_api::RawMutex> ClassList<R> {
    /// What is neither live nor held by a local. Takes time with the slabs that are listed; looks at `most`
    /// of them for each visit to the lock, and goes on where it was: at the next of as many as there were at
    /// first. If the list changes meanwhile this is an estimate, and says so.
    pub(crate) fn stock(&self, class: &Class, most: usize) -> Stock {
        let mut stock = Stock::default();
        let mut at: Option<(&Slab, Identity)> = None;
        let (mut left, mut changes) = (usize::MAX, 0);
        loop {
            at = self.lists.with(|lists| {
                stock.cached = lists.cached.len();
                stock.retired = lists.retired as usize;
                let first = match at {
                    None => {
                        left = lists.partial.len();
                        changes = lists.partial.changes();
                        lists.partial.first()
                    }
                    // The identity first: the link of a slab of another class list is not ours to read.
                    // SAFETY: a slab of this identity is of this class list, whose lock is held.
                    Some((slab, life)) => unsafe {
                        stock.is_cut |= lists.partial.changes() != changes;
                        if slab.identity() != life || !List::contains_any(slab) {
                            return None;
                        }
                        slab
                    },
                };
                let mut next = first;
                for _ in 0..most.min(left) {
                    // SAFETY: this class list's lock is held, and listed slabs are valid.
                    let slab = unsafe { next.as_ref() }?;
                    let free = slab.free();
                    stock.listed += 1;
                    stock.free_slots += free.count_ones() as usize;
                    stock.whole += usize::from(free == all_of(slab, class));
                    // SAFETY: as above.
                    next = unsafe { slab.link() }.next;
                }
                left = left.saturating_sub(most);
                // SAFETY: as above.
                let next = unsafe { next.as_ref() }.filter(|_| left > 0);
                next.map(|slab| (slab, slab.identity()))
            });
            if at.is_none() {
                return stock;
            }
        }
    }

    /// Notes that a slab was made for the class list.
    pub(crate) fn count_made(&self) {
        self.made.fetch_add(1, Relaxed);
    }

    /// Notes that a slab's memory went back to the pages.
    pub(crate) fn count_recycled(&self) {
        self.recycled.fetch_add(1, Relaxed);
    }

    /// Notes that locals gave so many words back.
    pub(crate) fn count_given(&self, words: u64) {
        self.given.fetch_add(words, Relaxed);
    }

    /// What has happened here, and whether starts are spread now.
    pub(crate) fn counts(&self) -> (ClassListCounts, bool) {
        let counts = self.lists.with(|lists| self.counts_of(lists));
        (counts, self.spread.is_on())
    }

    /// What has happened here, which is counted anew from now on. Under the lock, and nothing is made here meanwhile.
    #[cfg(not(loom))]
    pub(super) fn take_counts(&self, lists: &mut Lists) -> ClassListCounts {
        let counts = ClassListCounts {
            // As they are, and not as `counts_of` mends them: what is taken here is missing there.
            made: self.made.swap(0, Relaxed),
            recycled: self.recycled.swap(0, Relaxed),
            given: self.given.swap(0, Relaxed),
            ..self.counts_of(lists)
        };
        self.lists.forget_counts();
        lists.counts = ListCounts {
            listed: lists.partial.len() as u64,
            ..ListCounts::NONE
        };
        lists.window.forget_counts();
        counts
    }

    fn counts_of(&self, lists: &Lists) -> ClassListCounts {
        let recycled = self.recycled.load(Relaxed);
        ClassListCounts {
            lists: lists.counts,
            unlisted: lists.counts.listed - lists.partial.len() as u64,
            // A slab was made before it was recycled, and read after.
            made: self.made.load(Relaxed).max(recycled),
            recycled,
            given: self.given.load(Relaxed),
            spread: lists.window.counts(),
            lock: self.lists.counts(),
        }
    }

    /// Counts slots of this class list's slabs that went out of use or, if negative, are none of its any more.
    #[cold]
    pub(crate) fn count_retired(&self, change: i32) {
        self.lists
            .with(|lists| lists.retired = lists.retired.saturating_add_signed(change));
    }
}

/// Allocations that were refused, by the kinds that a class or an epoch can tell. `Relaxed`: figures.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    closed: AtomicU64,
    limit: AtomicU64,
    memory: AtomicU64,
}

#[cfg(not(loom))]
impl Refusals {
    pub(crate) fn note(&self, error: AllocError) {
        let count = match error {
            AllocError::EpochClosed => &self.closed,
            AllocError::Limit => &self.limit,
            AllocError::OutOfMemory | AllocError::HandlesExhausted => &self.memory,
            AllocError::TooLarge | AllocError::OtherHeap => return,
        };
        count.fetch_add(1, Relaxed);
    }

    pub(crate) fn forget(&self) {
        for count in [&self.closed, &self.limit, &self.memory] {
            count.store(0, Relaxed);
        }
    }

    pub(crate) fn add_to(&self, slow: &mut SlowPathStats) {
        slow.epoch_closed += self.closed.load(Relaxed);
        slow.limit += self.limit.load(Relaxed);
        slow.out_of_memory += self.memory.load(Relaxed);
    }
}
