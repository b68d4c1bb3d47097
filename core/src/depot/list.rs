//! Doubly linked lists of slabs through [`Slab::link`], guarded by the lock of their class list.
//!
//! Invariant: a slab is in a list exactly when its `prev` is not null; the first slab's `prev` is
//! the slab itself.

use crate::slab::{Link, Slab};
use core::ptr;

/// A list of slabs; the newest is first, so that what was used last is used next.
#[derive(Debug)]
pub(super) struct List {
    first: *const Slab,
    len: u32,
    /// Changes of the list so far. It may wrap: it is compared with what it was a moment ago.
    changes: u32,
}

// SAFETY: a list is only the head of pointers to type-stable slabs; its class list's lock guards it.
unsafe impl Send for List {}

impl List {
    pub(super) const fn new() -> Self {
        Self {
            first: ptr::null(),
            len: 0,
            changes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Changes whenever the list does.
    pub(super) fn changes(&self) -> u32 {
        self.changes
    }

    pub(super) fn first(&self) -> *const Slab {
        self.first
    }

    /// # Safety
    /// The caller holds the lock of the class list that `slab` belongs to, or owns `slab`.
    pub(super) unsafe fn contains_any(slab: &Slab) -> bool {
        // SAFETY: the caller excludes writers.
        !unsafe { slab.link() }.prev.is_null()
    }

    /// # Safety
    /// The caller holds this list's lock; `slab` is in no list, and type-stable.
    pub(super) unsafe fn push(&mut self, slab: &Slab) {
        let old = self.first;
        // SAFETY: the lock guards both links; `old` is a listed slab or null.
        unsafe {
            slab.set_link(Link {
                next: old,
                prev: slab,
            });
            if let Some(old) = old.as_ref() {
                old.set_link(Link {
                    prev: slab,
                    ..old.link()
                });
            }
        }
        self.first = slab;
        self.len += 1;
        self.changes = self.changes.wrapping_add(1);
    }

    /// # Safety
    /// The caller holds this list's lock, and `slab` is in this list.
    pub(super) unsafe fn remove(&mut self, slab: &Slab) {
        // SAFETY: the lock guards the links of the slab and of its neighbours, which are listed
        // slabs and so valid.
        unsafe {
            let Link { next, prev } = slab.link();
            let is_first = ptr::eq(prev, slab);
            if let Some(next_slab) = next.as_ref() {
                let prev = if is_first { next } else { prev };
                next_slab.set_link(Link {
                    prev,
                    ..next_slab.link()
                });
            }
            if is_first {
                self.first = next;
            } else {
                (*prev).set_link(Link {
                    next,
                    ..(*prev).link()
                });
            }
            slab.set_link(Slab::UNLISTED);
        }
        self.len -= 1;
        self.changes = self.changes.wrapping_add(1);
    }

    /// # Safety
    /// The caller holds this list's lock.
    pub(super) unsafe fn pop<'s>(&mut self) -> Option<&'s Slab> {
        // SAFETY: a listed slab is valid for as long as the heap, which outlives its depots' use.
        let slab = unsafe { self.first.as_ref() }?;
        // SAFETY: the caller holds the lock, and the slab is the first of this list.
        unsafe { self.remove(slab) };
        Some(slab)
    }
}
