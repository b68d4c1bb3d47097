//! Objects with handles in a scope: whoever has a handle can ask whether its object is still there, and
//! after the scope it is not.

use super::Scope;
use crate::config::Config;
use crate::error::AllocError;
use crate::handle::RawHandle;
use crate::heap::{Handle, Heap, Shelf};
use crate::provider::PageProvider;
use crate::slab::Slab;
use core::alloc::Layout;
use core::mem;
use core::ptr::{self, NonNull};
use lock_api::RawMutex;

/// A scope's shelves. Lies in the scope's memory, with one [`Shelf`] of each kind behind it.
pub(super) struct Shelves {
    /// All shelves, also the full ones.
    all: *const Slab,
    first: *mut Shelf,
}

/// A value with a handle that is to be dropped with the scope.
struct Noted<T, P: PageProvider, R: RawMutex, C: Config> {
    handle: Handle<T>,
    heap: *const Heap<P, R, C>,
}

impl<P: PageProvider, R: RawMutex, C: Config> Scope<'_, P, R, C> {
    /// Allocates an object that is named by a handle, for as long as the scope is there and the handle
    /// is not freed. Its memory goes with the scope, also if the handle is freed before.
    ///
    /// # Errors
    /// As for [`Heap::alloc_handle`].
    pub fn alloc_handle(&self, layout: Layout) -> Result<RawHandle, AllocError> {
        let (kind, object) = self.take_slot(layout)?;
        Ok(self.heap.name_on_shelf(kind, object))
    }

    /// Moves a value into the scope and names it. It is dropped when it is removed, or with the scope.
    /// Readers that are in the middle of it then keep it until they are done.
    ///
    /// # Errors
    /// As for [`Heap::alloc_handle`]; the value is then dropped.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) -> Result<Handle<T>, AllocError> {
        type Note<T, P, R, C> = (Noted<T, P, R, C>, super::Asked);
        // All memory first, so that nothing fails once the value is in place.
        let note = if mem::needs_drop::<T>() {
            Some(self.bytes(Layout::new::<Note<T, P, R, C>>())?)
        } else {
            None
        };
        let (kind, object) = self.take_slot(Layout::new::<T>())?;
        // SAFETY: the slot is large enough, aligned, and nobody else's.
        unsafe { object.cast::<T>().write(value) };
        let raw = self.heap.name_on_shelf(kind, object);
        let handle = Handle::new(raw, self.heap.ids.heap());
        if let Some(note) = note {
            let note: *mut Note<T, P, R, C> = note.as_ptr().cast();
            // SAFETY: the note's memory is of its layout and nobody else's.
            unsafe {
                let noted = &raw mut (*note).0;
                noted.write(Noted {
                    handle,
                    heap: self.heap,
                });
                self.ask(&raw mut (*note).1, noted.cast(), remove_noted::<T, P, R, C>);
            }
        }
        Ok(handle)
    }

    fn take_slot(&self, layout: Layout) -> Result<(usize, NonNull<u8>), AllocError> {
        let kind = Heap::<P, R, C>::shelf_for(layout)?;
        let shelves = match NonNull::new(self.shelves.get()) {
            Some(shelves) => shelves,
            None => self.make_shelves()?,
        };
        // SAFETY: the shelves lie in the scope's memory, which is this thread's to use; there are as many
        // as there are kinds.
        let object = unsafe {
            let shelves = &mut *shelves.as_ptr();
            let shelf = &mut *shelves.first.add(kind);
            self.heap.take_from_shelf(kind, shelf, &mut shelves.all)
        }?;
        Ok((kind, object))
    }

    #[cold]
    fn make_shelves(&self) -> Result<NonNull<Shelves>, AllocError> {
        let len = Heap::<P, R, C>::SHELVES;
        let layout = Layout::array::<Shelf>(len).map_err(|_| AllocError::TooLarge)?;
        let first: NonNull<Shelf> = self.bytes(layout)?.cast();
        let shelves: NonNull<Shelves> = self.bytes(Layout::new::<Shelves>())?.cast();
        // SAFETY: both were just given for this.
        unsafe {
            for kind in 0..len {
                first.add(kind).write(Shelf::NONE);
            }
            shelves.write(Shelves {
                all: ptr::null(),
                first: first.as_ptr(),
            });
        }
        self.shelves.set(shelves.as_ptr());
        Ok(shelves)
    }

    /// Ends all objects with handles.
    pub(super) fn clear_shelves(&mut self) {
        // SAFETY: shelves that were set lie in the scope's memory, which is still there.
        if let Some(shelves) = unsafe { self.shelves.replace(ptr::null_mut()).as_ref() } {
            self.heap.clear_shelves(shelves.all);
        }
    }
}

/// Drops a value that was noted, unless it was removed before.
///
/// # Safety
/// `noted` is a `Noted` of these types, whose heap is still there.
unsafe fn remove_noted<T, P: PageProvider, R: RawMutex, C: Config>(noted: *mut u8) {
    // SAFETY: the caller's promise.
    let (handle, heap) = unsafe {
        let noted = &*noted.cast::<Noted<T, P, R, C>>();
        (noted.handle, &*noted.heap)
    };
    // It may have been removed: then there is nothing to do.
    let _removed = heap.remove(handle);
}
