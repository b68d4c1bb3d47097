//! The end of a class list's epoch, and the beginning of its next.

#[cfg(not(loom))]
use super::ClassListCounts;
use super::lists::all_of;
use super::{After, ClassList, Keep};
use crate::class::Class;
use crate::sync::Ordering;
use core::ptr;

impl<R: lock_api::RawMutex> ClassList<R> {
    /// Takes one whole slab off the list, one that lingers. Says how many slabs were looked at.
    pub(crate) fn sweep<'s>(&self, class: &Class, scanned: &mut u64) -> Option<After<'s>> {
        *scanned = 0;
        self.with(|lists| {
            let mut at = lists.partial.first();
            // SAFETY: this class list's lock is held, and listed slabs are valid.
            while let Some(slab) = unsafe { at.as_ref() } {
                let all = all_of(slab, class);
                // SAFETY: as above.
                at = unsafe { slab.link() }.next;
                *scanned += 1;
                if slab.free_in_order() == all && slab.claim(all) {
                    // SAFETY: the claim made this context the owner.
                    return Some(unsafe { lists.end_life(slab, class, || Keep::Recycle) });
                }
            }
            None
        })
    }

    /// Closes the class list, or opens it. In a closed one nothing lingers: whoever empties a slab ends its life, and gets
    /// to recycle it. What is empty already is to be swept after this.
    ///
    /// A giver that lets its slab linger first gave (`SeqCst`) and then found the slab to be the hint
    /// (`SeqCst`); the closer first clears the hint (`SeqCst`) and then, in the sweep, reads the words
    /// (`SeqCst`). One of the two sees the other, so no slab lingers in a closed class list.
    pub(crate) fn set_closed(&self, is_closed: bool) {
        self.with(|lists| {
            lists.is_closed = is_closed;
            if is_closed {
                self.hint.store(ptr::null_mut(), Ordering::SeqCst);
            }
        });
    }

    /// Begins to serve another era, and to count anew: what was counted so far.
    #[cfg(not(loom))]
    pub(crate) fn begin_era(&self) -> ClassListCounts {
        self.with(|lists| {
            lists.is_closed = false;
            self.take_counts(lists)
        })
    }
}
