//! The slow half of a local: refills, spills, and stores that grow.

use super::{EpochCache, Local};
use crate::cache::{
    CacheState, Entry, FULL, Gathered, Held, LocalCounters, MANY, OwnCounters, Room, SMALL, bump,
};
use crate::config::{Config, Table};
use crate::epoch::Tag;
use crate::error::AllocError;
use crate::handle::{FreeWord, RawHandle, TaggedSlab};
use crate::pages::Kind;
use crate::slab::Slab;
use crate::sync::{AtomicU64, add};
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// Visits to the slow path after which a cell gets a store of full size.
const VISITS_TO_GROW: u8 = 4;

impl<'h, C: Config> Local<'h, C> {
    /// Allocates in the home epoch cache when the magazine and the word are used up.
    #[cold]
    #[inline(never)]
    pub(super) fn refill_home(&mut self, class: usize) -> Option<NonNull<u8>> {
        let object = self.refill(self.home, Tag::ROOT, class);
        // SAFETY: `inner` is valid and this local's alone.
        object
            .inspect_err(|error| unsafe { (*self.inner).failed = *error })
            .ok()
    }

    /// Allocates what takes a search for its class, or what no class serves, in the root epoch.
    #[inline(never)]
    pub(super) fn alloc_other_home(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if let Some(class) = Table::<C>::TABLE.index_for(layout) {
            return match self.pick(self.home.cells, class) {
                Some(object) => Some(object),
                None => self.refill_home(class),
            };
        }
        let object = self.heap.alloc_large(self.home.depot, Tag::ROOT, layout);
        // SAFETY: as in `refill_home`.
        unsafe { object.inspect_err(|error| (*self.inner).failed = *error) }
            .ok()
            .map(|(object, _)| object)
    }

    /// Why `refill_home` or `alloc_other_home` failed.
    #[cold]
    pub(super) fn failure(&self) -> AllocError {
        // SAFETY: as in `refill_home`.
        unsafe { (*self.inner).failed }
    }

    /// Allocates when the magazine and the word are used up.
    pub(super) fn refill(
        &mut self,
        cache: EpochCache<'h, C::Lock>,
        tag: Tag,
        class: usize,
    ) -> Result<NonNull<u8>, AllocError> {
        self.restock(cache, tag, class)?;
        match self.pick(cache.cells, class) {
            Some(object) => Ok(object),
            // There was no memory for the cell's store: a slot at a time, then.
            None => self.heap.alloc_slot(cache.depot, tag, class),
        }
    }

    /// As [`Self::refill`], for a class with tags.
    #[cold]
    #[inline(never)]
    pub(super) fn refill_word(
        &mut self,
        cache: EpochCache<'h, C::Lock>,
        tag: Tag,
        class: usize,
    ) -> Result<FreeWord, AllocError> {
        self.restock(cache, tag, class)?;
        match self.pick_word(cache.cells, class) {
            Some(word) => Ok(word),
            None => {
                let object = self.heap.alloc_slot(cache.depot, tag, class)?;
                Ok(self.heap.free_word(object, class))
            }
        }
    }

    /// Gives the slot of a tag back.
    pub(super) fn put_back(&self, word: FreeWord) {
        if let Some(tagged) = self.heap.slab_of(word) {
            self.heap.put_slot(tagged, RawHandle::of_word(word));
        }
    }

    /// Where a slab's slots are, or its tags.
    ///
    /// # Safety
    /// The local pins or owns the slab, which is of this class.
    unsafe fn base_of(slab: &Slab, class: usize) -> *mut u8 {
        if Table::<C>::TABLE.class(class).is_tagged {
            // SAFETY: the class is a tagged one.
            unsafe { TaggedSlab::of(slab) }.tags()
        } else {
            // SAFETY: the caller's promise.
            unsafe { slab.body() }.base
        }
    }

