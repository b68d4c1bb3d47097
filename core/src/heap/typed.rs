//! Handles with a type: safe to use for whoever has one.
//!
//! Principles:
//! - A typed handle can only be made by an insert (or by `unsafe`), and it knows its heap, so what it
//!   finds is of its type. What 64 bits cannot promise, that another heap's handle is never taken for
//!   one's own, 128 bits can.
//! - Reading keeps the object from being dropped: a reader counts itself in the object's tag. Whoever
//!   frees the object meanwhile leaves that to the last reader.
//! - What is inserted may be read and dropped on any thread, so it is `Send` and `Sync`.

use super::Heap;
use crate::config::Config;
use crate::depot::EpochDepot;
use crate::epoch::{Epoch, Tag};
use crate::error::AllocError;
use crate::handle::{Ended, Finished, HandleError, Ids, RawHandle, TaggedSlab, Unpinned};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::mem;
use core::ops::Deref;
use core::ptr::NonNull;

/// A handle of a `T` in a heap of this program. Copy it at will: when the object is gone all copies
/// are errors.
///
/// ```
/// # use temporal_slab::{Heap, HandleError, config::Standard, provider::StaticProvider};
/// # let mut memory = vec![core::mem::MaybeUninit::uninit(); 1 << 20];
/// # let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
/// # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(provider);
/// let handle = heap.insert("a session".to_owned())?;
/// assert_eq!(*heap.get(handle)?, "a session");
/// assert_eq!(heap.remove(handle)?, "a session");
/// assert_eq!(heap.get(handle).unwrap_err(), HandleError::Stale);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What is read cannot outlive the reading:
///
/// ```compile_fail,E0505
/// # use temporal_slab::{Heap, HandleError, config::Standard, provider::StaticProvider};
/// # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(StaticProvider::new(&mut []));
/// # let handle = heap.insert(1).unwrap();
/// let reading = heap.get(handle).unwrap();
/// let number: &i32 = &*reading;
/// drop(reading);
/// println!("{number}");
/// ```
///
/// What cannot be used from any thread is not accepted:
///
/// ```compile_fail,E0277
/// # use temporal_slab::{Heap, HandleError, config::Standard, provider::StaticProvider};
/// # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(StaticProvider::new(&mut []));
/// let handle = heap.insert(core::cell::Cell::new(1)).unwrap();
/// ```
pub struct Handle<T> {
    raw: RawHandle,
    /// Which of the program's heaps made it.
    heap: u64,
    of: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    /// The handle without its type and its heap, for where 64 bits are what there is room for.
    #[must_use]
    pub const fn raw(self) -> RawHandle {
        self.raw
    }

    /// The handle that a raw one of this heap is, with its type. Of a heap that has made no handle yet it
    /// finds nothing, ever.
    ///
    /// # Safety
    /// If an object of `heap` is live under this handle, it is an initialised `T` that may be shared and
    /// sent; and so it is while the result is used.
    #[must_use]
    pub unsafe fn from_raw<C: Config>(raw: RawHandle, heap: &Heap<C>) -> Self {
        Self {
            raw,
            heap: heap.ids.heap(),
            of: PhantomData,
        }
    }

    pub(crate) const fn new(raw: RawHandle, heap: u64) -> Self {
        Self {
            raw,
            heap,
            of: PhantomData,
        }
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}
impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.raw, self.heap) == (other.raw, other.heap)
    }
}
impl<T> Eq for Handle<T> {}
impl<T> core::hash::Hash for Handle<T> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (self.raw, self.heap).hash(state);
    }
}
impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("raw", &self.raw)
            .field("heap", &self.heap)
            .finish()
    }
}

/// An object that is being read, and is kept for so long. At most 255 of them at a time for one object.
pub struct Ref<'h, T, C: Config> {
    heap: &'h Heap<C>,
    tagged: &'h TaggedSlab,
    handle: RawHandle,
    value: NonNull<T>,
}

