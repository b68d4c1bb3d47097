//! A slab whose slots have tags.
//!
//! # Retired slots
//!
//! A slot whose generations are used up is taken out of its slab: it is neither free nor held nor
//! live, and `retired` says so. All slots are then `class.all` without it. Of a retire and the give of
//! the last other slots one must find the slab empty: the retirer first adds to `retired` and then
//! reads the word by a read-modify-write ([`Slab::free_settled`]); a giver first adds to the word and
//! then reads `retired`. The two meet in the word: if the giver is the later one, the retirer's
//! addition happens before it and is read; if the retirer is, it finds the giver's bits. If both find the slab
//! empty the claim's compare-and-swap decides, in which life it happens included ([`Slab::claim_in`]).
//!
//! A giver may read what a retirer added although that did not come to the word yet. It then claims without
//! having met it there, and what the retirer did to its slot must happen before the claim all the same: so the retirer
//! adds with `Release`, and `retired` is read with `Acquire`. Of the contexts that retire all slots the last one owns the
//! slab, and the others happen before it by `retired` alone (`AcqRel`). An owner clears it when the
//! slab gets a fresh id.

use super::RawHandle;
use super::tag::{FreeWord, SlotTag};
use crate::slab::{Claim, Slab};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use core::ptr::{self, NonNull};

/// The most slots of a slab.
pub(super) const SLOTS: usize = 64;

/// A slab with its tags. Type-stable, as a slab is.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct TaggedSlab {
    slab: Slab,
    /// The first slot, for looks that pin nothing. An owner stores it (`Release`) before any slot of
    /// this life is named; the ends of the lives before happen before a load (`Acquire`) that
    /// finds it.
    base: AtomicPtr<u8>,
    /// Slots that are out of use until the slab gets a fresh id. `AcqRel` in `retire`, with itself and
    /// the `Acquire` in `retired`; an owner clears it `Relaxed`.
    retired: AtomicU64,
    /// The id and one more, or 0 for none. `Relaxed`: an owner's affair, like the slab's identity.
    id: AtomicU32,
    tags: [SlotTag; SLOTS],
}

impl TaggedSlab {
    /// A tagged slab without an id.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self {
            slab: Slab::new(),
            base: AtomicPtr::new(ptr::null_mut()),
            retired: AtomicU64::new(0),
            id: AtomicU32::new(0),
            tags: core::array::from_fn(|_| SlotTag::new()),
        }
    }

    /// The tagged slab that a slab is the beginning of.
    ///
    /// # Safety
    /// It is: its class is a tagged one, or its metadata was taken for one.
    #[inline]
    pub(crate) unsafe fn of(slab: &Slab) -> &Self {
        let at = ptr::from_ref(slab).addr();
        // SAFETY: the slab lies in exposed metadata memory, at the beginning of a tagged slab, whose
        // fields are atomic; it stays for as long as the slab does.
        unsafe { &*ptr::with_exposed_provenance(at) }
    }

    /// The slab.
    #[inline]
    pub(crate) const fn slab(&self) -> &Slab {
        &self.slab
    }

    /// The distance from one tag to the next.
    pub(crate) const STRIDE: usize = size_of::<SlotTag>();

    /// The first tag.
    pub(crate) fn tags(&self) -> *mut u8 {
        self.tags.as_ptr().cast_mut().cast()
    }

    /// The word of a free slot, by its tag's place.
    ///
    /// # Safety
    /// `tag` is at [`TaggedSlab::tags`] or some strides behind, and the caller holds the slot's bit.
    #[inline]
    pub(crate) unsafe fn free_word_at(tag: *mut u8) -> FreeWord {
        // SAFETY: the caller's promise.
        unsafe { &*tag.cast::<SlotTag>() }.free_word()
    }

    /// The tag of a slot below 64.
    #[inline]
    pub(crate) const fn tag(&self, slot: usize) -> &SlotTag {
        &self.tags[slot & (SLOTS - 1)]
    }

    /// For the owner, before the slab is opened.
    pub(crate) fn set_base(&self, base: *mut u8) {
        self.base.store(base, Ordering::Release);
    }

    /// Names the object in a slot, whose bit the caller holds.
    #[inline]
    pub(crate) fn name(&self, slot: u32, class: usize) -> RawHandle {
        let tag = self.tag(slot as usize);
        let handle = tag.free_word().with_class(class);
        tag.name(handle);
        handle
    }

    /// Where the object of a well-formed handle lies, in slots of `size` bytes, if it lives.
    ///
    /// The caller pins nothing, so the object may end at any time, and the slab serve another class
    /// elsewhere. The second look decides: if the name is still there the slot was never freed in
    /// between, so the slab was pinned by its object all the time and the base is of this life. A base
    /// of a later life was stored after the end of this one, which the `Acquire` puts before the second look.
    #[inline]
    pub(crate) fn find(&self, handle: RawHandle, size: usize) -> Option<NonNull<u8>> {
        let tag = self.tag(handle.slot());
        if !tag.is_named(handle) {
            return None;
        }
        let base = self.base.load(Ordering::Acquire);
        if !tag.is_still_named(handle) {
            return None;
        }
        NonNull::new(base.wrapping_add(handle.slot() * size))
    }

    /// Slots that are out of use. Who claims the slab without them is behind those who retired them.
    #[inline]
    pub(crate) fn retired(&self) -> u64 {
        self.retired.load(Ordering::Acquire)
    }

    /// Puts slots, whose bits the caller holds, out of use, and makes the caller the owner of the slab if
    /// all others of its `all` slots are free.
    pub(crate) fn retire(&self, bits: u64, all: u64) -> Claim {
        // Before the bits are gone, and with them the pin.
        let seen = self.slab.identity();
        let retired = self.retired.fetch_or(bits, Ordering::AcqRel) | bits;
        let left = all & !retired;
        if left == 0 {
            // Nobody else has a slot, and nothing can be given or claimed.
            return Claim::Won;
        }
        if self.slab.free_settled() == left {
            self.slab.claim_in(seen, left)
        } else {
            Claim::Lost
        }
    }

    /// The slots that have an object which was not ended.
    #[cfg(any(feature = "walker", all(test, loom)))]
    pub(crate) fn taken(&self) -> u64 {
        let tags = self.tags.iter().enumerate();
        tags.fold(0, |word, (slot, tag)| {
            word | u64::from(tag.is_taken()) << slot
        })
    }

    /// Whether the slab has an id. For its owner.
    pub(crate) fn has_id(&self) -> bool {
        self.id.load(Ordering::Relaxed) != 0
    }

    /// Gives the slab a fresh id, under which all its slots begin anew. For its owner.
    pub(crate) fn begin(&self, id: u32) {
        for (slot, tag) in self.tags.iter().enumerate() {
            tag.begin(id, slot);
        }
        self.retired.store(0, Ordering::Relaxed);
        self.id.store(id + 1, Ordering::Relaxed);
    }

    /// Says that the slab needs a fresh id before it is used again. For its owner.
    pub(crate) fn forget_id(&self) {
        self.id.store(0, Ordering::Relaxed);
    }
}
