//! The stash of a cell: words of slots that are held beside the current one, oldest first. The invariants are those of
//! [`Cell`].

use super::cell::{Cell, Held};
use crate::sync::Ordering::Relaxed;
use core::ptr;

/// Slots of one slab that come back together, from which on it is not worth looking where others of it are.
pub(crate) const MANY: u32 = 4;

impl Cell {
    pub(crate) const fn stashed(&self) -> usize {
        self.stashed.get() as usize
    }

    pub(crate) const fn stash_room(&self) -> usize {
        self.stash_room.get() as usize - self.stashed.get() as usize
    }

    /// The `index`th stashed word, oldest first.
    pub(crate) fn stash(&self, index: usize) -> Held {
        debug_assert!(index < self.stashed());
        // SAFETY: inside the written part, by the caller's bound.
        unsafe { *self.stash_at().add(index) }
    }

    /// Adds `word` to what is stashed of its slab, if anything is: the place in the stash, and the slots that were in both.
    /// Slots that come back a few at a time, in no order, are so of few slabs; for many at a time the newest place is the only
    /// one that is looked at, for they make a word of their own.
    #[inline]
    pub(crate) fn stash_join(&self, held: Held) -> Option<(usize, u64)> {
        let places = if held.word.count_ones() < MANY {
            self.stashed()
        } else {
            1
        };
        let mut newest_first = (0..self.stashed()).rev().take(places);
        let place = newest_first.find(|place| ptr::eq(self.stash(*place).slab, held.slab))?;
        // SAFETY: inside the written part.
        let joined = unsafe { &mut (*self.stash_at().add(place)).word };
        let both = *joined & held.word;
        *joined |= held.word;
        self.count_stashed((held.word & !both).count_ones() as i16);
        Some((place, both))
    }

    /// Takes out the `place`th stashed word.
    pub(crate) fn stash_remove(&self, place: usize) -> Held {
        let held = self.stash(place);
        let behind = self.stashed() - place - 1;
        // SAFETY: both ranges are inside the stash.
        unsafe {
            let at = self.stash_at().add(place);
            ptr::copy(at.add(1), at, behind);
        }
        self.stashed.set(self.stashed.get() - 1);
        self.count_stashed(-(held.word.count_ones() as i16));
        held
    }

    /// Stashes a word; there must be room.
    pub(crate) fn stash_push(&self, held: Held) {
        debug_assert!(self.stash_room() > 0);
        // SAFETY: there is room.
        unsafe { self.stash_at().add(self.stashed()).write(held) };
        self.stashed.set(self.stashed.get() + 1);
        self.count_stashed(held.word.count_ones() as i16);
    }

    pub(crate) fn stash_pop(&self) -> Option<Held> {
        let last = self.stashed.get().checked_sub(1)?;
        let held = self.stash(usize::from(last));
        self.stashed.set(last);
        self.count_stashed(-(held.word.count_ones() as i16));
        Some(held)
    }

    fn count_stashed(&self, change: i16) {
        let slots = self.stashed_slots.load(Relaxed).wrapping_add_signed(change);
        self.stashed_slots.store(slots, Relaxed);
    }

    /// Forgets the oldest `count` stashed words.
    pub(crate) fn stash_drop_oldest(&self, count: usize) {
        let left = self.stashed() - count;
        let slots: u32 = (0..count)
            .map(|index| self.stash(index).word.count_ones())
            .sum();
        self.count_stashed(-(slots as i16));
        // SAFETY: both ranges are inside the stash.
        unsafe { ptr::copy(self.stash_at().add(count), self.stash_at(), left) };
        self.stashed.set(left as u8);
    }
}