    /// Gets a current word: from the stash, the depot, or a new slab. Without memory for a store the
    /// cell stays as it is.
    pub(super) fn restock(
        &mut self,
        cache: EpochCache<'h, C::Lock>,
        tag: Tag,
        class: usize,
    ) -> Result<(), AllocError> {
        self.notice_closes();
        if cache.depot.tag() != tag {
            // The epoch cache may be gone, too.
            return Err(self.closed(cache.depot, Some(class)));
        }
        if !self.cell(cache, class).has_store() {
            bump(&self.counters().slow.no_word);
            self.heap.note_no_word(cache.depot, class);
        }
        self.grow(cache, class);
        let heap = self.heap;
        let shape = Table::<C>::TABLE.class(class);
        let cell = self.cell(cache, class);
        if !cell.has_store() {
            return Ok(());
        }
        if cell.stashed() == 0 {
            bump(&self.counters().slow.depot_visits);
            // A cell that is used much takes several words with one visit to the lock.
            let room = if cell.is_full_size() && cell.visits.get() >= VISITS_TO_GROW {
                (cell.stash_room() / 2).max(1)
            } else {
                cell.stash_room().min(2)
            };
            let from_cache = cache
                .depot
                .class_list(class)
                .take(shape, room, |slab, word| {
                    cell.stash_push(Held { slab, word });
                });
            add(&self.counters().slow.words_taken, cell.stashed() as u64);
            if from_cache > 0 {
                add(&self.counters().slow.from_cache, from_cache as u64);
                heap.uncached(from_cache * shape.slab_bytes());
            }
            if cache.depot.tag() != tag {
                // What was taken is of another era: see the head of `depot::depot`.
                self.flush_class(cache, class);
                return Err(self.closed(cache.depot, Some(class)));
            }
        } else {
            self.count_own(cache, class, |own| &own.from_stash);
            bump(&self.counters().slow.from_stash);
        }
        let cell = self.cell(cache, class);
        if let Some(held) = cell.stash_pop() {
            // SAFETY: the held word pins the slab.
            let base = unsafe { Self::base_of(&*held.slab, class) };
            cell.set_current(held, base, false);
            return Ok(());
        }
        let made = heap.make_slab(cache.depot, tag, class);
        let (slab, is_zero) = made.inspect_err(|error| self.count_refusal(*error))?;
        bump(&self.counters().slow.new_slabs);
        // SAFETY: the slab was just made and is owned.
        let base = unsafe { Self::base_of(slab, class) };
        let word = shape.all;
        self.cell(cache, class)
            .set_current(Held { slab, word }, base, is_zero);
        Ok(())
    }

    /// Frees when the magazine is full: its older three quarters become words, and the stash's older half,
    /// if there is no room for them, goes back.
    #[cold]
    #[inline(never)]
    pub(super) fn spill(&mut self, cache: EpochCache<'h, C::Lock>, class: usize, entry: Entry) {
        self.count_own(cache, class, |own| &own.spills);
        bump(&self.counters().slow.spills);
        self.grow(cache, class);
        if !self.cell(cache, class).push(entry, C::CHECKED) {
            // All but the newest quarter: fewer visits than with a half, and what is hot stays.
            let held = self.cell(cache, class).in_magazine();
            let count = held - held / 4;
            self.spill_oldest(cache, class, count);
            if !self.cell(cache, class).push(entry, C::CHECKED) {
                // There was no memory for a store: the slot goes back alone.
                if Table::<C>::TABLE.class(class).is_tagged {
                    return self.put_back(FreeWord(entry.name));
                }
                // SAFETY: the object is given up by whoever freed it, and no object is at null.
                let _freed = unsafe {
                    let object = ptr::with_exposed_provenance_mut(entry.name as usize);
                    let object = NonNull::new_unchecked(object);
                    self.heap.free_slot(object, class)
                };
            }
        }
        self.notice_closes();
    }

