//! `allocator-api2`'s `Allocator`, so that `hashbrown`, `Vec` and others work in a heap.

use crate::config::{Config, Table};
use crate::epoch::Epoch;
use crate::error;
use crate::heap::Heap;
use crate::local::Local;
use crate::scope::Scope;
use allocator_api2::alloc::{AllocError, Allocator};
use core::alloc::Layout;
use core::cell::RefCell;
use core::fmt;
use core::ptr::NonNull;

fn slice(
    object: Result<NonNull<u8>, error::AllocError>,
    size: usize,
) -> Result<NonNull<[u8]>, AllocError> {
    let object = object.map_err(|_| AllocError)?;
    Ok(NonNull::slice_from_raw_parts(object, size))
}

/// To a heap and to a local both are a resize.
macro_rules! shrink_as_grow {
    () => {
        #[inline]
        unsafe fn shrink(
            &self,
            object: NonNull<u8>,
            old: Layout,
            new: Layout,
        ) -> Result<NonNull<[u8]>, AllocError> {
            // SAFETY: the caller's promise.
            unsafe { self.grow(object, old, new) }
        }
    };
}

// SAFETY: what the heap hands out stays where it is and valid until it is freed, however the heap's
// reference is copied or moved, because the heap itself is borrowed.
unsafe impl<C: Config> Allocator for &Heap<C> {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        slice(self.alloc(layout), layout.size())
    }

    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        slice(self.alloc_zeroed(layout), layout.size())
    }

    #[inline]
    unsafe fn deallocate(&self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        let _refused = unsafe { self.free(object, layout) };
    }

    #[inline]
    unsafe fn grow(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        slice(unsafe { self.resize(object, old, new) }, new.size())
    }

    shrink_as_grow!();
}

/// A local as an `Allocator`, for collections that stay on one thread: `&LocalAllocator` is one.
pub struct LocalAllocator<'h, C: Config> {
    local: RefCell<Local<'h, C>>,
}

impl<'h, C: Config> LocalAllocator<'h, C> {
    /// Makes an allocator of a local.
    #[must_use]
    pub const fn new(local: Local<'h, C>) -> Self {
        Self {
            local: RefCell::new(local),
        }
    }

    /// The local, for a call that takes a few instructions. If that is not enough the call begins again with the cell borrowed.
    #[inline(always)]
    fn local_at_once(&self) -> Option<&Local<'h, C>> {
        // SAFETY: what is done with it calls nothing of the heap's user, so nobody borrows the local meanwhile.
        unsafe { self.local.try_borrow_unguarded().ok() }
    }

    /// The local again.
    #[must_use]
    pub fn into_inner(self) -> Local<'h, C> {
        self.local.into_inner()
    }

    /// As [`Local::leave`].
    pub fn leave(&self, epoch: Epoch) {
        self.local.borrow_mut().leave(epoch);
    }

    /// The same in an epoch: what collections allocate through it belongs to that epoch.
    #[must_use]
    pub const fn in_epoch(&self, epoch: Epoch) -> EpochAllocator<'_, 'h, C> {
        EpochAllocator { of: self, epoch }
    }
}

/// The ends of calls that take more than a few instructions. Nothing needs to survive them.
impl<C: Config> LocalAllocator<'_, C> {
    #[inline(never)]
    fn allocate_elsewhere(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        slice(self.local.borrow_mut().alloc(layout), layout.size())
    }

    #[inline(never)]
    unsafe fn deallocate_elsewhere(&self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        let _refused = unsafe { self.local.borrow_mut().free(object, layout) };
    }
}

/// A local in an epoch as an `Allocator`; see [`LocalAllocator::in_epoch`].
pub struct EpochAllocator<'l, 'h, C: Config> {
    of: &'l LocalAllocator<'h, C>,
    epoch: Epoch,
}

impl<C: Config> EpochAllocator<'_, '_, C> {
    #[inline]
    fn allocate_in(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let object = self.of.local.borrow_mut().alloc_in(self.epoch, layout);
        slice(object, layout.size())
    }

    /// As [`LocalAllocator::allocate_elsewhere`].
    #[inline(never)]
    fn allocate_elsewhere(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.allocate_in(layout)
    }
}

impl<C: Config> Clone for EpochAllocator<'_, '_, C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<C: Config> Copy for EpochAllocator<'_, '_, C> {}

// SAFETY: as for a local, which is borrowed.
unsafe impl<C: Config> Allocator for EpochAllocator<'_, '_, C> {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if !Table::<C>::BUMPS {
            return self.allocate_in(layout);
        }
        let local = self.of.local_at_once();
        match local.and_then(|local| local.alloc_near(self.epoch, layout)) {
            Some(object) => slice(Ok(object), layout.size()),
            None => self.allocate_elsewhere(layout),
        }
    }

    #[inline]
    unsafe fn deallocate(&self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.of.deallocate(object, layout) };
    }

    #[inline]
    unsafe fn grow(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        let local = self.of.local_at_once();
        // SAFETY: the caller's promise.
        if local.is_some_and(|local| unsafe { local.resize_near(object, old, new) }) {
            return slice(Ok(object), new.size());
        }
        let mut local = self.of.local.borrow_mut();
        // SAFETY: the caller's promise.
        let resized = unsafe { local.resize_in(self.epoch, object, old, new) };
        slice(resized, new.size())
    }

    shrink_as_grow!();
}

impl<C: Config> fmt::Debug for EpochAllocator<'_, '_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochAllocator")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

// SAFETY: as for the heap; the allocator is borrowed.
unsafe impl<C: Config> Allocator for &LocalAllocator<'_, C> {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let local = self.local_at_once();
        match local.and_then(|local| local.alloc_at_once(layout)) {
            Some(object) => slice(Ok(object), layout.size()),
            None => self.allocate_elsewhere(layout),
        }
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let object = self.local.borrow_mut().alloc_zeroed(layout);
        slice(object, layout.size())
    }

    #[inline]
    unsafe fn deallocate(&self, object: NonNull<u8>, layout: Layout) {
        let local = self.local_at_once();
        // SAFETY: the caller's promise.
        if !local.is_some_and(|local| unsafe { local.free_at_once(object, layout) }) {
            // SAFETY: as above; nothing has changed.
            unsafe { self.deallocate_elsewhere(object, layout) };
        }
    }

    #[inline]
    unsafe fn grow(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        let resized = unsafe { self.local.borrow_mut().resize(object, old, new) };
        slice(resized, new.size())
    }

    shrink_as_grow!();
}

// SAFETY: what a scope hands out stays valid until the scope is dropped or reset, and it is borrowed.
// Freeing does nothing: the scope frees all at once.
unsafe impl<C: Config> Allocator for &Scope<'_, C> {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        slice(self.alloc_layout(layout), layout.size())
    }

    #[inline]
    unsafe fn deallocate(&self, _object: NonNull<u8>, _layout: Layout) {}

    #[inline]
    unsafe fn grow(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if let Some(object) = self.extend(object, old, new) {
            return slice(Ok(object), new.size());
        }
        let moved = self.allocate(new)?;
        // SAFETY: two different objects, the old one the caller's, of at least these bytes.
        unsafe { moved.cast().copy_from_nonoverlapping(object, old.size()) };
        Ok(moved)
    }
}

impl<C: Config> fmt::Debug for LocalAllocator<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAllocator").finish_non_exhaustive()
    }
}
