//! The shared lists of slabs with free slots, for each epoch (a depot) and class (a class list).
//!
//! # Protocol
//!
//! A class list lists slabs of one key that may have free slots. Its lock guards the lists, the links of
//! slabs in them, and the end of a slab's life. A slab's word is changed without the lock.
//!
//! - **Listing.** Whoever turns a word from 0 to something (`Given::WasFull`) lists the slab: it
//!   takes the lock and pushes it if it is in the life that the giver saw while it still pinned the
//!   slab, is not listed, and has a free slot. A slab that was recycled between the give and the
//!   lock has another identity and is left alone.
//! - **Taking.** [`ClassList::take`] unlists a slab and then takes its whole word, both under the lock. A
//!   give that comes between the two finds the word not 0 and leaves it to the taker; one that
//!   comes after finds 0 and lists the slab again. So no slab with free slots is stranded.
//! - **The end of a life.** A claimer takes the lock, unlists the slab, ends its life, and then
//!   either keeps it in the class list's cache (still whole, ready for the next taker) or owns it for good.
//! - **Lingering.** A program that allocates and frees one object over and over through the shared
//!   path would claim and reopen its slab each time. So a slab that becomes empty while it is the
//!   hint may stay as it is, listed and whole, if the policy allows; takers find it like any other.
//!   The hint moves only when the slab that it names is used up, so one slab of a class list lingers; but it
//!   may move on between a giver's look at it and the give's end, so [`ClassList::sweep`] looks at all.
//! - **A late claim.** A giver that emptied the slab does not pin it when it claims. If others took and gave
//!   slots, claimed and recycled the slab in between, its claim may find just these slots free in another
//!   life. It holds them then like anybody who took them, sees by the identity that the life is another,
//!   and gives them back ([`After::Strayed`]).
//! - **The shared path.** [`ClassList::take_slot`] reads `hint` and takes one bit of a slab that it did
//!   not pin. Slabs are type-stable, so that is harmless; it then holds a bit, so the slab's
//!   identity is stable: if its key is not this class list's, the slab was recycled meanwhile, and the
//!   bit goes back to where it belongs now.
//!
//! # Orderings
//!
//! `hint` is stored with `Release` after the slab was listed and read with `Acquire`: the reader
//! sees at least an initialised slab. That nothing lingers in a closed class list rests on it, too: `set_closed` clears it with
//! `SeqCst`, and `give_back` reads it so; see `closing`. See `slab` for the word itself.

mod closing;
mod counts;
#[cfg(not(loom))]
mod epoch_depot;
mod list;
mod lists;
#[cfg(all(test, loom))]
mod models;
mod spread;
#[cfg(not(loom))]
mod unlisted;

use crate::class::Class;
use crate::handle::TaggedSlab;
use crate::slab::{Claim, DoubleFree, Given, Key, Slab};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Lock, Ordering};
use core::ptr;
#[cfg(not(loom))]
pub(crate) use counts::Refusals;
pub(crate) use counts::{ClassListCounts, Stock};
#[cfg(not(loom))]
pub(crate) use epoch_depot::EpochDepot;
use lists::Lists;
pub(crate) use lists::retired;
pub(crate) use lists::{After, Keep, Owned};
use spread::{Spread, pick};
#[cfg(not(loom))]
pub(crate) use unlisted::{give_unlisted, retire_unlisted};

/// The lists of one depot and class.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct ClassList<R> {
    /// Where the shared path looks first. `Release` in `set_hint`, `Acquire` in `take_slot`; `SeqCst` in `set_closed` and
    /// `give_back`, which pair with the slab's word: see the former.
    hint: AtomicPtr<Slab>,
    spread: Spread,
    lists: Lock<R, Lists>,
    /// How many slabs are listed, and in the cache: written under the lock when that changes, and read without it, to find nothing
    /// without taking it. `Relaxed`.
    listed: AtomicU32,
    cached: AtomicU32,
    /// Counts of what happens outside of the lock. `Relaxed` throughout: figures, exact at rest.
    made: AtomicU64,
    recycled: AtomicU64,
    given: AtomicU64,
}

