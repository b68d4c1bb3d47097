//! A lock that tells a thread's hook of itself: what another thread may do at that moment, a test does there for certain.

use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, Ordering};
use temporal_slab::lock_api::{GuardSend, RawMutex};

type Hook = Box<dyn FnMut(bool) -> bool>;

std::thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// What the hook says, or that all is well.
fn call(is_lock: bool) -> bool {
    // What the hook does may take locks, too.
    let Some(mut hook) = HOOK.take() else {
        return true;
    };
    let says = hook(is_lock);
    HOOK.set(Some(hook));
    says
}

/// Runs `f` with a hook that is told of each lock that this thread is about to take (`true`) and of each that it gave up,
/// and which number of its kind that is, from 1.
pub fn hooked<T>(mut hook: impl FnMut(bool, usize) + 'static, f: impl FnOnce() -> T) -> T {
    let mut counts = [0; 2];
    let hook = move |is_lock: bool| {
        let count = &mut counts[usize::from(is_lock)];
        *count += 1;
        hook(is_lock, *count);
        true
    };
    with(Box::new(hook), f)
}

/// Runs `f`, which finds a lock held once in so many times: as if its holder had been interrupted.
pub fn interrupted<T>(once_in: usize, f: impl FnOnce() -> T) -> T {
    let mut tried = 0;
    let hook = move |is_lock: bool| {
        tried += usize::from(is_lock);
        !is_lock || tried % once_in != 0
    };
    with(Box::new(hook), f)
}

fn with<T>(hook: Hook, f: impl FnOnce() -> T) -> T {
    HOOK.set(Some(hook));
    let result = f();
    HOOK.take();
    result
}

/// The lock.
#[derive(Debug)]
pub struct Hooked(AtomicBool);

// SAFETY: one at a time has it, by the swap.
unsafe impl RawMutex for Hooked {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        if !self.try_lock() {
            while self.0.swap(true, Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
    }

    fn try_lock(&self) -> bool {
        call(true) && !self.0.swap(true, Ordering::Acquire)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
        call(false);
    }
}
