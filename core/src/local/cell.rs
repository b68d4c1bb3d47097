//! What a local holds of one class: a magazine, a current word, a stash.
//!
//! # Invariants
//!
//! - Every entry between `low` and `top` names a slot that was freed here or filled in, of a slab of
//!   this cell's class and row; its bit is held by this cell.
//! - `word` are slots of `slab`, whose first slot (or tag) is at `base`, held by this cell.
//! - The first `stashed` entries of the stash are slabs with held words, none empty.
//! - No slot is in two of the three, so together they are this cell's words of DESIGN's equation.
//!
//! A cell is changed by its local alone. Others read how much it holds ([`Cell::held_slots`]), so what
//! that reads is atomic, and `Relaxed`: a figure that orders nothing, true at rest. The walker reads
//! everything, at rest.

use crate::slab::Slab;
use crate::sync::{AtomicPtr, AtomicU16, AtomicU64, Ordering::Relaxed};
use core::alloc::Layout;
use core::cell::Cell as Own;
use core::ptr;

/// What names a slot in the magazine: its address, or for a class with tags the word of its tag. The next
/// handle is then known before the compare-and-swap that ended the last one is through.
pub(crate) type Entry = u64;

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
        let bytes = self.stash * size_of::<Held>() + self.magazine * size_of::<Entry>();
        match Layout::from_size_align(bytes, 64) {
            Ok(layout) => layout,
            Err(_) => panic!("a store is a few hundred bytes"),
        }
    }
}

/// One line for each class: hot fields first. What is atomic is `Relaxed`: see the head.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Cell {
    /// Where the next freed address goes.
    top: AtomicPtr<Entry>,
    low: AtomicPtr<Entry>,
    high: Own<*mut Entry>,
    /// The current word: allocation takes its lowest bit when the magazine is empty.
    word: AtomicU64,
    base: Own<*mut u8>,
    slab: Own<*const Slab>,
    stash: Own<*mut Held>,
    stashed: Own<u8>,
    stash_room: Own<u8>,
    /// The slots in the stash's words.
    stashed_slots: AtomicU16,
    /// Slow paths since the store was made, until it is full size.
    pub(super) visits: Own<u8>,
    /// The slots in `word` read as zero: they come from a slab that nothing was written to yet.
    fresh: Own<bool>,
    is_full_size: Own<bool>,
}

