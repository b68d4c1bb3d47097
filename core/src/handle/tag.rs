//! A slot's tag: one word that says whose turn the slot is, and who is looking.
//!
//! # States
//!
//! A tag has the fields of a handle. `id` is the slab's id; it and `generation` never go back, so no
//! word of a tag ever returns once a free changed it. `readers` stands where a handle has its slot.
//!
//! | state (version bits) | meaning | next |
//! |---|---|---|
//! | `00` free | no object; whoever holds the slot's bit may make one. Where the others have their readers it has its slot | live |
//! | `01` live | `class` is the handle's, so the word without `readers` is the handle without its slot | free (no readers), leaving |
//! | `10` leaving | freed; nobody new gets in. The one who freed it, or its last reader, ends it | free, orphaned |
//! | `11` orphaned | as leaving, and the scope that held the slot's bit is gone | free |
//!
//! The bit of a slot that is not free is held by its object, as ever. Whoever moves a tag to *free*
//! with a live or leaving word in hand holds the bit from then on and gives it back; for a slot of a
//! scope, which holds the bits of all its slots, only who ended an orphaned one does.
//!
//! # Orderings
//!
//! - `begin` is `Relaxed`: no look finds a free word, and the context that names an object here holds the slot's bit, so
//!   the owner's `publish` or a later give happened before.
//! - `name` is `Release`: what was written to the object and to the slab before it happens before a
//!   look that finds the name (`Acquire`).
//! - `pin` is `Acquire` for the same reason. `unpin` is `Release`, and every change that ends an
//!   object is `Acquire`: all that readers did happens before the end.
//! - `end`, `leave` and `finish` are also `Release`: the end happens before a look that finds the slot free or the tag
//!   changed. See the second look in `TaggedSlab::find`.
//!
//! Each retry loop goes round when somebody else changed the word in between: a reader came or went,
//! or the object ended, which ends the loop.

use super::bits::{Class, Generation, Id, Slot, Version};
use super::{HandleError, RawHandle};
use crate::sync::{AtomicU64, Ordering};

const FREE: u64 = 0b00;
const LIVE: u64 = Version::V1;
const LEAVING: u64 = 0b10;
const ORPHANED: u64 = 0b11;

/// In `class` of a word that is not live: the last generation was used.
const EXHAUSTED: u64 = Class::put(2);
/// In `class` of a leaving word: the object is not dropped by its last reader.
const FORGET: u64 = Class::put(1);

/// The tag of one slot. Its orderings, and what they pair with: see the head.
#[derive(Debug)]
pub(crate) struct SlotTag(AtomicU64);

/// The word of a free slot's tag: the slot's next handle, but for the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FreeWord(pub(crate) u64);

impl FreeWord {
    /// The next handle of the slot, if it is to be of this class.
    #[inline]
    pub(crate) fn with_class(self, class: usize) -> RawHandle {
        debug_assert!(Version::of(self.0) == FREE && Class::of(self.0) == 0);
        RawHandle(self.0 | Class::put(class as u64) | LIVE)
    }

    /// What is left when the object of this handle, which is not of the last generation, has ended.
    #[inline]
    pub(crate) const fn after(handle: RawHandle) -> Self {
        Self((handle.bits() & !(Class::MASK | Version::MASK)) + Generation::ONE)
    }
}

/// What ending an object came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is over: the slot's bit is the caller's.
    Now(Finished),
    /// Somebody is reading it: the last reader ends it.
    Later,
}

/// How an object's end left its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished {
    /// The last generation was used: the slot must not be handed out under this id again.
    pub(crate) is_exhausted: bool,
    /// The scope that held the slot's bit is gone.
    pub(crate) is_orphaned: bool,
}

/// What a reader left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpinned {
    /// An object that lives, or has other readers.
    InUse,
    /// An object that was freed meanwhile: the caller was its last reader, and ends it.
    Last {
        /// It is not to be dropped.
        forget: bool,
    },
}

