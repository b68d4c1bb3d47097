//! An open hash table from numbers to what has them, looked up without a lock and changed under one.
//!
//! Invariants, under the lock:
//!
//! - what is in the table is at its `place`, and no place from its home (`number & mask`) to there is unused, which is to
//!   say leads to [`Numbered::nowhere`];
//! - at most half of the places are in use, so each search ends.
//!
//! A table that was outgrown stays where it is, and so does what was removed: a look-up may be reading them. What is somebody
//! else's by now says so by its number.
//!
//! # Orderings
//!
//! - `table` and the places are stored with `Release` and read with `Acquire`: what they lead to is initialised. (Under the
//!   lock they are read `Relaxed`; that a place is unused again is stored so.)
//! - Numbers are `Relaxed`: who looks for what is there was told of it by the code that put it there or passed its address
//!   on, and for anybody else an outdated number is an outdated answer.

use crate::sync::{AtomicPtr, AtomicUsize, Ordering};
use core::alloc::Layout;
use core::mem::size_of;

/// The number of what is in no table. No address divides to it.
pub(super) const VACANT: usize = usize::MAX;

/// Places of the first table.
const FIRST: usize = 16;

/// What a table leads to.
///
/// # Safety
/// All that the functions give is in memory that stays, and is what it is, for as long as the table is looked up.
pub(super) unsafe trait Numbered: Sized {
    /// What unused places lead to: it has no number, so that a look-up need not ask whether there is something.
    fn nowhere() -> *mut Self;

    /// Its number, or [`VACANT`].
    ///
    /// # Safety
    /// `this` is valid.
    unsafe fn number<'n>(this: *const Self) -> &'n AtomicUsize;

    /// Where the table has it, which only the lock's holder asks.
    ///
    /// # Safety
    /// `this` is valid.
    unsafe fn place(this: *mut Self) -> *mut usize;
}

/// The places of a table. `mask` and one is their number, and they follow it in memory.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Places<T> {
    mask: usize,
    /// As many as `mask` says, and one. `Acquire` and `Release`: see the head.
    places: [AtomicPtr<T>; 1],
}

impl<T: Numbered> Places<T> {
    /// Of a table in which nothing is.
    #[cfg(not(loom))]
    pub(super) const fn empty(nowhere: *mut T) -> Self {
        Self {
            mask: 0,
            places: [AtomicPtr::new(nowhere)],
        }
    }

    pub(super) fn layout(places: usize) -> Layout {
        let size = size_of::<usize>() + places * size_of::<AtomicPtr<T>>();
        Layout::new::<usize>()
            .align_to(64)
            .and_then(|l| Layout::from_size_align(size, l.align()))
            .unwrap_or(Layout::new::<Self>())
    }

    /// Makes memory the places of a table in which nothing is.
    ///
    /// # Safety
    /// The memory has the layout for `len` places, a power of two, and is nobody else's.
    pub(super) unsafe fn init(memory: *mut u8, len: usize) -> *mut Self {
        let this: *mut Self = memory.cast();
        // SAFETY: the memory is long enough.
        unsafe {
            (&raw mut (*this).mask).write(len - 1);
            let places: *mut AtomicPtr<T> = (&raw mut (*this).places).cast();
            for place in 0..len {
                places.add(place).write(AtomicPtr::new(T::nowhere()));
            }
        }
        this
    }

    /// # Safety
    /// `this` is a table that stays as long as `'t`.
    #[inline(always)]
    unsafe fn place<'t>(this: *const Self, number: usize) -> &'t AtomicPtr<T> {
        // SAFETY: the mask keeps the index below the number of places.
        unsafe {
            let places: *const AtomicPtr<T> = (&raw const (*this).places).cast();
            &*places.add(number & (*this).mask)
        }
    }

    /// What the place of a number leads to.
    ///
    /// # Safety
    /// `this` is a table that is looked up.
    #[inline(always)]
    unsafe fn at(this: *const Self, number: usize) -> *mut T {
        // SAFETY: the caller's promise.
        let place = unsafe { Self::place(this, number) };
        place.load(Ordering::Acquire)
    }
}

/// A table. Looked up by anybody, changed under a lock.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// `Acquire` and `Release`: see the head.
    places: AtomicPtr<Places<T>>,
}

