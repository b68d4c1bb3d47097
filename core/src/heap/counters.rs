//! What a heap counts beside its class lists, locks and locals.
//!
//! All of it but `classes` is `Relaxed`: figures, which order nothing. It is written on slow paths and on the way to an
//! error only.

use super::Heap;
use crate::config::{Config, Table};
use crate::depot::{ClassListCounts, EpochDepot, Refusals};
use crate::error::{AllocError, FreeError};
use crate::handle::HandleError;
use crate::snapshot::{CloseStats, ErrorStats, LargeStats, RouteStats};
use crate::sync::{AtomicPtr, AtomicU64, Ordering::Relaxed};
use core::alloc::Layout;
use core::ptr;

/// The heap's own counts. `Relaxed`, but for `classes`.
#[derive(Debug)]
pub(crate) struct Counters {
    allocs_refused: [AtomicU64; ErrorStats::ALLOC.len()],
    frees_refused: [AtomicU64; ErrorStats::FREE.len()],
    handles_refused: [AtomicU64; ErrorStats::HANDLE.len()],
    /// Slots that were found free when their words were given back.
    late_double_frees: AtomicU64,
    pub(super) runs: RouteCounters,
    pub(super) long_runs: RouteCounters,
    pub(super) regions: RouteCounters,
    /// Slabs of scopes that there are, in bytes.
    scoped_bytes: AtomicU64,
    /// The most closes that a snapshot told, so that none tells fewer than one before.
    closes: AtomicU64,
    slabs_scanned: AtomicU64,
    slabs_recycled: AtomicU64,
    close_ns: AtomicU64,
    locals_made: AtomicU64,
    /// For heaps that shuffle.
    seeds: AtomicU64,
    /// One for each class: see [`ClassTally`]. Null until the root is made: `Release` in
    /// `begin`, `Acquire` in `class`, whose caller need not have seen the root.
    classes: AtomicPtr<ClassTally>,
}

/// Allocations, frees and bytes that are out, by one route. `Relaxed`: figures.
#[derive(Debug)]
pub(crate) struct RouteCounters {
    allocated: AtomicU64,
    freed: AtomicU64,
    bytes: AtomicU64,
}

/// What is counted for a class over all epochs: what no class list's lock guards, and what class lists counted in eras that
/// are over. `Relaxed`: figures.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct ClassTally {
    /// Of eras that are over. Under the ring's lock.
    pub(super) before: core::cell::UnsafeCell<ClassListCounts>,
    /// Of locals that are gone.
    pub(super) from_stash: AtomicU64,
    pub(super) spills: AtomicU64,
    /// First uses of the class by a local in an epoch.
    pub(super) no_word: AtomicU64,
    pub(super) refused: Refusals,
}

const fn zeroes<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

fn read<const N: usize>(counts: &[AtomicU64; N]) -> [u64; N] {
    core::array::from_fn(|index| counts[index].load(Relaxed))
}

/// Adds one to the count of a kind.
fn note<T: PartialEq, const N: usize>(counts: &[AtomicU64; N], kinds: &[(&str, T); N], kind: &T) {
    if let Some(at) = kinds.iter().position(|(_, other)| other == kind) {
        counts[at].fetch_add(1, Relaxed);
    }
}

