//! Objects that are named by handles, through a local.

use super::Local;
use crate::config::{Config, Table};
use crate::epoch::Epoch;
use crate::error::AllocError;
use crate::handle::{Ended, Finished, HandleError, RawHandle, TaggedSlab};
use crate::heap::{Handle, Heap};
use crate::provider::PageProvider;
use core::alloc::Layout;
use core::ptr::NonNull;
use lock_api::RawMutex;

impl<P: PageProvider, R: RawMutex, C: Config> Local<'_, P, R, C> {
    /// As [`Heap::alloc_handle`].
    ///
    /// # Errors
    /// As for [`Heap::alloc_handle`].
    #[inline]
    pub fn alloc_handle(&mut self, layout: Layout) -> Result<RawHandle, AllocError> {
        let class = Heap::<P, R, C>::handle_class(layout)?;
        let object = self.take_home(class)?;
        Ok(self.heap.name(object, class))
    }

    /// As [`Heap::alloc_handle_in`].
    ///
    /// # Errors
    /// As for [`Heap::alloc_handle_in`].
    #[inline]
    pub fn alloc_handle_in(
        &mut self,
        epoch: Epoch,
        layout: Layout,
    ) -> Result<RawHandle, AllocError> {
        let class = Heap::<P, R, C>::handle_class(layout)?;
        let object = self.take_in(epoch, class)?;
        Ok(self.heap.name(object, class))
    }

    /// As [`Heap::free_raw`].
    ///
    /// # Errors
    /// As for [`Heap::free_raw`].
    #[inline]
    pub fn free_raw(&mut self, handle: RawHandle) -> Result<(), HandleError> {
        let tagged = self.heap.tagged(handle)?;
        match self.heap.end_object(tagged, handle)? {
            Ended::Now(finished) => self.put_ended(tagged, handle, finished),
            Ended::Later => {}
        }
        Ok(())
    }

    /// As [`Heap::insert`].
    ///
    /// # Errors
    /// As for [`Heap::insert`].
    #[inline]
    pub fn insert<T: Send + Sync>(&mut self, value: T) -> Result<Handle<T>, AllocError> {
        let class = Heap::<P, R, C>::handle_class(Layout::new::<T>())?;
        let object = self.take_home(class)?;
        Ok(self.name_value(object, class, value))
    }

    /// As [`Heap::insert_in`].
    ///
    /// # Errors
    /// As for [`Heap::insert_in`].
    #[inline]
    pub fn insert_in<T: Send + Sync>(
        &mut self,
        epoch: Epoch,
        value: T,
    ) -> Result<Handle<T>, AllocError> {
        let class = Heap::<P, R, C>::handle_class(Layout::new::<T>())?;
        let object = self.take_in(epoch, class)?;
        Ok(self.name_value(object, class, value))
    }

    /// As [`Heap::remove`].
    ///
    /// # Errors
    /// As for [`Heap::remove`].
    pub fn remove<T>(&mut self, handle: Handle<T>) -> Result<(), HandleError> {
        let heap = self.heap;
        heap.remove_and(handle, |tagged, finished| {
            self.put_ended(tagged, handle.raw(), finished);
        })
    }

    /// As [`Heap::take`].
    ///
    /// # Errors
    /// As for [`Heap::take`].
    pub fn take<T>(&mut self, handle: Handle<T>) -> Result<T, HandleError> {
        let heap = self.heap;
        heap.take_and(handle, |tagged, finished| {
            self.put_ended(tagged, handle.raw(), finished);
        })
    }

    #[inline]
    fn name_value<T>(&self, object: NonNull<u8>, class: usize, value: T) -> Handle<T> {
        // SAFETY: the object is large enough, aligned, and nobody else's.
        unsafe { object.cast::<T>().write(value) };
        Handle::new(self.heap.name(object, class), self.heap.ids.heap())
    }

    /// A slot of a class, in the root epoch.
    #[inline]
    fn take_home(&mut self, class: usize) -> Result<NonNull<u8>, AllocError> {
        match self.pick(self.home.cells, class) {
            Some(object) => Ok(object),
            None => self.refill_home(class).ok_or_else(|| self.failure()),
        }
    }

    /// Keeps the slot of an object that was ended at hand.
    #[inline]
    fn put_ended(&mut self, tagged: &TaggedSlab, handle: RawHandle, finished: Finished) {
        if finished.is_exhausted || Heap::<P, R, C>::is_scoped(handle) {
            self.heap.put_ended(tagged, handle, finished);
            return;
        }
        let slab = tagged.slab();
        let key = slab.identity().key();
        let class = usize::from(key.class());
        let size = Table::<C>::TABLE.class(class).size();
        // SAFETY: whoever ends an object holds its bit, so the slab is pinned; slots lie inside its run.
        let object = unsafe { NonNull::new_unchecked(slab.body().base.add(handle.slot() * size)) };
        if key.row() == self.home.id {
            let address = object.addr().get();
            if !self.cell(self.home, class).push(address) {
                self.spill(self.home, class, address);
            }
            return;
        }
        // SAFETY: the slot is of this row and class, and nobody uses it any more.
        let _freed = unsafe { self.free_in(key.row(), object, class) };
    }
}
