//! What can be seen of a heap, as plain data.
//!
//! Principles:
//! - A snapshot is numbers and nothing else: it can be copied, sent and kept, and what is derived from it
//!   is computed in it. Every struct is part of one format, whose number is [`VERSION`].
//! - Numbers of things that there are (slabs, objects, bytes) are as of the reading; numbers of things that
//!   happened only grow. At rest both are exact, and agree with the walker. While the heap is used each is
//!   true of some moment during the reading, and a sum may be of different moments; a field that can be off by
//!   more says so. No difference is ever negative: where two readings disagree it is 0.
//! - This layer computes. Who counts is the layers below it, where it costs nothing.

mod epoch;
mod heap;
mod parts;
mod sizes;
mod slow_path;

pub use crate::pages::PageStats;
pub use epoch::{ClassStats, EpochStats, HeldInClosed, LastClose, LocalStats, LocalsStats};
pub use heap::{
    CloseStats, ErrorStats, HandleIds, HeapStats, LargeStats, Locks, Residency, RouteStats,
};
pub use parts::{BlockStats, LockStats, SharedPathStats, SlabStats};
pub use sizes::SizeCounts;
pub(crate) use slow_path::SlowPathCounters;
pub use slow_path::{Counter, SlowPathStats};

/// The version of the snapshots' format, and of every encoding of it.
pub const VERSION: u32 = 1;

/// `part` of `whole`, from 0 to 1; 0 of nothing.
#[must_use]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        (part as f64 / whole as f64).min(1.0)
    }
}
