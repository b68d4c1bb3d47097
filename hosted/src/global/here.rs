//! How a thread finds its own variables.
//!
//! In a program they lie at a distance from the thread's register that the linker knows. In a shared library they do
//! not, and each look is a call into the loader, which takes as long as the rest of an allocation. So there (feature
//! `shared-library`) a pointer to them lies in the part of the thread's memory whose place the loader fixes once, when
//! the library is loaded: eight bytes of what it keeps ready for such libraries.
//!
//! # States
//!
//! The pointer is null until the thread looks for the first time, and then is its variables' address as long as it
//! lives; in the child of a fork they are where they were. The thread alone reads and writes it.

use super::thread::{THREAD, Thread};

/// Calls `f` with the calling thread's variables.
#[cfg(not(all(
    feature = "shared-library",
    target_os = "linux",
    target_arch = "x86_64",
    not(miri)
)))]
#[inline(always)]
pub(super) fn here<T>(f: impl FnOnce(&Thread) -> T) -> T {
    THREAD.with(f)
}

#[cfg(all(
    feature = "shared-library",
    target_os = "linux",
    target_arch = "x86_64",
    not(miri)
))]
pub(super) use fixed::here;

#[cfg(all(
    feature = "shared-library",
    target_os = "linux",
    target_arch = "x86_64",
    not(miri)
))]
mod fixed {
    use super::{THREAD, Thread};
    use core::arch::{asm, global_asm};
    use core::ptr;

    // The compiler has no stable word for this place.
    global_asm!(
        ".pushsection .tbss.temporal_slab_here, \"awT\", @nobits",
        ".hidden temporal_slab_here",
        ".globl temporal_slab_here",
        ".type temporal_slab_here, @object",
        ".size temporal_slab_here, 8",
        ".balign 8",
        "temporal_slab_here:",
        ".zero 8",
        ".popsection",
    );

    /// Calls `f` with the calling thread's variables.
    #[inline(always)]
    pub(in super::super) fn here<T>(f: impl FnOnce(&Thread) -> T) -> T {
        let known: *const Thread;
        // SAFETY: reads the thread's own word, which is there as long as the thread.
        unsafe {
            asm!(
                "mov {place}, qword ptr [rip + temporal_slab_here@GOTTPOFF]",
                "mov {known}, qword ptr fs:[{place}]",
                place = out(reg) _,
                known = lateout(reg) known,
                options(nostack, preserves_flags, readonly),
            );
        }
        let thread = if known.is_null() { look() } else { known };
        // SAFETY: a thread's variables have no destructor: they are there as long as the thread.
        f(unsafe { &*thread })
    }

    /// Finds the thread's variables, and notes where they are.
    #[cold]
    #[inline(never)]
    fn look() -> *const Thread {
        let thread = THREAD.with(ptr::from_ref);
        // SAFETY: writes the thread's own word.
        unsafe {
            asm!(
                "mov {place}, qword ptr [rip + temporal_slab_here@GOTTPOFF]",
                "mov qword ptr fs:[{place}], {thread}",
                place = out(reg) _,
                thread = in(reg) thread,
                options(nostack, preserves_flags),
            );
        }
        thread
    }
}