// SAFETY: a reading is a reference to a `T` that, going away, may drop the `T`.
unsafe impl<T: Send + Sync, C: Config<Provider: Sync, Lock: Sync>> Send for Ref<'_, T, C> {}
// SAFETY: as above; shared, it only gives references to the `T`.
unsafe impl<T: Send + Sync, C: Config<Provider: Sync, Lock: Sync>> Sync for Ref<'_, T, C> {}

impl<C: Config> Heap<C> {
    /// Moves a value into the heap, in the root epoch. Dropping the heap does not drop it.
    ///
    /// # Errors
    /// As for [`Heap::alloc_raw`]; the value is then dropped.
    pub fn insert<T: Send + Sync>(&self, value: T) -> Result<Handle<T>, AllocError> {
        self.insert_at(self.root()?, Tag::ROOT, value)
    }

    /// As [`Heap::insert`], in an epoch. Closing the epoch does not drop the value.
    ///
    /// # Errors
    /// As for [`Heap::alloc_raw_in`]; the value is then dropped.
    pub fn insert_in<T: Send + Sync>(
        &self,
        epoch: Epoch,
        value: T,
    ) -> Result<Handle<T>, AllocError> {
        let depot = self.open_depot(epoch)?;
        self.insert_at(depot, epoch.tag(), value)
    }

    fn insert_at<T>(
        &self,
        depot: &EpochDepot<C::Lock>,
        tag: Tag,
        value: T,
    ) -> Result<Handle<T>, AllocError> {
        let class = self.handle_class(Layout::new::<T>())?;
        let object = self.alloc_slot(depot, tag, class)?;
        // SAFETY: the object is large enough, aligned, and nobody else's.
        unsafe { object.cast::<T>().write(value) };
        // Named when it is written: a look that finds the name finds the value.
        Ok(self.handle_of(object, class))
    }

    /// Names a value of a tagged class that the caller just wrote.
    pub(crate) fn handle_of<T>(&self, object: NonNull<u8>, class: usize) -> Handle<T> {
        Handle::new(self.name(object, class), self.ids.heap())
    }

