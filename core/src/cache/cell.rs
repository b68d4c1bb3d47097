//! What a local holds of one class: a magazine, a current word, a stash.
//!
//! # Invariants
//!
//! - Every entry between `low` and `top` names a slot that was freed here or filled in, of a slab of
//!   this cell's class and depot; its bit is held by this cell.
//! - `word` are slots of `slab`, whose first slot (or tag) is at `base`, held by this cell.
//! - The first `stashed` entries of the stash are slabs with held words, none empty.
//! - No slot is in two of the three, so together they are this cell's words of DESIGN's equation.
//!
//! A cell is changed by its local alone. Others read how much it holds ([`Cell::held_slots`]), so what
//! that reads is atomic, and `Relaxed`: a figure that orders nothing, true at rest. The walker reads
//! everything, at rest.

use crate::class::Class;
use crate::slab::{LIVE, Slab, SlotName};
use crate::sync::{AtomicPtr, AtomicU16, AtomicU64, Ordering::Relaxed};
use core::alloc::Layout;
use core::cell::Cell as Own;
use core::ptr;

/// What names a slot in the magazine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// The slot's address, or for a class with tags the word of its tag. The next handle is then known before the
    /// compare-and-swap that ended the last one is through.
    pub(crate) name: u64,
    /// In a checked heap the slot's [`SlotName`], so that neither an allocation nor a spill looks for its mark. Else 0, and
    /// not stored.
    pub(crate) slot: u64,
}

impl Entry {
    /// Of a slot that has no mark.
    pub(crate) const fn unmarked(name: u64) -> Self {
        Self { name, slot: 0 }
    }
}

/// What a cell's own word says. The cell's local alone writes to it, and so reads it plainly.
#[inline(always)]
fn own(word: &AtomicPtr<u64>) -> *mut u64 {
    // SAFETY: the only writer is the caller's context; others read it atomically.
    unsafe { *word.as_ptr() }
}

/// The words that an entry takes in a magazine.
const fn words(wide: bool) -> usize {
    if wide { 2 } else { 1 }
}

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
    pub(crate) const fn layout(self, wide: bool) -> Layout {
        let bytes = self.stash * size_of::<Held>() + self.magazine * words(wide) * size_of::<u64>();
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
    /// Where the next freed slot goes.
    top: AtomicPtr<u64>,
    low: AtomicPtr<u64>,
    high: Own<*mut u64>,
    /// The current word: allocation takes its lowest bit when the magazine is empty.
    word: AtomicU64,
    base: Own<*mut u8>,
    slab: Own<*const Slab>,
    /// See [`Class::by_address`]. Constant.
    factor: u32,
    mask: u16,
    /// The slots in the stash's words.
    pub(crate) stashed_slots: AtomicU16,
    pub(crate) stashed: Own<u8>,
    pub(crate) stash_room: Own<u8>,
    /// Slow paths since the store was made, until it is full size.
    pub(crate) visits: Own<u8>,
    /// The slots in `word` read as zero: they come from a slab that nothing was written to yet.
    fresh: Own<bool>,
    is_full_size: Own<bool>,
    /// Entries have marks. Constant.
    wide: bool,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Cell>() == 64);

impl Cell {
    /// A cell that holds nothing, for a class of a heap that is checked or not.
    pub(crate) const fn new(class: &Class, wide: bool) -> Self {
        let (mask, factor) = class.by_address();
        Self {
            top: AtomicPtr::new(ptr::null_mut()),
            low: AtomicPtr::new(ptr::null_mut()),
            high: Own::new(ptr::null_mut()),
            word: AtomicU64::new(0),
            base: Own::new(ptr::null_mut()),
            slab: Own::new(ptr::null()),
            factor,
            mask,
            stashed_slots: AtomicU16::new(0),
            stashed: Own::new(0),
            stash_room: Own::new(0),
            visits: Own::new(0),
            fresh: Own::new(false),
            is_full_size: Own::new(false),
            wide,
        }
    }

