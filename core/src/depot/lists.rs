//! What a class list's lock guards, and what is done under it when a word has come back.

use super::list::List;
use super::spread::Window;
use crate::class::Class;
use crate::handle::TaggedSlab;
use crate::slab::{Given, Identity, Slab};

/// What is counted under the class list's lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ListCounts {
    /// Visits by those who wanted slots.
    pub(crate) visits: u64,
    /// Words that locals took.
    pub(crate) taken: u64,
    /// Slabs that came back into use from the cache.
    pub(crate) from_cache: u64,
    /// Emptied slabs that went into the cache.
    pub(crate) cached: u64,
    /// Emptied slabs that the cache had no room for.
    pub(crate) overflowed: u64,
    /// Slabs that were listed: they are new in use, or a slot of a used up one became free.
    pub(crate) listed: u64,
}

impl ListCounts {
    pub(crate) const NONE: Self = Self {
        visits: 0,
        taken: 0,
        from_cache: 0,
        cached: 0,
        overflowed: 0,
        listed: 0,
    };
}

/// A slab that the caller owns: it holds every slot, and the slab is in no list.
#[derive(Debug)]
#[must_use = "an owned slab that is dropped is lost"]
pub(crate) struct Owned<'s>(pub(crate) &'s Slab);

/// Whether an emptied slab stays in its class list's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It stays.
    Cached,
    /// It goes back to the pages.
    Recycle,
}

/// What became of a slab after a give back.
#[derive(Debug)]
pub(crate) enum After<'s> {
    /// Other slots of it are held.
    InUse,
    /// It is in the class list's cache.
    Cached,
    /// The caller owns it.
    Recycle(Owned<'s>),
    /// It serves another purpose by now; the caller holds these slots of it and gives them back.
    Strayed(&'s Slab, u64),
    /// Its identities are used up: the caller owns it, and its metadata must never be used again.
    Retire(Owned<'s>),
}

#[derive(Debug)]
pub(super) struct Lists {
    /// Slabs that may have free slots.
    pub(super) partial: List,
    /// Whole slabs that the class list owns.
    pub(super) cached: List,
    /// The epoch is closed: nothing lingers, and nothing is cached.
    pub(super) is_closed: bool,
    /// Slots of this class list's slabs that are out of use.
    pub(super) retired: u32,
    pub(super) window: Window,
    pub(super) counts: ListCounts,
}

impl Lists {
    pub(super) const fn new() -> Self {
        Self {
            partial: List::new(),
            cached: List::new(),
            is_closed: false,
            retired: 0,
            window: Window::new(),
            counts: ListCounts::NONE,
        }
    }

    /// Does under the lock what a give calls for.
    ///
    /// # Safety
    /// `given` is what a give of `slab`, which was of this class list then, came back with.
    pub(super) unsafe fn follow<'s>(
        &mut self,
        slab: &'s Slab,
        given: Given,
        class: &Class,
        keep: impl FnOnce() -> Keep,
    ) -> After<'s> {
        match given {
            Given::More => After::InUse,
            Given::Strayed(word) => After::Strayed(slab, word),
            Given::WasFull(identity) => {
                // SAFETY: passed on.
                unsafe { self.list(slab, identity) };
                // While this giver was on its way another may have let the slab linger, and a close
                // may have swept before it was listed: then it is this giver's to end.
                let is_ours = slab.identity() == identity;
                let all = all_of(slab, class);
                if self.is_closed && is_ours && slab.free_in_order() == all && slab.claim(all) {
                    // SAFETY: the claim made the caller the owner.
                    return unsafe { self.end_life(slab, class, keep) };
                }
                After::InUse
            }
            // SAFETY: the claim made the caller the owner.
            Given::Claimed => unsafe { self.end_life(slab, class, keep) },
        }
    }

    /// Lists a slab that got its first free slot, if it still lives the life that the giver saw.
    ///
    /// # Safety
    /// The slab was of this class list when it had that identity.
    unsafe fn list(&mut self, slab: &Slab, identity: Identity) {
        // The identity is checked before the link: the link of a slab of another class list is not ours to
        // read.
        if slab.identity() != identity || slab.free() == 0 {
            return;
        }
        // SAFETY: this class list's lock is held, and a slab of this identity belongs to this class list until its
        // life ends under this lock.
        unsafe {
            if !List::contains_any(slab) {
                self.push(slab);
            }
        }
    }

    /// Lists a slab as one that may have free slots.
    ///
    /// # Safety
    /// As for [`List::push`].
    pub(super) unsafe fn push(&mut self, slab: &Slab) {
        self.counts.listed += 1;
        // SAFETY: the caller's promise.
        unsafe { self.partial.push(slab) };
    }

    /// Ends the life of an emptied slab.
    ///
    /// # Safety
    /// The caller owns `slab`, which is of this class list.
    pub(super) unsafe fn end_life<'s>(
        &mut self,
        slab: &'s Slab,
        class: &Class,
        keep: impl FnOnce() -> Keep,
    ) -> After<'s> {
        // SAFETY: this class list's lock is held and the caller owns the slab; if it is listed, it is in
        // `partial`, because a slab in the cache is owned by the class list and not by the caller.
        unsafe {
            if List::contains_any(slab) {
                self.partial.remove(slab);
            }
            if !slab.end_life() {
                return After::Retire(Owned(slab));
            }
            // A slab with retired slots is to get new tags before it is used again.
            if all_of(slab, class) != class.all {
                return After::Recycle(Owned(slab));
            }
            // No epoch comes after it that takes over what it left.
            let kept = if self.is_closed {
                Keep::Recycle
            } else {
                keep()
            };
            match kept {
                Keep::Cached => {
                    self.counts.cached += 1;
                    self.cached.push(slab);
                    After::Cached
                }
                Keep::Recycle => {
                    // What a closed epoch gives back is not for want of room.
                    self.counts.overflowed += u64::from(!self.is_closed);
                    After::Recycle(Owned(slab))
                }
            }
        }
    }
}

/// The slots of a slab that are out of use.
#[inline]
pub(crate) fn retired(slab: &Slab, class: &Class) -> u64 {
    if !class.is_tagged {
        return 0;
    }
    // SAFETY: slabs of a tagged class are tagged.
    unsafe { TaggedSlab::of(slab) }.retired()
}

/// The slots of a slab that are in use.
pub(super) fn all_of(slab: &Slab, class: &Class) -> u64 {
    class.all & !retired(slab, class)
}
