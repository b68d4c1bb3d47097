//! A local: one CPU's or thread's fast path.
//!
//! Principles:
//! - `alloc` pops a pointer that was freed here, else takes the lowest bit of a word that is held
//!   here. `free` pushes. Neither writes anything that another CPU reads.
//! - Everything held is a bit of some slab's word, so a local owns no slab and no list, and when it
//!   goes it gives its bits back. There is nothing to adopt.
//! - What a local holds is bounded: see [`Local::holding_bound`].

mod cell;
mod registry;

use crate::chunk::{Kind, Map};
use crate::class::MAX_CLASSES;
use crate::config::Standard;
use crate::config::{Config, Table};
use crate::depot::Row;
use crate::error::{AllocError, FreeError};
use crate::heap::{DefaultLock, Heap};
use crate::provider::PageProvider;
use crate::slab::Slab;
use core::alloc::Layout;
use core::fmt;
use core::ptr::{self, NonNull};
use lock_api::RawMutex;

use cell::{Cell, FULL, Held, Room, SMALL};
pub(crate) use registry::Registry;

/// Visits to the slow path after which a cell gets a store of full size.
const VISITS_TO_GROW: u16 = 4;

/// Chunks that a checked local remembers to be the heap's.
const KNOWN: usize = 64;

/// A fast path over a heap, for one thread or CPU at a time.
///
/// A local is a plain value: give one to each thread, or keep one for each CPU. Objects may be freed
/// on any local of the heap, or without one. Dropping a local gives back all that it holds.
pub struct Local<'h, P: PageProvider, R: RawMutex = DefaultLock, C: Config = Standard> {
    heap: &'h Heap<P, R, C>,
    row: &'h Row<R>,
    state: NonNull<LocalRow>,
    cells: NonNull<Cell>,
    home: u16,
}

// SAFETY: a local's state is reached through this value alone, apart from the walker at rest.
unsafe impl<P: PageProvider + Sync, R: RawMutex + Sync, C: Config> Send for Local<'_, P, R, C> {}

/// What lies in metadata memory for a local and one row. Its cells follow it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct LocalRow {
    next: *mut LocalRow,
    prev: *mut LocalRow,
    pub(crate) row: u16,
    /// For a checked heap: bases of chunks that were found to be the heap's...
    known: [usize; KNOWN],
    /// ...while so many chunks had been given back.
    known_at: usize,
}

impl LocalRow {
    fn layout(classes: usize) -> Option<(Layout, usize)> {
        let cells = Layout::array::<Cell>(classes).ok()?;
        Layout::new::<Self>().extend(cells).ok()
    }

    /// Calls `f` with each class and its cell.
    ///
    /// # Safety
    /// `state` is that of a local of a heap with so many classes, and nobody uses the local now.
    #[cfg(feature = "walker")]
    pub(crate) unsafe fn for_each_cell(
        state: *mut Self,
        classes: usize,
        mut f: impl FnMut(usize, &Cell),
    ) {
        if let Some((_, cells_at)) = Self::layout(classes) {
            for class in 0..classes {
                // SAFETY: the cells follow the state in the same memory, and are at rest.
                f(class, unsafe {
                    &*state.byte_add(cells_at).cast::<Cell>().add(class)
                });
            }
        }
    }
}

impl<'h, P: PageProvider, R: RawMutex, C: Config> Local<'h, P, R, C> {
    pub(crate) fn new(heap: &'h Heap<P, R, C>, row: &'h Row<R>) -> Result<Self, AllocError> {
        let classes = Table::<C>::TABLE.len();
        let (layout, cells_at) = LocalRow::layout(classes).ok_or(AllocError::TooLarge)?;
        let memory = heap.pressed(|| heap.pages.take_meta(Kind::LocalRow, layout))?;
        let state: NonNull<LocalRow> = memory.cast();
        // SAFETY: the memory is of this layout and nobody else's.
        let cells = unsafe {
            state.write(LocalRow {
                next: ptr::null_mut(),
                prev: ptr::null_mut(),
                row: row.id(),
                known: [0; KNOWN],
                known_at: 0,
            });
            let cells = memory.add(cells_at).cast::<Cell>();
            for class in 0..classes {
                cells.add(class).write(Cell::EMPTY);
            }
            cells
        };
        // SAFETY: the state is valid until the drop removes it.
        heap.locals
            .with(|list| unsafe { list.insert(state.as_ptr()) });
        Ok(Self {
            heap,
            row,
            state,
            cells,
            home: row.id(),
        })
    }

