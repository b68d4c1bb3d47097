//! An open hash table from numbers to what has them, looked up without a lock and changed under one.
//!
//! Invariants, under the lock:
//!
//! - what is in the table is at its `place`, and no place from its home (`number & mask`) to there is unused, which is to
//!   say leads to [`nowhere`];
//! - at most half of the places are in use, so each search ends.
//!
//! A table that was outgrown stays where it is, and so does what was removed: a look-up may be reading them. What has another
//! number by now says so.
//!
//! # Orderings
//!
//! - `places` and each place are stored with `Release` and read with `Acquire`: what they lead to is initialised. (Under the
//!   lock they are read `Relaxed`; that a place is unused again is stored so.)
//! - `number` is `Relaxed`: a look-up that must find something runs behind its insertion, because the code that passed the
//!   address on ordered it so. For any other look-up an old number is an old answer.

use crate::sync::{AtomicPtr, AtomicUsize, Cell, Ordering};
use core::alloc::Layout;
use core::mem::size_of;

/// The number of what is in no table. No address divided by the size of a chunk is so large.
const VACANT: usize = usize::MAX;

/// Places of the first table that something is in.
const FIRST: usize = 16;

/// What a table leads to.
#[derive(Debug)]
pub(super) struct Numbered {
    /// Its number, or [`VACANT`]. `Relaxed`: see the head.
    number: AtomicUsize,
    /// Where the table has it. Guarded by the lock.
    place: Cell<usize>,
}

// SAFETY: `number` is atomic, and `place` is guarded by the table's lock.
unsafe impl Sync for Numbered {}

impl Numbered {
    /// In no table.
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            number: AtomicUsize::new(VACANT),
            place: Cell::new(0),
        }
    }
    /// In no table.
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            number: AtomicUsize::new(VACANT),
            place: Cell::new(0),
        }
    }

    #[inline(always)]
    fn number(&self) -> usize {
        self.number.load(Ordering::Relaxed)
    }
}

/// What unused places lead to: it has no number, so that a look-up need not ask whether there is something.
#[cfg(not(loom))]
const fn nowhere() -> *mut Numbered {
    static NOWHERE: Numbered = Numbered::new();
    (&raw const NOWHERE).cast_mut()
}

/// What unused places lead to.
#[cfg(loom)]
fn nowhere() -> *mut Numbered {
    loom::lazy_static! {
        static ref NOWHERE: Numbered = Numbered::new();
    }
    (&raw const *NOWHERE).cast_mut()
}

/// The places of a table. There are `mask + 1`, and they follow it in memory.
#[derive(Debug)]
#[repr(C)]
struct Places {
    mask: usize,
    /// `Acquire` and `Release`: see the head.
    places: [AtomicPtr<Numbered>; 1],
}

impl Places {
    fn layout(places: usize) -> Layout {
        let size = size_of::<usize>() + places * size_of::<AtomicPtr<Numbered>>();
        Layout::new::<usize>()
            .align_to(64)
            .and_then(|l| Layout::from_size_align(size, l.align()))
            .unwrap_or(Layout::new::<Self>())
    }

    /// Makes memory the places of a table in which nothing is.
    ///
    /// # Safety
    /// The memory has the layout for `len` places, a power of two, and is nobody else's.
    unsafe fn init(memory: *mut u8, len: usize) -> *mut Self {
        let this: *mut Self = memory.cast();
        // SAFETY: the memory is long enough.
        unsafe {
            (&raw mut (*this).mask).write(len - 1);
            let places: *mut AtomicPtr<Numbered> = (&raw mut (*this).places).cast();
            for place in 0..len {
                places.add(place).write(AtomicPtr::new(nowhere()));
            }
        }
        this
    }

    /// # Safety
    /// `this` is a table's, and stays as long as `'t`.
    #[inline(always)]
    unsafe fn place<'t>(this: *const Self, number: usize) -> &'t AtomicPtr<Numbered> {
        // SAFETY: the mask keeps the index below the number of places.
        unsafe {
            let places: *const AtomicPtr<Numbered> = (&raw const (*this).places).cast();
            &*places.add(number & (*this).mask)
        }
    }

    /// What the place of a number leads to.
    ///
    /// # Safety
    /// `this` is a table's that is looked up.
    #[inline(always)]
    unsafe fn at(this: *const Self, number: usize) -> *mut Numbered {
        // SAFETY: the caller's promise.
        let place = unsafe { Self::place(this, number) };
        place.load(Ordering::Acquire)
    }
}

/// A table. Looked up by anybody, changed under a lock.
#[derive(Debug)]
pub(super) struct Table {
    /// `Acquire` and `Release`: see the head.
    places: AtomicPtr<Places>,
}