/// What a scope's slot was when the scope went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abandoned {
    /// Free, or made so: the scope gives the bit back.
    Free {
        /// As [`Finished::is_exhausted`].
        is_exhausted: bool,
    },
    /// Read by somebody, who ends it and gives the bit back.
    Kept,
}

impl SlotTag {
    /// The tag of a slot that has no id yet.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Begins anew under a fresh id, as the tag of `slot`.
    pub(super) fn begin(&self, id: u32, slot: usize) {
        let free = Id::put(u64::from(id)) | Slot::put(slot as u64);
        self.0.store(free, Ordering::Relaxed);
    }

    /// The word of the tag of a free slot, whose bit the caller holds: stable for so long.
    #[inline]
    pub(crate) fn free_word(&self) -> FreeWord {
        FreeWord(self.0.load(Ordering::Relaxed))
    }

    /// Names the object in this slot, whose bit the caller holds.
    #[inline]
    pub(crate) fn name(&self, handle: RawHandle) {
        debug_assert!(self.free_word().with_class(handle.class()) == handle);
        self.0.store(handle.bits() & !Slot::MASK, Ordering::Release);
    }

    /// Whether the handle names what is in this slot now.
    #[inline]
    pub(crate) fn is_named(&self, handle: RawHandle) -> bool {
        names(self.0.load(Ordering::Acquire), handle)
    }

    /// As [`SlotTag::is_named`]. `Relaxed`: the first look, an `Acquire`, already synchronised.
    #[inline]
    pub(crate) fn is_still_named(&self, handle: RawHandle) -> bool {
        names(self.0.load(Ordering::Relaxed), handle)
    }

    /// Ends the object that the handle, which is not of the last generation, names: without dropping it,
    /// if nobody reads it. `false` if it is not so easy.
    #[inline]
    pub(crate) fn end_at_once(&self, handle: RawHandle) -> bool {
        // The handle itself says what the tag is then.
        let live = handle.bits() & !Slot::MASK;
        self.change(live, FreeWord::after(handle).0).is_ok()
    }