    /// A cell that holds nothing and has no room, of whatever class.
    pub(crate) const fn nothing() -> Self {
        Self::new(&Class::NONE, false)
    }

    #[inline(always)]
    fn top(&self) -> *mut u64 {
        own(&self.top)
    }

    #[inline(always)]
    fn low(&self) -> *mut u64 {
        own(&self.low)
    }

    #[inline]
    fn word(&self) -> u64 {
        self.word.load(Relaxed)
    }

    /// The stash, in front of the magazine.
    #[inline]
    pub(crate) fn stash_at(&self) -> *mut Held {
        let room = if self.is_full_size() { FULL } else { SMALL };
        self.low().cast::<Held>().wrapping_sub(room.stash)
    }

    /// The live slot that begins at an address of this class, in a slab of this class in a checked heap. `None` if none does,
    /// or if that cannot be told from the address: see [`Class::by_address`].
    ///
    /// # Safety
    /// `slab` is a plain one of this class, of a checked heap.
    #[inline(always)]
    pub(crate) unsafe fn live_slot(&self, slab: *const Slab, address: usize) -> Option<SlotName> {
        let offset = address as u32 & u32::from(self.mask);
        let product = u64::from(offset) * u64::from(self.factor);
        if product as u32 >= self.factor {
            return None;
        }
        let slot = SlotName::new(slab, (product >> 32) as usize);
        // SAFETY: the slot is below 64, and the slab's.
        let is_live = unsafe { slot.mark() }.load(Relaxed) == LIVE;
        is_live.then_some(slot)
    }

    /// Whether [`Cell::live_slot`] finds slots of this class.
    #[inline]
    pub(crate) const fn is_natural(&self) -> bool {
        self.mask != 0
    }

    /// The entry that was pushed last. `wide` is what the cell was made with.
    #[inline(always)]
    pub(crate) fn pop(&self, wide: bool) -> Option<Entry> {
        let top = self.top();
        if top == self.low() {
            return None;
        }
        // SAFETY: `low < top`, so the entry below `top` is inside the magazine and was written.
        unsafe {
            let top = top.sub(words(wide));
            self.top.store(top, Relaxed);
            Some(Self::read(top, wide))
        }
    }

    /// # Safety
    /// `at` is inside the magazine, and was written.
    #[inline(always)]
    unsafe fn read(at: *const u64, wide: bool) -> Entry {
        // SAFETY: the caller's promise.
        unsafe {
            Entry {
                name: *at,
                slot: if wide { *at.add(1) } else { 0 },
            }
        }
    }

    /// # Safety
    /// `at` is inside the magazine.
    #[inline(always)]
    unsafe fn write(at: *mut u64, entry: Entry, wide: bool) {
        // SAFETY: the caller's promise.
        unsafe {
            *at = entry.name;
            if wide {
                *at.add(1) = entry.slot;
            }
        }
    }

    /// Any entry: by a number, which need not be less than there are.
    #[cold]
    pub(crate) fn pop_any(&self, number: usize) -> Option<Entry> {
        let (count, wide) = (self.in_magazine(), self.wide);
        if count == 0 {
            return None;
        }
        // SAFETY: both are among the entries that were written, from `low` on.
        unsafe {
            let any = self.low().add(number % count * words(wide));
            let last = self.top().sub(words(wide));
            let (chosen, moved) = (Self::read(any, wide), Self::read(last, wide));
            Self::write(any, moved, wide);
            Self::write(last, chosen, wide);
        }
        self.pop(wide)
    }

    /// Where the next freed slot goes, unless the magazine is full.
    #[inline(always)]
    pub(crate) fn room(&self) -> Option<*mut u64> {
        let top = self.top();
        (top != self.high.get()).then_some(top)
    }

    /// Notes a freed slot, unless the magazine is full. `wide` is what the cell was made with.
    #[inline(always)]
    pub(crate) fn push(&self, entry: Entry, wide: bool) -> bool {
        let room = self.room();
        if let Some(room) = room {
            // SAFETY: it is the room.
            unsafe { self.push_to(room, entry, wide) };
        }
        room.is_some()
    }

