//! Objects by their address alone, through a local: see the heap's module of this name.

use super::Local;
use super::cell::Entry;
use crate::config::{Config, Table};
use crate::error::FreeError;
use crate::heap;
use crate::provider::PageProvider;
use crate::sync::Ordering;
use core::ptr::NonNull;
use lock_api::RawMutex;

impl<P: PageProvider, R: RawMutex, C: Config> Local<'_, P, R, C> {
    /// As [`Heap::free_any`](crate::Heap::free_any): frees an object by its address.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub unsafe fn free_any(&mut self, object: NonNull<u8>) -> Result<(), FreeError> {
        let address = object.addr().get();
        let is_ours = self.knows(address);
        let Some((slab, class)) = self.heap.plain_slab_at(address, is_ours) else {
            // SAFETY: the caller's promise, and it was just looked up whose the chunk is.
            return unsafe { self.free_any_slow(object, is_ours) };
        };
        if C::CHECKED {
            match self.heap.check_slot(slab, class, address) {
                Ok(mark) => mark.store(heap::FREE, Ordering::Relaxed),
                Err(error) => return Err(self.heap.refused_free(error)),
            }
        }
        // SAFETY: the caller gives up the object, which is of this class.
        unsafe { self.heap.wipe_slot(object, class) };
        // Its slot is held until it is given, so the slab stays what it is.
        let id = slab.identity().key().row();
        if id == self.home.id {
            if !self.cell(self.home, class).push(address as Entry) {
                self.spill(self.home, class, address as Entry);
            }
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.free_in(id, object, class) }
    }

    #[cold]
    #[inline(never)]
    unsafe fn free_any_slow(&self, object: NonNull<u8>, is_ours: bool) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe { self.heap.try_free_any(object, is_ours) }
            .map_err(|error| self.heap.refused_free(error))
    }

    /// As [`Heap::size_of`](crate::Heap::size_of).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn size_of(&mut self, object: NonNull<u8>) -> Result<usize, FreeError> {
        let address = object.addr().get();
        let is_ours = self.knows(address);
        let Some((slab, class)) = self.heap.plain_slab_at(address, is_ours) else {
            return self.heap.size_of_known(object, is_ours);
        };
        if C::CHECKED {
            self.heap.check_slot(slab, class, address)?;
        }
        Ok(Table::<C>::TABLE.class(class).size())
    }
}
