//! The global allocator: one heap for the process, a local for each thread.
//!
//! Principles:
//! - The plain case, a thread with a local and without a current epoch, is one look for the thread's magazines
//!   and then the core's fast path over them. Everything else is out of line.
//! - A thread gets its local at its first call, whichever that is, and gives it up when it ends, after its destructors;
//!   what it allocates or frees after that takes the shared path, which needs no thread.
//! - Nothing here calls anything that allocates through it.
//!
//! # What goes where
//!
//! While a thread is in an epoch (see [`TemporalSlab::phase`], [`TemporalSlab::route`],
//! [`TemporalSlab::enter`]) what it allocates belongs to that epoch: every `Box`, `Vec`, `String` and
//! `HashMap`, also those that a library makes for itself and keeps. It stays valid for as long as it is
//! not freed: closing the epoch ends allocation in it, not what is in it, and its memory goes back as
//! its objects are freed. What is freed is freed where it belongs, whichever epoch the thread is in. A
//! collection that grows may move: its new memory is of the epoch that the thread is in then, or of its own where it lies in a
//! bump block, unless it
//! is so large that its pages are moved instead of its bytes, which stay in their epoch. If the epoch
//! was closed meanwhile, allocation goes on outside of it. Memory of a [`Scope`] is never handed out
//! here: what a scope frees all at once nobody else has.
//!
//! [`Scope`]: temporal_slab::Scope

mod any;
mod current;
mod fork;
mod here;
mod key;
#[cfg(feature = "origins")]
mod origins;
mod thread;

use crate::lock::FutexLock;
use crate::provider::MmapProvider;
use crate::reclaimer::Reclaimer;
use crate::sys;
use core::alloc::{GlobalAlloc, Layout};
use core::num::NonZeroU32;
use core::ptr::{self, NonNull};
use core::time::Duration;
use std::io;
use temporal_slab::class::FINE_SIZES;
use temporal_slab::config::Config;
use temporal_slab::{Domain, Heap, Policy};
use temporal_slab_report::Latency;

#[cfg(feature = "task")]
pub(crate) use current::close;
pub use current::{Phase, Routed};
use here::{alloc_magazines, free_magazines, here};
use thread::Thread;

/// The parameters of the process's heap: the finer table of sizes; every free is checked in debug builds, and with the
/// feature `checked` in all.
#[derive(Debug, Clone, Copy, Default)]
pub struct GlobalConfig;

impl Config for GlobalConfig {
    type Provider = MmapProvider;
    type Lock = FutexLock;
    const SIZES: &'static [usize] = FINE_SIZES;
    const CHECKED: bool = cfg!(any(debug_assertions, feature = "checked"));
    const ZERO_ON_FREE: bool = cfg!(feature = "hardened");
    const SHUFFLED: bool = cfg!(feature = "hardened");
    const BUMPS: bool = true;
}

/// The process's heap.
pub type GlobalHeap = Heap<GlobalConfig>;

/// A domain over an epoch of the process's heap.
pub type GlobalDomain = Domain<'static, GlobalConfig>;

static HEAP: GlobalHeap =
    Heap::new(MmapProvider::new().without_readings()).with_policy(Policy::proportional(32 << 20));

/// The allocator, for `#[global_allocator]`. There is one heap behind it, however many of these there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct TemporalSlab;

impl TemporalSlab {
    /// The heap: for its policy, its figures, its epochs, and `reclaim`.
    #[must_use]
    pub fn heap() -> &'static GlobalHeap {
        fork::prepare_once();
        &HEAP
    }

    /// Gives back all that this thread keeps for its next allocations. Other threads keep theirs until they
    /// end or do the same.
    pub fn flush_thread() {
        here(Thread::flush);
    }

    /// Times one in `every` of this thread's allocations from now on; `None` ends it. A thread that is not asked pays
    /// nothing for this; one that is leaves the shortest path for all of its allocations.
    pub fn sample_thread(every: Option<NonZeroU32>) {
        here(|thread| thread.sample(every));
    }

    /// As [`TemporalSlab::sample_thread`], of this thread and of those that make their first call from now on. With the feature `origins`
    /// it is noted where those objects are allocated that are of an epoch, which takes some microseconds for each: see
    /// [`TemporalSlab::write_origins`].
    pub fn sample_threads(every: Option<NonZeroU32>) {
        thread::sample_new(every);
        Self::sample_thread(every);
    }

    /// The times that were sampled so far, of all threads.
    #[must_use]
    pub fn latency() -> &'static Latency {
        &thread::LATENCY
    }

    /// Serves the statistics of this program at an address: `127.0.0.1:9184`, or `unix:PATH`. See
    /// [`export`](crate::export) for what and how.
    ///
    /// # Errors
    /// If the address is none, cannot be had, or can be reached from other machines.
    #[cfg(feature = "export")]
    pub fn export(address: &str) -> io::Result<crate::export::Exporter> {
        let options = crate::export::Options {
            latency: Some(Self::latency()),
            #[cfg(feature = "origins")]
            findings_end: Some(Self::write_origins),
            ..Default::default()
        };
        crate::export::Exporter::start(Self::heap(), &address.parse()?, options)
    }

    /// Starts a thread that gives back what was empty for `decay`.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start_reclaimer(decay: Duration) -> io::Result<Reclaimer> {
        Reclaimer::start(&HEAP, decay)
    }
}

