//! Objects that become longer or shorter: where they are if there is room, else in another place of their epoch.

use super::Local;
use crate::config::Config;
use crate::epoch::Epoch;
use crate::error::AllocError;
use core::alloc::Layout;
use core::ptr::NonNull;

impl<C: Config> Local<'_, C> {
    /// As [`Heap::resize`](crate::Heap::resize).
    ///
    /// # Errors
    /// As for [`Heap::resize`](crate::Heap::resize).
    ///
    /// # Safety
    /// As for [`Heap::resize`](crate::Heap::resize).
    pub unsafe fn resize(
        &mut self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        let alloc = |local: &mut Self| {
            // It stays in its epoch, while that is open.
            let epoch = local.heap.epoch_to_grow_in(object);
            let moved = epoch.and_then(|epoch| local.alloc_in(epoch, new).ok());
            moved.map_or_else(|| local.alloc(new), Ok)
        };
        // SAFETY: the caller's promise.
        unsafe { self.resize_or_move(object, old, new, alloc) }
    }

    /// As [`Local::resize`], and an object that has to be copied goes to this epoch. What can be made longer where it is, or by moving its pages,
    /// stays in its own, also if that is closed.
    ///
    /// # Errors
    /// As for [`Local::alloc_in`]; the object is then as it was.
    ///
    /// # Safety
    /// As for [`Heap::resize`](crate::Heap::resize).
    pub unsafe fn resize_in(
        &mut self,
        epoch: Epoch,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { self.resize_or_move(object, old, new, |local| local.alloc_in(epoch, new)) }
    }

    /// Resizes an object where it is, or copies it to one that `alloc` allocates, and frees it.
    ///
    /// # Safety
    /// As for [`Heap::resize`](crate::Heap::resize).
    unsafe fn resize_or_move(
        &mut self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
        alloc: impl FnOnce(&mut Self) -> Result<NonNull<u8>, AllocError>,
    ) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: the caller's promise.
        if let Some(resized) = unsafe { self.resize_in_place(object, old, new) } {
            return Ok(resized);
        }
        let moved = alloc(self)?;
        // SAFETY: two different objects of at least this many bytes; the old one is the caller's.
        unsafe {
            moved.copy_from_nonoverlapping(object, old.size().min(new.size()));
            let _freed = self.free(object, old);
        }
        Ok(moved)
    }

    /// Resizes an object if that takes no other object: where it is, or a large one by moving its pages.
    ///
    /// # Safety
    /// As for [`Heap::resize`](crate::Heap::resize).
    unsafe fn resize_in_place(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        if self.heap.resize_in_place(object, old, new) {
            return Some(object);
        }
        // SAFETY: the caller's promise.
        if let Some(resized) = unsafe { self.heap.resize_large(object, old, new) } {
            return Some(resized);
        }
        let at = object.addr().get();
        let block = self.heap.block_at(at)?;
        self.extend(block, at, old, new).then_some(object)
    }
}