impl Cell {
    #[expect(
        clippy::declare_interior_mutable_const,
        reason = "it is copied into place, not used"
    )]
    pub(super) const EMPTY: Self = Self {
        top: AtomicPtr::new(ptr::null_mut()),
        low: AtomicPtr::new(ptr::null_mut()),
        high: Own::new(ptr::null_mut()),
        word: AtomicU64::new(0),
        base: Own::new(ptr::null_mut()),
        slab: Own::new(ptr::null()),
        stash: Own::new(ptr::null_mut()),
        stashed: Own::new(0),
        stash_room: Own::new(0),
        stashed_slots: AtomicU16::new(0),
        visits: Own::new(0),
        fresh: Own::new(false),
        is_full_size: Own::new(false),
    };

    #[inline]
    fn top(&self) -> *mut Entry {
        self.top.load(Relaxed)
    }

    #[inline]
    fn low(&self) -> *mut Entry {
        self.low.load(Relaxed)
    }

    #[inline]
    fn word(&self) -> u64 {
        self.word.load(Relaxed)
    }

    /// The entry that was pushed last.
    #[inline]
    pub(super) fn pop(&self) -> Option<Entry> {
        let top = self.top();
        if top == self.low() {
            return None;
        }
        // SAFETY: `low < top`, so the entry below `top` is inside the magazine and was written.
        unsafe {
            let top = top.sub(1);
            self.top.store(top, Relaxed);
            Some(*top)
        }
    }

    /// Any entry: by a number, which need not be less than there are.
    #[cold]
    pub(super) fn pop_any(&self, number: usize) -> Option<Entry> {
        let count = self.in_magazine();
        if count == 0 {
            return None;
        }
        // SAFETY: both are among the entries that were written, from `low` on.
        unsafe {
            let (any, last) = (self.low().add(number % count), self.top().sub(1));
            ptr::swap(any, last);
        }
        self.pop()
    }

    /// Notes a freed slot, unless the magazine is full.
    #[inline]
    pub(super) fn push(&self, entry: Entry) -> bool {
        let top = self.top();
        if top == self.high.get() {
            return false;
        }
        // SAFETY: `top < high`, so the place is inside the magazine.
        unsafe {
            *top = entry;
            self.top.store(top.add(1), Relaxed);
        }
        true
    }

    /// A slot of the current word, for slots of `size` bytes: the lowest, or the first from a bit on; and its number.
    #[inline]
    pub(super) fn next_slot(&self, size: usize, from: Option<u32>) -> Option<(*mut u8, u32)> {
        let word = self.word();
        if word == 0 {
            return None;
        }
        let (slot, left) = match from {
            None => (word.trailing_zeros(), word & (word - 1)),
            Some(from) => {
                let slot = (word.rotate_right(from % 64).trailing_zeros() + from) % 64;
                (slot, word & !(1 << slot))
            }
        };
        self.word.store(left, Relaxed);
        // SAFETY: the slot lies in the slab that begins at `base`.
        Some((unsafe { self.base.get().add(slot as usize * size) }, slot))
    }

    /// The slab of the current word.
    #[inline]
    pub(super) fn slab(&self) -> *const Slab {
        self.slab.get()
    }

    /// How many slots a cell holds. Anyone may ask; exact at rest.
    ///
    /// # Safety
    /// `cell` is a cell that is valid meanwhile. Its owner may be changing it, so there is no reference.
    pub(crate) unsafe fn held_slots(cell: *const Self) -> usize {
        // SAFETY: the fields are valid, and atomic.
        let (top, low, word, stashed) = unsafe {
            (
                &(*cell).top,
                &(*cell).low,
                &(*cell).word,
                &(*cell).stashed_slots,
            )
        };
        let magazine = top
            .load(Relaxed)
            .addr()
            .saturating_sub(low.load(Relaxed).addr());
        (magazine / size_of::<Entry>()).min(FULL.magazine)
            + word.load(Relaxed).count_ones() as usize
            + usize::from(stashed.load(Relaxed))
    }

    /// Whether neither the magazine nor the current word has a slot.
    pub(super) fn is_used_up(&self) -> bool {
        self.top() == self.low() && self.word() == 0
    }

    /// Whether the slot that is next to be handed out reads as zero.
    pub(super) fn is_next_fresh(&self) -> bool {
        self.top() == self.low() && self.word() != 0 && self.fresh.get()
    }

    pub(super) const fn has_store(&self) -> bool {
        !self.stash.get().is_null()
    }

    pub(super) const fn is_full_size(&self) -> bool {
        self.is_full_size.get()
    }

    /// Moves into a larger store; the old one, if there was one.
    ///
    /// # Safety
    /// `store` is unused memory of `room`'s layout, and `room` is larger than what is held. Limits
    /// are at most `room`'s.
    pub(super) unsafe fn move_to(&self, store: *mut u8, room: Room, limits: Room) -> *mut u8 {
        let old = self.stash.get();
        let held = self.in_magazine();
        // SAFETY: both stores are valid, do not overlap, and the new one has room.
        unsafe {
            let stash: *mut Held = store.cast();
            let low: *mut Entry = stash.add(room.stash).cast();
            if !old.is_null() {
                ptr::copy_nonoverlapping(old, stash, self.stashed());
                ptr::copy_nonoverlapping(self.low(), low, held);
            }
            self.stash.set(stash);
            self.low.store(low, Relaxed);
            self.top.store(low.add(held), Relaxed);
            self.high.set(low.add(limits.magazine));
        }
        self.stash_room.set(limits.stash as u8);
        self.is_full_size.set(room == FULL);
        self.visits.set(0);
        old.cast()
    }

    /// Gives up the store of a cell that holds nothing.
    pub(super) fn take_store(&self) -> *mut u8 {
        debug_assert!(self.is_used_up() && self.stashed() == 0);
        self.top.store(ptr::null_mut(), Relaxed);
        self.low.store(ptr::null_mut(), Relaxed);
        self.high.set(ptr::null_mut());
        self.is_full_size.set(false);
        self.stash_room.set(0);
        self.stash.replace(ptr::null_mut()).cast()
    }

    /// How many entries the magazine holds.
    pub(crate) fn in_magazine(&self) -> usize {
        self.top().addr().saturating_sub(self.low().addr()) / size_of::<Entry>()
    }

    /// The `index`th entry of the magazine, oldest first.
    #[cfg(feature = "walker")]
    pub(crate) fn magazine(&self, index: usize) -> Entry {
        debug_assert!(index < self.in_magazine());
        // SAFETY: inside the written part, by the caller's bound.
        unsafe { *self.low().add(index) }
    }

    /// Some of the magazine's entries, oldest first.
    ///
    /// # Safety
    /// The magazine holds as many, and is not changed while the slice is used.
    pub(super) unsafe fn oldest(&self, range: core::ops::Range<usize>) -> &[Entry] {
        // SAFETY: the caller's promise.
        unsafe { core::slice::from_raw_parts(self.low().add(range.start), range.len()) }
    }

    /// Forgets the oldest `count` entries.
    pub(super) fn drop_oldest(&self, count: usize) {
        let left = self.in_magazine() - count;
        // SAFETY: both ranges are inside the magazine.
        unsafe {
            ptr::copy(self.low().add(count), self.low(), left);
            self.top.store(self.low().add(left), Relaxed);
        }
    }

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
        unsafe { *self.stash.get().add(index) }
    }

    /// The word that was stashed last.
    pub(super) fn newest(&self) -> Option<Held> {
        self.stashed().checked_sub(1).map(|last| self.stash(last))
    }

    /// Stashes a word; there must be room.
    pub(super) fn stash_push(&self, held: Held) {
        debug_assert!(self.stash_room() > 0);
        // SAFETY: there is room.
        unsafe { self.stash.get().add(self.stashed()).write(held) };
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
        unsafe { ptr::copy(self.stash.get().add(count), self.stash.get(), left) };
        self.stashed.set(left as u8);
    }

    /// The current word.
    pub(crate) fn current(&self) -> Held {
        Held {
            slab: self.slab.get(),
            word: self.word(),
        }
    }

    /// Makes `held` the current word, whose slab begins at `base`. The old one must be used up.
    pub(super) fn set_current(&self, held: Held, base: *mut u8, fresh: bool) {
        debug_assert!(self.word() == 0);
        self.word.store(held.word, Relaxed);
        self.slab.set(held.slab);
        self.base.set(base);
        self.fresh.set(fresh);
    }

    /// Adds slots of the same slab to the current word. They were used, so it is not fresh any more.
    pub(super) fn widen_current(&self, word: u64) {
        self.word.store(word, Relaxed);
        self.fresh.set(false);
    }

    /// Takes the current word away.
    pub(super) fn take_current(&self) -> Option<Held> {
        let held = self.current();
        self.word.store(0, Relaxed);
        (held.word != 0).then_some(held)
    }
}
