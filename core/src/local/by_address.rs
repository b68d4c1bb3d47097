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
        let entry = self.heap.entry(address);
        // SAFETY: the heap outlives the local.
        let (true, Some(slab)) = (entry.is_home(), unsafe { entry.slab() }) else {
            // SAFETY: the caller's promise.
            return unsafe { self.free_any_elsewhere(object) };
        };
        let class = entry.class();
        if C::CHECKED {
            match self.heap.check_slot(slab, class, address) {
                Ok(mark) => mark.store(heap::FREE, Ordering::Relaxed),
                Err(error) => return Err(self.heap.refused_free(error)),
            }
        }
        // SAFETY: the caller gives up the object, which is of this class.
        unsafe { self.heap.wipe_slot(object, class) };
        if !self.cell(self.home, class).push(address as Entry) {
            self.spill(self.home, class, address as Entry);
        }
        Ok(())
    }

    /// Frees what is no slot of a plain class in the root epoch.
    ///
    /// # Safety
    /// As for [`Local::free_any`].
    #[cold]
    #[inline(never)]
    unsafe fn free_any_elsewhere(&mut self, object: NonNull<u8>) -> Result<(), FreeError> {
        let address = object.addr().get();
        let entry = self.heap.entry(address);
        let class = entry.class();
        if entry.is_none() || class >= Table::<C>::TABLE.len() {
            // SAFETY: the caller's promise.
            return unsafe { self.heap.try_free_any(object) }
                .map_err(|error| self.heap.refused_free(error));
        }
        // SAFETY: the caller's promise, and the entry is of this class.
        unsafe { self.free_class(object, class) }
    }

    /// As [`Heap::size_of`](crate::Heap::size_of).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn size_of(&self, object: NonNull<u8>) -> Result<usize, FreeError> {
        self.heap.size_of(object)
    }
}
