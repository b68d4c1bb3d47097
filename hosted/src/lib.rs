//! `temporal-slab` for programs that run on Linux.
//!
//! The allocator itself is in the crate [`temporal_slab`], which knows no operating system. What
//! needs one belongs here:
//!
//! - a provider of pages that maps anonymous memory and gives it back with `madvise`,
//! - a local for each thread, flushed when the thread ends, and the thread's current epoch,
//! - a `GlobalAlloc` over the two.
//!
//! None of it is written yet: this version only fixes where it goes.
