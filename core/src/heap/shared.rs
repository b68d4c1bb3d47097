//! The shared path: slots taken and given back one by one, without a local; and the making and
//! unmaking of slabs, which locals use too.

use super::Heap;
use crate::class::{Class, Purpose};
use crate::config::{Config, Table};
use crate::depot::{EpochDepot, Owned, SlotTake};
use crate::epoch::Tag;
use crate::error::{AllocError, FreeError};
use crate::handle::TaggedSlab;
use crate::pages::{Entry, MetaShape, set_entries};
use crate::slab::{FREE, Key, LIVE, MARKS_AT, Slab, SlotName};
use crate::sync::{AtomicU8, Ordering};
use core::alloc::Layout;
use core::ptr::NonNull;

impl<C: Config> Heap<C> {
    /// What a slab's metadata needs: a line, and in a checked heap a mark for each slot.
    pub(crate) const PLAIN_META: MetaShape = {
        let marks = if C::CHECKED { 64 } else { 0 };
        match Layout::from_size_align(MARKS_AT + marks, 64) {
            Ok(layout) => MetaShape::plain(layout),
            Err(_) => panic!("a slab's metadata is a few lines"),
        }
    };

    /// What a slab of a class in a depot needs. One with tags is ready if it has an id.
    pub(super) fn meta_of(
        &self,
        depot: &EpochDepot<C::Lock>,
        class: &Class,
        is_ready: bool,
    ) -> MetaShape {
        if class.is_tagged {
            MetaShape::tagged(Layout::new::<TaggedSlab>(), is_ready)
        } else if self.mixed.is_depot(depot.id()) {
            Self::MIXED_META
        } else {
            Self::PLAIN_META
        }
    }

    /// Takes one slot of a class, in the era that `tag` says.
    #[inline]
    pub(crate) fn alloc_slot(
        &self,
        depot: &EpochDepot<C::Lock>,
        tag: Tag,
        class: usize,
    ) -> Result<NonNull<u8>, AllocError> {
        let key = Key::new(depot.id(), class as u8);
        let start = || {
            if C::SHUFFLED {
                self.seed() as u32
            } else {
                C::cpu()
            }
        };
        match depot.class_list(class).take_slot(key, C::SHUFFLED, start) {
            SlotTake::Taken(slab, bit) if depot.tag() == tag => {
                Ok(self.slot(slab, bit, Table::<C>::TABLE.class(class)))
            }
            SlotTake::Taken(slab, bit) | SlotTake::Strayed(slab, bit) => {
                // SAFETY: the take left this context holding the bit.
                unsafe { self.give_back_stray(slab, bit) };
                self.alloc_slot_slow(depot, tag, class)
            }
            SlotTake::Empty => self.alloc_slot_slow(depot, tag, class),
        }
    }

    #[cold]
    #[inline(never)]
    fn alloc_slot_slow(
        &self,
        depot: &EpochDepot<C::Lock>,
        tag: Tag,
        class: usize,
    ) -> Result<NonNull<u8>, AllocError> {
        let closed = || self.refused(AllocError::EpochClosed, Some(depot), Some(class));
        if depot.tag() != tag {
            return Err(closed());
        }
        let shape = Table::<C>::TABLE.class(class);
        let class_list = depot.class_list(class);
        let (slab, bit) = match class_list.take_slot_locked(shape) {
            Some((slab, bit, was_cached)) => {
                if was_cached {
                    self.uncached(shape.slab_bytes());
                }
                (slab, bit)
            }
            None => {
                let (slab, _) = self.make_slab(depot, tag, class)?;
                (slab, class_list.publish(Owned(slab), shape))
            }
        };
        if depot.tag() != tag {
            // The epoch was closed meanwhile, and the depot may serve another: see `depot::depot`.
            // SAFETY: the take left this context holding the bit.
            unsafe { self.give_back_stray(slab, bit) };
            return Err(closed());
        }
        Ok(self.slot(slab, bit, shape))
    }

    /// The object in the slot `bit`, which the caller holds; it is live from here on.
    #[inline]
    fn slot(&self, slab: &Slab, bit: u64, class: &Class) -> NonNull<u8> {
        let slot = bit.trailing_zeros();
        if C::CHECKED && !class.is_tagged {
            mark(slab, slot).store(LIVE, Ordering::Relaxed);
        }
        // SAFETY: the caller holds a slot, so the slab is pinned; slots lie inside its run.
        unsafe { NonNull::new_unchecked(slab.body().base.add(slot as usize * class.size())) }
    }

    /// Frees an object of a class: its slot goes back, and its epoch has one less, if it lies in a mixed slab.
    ///
    /// # Safety
    /// As for [`Heap::free`], for a layout of this class.
    #[inline]
    pub(super) unsafe fn free_slot_held(
        &self,
        object: NonNull<u8>,
        class: usize,
    ) -> Result<(), FreeError> {
        // SAFETY: the caller's promise; the heap outlives the call.
        unsafe {
            // Before, for the slab may serve others once the slot is given.
            let held = if Table::<C>::BUMPS {
                let slab = self.entry(object.addr().get()).slab();
                slab.and_then(|slab| self.held(slab, object, class))
            } else {
                None
            };
            self.free_slot(object, class)?;
            if let Some((_, position)) = held {
                position.unpin(Self::pin_of(class));
            }
            Ok(())
        }
    }

