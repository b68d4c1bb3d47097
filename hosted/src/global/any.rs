//! The process's heap for callers that keep no layouts: objects are known by their addresses.

use super::here::here;
use super::thread::READY;
use super::{HEAP, TemporalSlab};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use temporal_slab::FreeError;

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

    /// Frees an object by its address: see [`Heap::free_any`](temporal_slab::Heap::free_any).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub unsafe fn free_any(object: NonNull<u8>) -> Result<(), FreeError> {
        here(|thread| {
            if thread.has_local() {
                // SAFETY: the thread has a local, and nobody is using it; the caller's promise.
                return unsafe { thread.local().free_any(object) };
            }
            // SAFETY: the caller's promise.
            unsafe { HEAP.free_any(object) }
        })
    }

    /// How many bytes an object may use, by its address: see [`Heap::size_of`](temporal_slab::Heap::size_of).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn size_of(object: NonNull<u8>) -> Result<usize, FreeError> {
        here(|thread| {
            if thread.state() >= READY {
                // SAFETY: the thread has a local, and nobody is using it.
                return unsafe { thread.local() }.size_of(object);
            }
            HEAP.size_of(object)
        })
    }

    /// Moves a large object of `room` bytes, as [`TemporalSlab::size_of`] says, to where `new` fits, by its pages. `None`
    /// where that is no way.
    ///
    /// # Safety
    /// The object is live and the caller's; after `Some` its old address is dead.
    #[must_use]
    pub unsafe fn move_pages(object: NonNull<u8>, room: usize, new: Layout) -> Option<NonNull<u8>> {
        let old = Layout::from_size_align(room, new.align()).ok()?;
        // SAFETY: the caller's promise. An object that is so long has a region of its own, or is left alone.
        unsafe { HEAP.resize_region(object, old, new) }
    }
}
