//! What a local holds of one class: a magazine, a current word, a stash.
//!
//! # Invariants
//!
//! - Every address between `low` and `top` is a slot that was freed here or filled in, of a slab of
//!   this cell's class and row; its bit is held by this cell.
//! - `word` are slots of `slab`, whose first slot is at `base`, held by this cell.
//! - The first `stashed` entries of the stash are slabs with held words, none empty.
//! - No slot is in two of the three, so together they are this cell's words of DESIGN's equation.
//!
//! A cell is reached by its local alone; only the walker reads it from elsewhere, at rest.

use crate::slab::Slab;
use core::alloc::Layout;
use core::ptr;

/// A word that is held, with its slab.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) slab: *const Slab,
    pub(crate) word: u64,
}

/// The room of a full store: more than any class's own limits.
pub(crate) const FULL: Room = Room {
    magazine: 64,
    stash: 32,
};
/// The room of the store that a cell starts with.
pub(crate) const SMALL: Room = Room {
    magazine: 16,
    stash: 8,
};

/// How much a store has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) magazine: usize,
    pub(crate) stash: usize,
}

impl Room {
    /// The layout of a store of this room: the stash, then the magazine.
    pub(crate) const fn layout(self) -> Layout {
        let bytes = self.stash * size_of::<Held>() + self.magazine * size_of::<usize>();
        match Layout::from_size_align(bytes, 64) {
            Ok(layout) => layout,
            Err(_) => panic!("a store is a few hundred bytes"),
        }
    }
}

/// One line for each class: hot fields first.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Cell {
    /// Where the next freed address goes.
    top: *mut usize,
    low: *mut usize,
    high: *mut usize,
    /// The current word: allocation takes its lowest bit when the magazine is empty.
    pub(super) word: u64,
    base: *mut u8,
    slab: *const Slab,
    stash: *mut Held,
    stashed: u16,
    stash_room: u16,
    /// Slow paths since the store was made, until it is full size.
    pub(super) visits: u16,
    /// The slots in `word` read as zero: they come from a slab that nothing was written to yet.
    fresh: bool,
    is_full_size: bool,
}

impl Cell {
    pub(super) const EMPTY: Self = Self {
        top: ptr::null_mut(),
        low: ptr::null_mut(),
        high: ptr::null_mut(),
        word: 0,
        base: ptr::null_mut(),
        slab: ptr::null(),
        stash: ptr::null_mut(),
        stashed: 0,
        stash_room: 0,
        visits: 0,
        fresh: false,
        is_full_size: false,
    };

