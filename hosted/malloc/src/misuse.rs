//! What is done about a pointer that is no live object's beginning.
//!
//! By default one line on the error stream says which pointer and why, and the process aborts: whoever frees twice has
//! two owners of one object, and what comes after that nobody can tell. With `TEMPORAL_SLAB_INVALID=ignore` in the
//! environment it is counted and nothing else happens; with `=warn` there is the line, and the process goes on. The heap
//! is as it was in either case. A process that has rights that whoever started it has not aborts, whatever is there.

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
    let said = super::environment(c"TEMPORAL_SLAB_INVALID", |value| match value {
        b"ignore" => Choice::Ignore,
        b"warn" => Choice::Warn,
        _ => Choice::Abort,
    });
    said.unwrap_or(Choice::Abort)
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
