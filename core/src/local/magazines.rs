//! The fast path alone: what is done with a local's magazines for the root epoch before anything else is looked at.
//!
//! ```text
//! Local::alloc ──> Heap::alloc_from ── pop ──────────────> done
//!        │                  └──────── the current word ──> done
//!        └─ refill_home ─ restock ─ the stash, the depot, a new slab
//! Local::free_unsized ──> Heap::free_to ── page map ─ mark ─ push ──> done
//!        └─ free_any_elsewhere ── another epoch's magazines; large objects; what is refused
//!                             └── spill ─ words ─ the stash ─ the depot
//! ```
//!
//! Neither half changes anything unless it succeeds, so a caller that gets nothing here calls the local as if nothing had been
//! tried. An embedder that keeps a local for each thread keeps its [`Magazines`] beside it, where the thread finds them with
//! one look, and [`Magazines::NONE`] while the thread has no local.

use super::slot_name;
use crate::block::Length;
use crate::cache::{Cell, Entry};
use crate::class::{MAX_CLASSES, MAX_SHARED_SIZE};
use crate::config::{Config, Table};
use crate::heap::Heap;
use crate::pages;
use crate::slab::{self, SlotName};
use crate::sync::Ordering;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// The magazines of a local for the root epoch, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Magazines(pub(super) *const Cell);

/// Cells that hold nothing and have no room: what [`Magazines::NONE`] leads to.
#[derive(Debug)]
pub struct NoMagazines([Cell; 2 * MAX_CLASSES]);

// SAFETY: nothing is written to them: there is nothing to take, and no room to put anything.
unsafe impl Sync for NoMagazines {}

/// What [`Magazines::NONE`] leads to, for code that writes its address without a compiler's help.
pub static NO_MAGAZINES: NoMagazines = NoMagazines([const { Cell::nothing() }; 2 * MAX_CLASSES]);

impl Magazines {
    /// Of no local: there is nothing in them, and no room.
    pub const NONE: Self = Self((&raw const NO_MAGAZINES.0).cast());

    /// Whether they are those of no local.
    #[must_use]
    #[inline(always)]
    pub fn is_none(self) -> bool {
        ptr::eq(self.0, Self::NONE.0)
    }

    /// The address, for storing where only a word fits.
    #[must_use]
    #[inline(always)]
    pub const fn into_raw(self) -> *const u8 {
        self.0.cast()
    }

    /// The magazines at an address.
    ///
    /// # Safety
    /// It is that of [`NO_MAGAZINES`], or came from [`Magazines::into_raw`].
    #[must_use]
    #[inline(always)]
    pub const unsafe fn from_raw(address: *const u8) -> Self {
        Self(address.cast())
    }
}

impl<C: Config> Heap<C> {
    /// Allocates from magazines in the root epoch, if that takes no more than a few instructions. `None` says nothing of
    /// whether there is memory: [`Local::alloc`](crate::Local::alloc) does.
    ///
    /// # Safety
    /// They are [`Magazines::NONE`], or of a local of this heap that is there still and that nobody uses meanwhile.
    #[inline(always)]
    pub unsafe fn alloc_from(&self, magazines: Magazines, layout: Layout) -> Option<NonNull<u8>> {
        if C::SHUFFLED {
            return None;
        }
        let class = Table::<C>::TABLE.index_at_once(layout)?;
        // SAFETY: there is a cell for each class of the table.
        pick::<C>(unsafe { &*magazines.0.add(class) }, class)
    }

