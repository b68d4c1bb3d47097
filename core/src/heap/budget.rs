//! How many bytes of empty slabs and bump blocks wait: in class lists' caches, and in the pool.
//!
//! `Relaxed` throughout: changed by read-modify-writes only, so it is exact at rest; nothing is ordered by it.

use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// On lines of its own: what is beside it is read on every slow path. `Relaxed`: see the head.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CacheBudget {
    all: AtomicUsize,
    /// The least that `all` was since somebody asked.
    least: AtomicUsize,
}

impl CacheBudget {
    pub(super) const fn new() -> Self {
        Self {
            all: AtomicUsize::new(0),
            least: AtomicUsize::new(0),
        }
    }

    /// Bytes that wait.
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Catches a bound that is passed, and a least that is not what it was.
    #[test]
    fn what_waits_is_bounded() {
        let budget = CacheBudget::new();
        assert!(budget.put(100, 100) && !budget.put(1, 100));
        budget.take(60);
        assert!(budget.put(30, 100));
        assert_eq!(budget.bytes(), 70);
        assert_eq!(
            (budget.least(), budget.least()),
            (0, 70),
            "it began with nothing"
        );
    }
}
