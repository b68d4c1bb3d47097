//! What lies in metadata memory for an epoch cache: it is in the heap's registry, so others find what the epoch cache holds and
//! what was done in it.

use super::cell::Cell;
use super::counts::{LocalCounters, OwnCounters};
use crate::config::{Config, Table};
use crate::depot::EpochDepot;
use crate::epoch::{Serves, Tag};
use core::alloc::Layout;

/// What lies in metadata memory for an epoch cache. Its cells follow it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct CacheState {
    /// Links of the heap's registry, under its lock.
    pub(crate) next: *mut CacheState,
    pub(crate) prev: *mut CacheState,
    /// The depot's number.
    pub(crate) depot: u16,
    /// The depot itself.
    pub(crate) at: *const (),
    /// The local's epoch cache that was made before this one.
    pub(crate) sibling: *mut CacheState,
    /// The era that `own` is of.
    /// The epoch cache's owner alone changes it.
    pub(crate) era: Serves,
    /// What was done in this epoch cache, in that era.
    pub(crate) own: OwnCounters,
    /// The local's counts.
    pub(crate) local: *const LocalCounters,
}

impl CacheState {
    pub(crate) fn layout(classes: usize) -> Option<(Layout, usize)> {
        let cells = Layout::array::<Cell>(classes).ok()?;
        Layout::new::<Self>().extend(cells).ok()
    }

    /// How many slots the cells hold. Anyone may ask while the state is in the registry.
    ///
    /// # Safety
    /// `state` is that of an epoch cache of a heap with so many classes, in the registry, whose lock is held.
    pub(crate) unsafe fn held_slots(state: *mut Self, classes: usize) -> usize {
        let Some((_, cells_at)) = Self::layout(classes) else {
            return 0;
        };
        let cells = (0..classes).map(|class| {
            // SAFETY: the cells follow the state; only what is atomic in them is read.
            unsafe {
                let cell: *const Cell = state.byte_add(cells_at).cast::<Cell>().add(class);
                Cell::held_slots(cell)
            }
        });
        cells.sum()
    }

    /// How many slots the cells hold, and their bytes.
    ///
    /// # Safety
    /// As for [`CacheState::held_slots`], for the classes of `C`.
    pub(crate) unsafe fn held<C: Config>(state: *mut Self) -> (usize, usize) {
        let (mut slots, mut bytes) = (0, 0);
        for class in 0..Table::<C>::LISTED {
            // SAFETY: the caller's promise.
            let held = unsafe { Self::held_of(state, Table::<C>::LISTED, class) };
            slots += held;
            bytes += held * Table::<C>::TABLE.class(class).size();
        }
        (slots, bytes)
    }

    /// How many slots of a class the epoch cache holds.
    ///
    /// # Safety
    /// As for [`CacheState::held_slots`], and `class` is one of the classes.
    pub(crate) unsafe fn held_of(state: *mut Self, classes: usize, class: usize) -> usize {
        let cells_at = Self::layout(classes).map_or(0, |(_, at)| at);
        // SAFETY: the cells follow the state; only what is atomic in them is read.
        unsafe { Cell::held_slots(state.byte_add(cells_at).cast::<Cell>().add(class)) }
    }

    /// The depot of an epoch cache.
    ///
    /// # Safety
    /// The epoch cache is one of a heap whose lock is `R`, and in the registry or the caller's.
    pub(crate) unsafe fn serves<'h, R>(state: *mut Self) -> &'h EpochDepot<R> {
        // SAFETY: depots are valid for as long as the heap.
        unsafe { &*(*state).at.cast() }
    }

    /// Whether what was done in an epoch cache was done in the era that its depot serves.
    ///
    /// # Safety
    /// As for [`CacheState::serves`].
    pub(crate) unsafe fn is_of(state: *mut Self, serves: Tag) -> bool {
        // SAFETY: the caller's promise.
        let era = unsafe { (*state).era.get() };
        era == serves || era.closed() == serves
    }

    /// Counts for the era that the depot serves now: what was done in an earlier one ended with it.
    ///
    /// # Safety
    /// The epoch cache is the caller's.
    pub(crate) unsafe fn be_of(state: *mut Self, serves: Tag) {
        // SAFETY: the caller's promise.
        unsafe {
            if !Self::is_of(state, serves) {
                (*state).own.forget();
                (*state).era.set(serves);
            }
        }
    }

    /// The cell of a class.
    ///
    /// # Safety
    /// As for [`CacheState::held_of`], and nobody uses the local now.
    #[cfg(feature = "walker")]
    pub(crate) unsafe fn cell<'s>(state: *mut Self, classes: usize, class: usize) -> &'s Cell {
        let cells_at = Self::layout(classes).map_or(0, |(_, at)| at);
        // SAFETY: the cells follow the state in the same memory, and are at rest.
        unsafe { &*state.byte_add(cells_at).cast::<Cell>().add(class) }
    }
}

// By field, and never by a reference to the whole: its owner writes to parts of it meanwhile.
impl CacheState {
    /// The local's counters.
    ///
    /// # Safety
    /// `state` is in the registry, whose lock is held, or the caller's.
    pub(crate) unsafe fn counters(state: *mut Self) -> *const LocalCounters {
        // SAFETY: the caller's promise.
        unsafe { (*state).local }
    }

    /// The local's counters, if this is its home epoch cache, which is that in the root's depot.
    ///
    /// # Safety
    /// As for [`Self::counters`].
    pub(crate) unsafe fn home_counters(state: *mut Self) -> Option<*const LocalCounters> {
        // SAFETY: the caller's promise.
        unsafe { ((*state).depot == 0).then_some((*state).local) }
    }
}
