//! The C library's memory functions over the process's heap, for `LD_PRELOAD` or to be linked.
//!
//! ```sh
//! LD_PRELOAD=libtemporal_slab_malloc.so program
//! ```
//!
//! Principles:
//! - Each function does what POSIX and the GNU C library say that it does, `errno` included: `free` leaves it alone (the
//!   layer that calls the system keeps it), whatever fails for want of memory sets `ENOMEM`, what is asked in a wrong way `EINVAL`.
//! - What is freed is looked up by its address, in metadata alone, in a heap that checks: a pointer that is no live
//!   object's beginning is found, by its kind, at once; what that does not reach is told in the core's `by_address`. See
//!   [`misuse`] for what is done then. Built without the feature `checked`, it trusts what it is given, as the GNU C library does.
//! - Nothing here takes memory but from the heap, and nothing needs `main` or a thread's variables to be ready.
//! - C++'s operators come from its own library, which calls these functions; they throw as they should.
#![cfg(target_os = "linux")]

pub mod aligned;
pub mod misuse;
pub mod report;

use core::alloc::Layout;
use core::ffi::{CStr, c_int, c_void};
use core::ptr::{self, NonNull};
use temporal_slab_hosted::TemporalSlab;

/// What every object is aligned to: enough for any type of C's that does not say more.
const ALIGN: usize = 16;

/// Says why nothing was given.
#[cold]
fn set_errno(value: c_int) {
    // SAFETY: the thread's own.
    unsafe { *libc::__errno_location() = value };
}

/// What the environment says under a name: to `read`, before anything else is done. Nothing, if the process has rights that
/// whoever started it has not: files would be written, and misuse be ignored, by those rights and at their word.
fn environment<T>(name: &CStr, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
    // SAFETY: a question without side effects.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return None;
    }
    // SAFETY: the name ends with a zero.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: what is not null is a text that ends with a zero; it is read at once.
    (!value.is_null()).then(|| read(unsafe { CStr::from_ptr(value) }.to_bytes()))
}

/// The layout of so many bytes. None has more than half of the address space.
#[inline]
fn layout_of(size: usize) -> Option<Layout> {
    Layout::from_size_align(size, ALIGN).ok()
}

#[cold]
#[inline(never)]
fn no_memory() -> *mut c_void {
    set_errno(libc::ENOMEM);
    ptr::null_mut()
}

/// What was allocated, or `ENOMEM`.
#[inline]
fn given(object: *mut u8) -> *mut c_void {
    if object.is_null() {
        return no_memory();
    }
    object.cast()
}

/// Allocates. A size of zero gets an object of its own, too.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    match TemporalSlab::alloc_at_once(size) {
        Some(object) => object.as_ptr().cast(),
        None => malloc_next(size),
    }
}

/// Goes on where nothing was freed that serves.
#[inline(never)]
extern "C" fn malloc_next(size: usize) -> *mut c_void {
    match TemporalSlab::alloc_next(size) {
        Some(object) => object.as_ptr().cast(),
        None => malloc_slow(size),
    }
}

#[cold]
#[inline(never)]
extern "C" fn malloc_slow(size: usize) -> *mut c_void {
    match layout_of(size) {
        Some(layout) => given(TemporalSlab::alloc_any(layout)),
        None => no_memory(),
    }
}

/// Allocates `count` times `size` bytes that are zero.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let layout = count.checked_mul(size).and_then(layout_of);
    match layout {
        Some(layout) => given(TemporalSlab::alloc_zeroed_any(layout)),
        None => no_memory(),
    }
}

/// Frees.
///
/// # Safety
/// Nobody uses the object any more. What is no object is found; see [`misuse`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(object: *mut c_void) {
    // SAFETY: the caller's promise, and the heap is a checked one or believes it.
    unsafe {
        if !TemporalSlab::free_at_once(object.cast()) {
            free_slow(object);
        }
    }
}

/// # Safety
/// As for [`free`].
#[cold]
#[inline(never)]
unsafe extern "C" fn free_slow(object: *mut c_void) {
    let Some(object) = NonNull::new(object.cast::<u8>()) else {
        return;
    };
    // SAFETY: the caller's promise; where the heap checks, what breaks it is an error.
    if let Err(error) = unsafe { TemporalSlab::free_unsized(object) } {
        misuse::found("free", object, error);
    }
}

/// Makes an object longer or shorter, wherever it then is. Of no object: allocates. To a size of zero: frees.
///
/// # Safety
/// As for [`free`], if the result is not null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(object: *mut c_void, size: usize) -> *mut c_void {
    let Some(old) = NonNull::new(object.cast::<u8>()) else {
        return malloc(size);
    };
    if size == 0 {
        // SAFETY: the caller's promise.
        unsafe { free(object) };
        return ptr::null_mut();
    }
    let room = match TemporalSlab::usable_size(old) {
        Ok(room) => room,
        Err(error) => {
            misuse::found("realloc", old, error);
            return no_memory();
        }
    };
    // It stays where it is unless that wastes more than half.
    if size <= room && (size >= room / 2 || room <= ALIGN) {
        return object;
    }
    let Some(layout) = layout_of(size) else {
        return no_memory();
    };
    // SAFETY: an object of `room` bytes begins there, which is the caller's.
    unsafe {
        if let Some(moved) = TemporalSlab::move_pages(old, room, layout) {
            return moved.as_ptr().cast();
        }
        let moved = TemporalSlab::alloc_any(layout);
        if moved.is_null() {
            // What is to be shorter may as well stay.
            return if size <= room { object } else { no_memory() };
        }
        moved.copy_from_nonoverlapping(old.as_ptr(), room.min(size));
        free(object);
        moved.cast()
    }
}

/// As [`realloc`], to `count` times `size` bytes.
///
/// # Safety
/// As for [`realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    object: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's promise.
        Some(size) => unsafe { realloc(object, size) },
        None => no_memory(),
    }
}

/// How many bytes an object may use; of none, none.
///
/// # Safety
/// As for [`free`], but that the object is used on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(object: *mut c_void) -> usize {
    let Some(object) = NonNull::new(object.cast::<u8>()) else {
        return 0;
    };
    TemporalSlab::usable_size(object).unwrap_or_else(|error| {
        misuse::found("malloc_usable_size", object, error);
        0
    })
}

/// As [`free`], by who knows how much was asked for.
///
/// # Safety
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(object: *mut c_void, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { free(object) };
}

/// As [`free`], by who knows how much was asked for, and how it was to be aligned.
///
/// # Safety
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(object: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { free(object) };
}

/// As [`free`], for old programs.
///
/// # Safety
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(object: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { free(object) };
}

/// Gives what is empty back to the system, but for `keep` bytes; whether there was anything.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(keep: usize) -> c_int {
    TemporalSlab::flush_thread();
    let heap = TemporalSlab::heap();
    let before = heap.bytes().resident;
    heap.reclaim_to(keep);
    c_int::from(heap.bytes().resident < before)
}
