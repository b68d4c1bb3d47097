//! What is too large for a class: runs in a block, runs of blocks, regions of their own.
//!
//! The first two are slabs of one object, whose whole life is in their identity: see
//! `Slab::claim_single`. Regions begin at a multiple of the chunk size, where no object of a chunk
//! ever is, so an address tells which of the two it is.

use super::tally::RouteTally;
use super::{Heap, Route};
use crate::chunk::{Entry, Run, set_entries};
use crate::class::{BLOCK, GRANULE};
use crate::config::Config;
use crate::depot::Row;
use crate::epoch::Tag;
use crate::error::{AllocError, FreeError};
use crate::provider::{Capabilities, PageProvider};
use crate::slab::{Body, Key, Slab};
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use lock_api::RawMutex;

impl<P: PageProvider, R: RawMutex, C: Config> Heap<P, R, C> {
    /// Allocates what no class serves; whether the object reads as zero.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_large(
        &self,
        row: &Row<R>,
        tag: Tag,
        layout: Layout,
    ) -> Result<(NonNull<u8>, bool), AllocError> {
        self.try_alloc_large(row, tag, layout)
            .map_err(|error| self.refused(error, Some(row), None))
    }

    fn try_alloc_large(
        &self,
        row: &Row<R>,
        tag: Tag,
        layout: Layout,
    ) -> Result<(NonNull<u8>, bool), AllocError> {
        let pages = &self.pages;
        let (is_open, relieve) = (|| row.tag() == tag, |short| self.relieve(row, short));
        let (blocks_of, meta) = (row.blocks(), Self::PLAIN_META);
        match Route::of::<P, C>(layout, pages.provider().page_size()) {
            Route::Run { granules, align } => {
                let taken = self.pressed(|| {
                    // SAFETY: the row is one of this heap.
                    unsafe { pages.take_slab(blocks_of, meta, granules, align, is_open, relieve) }
                })?;
                Ok(self.begin_single(row, taken, Key::RUN, granules))
            }
            Route::Long { blocks } => {
                let taken = self.pressed(|| {
                    // SAFETY: the row is one of this heap.
                    unsafe { pages.take_long(blocks_of, meta, blocks, is_open, relieve) }
                })?;
                Ok(self.begin_single(row, taken, Key::LONG, blocks))
            }
            Route::Region { bytes, align } => {
                let taken = self.pressed(|| {
                    // SAFETY: the row is one of this heap.
                    unsafe { pages.take_region(blocks_of, bytes, align, is_open) }
                })?;
                row.add_large(bytes);
                self.tally.regions.add(bytes);
                Ok(taken)
            }
            Route::Class(_) | Route::TooLarge => Err(AllocError::TooLarge),
        }
    }

    /// Makes a slab of one object of what was taken. `length` is in the route's unit.
    fn begin_single(
        &self,
        row: &Row<R>,
        (slab, run, zero): (&Slab, Run, bool),
        class: u8,
        length: u32,
    ) -> (NonNull<u8>, bool) {
        let bytes = self.route_of(class).1 * length as usize;
        row.add_large(bytes);
        self.route_of(class).0.add(bytes);
        let body = Body {
            base: run.base,
            row: ptr::from_ref(row).cast(),
            chunk: run.chunk.cast(),
            granules: length,
        };
        // SAFETY: the slab and its run were just taken, so they are this context's alone.
        unsafe {
            slab.adopt(Key::new(row.id(), class), body);
            // The first granule alone: nothing begins in the others.
            set_entries::<P>(
                run.chunk,
                run.base.addr(),
                1,
                Entry::new(slab, class, false),
            );
            (NonNull::new_unchecked(run.base), zero)
        }
    }

    /// The tally of a slab of one object, and the bytes of a unit of its length.
    pub(super) fn route_of(&self, class: u8) -> (&RouteTally, usize) {
        if class == Key::RUN {
            (&self.tally.runs, GRANULE)
        } else {
            (&self.tally.long_runs, BLOCK)
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
        let (class, length) = match Route::of::<P, C>(layout, self.pages.provider().page_size()) {
            Route::Run { granules, .. } => (Key::RUN, granules),
            Route::Long { blocks } => (Key::LONG, blocks),
            // SAFETY: the caller's promise.
            Route::Region { bytes, .. } => return unsafe { self.free_region(object, bytes) },
            Route::Class(_) | Route::TooLarge => return Err(FreeError::WrongLayout),
        };
        // SAFETY: the caller's promise.
        unsafe { self.free_single(object, |of, long| of == class && long == length) }
    }

    /// Frees an object that has a region of its own of so many bytes.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    pub(super) unsafe fn free_region(
        &self,
        object: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), FreeError> {
        // What comes back from such a provider is fresh, and it need not be touched to be gone.
        let is_gone = self
            .pages
            .provider()
            .capabilities()
            .contains(Capabilities::FRESH_ZERO);
        if C::ZERO_ON_FREE && !is_gone && self.pages.region_at(object.addr().get()) == Ok(bytes) {
            // SAFETY: the caller gives up the object, which is so long.
            unsafe { self.wipe(object, bytes) };
        }
        // SAFETY: the caller gives up the object.
        let blocks = unsafe { self.pages.put_region(object.addr().get(), bytes) }?;
        if let Some(row) = self.rows().find(|row| row.blocks() == blocks) {
            row.remove_large(bytes);
        }
        self.tally.regions.remove(bytes);
        Ok(())
    }

    /// Frees a single object in a chunk, if `is_it` says of its class and its length that it is the one that is meant.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    pub(super) unsafe fn free_single(
        &self,
        object: NonNull<u8>,
        is_it: impl FnOnce(u8, u32) -> bool,
    ) -> Result<(), FreeError> {
        let address = object.addr().get();
        // SAFETY: the heap outlives the call.
        let slab = unsafe { self.entry(address).slab() }.ok_or(FreeError::Foreign)?;
        // Read once, before anything that is checked: the claim is for this life and no other. For a wild pointer nothing
        // of the body is followed before the claim is won.
        let (seen, body) = slab.seen();
        let key = seen.key();
        let class = key.class();
        if class < Key::RUN {
            return Err(if key.is_dead() {
                FreeError::DoubleFree
            } else {
                FreeError::WrongLayout
            });
        }
        if !is_it(class, body.granules) {
            return Err(FreeError::WrongLayout);
        }
        if body.base.addr() != address {
            return Err(FreeError::Interior);
        }
        let Some(reusable) = slab.claim_single(seen) else {
            return Err(FreeError::DoubleFree);
        };
        let metadata = reusable.then_some((slab, Self::PLAIN_META));
        // SAFETY: the claim made this context the owner; the object is the caller's to give up; rows
        // are valid for as long as the heap.
        let (is_closed, bytes) = unsafe {
            let row = &*body.row.cast::<Row<R>>();
            let (route, unit) = self.route_of(class);
            let bytes = unit * body.granules as usize;
            row.remove_large(bytes);
            route.remove(bytes);
            self.wipe(object, bytes);
            set_entries::<P>(body.chunk.cast(), address, 1, Entry::NONE);
            if class == Key::RUN {
                self.pages
                    .put_slab(metadata, body.chunk.cast(), address, body.granules);
            } else {
                self.pages.put_long(
                    row.blocks(),
                    metadata,
                    body.chunk.cast(),
                    address,
                    body.granules,
                );
            }
            (!row.tag().is_open(), bytes)
        };
        self.settle_row(is_closed, bytes);
        Ok(())
    }

    /// Has the provider move a large object to where `new` fits, if it is to stay as large as that and the
    /// provider can.
    ///
    /// # Safety
    /// As for [`Heap::resize`].
    #[cold]
    #[inline(never)]
    pub unsafe fn resize_region(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        let page = self.pages.provider().page_size();
        let Route::Region { bytes: from, .. } = Route::of::<P, C>(old, page) else {
            return None;
        };
        let Route::Region { bytes, align } = Route::of::<P, C>(new, page) else {
            return None;
        };
        let resize = || {
            // SAFETY: the caller's promise.
            unsafe {
                self.pages
                    .resize_region(object.addr().get(), from, bytes, align)
            }
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
        if let Some(row) = self.rows().find(|row| row.blocks() == blocks) {
            row.resize_large(from, bytes);
        }
        self.tally.regions.resize(from, bytes);
        Some(moved)
    }
}