/// Allocates where the fast path finds nothing.
#[cold]
#[inline(never)]
fn alloc_slow(layout: Layout) -> *mut u8 {
    here(|thread| thread.alloc(layout))
}

/// Frees where the fast path does not.
///
/// # Safety
/// As for `dealloc`.
#[cold]
#[inline(never)]
unsafe fn free_slow(object: NonNull<u8>, layout: Layout) {
    // SAFETY: the caller's promise.
    let freed = here(|thread| unsafe {
        match thread.first_local() {
            Some(local) => local.free(object, layout),
            None => HEAP.free(object, layout),
        }
    });
    if GlobalConfig::CHECKED && freed.is_err() {
        // Here nothing may unwind.
        sys::die("temporal-slab: what was freed is not live, or not of this layout\n");
    }
}

/// The pointer, or null where there is none: what `GlobalAlloc` says for an error.
#[inline]
fn or_null<E>(object: Result<NonNull<u8>, E>) -> *mut u8 {
    object.map_or(ptr::null_mut(), NonNull::as_ptr)
}

// SAFETY: the heap's contract is that of `GlobalAlloc`; a thread's local is used by that thread alone, and
// not while it is being used: nothing that it does comes back here.
unsafe impl GlobalAlloc for TemporalSlab {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let magazines = alloc_magazines();
        // As in a phase: there is nothing to look for.
        if magazines.is_none() {
            return alloc_slow(layout);
        }
        // SAFETY: the magazines are of this thread's local, or of none; nobody is using them.
        match unsafe { HEAP.alloc_from(magazines, layout) } {
            Some(object) => object.as_ptr(),
            None => alloc_slow(layout),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: no object is at null; the caller gives it up; the magazines are as in `alloc`.
        unsafe {
            let object = NonNull::new_unchecked(object);
            if !HEAP.free_layout_to(free_magazines(), object, layout) {
                free_slow(object, layout);
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        here(|thread| thread.alloc_zeroed(layout))
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is one that a layout can have.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: no object is at null.
        let base = unsafe { NonNull::new_unchecked(object) };
        // In a phase most of what grows was laid last.
        if alloc_magazines().is_none() {
            // SAFETY: the caller's promise.
            let is_done = here(|thread| unsafe { thread.extend(base, layout, new) });
            if is_done {
                return object;
            }
        }
        if HEAP.resize_in_place(base, layout, new) {
            return object;
        }
        // SAFETY: the caller's promise.
        unsafe { self.move_to(base, layout, new) }
    }
}

impl TemporalSlab {
    /// Moves an object to where `new` fits: by moving its pages if it is as large as that, else by copying.
    ///
    /// # Safety
    /// As for `realloc`.
    #[cold]
    #[inline(never)]
    unsafe fn move_to(self, object: NonNull<u8>, old: Layout, new: Layout) -> *mut u8 {
        // SAFETY: the object is the caller's.
        unsafe {
            if let Some(moved) = HEAP.resize_large(object, old, new) {
                return moved.as_ptr();
            }
            // What was laid in an epoch grows there.
            let epoch = HEAP.epoch_to_grow_in(object);
            let moved = epoch.and_then(|epoch| here(|thread| thread.alloc_in(epoch, new)));
            let moved = moved.map_or_else(|| self.alloc(new), NonNull::as_ptr);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(object.as_ptr(), old.size().min(new.size()));
                self.dealloc(object.as_ptr(), old);
            }
            moved
        }
    }
}
