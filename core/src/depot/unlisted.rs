//! Slabs that no class list lists: those of scopes, which hold all their slots until they go. Nobody looks for a
//! slot in them, so a slab that becomes empty is on its way back, and its life ends without a lock. (A
//! taker with an outdated hint may get one by mistake. It gives it back, here.)

use super::lists::{After, Owned, retired};
use crate::class::Class;
use crate::handle::TaggedSlab;
use crate::slab::{Claim, DoubleFree, Given, Slab};

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
        Given::Strayed(word) => After::Strayed(slab, word),
    })
}

/// As `ClassList::retire`.
///
/// # Safety
/// As for [`give_unlisted`].
pub(crate) unsafe fn retire_unlisted<'s>(slab: &'s Slab, word: u64, class: &Class) -> After<'s> {
    // SAFETY: slabs of scopes are tagged.
    match unsafe { TaggedSlab::of(slab) }.retire(word, class.all) {
        // SAFETY: the claim made this context the owner.
        Claim::Won => unsafe { end(slab) },
        Claim::Lost => After::InUse,
        Claim::Strayed(word) => After::Strayed(slab, word),
    }
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
