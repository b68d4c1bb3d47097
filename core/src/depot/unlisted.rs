//! Slabs that no bin lists: those of scopes, which hold all their slots until they go. There is no
//! next taker, so a slab that becomes empty is on its way back, and its life ends without a lock.

use super::lists::{After, Owned, retired};
use crate::class::Class;
use crate::handle::TaggedSlab;
use crate::slab::{DoubleFree, Given, Slab};

/// Gives slots of an unlisted slab back.
///
/// # Safety
/// The caller holds `word`, which is not 0; `slab` is of class `class`, and never was in a list in
/// this life.
pub(crate) unsafe fn give_unlisted<'s>(
    slab: &'s Slab,
    word: u64,
    class: &Class,
) -> Result<After<'s>, DoubleFree> {
    // SAFETY: the caller holds the word.
    let given = unsafe { slab.give(word, class.all, || retired(slab, class), |_| true) }?;
    Ok(match given {
        // SAFETY: the claim made this context the owner.
        Given::Claimed => unsafe { end(slab) },
        Given::More | Given::WasFull(_) => After::InUse,
    })
}

/// As `Bin::retire`.
///
/// # Safety
/// As for [`give_unlisted`].
pub(crate) unsafe fn retire_unlisted<'s>(slab: &'s Slab, word: u64, class: &Class) -> After<'s> {
    // SAFETY: slabs of scopes are tagged.
    let retired = unsafe { TaggedSlab::of(slab) }.retire(word);
    let all = class.all & !retired;
    if all == 0 || (slab.free_settled() == all && slab.claim(all)) {
        // SAFETY: as above.
        return unsafe { end(slab) };
    }
    After::InUse
}

/// # Safety
/// The caller owns the slab, which is in no list.
unsafe fn end<'s>(slab: &'s Slab) -> After<'s> {
    // SAFETY: the caller's promise; nobody lists the slab, so no lock guards its identity.
    if unsafe { slab.end_life() } {
        After::Recycle(Owned(slab))
    } else {
        After::Retire(Owned(slab))
    }
}
