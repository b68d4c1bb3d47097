//! Forks. A child has the memory of its parent and one thread of it: what the others were doing stays
//! half done. So before a fork all the heap's locks are taken, which waits until nobody is inside, and
//! after it they are freed in both. The provider has none.
//!
//! What the threads that are not in the child held is lost to it: their locals, within the bound of
//! `Local::holding_bound`, and the slots that were on their way at the time.

use super::HEAP;
use core::sync::atomic::{AtomicBool, Ordering};

/// Has forks of this process prepared from now on.
pub(super) fn prepare_once() {
    /// `Relaxed`: whoever sets it does the work, and nobody waits for it. A fork before the first thread
    /// has its local finds a heap that nobody is inside.
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    // SAFETY: the three are functions, and do what the C library wants them for. If there is no memory for
    // them forks go unprepared, as they do under most allocators.
    unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
}

extern "C" fn before() {
    HEAP.pause();
}

/// In the parent and in the child.
extern "C" fn after() {
    // SAFETY: the C library calls `before` first, in this thread or in the one that this is a copy of.
    unsafe { HEAP.go_on() };
}