// There are as many as epochs times classes.
#[cfg(all(not(loom), target_pointer_width = "64"))]
const _: () = assert!(size_of::<ClassList<spin::Mutex<()>>>() == 256);

/// How many words are given back with one visit to the lock.
const GIVE_BATCH: usize = 32;

/// What the lock-free shared take came back with.
#[derive(Debug)]
pub(crate) enum SlotTake<'s> {
    /// A slot of the right slab: its bit.
    Taken(&'s Slab, u64),
    /// A slot of a slab that serves another key now: the caller holds this bit and gives it back.
    Strayed(&'s Slab, u64),
    /// Nothing to be had without the lock.
    Empty,
}

impl<R: lock_api::RawMutex> ClassList<R> {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            hint: AtomicPtr::new(ptr::null_mut()),
            spread: Spread::new(),
            lists: Lock::new(Lists::new()),
            listed: AtomicU32::new(0),
            cached: AtomicU32::new(0),
            made: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
            given: AtomicU64::new(0),
        }
    }
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            hint: AtomicPtr::new(ptr::null_mut()),
            spread: Spread::new(),
            lists: Lock::new(Lists::new()),
            listed: AtomicU32::new(0),
            cached: AtomicU32::new(0),
            made: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
            given: AtomicU64::new(0),
        }
    }

    /// Runs `f` on the lists under the lock.
    #[inline]
    fn with<T>(&self, f: impl FnOnce(&mut Lists) -> T) -> T {
        self.lists.with(|lists| {
            let result = f(lists);
            for (count, list) in [
                (&self.listed, &lists.partial),
                (&self.cached, &lists.cached),
            ] {
                let len = list.len() as u32;
                if count.load(Ordering::Relaxed) != len {
                    count.store(len, Ordering::Relaxed);
                }
            }
            result
        })
    }

    /// Slabs that may have free slots, as of the last change.
    pub(crate) fn listed(&self) -> usize {
        self.listed.load(Ordering::Relaxed) as usize
    }

    /// Whole slabs that wait, as of the last change.
    pub(crate) fn cached(&self) -> usize {
        self.cached.load(Ordering::Relaxed) as usize
    }

    /// Takes at most `room` slabs with free slots off the lists and gives each word to `sink`. Gives
    /// the number of slabs that came from the cache.
    pub(crate) fn take<'s>(
        &self,
        class: &Class,
        room: usize,
        mut sink: impl FnMut(&'s Slab, u64),
    ) -> usize {
        self.with(|lists| {
            let (mut words, mut from_cache) = (0, 0);
            while words < room {
                // SAFETY: this class list's lock is held.
                let (slab, word) = if let Some(slab) = unsafe { lists.partial.pop() } {
                    (slab, slab.take_all())
                // SAFETY: as above.
                } else if let Some(slab) = unsafe { lists.cached.pop() } {
                    from_cache += 1;
                    (slab, class.all)
                } else {
                    break;
                };
                if word != 0 {
                    words += 1;
                    sink(slab, word);
                }
            }
            let counts = &mut lists.counts;
            counts.visits += 1;
            counts.taken += words as u64;
            counts.from_cache += from_cache as u64;
            from_cache
        })
    }

    /// Gives `word` of `slab` back. `retired` tells which of its slots are out of use, `may_linger` decides
    /// whether an emptied hint stays as it is, `keep`, under the lock, whether another emptied slab of a class list
    /// that is closed, or is not, stays in the cache.
    ///
    /// # Safety
    /// The caller holds at least one slot of `word`; `slab` is of this class list and of class `class`.
    #[inline]
    pub(crate) unsafe fn give_back<'s>(
        &self,
        slab: &'s Slab,
        word: u64,
        class: &Class,
        retired: impl FnOnce() -> u64,
        may_linger: impl FnOnce() -> bool,
        keep: impl FnOnce() -> Keep,
    ) -> Result<After<'s>, DoubleFree> {
        let may_claim = |all| {
            // `SeqCst`, with the give before it: see `set_closed`.
            let is_hint = ptr::eq(self.hint.load(Ordering::SeqCst), slab);
            // One with retired slots is to get new tags, so it does not linger.
            !(is_hint && all == class.all && may_linger())
        };
        // SAFETY: the caller holds a slot of `word`.
        let given = unsafe { slab.give(word, class.all, retired, may_claim) }?;
        Ok(match given {
            Given::More => After::InUse,
            Given::Strayed(word) => After::Strayed(slab, word),
            given => self.follow(slab, given, class, keep),
        })
    }

    /// As [`ClassList::give_back`], for a caller that holds many slots. A caller that holds every slot owns the slab, so it
    /// gives nothing and ends the slab's life at once.
    ///
    /// # Safety
    /// As for [`ClassList::give_back`].
    pub(crate) unsafe fn give_held<'s>(
        &self,
        slab: &'s Slab,
        word: u64,
        class: &Class,
        keep: impl FnOnce() -> Keep,
    ) -> Result<After<'s>, DoubleFree> {
        // A slot that is free already was freed twice: the give finds that.
        if word == class.all && slab.free() == 0 {
            // SAFETY: nobody but the caller holds a slot of it.
            return Ok(self.with(|lists| unsafe { lists.end_life(slab, class, keep) }));
        }
        // SAFETY: the caller's promise.
        unsafe { self.give_back(slab, word, class, || retired(slab, class), || false, keep) }
    }

    #[cold]
    #[inline(never)]
    fn follow<'s>(
        &self,
        slab: &'s Slab,
        given: Given,
        class: &Class,
        keep: impl FnOnce() -> Keep,
    ) -> After<'s> {
        let listed = matches!(given, Given::WasFull(_));
        self.with(|lists| {
            // SAFETY: `given` is what the give of this slab came back with.
            let after = unsafe { lists.follow(slab, given, class, keep) };
            if listed && !lists.is_closed {
                self.offer_hint(slab);
            }
            after
        })
    }

    /// Retires the slot `bit` of a tagged slab, whose generations are used up: it is no slot any more
    /// until the slab gets new tags, which it does when the other slots are empty.
    ///
    /// # Safety
    /// The caller holds `bit`; `slab` is of this class list and of class `class`, which is a tagged one.
    #[cold]
    pub(crate) unsafe fn retire<'s>(
        &self,
        slab: &'s Slab,
        bit: u64,
        class: &Class,
        keep: impl FnOnce() -> Keep,
    ) -> After<'s> {
        // SAFETY: the class is a tagged one, so its slabs are.
        match unsafe { TaggedSlab::of(slab) }.retire(bit, class.all) {
            Claim::Won => self.follow(slab, Given::Claimed, class, keep),
            Claim::Lost => After::InUse,
            Claim::Strayed(word) => After::Strayed(slab, word),
        }
    }

    /// Gives many words back with one visit to the lock, and tells `sink` of each slab that left.
    /// Gives the number of slots that were free already.
    ///
    /// # Safety
    /// For each pair as for [`ClassList::give_back`].
    pub(crate) unsafe fn give_back_all<'s>(
        &self,
        held: impl Iterator<Item = (&'s Slab, u64)>,
        class: &Class,
        keep: impl Fn() -> Keep,
        mut sink: impl FnMut(After<'s>),
    ) -> u32 {
        let mut doubles = 0;
        let mut held = held.fuse();
        loop {
            // What the gives came back with and needs the lock.
            let mut later: [Option<(&Slab, Given)>; GIVE_BATCH] = [None; GIVE_BATCH];
            let (mut count, mut given) = (0, 0);
            for (slab, word) in held.by_ref().take(GIVE_BATCH) {
                given += 1;
                // SAFETY: the caller holds a slot of `word`.
                match unsafe { slab.give(word, class.all, || retired(slab, class), |_| true) } {
                    Ok(Given::More) => {}
                    Ok(call) => {
                        if let Some(place) = later.get_mut(count) {
                            *place = Some((slab, call));
                            count += 1;
                        }
                    }
                    Err(double) => doubles += double.0.count_ones(),
                }
            }
            if given == 0 {
                return doubles;
            }
            if count == 0 {
                continue;
            }
            let mut gone: [Option<After<'s>>; GIVE_BATCH] = [const { None }; GIVE_BATCH];
            self.with(|lists| {
                for (place, (slab, given)) in gone.iter_mut().zip(later.into_iter().flatten()) {
                    // SAFETY: `given` is what the give of this slab came back with.
                    *place = Some(unsafe { lists.follow(slab, given, class, &keep) });
                }
            });
            gone.into_iter().flatten().for_each(&mut sink);
        }
    }

    /// Takes one slot without the lock. `start` is the bit at which a search begins that is spread, which it is where CPUs
    /// collide and where that is wanted anyway.
    #[inline]
    pub(crate) fn take_slot<'s>(
        &self,
        key: Key,
        is_spread: bool,
        start: impl Fn() -> u32,
    ) -> SlotTake<'s> {
        // Each failed turn means that somebody else took the bit, so someone always progresses; and
        // each turn looks at the word again, so it ends at the latest when the slab is exhausted.
        loop {
            let hint = self.hint.load(Ordering::Acquire);
            // SAFETY: hints point to type-stable slabs.
            let Some(slab) = (unsafe { hint.as_ref() }) else {
                return SlotTake::Empty;
            };
            let word = slab.free();
            if word == 0 {
                return SlotTake::Empty;
            }
            let bit = if is_spread || self.spread.is_on() {
                pick(word, start())
            } else {
                word & word.wrapping_neg()
            };
            if !slab.take_bit(bit) {
                self.spread.collided();
                continue;
            }
            // The bit pins the slab, so the identity that is read now stays.
            return if slab.identity().key() == key {
                SlotTake::Taken(slab, bit)
            } else {
                SlotTake::Strayed(slab, bit)
            };
        }
    }

    /// Takes one slot under the lock and makes its slab the hint. The flag tells whether the slab
    /// came from the cache.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_slot_locked<'s>(&self, class: &Class) -> Option<(&'s Slab, u64, bool)> {
        self.with(|lists| {
            lists.counts.visits += 1;
            // A listed slab belongs to this class list for as long as the lock is held, so the bit needs no
            // check of identity.
            // SAFETY: this class list's lock is held, and listed slabs are valid.
            while let Some(slab) = unsafe { lists.partial.first().as_ref() } {
                let word = slab.free();
                let bit = word & word.wrapping_neg();
                if word != 0 && slab.take_bit(bit) {
                    self.spread.offered(word.count_ones(), &mut lists.window);
                    self.lead_to(lists, slab);
                    return Some((slab, bit, false));
                }
                if word == 0 {
                    // Exhausted, or claimed by someone who waits for the lock. A give that finds
                    // the word 0 after this lists the slab again.
                    // SAFETY: the slab is the first of this list.
                    unsafe { lists.partial.remove(slab) };
                }
            }
            // SAFETY: the lock is held.
            let slab = unsafe { lists.cached.pop() }?;
            lists.counts.from_cache += 1;
            // SAFETY: the cache owned it, so this context does now.
            Some((slab, unsafe { self.open(lists, slab, class) }, true))
        })
    }

    /// Brings an owned slab into circulation and takes its first slot for the caller.
    pub(crate) fn publish(&self, slab: Owned<'_>, class: &Class) -> u64 {
        // SAFETY: the caller owns it, by the type, and the lock is held inside.
        self.with(|lists| unsafe { self.open(lists, slab.0, class) })
    }

    /// # Safety
    /// The caller owns `slab`, it is in no list, and `lists` is this class list's, locked.
    unsafe fn open(&self, lists: &mut Lists, slab: &Slab, class: &Class) -> u64 {
        let bit = 1;
        // Listed before it is opened: whoever takes and gives its bits back finds it listed.
        // SAFETY: as the caller promises.
        unsafe {
            lists.push(slab);
            slab.publish(class.all & !bit);
        }
        self.spread
            .offered(u32::from(class.slots), &mut lists.window);
        self.lead_to(lists, slab);
        bit
    }

    /// The class list's lock, for as long as the caller says.
    #[cfg(not(loom))]
    pub(crate) fn hold(&self) {
        self.lists.hold();
    }

    /// Ends [`ClassList::hold`].
    ///
    /// # Safety
    /// This context holds it, or is a copy of one that did.
    #[cfg(not(loom))]
    pub(crate) unsafe fn let_go(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.lists.let_go() }
    }

    /// Takes one slab out of the cache.
    pub(crate) fn uncache<'s>(&self) -> Option<Owned<'s>> {
        // SAFETY: the lock is held, and what the cache owned is now the caller's.
        self.with(|lists| unsafe { lists.cached.pop() }.map(Owned))
    }

    /// Makes a slab that got a free slot the hint if the shared path finds nothing at the hint. A hint
    /// with free slots stays: it may be whole and linger, and would then be forgotten.
    fn offer_hint(&self, slab: &Slab) {
        // `Relaxed`: it was set under this lock.
        // SAFETY: hints point to type-stable slabs.
        let hint = unsafe { self.hint.load(Ordering::Relaxed).as_ref() };
        if hint.is_none_or(|hint| hint.free() == 0) {
            self.set_hint(slab);
        }
    }

    /// Makes a slab the hint, unless the class list is closed: a closed class list has none, so nothing lingers in it.
    fn lead_to(&self, lists: &Lists, slab: &Slab) {
        if !lists.is_closed {
            self.set_hint(slab);
        }
    }

    fn set_hint(&self, slab: &Slab) {
        self.hint
            .store(ptr::from_ref(slab).cast_mut(), Ordering::Release);
    }

    /// Calls `f` on each listed slab (`true` for those in the cache).
    #[cfg(all(feature = "walker", not(loom)))]
    pub(crate) fn for_each_listed(&self, mut f: impl FnMut(&Slab, bool)) {
        self.with(|lists| {
            for (list, cached) in [(&lists.partial, false), (&lists.cached, true)] {
                let mut at = list.first();
                // SAFETY: the lock is held, and listed slabs are valid.
                while let Some(slab) = unsafe { at.as_ref() } {
                    f(slab, cached);
                    // SAFETY: as above.
                    at = unsafe { slab.link() }.next;
                }
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::class::ClassTable;
    use crate::slab::Body;

    /// Where to begin is the program's code (`Config::cpu`) and may use the heap. Catches a call of it under the class list's lock, which ends
    /// never.
    #[test]
    fn a_start_is_asked_for_without_the_lock() {
        let (table, key) = (ClassTable::build(&[64]), Key::new(0, 0));
        let (class_list, slab) = (ClassList::<spin::Mutex<()>>::new(), Slab::new());
        let body = Body {
            base: ptr::null_mut(),
            depot: ptr::null(),
            chunk: ptr::null_mut(),
            granules: 1,
        };
        // SAFETY: nobody else knows the slab.
        unsafe { slab.adopt(key, body) };
        let first = class_list.publish(Owned(&slab), table.class(0));
        let asked = core::cell::Cell::new(0);
        let start = || {
            asked.set(asked.get() + 1);
            class_list.lists.with(|_| 7)
        };
        let SlotTake::Taken(_, second) = class_list.take_slot(key, true, start) else {
            panic!("there are free slots");
        };
        assert_eq!((first, second, asked.get()), (1, 1 << 7, 1));
    }
}