    /// Ends the object that the handle names, without dropping it. `last` is the last generation.
    pub(crate) fn end(&self, handle: RawHandle, last: u32) -> Result<Ended, HandleError> {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            if !names(seen, handle) {
                return Err(why_not(seen, handle));
            }
            let is_read = Slot::of(seen) > 0;
            let next = if is_read {
                leaving(seen) | FORGET
            } else {
                freed(seen, last, handle.slot())
            };
            match self.change(seen, next) {
                Ok(_) if is_read => return Ok(Ended::Later),
                Ok(_) => return Ok(Ended::Now(finished(seen, last))),
                Err(now) => seen = now,
            }
        }
    }

    /// Frees the object that the handle names, so that it is dropped: by the caller, who then calls
    /// [`SlotTag::finish`], if the answer is `true`, else by its last reader.
    pub(crate) fn leave(&self, handle: RawHandle) -> Result<bool, HandleError> {
        self.leave_if(handle, |_| true)
    }

    /// As [`SlotTag::leave`], if nobody reads the object.
    pub(crate) fn leave_unread(&self, handle: RawHandle) -> Result<(), HandleError> {
        self.leave_if(handle, |readers| readers == 0).map(|_| ())
    }

    fn leave_if(&self, handle: RawHandle, may: impl Fn(u64) -> bool) -> Result<bool, HandleError> {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            if !names(seen, handle) {
                return Err(why_not(seen, handle));
            }
            let readers = Slot::of(seen);
            if !may(readers) {
                return Err(HandleError::InUse);
            }
            match self.change(seen, leaving(seen)) {
                Ok(_) => return Ok(readers == 0),
                Err(now) => seen = now,
            }
        }
    }

    /// Ends a leaving object that nobody reads and that the caller has dropped.
    pub(crate) fn finish(&self, slot: usize, last: u32) -> Finished {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            debug_assert!(Version::of(seen) & LEAVING != 0 && Slot::of(seen) == 0);
            // All that can come in between is that the slot is orphaned.
            match self.change(seen, freed(seen, last, slot)) {
                Ok(_) => return finished(seen, last),
                Err(now) => seen = now,
            }
        }
    }

    /// Keeps the object that the handle names from ending.
    pub(crate) fn pin(&self, handle: RawHandle) -> Result<(), HandleError> {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            if !names(seen, handle) {
                return Err(why_not(seen, handle));
            }
            if Slot::of(seen) == Slot::MAX {
                return Err(HandleError::InUse);
            }
            match self.change(seen, seen + Slot::ONE) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Takes a pin back.
    pub(crate) fn unpin(&self) -> Unpinned {
        let old = self.0.fetch_sub(Slot::ONE, Ordering::AcqRel);
        if Slot::of(old) == 1 && Version::of(old) != LIVE {
            return Unpinned::Last {
                forget: old & FORGET != 0,
            };
        }
        Unpinned::InUse
    }

    /// Ends what is in a slot of a scope that goes, or leaves that to those who read it.
    pub(crate) fn abandon(&self, slot: usize, last: u32) -> Abandoned {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let next = match Version::of(seen) {
                FREE => {
                    // It was ended behind this scope's back: its end, too, is before what follows.
                    let seen = self.0.load(Ordering::Acquire);
                    return Abandoned::Free {
                        is_exhausted: seen & EXHAUSTED != 0,
                    };
                }
                LIVE if Slot::of(seen) == 0 => freed(seen, last, slot),
                LIVE => leaving(seen) | FORGET | ORPHANED,
                _ => seen | ORPHANED,
            };
            match self.change(seen, next) {
                Ok(_) if Version::of(next) == FREE => {
                    return Abandoned::Free {
                        is_exhausted: next & EXHAUSTED != 0,
                    };
                }
                Ok(_) => return Abandoned::Kept,
                Err(now) => seen = now,
            }
        }
    }

    /// Whether an object is in the slot that was not ended.
    #[cfg(any(feature = "walker", all(test, loom)))]
    pub(crate) fn is_taken(&self) -> bool {
        Version::of(self.0.load(Ordering::Relaxed)) != FREE
    }

    /// Why a look found another word than the handle's.
    #[cold]
    pub(crate) fn why_not(&self, handle: RawHandle) -> HandleError {
        why_not(self.0.load(Ordering::Relaxed), handle)
    }

    #[inline]
    fn change(&self, old: u64, new: u64) -> Result<u64, u64> {
        self.0
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
    }
}

/// Whether a tag is the handle, but for the slot. The handle's version must be checked before: it is
/// what tells that the tag is live.
#[inline]
const fn names(tag: u64, handle: RawHandle) -> bool {
    (tag ^ handle.bits()) & !Slot::MASK == 0
}

#[cold]
const fn why_not(tag: u64, handle: RawHandle) -> HandleError {
    if names(tag, handle) {
        // It was not there when it was looked for, and is now: made meanwhile.
        return HandleError::Foreign;
    }
    let handle = handle.bits();
    let is_now = (tag ^ handle) & (Id::MASK | Generation::MASK) == 0;
    if is_now && Version::of(tag) == LIVE {
        return HandleError::WrongClass;
    }
    // A generation that is still to come, or comes next, was given to nobody.
    let is_ahead = Id::of(tag) == Id::of(handle) && Generation::of(tag) < Generation::of(handle);
    if is_ahead || (is_now && Version::of(tag) == FREE && tag & EXHAUSTED == 0) {
        return HandleError::Foreign;
    }
    HandleError::Stale
}

const fn leaving(live: u64) -> u64 {
    live & !(Class::MASK | Version::MASK) | LEAVING
}

/// The word of a slot whose object, of the word `old`, ended.
#[inline]
const fn freed(old: u64, last: u32, slot: usize) -> u64 {
    let ended = old & (Id::MASK | Generation::MASK) | Slot::put(slot as u64);
    if Generation::of(old) >= last as u64 {
        ended | EXHAUSTED
    } else {
        ended + Generation::ONE
    }
}

#[inline]
const fn finished(old: u64, last: u32) -> Finished {
    Finished {
        is_exhausted: Generation::of(old) >= last as u64,
        is_orphaned: Version::of(old) == ORPHANED,
    }
}
