//! What leads from memory to a slab: the page map's entries, and the body of a run's slab.

#[cfg(not(loom))]
use super::{Body, Link};
use super::{Key, Slab};
use crate::pages::{Entry, EntryKind};
#[cfg(not(loom))]
use crate::pages::{Record, Run};
use core::ptr;

impl Entry {
    /// Of a granule of a slab, whose class is that of its key.
    pub(crate) fn of_slab(slab: &Slab, class: u8, is_home: bool) -> Self {
        let kind = match class {
            Key::BLOCK => EntryKind::Bumped,
            _ if is_home => EntryKind::Home,
            _ => EntryKind::Other,
        };
        Self::new(ptr::from_ref(slab).addr(), class, kind)
    }

    /// The slab, or null.
    #[inline(always)]
    pub(crate) fn slab_at(self) -> *const Slab {
        ptr::with_exposed_provenance(self.slab_address())
    }

    /// The slab.
    ///
    /// # Safety
    /// The entry is of a heap that lives as long as `'s`.
    #[inline(always)]
    pub(crate) unsafe fn slab<'s>(self) -> Option<&'s Slab> {
        // SAFETY: entries name slabs, which lie in exposed metadata memory that stays until the heap is dropped.
        unsafe { self.slab_at().as_ref() }
    }
}

#[cfg(not(loom))]
impl Run {
    /// What a slab of this run says, which has so many granules, for a depot.
    pub(crate) fn body<R>(&self, depot: &R, granules: u32) -> Body {
        Body {
            base: self.base,
            depot: ptr::from_ref(depot).cast(),
            chunk: self.chunk.cast(),
            granules,
        }
    }
}

// SAFETY: all layouts of `MetaShape` begin with a `Slab`, and nothing else is a record.
#[cfg(not(loom))]
unsafe impl Record for Slab {
    fn new() -> Self {
        Self::new()
    }

    unsafe fn next_unused(&self) -> *const Self {
        // SAFETY: the caller excludes others.
        unsafe { self.link() }.next
    }

    unsafe fn set_unused(&self, next: *const Self) {
        let prev = ptr::null();
        // SAFETY: the caller owns the slab.
        unsafe { self.set_link(Link { next, prev }) };
    }

    unsafe fn set_unlisted(&self) {
        // SAFETY: the caller owns the slab.
        unsafe { self.set_link(Self::UNLISTED) };
    }
}
