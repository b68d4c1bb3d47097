//! Objects by their address alone, through a local: see the heap's module of this name.

use super::Local;
use crate::config::{Config, Table};
use crate::error::FreeError;
use core::ptr::NonNull;

impl<C: Config> Local<'_, C> {
    /// As [`Heap::free_unsized`](crate::Heap::free_unsized): frees an object by its address.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub unsafe fn free_unsized(&mut self, object: NonNull<u8>) -> Result<(), FreeError> {
        if self.free_near(object.addr().get(), None) {
            return Ok(());
        }
        let (magazines, entry) = (
            self.magazines(),
            self.heap.entry_at_once(object.addr().get()),
        );
        // SAFETY: the caller's promise; the magazines are this local's.
        unsafe {
            if self.heap.free_entry_to(magazines, entry, object.as_ptr()) {
                return Ok(());
            }
            if let Some(block) = self.heap.block_of(entry) {
                return self.free_bumped(block, object, None);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.free_any_elsewhere(object) }
    }

    /// Frees what is no slot of a plain class in the root epoch, for whose slot there is no room at hand, or what takes a
    /// closer look.
    ///
    /// # Safety
    /// As for [`Local::free_unsized`].
    #[cold]
    #[inline(never)]
    unsafe fn free_any_elsewhere(&mut self, object: NonNull<u8>) -> Result<(), FreeError> {
        // SAFETY: the caller's promise; the magazines are this local's.
        if unsafe { self.heap.free_long_to(self.magazines(), object) } {
            return Ok(());
        }
        let entry = self.heap.entry(object.addr().get());
        if let Some(block) = self.heap.block_of(entry) {
            // SAFETY: the caller's promise.
            return unsafe { self.free_bumped(block, object, None) };
        }
        if entry.is_none() || entry.class() >= Table::<C>::TABLE.len() {
            // SAFETY: the caller's promise.
            return unsafe { self.heap.try_free_any(object) }
                .map_err(|error| self.heap.refused_free(error));
        }
        // SAFETY: the caller's promise, and the object is of this class.
        unsafe { self.free_in(object, entry.class()) }
    }

    /// As [`Heap::usable_size`](crate::Heap::usable_size).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn usable_size(&self, object: NonNull<u8>) -> Result<usize, FreeError> {
        self.heap.usable_size(object)
    }
}