    /// Allocates. A size of zero gets a unique pointer that must be freed too.
    ///
    /// # Errors
    /// If there is no memory, the limit is reached, or the size is beyond any provider.
    // Always: the compiler takes the unlikely half of the body for a reason not to, and a call costs
    // as much as the rest.
    #[inline(always)]
    pub fn alloc(&mut self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let Some(class) = Table::<C>::TABLE.index_for(layout) else {
            return self
                .heap
                .alloc_large(self.row, layout)
                .map(|(object, _)| object);
        };
        let size = Table::<C>::TABLE.class(class).size();
        let cell = self.cell(class);
        let object = if let Some(address) = cell.pop() {
            // A freed pointer may have been narrowed to its old object; the address is good for the
            // whole slot, by the chunk's exposed provenance.
            ptr::with_exposed_provenance_mut(address)
        } else if let Some(slot) = cell.next_slot(size) {
            slot
        } else {
            return self.refill(class);
        };
        if C::CHECKED {
            self.heap.mark_live(object.addr(), class);
        }
        // SAFETY: no slot is at null.
        Ok(unsafe { NonNull::new_unchecked(object) })
    }

    /// Frees an object, whichever path it was allocated by.
    ///
    /// # Errors
    /// If the heap can tell that there is no such object; it is then as it was. Only a checked heap
    /// can always tell.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    #[inline(always)]
    pub unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) -> Result<(), FreeError> {
        let Some(class) = Table::<C>::TABLE.index_for(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { self.heap.free_large(object, layout) };
        };
        let address = object.addr().get();
        if C::CHECKED {
            let is_ours = self.knows(address);
            // SAFETY: `is_ours` was looked up for this very address.
            unsafe { self.heap.check_free(object, class, is_ours) }?;
        }
        // SAFETY: a live object of a class lies in a chunk of the heap.
        let map: Map<P> = unsafe { self.heap.map_of(address) };
        if map.row(address) != self.home {
            // SAFETY: the caller's promise.
            return unsafe { self.free_elsewhere(object, class) };
        }
        if !self.cell(class).push(address) {
            self.spill(class, address);
        }
        Ok(())
    }

    /// As [`Local::alloc`], and the bytes of the layout are zero. Memory that comes fresh from a
    /// provider that promises zeroes is not written again.
    ///
    /// # Errors
    /// As for [`Local::alloc`].
    pub fn alloc_zeroed(&mut self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let (object, is_zero) = match Table::<C>::TABLE.index_for(layout) {
            Some(class) => {
                if self.cell(class).is_used_up() {
                    // The slot that a refill hands out comes from its word too: make the word first.
                    self.restock(class)?;
                }
                let is_zero = self.cell(class).is_next_fresh();
                (self.alloc(layout)?, is_zero)
            }
            None => self.heap.alloc_large(self.row, layout)?,
        };
        if !is_zero {
            // SAFETY: the object has at least this size.
            unsafe { object.write_bytes(0, layout.size()) };
        }
        Ok(object)
    }

    /// As [`Heap::resize`].
    ///
    /// # Errors
    /// As for [`Heap::resize`].
    ///
    /// # Safety
    /// As for [`Heap::resize`].
    pub unsafe fn resize(
        &mut self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        if self.heap.resize_in_place(old, new) {
            return Ok(object);
        }
        let moved = self.alloc(new)?;
        // SAFETY: two different objects of at least this many bytes; the old one is the caller's.
        unsafe {
            moved.copy_from_nonoverlapping(object, old.size().min(new.size()));
            let _freed = self.free(object, old);
        }
        Ok(moved)
    }

    /// The heap.
    #[must_use]
    pub const fn heap(&self) -> &'h Heap<P, R, C> {
        self.heap
    }

    /// Gives back all that this local holds. Slabs that become empty by it are reclaimed by policy.
    pub fn flush(&mut self) {
        for class in 0..Table::<C>::TABLE.len() {
            self.flush_class(class);
        }
    }

    /// The most bytes of slabs that a local keeps from becoming empty: each pointer of each magazine
    /// and each word of each stash may be the last one that is held of its slab. It takes use of every
    /// class, in the worst order, to come near it; a local that uses one class of 128 bytes holds on
    /// to 776 KiB at most.
    #[must_use]
    pub fn holding_bound() -> usize {
        let classes = Table::<C>::TABLE.classes().iter();
        classes
            .map(|c| (usize::from(c.magazine) + usize::from(c.stash) + 1) * c.slab_bytes())
            .sum()
    }

    #[inline]
    fn cell_ref(&self, class: usize) -> &Cell {
        debug_assert!(class < Table::<C>::TABLE.len());
        // SAFETY: there is a cell for each class of the table, and only `cell` borrows one
        // exclusively, with `self`.
        unsafe { &*self.cells.as_ptr().add(class) }
    }

    #[inline]
    fn cell(&mut self, class: usize) -> &mut Cell {
        debug_assert!(class < Table::<C>::TABLE.len() && class < MAX_CLASSES);
        // SAFETY: there is a cell for each class of the table, and `self` is borrowed exclusively.
        unsafe { &mut *self.cells.as_ptr().add(class) }
    }

    /// Allocates when the magazine and the word are used up.
    #[cold]
    #[inline(never)]
    fn refill(&mut self, class: usize) -> Result<NonNull<u8>, AllocError> {
        self.restock(class)?;
        match self
            .cell(class)
            .next_slot(Table::<C>::TABLE.class(class).size())
        {
            Some(slot) => {
                if C::CHECKED {
                    self.heap.mark_live(slot.addr(), class);
                }
                // SAFETY: no slot is at null.
                Ok(unsafe { NonNull::new_unchecked(slot) })
            }
            // There was no memory for the cell's store: a slot at a time, then.
            None => self.heap.alloc_slot_slow(self.row, class),
        }
    }

    /// Gets a current word: from the stash, the depot, or a new slab. Without memory for a store the
    /// cell stays as it is.
    fn restock(&mut self, class: usize) -> Result<(), AllocError> {
        self.grow(class);
        let (heap, row) = (self.heap, self.row);
        let cell = self.cell(class);
        if !cell.has_store() {
            return Ok(());
        }
        if cell.stashed() == 0 {
            let shape = Table::<C>::TABLE.class(class);
            // A cell that is used much takes several words with one visit to the lock.
            let room = if cell.is_full_size() {
                cell.stash_room() / 2
            } else {
                2
            };
            let from_cache = row.bin(class).take(shape, room, |slab, word| {
                cell.stash_push(Held { slab, word });
            });
            if from_cache > 0 {
                heap.uncached(from_cache * shape.slab_bytes());
            }
        }
        if let Some(held) = cell.stash_pop() {
            // SAFETY: the held word pins the slab.
            let base = unsafe { (*held.slab).body() }.base;
            cell.set_current(held, base, false);
            return Ok(());
        }
        let (slab, is_zero) = heap.make_slab(row, class)?;
        let word = Table::<C>::TABLE.class(class).all;
        // SAFETY: the slab was just made and is owned.
        let base = unsafe { slab.body() }.base;
        cell.set_current(Held { slab, word }, base, is_zero);
        Ok(())
    }

    /// Frees when the magazine is full: its older half becomes words, and the stash's older half, if
    /// there is no room for them, goes back.
    #[cold]
    #[inline(never)]
    fn spill(&mut self, class: usize, address: usize) {
        self.grow(class);
        if self.cell(class).push(address) {
            return;
        }
        let count = self.cell(class).in_magazine().div_ceil(2);
        self.spill_oldest(class, count);
        if !self.cell(class).push(address) {
            // There was no memory for a store: the slot goes back alone.
            // SAFETY: the object is given up by whoever freed it.
            let _freed = unsafe {
                self.heap.free_slot(
                    NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)),
                    class,
                )
            };
        }
    }

    /// Turns the oldest `count` addresses of the magazine into words.
    fn spill_oldest(&mut self, class: usize, count: usize) {
        let shape = Table::<C>::TABLE.class(class);
        let mut index = 0;
        while index < count {
            // SAFETY: a held slot lies in a chunk of the heap, and pins its slab.
            let (slab, base) = unsafe {
                let slab = self.slab_of(self.cell_ref(class).magazine(index));
                (slab, (*slab).body().base.addr())
            };
            let (mut word, first) = (0u64, index);
            // Neighbours are mostly of the same slab and need no look-up.
            while index < count {
                let offset = self.cell_ref(class).magazine(index).wrapping_sub(base);
                if offset >= shape.slab_bytes() {
                    break;
                }
                word |= 1 << shape.slot_of(offset);
                index += 1;
            }
            let doubles = (index - first) as u64 - u64::from(word.count_ones());
            if doubles > 0 {
                self.heap.note_double_free(doubles);
            }
            self.stash(class, Held { slab, word });
        }
        self.cell(class).drop_oldest(count);
    }

    /// Keeps a word for later: with the current word or the newest of the stash if it is of the same
    /// slab, else as a new entry. If there is no room the older half of the stash goes back.
    fn stash(&mut self, class: usize, mut held: Held) {
        let heap = self.heap;
        let all = Table::<C>::TABLE.class(class).all;
        let cell = self.cell(class);
        let current = cell.current();
        if current.word != 0 && ptr::eq(current.slab, held.slab) {
            heap.note_overlap(current.word & held.word);
            held.word |= current.word;
            if held.word != all || heap.may_linger() {
                cell.widen_current(held.word);
                return;
            }
            let _whole = cell.take_current();
        }
        if let Some(newest) = cell.newest()
            && ptr::eq(newest.slab, held.slab)
        {
            heap.note_overlap(newest.word & held.word);
            held.word |= newest.word;
            let _merged = cell.stash_pop();
        }
        // Under the policies that keep memory warm a whole word waits here like any other, within the
        // same bound; it is the cheapest to hand out again.
        if !cell.has_store() || (held.word == all && !heap.may_linger()) {
            self.give_back(class, held);
            return;
        }
        if cell.stash_room() == 0 {
            self.give_oldest(class, self.cell_ref(class).stashed().div_ceil(2));
        }
        self.cell(class).stash_push(held);
    }

    /// Gives a held word back to its slab.
    fn give_back(&self, class: usize, held: Held) {
        // SAFETY: this local holds the word, and holds only words of its row and this class; held
        // slabs are valid.
        unsafe {
            let words = core::iter::once((&*held.slab, held.word));
            self.heap
                .give_back_all(self.row.bin(class), words, Table::<C>::TABLE.class(class));
        }
    }

    /// Gives the oldest `count` stashed words back.
    fn give_oldest(&mut self, class: usize, count: usize) {
        let cell = self.cell_ref(class);
        // SAFETY: as in `give_back`.
        unsafe {
            let words = (0..count)
                .map(|index| cell.stash(index))
                .map(|h| (&*h.slab, h.word));
            self.heap
                .give_back_all(self.row.bin(class), words, Table::<C>::TABLE.class(class));
        }
        self.cell(class).stash_drop_oldest(count);
    }

    fn flush_class(&mut self, class: usize) {
        let count = self.cell(class).in_magazine();
        self.spill_oldest(class, count);
        self.give_oldest(class, self.cell_ref(class).stashed());
        if let Some(held) = self.cell(class).take_current() {
            self.give_back(class, held);
        }
    }

    /// Gives a cell its first store, or a larger one once it has been used for a while. Does nothing
    /// if there is no memory for it.
    fn grow(&mut self, class: usize) {
        let heap = self.heap;
        let shape = Table::<C>::TABLE.class(class);
        let cell = self.cell(class);
        cell.visits = cell.visits.saturating_add(1);
        let (kind, room) = if !cell.has_store() {
            (Kind::SmallStore, SMALL)
        } else if !cell.is_full_size() && cell.visits >= VISITS_TO_GROW {
            (Kind::FullStore, FULL)
        } else {
            return;
        };
        let limits = Room {
            magazine: room.magazine.min(usize::from(shape.magazine)),
            stash: room.stash.min(usize::from(shape.stash)),
        };
        let Ok(store) = heap.pages.take_meta(kind, room.layout()) else {
            return;
        };
        // SAFETY: the store is fresh memory of that layout, and larger than the one before it, which
        // was a small one.
        unsafe {
            let old = cell.move_to(store.as_ptr(), room, limits);
            if let Some(old) = NonNull::new(old) {
                heap.pages.put_meta(Kind::SmallStore, old);
            }
        }
    }

    /// Frees an object of another row.
    ///
    /// # Safety
    /// As for [`Heap::free`], for a layout of this class.
    #[cold]
    #[inline(never)]
    unsafe fn free_elsewhere(
        &mut self,
        object: NonNull<u8>,
        class: usize,
    ) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe { self.heap.free_slot(object, class) }
    }

    /// Whether `address` is in a chunk of the heap, for a checked heap.
    #[inline]
    fn knows(&mut self, address: usize) -> bool {
        let chunk = address & !(P::CHUNK_SIZE - 1);
        let released = self.heap.pages.released_chunks();
        let place = (chunk / P::CHUNK_SIZE) % KNOWN;
        let state = self.state.as_ptr();
        // Fields one by one: the list's links in the state are written by others.
        // SAFETY: these fields are this local's alone.
        let is_known = unsafe { (*state).known[place] == chunk && (*state).known_at == released };
        if is_known && chunk != 0 {
            return true;
        }
        self.learn(chunk, place, released)
    }

    #[cold]
    #[inline(never)]
    fn learn(&mut self, chunk: usize, place: usize, released: usize) -> bool {
        let state = self.state.as_ptr();
        // SAFETY: as in `knows`.
        unsafe {
            if (*state).known_at != released {
                (*state).known = [0; KNOWN];
                (*state).known_at = released;
            }
        }
        // A chunk is size-aligned, so all of it is ours or none of it.
        let is_ours = self.heap.pages.holds_chunk(chunk);
        if is_ours {
            // SAFETY: as in `knows`.
            unsafe { (*state).known[place] = chunk };
        }
        is_ours
    }

    /// The slab of a slot that this local holds.
    ///
    /// # Safety
    /// `address` is such a slot.
    #[inline]
    unsafe fn slab_of(&self, address: usize) -> *const Slab {
        // SAFETY: a held slot lies in a chunk of the heap.
        unsafe { self.heap.map_of(address).slab(address) }
    }
}

impl<P: PageProvider, R: RawMutex, C: Config> Drop for Local<'_, P, R, C> {
    fn drop(&mut self) {
        let pages = &self.heap.pages;
        for class in 0..Table::<C>::TABLE.len() {
            self.flush_class(class);
            let is_full_size = self.cell(class).is_full_size();
            let kind = if is_full_size {
                Kind::FullStore
            } else {
                Kind::SmallStore
            };
            if let Some(store) = NonNull::new(self.cell(class).take_store()) {
                // SAFETY: the store is empty, and it was of this kind.
                unsafe { pages.put_meta(kind, store) };
            }
        }
        // SAFETY: the state was inserted when the local was made, and nobody has it after this.
        unsafe {
            self.heap
                .locals
                .with(|list| list.remove(self.state.as_ptr()));
            pages.put_meta(Kind::LocalRow, self.state.cast());
        }
    }
}

impl<P: PageProvider, R: RawMutex, C: Config> fmt::Debug for Local<'_, P, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("row", &self.home)
            .finish_non_exhaustive()
    }
}
