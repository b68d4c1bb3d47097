//! What is too large for a class: runs in a block, extents, regions of their own.
//!
//! The first two are slabs of one object, whose whole life is in their identity: see
//! `Slab::claim_single`. Regions are no chunks, and so in no page map: the tree of regions has them.

use super::counters::RouteCounters;
use super::{Heap, Route};
use crate::class::{GRANULE, is_extent};
use crate::config::Config;
use crate::depot::EpochDepot;
use crate::epoch::Tag;
use crate::error::{AllocError, FreeError};
use crate::pages::{Entry, set_entries};
use crate::provider::{Capabilities, PageProvider};
use crate::slab::Key;
use core::alloc::Layout;
use core::ptr::NonNull;

impl<C: Config> Heap<C> {
    /// Allocates what no class serves; whether the object reads as zero.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_large(
        &self,
        depot: &EpochDepot<C::Lock>,
        tag: Tag,
        layout: Layout,
    ) -> Result<(NonNull<u8>, bool), AllocError> {
        self.try_alloc_large(depot, tag, layout)
            .map_err(|error| self.refused(error, Some(depot), None))
    }

    /// As [`Heap::alloc_large`], and the bytes of the layout are zero.
    pub(crate) fn alloc_large_zeroed(
        &self,
        depot: &EpochDepot<C::Lock>,
        tag: Tag,
        layout: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        let (object, is_zero) = self.alloc_large(depot, tag, layout)?;
        if !is_zero {
            // SAFETY: the object has at least this size, and nobody uses it yet.
            unsafe { self.pages.zero(object, layout.size()) };
        }
        Ok(object)
    }

    fn try_alloc_large(
        &self,
        depot: &EpochDepot<C::Lock>,
        tag: Tag,
        layout: Layout,
    ) -> Result<(NonNull<u8>, bool), AllocError> {
        let pages = &self.pages;
        match Route::of::<C>(layout, pages.provider()) {
            Route::Run { granules, align } => self.alloc_single(depot, tag, granules, align),
            Route::Extent { granules } => self.alloc_single(depot, tag, granules, 1),
            Route::Region { bytes, align } => {
                let taken = self.with_reclaim(|| {
                    // SAFETY: the depot is one of this heap.
                    unsafe {
                        pages.take_region(depot.blocks(), bytes, align, || depot.tag() == tag)
                    }
                })?;
                depot.add_large(bytes);
                self.counters.regions.add(bytes);
                Ok(taken)
            }
            Route::Class(_) | Route::TooLarge => Err(AllocError::TooLarge),
        }
    }

    /// Makes a slab of one object.
    fn alloc_single(
        &self,
        depot: &EpochDepot<C::Lock>,
        tag: Tag,
        granules: u32,
        align: u32,
    ) -> Result<(NonNull<u8>, bool), AllocError> {
        let (slab, run, zero) = self.with_reclaim(|| {
            let (is_open, make_room) =
                (|| depot.tag() == tag, |short| self.make_room(depot, short));
            let meta = Self::PLAIN_META;
            // SAFETY: the depot is one of this heap.
            unsafe {
                self.pages
                    .take_slab(depot.blocks(), meta, granules, align, is_open, make_room)
            }
        })?;
        let bytes = granules as usize * GRANULE;
        depot.add_large(bytes);
        self.singles(granules).add(bytes);
        let (class, body) = (Key::SINGLE, run.body(depot, granules));
        let entry = Entry::of_slab(slab, class, false);
        // SAFETY: the slab and its run were just taken, so they are this context's alone.
        unsafe {
            slab.adopt(Key::new(depot.id(), class), body);
            // The first granule alone: nothing begins in the others.
            set_entries::<C::Provider>(run.chunk, run.base.addr(), 1, entry);
            Ok((NonNull::new_unchecked(run.base), zero))
        }
    }

    /// The counters of slabs of one object, of this length.
    fn singles(&self, granules: u32) -> &RouteCounters {
        if is_extent(granules as usize) {
            &self.counters.long_runs
        } else {
            &self.counters.runs
        }
    }

    /// Frees what no class serves.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn free_large(
        &self,
        object: NonNull<u8>,
        layout: Layout,
    ) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe { self.try_free_large(object, layout) }.map_err(|error| self.refused_free(error))
    }

    /// # Safety
    /// As for [`Heap::free`].
    unsafe fn try_free_large(&self, object: NonNull<u8>, layout: Layout) -> Result<(), FreeError> {
        let length = match Route::of::<C>(layout, self.pages.provider()) {
            Route::Run { granules, .. } => granules,
            // A region may have been made shorter.
            Route::Extent { .. } if self.is_region(object) => {
                let bytes = self.region_bytes(layout).ok_or(FreeError::WrongLayout)?;
                // SAFETY: the caller's promise.
                return unsafe { self.free_region(object, bytes, |is_short| is_short) };
            }
            Route::Extent { granules } => granules,
            Route::Region { bytes, .. } => {
                // SAFETY: the caller's promise.
                return unsafe { self.free_region(object, bytes, |is_short| !is_short) };
            }
            Route::Class(_) | Route::TooLarge => return Err(FreeError::WrongLayout),
        };
        // SAFETY: the caller's promise.
        unsafe { self.free_single(object, |granules| granules == length) }
    }

    /// Frees an object that has a region of its own of so many bytes.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    pub(super) unsafe fn free_region(
        &self,
        object: NonNull<u8>,
        bytes: usize,
        is_meant: impl FnOnce(bool) -> bool,
    ) -> Result<(), FreeError> {
        // What comes back from such a provider is fresh, and it need not be touched to be gone.
        let is_gone = self
            .pages
            .provider()
            .capabilities()
            .contains(Capabilities::FRESH_ZERO);
        let wipe = |object: NonNull<u8>| {
            if !is_gone {
                // SAFETY: the caller gives up the object, which is so long, and nobody else took it back.
                unsafe { self.wipe(object, bytes) };
            }
        };
        // SAFETY: the caller gives up the object.
        let blocks = unsafe {
            self.pages
                .put_region(object.addr().get(), bytes, is_meant, wipe)
        }?;
        if let Some(depot) = self.depots().find(|depot| depot.blocks() == blocks) {
            depot.remove_large(bytes);
        }
        self.counters.regions.remove(bytes);
        Ok(())
    }

    /// Frees a single object in a chunk, if `is_it` says of its length that it is the one that is meant.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    pub(super) unsafe fn free_single(
        &self,
        object: NonNull<u8>,
        is_it: impl FnOnce(u32) -> bool,
    ) -> Result<(), FreeError> {
        let address = object.addr().get();
        // SAFETY: the heap outlives the call.
        let slab = unsafe { self.entry(address).slab() }.ok_or(FreeError::Foreign)?;
        // Read once, before anything that is checked: the claim is for this life and no other. For a wild pointer nothing
        // of the body is followed before the claim is won.
        let (seen, body) = slab.seen();
        let key = seen.key();
        if key.class() != Key::SINGLE {
            return Err(if key.is_dead() {
                FreeError::DoubleFree
            } else {
                FreeError::WrongLayout
            });
        }
        if !is_it(body.granules) {
            return Err(FreeError::WrongLayout);
        }
        if body.base.addr() != address {
            return Err(FreeError::Interior);
        }
        let Some(reusable) = slab.claim_single(seen) else {
            return Err(FreeError::DoubleFree);
        };
        let metadata = reusable.then_some((slab, Self::PLAIN_META));
        // SAFETY: the claim made this context the owner; the object is the caller's to give up; depots
        // are valid for as long as the heap.
        let (is_closed, bytes) = unsafe {
            let depot = body.depot_of::<C::Lock>();
            let bytes = body.granules as usize * GRANULE;
            depot.remove_large(bytes);
            self.singles(body.granules).remove(bytes);
            self.wipe(object, bytes);
            set_entries::<C::Provider>(body.chunk.cast(), address, 1, Entry::NONE);
            let chunk = body.chunk.cast();
            self.pages
                .put_slab(depot.blocks(), metadata, chunk, address, body.granules);
            (!depot.tag().is_open(), bytes)
        };
        self.settle_depot(is_closed, bytes);
        Ok(())
    }

    /// Makes a large object fit `new` without copying it, where that can be done: an extent that grows into free blocks
    /// behind it or gives up its end, a region that the provider moves.
    ///
    /// # Safety
    /// As for [`Heap::resize`].
    #[cold]
    #[inline(never)]
    pub unsafe fn resize_large(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        let provider = self.pages.provider();
        match (Route::of::<C>(old, provider), Route::of::<C>(new, provider)) {
            (Route::Extent { granules: from }, Route::Extent { granules: to })
                if !self.is_region(object) =>
            {
                // SAFETY: the caller's promise.
                unsafe { self.resize_extent(object, from, to) }.then_some(object)
            }
            // A region stays one when it is made shorter.
            (
                Route::Extent { .. } | Route::Region { .. },
                Route::Extent { .. } | Route::Region { .. },
            ) if self.is_region(object) => {
                let (from, to) = (self.region_bytes(old)?, self.region_bytes(new)?);
                let is_short = matches!(Route::of::<C>(new, provider), Route::Extent { .. });
                let shape = (to, new.align().max(<C::Provider>::CHUNK_SIZE), is_short);
                // SAFETY: the caller's promise.
                unsafe { self.resize_region(object, from, shape) }
            }
            _ => None,
        }
    }

    /// Whether an object that no class serves has a region of its own.
    fn is_region(&self, object: NonNull<u8>) -> bool {
        self.entry(object.addr().get()).is_none()
    }

    /// Bytes of a region for a layout.
    fn region_bytes(&self, layout: Layout) -> Option<usize> {
        let page = self.pages.provider().page_size().max(GRANULE);
        let bytes = layout.size().max(1).checked_next_multiple_of(page);
        bytes.filter(|bytes| *bytes <= isize::MAX as usize)
    }

    /// # Safety
    /// The object is the caller's, an extent of `from` granules.
    unsafe fn resize_extent(&self, object: NonNull<u8>, from: u32, to: u32) -> bool {
        let address = object.addr().get();
        // SAFETY: the heap outlives the call.
        let Some(slab) = (unsafe { self.entry(address).slab() }) else {
            return false;
        };
        let (seen, body) = slab.seen();
        let is_it = seen.key().class() == Key::SINGLE
            && body.granules == from
            && body.base.addr() == address;
        if !is_it {
            return false;
        }
        let chunk = body.chunk.cast();
        // SAFETY: the object is the caller's, so its slab is pinned, and what it gives up is used no more.
        if unsafe { self.pages.resize_extent(chunk, body.base, from, to) }.is_none() {
            return false;
        }
        // SAFETY: the caller's object pins the slab; nobody else changes its length.
        unsafe { slab.set_granules(to) };
        let (from, to) = (from as usize * GRANULE, to as usize * GRANULE);
        // SAFETY: a slab's depot is valid for as long as the heap.
        let depot = unsafe { body.depot_of::<C::Lock>() };
        depot.resize_large(from, to);
        self.counters.long_runs.resize(from, to);
        if to < from {
            self.settle_depot(!depot.tag().is_open(), from - to);
        }
        true
    }

    /// # Safety
    /// The object is the caller's, in a region of its own of `from` bytes.
    unsafe fn resize_region(
        &self,
        object: NonNull<u8>,
        from: usize,
        shape: (usize, usize, bool),
    ) -> Option<NonNull<u8>> {
        let resize = || {
            // SAFETY: the caller's promise.
            unsafe { self.pages.resize_region(object.addr().get(), from, shape) }
        };
        let moved = match resize() {
            // What is empty may be all that is in its way.
            Err(AllocError::Limit) => {
                self.reclaim();
                resize()
            }
            moved => moved,
        };
        let (moved, blocks) = moved.ok()?;
        if let Some(depot) = self.depots().find(|depot| depot.blocks() == blocks) {
            depot.resize_large(from, shape.0);
        }
        self.counters.regions.resize(from, shape.0);
        Some(moved)
    }
}