    /// As [`Heap::alloc_from`], of so many bytes, which may be more than a layout can have, aligned to 16, and only of slots
    /// that were freed before, of up to 8 KiB.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub unsafe fn alloc_bytes_from(
        &self,
        magazines: Magazines,
        size: usize,
    ) -> Option<NonNull<u8>> {
        if C::SHUFFLED {
            return None;
        }
        let class = Table::<C>::TABLE.index_for_short(size)?;
        // SAFETY: as above.
        let cell = unsafe { &*magazines.0.add(class) };
        cell.pop(C::CHECKED).map(live::<C>)
    }

    /// As [`Heap::alloc_bytes_from`], where that found nothing: of larger slots, and of those of which none was handed out since
    /// they came from a slab. Some more of these go to the magazine, for the next calls.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub unsafe fn alloc_more_from(&self, magazines: Magazines, size: usize) -> Option<NonNull<u8>> {
        if C::SHUFFLED {
            return None;
        }
        let class = Table::<C>::TABLE.index_for_size(size)?;
        // SAFETY: as above.
        let cell = unsafe { &*magazines.0.add(class) };
        if size > MAX_SHARED_SIZE
            && let Some(entry) = cell.pop(C::CHECKED)
        {
            return Some(live::<C>(entry));
        }
        let object = next::<C>(cell, class, None);
        if object.is_some() {
            fill::<C>(cell, class);
        }
        object
    }

    /// Frees an object to magazines, by its address, if that takes no more than a few instructions. If not, nothing has
    /// changed: [`Local::free_unsized`](crate::Local::free_unsized) frees it, or says why not. Nothing is freed at null.
    ///
    /// # Safety
    /// As for [`Heap::alloc_from`] and, of an object that is not null, [`Heap::free_unsized`].
    #[inline(always)]
    pub unsafe fn free_to(&self, magazines: Magazines, object: *mut u8) -> bool {
        let entry = self.entry_at_once(object.addr());
        // SAFETY: the caller's promise.
        unsafe { self.free_entry_to(magazines, entry, object) }
    }

    /// What is at an address, if that is known by one look: else nothing, which says nothing.
    #[inline(always)]
    pub(super) fn entry_at_once(&self, address: usize) -> pages::Entry {
        self.pages.map.entry_at_once::<C::Provider>(address)
    }

    /// As [`Heap::free_to`], of an object whose entry is known.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn free_entry_to(
        &self,
        magazines: Magazines,
        entry: pages::Entry,
        object: *mut u8,
    ) -> bool {
        if !entry.is_home() {
            return self.free_own_bumped(magazines, entry, object.addr(), None);
        }
        // SAFETY: cells are 64 bytes long, and there is one for each class of the table.
        let cell = unsafe { &*magazines.0.byte_add(entry.class_by_64()) };
        // SAFETY: the caller gives up the object; the entry is its own.
        unsafe {
            self.keep_slot(
                cell,
                object,
                || entry.class(),
                || cell.live_slot(entry.slab_at(), object.addr()),
            )
        }
    }

    /// As [`Heap::free_to`], of an object of a layout.
    ///
    /// # Safety
    /// As for [`Heap::alloc_from`] and [`Heap::free`].
    #[inline(always)]
    pub unsafe fn free_layout_to(
        &self,
        magazines: Magazines,
        object: NonNull<u8>,
        layout: Layout,
    ) -> bool {
        let entry = self.entry_at_once(object.addr().get());
        // SAFETY: the caller's promise.
        unsafe { self.free_entry_layout_to(magazines, entry, object, layout) }
    }

    /// As [`Heap::free_layout_to`], of an object whose entry is known.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn free_entry_layout_to(
        &self,
        magazines: Magazines,
        entry: pages::Entry,
        object: NonNull<u8>,
        layout: Layout,
    ) -> bool {
        if !entry.is_home() {
            let length = Length::of(layout.size());
            return self.free_own_bumped(magazines, entry, object.addr().get(), Some(length));
        }
        let Some(class) = Table::<C>::TABLE.index_at_once(layout) else {
            return false;
        };
        if C::CHECKED && entry.class() != class {
            return false;
        }
        // SAFETY: there is a cell for each class of the table; the caller gives up the object, which is of this class.
        unsafe {
            let cell = &*magazines.0.add(class);
            self.keep_slot(
                cell,
                object.as_ptr(),
                || class,
                || cell.live_slot(entry.slab_at(), object.addr().get()),
            )
        }
    }

    /// Frees an object in a bump block that the local of these magazines owns, unless it is found to be none.
    #[inline(always)]
    fn free_own_bumped(
        &self,
        magazines: Magazines,
        entry: pages::Entry,
        address: usize,
        length: Option<Length>,
    ) -> bool {
        self.block_of(entry).is_some_and(|block| {
            block.is_owned_by(magazines.0) && block.free_own(address, length, C::CHECKED).is_ok()
        })
    }

    /// Frees an object of the root epoch in a checked heap, of a class of whose slabs an address does not tell where they
    /// begin. If it does not, nothing has changed.
    ///
    /// # Safety
    /// As for [`Heap::free_to`].
    pub(super) unsafe fn free_long_to(&self, magazines: Magazines, object: NonNull<u8>) -> bool {
        let address = object.addr().get();
        let entry = self.entry_at_once(address);
        if !C::CHECKED || C::SHUFFLED || !entry.is_home() {
            return false;
        }
        let class = entry.class();
        // SAFETY: there is a cell for each class of the table; the slab is a plain one of this class.
        unsafe {
            let cell = &*magazines.0.add(class);
            let live = || self.check_slot(entry.slab()?, class, address).ok();
            !cell.is_natural() && self.keep_slot(cell, object.as_ptr(), || class, live)
        }
    }

    /// Keeps the slot of an object that ends in a cell of its class, if there is room and, in a checked heap, a live object
    /// begins there.
    ///
    /// # Safety
    /// As for [`Heap::free_unsized`]; the object is in a plain slab of the cell's class.
    #[inline(always)]
    unsafe fn keep_slot(
        &self,
        cell: &Cell,
        object: *mut u8,
        class: impl FnOnce() -> usize,
        live_slot: impl FnOnce() -> Option<SlotName>,
    ) -> bool {
        let address = object.addr();
        let Some(room) = cell.room() else {
            return false;
        };
        let mut kept = Entry::unmarked(address as u64);
        if C::CHECKED {
            let Some(slot) = live_slot() else {
                return false;
            };
            // SAFETY: the slot is one of the slab's.
            unsafe { slot.mark() }.store(slab::FREE, Ordering::Relaxed);
            kept.slot = slot.0;
        }
        if C::ZERO_ON_FREE {
            // SAFETY: the caller gives up the object, which is of this class.
            unsafe { self.wipe_slot(NonNull::new_unchecked(object), class()) };
        }
        // SAFETY: the room was just found.
        unsafe { cell.push_to(room, kept, C::CHECKED) };
        true
    }
}

