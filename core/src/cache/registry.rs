//! The locals of a heap: where the walker finds what they hold.

use super::CacheState;
use core::ptr;

/// A list of locals' states, behind the heap's lock for it.
#[derive(Debug)]
pub(crate) struct Registry {
    first: *mut CacheState,
}

// SAFETY: the states lie in the heap's metadata; the lock guards the list.
unsafe impl Send for Registry {}

impl Registry {
    pub(crate) const fn new() -> Self {
        Self {
            first: ptr::null_mut(),
        }
    }

    /// # Safety
    /// `state` is valid until it is removed, and not in the list.
    pub(crate) unsafe fn insert(&mut self, state: *mut CacheState) {
        // SAFETY: the state and those in the list are valid.
        unsafe {
            (*state).next = self.first;
            (*state).prev = ptr::null_mut();
            if !self.first.is_null() {
                (*self.first).prev = state;
            }
        }
        self.first = state;
    }

    /// # Safety
    /// `state` is in the list.
    pub(crate) unsafe fn remove(&mut self, state: *mut CacheState) {
        // SAFETY: the state and its neighbours are in the list, so valid.
        unsafe {
            let (next, prev) = ((*state).next, (*state).prev);
            if !next.is_null() {
                (*next).prev = prev;
            }
            if prev.is_null() {
                self.first = next;
            } else {
                (*prev).next = next;
            }
        }
    }

    /// Calls `f` for each local's state.
    pub(crate) fn for_each(&self, mut f: impl FnMut(*mut CacheState)) {
        let mut at = self.first;
        while !at.is_null() {
            f(at);
            // SAFETY: states in the list are valid.
            at = unsafe { (*at).next };
        }
    }
}
