//! Objects that are named by handles, without a local.

use super::Heap;
use crate::class::{MIN_HANDLE_SIZE, Purpose};
use crate::config::{Config, Table};
use crate::depot::EpochDepot;
use crate::epoch::{Epoch, Tag};
use crate::error::AllocError;
use crate::handle::{Ended, FreeWord, HandleError, Ids, RawHandle, TaggedSlab};
use crate::pages::Kind;
use core::alloc::Layout;
use core::ptr::NonNull;

impl<C: Config> Heap<C> {
    /// Allocates an object that is named by a handle, in the root epoch; from where, see
    /// [`Heap::alloc`]. It has 64 bytes at least, and at most those of the largest class of up to 8 KiB.
    ///
    /// # Errors
    /// As for [`Heap::alloc`], or if the object is too large for a handle or the ids of handles are
    /// used up.
    pub fn alloc_raw(&self, layout: Layout) -> Result<RawHandle, AllocError> {
        self.alloc_named(self.root()?, Tag::ROOT, layout)
            .map(|(handle, _)| handle)
    }

    /// As [`Heap::alloc_raw`], in an epoch.
    ///
    /// # Errors
    /// As for [`Heap::alloc_raw`], or if the epoch is closed.
    pub fn alloc_raw_in(&self, epoch: Epoch, layout: Layout) -> Result<RawHandle, AllocError> {
        let depot = self.open_depot(epoch)?;
        self.alloc_named(depot, epoch.tag(), layout)
            .map(|(handle, _)| handle)
    }

    /// Where the object of a handle lies, if it lives. Any 64 bits may be asked for; what is read is
    /// metadata, and a fixed number of words of it.
    ///
    /// Nothing keeps the object from being freed meanwhile: whoever uses the pointer must know that
    /// nobody does. [`Heap::get`] keeps it.
    #[must_use]
    #[inline]
    pub fn get_raw(&self, handle: RawHandle) -> Option<NonNull<u8>> {
        if !handle.is_well_formed() {
            return None;
        }
        let size = Table::<C>::TABLE.handle_class(handle.class()).size();
        self.ids.find(handle)?.find(handle, size)
    }

    /// As [`Heap::get_raw`], and why not.
    ///
    /// # Errors
    /// If the handle names no live object.
    pub fn try_get_raw(&self, handle: RawHandle) -> Result<NonNull<u8>, HandleError> {
        let found = self.get_raw(handle);
        found.ok_or_else(|| self.why_not(handle))
    }

    /// Frees the object of a handle. Of any number of frees of one handle one is `Ok`. An object that
    /// is being read ([`Heap::get`]) is gone for everybody else, and its memory is given back by its
    /// last reader. Destructors do not run; see [`Heap::discard`].
    ///
    /// # Errors
    /// If the handle names no live object; the heap is then as it was.
    #[inline]
    pub fn free_raw(&self, handle: RawHandle) -> Result<(), HandleError> {
        match self.end_at_once(handle) {
            Some(tagged) => {
                self.put_slot(tagged, handle);
                Ok(())
            }
            None => self.free_raw_slow(handle),
        }
    }

    /// Makes this heap's ids begin at `id`, of 22 bits: for programs whose heaps must tell each other's
    /// handles apart and cannot leave that to chance. `false` if handles were made already.
    pub fn set_first_handle_id(&self, id: u32) -> bool {
        self.ids.set_first(id)
    }

    /// How many ids of slabs with handles were given out, and how many there are.
    pub(super) fn handle_ids(&self) -> (u32, u32) {
        self.ids.given()
    }

    /// Allocates an object and names it.
    pub(crate) fn alloc_named(
        &self,
        depot: &EpochDepot<C::Lock>,
        tag: Tag,
        layout: Layout,
    ) -> Result<(RawHandle, NonNull<u8>), AllocError> {
        let class = self.handle_class(layout)?;
        let object = self.alloc_slot(depot, tag, class)?;
        Ok((self.name(object, class), object))
    }

    /// The class, of those with tags, that serves a layout.
    #[inline]
    pub(crate) fn handle_class(&self, layout: Layout) -> Result<usize, AllocError> {
        let table = Table::<C>::TABLE;
        let class = table.handle_index_for(layout);
        class
            .map(|class| table.index_of(class, Purpose::Tagged))
            .ok_or_else(|| self.refused(AllocError::TooLarge, None, None))
    }

    /// Names an object of a tagged class that the caller just got.
    #[inline]
    pub(crate) fn name(&self, object: NonNull<u8>, class: usize) -> RawHandle {
        let address = object.addr().get();
        let shape = Table::<C>::TABLE.class(class);
        // SAFETY: the object is the caller's, so it lies in a chunk of the heap and pins its slab, which
        // is of a tagged class.
        let (tagged, base) = unsafe {
            let slab = self.entry(address).slab().unwrap_unchecked();
            (TaggedSlab::of(slab), slab.body().base)
        };
        let slot = shape.slot_of(address.wrapping_sub(base.addr()));
        tagged.name(slot, class - Table::<C>::TABLE.len())
    }

