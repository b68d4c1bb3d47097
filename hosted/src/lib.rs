//! `temporal-slab` for programs that run on Linux.
//!
//! The allocator itself is in the crate [`temporal_slab`], which knows no operating system. What needs
//! one is here, in layers each of which uses only those above it:
//!
//! | layer | knows |
//! |---|---|
//! | `sys` | the system calls, and nothing else |
//! | [`rss`] | what the system says is resident |
//! | [`FutexLock`] | a lock that sleeps |
//! | [`SignalLock`] | a lock for heaps that signal handlers use |
//! | [`MmapProvider`] | pages: mapped, given back, made present, moved |
//! | [`Reclaimer`] | a thread that gives back what was not used for a while |
//! | `export` | with the feature of that name: statistics over HTTP or a Unix socket |
//! | [`TemporalSlab`] | the global allocator, its threads, forks, and the thread's current epoch |
//! | `TemporalSlab::write_origins` | with the feature `origins`: where sampled objects were allocated that outlive their phases |
//! | `task` | with the feature of that name: epochs of futures; with `tower`, of requests |
//!
//! One line puts a program on it:
//!
//! ```
//! #[global_allocator]
//! static GLOBAL: temporal_slab_hosted::TemporalSlab = temporal_slab_hosted::TemporalSlab;
//!
//! let mut numbers: Vec<u32> = (0..1000).collect();
//! numbers.sort_by_key(|n| n % 7);
//! assert_eq!(numbers.len(), 1000);
//! ```
#![cfg(target_os = "linux")]

mod sys;

pub mod rss;

mod lock;
mod signal_lock;

mod provider;

mod reclaimer;

#[cfg(feature = "export")]
pub mod export;

mod global;

#[cfg(feature = "task")]
pub mod task;

pub use global::{GlobalConfig, GlobalDomain, GlobalHeap, Phase, Routed, TemporalSlab};
pub use lock::FutexLock;
pub use provider::{MmapProvider, Purge};
pub use reclaimer::Reclaimer;
pub use signal_lock::SignalLock;