impl<T: Numbered> Table<T> {
    #[cfg(not(loom))]
    pub(super) const fn new(places: *mut Places<T>) -> Self {
        Self {
            places: AtomicPtr::new(places),
        }
    }
    #[cfg(loom)]
    pub(super) fn new(places: *mut Places<T>) -> Self {
        Self {
            places: AtomicPtr::new(places),
        }
    }

    /// What has a number, if it is at the first place that is looked at; else what `otherwise` says, which is told the places.
    #[inline(always)]
    pub(super) fn at_once_or<U>(
        &self,
        number: usize,
        then: impl FnOnce(*const T) -> U,
        otherwise: impl FnOnce(*const Places<T>) -> U,
    ) -> U {
        let places = self.places.load(Ordering::Acquire);
        // SAFETY: places stay, and so does what they lead to.
        let found = unsafe { Places::at(places, number) };
        // SAFETY: as above.
        if unsafe { T::number(found) }.load(Ordering::Relaxed) == number {
            then(found)
        } else {
            otherwise(places)
        }
    }

    /// Looks on behind the first place.
    ///
    /// # Safety
    /// They are the places of a table that is looked up.
    pub(super) unsafe fn search(places: *const Places<T>, number: usize) -> Option<*const T> {
        // SAFETY: places stay, and so does what they lead to.
        unsafe {
            for step in 0..=(*places).mask {
                let found = Places::at(places, number.wrapping_add(step));
                if T::number(found).load(Ordering::Relaxed) == number {
                    return Some(found);
                }
                if found == T::nowhere() {
                    break;
                }
            }
        }
        None
    }

    /// Whether there is room for one more beside so many.
    pub(super) fn has_room_beside(&self, count: usize) -> bool {
        // `Relaxed`: it was set under this lock.
        let places = self.places.load(Ordering::Relaxed);
        // SAFETY: places stay.
        (count + 1) * 2 <= unsafe { (*places).mask } + 1
    }

    /// The layout of the places after these.
    pub(super) fn next_layout(&self) -> Layout {
        Places::<T>::layout(self.next_len())
    }

    fn next_len(&self) -> usize {
        // SAFETY: as in `has_room_beside`.
        let len = unsafe { (*self.places.load(Ordering::Relaxed)).mask } + 1;
        (len * 2).max(FIRST)
    }

    /// Goes on with places of [`Self::next_layout`]. Those before stay where they are: somebody may be reading them.
    ///
    /// # Safety
    /// The memory is of that layout, and nobody else's.
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
    /// `found` is what a place leads to.
    unsafe fn is_at(found: *mut T, place: usize) -> bool {
        // SAFETY: the caller's promise; `place` is read under the lock.
        unsafe { T::number(found).load(Ordering::Relaxed) != VACANT && *T::place(found) == place }
    }

    /// Takes something in, whose number is set.
    ///
    /// # Safety
    /// It is valid and not in the table, and there is room.
    pub(super) unsafe fn insert(&self, new: *mut T) {
        // SAFETY: the caller's promise.
        unsafe { Self::insert_into(self.places.load(Ordering::Relaxed), new) };
    }

    unsafe fn insert_into(places: *mut Places<T>, new: *mut T) {
        // SAFETY: the places and what they lead to are valid, and half of them are unused or out of date.
        unsafe {
            let mut at = T::number(new).load(Ordering::Relaxed);
            loop {
                let place = Places::place(places, at);
                let index = at & (*places).mask;
                if !Self::is_at(place.load(Ordering::Relaxed), index) {
                    *T::place(new) = index;
                    place.store(new, Ordering::Release);
                    return;
                }
                at = at.wrapping_add(1);
            }
        }
    }

    /// Lets something go. It may be taken in again with another number.
    ///
    /// # Safety
    /// It is in the table.
    pub(super) unsafe fn remove(&self, old: *mut T) {
        let places = self.places.load(Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe {
            T::number(old).store(VACANT, Ordering::Relaxed);
            // What is out of date at the end of a run of places may be unused again: a search that gets there ends at the
            // next place anyway.
            let mut at = *T::place(old);
            let next = Places::place(places, at.wrapping_add(1)).load(Ordering::Relaxed);
            if next != T::nowhere() {
                return;
            }
            loop {
                let (place, index) = (Places::place(places, at), at & (*places).mask);
                let found = place.load(Ordering::Relaxed);
                if found == T::nowhere() || Self::is_at(found, index) {
                    return;
                }
                // `Relaxed`: what is there is a constant.
                place.store(T::nowhere(), Ordering::Relaxed);
                at = at.wrapping_sub(1);
            }
        }
    }
}
