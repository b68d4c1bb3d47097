//! How long allocations take, by choice: one in so many is timed and counted under what it had to do.
//!
//! Whoever does not ask for it pays nothing: a [`Sampler`] stands before a local, and where there is none the local
//! is as it was. A histogram has a fixed size and takes no memory.

use core::alloc::Layout;
use core::fmt;
use core::num::NonZeroU32;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use temporal_slab::AllocError;
use temporal_slab::Local;
use temporal_slab::config::Config;
use temporal_slab::provider::PageProvider;

/// What an allocation had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Nothing: the slot was at hand.
    Fast,
    /// Take a word of its local's stash.
    Stash,
    /// Ask the depot.
    Depot,
    /// Make a slab.
    NewSlab,
    /// Get a chunk from the provider, or wait while another thread did: this is told by the heap's count.
    NewChunk,
    /// Find room for an object that no class serves.
    Large,
    /// Fail.
    Refused,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Fast,
        Self::Stash,
        Self::Depot,
        Self::NewSlab,
        Self::NewChunk,
        Self::Large,
        Self::Refused,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Stash => "stash",
            Self::Depot => "depot",
            Self::NewSlab => "new_slab",
            Self::NewChunk => "new_chunk",
            Self::Large => "large",
            Self::Refused => "refused",
        }
    }
}

/// Buckets for each doubling.
const STEPS: u64 = 8;
const STEPS_LOG2: u32 = STEPS.ilog2();
/// Times from 2^36 ns, more than a minute, on are in the last bucket.
const DOUBLINGS: u32 = 36;
const BUCKETS: usize = ((DOUBLINGS - STEPS_LOG2) as u64 * STEPS + STEPS) as usize;

/// Times in buckets that are an eighth of their beginning wide, or 1 ns. `Relaxed`: figures.
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    longest: AtomicU64,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            longest: AtomicU64::new(0),
        }
    }

    /// Counts a time.
    pub fn record(&self, ns: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(ns)) {
            bucket.fetch_add(1, Relaxed);
        }
        // The clock is somebody else's, and a sum does not wrap whatever it says.
        let add = |sum: u64| Some(sum.saturating_add(ns));
        let _added = self.sum.fetch_update(Relaxed, Relaxed, add);
        self.longest.fetch_max(ns, Relaxed);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Their sum.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// The longest.
    #[must_use]
    pub fn longest_ns(&self) -> u64 {
        self.longest.load(Relaxed)
    }

    /// The time that a share of them, from 0 to 1, did not exceed: the end of its bucket, so up to an eighth too
    /// much; of more than a minute, the longest. 0 if none was counted.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let rank = (self.count() as f64 * share) as u64;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen > rank || (seen == rank && seen > 0) {
                return end_of(index).min(self.longest_ns());
            }
        }
        self.longest_ns()
    }

    /// How many took less than `ns`, which is to be a power of two from 8 on.
    pub(super) fn below(&self, ns: u64) -> u64 {
        let end = bucket_of(ns);
        self.buckets
            .iter()
            .take(end)
            .map(|bucket| bucket.load(Relaxed))
            .sum()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &self.quantile_ns(0.5))
            .field("p99", &self.quantile_ns(0.99))
            .field("longest", &self.longest_ns())
            .finish_non_exhaustive()
    }
}

/// The bucket of a time: `[log2 - STEPS_LOG2 + 1 | the next bits]`, and one for each of the first times.
fn bucket_of(ns: u64) -> usize {
    let Some(log2) = ns.checked_ilog2().filter(|log2| *log2 >= STEPS_LOG2) else {
        return ns as usize;
    };
    let step = (ns >> (log2 - STEPS_LOG2)) - STEPS;
    let bucket = u64::from(log2 - STEPS_LOG2 + 1) * STEPS + step;
    (bucket as usize).min(BUCKETS - 1)
}

/// The longest time of a bucket.
fn end_of(bucket: usize) -> u64 {
    let (doubling, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if bucket == BUCKETS - 1 {
        return u64::MAX;
    }
    match doubling.checked_sub(1) {
        None => bucket as u64,
        Some(shift) => ((STEPS + step + 1) << shift) - 1,
    }
}

/// A histogram for each cause. About 16 KiB; it can be a `static`.
#[derive(Debug)]
pub struct Latency {
    by_cause: [Histogram; Cause::ALL.len()],
}

impl Latency {
    /// Empty ones.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            by_cause: [const { Histogram::new() }; Cause::ALL.len()],
        }
    }

    /// The times of allocations that had to do this.
    #[must_use]
    pub fn of(&self, cause: Cause) -> &Histogram {
        &self.by_cause[cause as usize]
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

/// Times one in so many allocations through a local. For one thread; the histograms may be everyone's.
#[derive(Debug)]
pub struct Sampler<'l> {
    latency: &'l Latency,
    every: NonZeroU32,
    left: u32,
}

