//! Shelves: slabs that a scope holds whole, for its objects with handles.
//!
//! A scope holds every slot of its shelves from their making until it goes, so nobody else gets one, and
//! a handle that is freed before only ends its object. When the scope goes, all that lives on
//! the shelf is ended and the slots go back together; those that are being read are given back by their
//! last readers.

use super::Heap;
use crate::class::Purpose;
use crate::config::{Config, Table};
use crate::epoch::Tag;
use crate::error::AllocError;
use crate::handle::{Abandoned, Ids, RawHandle, TaggedSlab};
use crate::provider::PageProvider;
use crate::slab::{Link, Slab};
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use lock_api::RawMutex;

/// A slab that a scope holds, and how many of its slots were used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shelf {
    slab: *const Slab,
    used: u32,
}

impl Shelf {
    /// No shelf.
    pub(crate) const NONE: Self = Self {
        slab: ptr::null(),
        used: 0,
    };
}

impl<P: PageProvider, R: RawMutex, C: Config> Heap<P, R, C> {
    /// How many kinds of shelves a scope may have.
    pub(crate) const SHELVES: usize = Table::<C>::TABLE.len();

    /// The kind of shelf that serves a layout.
    pub(crate) fn shelf_for(layout: Layout) -> Result<usize, AllocError> {
        let class = Table::<C>::TABLE.handle_index_for(layout);
        class.ok_or(AllocError::TooLarge)
    }

    /// The next slot of a shelf of this kind. Where there is none left another shelf takes its place,
    /// and is put before `shelves`, the list of all that the scope has.
    pub(crate) fn take_from_shelf(
        &self,
        kind: usize,
        shelf: &mut Shelf,
        shelves: &mut *const Slab,
    ) -> Result<NonNull<u8>, AllocError> {
        let table = Table::<C>::TABLE;
        let class = table.index_of(kind, Purpose::Scoped);
        let shape = table.class(class);
        if shelf.slab.is_null() || shelf.used >= u32::from(shape.slots) {
            let (slab, _) = self.make_slab(self.root()?, Tag::ROOT, class)?;
            let link = Link {
                next: *shelves,
                prev: ptr::null(),
            };
            // SAFETY: the slab is in no bin, and its owner is the scope.
            unsafe { slab.set_link(link) };
            *shelves = slab;
            *shelf = Shelf { slab, used: 0 };
        }
        let slot = shelf.used as usize;
        shelf.used += 1;
        // SAFETY: the scope holds the slab, so it is valid and pinned; the slot lies inside its run.
        unsafe {
            let base = (*shelf.slab).body().base;
            Ok(NonNull::new_unchecked(base.add(slot * shape.size())))
        }
    }

    /// Names an object on a shelf of this kind.
    pub(crate) fn name_on_shelf(&self, kind: usize, object: NonNull<u8>) -> RawHandle {
        self.name(object, Table::<C>::TABLE.index_of(kind, Purpose::Scoped))
    }

    /// Ends all that lives on a scope's shelves, and gives them back.
    pub(crate) fn clear_shelves(&self, shelves: *const Slab) {
        let mut next = shelves;
        // SAFETY: the scope's list, each of whose slabs it holds until it is given back below.
        while let Some(slab) = unsafe { next.as_ref() } {
            // SAFETY: as above; the owner of the link is the scope.
            next = unsafe { slab.link() }.next;
            // SAFETY: as above; nobody lists the slab.
            unsafe { slab.set_link(Slab::UNLISTED) };
            // SAFETY: a scope's slabs are tagged.
            self.clear_shelf(unsafe { TaggedSlab::of(slab) });
        }
    }

    fn clear_shelf(&self, tagged: &TaggedSlab) {
        let class = usize::from(tagged.slab().identity().key().class());
        let (mut free, mut exhausted) = (0u64, 0u64);
        for slot in 0..Table::<C>::TABLE.class(class).slots() {
            match tagged.tag(slot).abandon(slot, Ids::<C>::LAST) {
                Abandoned::Free { is_exhausted } if is_exhausted => exhausted |= 1 << slot,
                Abandoned::Free { .. } => free |= 1 << slot,
                Abandoned::Kept => {}
            }
        }
        // The free ones last, and all at once: they pin the slab while the others retire.
        if exhausted != 0 {
            self.put_orphan(tagged, exhausted, true);
        }
        if free != 0 {
            self.put_orphan(tagged, free, false);
        }
    }
}
