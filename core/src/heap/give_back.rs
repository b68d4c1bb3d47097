//! The end of a slab: slots come back, and what becomes empty by that leaves.
//!
//! ```text
//! Heap::free ───────────────────────────> give_back ────────┐
//! Local: spills, flush ─> give_back_held, give_back_all ────┤
//! handles: put_ended ┬─> put_slot ──────> give_back ────────┼─> After ─> follow_up ┬ InUse, Cached: nothing
//!                    └─> ClassList::retire ─────────────────┤                      ├ Strayed ─> give_back_stray ─> give_back
//! scopes: put_orphan ─> give_unlisted, retire_unlisted ─────┘                      └ Recycle, Retire ─> return_run, settle_depot
//! ```
//!
//! A class list decides under its lock whether an emptied slab stays (`After::Cached`) or leaves, and returns what is left to do as
//! data. [`Heap::follow_up`] is the one place that does it, with no lock held.

use super::Heap;
use crate::class::{Class, Purpose};
use crate::config::{Config, Table};
use crate::depot::{self, After, ClassList, Owned};
use crate::error::FreeError;
use crate::handle::{Finished, RawHandle, TaggedSlab};
use crate::pages::{Entry, set_entries};
use crate::slab::{DoubleFree, Slab};

impl<C: Config> Heap<C> {
    /// Gives a word back, and deals with a slab that became empty. `retired` as for [`ClassList::give_back`].
    ///
    /// # Safety
    /// The caller holds a slot of `word`; `class_list` and `class` are the slab's.
    #[inline]
    pub(crate) unsafe fn give_back(
        &self,
        class_list: &ClassList<C::Lock>,
        slab: &Slab,
        word: u64,
        class: &Class,
        retired: impl FnOnce() -> u64,
    ) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        let after = unsafe {
            let keep = || self.keep(class.slab_bytes());
            class_list.give_back(slab, word, class, retired, || self.may_linger(), keep)
        };
        self.follow_up(after, class.slab_bytes())
    }

    /// Gives a word back that an epoch cache held, which is mostly a whole slab when the epoch cache is given up.
    ///
    /// # Safety
    /// As for [`Heap::give_back`].
    pub(crate) unsafe fn give_back_held(
        &self,
        class_list: &ClassList<C::Lock>,
        slab: &Slab,
        word: u64,
        class: &Class,
    ) {
        class_list.count_given(1);
        // SAFETY: the caller's promise.
        let after = unsafe {
            let keep = || self.keep(class.slab_bytes());
            class_list.give_held(slab, word, class, keep)
        };
        let _counted = self.follow_up(after, class.slab_bytes());
    }

    /// Gives many words back at once that an epoch cache held.
    ///
    /// # Safety
    /// For each as for [`Heap::give_back`].
    pub(crate) unsafe fn give_back_all<'s>(
        &self,
        class_list: &ClassList<C::Lock>,
        held: impl Iterator<Item = (&'s Slab, u64)>,
        class: &Class,
    ) {
        let (mut left, mut closed) = (0, false);
        let mut words = 0;
        let held = held.inspect(|_| words += 1);
        // SAFETY: the caller's promise.
        let doubles = unsafe {
            let keep = || self.keep(class.slab_bytes());
            class_list.give_back_all(held, class, keep, |after| match after {
                After::InUse | After::Cached => {}
                After::Strayed(slab, word) => self.give_back_stray(slab, word),
                after => {
                    closed = self.return_run(after);
                    left += class.slab_bytes();
                }
            })
        };
        class_list.count_given(words);
        if doubles > 0 {
            self.note_double_free(u64::from(doubles));
        }
        if left > 0 {
            self.settle_depot(closed, left);
        }
    }

    /// Gives the slot that a handle names, and whose bit the caller holds, back.
    #[inline]
    pub(crate) fn put_slot(&self, tagged: &TaggedSlab, handle: RawHandle) {
        let slab = tagged.slab();
        // SAFETY: whoever ends an object holds its slot.
        unsafe { self.wipe_tagged(tagged, handle) };
        // SAFETY: whoever ends an object holds its bit, so the slab is pinned; depots stay valid; class list and
        // class are the slab's.
        let _given = unsafe {
            let depot = slab.body().depot_of::<C::Lock>();
            let class = usize::from(slab.identity().key().class());
            let shape = Table::<C>::TABLE.class(class);
            let bit = 1 << handle.slot();
            self.give_back(depot.class_list(class), slab, bit, shape, || {
                tagged.retired()
            })
        };
    }

    /// Gives the slot of an object that was ended back.
    pub(crate) fn put_ended(&self, tagged: &TaggedSlab, handle: RawHandle, finished: Finished) {
        let (slab, bit) = (tagged.slab(), 1 << handle.slot());
        if Self::is_scoped(handle) {
            if finished.is_orphaned {
                // SAFETY: whoever ends an orphaned object holds its slot. What is not orphaned its scope overwrites.
                unsafe { self.wipe_tagged(tagged, handle) };
                self.put_orphan(tagged, bit, finished.is_exhausted);
            }
            return;
        }
        if !finished.is_exhausted {
            return self.put_slot(tagged, handle);
        }
        // SAFETY: whoever ends an object holds its slot.
        unsafe { self.wipe_tagged(tagged, handle) };
        // SAFETY: whoever ends an object holds its bit, so the slab is pinned; depots stay valid.
        let depot = unsafe { slab.body().depot_of::<C::Lock>() };
        let class = usize::from(slab.identity().key().class());
        let (class_list, shape) = (depot.class_list(class), Table::<C>::TABLE.class(class));
        depot.count_slots(-1);
        class_list.count_retired(1);
        // SAFETY: as above; class list and class are the slab's.
        let after =
            unsafe { class_list.retire(slab, bit, shape, || self.keep(shape.slab_bytes())) };
        let _never = self.follow_up(Ok(after), shape.slab_bytes());
    }

    /// Gives slots of a scope's slab back whose scope is gone.
    #[cold]
    pub(crate) fn put_orphan(&self, tagged: &TaggedSlab, word: u64, are_exhausted: bool) {
        let slab = tagged.slab();
        let class = usize::from(slab.identity().key().class());
        let shape = Table::<C>::TABLE.class(class);
        // SAFETY: the caller holds the slots, and a scope's slab is never listed.
        let after = unsafe {
            if are_exhausted {
                Ok(depot::retire_unlisted(slab, word, shape))
            } else {
                depot::give_unlisted(slab, word, shape)
            }
        };
        let _counted = self.follow_up(after, shape.slab_bytes());
    }

    /// Does what a give back left to do: slots of another life go on to where they belong, and the run of a slab that left goes
    /// back to the pages. The error is counted here.
    #[inline]
    fn follow_up(
        &self,
        given: Result<After<'_>, DoubleFree>,
        bytes: usize,
    ) -> Result<(), FreeError> {
        match given {
            Ok(After::InUse | After::Cached) => Ok(()),
            Ok(After::Strayed(slab, word)) => {
                // SAFETY: the give left this context holding the word.
                unsafe { self.give_back_stray(slab, word) };
                Ok(())
            }
            Ok(after) => {
                let is_closed = self.return_run(after);
                self.settle_depot(is_closed, bytes);
                Ok(())
            }
            Err(double) => {
                self.note_double_free(u64::from(double.0.count_ones()));
                Err(FreeError::DoubleFree)
            }
        }
    }

    /// Gives slots back that were taken from a slab that had been recycled.
    ///
    /// # Safety
    /// The caller holds them.
    #[cold]
    pub(super) unsafe fn give_back_stray(&self, slab: &Slab, bit: u64) {
        // The slots pin the slab, so what it is now stays true until they are given.
        let class = usize::from(slab.identity().key().class());
        if Table::<C>::TABLE.purpose(class) == Purpose::Scoped {
            // No class list has it.
            // SAFETY: a scope's slabs are tagged.
            return self.put_orphan(unsafe { TaggedSlab::of(slab) }, bit, false);
        }
        // SAFETY: pinned; a slab's depot is valid for as long as the heap.
        let depot = unsafe { slab.body().depot_of::<C::Lock>() };
        // SAFETY: the caller holds the bit, and the class list and class are the slab's.
        let _held = unsafe {
            let (class_list, shape) = (depot.class_list(class), Table::<C>::TABLE.class(class));
            self.give_back(class_list, slab, bit, shape, || depot::retired(slab, shape))
        };
    }

    /// Gives an owned slab's run back to the pages, and its metadata unless it is used up. Tells whether
    /// the slab's epoch is closed.
    pub(super) fn return_run(&self, after: After<'_>) -> bool {
        let (slab, is_reusable) = match after {
            After::Recycle(Owned(slab)) => (slab, true),
            After::Retire(Owned(slab)) => (slab, false),
            After::InUse | After::Cached | After::Strayed(..) => return false,
        };
        // SAFETY: the slab is owned, by its type, so its body is stable, its run is in nobody's
        // use, and both may go back.
        unsafe {
            let body = slab.body();
            let (base, granules) = (body.base.addr(), body.granules);
            let depot = body.depot_of::<C::Lock>();
            let class = usize::from(slab.identity().key().class());
            let shape = Table::<C>::TABLE.class(class);
            let (mut slots, mut is_ready) = (shape.slots(), true);
            if shape.is_tagged {
                let tagged = TaggedSlab::of(slab);
                if tagged.retired() != 0 {
                    let retired = tagged.retired().count_ones();
                    slots -= retired as usize;
                    if Self::counts(class) {
                        depot
                            .class_list(class)
                            .count_retired(-retired.cast_signed());
                    }
                    tagged.forget_id();
                    is_ready = false;
                }
            }
            if Self::counts(class) {
                depot.count_slots(-(slots as isize));
            }
            self.count_slab(depot, class, false);
            let metadata = is_reusable.then_some((slab, self.meta_of(depot, shape, is_ready)));
            let chunk = body.chunk.cast();
            set_entries::<C::Provider>(chunk, base, shape.named_granules(), Entry::NONE);
            let is_closed = !depot.tag().is_open();
            self.pages
                .put_slab(depot.blocks(), metadata, chunk, base, granules);
            is_closed
        }
    }
}
