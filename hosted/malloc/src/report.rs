//! What the heap was like when the process ended, for whoever looks into a program under `LD_PRELOAD`.
//!
//! With `TEMPORAL_SLAB_REPORT=FILE` in the environment each process adds its report to the file when it exits: one line
//! of JSON if the name ends in `.json`, otherwise a text for people. With `-` the text goes to the error stream. A
//! process that is killed, or that leaves by `_exit`, writes none, and so does one that has rights that whoever started it
//! has not.
//!
//! The name is kept when the library is loaded, for some programs write over their environment. Nothing is done, then
//! or later, if there is none.

use core::ffi::{CStr, c_int};
use core::fmt::{self, Write};
use std::sync::OnceLock;
use temporal_slab_hosted::TemporalSlab;
use temporal_slab_report::Report;

/// The longest name, with the zero at its end.
const LONGEST: usize = 1024;

/// Where the report goes: a name that ends with a zero.
static TARGET: OnceLock<[u8; LONGEST]> = OnceLock::new();

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

extern "C" fn at_load() {
    let target = super::environment(c"TEMPORAL_SLAB_REPORT", |name| {
        let mut target = [0; LONGEST];
        // The last byte stays zero.
        let place = target
            .get_mut(..name.len())
            .filter(|_| name.len() < LONGEST);
        place?.copy_from_slice(name);
        Some(target)
    });
    let Some(target) = target else { return };
    let Some(target) = target else {
        complain("its name is too long");
        return;
    };
    if target[0] == 0 {
        return;
    }
    if TARGET.set(target).is_ok() {
        // SAFETY: a function that may be called when the process ends.
        unsafe { libc::atexit(at_exit) };
    }
}

extern "C" fn at_exit() {
    let Some(target) = TARGET.get() else { return };
    let Ok(name) = CStr::from_bytes_until_nul(target) else {
        return;
    };
    let is_shown = name == c"-";
    let stream = if is_shown {
        2
    } else {
        let how = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        // SAFETY: the name ends with a zero.
        unsafe { libc::open(name.as_ptr(), how, 0o666) }
    };
    if stream < 0 {
        complain("it cannot be opened");
        return;
    }
    let report = Report::new(TemporalSlab::heap());
    let mut out = Out::new(stream);
    let written = if name.to_bytes().ends_with(b".json") {
        report.json(&mut out)
    } else {
        // SAFETY: it has no conditions.
        let process = unsafe { libc::getpid() };
        writeln!(out, "temporal-slab: process {process} ends").and_then(|()| report.text(&mut out))
    };
    if written.and_then(|()| out.write_str("\n")).is_err() || out.flush().is_err() {
        complain("it could not be written");
    }
    if !is_shown {
        // SAFETY: opened above, and used by nobody else.
        unsafe { libc::close(stream) };
    }
}

/// Says why there is no report. The process goes on.
fn complain(why: &str) {
    let mut out = Out::new(2);
    let _unseen = writeln!(
        out,
        "temporal-slab: no report (TEMPORAL_SLAB_REPORT): {why}"
    )
    .and_then(|()| out.flush());
}

/// A stream that is written to in pieces, with no memory from the heap that is told of.
struct Out {
    stream: c_int,
    piece: [u8; 4096],
    length: usize,
}

impl Out {
    const fn new(stream: c_int) -> Self {
        Self {
            stream,
            piece: [0; 4096],
            length: 0,
        }
    }

    fn flush(&mut self) -> fmt::Result {
        let mut rest = &self.piece[..self.length];
        while !rest.is_empty() {
            // SAFETY: the bytes are there.
            let count = unsafe { libc::write(self.stream, rest.as_ptr().cast(), rest.len()) };
            match usize::try_from(count) {
                Ok(count) => rest = &rest[count..],
                Err(_)
                    if std::io::Error::last_os_error().kind()
                        == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(fmt::Error),
            }
        }
        self.length = 0;
        Ok(())
    }
}

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.as_bytes().chunks(self.piece.len()) {
            if self.piece.len() - self.length < piece.len() {
                self.flush()?;
            }
            self.piece[self.length..][..piece.len()].copy_from_slice(piece);
            self.length += piece.len();
        }
        Ok(())
    }
}
