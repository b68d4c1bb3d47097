//! The key by which the C library tells of the ends of threads.

use core::ffi::c_void;
use core::sync::atomic::{AtomicU64, Ordering};

/// The key under which threads note that they have a local; made by the first who asks, with what is called when a
/// thread ends.
///
/// The word is 0 before, 1 while it is made, 2 if there is none to be had, else the key and 3. `Release`
/// when it is set and `Acquire` when it is read: who sees the key sees it made.
pub(super) fn key(end: unsafe extern "C" fn(*mut c_void)) -> Option<libc::pthread_key_t> {
    loop {
        match KEY.load(Ordering::Acquire) {
            UNMADE => {
                let swap =
                    KEY.compare_exchange(UNMADE, BEING_MADE, Ordering::Relaxed, Ordering::Relaxed);
                if swap.is_err() {
                    continue;
                }
                let mut key = 0;
                // SAFETY: `key` is ours, and `end` is what the key's values are made for.
                let made = unsafe { libc::pthread_key_create(&raw mut key, Some(end)) } == 0;
                let word = if made { FIRST + u64::from(key) } else { NONE };
                KEY.store(word, Ordering::Release);
            }
            // Two calls of the C library's away.
            BEING_MADE => core::hint::spin_loop(),
            NONE => return None,
            word => return libc::pthread_key_t::try_from(word - FIRST).ok(),
        }
    }
}

static KEY: AtomicU64 = AtomicU64::new(UNMADE);
const UNMADE: u64 = 0;
const BEING_MADE: u64 = 1;
const NONE: u64 = 2;
const FIRST: u64 = 3;

/// In a forked child: if another thread was making the key, it is to be made anew.
pub(super) fn forget_unmade_key() {
    let _made = KEY.compare_exchange(BEING_MADE, UNMADE, Ordering::Relaxed, Ordering::Relaxed);
}
