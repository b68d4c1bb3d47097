//! What the tests share that look up addresses of others: published addresses, and a lock under which what was read goes
//! stale.

use super::Rng;
use core::cell::Cell;
use core::num::NonZeroUsize;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr};
use temporal_slab::lock_api::{GuardSend, RawMutex};

const PLACES: usize = 64;

/// Published addresses. `Relaxed`: a safe program need not order its lookups with the frees.
#[derive(Debug)]
pub struct Board([AtomicPtr<u8>; PLACES]);

impl Board {
    /// Nothing is published yet.
    #[allow(clippy::new_without_default, reason = "it is used in a static")]
    pub const fn new() -> Self {
        Self([const { AtomicPtr::new(ptr::null_mut()) }; PLACES])
    }

    /// Publishes an object.
    pub fn show(&self, rng: &mut Rng, object: *const u8) {
        self.0[rng.below(PLACES)].store(object.cast_mut(), Relaxed);
    }

    /// Returns a published address, or one around it, or one outside of every heap.
    pub fn any(&self, rng: &mut Rng, chunk: usize) -> NonNull<u8> {
        let Some(shown) = NonNull::new(self.0[rng.below(PLACES)].load(Relaxed)) else {
            return nowhere(rng);
        };
        let (at, near) = (shown.addr().get(), 16 * rng.below(4096));
        let address = match rng.below(12) {
            0..4 => at,
            4 => at.wrapping_add(8),
            5 => at.wrapping_add(near),
            6 => at.wrapping_sub(near),
            7 => at.wrapping_add(chunk),
            8 => at.wrapping_sub(chunk),
            9 => (at & !(chunk - 1)) + rng.below(4096),
            10 => at | (chunk - 1),
            _ => return nowhere(rng),
        };
        to(shown, address)
    }

    /// Returns an address where no object begins: objects begin at multiples of 16.
    pub fn no_begin(&self, rng: &mut Rng, chunk: usize) -> NonNull<u8> {
        let any = self.any(rng, chunk);
        to(any, any.addr().get() & !15 | 8)
    }
}

fn to(shown: NonNull<u8>, address: usize) -> NonNull<u8> {
    shown.map_addr(|at| NonZeroUsize::new(address).unwrap_or(at))
}

/// Returns an address outside of every heap.
fn nowhere(rng: &mut Rng) -> NonNull<u8> {
    static ELSEWHERE: u8 = 0;
    let here = 0u8;
    let address = match rng.below(8) {
        0 => 1,
        1 => 8,
        2 => 4096,
        3 => usize::MAX,
        4 => isize::MAX as usize,
        5 => (&raw const here).addr(),
        6 => (&raw const ELSEWHERE).addr(),
        _ => 1 + rng.below(usize::MAX / 2),
    };
    NonNull::new(core::ptr::without_provenance_mut(address)).unwrap_or(NonNull::dangling())
}

std::thread_local! {
    static PERIOD: Cell<u32> = const { Cell::new(0) };
    static TURN: Cell<u32> = const { Cell::new(0) };
}

/// A spin lock after which a thread often yields, so that what it read under the lock is stale when it uses it.
#[derive(Debug)]
pub struct Polite(AtomicBool);

impl Polite {
    /// This thread yields after each `period`th release, or never, for 0.
    pub fn yield_each(period: u32) {
        PERIOD.set(period);
    }
}

// SAFETY: one at a time has it, by the swap.
unsafe impl RawMutex for Polite {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            std::thread::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        !self.0.swap(true, Acquire)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Release);
        TURN.set(TURN.get().wrapping_add(1));
        let period = PERIOD.get();
        if period > 0 && TURN.get().is_multiple_of(period) {
            std::thread::yield_now();
        }
    }
}
