//! A lock for heaps that signal handlers use.
//!
//! A handler that runs in the middle of a section would wait for the very thread that it interrupted. So a thread's
//! signals are held back while it has such a lock, and come when it has none any more.
//!
//! Locks may be freed in another order than they were taken in, so the thread counts how many it has; the count and
//! the mask from before the first are its own. Nothing interrupts it while it changes them: the signals are held back
//! before the first of them is written, and let through after the last. The child of a fork has its parent's, as it
//! has the locks.
//!
//! Two system calls for each section are its price, so it is for those who need it.

use crate::lock::FutexLock;
use crate::sys::{self, Signals};
use core::cell::Cell;
use temporal_slab::lock_api::{GuardNoSend, RawMutex};

/// A lock for threads whose signal handlers use the heap, too: by the shared path, for the local may be in use where
/// the signal came.
///
/// Signals that a thread brings upon itself (`SIGSEGV` and its like) are not held back. In a library that is loaded
/// while the program runs, a thread is to use the heap once before its handlers do: the first look at a thread's
/// variables there may allocate.
#[derive(Debug)]
pub struct SignalLock(FutexLock);

std::thread_local! {
    /// How many such locks this thread has.
    static HELD: Cell<usize> = const { Cell::new(0) };
    /// What was held back before the first.
    static BEFORE: Cell<Option<Signals>> = const { Cell::new(None) };
}

/// This thread has one lock more. Its signals are held back, and were before if `before` is none.
fn note(before: Option<Signals>) {
    if HELD.get() == 0 {
        BEFORE.set(before);
    }
    HELD.set(HELD.get() + 1);
}

/// This thread has one lock less.
fn forget() {
    let held = HELD.get() - 1;
    HELD.set(held);
    if held == 0
        && let Some(before) = BEFORE.take()
    {
        sys::set_signals(&before);
    }
}

/// Holds signals back, unless a lock of this thread does already.
fn hold_back() -> Option<Signals> {
    // A handler between the look and the call has no lock any more when it is over.
    (HELD.get() == 0).then(sys::hold_signals)
}

// SAFETY: as for the lock inside.
unsafe impl RawMutex for SignalLock {
    const INIT: Self = Self(FutexLock::INIT);
    /// The thread that took it has the signals to let through.
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        note(hold_back());
        self.0.lock();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        note(hold_back());
        let is_ours = self.0.try_lock();
        if !is_ours {
            forget();
        }
        is_ours
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the caller has it.
        unsafe { self.0.unlock() };
        forget();
    }
}
