//! The contest's program on rpmalloc.
mod program;
use std::alloc::{GlobalAlloc, Layout};

/// The crate's own moves what grows by hand, and asks for each alignment by name.
struct RpMalloc;

/// What is aligned anyway.
const ALIGN: usize = 16;

// SAFETY: the functions for C do what is asked for here.
unsafe impl GlobalAlloc for RpMalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: a size is all it takes, or an alignment that is a power of two.
        unsafe {
            if layout.align() <= ALIGN {
                rpmalloc_sys::rpmalloc(layout.size()).cast()
            } else {
                rpmalloc_sys::rpaligned_alloc(layout.align(), layout.size()).cast()
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe {
            if layout.align() <= ALIGN {
                rpmalloc_sys::rpcalloc(1, layout.size()).cast()
            } else {
                rpmalloc_sys::rpaligned_calloc(layout.align(), 1, layout.size()).cast()
            }
        }
    }

    unsafe fn dealloc(&self, object: *mut u8, _: Layout) {
        // SAFETY: the caller's promise.
        unsafe { rpmalloc_sys::rpfree(object.cast()) };
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if layout.align() <= ALIGN {
                rpmalloc_sys::rprealloc(object.cast(), size).cast()
            } else {
                let (align, old) = (layout.align(), layout.size());
                rpmalloc_sys::rpaligned_realloc(object.cast(), align, size, old, 0).cast()
            }
        }
    }
}

#[global_allocator]
static GLOBAL: RpMalloc = RpMalloc;

fn main() {
    program::main(|| {});
}
