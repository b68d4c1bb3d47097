//! The allocator for programs in C. `include/temporal_slab.h` is made of this source by a test, so that they cannot
//! drift apart.
//!
//! Principles:
//! - Every function survives null and numbers out of range: it says what is wrong by [`slab_last_error`] and changes
//!   nothing. A pointer to free is looked up, not followed, in a heap that checks.
//! - An [`EpochId`] names the newest epoch that has this number; once that is over and the number is used again, it names the
//!   next.
//! - Threads have a fast path of their own for each allocator, which they give up when they end.
//! - No panic leaves a function: it is an error of its own.
//!
//! | layer | knows |
//! |---|---|
//! | `error` | why something failed |
//! | `allocator` | a heap, the threads' locals |
//! | `fork` | all allocators, which are paused while the process is copied |
//! | `epochs` | what can be done with an epoch |
//! | `objects` | what is allocated: by pointer, by handle |
//! | `domains` | phases that nest |
//! | `stats` | what is counted |
#![cfg(target_os = "linux")]

mod error;

mod allocator;

mod fork;

mod epochs;

mod objects;

mod domains;

mod stats;

pub use allocator::{
    SlabAllocator, slab_allocator_create, slab_allocator_free, slab_reclaim, slab_set_limit,
};
pub use domains::{
    EpochDomain, epoch_domain_create, epoch_domain_current, epoch_domain_destroy,
    epoch_domain_enter, epoch_domain_exit, epoch_domain_force_close, epoch_domain_wrap,
};
pub use epochs::{
    EpochId, epoch_advance, epoch_close, epoch_current, slab_epoch_dec_refcount,
    slab_epoch_get_refcount, slab_epoch_inc_refcount, slab_epoch_open, slab_epoch_set_label,
};
pub use error::{SlabError, slab_clear_error, slab_error_text, slab_last_error};
pub use objects::{
    SlabHandle, alloc_obj_epoch, free_obj, get_obj, slab_free, slab_malloc_epoch, slab_usable_size,
};
pub use stats::{
    PerfCounters, SlabClassStats, SlabEpochStats, SlabGlobalStats, get_perf_counters,
    read_rss_bytes_linux, slab_stats_class, slab_stats_epoch, slab_stats_global,
};
