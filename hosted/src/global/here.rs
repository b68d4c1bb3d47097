//! How a thread finds its own variables: its magazines, which is all that the fast path needs, and the rest.
//!
//! In a program they lie at a distance from the thread's register that the linker knows. In a shared library they do
//! not, and each look is a call into the loader, which takes as long as the rest of an allocation. So there (feature
//! `shared-library`) three words lie in the part of the thread's memory whose place the loader fixes once, when
//! the library is loaded: what it allocates from, what it frees to, and a pointer to its variables.
//!
//! # States
//!
//! The magazines are [`Magazines::NONE`] until the thread has a local, and again when it has none any more, so the fast path
//! asks for no state. Those that are allocated from are also `NONE` while the thread is in an epoch or a sampler looks on.
//! The pointer is null until the thread looks for the first time, and then is its variables' address as long as it
//! lives; in the child of a fork all are what they were. The thread alone reads and writes them.

#[cfg(not(all(
    feature = "shared-library",
    target_os = "linux",
    target_arch = "x86_64",
    not(miri)
)))]
mod place {
    use super::super::thread::{THREAD, Thread};
    use temporal_slab::Magazines;

    /// Calls `f` with the calling thread's variables.
    #[inline(always)]
    pub(in super::super) fn here<T>(f: impl FnOnce(&Thread) -> T) -> T {
        THREAD.with(f)
    }

    /// What the calling thread allocates from.
    #[inline(always)]
    pub(in super::super) fn alloc_magazines() -> Magazines {
        THREAD.with(|thread| thread.magazines.get().0)
    }

    /// What the calling thread frees to.
    #[inline(always)]
    pub(in super::super) fn free_magazines() -> Magazines {
        THREAD.with(|thread| thread.magazines.get().1)
    }

    /// Says what the thread, which is the calling one, allocates from and frees to.
    pub(in super::super) fn set_magazines(thread: &Thread, alloc: Magazines, free: Magazines) {
        thread.magazines.set((alloc, free));
    }
}

#[cfg(all(
    feature = "shared-library",
    target_os = "linux",
    target_arch = "x86_64",
    not(miri)
))]
mod place {
    use super::super::thread::{THREAD, Thread};
    use core::arch::{asm, global_asm};
    use core::ptr;
    use temporal_slab::{Magazines, NO_MAGAZINES};

    // The compiler has no stable word for this place.
    global_asm!(
        ".pushsection .tdata.temporal_slab_here, \"awT\", @progbits",
        ".hidden temporal_slab_here",
        ".globl temporal_slab_here",
        ".type temporal_slab_here, @object",
        ".size temporal_slab_here, 24",
        ".balign 8",
        "temporal_slab_here:",
        ".quad {none}",
        ".quad {none}",
        ".quad 0",
        ".popsection",
        none = sym NO_MAGAZINES,
    );

    /// A word of the three.
    macro_rules! word {
        ($at:literal) => {{
            let word: *const u8;
            // SAFETY: reads the thread's own word, which is there as long as the thread.
            unsafe {
                asm!(
                    "mov {place}, qword ptr [rip + temporal_slab_here@GOTTPOFF]",
                    concat!("mov {word}, qword ptr fs:[{place} + ", $at, "]"),
                    place = out(reg) _,
                    word = lateout(reg) word,
                    options(nostack, preserves_flags, readonly, pure),
                );
            }
            word
        }};
        ($at:literal = $value:expr) => {
            // SAFETY: writes the thread's own word.
            unsafe {
                asm!(
                    "mov {place}, qword ptr [rip + temporal_slab_here@GOTTPOFF]",
                    concat!("mov qword ptr fs:[{place} + ", $at, "], {word}"),
                    place = out(reg) _,
                    word = in(reg) $value,
                    options(nostack, preserves_flags),
                );
            }
        };
    }

    /// What the calling thread allocates from.
    #[inline(always)]
    pub(in super::super) fn alloc_magazines() -> Magazines {
        let raw = word!("0");
        // SAFETY: the word is of magazines.
        unsafe { Magazines::from_raw(raw) }
    }

    /// What the calling thread frees to.
    #[inline(always)]
    pub(in super::super) fn free_magazines() -> Magazines {
        let raw = word!("8");
        // SAFETY: as above.
        unsafe { Magazines::from_raw(raw) }
    }

    /// Says what the thread, which is the calling one, allocates from and frees to.
    pub(in super::super) fn set_magazines(_: &Thread, alloc: Magazines, free: Magazines) {
        word!("0" = alloc.into_raw());
        word!("8" = free.into_raw());
    }

    /// Calls `f` with the calling thread's variables.
    #[inline(always)]
    pub(in super::super) fn here<T>(f: impl FnOnce(&Thread) -> T) -> T {
        let known: *const Thread = word!("16").cast();
        let thread = if known.is_null() { look() } else { known };
        // SAFETY: a thread's variables have no destructor: they are there as long as the thread.
        f(unsafe { &*thread })
    }

    /// Finds the thread's variables, and notes where they are.
    #[cold]
    #[inline(never)]
    fn look() -> *const Thread {
        let thread = THREAD.with(ptr::from_ref);
        word!("16" = thread);
        thread
    }
}

pub(super) use place::{alloc_magazines, free_magazines, here, set_magazines};
