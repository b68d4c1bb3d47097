//! A lock that masks interrupts: what an embedder whose interrupt handlers allocate brings.
//!
//! The word is 0 when free, 1 when held, 2 when held by one that had interrupts on. `Acquire` when it is taken, `Release`
//! when it is freed. An interrupt cannot come while it is held on this CPU, so a handler never waits for
//! what it interrupted.

use core::sync::atomic::{AtomicU32, Ordering};
use lock_api::{GuardNoSend, RawMutex};
use x86_64::instructions::interrupts;

/// A spin lock with interrupts masked.
#[derive(Debug)]
pub(crate) struct IrqLock(AtomicU32);

const FREE: u32 = 0;
const HELD: u32 = 1;
const HELD_AND_WAS_ON: u32 = 2;

// SAFETY: the word goes from free to held by one compare-and-swap, so one context has it.
unsafe impl RawMutex for IrqLock {
    const INIT: Self = Self(AtomicU32::new(FREE));
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            while self.0.load(Ordering::Relaxed) != FREE {
                core::hint::spin_loop();
            }
        }
    }

    fn try_lock(&self) -> bool {
        let were_on = interrupts::are_enabled();
        // Before the lock is taken: a handler that came in between would wait for ever.
        interrupts::disable();
        let held = if were_on { HELD_AND_WAS_ON } else { HELD };
        let taken = self
            .0
            .compare_exchange(FREE, held, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if !taken && were_on {
            interrupts::enable();
        }
        taken
    }

    unsafe fn unlock(&self) {
        // Only the holder changes it.
        let held = self.0.swap(FREE, Ordering::Release);
        if held == HELD_AND_WAS_ON {
            interrupts::enable();
        }
    }
}