impl Table {
    /// A table in which nothing is, and for which there is no room yet.
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        static EMPTY: Places = Places {
            mask: 0,
            places: [AtomicPtr::new(nowhere())],
        };
        Self {
            places: AtomicPtr::new((&raw const EMPTY).cast_mut()),
        }
    }
    /// The same, in memory that a model never gives back.
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        extern crate std;
        // SAFETY: the layout has a size, and the memory is of it.
        let places = unsafe { Places::init(std::alloc::alloc(Places::layout(1)), 1) };
        Self {
            places: AtomicPtr::new(places),
        }
    }

    /// What has a number, if it is at the first place that is looked at. If not, [`Self::search`] tells. The number is
    /// that of an address.
    #[inline(always)]
    pub(super) fn at_once(&self, number: usize) -> Option<*const Numbered> {
        debug_assert_ne!(number, VACANT);
        let places = self.places.load(Ordering::Acquire);
        // SAFETY: places stay, and so does what they lead to.
        unsafe {
            let found = Places::at(places, number);
            ((*found).number() == number).then_some(found.cast_const())
        }
    }

    /// What has a number. The number is that of an address.
    pub(super) fn search(&self, number: usize) -> Option<*const Numbered> {
        debug_assert_ne!(number, VACANT);
        let places = self.places.load(Ordering::Acquire);
        // SAFETY: as above.
        unsafe {
            for step in 0..=(*places).mask {
                let found = Places::at(places, number.wrapping_add(step));
                if (*found).number() == number {
                    return Some(found);
                }
                if found == nowhere() {
                    break;
                }
            }
        }
        None
    }

    /// Whether there is room for one more beside so many.
    pub(super) fn has_room_beside(&self, count: usize) -> bool {
        (count + 1) * 2 <= self.len()
    }

    /// How many places there are. For the lock's holder.
    fn len(&self) -> usize {
        // `Relaxed`: it was set under this lock.
        let places = self.places.load(Ordering::Relaxed);
        // SAFETY: places stay.
        unsafe { (*places).mask + 1 }
    }

    fn next_len(&self) -> usize {
        (self.len() * 2).max(FIRST)
    }

    /// The layout of what [`Self::grow`] wants.
    pub(super) fn next_layout(&self) -> Layout {
        Places::layout(self.next_len())
    }

    /// Goes on with more places. Those before stay where they are: somebody may be reading them.
    ///
    /// # Safety
    /// The caller holds the lock. The memory is of [`Self::next_layout`], nobody else's, and stays.
    pub(super) unsafe fn grow(&self, memory: *mut u8) {
        let old = self.places.load(Ordering::Relaxed);
        // SAFETY: the memory is long enough; the old places and what they lead to are valid.
        let new = unsafe {
            let new = Places::init(memory, self.next_len());
            for place in 0..=(*old).mask {
                let found = Places::place(old, place).load(Ordering::Relaxed);
                if Self::is_at(found, place) {
                    Self::insert_into(new, found);
                }
            }
            new
        };
        self.places.store(new, Ordering::Release);
    }

    /// Whether what a place leads to is in the table, there. If not, it is out of date.
    ///
    /// # Safety
    /// The caller holds the lock, and `found` is what a place leads to.
    unsafe fn is_at(found: *mut Numbered, place: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { (*found).number() != VACANT && (*found).place.get() == place }
    }

    /// Takes something in under a number.
    ///
    /// # Safety
    /// The caller holds the lock, and [`Self::has_room_beside`] what is in. It is valid, stays, and is in no table.
    pub(super) unsafe fn insert(&self, new: *mut Numbered, number: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            (*new).number.store(number, Ordering::Relaxed);
            Self::insert_into(self.places.load(Ordering::Relaxed), new);
        }
    }

    unsafe fn insert_into(places: *mut Places, new: *mut Numbered) {
        // SAFETY: the places and what they lead to are valid, and half of them are unused or out of date.
        unsafe {
            let mut at = (*new).number();
            loop {
                let place = Places::place(places, at);
                let index = at & (*places).mask;
                if !Self::is_at(place.load(Ordering::Relaxed), index) {
                    (*new).place.set(index);
                    place.store(new, Ordering::Release);
                    return;
                }
                at = at.wrapping_add(1);
            }
        }
    }

    /// Lets something go. It may be taken in again under another number.
    ///
    /// # Safety
    /// The caller holds the lock, and it is in this table.
    pub(super) unsafe fn remove(&self, old: *mut Numbered) {
        let places = self.places.load(Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe {
            (*old).number.store(VACANT, Ordering::Relaxed);
            // What is out of date at the end of a run of places may be unused again: a search that gets there ends at the
            // next place anyway.
            let mut at = (*old).place.get();
            let next = Places::place(places, at.wrapping_add(1)).load(Ordering::Relaxed);
            if next != nowhere() {
                return;
            }
            loop {
                let (place, index) = (Places::place(places, at), at & (*places).mask);
                let found = place.load(Ordering::Relaxed);
                if found == nowhere() || Self::is_at(found, index) {
                    return;
                }
                // `Relaxed`: what is there is a constant.
                place.store(nowhere(), Ordering::Relaxed);
                at = at.wrapping_sub(1);
            }
        }
    }
}