    /// Notes a freed slot.
    ///
    /// # Safety
    /// `room` is what [`Cell::room`] says.
    #[inline(always)]
    pub(crate) unsafe fn push_to(&self, room: *mut u64, entry: Entry, wide: bool) {
        // SAFETY: the room is inside the magazine.
        unsafe {
            Self::write(room, entry, wide);
            self.top.store(room.add(words(wide)), Relaxed);
        }
    }

    /// A slot of the current word, for slots of `size` bytes: the lowest, or the first from a bit on; and its number.
    #[inline]
    pub(crate) fn next_slot(&self, size: usize, from: Option<u32>) -> Option<(*mut u8, u32)> {
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

    /// Moves the lowest slots of the current word, at most `count`, to the magazine, which is empty: the lowest is taken
    /// first. Slots of `size` bytes begin at `base`, and in a wide cell their names at `names`.
    #[inline(always)]
    pub(crate) fn fill(&self, count: usize, wide: bool, base: u64, size: u64, names: u64) {
        debug_assert!(self.top() == self.low());
        let mut word = self.word();
        let room = self.high.get().addr() - self.low().addr();
        let count = count
            .min(word.count_ones() as usize)
            .min(room / size_of::<u64>() / words(wide));
        let top = self.low().wrapping_add(count * words(wide));
        let mut at = top;
        for _ in 0..count {
            let slot = u64::from(word.trailing_zeros());
            word &= word - 1;
            at = at.wrapping_sub(words(wide));
            let entry = Entry {
                name: base + slot * size,
                slot: names + slot,
            };
            // SAFETY: there is room for so many, from the magazine's beginning on.
            unsafe { Self::write(at, entry, wide) };
        }
        self.word.store(word, Relaxed);
        self.top.store(top, Relaxed);
    }

    /// Of a wide cell the word of the entries from the `index`th on, and before the `end`th, that are of one slab, and how
    /// many they are.
    pub(crate) fn word_of_slots(&self, index: usize, end: usize) -> (Held, usize) {
        debug_assert!(self.wide && index < end && end <= self.in_magazine());
        // SAFETY: they are in the written part of the magazine, and have two words each.
        let entries = unsafe {
            let first = self.low().add(2 * index).cast::<[u64; 2]>();
            core::slice::from_raw_parts(first, end - index)
        };
        let (slab, _) = SlotName(entries[0][1]).parts();
        let (mut word, mut taken) = (0, 0);
        for [_, name] in entries {
            let (other, slot) = SlotName(*name).parts();
            if other != slab {
                break;
            }
            word |= 1 << slot;
            taken += 1;
        }
        let slab = ptr::with_exposed_provenance(slab);
        (Held { slab, word }, taken)
    }

    /// The slab of the current word.
    #[inline]
    pub(crate) fn slab(&self) -> *const Slab {
        self.slab.get()
    }

    /// How many slots a cell holds. Anyone may ask; exact at rest.
    ///
    /// # Safety
    /// `cell` is a cell that is valid meanwhile. Its owner may be changing it, so there is no reference.
    pub(crate) unsafe fn held_slots(cell: *const Self) -> usize {
        // SAFETY: the fields are valid, and atomic.
        let (top, low, word, stashed, wide) = unsafe {
            (
                &(*cell).top,
                &(*cell).low,
                &(*cell).word,
                &(*cell).stashed_slots,
                (*cell).wide,
            )
        };
        let magazine = top
            .load(Relaxed)
            .addr()
            .saturating_sub(low.load(Relaxed).addr());
        (magazine / size_of::<u64>() / words(wide)).min(FULL.magazine)
            + word.load(Relaxed).count_ones() as usize
            + usize::from(stashed.load(Relaxed))
    }

    /// Whether neither the magazine nor the current word has a slot.
    pub(crate) fn is_used_up(&self) -> bool {
        self.top() == self.low() && self.word() == 0
    }

    /// Whether the slot that is next to be handed out reads as zero.
    pub(crate) fn is_next_fresh(&self) -> bool {
        self.top() == self.low() && self.word() != 0 && self.fresh.get()
    }

    pub(crate) fn has_store(&self) -> bool {
        !self.low().is_null()
    }

    pub(crate) const fn is_full_size(&self) -> bool {
        self.is_full_size.get()
    }

    /// Moves into a larger store; the old one, if there was one.
    ///
    /// # Safety
    /// `store` is unused memory of `room`'s layout, and `room` is larger than what is held. Limits
    /// are at most `room`'s.
    pub(crate) unsafe fn move_to(&self, store: *mut u8, room: Room, limits: Room) -> *mut u8 {
        let old: *mut Held = if self.has_store() {
            self.stash_at()
        } else {
            ptr::null_mut()
        };
        let held = self.in_magazine() * words(self.wide);
        // SAFETY: both stores are valid, do not overlap, and the new one has room.
        unsafe {
            let stash: *mut Held = store.cast();
            let low: *mut u64 = stash.add(room.stash).cast();
            if !old.is_null() {
                ptr::copy_nonoverlapping(old, stash, self.stashed());
                ptr::copy_nonoverlapping(self.low(), low, held);
            }
            self.low.store(low, Relaxed);
            self.top.store(low.add(held), Relaxed);
            self.high.set(low.add(limits.magazine * words(self.wide)));
        }
        self.stash_room.set(limits.stash as u8);
        self.is_full_size.set(room == FULL);
        self.visits.set(0);
        old.cast()
    }

    /// Gives up the store of a cell that holds nothing.
    pub(crate) fn take_store(&self) -> *mut u8 {
        debug_assert!(self.is_used_up() && self.stashed() == 0);
        if !self.has_store() {
            return ptr::null_mut();
        }
        let store = self.stash_at();
        self.top.store(ptr::null_mut(), Relaxed);
        self.low.store(ptr::null_mut(), Relaxed);
        self.high.set(ptr::null_mut());
        self.is_full_size.set(false);
        self.stash_room.set(0);
        store.cast()
    }

    /// How many entries the magazine holds.
    pub(crate) fn in_magazine(&self) -> usize {
        let bytes = self.top().addr().saturating_sub(self.low().addr());
        bytes / size_of::<u64>() / words(self.wide)
    }

    /// The `index`th entry of the magazine, oldest first.
    pub(crate) fn magazine(&self, index: usize) -> Entry {
        debug_assert!(index < self.in_magazine());
        // SAFETY: inside the written part, by the caller's bound.
        unsafe { Self::read(self.low().add(index * words(self.wide)), self.wide) }
    }

    /// Forgets the oldest `count` entries.
    pub(crate) fn drop_oldest(&self, count: usize) {
        let left = (self.in_magazine() - count) * words(self.wide);
        // SAFETY: both ranges are inside the magazine.
        unsafe {
            let kept = self.low().add(count * words(self.wide));
            ptr::copy(kept, self.low(), left);
            self.top.store(self.low().add(left), Relaxed);
        }
    }

    /// The current word.
    pub(crate) fn current(&self) -> Held {
        Held {
            slab: self.slab.get(),
            word: self.word(),
        }
    }

    /// Makes `held` the current word, whose slab begins at `base`. The old one must be used up.
    pub(crate) fn set_current(&self, held: Held, base: *mut u8, fresh: bool) {
        debug_assert!(self.word() == 0);
        self.word.store(held.word, Relaxed);
        self.slab.set(held.slab);
        self.base.set(base);
        self.fresh.set(fresh);
    }

    /// Adds slots of the same slab to the current word. They were used, so it is not fresh any more.
    pub(crate) fn widen_current(&self, word: u64) {
        self.word.store(word, Relaxed);
        self.fresh.set(false);
    }

    /// Takes the current word away.
    pub(crate) fn take_current(&self) -> Option<Held> {
        let held = self.current();
        self.word.store(0, Relaxed);
        (held.word != 0).then_some(held)
    }
}