    /// Turns the oldest `count` entries of the magazine into words.
    fn spill_oldest(&mut self, cache: EpochCache<'h, C::Lock>, class: usize, count: usize) {
        let mut gathered = None;
        let mut index = 0;
        while index < count {
            let cell = self.cell(cache, class);
            let names = (index..count).map(|index| cell.magazine(index).name);
            let (held, taken) = if Table::<C>::TABLE.class(class).is_tagged {
                self.word_of_tags(names)
            } else if C::CHECKED {
                let (held, taken) = cell.word_of_slots(index, count);
                (Some(held), taken)
            } else {
                self.word_of_addresses(class, names)
            };
            let Some(held) = held else {
                break;
            };
            index += taken;
            let doubles = taken as u64 - u64::from(held.word.count_ones());
            if doubles > 0 {
                self.heap.note_double_free(doubles);
            }
            // Many at a time make a word of their own, until slots come in no order.
            if gathered.is_none() && held.word.count_ones() >= MANY {
                self.stash(cache, class, held);
                continue;
            }
            let gathered = gathered.get_or_insert_with(Gathered::new);
            self.heap.note_overlap(gathered.add(held));
        }
        for held in gathered.iter().flat_map(Gathered::words) {
            self.stash(cache, class, held);
        }
        self.cell(cache, class).drop_oldest(count);
    }

    /// The word of the first slots that are of one slab, and how many they are.
    fn word_of_addresses(
        &self,
        class: usize,
        mut names: impl Iterator<Item = u64>,
    ) -> (Option<Held>, usize) {
        let Some(first) = names.next() else {
            return (None, 0);
        };
        let shape = Table::<C>::TABLE.class(class);
        let span = shape.slab_bytes();
        let (mask, _) = shape.by_address();
        // SAFETY: a held slot lies in a chunk of the heap, and pins its slab.
        let (slab, base) = unsafe {
            let slab = self.slab_of(first as usize);
            let base = match mask {
                0 => (*slab).body().base.addr(),
                mask => first as usize & !usize::from(mask),
            };
            (slab, base)
        };
        // Neighbours are mostly of the same slab and need no look-up.
        let (mut word, mut taken) = (0u64, 0);
        for name in core::iter::once(first).chain(names) {
            let offset = (name as usize).wrapping_sub(base);
            if offset >= span {
                break;
            }
            word |= 1 << shape.slot_of(offset);
            taken += 1;
        }
        (Some(Held { slab, word }), taken)
    }

    /// As [`Self::word_of_addresses`], for a class with tags.
    fn word_of_tags(&self, names: impl Iterator<Item = u64>) -> (Option<Held>, usize) {
        let mut handles = names.map(|name| RawHandle::of_word(FreeWord(name)));
        let first = handles.next();
        let slab = first.and_then(|first| self.heap.slab_of(FreeWord(first.bits())));
        let (Some(first), Some(tagged)) = (first, slab) else {
            return (None, 0);
        };
        let (mut word, mut taken) = (1 << first.slot(), 1);
        for handle in handles.take_while(|handle| handle.id() == first.id()) {
            word |= 1 << handle.slot();
            taken += 1;
        }
        let slab: *const Slab = tagged.slab();
        (Some(Held { slab, word }), taken)
    }

    /// Keeps a word for later: with the current word or what is stashed of the same slab, else as a new entry. If there is no
    /// room the older half of the stash goes back.
    fn stash(&mut self, cache: EpochCache<'h, C::Lock>, class: usize, mut held: Held) {
        let heap = self.heap;
        let all = Table::<C>::TABLE.class(class).all;
        let cell = self.cell(cache, class);
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
        if let Some((place, both)) = cell.stash_join(held) {
            heap.note_overlap(both);
            // One that became whole little by little serves any class from the pages, or waits in the depot.
            let is_newest = place + 1 == cell.stashed();
            if cell.stash(place).word == all && !(is_newest && heap.may_linger()) {
                let whole = cell.stash_remove(place);
                self.give_back(cache, class, whole);
            }
            return;
        }
        // Under the policies that keep memory warm a whole word waits here like any other, within the
        // same bound; it is the cheapest to hand out again.
        if !cell.has_store() || (held.word == all && !heap.may_linger()) {
            self.give_back(cache, class, held);
            return;
        }
        if cell.stash_room() == 0 {
            self.give_oldest(cache, class, self.cell(cache, class).stashed().div_ceil(2));
        }
        self.cell(cache, class).stash_push(held);
    }

