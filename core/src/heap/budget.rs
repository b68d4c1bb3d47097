//! How many bytes of empty slabs wait in bins' caches.
//!
//! `all` is what waits there, and what epoch caches took from there and have pending debits for. `Relaxed` throughout:
//! changed by read-modify-writes only, so it is exact at rest; nothing is ordered by it.
//!
//! A CPU that has an epoch for each request takes slabs from a cache and puts them back, over and over. So that this
//! does not go through a line that all CPUs write for each slab, an epoch cache keeps a debit pending
//! ([`PendingDebit`]), and what it puts back is set against that. For this it asks for room once, and all epoch caches' room is at most a quarter of
//! the policy's bound: so much less may wait while they have it.

use crate::sync::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// On lines of its own: what is beside it is read on every slow path. `Relaxed`: see the head.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CacheBudget {
    all: AtomicUsize,
    /// The least that `all` was since somebody asked.
    least: AtomicUsize,
    /// What epoch caches may keep pending, in all.
    room: AtomicUsize,
}

impl CacheBudget {
    pub(super) const fn new() -> Self {
        Self {
            all: AtomicUsize::new(0),
            least: AtomicUsize::new(0),
            room: AtomicUsize::new(0),
        }
    }

    /// Bytes that wait, and those that were taken with a debit pending.
    pub(super) fn bytes(&self) -> usize {
        self.all.load(Relaxed)
    }

    /// So many bytes more, unless that is more than `bound`.
    pub(super) fn put(&self, bytes: usize, bound: usize) -> bool {
        let before = self.all.fetch_add(bytes, Relaxed);
        let fits = before + bytes <= bound;
        if !fits {
            self.all.fetch_sub(bytes, Relaxed);
        }
        fits
    }

    /// So many bytes were taken.
    pub(super) fn take(&self, bytes: usize) {
        let before = self.all.fetch_sub(bytes, Relaxed);
        self.least.fetch_min(before - bytes, Relaxed);
    }

    /// Room for an epoch cache, if all of it stays below a quarter of `bound`.
    fn lend_room(&self, bound: usize) -> bool {
        let before = self.room.fetch_add(PendingDebit::ROOM, Relaxed);
        let fits = before + PendingDebit::ROOM <= bound / 4;
        if !fits {
            self.take_room();
        }
        fits
    }

    fn take_room(&self) {
        self.room.fetch_sub(PendingDebit::ROOM, Relaxed);
    }

    /// The least that there were since this was asked last.
    pub(super) fn least(&self) -> usize {
        let now = self.all.load(Relaxed);
        self.least.swap(now, Relaxed).min(now)
    }
}

/// Bytes that an epoch cache took from caches and has not debited. The epoch cache's owner alone changes it: `Relaxed`.
#[derive(Debug)]
pub(crate) struct PendingDebit {
    bytes: AtomicUsize,
    has_room: AtomicBool,
}

impl PendingDebit {
    /// What an epoch cache may keep pending.
    const ROOM: usize = 64 << 10;

    pub(crate) const fn none() -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            has_room: AtomicBool::new(false),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// The epoch cache took so many bytes from caches whose bound is `bound`.
    pub(super) fn add(&self, bytes: usize, budget: &CacheBudget, bound: usize) {
        if !self.has_room.load(Relaxed) {
            if !budget.lend_room(bound) {
                budget.take(bytes);
                return;
            }
            self.has_room.store(true, Relaxed);
        }
        let all = self.bytes() + bytes;
        let due = if all > Self::ROOM { all } else { 0 };
        self.bytes.store(all - due, Relaxed);
        if due > 0 {
            budget.take(due);
        }
    }

    /// Sets what was put back against it, if it is so much.
    pub(super) fn settle(&self, bytes: usize) -> bool {
        let left = self.bytes().checked_sub(bytes);
        if let Some(left) = left {
            self.bytes.store(left, Relaxed);
        }
        left.is_some()
    }

    /// The epoch cache is given up: what it took and did not put back is debited.
    pub(super) fn end(&self, budget: &CacheBudget) {
        let due = self.bytes();
        self.bytes.store(0, Relaxed);
        if due > 0 {
            budget.take(due);
        }
        if self.has_room.load(Relaxed) {
            self.has_room.store(false, Relaxed);
            budget.take_room();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// What is put back is set against what was taken; more than the room is due at once, and the rest at the end.
    #[test]
    fn what_is_taken_and_put_back_cancels() {
        let (budget, debit) = (CacheBudget::new(), PendingDebit::none());
        let bound = 8 * PendingDebit::ROOM;
        assert!(budget.put(bound, bound) && !budget.put(1, bound));
        debit.add(4096, &budget, bound);
        assert_eq!((budget.bytes(), debit.bytes()), (bound, 4096));
        assert!(debit.settle(4096) && !debit.settle(1));
        debit.add(PendingDebit::ROOM, &budget, bound);
        assert_eq!((budget.bytes(), debit.bytes()), (bound, PendingDebit::ROOM));
        debit.add(1, &budget, bound);
        let left = bound - PendingDebit::ROOM - 1;
        assert_eq!((budget.bytes(), debit.bytes()), (left, 0));
        debit.add(5, &budget, bound);
        debit.end(&budget);
        assert_eq!((budget.bytes(), debit.bytes()), (left - 5, 0));
        assert_eq!(
            (budget.least(), budget.least()),
            (0, left - 5),
            "it began with nothing"
        );
    }

    /// A quarter of the bound is room for epoch caches: the third of them debits at once, and has room when another ends.
    #[test]
    fn room_is_bounded() {
        let (budget, bound) = (CacheBudget::new(), 8 * PendingDebit::ROOM);
        assert!(budget.put(bound, bound));
        let caches = [
            PendingDebit::none(),
            PendingDebit::none(),
            PendingDebit::none(),
        ];
        caches
            .iter()
            .for_each(|cache| cache.add(100, &budget, bound));
        assert_eq!((caches[2].bytes(), budget.bytes()), (0, bound - 100));
        caches[0].end(&budget);
        caches[2].add(100, &budget, bound);
        assert_eq!(caches[2].bytes(), 100);
        caches.iter().for_each(|cache| cache.end(&budget));
        assert_eq!(
            (budget.bytes(), budget.room.load(Relaxed)),
            (bound - 400, 0)
        );
    }
}
