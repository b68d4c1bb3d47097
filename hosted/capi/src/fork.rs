//! Forks: before one all allocators' locks are taken, and after it they are freed in both processes, so that a child finds
//! every heap as it would be between two calls. The allocators of a process are in one list for that.

use crate::allocator::Shared;
use core::cell::UnsafeCell;
use std::sync::Once;
use temporal_slab::lock_api::RawMutex as _;
use temporal_slab_hosted::FutexLock;

struct All {
    lock: FutexLock,
    /// Under the lock.
    list: UnsafeCell<Vec<*const Shared>>,
}

// SAFETY: the list is only touched under its lock, and what it points to may be used by any thread.
unsafe impl Sync for All {}

static ALL: All = All {
    lock: FutexLock::INIT,
    list: UnsafeCell::new(Vec::new()),
};

/// The C library is told when this one is loaded: told later, while another thread forks, the child would wait for a
/// thread that it does not have.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = prepare;

static TOLD: Once = Once::new();

extern "C" fn prepare() {
    TOLD.call_once(|| {
        // SAFETY: the three are functions, and do what the C library wants them for. If there is no memory for them
        // forks go unprepared, as they do under most allocators.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
    });
}

/// Runs `work` on the list under the lock.
fn with(work: impl FnOnce(&mut Vec<*const Shared>)) {
    ALL.lock.lock();
    // SAFETY: the lock is held, and given up once.
    unsafe {
        work(&mut *ALL.list.get());
        ALL.lock.unlock();
    }
}

/// An allocator is there from now on.
pub(crate) fn add(shared: *const Shared) {
    // Again, for a program whose linker left the first out.
    prepare();
    with(|list| list.push(shared));
}

/// It goes.
pub(crate) fn remove(shared: *const Shared) {
    with(|list| list.retain(|other| *other != shared));
}

extern "C" fn before() {
    ALL.lock.lock();
    // SAFETY: the lock is held, until `after`; what is in the list is there until it is struck off under the lock.
    unsafe {
        for shared in &*ALL.list.get() {
            (**shared).heap.before_fork();
        }
    }
}

extern "C" fn after() {
    // SAFETY: the C library calls `before` first, in this thread or in the one that this is a copy of.
    unsafe {
        for shared in &*ALL.list.get() {
            (**shared).heap.after_fork();
        }
        ALL.lock.unlock();
    }
}
