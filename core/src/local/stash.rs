//! The stash of a cell: words of slots that are held beside the current one, oldest first. The invariants are those of
//! [`Cell`].

use super::cell::{Cell, Held};
use crate::sync::Ordering::Relaxed;
use core::ptr;

impl Cell {
    pub(crate) const fn stashed(&self) -> usize {
        self.stashed.get() as usize
    }

    pub(super) const fn stash_room(&self) -> usize {
        self.stash_room.get() as usize - self.stashed.get() as usize
    }

    /// The `index`th stashed word, oldest first.
    pub(crate) fn stash(&self, index: usize) -> Held {
        debug_assert!(index < self.stashed());
        // SAFETY: inside the written part, by the caller's bound.
        unsafe { *self.stash_at().add(index) }
    }

    /// The word that was stashed last.
    pub(super) fn newest(&self) -> Option<Held> {
        self.stashed().checked_sub(1).map(|last| self.stash(last))
    }

    /// Stashes a word; there must be room.
    pub(super) fn stash_push(&self, held: Held) {
        debug_assert!(self.stash_room() > 0);
        // SAFETY: there is room.
        unsafe { self.stash_at().add(self.stashed()).write(held) };
        self.stashed.set(self.stashed.get() + 1);
        self.count_stashed(held.word.count_ones() as i16);
    }

    pub(super) fn stash_pop(&self) -> Option<Held> {
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
    pub(super) fn stash_drop_oldest(&self, count: usize) {
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