    /// Gives one slot back.
    ///
    /// # Safety
    /// As for [`Heap::free`], for a layout of this class.
    #[inline]
    pub(crate) unsafe fn free_slot(
        &self,
        object: NonNull<u8>,
        class: usize,
    ) -> Result<(), FreeError> {
        let address = object.addr().get();
        let shape = Table::<C>::TABLE.class(class);
        // SAFETY: the heap outlives the call.
        let slab = unsafe { self.entry(address).slab() }.ok_or(FreeError::Foreign)?;
        // SAFETY: the object is live, so its bit is held and the slab pinned.
        let body = unsafe { slab.body() };
        let bit = 1 << shape.slot_of(address.wrapping_sub(body.base.addr()));
        // SAFETY: a slab's depot is valid for as long as the heap.
        let depot = unsafe { body.depot_of::<C::Lock>() };
        // SAFETY: the caller gives up the object, which holds the bit.
        unsafe { self.give_back(depot.class_list(class), slab, bit, shape, || 0) }
    }

    /// A new slab, owned by the caller, and whether its slots read as zero.
    pub(crate) fn make_slab<'s>(
        &self,
        depot: &EpochDepot<C::Lock>,
        tag: Tag,
        class: usize,
    ) -> Result<(&'s Slab, bool), AllocError> {
        self.try_make_slab(depot, tag, class)
            .map_err(|error| self.refused(error, Some(depot), Some(class)))
    }

    fn try_make_slab<'s>(
        &self,
        depot: &EpochDepot<C::Lock>,
        tag: Tag,
        class: usize,
    ) -> Result<(&'s Slab, bool), AllocError> {
        let shape = Table::<C>::TABLE.class(class);
        if Self::counts(class) {
            depot.use_class(class);
        }
        let meta = self.meta_of(depot, shape, true);
        let (granules, align) = (u32::from(shape.granules), u32::from(shape.align));
        let (slab, run, zero) = self.with_reclaim(|| {
            let (is_open, make_room) =
                (|| depot.tag() == tag, |short| self.make_room(depot, short));
            let blocks = depot.blocks();
            // SAFETY: the depot is one of this heap.
            unsafe {
                self.pages
                    .take_slab(blocks, meta, granules, align, is_open, make_room)
            }
        })?;
        // SAFETY: metadata of a tagged class is a tagged slab's.
        let tagged = shape.is_tagged.then(|| unsafe { TaggedSlab::of(slab) });
        if let Some(tagged) = tagged {
            self.name_slab(tagged).inspect_err(|_| {
                // SAFETY: the slab and its run were just taken, and nobody else knows them.
                unsafe {
                    let slab = Some((slab, self.meta_of(depot, shape, false)));
                    let base = run.base.addr();
                    self.pages
                        .put_slab(depot.blocks(), slab, run.chunk, base, granules);
                }
            })?;
            tagged.set_base(run.base);
        }
        if Self::counts(class) {
            depot.count_slots(shape.slots() as isize);
        }
        self.count_slab(depot, class, true);
        let body = run.body(depot, granules);
        // SAFETY: the slab and its run were just taken, so they are this context's alone.
        unsafe {
            slab.adopt(Key::new(depot.id(), class as u8), body);
            let is_home = depot.id() == ROOT_DEPOT && class < Table::<C>::TABLE.len();
            let entry = Entry::of_slab(slab, class as u8, is_home);
            set_entries::<C::Provider>(run.chunk, run.base.addr(), shape.named_granules(), entry);
        }
        Ok((slab, zero))
    }

    /// Whether slots of this class are counted as their depot's. A scope's are the scope's own affair.
    pub(super) fn counts(class: usize) -> bool {
        Table::<C>::TABLE.purpose(class) != Purpose::Scoped
    }

    /// Checks that `object` begins a live object of `class`, and notes that it is free.
    #[inline]
    pub(crate) fn check_free(&self, object: NonNull<u8>, class: usize) -> Result<(), FreeError> {
        let address = object.addr().get();
        let entry = self.entry(address);
        // SAFETY: the heap outlives the call.
        let slab = unsafe { entry.slab() }.ok_or(FreeError::Foreign)?;
        if entry.class() != class {
            return Err(FreeError::WrongLayout);
        }
        // `Relaxed`, and not one read-modify-write: two threads that free the same object at the
        // same moment may both pass, and are found when their words meet.
        let slot = self.check_slot(slab, class, address)?;
        // SAFETY: the slot is one of the slab's, in a checked heap.
        unsafe { slot.mark() }.store(FREE, Ordering::Relaxed);
        Ok(())
    }

    /// Checks that a live slot of `slab`, which is of this class, begins at an address: which. For a checked heap.
    #[inline]
    pub(crate) fn check_slot(
        &self,
        slab: &Slab,
        class: usize,
        address: usize,
    ) -> Result<SlotName, FreeError> {
        let shape = Table::<C>::TABLE.class(class);
        // If the pointer is to a live object the slab is pinned. If it is wild, nothing of the body is followed, and what
        // is computed from it is checked by the mark.
        // SAFETY: as above.
        let offset = address.wrapping_sub(unsafe { slab.body() }.base.addr());
        let slot = shape.slot_of(offset);
        if slot >= u32::from(shape.slots) {
            return Err(FreeError::Foreign);
        }
        if slot as usize * shape.size() != offset {
            return Err(FreeError::Interior);
        }
        let slot = SlotName::new(slab, slot as usize);
        // SAFETY: the slot is one of the slab's, in a checked heap.
        if unsafe { slot.mark() }.load(Ordering::Relaxed) != LIVE {
            return Err(FreeError::DoubleFree);
        }
        Ok(slot)
    }
}

/// The number of the root epoch's depot: the first that is made.
pub(crate) const ROOT_DEPOT: u16 = 0;

/// The mark of a slot of a checked heap. Off-page, so no stray write of the program reaches it. `Relaxed`: whoever passes
/// an object on orders its mark with it.
#[inline]
fn mark(slab: &Slab, slot: u32) -> &AtomicU8 {
    // SAFETY: the callers' heap is a checked one.
    unsafe { SlotName::new(slab, slot as usize & 63).mark() }
}