/// Takes what is at hand in a cell of a plain class.
///
/// What the cell holds pins its depot's slabs, so the depot still serves the era in which it was taken, and its local took nothing
/// of a later one: there is no need to check the tag.
#[inline(always)]
pub(super) fn pick<C: Config>(cell: &Cell, class: usize) -> Option<NonNull<u8>> {
    match cell.pop(C::CHECKED) {
        Some(entry) => Some(live::<C>(entry)),
        None => next::<C>(cell, class, None),
    }
}

/// Takes a slot of the current word.
#[inline(always)]
pub(super) fn next<C: Config>(cell: &Cell, class: usize, from: Option<u32>) -> Option<NonNull<u8>> {
    let size = Table::<C>::TABLE.class(class).size();
    let (object, slot) = cell.next_slot(size, from)?;
    set_live::<C>(slot_name::<C>(cell.slab(), slot as usize));
    // SAFETY: no slot is at null.
    Some(unsafe { NonNull::new_unchecked(object) })
}

/// Slots of the current word that go to the magazine at a time: so few that nobody waits for it.
const FILL: usize = 7;

/// Puts slots of the current word into the empty magazine, the lowest on top.
#[inline(always)]
fn fill<C: Config>(cell: &Cell, class: usize) {
    let (slab, size) = (cell.slab(), Table::<C>::TABLE.class(class).size());
    // SAFETY: the cell holds, or the caller just took, a slot of the slab, which is valid for as long as the heap.
    let base = unsafe { (*slab).body() }.base.addr();
    let first = slot_name::<C>(slab, 0);
    cell.fill(FILL, C::CHECKED, base as u64, size as u64, first);
}

/// The object in a slot that was popped.
#[inline(always)]
pub(super) fn live<C: Config>(entry: Entry) -> NonNull<u8> {
    set_live::<C>(entry.slot);
    // A freed pointer may have been narrowed to its old object; the address is good for the whole slot, by the chunk's
    // exposed provenance.
    let object = ptr::with_exposed_provenance_mut(entry.name as usize);
    // SAFETY: no slot is at null.
    unsafe { NonNull::new_unchecked(object) }
}

/// Notes in a checked heap that a slot is live, by its name.
#[inline(always)]
fn set_live<C: Config>(slot: u64) {
    if C::CHECKED {
        // SAFETY: the slot was held, in a checked heap.
        unsafe { SlotName(slot).mark() }.store(slab::LIVE, Ordering::Relaxed);
    }
}