    /// Counts in an epoch cache and in the local's class.
    fn count_own(
        &self,
        cache: EpochCache<'h, C::Lock>,
        class: usize,
        which: impl Fn(&OwnCounters) -> &AtomicU64,
    ) {
        // SAFETY: the epoch cache is this local's, and so are the counters, which have this class.
        unsafe {
            CacheState::be_of(cache.state, cache.depot.tag());
            bump(which(&(*cache.state).own));
            let counters = (*self.inner).counters;
            bump(which(LocalCounters::class(
                counters,
                Table::<C>::LISTED,
                class,
            )));
        }
    }

    #[cold]
    pub(super) fn count_refusal(&self, error: AllocError) {
        let counters = &self.counters().slow;
        bump(match error {
            AllocError::Limit => &counters.limit,
            AllocError::EpochClosed => &counters.epoch_closed,
            _ => &counters.out_of_memory,
        });
    }

    /// Gives a held word back to its slab.
    fn give_back(&self, cache: EpochCache<'h, C::Lock>, class: usize, held: Held) {
        bump(&self.counters().slow.words_given);
        let shape = Table::<C>::TABLE.class(class);
        // SAFETY: this local holds the word, and holds only words of its depot and this class; held
        // slabs are valid.
        unsafe {
            let class_list = cache.depot.class_list(class);
            self.heap
                .give_back_held(class_list, &*held.slab, held.word, shape);
        }
    }

    /// Gives the oldest `count` stashed words back.
    fn give_oldest(&mut self, cache: EpochCache<'h, C::Lock>, class: usize, count: usize) {
        if count == 0 {
            return;
        }
        let cell = self.cell(cache, class);
        let mut words = [Held {
            slab: ptr::null(),
            word: 0,
        }; FULL.stash];
        let count = count.min(words.len());
        for (index, word) in words.iter_mut().enumerate().take(count) {
            *word = cell.stash(index);
        }
        // Dropped before they are given, so that nobody who counts finds a slot both held and free.
        cell.stash_drop_oldest(count);
        add(&self.counters().slow.words_given, count as u64);
        let words = words.iter().take(count);
        // SAFETY: as in `give_back`.
        unsafe {
            let words = words.map(|held| (&*held.slab, held.word));
            let shape = Table::<C>::TABLE.class(class);
            self.heap
                .give_back_all(cache.depot.class_list(class), words, shape);
        }
    }

    pub(super) fn flush_class(&mut self, cache: EpochCache<'h, C::Lock>, class: usize) {
        let count = self.cell(cache, class).in_magazine();
        self.spill_oldest(cache, class, count);
        self.give_oldest(cache, class, self.cell(cache, class).stashed());
        if let Some(held) = self.cell(cache, class).take_current() {
            self.give_back(cache, class, held);
        }
    }

    /// Gives a cell its first store, or a larger one once it has been used for a while. Does nothing
    /// if there is no memory for it.
    fn grow(&mut self, cache: EpochCache<'h, C::Lock>, class: usize) {
        let heap = self.heap;
        let shape = Table::<C>::TABLE.class(class);
        let cell = self.cell(cache, class);
        cell.visits.set(cell.visits.get().saturating_add(1));
        let (kind, room) = if !cell.has_store() {
            (Kind::SmallStore, SMALL)
        } else if !cell.is_full_size() && cell.visits.get() >= VISITS_TO_GROW {
            (Kind::FullStore, FULL)
        } else {
            return;
        };
        let limits = Room {
            magazine: room.magazine.min(usize::from(shape.magazine)),
            stash: room.stash.min(usize::from(shape.stash)),
        };
        let Ok(store) = heap.pages.take_meta(kind, room.layout(C::CHECKED)) else {
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

    /// The slab of a slot that this local holds.
    ///
    /// # Safety
    /// `address` is such a slot.
    #[inline]
    pub(super) unsafe fn slab_of(&self, address: usize) -> *const Slab {
        // SAFETY: a held slot pins its slab, so its entry names it; the heap outlives the local.
        unsafe { self.heap.entry(address).slab().unwrap_unchecked() }
    }
}
