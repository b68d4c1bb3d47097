//! What a local counts.
//!
//! All of it lies in metadata memory, is written by the local alone, on slow paths, by plain loads and stores,
//! and may be read by anyone while the local is in the registry, under its lock: `Relaxed`, figures.

use crate::snapshot::{SlowPathCounters, SlowPathStats};
use crate::sync::{AtomicU64, Ordering::Relaxed, add};
use core::alloc::{Layout, LayoutError};

/// The counts of one local over all epochs and classes. `Relaxed`: see the head. Those of its classes follow it in memory.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct LocalCounters {
    pub(crate) number: u64,
    pub(crate) slow: SlowPathCounters,
}

/// What a local or an epoch cache did without the depot. `Relaxed`: see the head.
#[derive(Debug, Default)]
pub(crate) struct OwnCounters {
    pub(crate) from_stash: AtomicU64,
    pub(crate) spills: AtomicU64,
}

impl OwnCounters {
    /// Begins anew.
    pub(crate) fn forget(&self) {
        self.from_stash.store(0, Relaxed);
        self.spills.store(0, Relaxed);
    }

    pub(crate) fn read(&self) -> (u64, u64) {
        (self.from_stash.load(Relaxed), self.spills.load(Relaxed))
    }
}

impl LocalCounters {
    /// The memory that it needs with so many classes, and where those begin in it.
    pub(crate) fn layout(classes: usize) -> Result<(Layout, usize), LayoutError> {
        Layout::new::<Self>().extend(Layout::array::<OwnCounters>(classes)?)
    }

    /// Begins to count.
    ///
    /// # Safety
    /// `memory` is of [`Self::layout`] and nobody else's.
    pub(crate) unsafe fn place(memory: *mut u8, classes: usize, number: u64) -> *const Self {
        let classes_at = Self::layout(classes).map_or(0, |(_, at)| at);
        // SAFETY: the caller's promise.
        unsafe {
            let counters: *mut Self = memory.cast();
            counters.write(Self {
                number,
                ..Self::default()
            });
            for class in 0..classes {
                let own: *mut OwnCounters = memory.add(classes_at).cast();
                own.add(class).write(OwnCounters::default());
            }
            counters
        }
    }

    /// The counts of a class.
    ///
    /// # Safety
    /// `counters` are a local's, of a heap with so many classes, and `class` one of them.
    pub(crate) unsafe fn class<'a>(
        counters: *const Self,
        classes: usize,
        class: usize,
    ) -> &'a OwnCounters {
        debug_assert!(class < classes);
        let classes_at = Self::layout(classes).map_or(0, |(_, at)| at);
        // SAFETY: they follow the counters.
        unsafe {
            &*counters
                .byte_add(classes_at)
                .cast::<OwnCounters>()
                .add(class)
        }
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn slow(&self) -> SlowPathStats {
        self.slow.read()
    }
}

/// Adds one.
pub(crate) fn bump(count: &AtomicU64) {
    add(count, 1);
}
