//! What is done about a pointer that is no live object's beginning.
//!
//! By default one line on the error stream says which pointer and why, and the process aborts: whoever frees twice has
//! two owners of one object, and what comes after that nobody can tell. With `TEMPORAL_SLAB_INVALID=ignore` in the
//! environment it is counted and nothing else happens; with `=warn` there is the line, and the process goes on. The heap
//! is as it was in either case.

use core::fmt::Write as _;
use core::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use temporal_slab::FreeError;

/// How many were found. `Relaxed`: a figure.
static FOUND: AtomicU64 = AtomicU64::new(0);

/// How many invalid pointers were found so far.
#[unsafe(no_mangle)]
pub extern "C" fn temporal_slab_invalid_pointers() -> u64 {
    FOUND.load(Ordering::Relaxed)
}

/// A line in a place of its own: memory may be what is broken.
struct Line {
    text: [u8; 160],
    length: usize,
}

impl core::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = &mut self.text[self.length..];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

enum Choice {
    Abort,
    Warn,
    Ignore,
}

fn choice() -> Choice {
    // SAFETY: a text without a zero inside; what is found is read before anything else is done.
    unsafe {
        let value = libc::getenv(c"TEMPORAL_SLAB_INVALID".as_ptr());
        if value.is_null() {
            return Choice::Abort;
        }
        match core::ffi::CStr::from_ptr(value).to_bytes() {
            b"ignore" => Choice::Ignore,
            b"warn" => Choice::Warn,
            _ => Choice::Abort,
        }
    }
}

/// A function was called with a pointer that is no live object's beginning.
#[cold]
#[inline(never)]
pub(super) fn found(function: &str, object: NonNull<u8>, error: FreeError) {
    FOUND.fetch_add(1, Ordering::Relaxed);
    let choice = choice();
    if matches!(choice, Choice::Ignore) {
        return;
    }
    let mut line = Line {
        text: [0; 160],
        length: 0,
    };
    // To a line there is nothing that fails.
    let _written = writeln!(line, "temporal-slab: {function}({object:p}): {error}");
    // SAFETY: the text is valid; that it may not be seen changes nothing.
    unsafe { libc::write(2, line.text.as_ptr().cast(), line.length) };
    if matches!(choice, Choice::Abort) {
        // SAFETY: it does not come back.
        unsafe { libc::abort() };
    }
}
