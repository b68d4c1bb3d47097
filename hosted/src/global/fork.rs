//! Forks. A child has the memory of its parent and one thread of it: what the others were doing stays
//! half done. So before a fork all the heap's locks are taken, which waits until nobody is inside, and
//! after it they are freed in both. The provider has none.
//!
//! The C library is told when the program is loaded, so that others who are told of forks and allocate
//! then are mostly told outside of the pause; and again by whoever first asks for the heap, for a program
//! whose linker left the first out.
//!
//! What the threads that are not in the child held is lost to it: their locals, within the bound of
//! `Local::holding_bound`, the slots, pages and regions that were on their way at the time, and the epochs
//! that they had open.

use super::{HEAP, key};
use core::sync::atomic::{AtomicU8, Ordering};

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = prepare;

const NOT: u8 = 0;
const BEING: u8 = 1;
const DONE: u8 = 2;

/// Whether the C library was told. `Release` when it was, `Acquire` when that is looked for: nobody is
/// inside a lock of the heap before.
static TOLD: AtomicU8 = AtomicU8::new(NOT);

/// Has forks of this process prepared from now on.
#[inline]
pub(super) fn prepare_once() {
    if TOLD.load(Ordering::Acquire) != DONE {
        prepare();
    }
}

#[cold]
extern "C" fn prepare() {
    let mine = TOLD.compare_exchange(NOT, BEING, Ordering::Acquire, Ordering::Acquire);
    if mine.is_ok() {
        // SAFETY: the three are functions, and do what the C library wants them for. If there is no memory
        // for them forks go unprepared, as they do under most allocators.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after_in_child)) };
        TOLD.store(DONE, Ordering::Release);
    }
    // One call of the C library's away.
    while TOLD.load(Ordering::Acquire) != DONE {
        core::hint::spin_loop();
    }
}

extern "C" fn before() {
    // SAFETY: the C library calls one of the other two, in each process.
    unsafe { HEAP.before_fork() };
}

extern "C" fn after() {
    // SAFETY: the C library calls `before` first, in this thread or in the one that this is a copy of.
    unsafe { HEAP.after_fork() };
}

extern "C" fn after_in_child() {
    // Whoever was making the key is not here.
    key::forget_unmade_key();
    after();
}
