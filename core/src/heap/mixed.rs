//! Mixed slabs: where an object lies that is expected to outlive its epoch.
//!
//! A survivor in a bump block keeps the whole block. So a local that saw objects of a class outlive their epochs allocates those that
//! follow in the slabs of one depot, which are shared by all epochs: a survivor there takes a slot, as in the root epoch. It is its epoch's
//! as before, whose record it pins. Behind the slab's marks each slot has a *holder*, the index of that record, so
//!
//! ```text
//! pins of a record  =  bump blocks that count there  +  live objects of mixed slabs whose holder it is.
//! ```
//!
//! The depot serves an epoch of its own, which the heap opens at first need and closes at once. It pins the record for good and the record
//! does not lead to it, so no token does. Its slabs' metadata is of a kind of its own.
//!
//! # Orderings
//!
//! `depot` is set with `Release`, under the ring's lock, and read with `Acquire`: the reader sees the depot, its tag and the rest of this.
//! `id` is `Relaxed`: a thread that has an object of such a slab got it from one that had seen the depot. A holder is `Relaxed`: it is written
//! before the object is handed out, and read by the thread that gives it up.

use super::Heap;
use super::blocks::epoch_of;
use crate::config::{Config, Table};
use crate::depot::EpochDepot;
use crate::epoch::{Epoch, Pin, Position};
use crate::error::AllocError;
use crate::pages::{MetaShape, NO_DEPOT};
use crate::slab::MARKS_AT;
use crate::slab::Slab;
use crate::sync::{AtomicPtr, AtomicU32, Ordering};
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// The depot of the mixed slabs, once there is one, its number, and where the record of its epoch is.
#[derive(Debug)]
pub(super) struct Mixed<R> {
    /// `Release` and `Acquire`: see the head.
    depot: AtomicPtr<EpochDepot<R>>,
    /// `Relaxed`: see the head.
    id: AtomicU32,
    /// `Relaxed`: set under the ring's lock, where it decides.
    index: AtomicU32,
}

impl<R> Mixed<R> {
    pub(super) const fn new() -> Self {
        Self {
            depot: AtomicPtr::new(ptr::null_mut()),
            id: AtomicU32::new(NO_DEPOT as u32),
            index: AtomicU32::new(u32::MAX),
        }
    }

    /// Whether the depot is that of the mixed slabs.
    pub(super) fn is_depot(&self, id: u16) -> bool {
        self.id.load(Ordering::Relaxed) == u32::from(id)
    }

    /// Whether the epoch at an index is the one that the heap opened for mixed slabs.
    pub(super) fn is_epoch(&self, index: usize) -> bool {
        self.index.load(Ordering::Relaxed) as usize == index
    }

    /// Whether there is a depot.
    pub(super) fn is_there(&self) -> bool {
        !self.depot.load(Ordering::Relaxed).is_null()
    }
}

impl<C: Config> Heap<C> {
    /// How far behind a slab its holders begin: behind its marks, if it has any.
    const HOLDERS_AT: usize = MARKS_AT + if C::CHECKED { 64 } else { 0 };

    /// What a mixed slab's metadata needs: what another needs, and a holder for each slot.
    pub(super) const MIXED_META: MetaShape = {
        let holders = 64 * size_of::<AtomicU32>();
        match Layout::from_size_align(Self::HOLDERS_AT + holders, 64) {
            Ok(layout) => MetaShape::mixed(layout),
            Err(_) => panic!("a slab's metadata is a few lines"),
        }
    };

    /// The depot of the mixed slabs.
    pub(crate) fn mixed_depot(&self) -> Result<&EpochDepot<C::Lock>, AllocError> {
        // SAFETY: a depot that was set is valid for as long as the heap.
        match unsafe { self.mixed.depot.load(Ordering::Acquire).as_ref() } {
            Some(depot) => Ok(depot),
            None => self.make_mixed(),
        }
    }

    #[cold]
    fn make_mixed(&self) -> Result<&EpochDepot<C::Lock>, AllocError> {
        let epoch = self.open_epoch().map_err(|_| AllocError::OutOfMemory)?;
        let depot = self.attach_mixed(epoch);
        if !self.mixed.is_epoch(epoch.index()) {
            // There was no memory, or another thread came first.
            let _closed = self.close(epoch);
        }
        depot
    }

