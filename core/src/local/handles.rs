//! Objects that are named by handles, through a local.

use super::Local;
use crate::cache::{Cell, Entry};
use crate::config::{Config, Table};
use crate::epoch::{Epoch, Tag};
use crate::error::AllocError;
use crate::handle::{Finished, FreeWord, HandleError, RawHandle, TaggedSlab};
use crate::heap::{Handle, Heap};
use core::alloc::Layout;

impl<'h, C: Config> Local<'h, C> {
    /// As [`Heap::alloc_raw`].
    ///
    /// # Errors
    /// As for [`Heap::alloc_raw`].
    #[inline]
    pub fn alloc_raw(&mut self, layout: Layout) -> Result<RawHandle, AllocError> {
        let class = self.heap.handle_class(layout)?;
        let word = self.take_home(class)?;
        self.name(word, class)
    }

    /// As [`Heap::alloc_raw_in`].
    ///
    /// # Errors
    /// As for [`Heap::alloc_raw_in`].
    #[inline]
    pub fn alloc_raw_in(&mut self, epoch: Epoch, layout: Layout) -> Result<RawHandle, AllocError> {
        let class = self.heap.handle_class(layout)?;
        let word = self.take_word_in(epoch, class)?;
        self.name(word, class)
    }

    /// As [`Heap::free_raw`].
    ///
    /// # Errors
    /// As for [`Heap::free_raw`].
    #[inline]
    pub fn free_raw(&mut self, handle: RawHandle) -> Result<(), HandleError> {
        match self.heap.end_at_once(handle) {
            Some(tagged) => {
                self.put_slot(tagged, handle);
                Ok(())
            }
            None => self.heap.free_raw_slow(handle),
        }
    }

    /// As [`Heap::insert`].
    ///
    /// # Errors
    /// As for [`Heap::insert`].
    #[inline]
    pub fn insert<T: Send + Sync>(&mut self, value: T) -> Result<Handle<T>, AllocError> {
        let class = self.heap.handle_class(Layout::new::<T>())?;
        let word = self.take_home(class)?;
        self.name_value(word, class, value)
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
        let class = self.heap.handle_class(Layout::new::<T>())?;
        let word = self.take_word_in(epoch, class)?;
        self.name_value(word, class, value)
    }

    /// As [`Heap::discard`].
    ///
    /// # Errors
    /// As for [`Heap::discard`].
    pub fn discard<T>(&mut self, handle: Handle<T>) -> Result<(), HandleError> {
        let heap = self.heap;
        heap.discard_and(handle, |tagged, finished| {
            self.put_ended(tagged, handle.raw(), finished);
        })
    }

    /// As [`Heap::remove`].
    ///
    /// # Errors
    /// As for [`Heap::remove`].
    pub fn remove<T>(&mut self, handle: Handle<T>) -> Result<T, HandleError> {
        let heap = self.heap;
        heap.remove_and(handle, |tagged, finished| {
            self.put_ended(tagged, handle.raw(), finished);
        })
    }

    #[inline]
    fn name_value<T>(
        &self,
        word: FreeWord,
        class: usize,
        value: T,
    ) -> Result<Handle<T>, AllocError> {
        let handle = word.with_class(class - Table::<C>::TABLE.len());
        let tagged = self.tagged_of(word)?;
        let size = Table::<C>::TABLE.class(class).size();
        // SAFETY: the local held the slot, so the slab is pinned; the slot lies inside its run, is large
        // enough, aligned, and nobody else's.
        unsafe {
            let object: *mut T = tagged.slab().body().base.add(handle.slot() * size).cast();
            object.write(value);
        }
        tagged.tag(handle.slot()).name(handle);
        Ok(Handle::new(handle, self.heap.ids.heap()))
    }

    /// Names the object in a slot, by its tag's word.
    #[inline]
    fn name(&self, word: FreeWord, class: usize) -> Result<RawHandle, AllocError> {
        let handle = word.with_class(class - Table::<C>::TABLE.len());
        self.tagged_of(word)?.tag(handle.slot()).name(handle);
        Ok(handle)
    }

    /// The slab of a word that this local held. There always is one: its id was given out.
    #[inline]
    fn tagged_of(&self, word: FreeWord) -> Result<&'h TaggedSlab, AllocError> {
        debug_assert!(self.heap.slab_of(word).is_some());
        self.heap.slab_of(word).ok_or(AllocError::HandlesExhausted)
    }

    /// The word of a slot, in the root epoch.
    #[inline]
    fn take_home(&mut self, class: usize) -> Result<FreeWord, AllocError> {
        match self.pick_word(self.home.cells, class) {
            Some(word) => Ok(word),
            None => self.refill_word(self.home, Tag::ROOT, class),
        }
    }

    /// The word of a slot, in an epoch.
    #[inline]
    fn take_word_in(&mut self, epoch: Epoch, class: usize) -> Result<FreeWord, AllocError> {
        if let Some(cells) = self.last_cells(epoch)
            && let Some(word) = self.pick_word(cells, class)
        {
            return Ok(word);
        }
        self.take_word_in_elsewhere(epoch, class)
    }

    /// As `pick`, for a class with tags.
    #[inline(always)]
    pub(super) fn pick_word(&self, cells: *mut Cell, class: usize) -> Option<FreeWord> {
        // SAFETY: an epoch cache has a cell for each class of the table.
        let cell = unsafe { &*cells.add(class) };
        let (popped, from) = self.draw(cell);
        if let Some(entry) = popped {
            return Some(FreeWord(entry.name));
        }
        let (tag, _) = cell.next_slot(TaggedSlab::STRIDE, from)?;
        // SAFETY: the cell's base are the tags of the slab of its word, and the slot was held by it.
        Some(unsafe { TaggedSlab::free_word_at(tag) })
    }

    /// Keeps the slot of an object that was ended at hand, if it may be used again.
    fn put_ended(&mut self, tagged: &TaggedSlab, handle: RawHandle, finished: Finished) {
        if finished.is_exhausted || Heap::<C>::is_scoped(handle) {
            self.heap.put_ended(tagged, handle, finished);
        } else {
            self.put_slot(tagged, handle);
        }
    }

    /// Keeps the slot of an object that was ended at hand.
    #[inline]
    fn put_slot(&mut self, tagged: &TaggedSlab, handle: RawHandle) {
        // SAFETY: whoever ends an object holds its slot.
        unsafe { self.heap.wipe_tagged(tagged, handle) };
        let word = FreeWord::after(handle);
        let class = handle.class() + Table::<C>::TABLE.len();
        // Whoever ends an object holds its bit, so the slab is pinned and is of this depot.
        let id = tagged.slab().identity().key().depot();
        let entry = Entry::unmarked(word.0);
        if id == self.home.id {
            if !self.cell(self.home, class).push(entry, C::CHECKED) {
                self.spill(self.home, class, entry);
            }
            return;
        }
        let near = *self.near(id);
        if near.id != id {
            // SAFETY: the slab is pinned, and depots stay valid for as long as the heap.
            let depot = unsafe { tagged.slab().body().depot_of::<C::Lock>() };
            self.put_slot_elsewhere(depot, class, word);
        } else if !self.cell(near, class).push(entry, C::CHECKED) {
            self.spill(near, class, entry);
        }
    }
}
