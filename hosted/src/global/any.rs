//! The process's heap for callers that keep no layouts: objects are known by their addresses.

use super::here::{alloc_magazines, free_magazines, here};
use super::{HEAP, TemporalSlab};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use temporal_slab::FreeError;

/// Frees where the fast path does not.
///
/// # Safety
/// As for [`TemporalSlab::free_unsized`].
#[cold]
#[inline(never)]
unsafe fn free_any_slow(object: NonNull<u8>) -> Result<(), FreeError> {
    // SAFETY: the caller's promise.
    here(|thread| unsafe {
        match thread.first_local() {
            Some(local) => local.free_unsized(object),
            None => HEAP.free_unsized(object),
        }
    })
}

impl TemporalSlab {
    /// Allocates what may have a size of zero, and is freed by its address. Null if there is no memory.
    #[inline]
    #[must_use]
    pub fn alloc_any(layout: Layout) -> *mut u8 {
        // SAFETY: the heap serves sizes of zero as well.
        unsafe { Self.alloc(layout) }
    }

    /// The same, and the bytes are zero.
    #[inline]
    #[must_use]
    pub fn alloc_zeroed_any(layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { Self.alloc_zeroed(layout) }
    }

    /// Frees an object by its address: see [`Heap::free_unsized`](temporal_slab::Heap::free_unsized).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub unsafe fn free_unsized(object: NonNull<u8>) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe {
            if Self::free_at_once(object.as_ptr()) {
                return Ok(());
            }
            free_any_slow(object)
        }
    }

    /// Frees an object by its address if that takes no more than a few instructions. If not, nothing has changed:
    /// [`TemporalSlab::free_unsized`] frees it, or says why not. Nothing is freed at null.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    #[must_use]
    pub unsafe fn free_at_once(object: *mut u8) -> bool {
        // SAFETY: the magazines are of this thread's local, or of none, and nobody is using them; the caller's promise.
        unsafe { HEAP.free_to(free_magazines(), object) }
    }

    /// Allocates so many bytes, aligned to 16, if that takes no more than a few instructions. `None` says nothing of whether
    /// there is memory: [`TemporalSlab::alloc_any`] does.
    #[inline(always)]
    #[must_use]
    pub fn alloc_at_once(size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the magazines are of this thread's local, or of none, and nobody is using them.
        unsafe { HEAP.alloc_bytes_from(alloc_magazines(), size) }
    }

    /// As [`TemporalSlab::alloc_at_once`], where that found nothing.
    #[inline(always)]
    #[must_use]
    pub fn alloc_next(size: usize) -> Option<NonNull<u8>> {
        // SAFETY: as above.
        unsafe { HEAP.alloc_more_from(alloc_magazines(), size) }
    }

    /// How many bytes an object may use, by its address: see [`Heap::usable_size`](temporal_slab::Heap::usable_size).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn usable_size(object: NonNull<u8>) -> Result<usize, FreeError> {
        HEAP.usable_size(object)
    }

    /// Moves a large object of `room` bytes, as [`TemporalSlab::usable_size`] says, to where `new` fits, by its pages. `None`
    /// where that is no way.
    ///
    /// # Safety
    /// The object is live and the caller's; after `Some` its old address is dead.
    #[must_use]
    pub unsafe fn move_pages(object: NonNull<u8>, room: usize, new: Layout) -> Option<NonNull<u8>> {
        let old = Layout::from_size_align(room, new.align()).ok()?;
        // SAFETY: the caller's promise. An object that is so long has a region of its own, or is left alone.
        unsafe { HEAP.resize_large(object, old, new) }
    }
}
