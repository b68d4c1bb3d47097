//! Marks of the slots of a checked heap's plain slabs: a byte for each says whether an object lives there.

use super::Slab;
use crate::sync::AtomicU8;
use core::ptr;

/// How far behind a slab its marks begin, in a checked heap.
pub(crate) const MARKS_AT: usize = size_of::<Slab>();

/// What a mark says of a slot that is not live, and of one that is.
pub(crate) const FREE: u8 = 0;
pub(crate) const LIVE: u8 = 1;

/// A slot of a plain slab in one number: the slab's address, which is a multiple of 64, and the slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotName(pub(crate) u64);

impl SlotName {
    /// The slot, which is below 64.
    #[inline(always)]
    pub(crate) fn new(slab: *const Slab, slot: usize) -> Self {
        Self((slab.addr() + slot) as u64)
    }

    /// The slab's address, and the slot.
    #[inline]
    pub(crate) const fn parts(self) -> (usize, u32) {
        let name = self.0 as usize;
        (name & !63, name as u32 & 63)
    }

    /// The mark of the slot.
    ///
    /// # Safety
    /// The slab is one of a checked heap.
    #[inline(always)]
    pub(crate) unsafe fn mark<'s>(self) -> &'s AtomicU8 {
        // SAFETY: 64 marks follow the slab, in the same piece of exposed metadata memory, which stays until the heap is
        // dropped; they are only accessed atomically.
        unsafe { &*ptr::with_exposed_provenance(self.0 as usize + MARKS_AT) }
    }
}
