//! How many bytes of empty slabs wait in bins' caches.
//!
//! `all` is what waits there, and what seats took from there and have not told yet. `Relaxed` throughout: changed by
//! read-modify-writes only, so it is exact at rest; nothing is ordered by it.
//!
//! A CPU that has an epoch for each request takes slabs from a cache and puts them back, over and over. So that this
//! does not go through a line that all CPUs write, a seat keeps what it took in mind ([`Untold`]), up to a bound, and
//! what it puts back is set against that.

use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// On lines of its own: what is beside it is read on every slow path.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shelf {
    all: AtomicUsize,
    /// The least that `all` was since somebody asked.
    least: AtomicUsize,
}

impl Shelf {
    pub(super) const fn new() -> Self {
        Self {
            all: AtomicUsize::new(0),
            least: AtomicUsize::new(0),
        }
    }

    /// Bytes that wait, and those that were taken untold.
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

    /// The least that there were since this was asked last.
    pub(super) fn least(&self) -> usize {
        let now = self.all.load(Relaxed);
        self.least.swap(now, Relaxed).min(now)
    }
}

/// Bytes that a seat took from caches and has not told. The seat's owner alone changes it.
#[derive(Debug)]
pub(crate) struct Untold(AtomicUsize);

impl Untold {
    /// What a seat may keep in mind.
    const MOST: usize = 64 << 10;

    pub(crate) const fn nothing() -> Self {
        Self(AtomicUsize::new(0))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Keeps so many bytes in mind: how many are to be told now.
    pub(super) fn add(&self, bytes: usize) -> usize {
        let all = self.bytes() + bytes;
        let told = if all > Self::MOST { all } else { 0 };
        self.0.store(all - told, Relaxed);
        told
    }

    /// Sets what was put back against it, if it is so much.
    pub(super) fn settle(&self, bytes: usize) -> bool {
        let left = self.bytes().checked_sub(bytes);
        if let Some(left) = left {
            self.0.store(left, Relaxed);
        }
        left.is_some()
    }

    /// All of it, which is to be told now.
    pub(super) fn end(&self) -> usize {
        let all = self.bytes();
        self.0.store(0, Relaxed);
        all
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// What is put back is set against what was taken; more than the bound is told at once; the rest at the end.
    #[test]
    fn what_is_taken_and_put_back_cancels() {
        let (shelf, untold) = (Shelf::new(), Untold::nothing());
        assert!(shelf.put(4096, 8192) && shelf.put(4096, 8192) && !shelf.put(1, 8192));
        assert_eq!(untold.add(4096), 0);
        assert!(untold.settle(4096) && !untold.settle(1));
        assert_eq!((shelf.bytes(), untold.bytes()), (8192, 0));
        assert_eq!(untold.add(Untold::MOST), 0);
        assert_eq!(untold.add(1), Untold::MOST + 1);
        assert_eq!((untold.add(5), untold.end(), untold.bytes()), (0, 5, 0));
        shelf.take(4096);
        assert_eq!(
            (shelf.least(), shelf.least()),
            (0, 4096),
            "it began with nothing"
        );
    }
}