impl RouteCounters {
    const fn new() -> Self {
        Self {
            allocated: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn add(&self, bytes: usize) {
        self.allocated.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.freed.fetch_add(1, Relaxed);
        self.bytes.fetch_sub(bytes as u64, Relaxed);
    }

    /// Notes that an object became longer or shorter.
    pub(super) fn resize(&self, from: usize, to: usize) {
        self.bytes
            .fetch_add((to as u64).wrapping_sub(from as u64), Relaxed);
    }

    fn stats(&self) -> RouteStats {
        let freed = self.freed.load(Relaxed);
        RouteStats {
            // Allocated before it was freed, and read after.
            allocated: self.allocated.load(Relaxed).max(freed),
            freed,
            bytes: self.bytes.load(Relaxed),
        }
    }
}

impl Counters {
    pub(super) const fn new() -> Self {
        Self {
            allocs_refused: zeroes(),
            frees_refused: zeroes(),
            handles_refused: zeroes(),
            late_double_frees: AtomicU64::new(0),
            runs: RouteCounters::new(),
            long_runs: RouteCounters::new(),
            regions: RouteCounters::new(),
            scoped_bytes: AtomicU64::new(0),
            closes: AtomicU64::new(0),
            slabs_scanned: AtomicU64::new(0),
            slabs_recycled: AtomicU64::new(0),
            close_ns: AtomicU64::new(0),
            locals_made: AtomicU64::new(0),
            seeds: AtomicU64::new(0),
            classes: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// What the classes' counters need.
    pub(super) fn layout<C: Config>() -> Result<Layout, AllocError> {
        Layout::array::<ClassTally>(Table::<C>::LISTED).map_err(|_| AllocError::TooLarge)
    }

    /// Begins to count by class.
    ///
    /// # Safety
    /// `memory` is of [`Self::layout`], stays for as long as the heap, and nobody uses it; no class was
    /// counted yet.
    pub(super) unsafe fn begin<C: Config>(&self, memory: *mut ClassTally) {
        for class in 0..Table::<C>::LISTED {
            // SAFETY: the caller's promise.
            unsafe { memory.add(class).write(ClassTally::default()) };
        }
        self.classes.store(memory, crate::sync::Ordering::Release);
    }

    /// A class's counters, if it has one: those of scopes' slabs have none.
    pub(super) fn class<C: Config>(&self, class: usize) -> Option<&ClassTally> {
        let classes = self.classes.load(crate::sync::Ordering::Acquire);
        if classes.is_null() || class >= Table::<C>::LISTED {
            return None;
        }
        // SAFETY: there is one for each class, for as long as the heap.
        Some(unsafe { &*classes.add(class) })
    }

    pub(super) fn late_double_frees(&self) -> u64 {
        self.late_double_frees.load(Relaxed)
    }

    pub(super) fn scoped_bytes(&self) -> u64 {
        self.scoped_bytes.load(Relaxed)
    }

    /// Another number each time.
    pub(crate) fn next_seed(&self) -> u64 {
        self.seeds.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed)
    }

    /// A number for a new local, from 1.
    pub(crate) fn next_local(&self) -> u64 {
        self.locals_made.fetch_add(1, Relaxed) + 1
    }

    /// Notes a close that gave `recycled` of `scanned` slabs back.
    pub(super) fn gave_back_at_close(&self, scanned: u64, recycled: u64, ns: u64) {
        for (count, more) in [
            (&self.slabs_scanned, scanned),
            (&self.slabs_recycled, recycled),
            (&self.close_ns, ns),
        ] {
            if more > 0 {
                count.fetch_add(more, Relaxed);
            }
        }
    }

    /// What so many closes did, or some more: while epochs are opened and closed it is not known how many.
    pub(super) fn close_stats(&self, closes: u64) -> CloseStats {
        let recycled = self.slabs_recycled.load(Relaxed);
        CloseStats {
            closes: self.closes.fetch_max(closes, Relaxed).max(closes),
            slabs_scanned: self.slabs_scanned.load(Relaxed).max(recycled),
            slabs_recycled: recycled,
            time_ns: self.close_ns.load(Relaxed),
        }
    }

    pub(super) fn error_stats(&self) -> ErrorStats {
        ErrorStats {
            allocs: read(&self.allocs_refused),
            frees: read(&self.frees_refused),
            handles: read(&self.handles_refused),
            late_double_frees: self.late_double_frees(),
        }
    }

    pub(super) fn large_stats(&self) -> LargeStats {
        LargeStats {
            runs: self.runs.stats(),
            long_runs: self.long_runs.stats(),
            regions: self.regions.stats(),
        }
    }
}

impl<C: Config> Heap<C> {
    /// Notes an allocation that was refused, in whichever class and epoch it was to be.
    #[cold]
    pub(crate) fn refused(
        &self,
        error: AllocError,
        depot: Option<&EpochDepot<C::Lock>>,
        class: Option<usize>,
    ) -> AllocError {
        note(&self.counters.allocs_refused, &ErrorStats::ALLOC, &error);
        if let Some(depot) = depot {
            depot.counters.refused.note(error);
            // It may have looked for a slot there, which is counted.
            class
                .filter(|class| *class < Table::<C>::LISTED)
                .inspect(|class| depot.use_class(*class));
        }
        if let Some(class) = class.and_then(|class| self.counters.class::<C>(class)) {
            class.refused.note(error);
        }
        error
    }

    /// Notes a free that was refused.
    #[cold]
    pub(crate) fn refused_free(&self, error: FreeError) -> FreeError {
        note(&self.counters.frees_refused, &ErrorStats::FREE, &error);
        error
    }

    /// Notes a handle that was refused.
    #[cold]
    pub(crate) fn refused_handle(&self, error: HandleError) -> HandleError {
        note(&self.counters.handles_refused, &ErrorStats::HANDLE, &error);
        error
    }

    /// Notes slots that turned out to have been freed twice.
    #[cold]
    pub(crate) fn note_double_free(&self, slots: u64) {
        self.counters.late_double_frees.fetch_add(slots, Relaxed);
    }

    /// Notes that a class was used for the first time by a local in an epoch, or by the shared path.
    #[cold]
    pub(crate) fn note_no_word(&self, depot: &EpochDepot<C::Lock>, class: usize) {
        depot.counters.no_word.fetch_add(1, Relaxed);
        if let Some(class) = self.counters.class::<C>(class) {
            class.no_word.fetch_add(1, Relaxed);
        }
    }

    /// Notes that a slab was made for a class of a depot, or went back.
    pub(super) fn count_slab(&self, depot: &EpochDepot<C::Lock>, class: usize, is_made: bool) {
        let bytes = Table::<C>::TABLE.class(class).slab_bytes();
        depot.count_bytes(if is_made {
            bytes as isize
        } else {
            -(bytes as isize)
        });
        if class >= Table::<C>::LISTED {
            let bytes = bytes as u64;
            if is_made {
                self.counters.scoped_bytes.fetch_add(bytes, Relaxed);
            } else {
                self.counters.scoped_bytes.fetch_sub(bytes, Relaxed);
            }
        } else if is_made {
            depot.class_list(class).count_made();
        } else {
            depot.class_list(class).count_recycled();
        }
    }

    /// What locals that are gone did in a class.
    pub(crate) fn keep_local_counts(&self, class: usize, from_stash: u64, spills: u64) {
        if let Some(class) = self.counters.class::<C>(class) {
            class.from_stash.fetch_add(from_stash, Relaxed);
            class.spills.fetch_add(spills, Relaxed);
        }
    }
}
