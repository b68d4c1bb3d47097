//! Slabs of a scope, for its objects with handles.
//!
//! A scope holds every slot of its slabs from their making until it goes, so nobody else gets one, and a
//! handle that is freed before only ends its object. When the scope goes, all that lives in them is ended
//! and the slots go back together; those that are being read are given back by their last readers.

use super::Heap;
use crate::class::Purpose;
use crate::config::{Config, Table};
use crate::epoch::Tag;
use crate::error::AllocError;
use crate::handle::{Abandoned, Ids, TaggedSlab};
use crate::slab::{Link, Slab};
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// The slabs of a scope. Lies in the scope's memory, with one [`Open`] for each class behind it.
#[derive(Debug)]
pub(crate) struct ScopeSlabs {
    /// All of them, also the used up ones, through their links: a slab in no class list is its owner's to link.
    all: *const Slab,
}

/// The slab of a class that has slots left, and how many of its slots were used.
#[derive(Debug, Clone, Copy)]
struct Open {
    slab: *const Slab,
    used: u32,
}

impl<C: Config> Heap<C> {
    /// What a scope's slabs need of its memory, and where the open ones begin in it.
    fn scope_slabs_layout() -> Result<(Layout, usize), AllocError> {
        let open = Layout::array::<Open>(Table::<C>::TABLE.named());
        let layout = open.and_then(|open| Layout::new::<ScopeSlabs>().extend(open));
        layout.map_err(|_| AllocError::TooLarge)
    }

    /// No slabs yet, in memory that `take` gets from the scope.
    pub(crate) fn scope_slabs(
        take: impl FnOnce(Layout) -> Result<NonNull<u8>, AllocError>,
    ) -> Result<NonNull<ScopeSlabs>, AllocError> {
        let (layout, open_at) = Self::scope_slabs_layout()?;
        let memory = take(layout)?;
        // SAFETY: the memory is of this layout and nobody else's.
        unsafe {
            let open: NonNull<Open> = memory.add(open_at).cast();
            for class in 0..Table::<C>::TABLE.named() {
                open.add(class).write(Open {
                    slab: ptr::null(),
                    used: 0,
                });
            }
            let slabs: NonNull<ScopeSlabs> = memory.cast();
            slabs.write(ScopeSlabs { all: ptr::null() });
            Ok(slabs)
        }
    }

    /// A slot for an object with a handle, and the class by which it is to be named: of the open slab of its
    /// class, or of a new one.
    ///
    /// # Safety
    /// `slabs` came from [`Self::scope_slabs`] and is its scope's, which nobody else uses meanwhile.
    pub(crate) unsafe fn alloc_scoped(
        &self,
        slabs: NonNull<ScopeSlabs>,
        layout: Layout,
    ) -> Result<(NonNull<u8>, usize), AllocError> {
        let table = Table::<C>::TABLE;
        let plain = table
            .handle_index_for(layout)
            .ok_or_else(|| self.refused(AllocError::TooLarge, None, None))?;
        let class = table.index_of(plain, Purpose::Scoped);
        let shape = table.class(class);
        let (_, open_at) = Self::scope_slabs_layout()?;
        // SAFETY: there is an open one for each class behind the scope's slabs, which are the caller's.
        let (all, open) = unsafe {
            let open: *mut Open = slabs.byte_add(open_at).cast().as_ptr();
            (&raw mut (*slabs.as_ptr()).all, open.add(plain))
        };
        // SAFETY: both are the caller's; the scope holds its slabs, so they are valid and pinned, and the slot
        // lies inside its slab's run.
        unsafe {
            if (*open).slab.is_null() || (*open).used >= u32::from(shape.slots) {
                let (slab, _) = self.make_slab(self.root()?, Tag::ROOT, class)?;
                slab.set_link(Link {
                    next: *all,
                    prev: ptr::null(),
                });
                *all = slab;
                *open = Open { slab, used: 0 };
            }
            let slot = (*open).used as usize;
            (*open).used += 1;
            let base = (*(*open).slab).body().base;
            Ok((NonNull::new_unchecked(base.add(slot * shape.size())), class))
        }
    }

    /// Ends all that lives in a scope's slabs, and gives them back.
    pub(crate) fn end_scoped(&self, slabs: &ScopeSlabs) {
        let mut next = slabs.all;
        // SAFETY: the scope's list, each of whose slabs it holds until it is given back below.
        while let Some(slab) = unsafe { next.as_ref() } {
            // SAFETY: as above; the owner of the link is the scope.
            next = unsafe { slab.link() }.next;
            // SAFETY: as above; nobody lists the slab.
            unsafe { slab.set_link(Slab::UNLISTED) };
            // SAFETY: a scope's slabs are tagged.
            self.end_slab(unsafe { TaggedSlab::of(slab) });
        }
    }

    fn end_slab(&self, tagged: &TaggedSlab) {
        let class = usize::from(tagged.slab().identity().key().class());
        let (mut free, mut exhausted) = (0u64, 0u64);
        for slot in 0..Table::<C>::TABLE.class(class).slots() {
            match tagged.tag(slot).abandon(slot, Ids::<C>::LAST) {
                Abandoned::Free { is_exhausted } if is_exhausted => exhausted |= 1 << slot,
                Abandoned::Free { .. } => free |= 1 << slot,
                Abandoned::Kept => {}
            }
        }
        // SAFETY: the scope holds them, and they are free.
        unsafe { self.wipe_slots(tagged, free | exhausted) };
        // The free ones last, and all at once: they pin the slab while the others retire.
        if exhausted != 0 {
            self.put_orphan(tagged, exhausted, true);
        }
        if free != 0 {
            self.put_orphan(tagged, free, false);
        }
    }
}