    /// Gives the epoch a depot for mixed slabs, unless there is one: what is there then.
    fn attach_mixed(&self, epoch: Epoch) -> Result<&EpochDepot<C::Lock>, AllocError> {
        let positions = self.positions().map_err(|_| AllocError::OutOfMemory)?;
        let position = positions
            .get(epoch.index())
            .ok_or(AllocError::OutOfMemory)?;
        // Each turn but the last makes a depot, and depots are bounded by their numbers.
        loop {
            let depot = self.books.with(|_| {
                // SAFETY: a depot that was set is valid for as long as the heap; it was set under this lock.
                let there = unsafe { self.mixed.depot.load(Ordering::Relaxed).as_ref() };
                if there.is_some() {
                    return Ok(there);
                }
                let Some(depot) = self.depot_for(positions) else {
                    return Ok(None);
                };
                // A program that goes through all epochs may have closed this one, or allocated there.
                if position.depot().is_some() || !position.pin(epoch.era_id(), Pin::BLOCK) {
                    return Err(AllocError::EpochClosed);
                }
                position.shut(epoch.era());
                self.begin_depot(epoch, depot);
                let (id, index) = (u32::from(depot.id()), epoch.index() as u32);
                self.mixed.id.store(id, Ordering::Relaxed);
                self.mixed.index.store(index, Ordering::Relaxed);
                let depot_at = ptr::from_ref(depot).cast_mut();
                self.mixed.depot.store(depot_at, Ordering::Release);
                Ok(Some(depot))
            });
            match depot? {
                Some(depot) => return Ok(depot),
                None => self.make_depot()?,
            }
        }
    }

    /// Whether a slab, which the caller pins, is a mixed one.
    #[inline]
    pub(crate) fn is_mixed(&self, slab: &Slab) -> bool {
        Table::<C>::BUMPS && self.mixed.is_depot(slab.identity().key().depot())
    }

    /// The holder of the slot at an address.
    ///
    /// # Safety
    /// The slab is a mixed one of this class, and the caller has the slot.
    unsafe fn holder<'s>(&self, slab: &'s Slab, class: usize, address: usize) -> &'s AtomicU32 {
        // SAFETY: the caller's promise.
        let offset = address.wrapping_sub(unsafe { slab.body() }.base.addr());
        let slot = Table::<C>::TABLE.class(class).slot_of(offset) as usize & 63;
        let at = ptr::from_ref(slab).addr() + Self::HOLDERS_AT + slot * size_of::<AtomicU32>();
        // SAFETY: 64 holders follow the slab and its marks, in the same piece of exposed metadata memory, which stays until the
        // heap is dropped; they are only accessed atomically.
        unsafe { &*ptr::with_exposed_provenance(at) }
    }

    /// Says whose an object is that was just allocated in a mixed slab: of the epoch at an index, where it is counted.
    ///
    /// # Safety
    /// It is of this class, in a mixed slab, and the caller's.
    pub(crate) unsafe fn set_holder(&self, object: NonNull<u8>, class: usize, index: u32) {
        let address = object.addr().get();
        // SAFETY: the caller's promise; the heap outlives the call.
        unsafe {
            if let Some(slab) = self.entry(address).slab() {
                self.holder(slab, class, address)
                    .store(index, Ordering::Relaxed);
            }
        }
    }

    /// Where the epoch of an object is that lies in a mixed slab, and the slot's pin there.
    ///
    /// # Safety
    /// The object is live, of this class and in `slab`.
    pub(super) unsafe fn held(
        &self,
        slab: &Slab,
        object: NonNull<u8>,
        class: usize,
    ) -> Option<(u32, &Position<EpochDepot<C::Lock>>)> {
        if !self.is_mixed(slab) {
            return None;
        }
        // SAFETY: the caller's promise.
        let holder = unsafe { self.holder(slab, class, object.addr().get()) };
        let index = holder.load(Ordering::Relaxed);
        Some((index, self.position_at(index as usize)?))
    }

    /// An object of a class ends: if it lies in a mixed slab its epoch has one less.
    ///
    /// # Safety
    /// It was live until the caller gave it up, and is of this class and in `slab`.
    #[inline]
    pub(crate) unsafe fn end_hold(&self, slab: &Slab, object: NonNull<u8>, class: usize) {
        // SAFETY: the caller's promise.
        if let Some((_, position)) = unsafe { self.held(slab, object, class) } {
            position.unpin(Self::pin_of(class));
        }
    }

    /// What an object of a class in a mixed slab is counted as.
    pub(crate) const fn pin_of(class: usize) -> Pin {
        Pin::object(Table::<C>::TABLE.class(class).size())
    }

    /// The epoch in which a live object stays when it grows elsewhere, as [`Local::resize`](crate::Local::resize) has it: that of one in a
    /// bump block or in a slab that epochs share. `None` if it lies elsewhere, or its epoch is closed.
    #[must_use]
    pub fn epoch_to_grow_in(&self, object: NonNull<u8>) -> Option<Epoch> {
        if !Table::<C>::BUMPS {
            return None;
        }
        let entry = self.entry(object.addr().get());
        if let Some(block) = self.block_of(entry) {
            let epoch = epoch_of(block)?;
            let position = self.position(epoch)?;
            return position.is_open_in(epoch.era_id()).then_some(epoch);
        }
        let class = entry.class();
        // SAFETY: the heap outlives the call.
        let slab = unsafe { entry.slab() }.filter(|_| class < Table::<C>::TABLE.len())?;
        // SAFETY: a live object pins its slab, whose class its entry tells.
        let (index, position) = unsafe { self.held(slab, object, class) }?;
        Epoch::from_parts(index, position.open_era())
    }
}