    /// The slab of a free slot, whose bit the caller holds, by the word of its tag.
    #[inline]
    pub(crate) fn slab_of(&self, word: FreeWord) -> Option<&TaggedSlab> {
        self.ids.find(RawHandle::of_word(word))
    }

    /// The word of the tag of an object of a tagged class that the caller just got.
    pub(crate) fn free_word(&self, object: NonNull<u8>, class: usize) -> FreeWord {
        let address = object.addr().get();
        // SAFETY: as in `name`.
        let (tagged, base) = unsafe {
            let slab = self.entry(address).slab().unwrap_unchecked();
            (TaggedSlab::of(slab), slab.body().base)
        };
        let slot = Table::<C>::TABLE
            .class(class)
            .slot_of(address.wrapping_sub(base.addr()));
        tagged.tag(slot as usize).free_word()
    }

    /// The slab that a handle claims.
    #[inline]
    pub(crate) fn tagged(&self, handle: RawHandle) -> Result<&TaggedSlab, HandleError> {
        if !handle.is_well_formed() {
            return Err(HandleError::Malformed);
        }
        match self.ids.find(handle) {
            Some(tagged) => Ok(tagged),
            None => Err(self.why_not(handle)),
        }
    }

    /// Ends the object that a handle names, if that is all that there is to do: nobody reads it, its slot
    /// has another generation, and its bit is not a scope's.
    #[inline]
    pub(crate) fn end_at_once(&self, handle: RawHandle) -> Option<&TaggedSlab> {
        let is_easy = handle.is_well_formed()
            && handle.generation() < Ids::<C>::LAST
            && !Self::is_scoped(handle);
        if !is_easy {
            return None;
        }
        let tagged = self.ids.find(handle)?;
        let is_over = tagged.tag(handle.slot()).end_at_once(handle);
        is_over.then_some(tagged)
    }

    /// As [`Heap::free_raw`], whatever it takes.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_raw_slow(&self, handle: RawHandle) -> Result<(), HandleError> {
        let ended = self
            .tagged(handle)
            .and_then(|tagged| Ok((tagged, self.end_object(tagged, handle)?)));
        match ended.map_err(|error| self.refused_handle(error))? {
            (tagged, Ended::Now(finished)) => self.put_ended(tagged, handle, finished),
            (_, Ended::Later) => {}
        }
        Ok(())
    }

    /// Ends the object that a handle names.
    pub(crate) fn end_object(
        &self,
        tagged: &TaggedSlab,
        handle: RawHandle,
    ) -> Result<Ended, HandleError> {
        let ended = tagged.tag(handle.slot()).end(handle, Ids::<C>::LAST);
        ended.map_err(|error| self.clearer(handle, error))
    }

    /// Whether the handle's object is a scope's, which holds the bits of its slots. The tag agreed with
    /// the handle, so this is no claim any more.
    #[inline]
    pub(crate) fn is_scoped(handle: RawHandle) -> bool {
        handle.class() >= Table::<C>::TABLE.named()
    }

    /// Sees to it that an owned slab has an id.
    pub(super) fn name_slab(&self, tagged: &TaggedSlab) -> Result<(), AllocError> {
        if tagged.has_id() {
            return Ok(());
        }
        self.ids.assign(
            tagged,
            || self.with_reclaim(|| self.pages.take_meta(Kind::IdTable, Ids::<C>::TABLE)),
            // SAFETY: the table was taken for this and not used.
            |table| unsafe { self.pages.put_meta(Kind::IdTable, table) },
        )
    }

    /// Why a handle was refused.
    #[cold]
    #[inline(never)]
    pub(crate) fn why_not(&self, handle: RawHandle) -> HandleError {
        if !handle.is_well_formed() {
            return HandleError::Malformed;
        }
        let error = match self.ids.find(handle) {
            Some(tagged) => tagged.tag(handle.slot()).why_not(handle),
            None => HandleError::Foreign,
        };
        self.clearer(handle, error)
    }

    /// The error, unless the handle could not be one of this heap's at all.
    #[cold]
    pub(super) fn clearer(&self, handle: RawHandle, error: HandleError) -> HandleError {
        let table = Table::<C>::TABLE;
        let shape = table.handle_class(handle.class());
        let can_be = handle.class() < 2 * table.named()
            && shape.size() >= MIN_HANDLE_SIZE
            && handle.slot() < shape.slots();
        if can_be {
            error
        } else {
            HandleError::Malformed
        }
    }
}
