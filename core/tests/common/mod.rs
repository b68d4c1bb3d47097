//! What the tests of the core share: providers over host memory, and a model that a heap is run
//! against, step by step.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test binary uses its own part"
)]

use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::config::Config;
use temporal_slab::lock_api::RawMutex;
use temporal_slab::provider::PageProvider;
use temporal_slab::{AllocError, Census, Epoch, Heap, Local};

pub use temporal_slab_actions::{
    Action, Family, Over, Rng, World, alone, figures, hooked, host, lookups,
};

temporal_slab_actions::configs! {
    /// A short ring, so that positions are used again and again.
    pub struct ShortRing {
        const RING: usize = 6;
        const EPOCHS: usize = Self::RING;
        const CHECKED: bool = true;
    }
}

temporal_slab_actions::configs! {
    /// As [`Checked`](temporal_slab::config::Checked); where a step takes a thousand times as long the ring comes round
    /// sooner.
    pub struct Ring {
        const RING: usize = if cfg!(miri) { 8 } else { 128 };
        const EPOCHS: usize = Self::RING;
        const CHECKED: bool = true;
    }
}

temporal_slab_actions::configs! {
    /// As [`Checked`](temporal_slab::config::Checked), and young epochs bump.
    pub struct Bumping {
        const CHECKED: bool = true;
        const BUMPS: bool = true;
    }
}

temporal_slab_actions::configs! {
    /// As [`Checked`](temporal_slab::config::Checked), and hard on who reads what was freed or foresees what comes next.
    pub struct Hard {
        const CHECKED: bool = true;
        const ZERO_ON_FREE: bool = true;
        const SHUFFLED: bool = true;
    }
}

/// A layout of so many bytes.
pub fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Frees what a test allocated with [`layout`].
pub fn free<C: Config>(heap: &Heap<C>, object: NonNull<u8>, size: usize) {
    // SAFETY: tests free what they allocated, once, and use it no more.
    unsafe { heap.free(object, layout(size)) }.unwrap();
}

/// Demands that an epoch takes no object more, by a local or without.
pub fn takes_nothing<C: Config>(heap: &Heap<C>, local: &mut Local<'_, C>, epoch: Epoch) {
    let closed = Err(AllocError::EpochClosed);
    assert_eq!(local.alloc_in(epoch, layout(64)), closed);
    assert_eq!(heap.alloc_in(epoch, layout(64)), closed);
}

/// Has the host keep what it gets back for the next run, for pages of the system's take long; or unmap it at once.
pub fn host_keeps(_keeps: bool) {
    #[cfg(all(
        target_os = "linux",
        target_env = "gnu",
        target_pointer_width = "64",
        not(miri)
    ))]
    {
        let set = |setting, value| {
            // SAFETY: settings of the C library's, for each of which any number is good.
            unsafe { libc::mallopt(setting, value) };
        };
        set(
            libc::M_MMAP_THRESHOLD,
            if _keeps { 32 << 20 } else { 60_000 },
        );
        if _keeps {
            set(libc::M_TRIM_THRESHOLD, i32::MAX);
            set(libc::M_TOP_PAD, 32 << 20);
        }
    }
}

/// Walks a heap that nobody is using.
pub fn walk<C: Config>(heap: &Heap<C>) -> Census {
    // SAFETY: tests walk when all threads have ended and all locals are at rest.
    unsafe { heap.walk() }.unwrap_or_else(|violation| panic!("{violation}"))
}

/// Fewer steps where each takes a thousand times as long.
pub const fn steps(many: usize, few: usize) -> usize {
    if cfg!(miri) { few } else { many }
}
