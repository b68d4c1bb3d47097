//! Objects with handles in a scope: whoever has a handle can ask whether its object is still there, and
//! after the scope it is not.

use super::Scope;
use crate::config::Config;
use crate::error::AllocError;
use crate::handle::RawHandle;
use crate::heap::{Handle, Heap};
use core::alloc::Layout;
use core::mem;
use core::ptr::{self, NonNull};

/// A value with a handle that is to be dropped with the scope.
struct Noted<T, C: Config> {
    handle: Handle<T>,
    heap: *const Heap<C>,
}

impl<C: Config> Scope<'_, C> {
    /// Allocates an object that is named by a handle, for as long as the scope is there and the handle
    /// is not freed. Its memory goes with the scope, also if the handle is freed before.
    ///
    /// # Errors
    /// As for [`Heap::alloc_raw`].
    pub fn alloc_raw(&self, layout: Layout) -> Result<RawHandle, AllocError> {
        let (object, class) = self.take_slot(layout)?;
        Ok(self.heap.name(object, class))
    }

    /// Moves a value into the scope and names it. It is dropped when it is discarded, or with the scope.
    /// Readers that are in the middle of it then keep it until they are done.
    ///
    /// # Errors
    /// As for [`Heap::alloc_raw`]; the value is then dropped.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) -> Result<Handle<T>, AllocError> {
        type Note<T, C> = (Noted<T, C>, super::Asked);
        // All memory first, so that nothing fails once the value is in place.
        let note = if mem::needs_drop::<T>() {
            Some(self.alloc_layout(Layout::new::<Note<T, C>>())?)
        } else {
            None
        };
        let (object, class) = self.take_slot(Layout::new::<T>())?;
        // SAFETY: the slot is large enough, aligned, and nobody else's.
        unsafe { object.cast::<T>().write(value) };
        let handle = self.heap.handle_of(object, class);
        if let Some(note) = note {
            let note: *mut Note<T, C> = note.as_ptr().cast();
            // SAFETY: the note's memory is of its layout and nobody else's.
            unsafe {
                let noted = &raw mut (*note).0;
                noted.write(Noted {
                    handle,
                    heap: self.heap,
                });
                self.ask(&raw mut (*note).1, noted.cast(), discard_noted::<T, C>);
            }
        }
        Ok(handle)
    }

    /// A slot of the scope's slabs, and the class by which its object is named.
    fn take_slot(&self, layout: Layout) -> Result<(NonNull<u8>, usize), AllocError> {
        let slabs = match NonNull::new(self.slabs.get()) {
            Some(slabs) => slabs,
            None => {
                let slabs = Heap::<C>::scope_slabs(|layout| self.alloc_layout(layout))?;
                self.slabs.set(slabs.as_ptr());
                slabs
            }
        };
        // SAFETY: they are this scope's, which one thread uses at a time.
        unsafe { self.heap.alloc_scoped(slabs, layout) }
    }

    /// Ends all objects with handles.
    pub(super) fn end_handles(&mut self) {
        // SAFETY: slabs that were set lie in the scope's memory, which is still there.
        if let Some(slabs) = unsafe { self.slabs.replace(ptr::null_mut()).as_ref() } {
            self.heap.end_scoped(slabs);
        }
    }
}

/// Drops a value that was noted, unless it was discarded or removed before.
///
/// # Safety
/// `noted` is a `Noted` of these types, whose heap is still there.
unsafe fn discard_noted<T, C: Config>(noted: *mut u8) {
    // SAFETY: the caller's promise.
    let (handle, heap) = unsafe {
        let noted = &*noted.cast::<Noted<T, C>>();
        (noted.handle, &*noted.heap)
    };
    // It may have been discarded or removed: then there is nothing to do.
    let _removed = heap.discard(handle);
}
