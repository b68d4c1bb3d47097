//! The functions that are told how to align.

use super::{TemporalSlab, given, no_memory, set_errno};
use core::alloc::Layout;
use core::ffi::{c_int, c_void};
use core::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A page of this system. `Relaxed`: whoever asks first writes what anybody would.
fn page() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    match PAGE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: a question without side effects.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let page = usize::try_from(page).unwrap_or(4096);
            PAGE.store(page, Ordering::Relaxed);
            page
        }
        page => page,
    }
}

/// Allocates with an alignment that is a power of two; null if there is no memory.
fn aligned(align: usize, size: usize) -> *mut u8 {
    let layout = Layout::from_size_align(size, align.max(super::ALIGN));
    layout.map_or(ptr::null_mut(), TemporalSlab::alloc_any)
}

/// Allocates with an alignment, which is to be a power of two.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        set_errno(libc::EINVAL);
        return ptr::null_mut();
    }
    given(aligned(align, size))
}

/// Allocates with an alignment, or with the next one that is a power of two, as the GNU C library does.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => given(aligned(align, size)),
        None => {
            set_errno(libc::EINVAL);
            ptr::null_mut()
        }
    }
}

/// Allocates with an alignment, which is to be a power of two and a multiple of a pointer's size. Tells what is wrong and
/// leaves `errno` alone.
///
/// # Safety
/// `result` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    result: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    if !align.is_power_of_two()
        || !align.is_multiple_of(size_of::<*mut c_void>())
        || result.is_null()
    {
        return libc::EINVAL;
    }
    let object = aligned(align, size);
    if object.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { result.write(object.cast()) };
    0
}

/// Allocates what begins a page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    given(aligned(page(), size))
}

/// Allocates whole pages.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    match size.max(1).checked_next_multiple_of(page()) {
        Some(size) => given(aligned(page(), size)),
        None => no_memory(),
    }
}
