//! A lock that spins for a moment and then sleeps.
//!
//! The word is 0 when free, 1 when held, 2 when held and somebody may sleep. `lock` takes it with
//! `Acquire`, `unlock` frees it with `Release`: each holder is behind the one before. Whoever cannot have
//! it says 2 before going to sleep, and takes it as 2, since others may sleep still; so an unlock that
//! finds 2 wakes one, and at worst wakes one too many.

use crate::sys;
use core::sync::atomic::{AtomicU32, Ordering};
use temporal_slab::lock_api::{GuardSend, RawMutex};

/// A lock for threads: sections under it are short, so it spins first.
///
/// It does not know who holds it, so a child may free what its parent held when it forked.
#[derive(Debug)]
pub struct FutexLock(AtomicU32);

const FREE: u32 = 0;
const HELD: u32 = 1;
const AWAITED: u32 = 2;

/// Looks before sleeping: about as long as a section lasts.
const LOOKS: u32 = 100;

// SAFETY: the word goes from free to held by one compare-and-swap or swap, so one context has it.
unsafe impl RawMutex for FutexLock {
    const INIT: Self = Self(AtomicU32::new(FREE));
    type GuardMarker = GuardSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.lock_slow();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.try_take(HELD)
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.0.swap(FREE, Ordering::Release) == AWAITED {
            sys::wake_one(&self.0);
        }
    }
}

impl FutexLock {
    #[inline]
    fn try_take(&self, mine: u32) -> bool {
        self.0
            .compare_exchange(FREE, mine, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    fn lock_slow(&self) {
        let mut mine = HELD;
        loop {
            // After a sleep, too: who says `AWAITED` at once and sleeps again costs the other a wake at each unlock, while its
            // sections are a hundredth of that.
            for _ in 0..LOOKS {
                if self.0.load(Ordering::Relaxed) == FREE && self.try_take(mine) {
                    return;
                }
                core::hint::spin_loop();
            }
            if self.0.swap(AWAITED, Ordering::Acquire) == FREE {
                return;
            }
            sys::wait(&self.0, AWAITED);
            mine = AWAITED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::UnsafeCell;

    struct Counter(FutexLock, UnsafeCell<u64>);
    // SAFETY: the count is only touched under the lock.
    unsafe impl Sync for Counter {}

    /// Catches a lock that two have at once (the count is short) and one that loses a wake (it hangs).
    #[test]
    fn one_at_a_time_and_nobody_sleeps_for_ever() {
        let counter = Counter(FutexLock::INIT, UnsafeCell::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let counter = &counter;
                scope.spawn(move || {
                    for round in 0..20_000 {
                        counter.0.lock();
                        // SAFETY: the lock is held.
                        unsafe {
                            *counter.1.get() += 1;
                            if round % 64 == 0 {
                                std::thread::yield_now();
                            }
                            counter.0.unlock();
                        }
                    }
                });
            }
        });
        assert_eq!(counter.1.into_inner(), 160_000);
        assert!(counter.0.try_lock());
        assert!(!counter.0.try_lock());
    }
}