    /// The address that was freed last.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<usize> {
        if self.top == self.low {
            return None;
        }
        // SAFETY: `low < top`, so the entry below `top` is inside the magazine and was written.
        unsafe {
            self.top = self.top.sub(1);
            Some(*self.top)
        }
    }

    /// Notes a freed address, unless the magazine is full.
    #[inline]
    pub(super) fn push(&mut self, address: usize) -> bool {
        if self.top == self.high {
            return false;
        }
        // SAFETY: `top < high`, so the place is inside the magazine.
        unsafe {
            *self.top = address;
            self.top = self.top.add(1);
        }
        true
    }

    /// The lowest slot of the current word, for slots of `size` bytes.
    #[inline]
    pub(super) fn next_slot(&mut self, size: usize) -> Option<*mut u8> {
        if self.word == 0 {
            return None;
        }
        let slot = self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        // SAFETY: the slot lies in the slab that begins at `base`.
        Some(unsafe { self.base.add(slot * size) })
    }

    /// Whether neither the magazine nor the current word has a slot.
    pub(super) fn is_used_up(&self) -> bool {
        self.top == self.low && self.word == 0
    }

    /// Whether the slot that is next to be handed out reads as zero.
    pub(super) fn is_next_fresh(&self) -> bool {
        self.top == self.low && self.word != 0 && self.fresh
    }

    pub(super) const fn has_store(&self) -> bool {
        !self.stash.is_null()
    }

    pub(super) const fn is_full_size(&self) -> bool {
        self.is_full_size
    }

    /// Moves into a larger store; the old one, if there was one.
    ///
    /// # Safety
    /// `store` is unused memory of `room`'s layout, and `room` is larger than what is held. Limits
    /// are at most `room`'s.
    pub(super) unsafe fn move_to(&mut self, store: *mut u8, room: Room, limits: Room) -> *mut u8 {
        let old = self.stash;
        let held = self.in_magazine();
        // SAFETY: both stores are valid, do not overlap, and the new one has room.
        unsafe {
            let stash: *mut Held = store.cast();
            let low: *mut usize = stash.add(room.stash).cast();
            if !old.is_null() {
                ptr::copy_nonoverlapping(old, stash, self.stashed());
                ptr::copy_nonoverlapping(self.low, low, held);
            }
            self.stash = stash;
            self.low = low;
            self.top = low.add(held);
            self.high = low.add(limits.magazine);
        }
        self.stash_room = limits.stash as u16;
        self.is_full_size = room == FULL;
        self.visits = 0;
        old.cast()
    }

    /// Gives up the store, which must be empty.
    pub(super) fn take_store(&mut self) -> *mut u8 {
        debug_assert!(self.in_magazine() == 0 && self.stashed == 0);
        let store = self.stash;
        let word = (self.word, self.base, self.slab);
        *self = Self::EMPTY;
        (self.word, self.base, self.slab) = word;
        store.cast()
    }

    /// How many addresses the magazine holds.
    pub(crate) fn in_magazine(&self) -> usize {
        (self.top.addr() - self.low.addr()) / size_of::<usize>()
    }

    /// The `index`th address of the magazine, oldest first.
    pub(crate) fn magazine(&self, index: usize) -> usize {
        debug_assert!(index < self.in_magazine());
        // SAFETY: inside the written part, by the caller's bound.
        unsafe { *self.low.add(index) }
    }

    /// Forgets the oldest `count` addresses.
    pub(super) fn drop_oldest(&mut self, count: usize) {
        let left = self.in_magazine() - count;
        // SAFETY: both ranges are inside the magazine.
        unsafe {
            ptr::copy(self.low.add(count), self.low, left);
            self.top = self.low.add(left);
        }
    }

    pub(crate) const fn stashed(&self) -> usize {
        self.stashed as usize
    }

    pub(super) const fn stash_room(&self) -> usize {
        self.stash_room as usize - self.stashed as usize
    }

    /// The `index`th stashed word, oldest first.
    pub(crate) fn stash(&self, index: usize) -> Held {
        debug_assert!(index < self.stashed());
        // SAFETY: inside the written part, by the caller's bound.
        unsafe { *self.stash.add(index) }
    }

    /// The word that was stashed last.
    pub(super) fn newest(&self) -> Option<Held> {
        self.stashed().checked_sub(1).map(|last| self.stash(last))
    }

    /// Stashes a word; there must be room.
    pub(super) fn stash_push(&mut self, held: Held) {
        debug_assert!(self.stash_room() > 0);
        // SAFETY: there is room.
        unsafe { self.stash.add(self.stashed()).write(held) };
        self.stashed += 1;
    }

    pub(super) fn stash_pop(&mut self) -> Option<Held> {
        self.stashed = self.stashed.checked_sub(1)?;
        // SAFETY: the entry was written.
        Some(unsafe { *self.stash.add(self.stashed as usize) })
    }

    /// Forgets the oldest `count` stashed words.
    pub(super) fn stash_drop_oldest(&mut self, count: usize) {
        let left = self.stashed() - count;
        // SAFETY: both ranges are inside the stash.
        unsafe { ptr::copy(self.stash.add(count), self.stash, left) };
        self.stashed = left as u16;
    }

    /// The current word.
    pub(crate) const fn current(&self) -> Held {
        Held {
            slab: self.slab,
            word: self.word,
        }
    }

    /// Makes `held` the current word, whose slab begins at `base`. The old one must be used up.
    pub(super) fn set_current(&mut self, held: Held, base: *mut u8, fresh: bool) {
        debug_assert!(self.word == 0);
        self.word = held.word;
        self.slab = held.slab;
        self.base = base;
        self.fresh = fresh;
    }

    /// Adds slots of the same slab to the current word. They were used, so it is not fresh any more.
    pub(super) fn widen_current(&mut self, word: u64) {
        self.word = word;
        self.fresh = false;
    }

    /// Takes the current word away.
    pub(super) fn take_current(&mut self) -> Option<Held> {
        let held = self.current();
        self.word = 0;
        (held.word != 0).then_some(held)
    }
}
