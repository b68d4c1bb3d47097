//! All locks at once, for a process that is about to be copied.
//!
//! A fork copies memory as it is and one thread. What another thread was in the middle of under a lock
//! would stay half done in the copy, and the lock taken. So whoever forks first takes all locks, in the
//! order in which they are ever taken inside one another: the ring's, then the others, none of which is
//! ever taken inside another of them.
//!
//! What a thread does without a lock is whole at every step. What the threads that are not in the copy
//! hold is lost to the copy: their locals, within the bound of [`Local::holding_bound`], the slots, pages and
//! regions that were on their way, the epochs that they had open, and the position that each was about to open or to pin.
//!
//! [`Local::holding_bound`]: crate::Local::holding_bound

use super::Heap;
use crate::config::Config;
use crate::depot::EpochDepot;

impl<C: Config> Heap<C> {
    /// Waits until nobody is inside any of the heap's locks, and keeps everybody out.
    ///
    /// # Safety
    /// The caller calls [`Heap::after_fork`] next of all methods of this heap, and so does a copy of it.
    pub unsafe fn before_fork(&self) {
        self.books.hold();
        self.locals.hold();
        self.blocks.hold();
        // The ring's lock keeps depots from being added.
        for (_, class_list) in self.depots().flat_map(EpochDepot::class_lists) {
            class_list.hold();
        }
        self.pages.hold();
    }

    /// Ends a pause, in the process that made it or in its copy.
    ///
    /// # Safety
    /// This context called [`Heap::before_fork`], or is a copy of one that did, and did not call this since.
    pub unsafe fn after_fork(&self) {
        // SAFETY: the caller's promise; the depots are those of the pause, for nobody could add one.
        unsafe {
            self.pages.let_go();
            for (_, class_list) in self.depots().flat_map(EpochDepot::class_lists) {
                class_list.let_go();
            }
            self.blocks.let_go();
            self.locals.let_go();
            self.books.let_go();
        }
    }
}