impl<'l> Sampler<'l> {
    /// Times the first allocation, and then every `every`th.
    #[must_use]
    pub const fn new(latency: &'l Latency, every: NonZeroU32) -> Self {
        Self {
            latency,
            every,
            left: 0,
        }
    }

    /// Allocates, in the root epoch. Nothing is timed where the provider has no clock.
    ///
    /// # Errors
    /// As for [`Local::alloc`].
    #[inline]
    pub fn alloc<C: Config>(
        &mut self,
        local: &mut Local<'_, C>,
        layout: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        if self.is_due() {
            self.timed(local, layout, |local| local.alloc(layout))
        } else {
            local.alloc(layout)
        }
    }

    /// Whether the next allocation is to be timed; counts it.
    #[inline]
    pub const fn is_due(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.left = self.every.get() - 1;
        true
    }

    /// Times an allocation of this layout by `alloc`.
    ///
    /// # Errors
    /// Those of `alloc`.
    #[cold]
    #[inline(never)]
    pub fn timed<'h, C: Config>(
        &self,
        local: &mut Local<'h, C>,
        layout: Layout,
        alloc: impl FnOnce(&mut Local<'h, C>) -> Result<NonNull<u8>, AllocError>,
    ) -> Result<NonNull<u8>, AllocError> {
        let heap = local.heap();
        let (slow, chunks) = (local.slow_paths(), heap.chunks_acquired());
        let begin = heap.provider().now_ns();
        let object = alloc(local);
        let end = heap.provider().now_ns();
        if let Some((begin, end)) = begin.zip(end) {
            let now = local.slow_paths();
            let cause = if object.is_err() {
                Cause::Refused
            } else if heap.class_of(layout).is_none() {
                Cause::Large
            } else if heap.chunks_acquired() != chunks {
                Cause::NewChunk
            } else if now.new_slabs != slow.new_slabs {
                Cause::NewSlab
            } else if now.depot_visits != slow.depot_visits {
                Cause::Depot
            } else if now.from_stash != slow.from_stash {
                Cause::Stash
            } else {
                Cause::Fast
            };
            self.latency.of(cause).record(end.saturating_sub(begin));
        }
        object
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    /// Catches a gap or an overlap between buckets, and one that is wider than promised.
    #[test]
    fn buckets_follow_each_other() {
        let mut begin = 0;
        for bucket in 0..BUCKETS - 1 {
            let end = end_of(bucket);
            assert_eq!((bucket_of(begin), bucket_of(end)), (bucket, bucket));
            assert!(end - begin <= begin / STEPS, "{begin} to {end}");
            begin = end + 1;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(begin, (STEPS + 7) << (DOUBLINGS - STEPS_LOG2 - 1));
    }

    /// Catches a quantile that is off by more than a bucket, against sorting.
    #[test]
    fn quantiles_agree_with_sorting() {
        let histogram = Histogram::new();
        assert_eq!((histogram.quantile_ns(0.5), histogram.count()), (0, 0));
        let mut times: Vec<u64> = (0..10_000u64).map(|n| (n * 7919) % 100_003).collect();
        times.iter().for_each(|ns| histogram.record(*ns));
        times.sort_unstable();
        for share in [0.0, 0.01, 0.5, 0.9, 0.99, 0.999] {
            let exact = times[(times.len() as f64 * share) as usize];
            let found = histogram.quantile_ns(share);
            assert!(
                found >= exact && found <= exact + exact / 8 + 1,
                "{share}: {exact}, {found}"
            );
        }
        assert_eq!(histogram.quantile_ns(1.0), times[9999]);
        assert_eq!(
            histogram.below(1024),
            times.iter().filter(|ns| **ns < 1024).count() as u64
        );
        assert_eq!(histogram.sum_ns(), times.iter().sum());
    }

    /// A clock that jumps. Found when the encoders were to be fuzzed: the sum wrapped, and no share of times took
    /// longer than a minute.
    #[test]
    fn times_beyond_all_buckets() {
        let histogram = Histogram::new();
        histogram.record(1);
        histogram.record(u64::MAX - 1);
        assert_eq!(histogram.sum_ns(), u64::MAX);
        histogram.record(u64::MAX - 1);
        assert_eq!(histogram.sum_ns(), u64::MAX);
        assert_eq!(histogram.quantile_ns(0.9), u64::MAX - 1);
        assert_eq!(histogram.quantile_ns(0.1), 1);
    }
}