    /// Reads the value of a handle. While it is read it stays, whoever discards it.
    ///
    /// # Errors
    /// If the value is gone, was never of this heap, or has 255 readers.
    pub fn get<T>(&self, handle: Handle<T>) -> Result<Ref<'_, T, C>, HandleError> {
        let (tagged, raw) = self.typed(handle)?;
        let pinned = tagged.tag(raw.slot()).pin(raw);
        pinned.map_err(|error| self.clearer(raw, error))?;
        Ok(Ref {
            heap: self,
            tagged,
            handle: raw,
            value: self.value_of(tagged, raw),
        })
    }

    /// Drops the value of a handle. If it is being read it is gone for everybody else, and its last
    /// reader drops it.
    ///
    /// # Errors
    /// If the value is gone, or was never of this heap.
    pub fn discard<T>(&self, handle: Handle<T>) -> Result<(), HandleError> {
        self.discard_and(handle, |tagged, finished| {
            self.put_ended(tagged, handle.raw, finished);
        })
    }

    /// Takes the value of a handle out of the heap.
    ///
    /// # Errors
    /// If the value is gone, was never of this heap, or is being read.
    pub fn remove<T>(&self, handle: Handle<T>) -> Result<T, HandleError> {
        self.remove_and(handle, |tagged, finished| {
            self.put_ended(tagged, handle.raw, finished);
        })
    }

    /// As [`Heap::discard`]; `put` gets the slot.
    pub(crate) fn discard_and<T>(
        &self,
        handle: Handle<T>,
        put: impl FnOnce(&TaggedSlab, Finished),
    ) -> Result<(), HandleError> {
        let refused = |error| self.refused_handle(error);
        let (tagged, raw) = self.typed(handle).map_err(refused)?;
        if !mem::needs_drop::<T>() {
            if let Ended::Now(finished) = self.end_object(tagged, raw).map_err(refused)? {
                put(tagged, finished);
            }
            return Ok(());
        }
        let left = tagged.tag(raw.slot()).leave(raw);
        if left.map_err(|error| refused(self.clearer(raw, error)))? {
            let value = self.value_of::<T>(tagged, raw);
            let _finish = Finish(tagged, raw, Some(put), PhantomData::<C>);
            // SAFETY: the tag was live, so the value was; nobody reads it, and nobody else gets to it.
            unsafe { value.drop_in_place() };
        }
        Ok(())
    }

    /// As [`Heap::remove`]; `put` gets the slot.
    pub(crate) fn remove_and<T>(
        &self,
        handle: Handle<T>,
        put: impl FnOnce(&TaggedSlab, Finished),
    ) -> Result<T, HandleError> {
        let refused = |error| self.refused_handle(error);
        let (tagged, raw) = self.typed(handle).map_err(refused)?;
        let tag = tagged.tag(raw.slot());
        let left = tag.leave_unread(raw);
        left.map_err(|error| refused(self.clearer(raw, error)))?;
        // SAFETY: as in `discard_and`; the slot's content is not a value any more after this.
        let value = unsafe { self.value_of::<T>(tagged, raw).read() };
        put(tagged, tag.finish(raw.slot(), Ids::<C>::LAST));
        Ok(value)
    }

    /// The slab of a typed handle of this heap.
    #[inline]
    fn typed<T>(&self, handle: Handle<T>) -> Result<(&TaggedSlab, RawHandle), HandleError> {
        if handle.heap != self.ids.heap() || handle.heap == 0 {
            return Err(HandleError::Foreign);
        }
        Ok((self.tagged(handle.raw)?, handle.raw))
    }

    /// Where the value of a handle lies, whose slot the caller keeps.
    #[inline]
    fn value_of<T>(&self, tagged: &TaggedSlab, handle: RawHandle) -> NonNull<T> {
        let size = crate::config::Table::<C>::TABLE
            .handle_class(handle.class())
            .size();
        // SAFETY: the slot's bit is held, so the slab is pinned; slots lie inside its run.
        unsafe {
            let base = tagged.slab().body().base;
            NonNull::new_unchecked(base.add(handle.slot() * size).cast())
        }
    }
}

/// Ends an object when it goes, also when the destructor before it panics.
struct Finish<'h, F: FnOnce(&TaggedSlab, Finished), C: Config>(
    &'h TaggedSlab,
    RawHandle,
    Option<F>,
    PhantomData<C>,
);

impl<F: FnOnce(&TaggedSlab, Finished), C: Config> Drop for Finish<'_, F, C> {
    fn drop(&mut self) {
        let slot = self.1.slot();
        let finished = self.0.tag(slot).finish(slot, Ids::<C>::LAST);
        if let Some(put) = self.2.take() {
            put(self.0, finished);
        }
    }
}

impl<T, C: Config> Ref<'_, T, C> {
    /// The handle of what is read.
    #[must_use]
    pub const fn handle(reading: &Self) -> RawHandle {
        reading.handle
    }
}

impl<T, C: Config> Deref for Ref<'_, T, C> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the pin keeps the value from being dropped, and nobody gets to it otherwise.
        unsafe { self.value.as_ref() }
    }
}

impl<T, C: Config> Drop for Ref<'_, T, C> {
    fn drop(&mut self) {
        let Unpinned::Last { forget } = self.tagged.tag(self.handle.slot()).unpin() else {
            return;
        };
        let put = |tagged: &TaggedSlab, finished| {
            self.heap.put_ended(tagged, self.handle, finished);
        };
        let _finish = Finish(self.tagged, self.handle, Some(put), PhantomData::<C>);
        if !forget {
            // SAFETY: the value was freed to be dropped by its last reader, which is this.
            unsafe { self.value.drop_in_place() };
        }
    }
}

impl<T: fmt::Debug, C: Config> fmt::Debug for Ref<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ref").field(&**self).finish()
    }
}
