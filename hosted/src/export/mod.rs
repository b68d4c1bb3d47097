//! A program's statistics for those outside of it: over HTTP on the loopback interface, or on a Unix socket.
//!
//! Principles:
//! - It is off until a program turns it on, listens on this machine only unless it is told otherwise, and only
//!   reads: no request changes anything.
//! - A request is a few hundred bytes. One that is longer, slower than [`PATIENCE`] or not understood gets an error
//!   and is closed; one is served at a time, so nobody can make the program do more than that.
//! - What is served is what `temporal_slab_report::Report` writes, and what the system says of the process.
//!
//! | path | what |
//! |---|---|
//! | `/metrics` | the text format of Prometheus |
//! | `/stats.json` | JSON, by `stats.schema.json` of `temporal-slab-report` |
//! | `/stats.txt` | text for people |
//! | `/findings.txt` | what is wrong, and what to do |
//! | `/process.json` | what the system says is resident |

mod address;
mod listener;

use crate::rss::{self, Rollup, Usage};
use crate::sys;
use core::fmt::{self, Write as _};
use core::time::Duration;
use std::io;
use std::thread::JoinHandle;
use std::time::Instant;
use temporal_slab::Heap;
use temporal_slab::config::Config;
use temporal_slab_report::{Latency, Report};

pub use address::{Address, Stream, connect};
use listener::{Ender, Listener};

/// The longest head of a request that is read.
pub const LONGEST_REQUEST: usize = 4096;

/// How long a client may take to send its request, and to take the answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Serves a heap's statistics until it is dropped. A forked child serves none: what it has of the listener is closed
/// there, and dropping this there does nothing.
pub struct Exporter {
    ender: Ender,
    address: Address,
    thread: Option<JoinHandle<()>>,
    process: i32,
}

/// A heap, whatever its parameters.
trait Source: Sync {
    fn write(&self, path: &str, to: &mut String) -> Option<fmt::Result>;
}

struct Served<'h, C: Config> {
    heap: &'h Heap<C>,
    latency: Option<&'h Latency>,
    findings_end: Option<fn(&mut dyn fmt::Write) -> fmt::Result>,
}

impl<C: Config<Provider: Sync, Lock: Sync>> Source for Served<'_, C> {
    fn write(&self, path: &str, to: &mut String) -> Option<fmt::Result> {
        let report = Report::new(self.heap);
        let report = match self.latency {
            Some(latency) => report.latency(latency),
            None => report,
        };
        Some(match path {
            "/metrics" => report.prometheus(to).and_then(|()| process_metrics(to)),
            "/stats.json" => report.json(to),
            "/stats.txt" => report.text(to),
            "/findings.txt" => report
                .findings(to)
                .and_then(|()| self.findings_end.map_or(Ok(()), |write| write(to))),
            "/process.json" => process_json(to),
            _ => return None,
        })
    }
}

/// How to serve.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Sampled times to serve, too.
    pub latency: Option<&'static Latency>,
    /// Writes what is served behind the findings.
    pub findings_end: Option<fn(&mut dyn fmt::Write) -> fmt::Result>,
    /// Other machines may ask. Nobody is asked who they are: keep this off unless something else does.
    pub any_machine: bool,
}

impl Exporter {
    /// Serves the statistics of `heap` at `address`: a port of 0 is any that is free, see [`Exporter::address`].
    ///
    /// # Errors
    /// If the address cannot be had, or is another machine's to reach and the options do not allow that.
    pub fn start<C>(heap: &'static Heap<C>, address: &Address, options: Options) -> io::Result<Self>
    where
        C: Config<Provider: Sync, Lock: Sync>,
    {
        let (listener, ender, address) = Listener::bind(address, options.any_machine)?;
        let source = Served {
            heap,
            latency: options.latency,
            findings_end: options.findings_end,
        };
        let thread = std::thread::Builder::new()
            .name("tslab-export".to_owned())
            .spawn(move || {
                loop {
                    match listener.accept() {
                        Ok(Some(mut client)) => {
                            let _gone = serve(&mut *client, &source);
                        }
                        Ok(None) => return,
                        // A client that is gone by now, or no more files for another: the next may fare better.
                        Err(_) => std::thread::sleep(Duration::from_millis(20)),
                    }
                }
            })?;
        Ok(Self {
            ender,
            address,
            thread: Some(thread),
            process: sys::process(),
        })
    }

    /// Where it serves.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Serves until the program ends.
    pub fn for_good(self) {
        core::mem::forget(self);
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if self.process != sys::process() {
            core::mem::forget(self.thread.take());
            return;
        }
        self.ender.end();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Answers one request of a client whom the program let in itself: on a socket that it was started with, say, or after
/// it asked who that is.
///
/// # Errors
/// Those of the connection. A request that is not understood is none: the client is told.
pub fn serve_one<C>(
    client: &mut dyn Stream,
    heap: &Heap<C>,
    latency: Option<&Latency>,
) -> io::Result<()>
where
    C: Config<Provider: Sync, Lock: Sync>,
{
    let served = Served {
        heap,
        latency,
        findings_end: None,
    };
    serve(client, &served)
}

/// Reads a request and answers it.
fn serve(client: &mut dyn Stream, source: &dyn Source) -> io::Result<()> {
    let mut head = [0; LONGEST_REQUEST];
    let answer = match read_head(client, &mut head) {
        Ok(head) => answer(head, source),
        Err(Fault::TooLong) => Answer::error(431, "the request is too long"),
        Err(Fault::TooSlow) => Answer::error(408, "the request took too long"),
        Err(Fault::Gone) => return Ok(()),
    };
    let end = Instant::now() + PATIENCE;
    let (status, kind) = (answer.status, answer.kind);
    let length = answer.body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n"
    );
    send(client, head.as_bytes(), end)?;
    if !answer.is_head_only {
        send(client, answer.body.as_bytes(), end)?;
    }
    client.flush()
}

/// Sends all of it, for as long as there is patience.
fn send(client: &mut dyn Stream, mut bytes: &[u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        client.set_timeout(left)?;
        match client.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or(&[]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

enum Fault {
    TooLong,
    TooSlow,
    Gone,
}

/// Reads up to the empty line, for as long as there is patience.
fn read_head<'b>(client: &mut dyn Stream, buffer: &'b mut [u8]) -> Result<&'b [u8], Fault> {
    let end = Instant::now() + PATIENCE;
    let mut len = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::TooSlow);
        }
        client.set_timeout(left).map_err(|_| Fault::Gone)?;
        let rest = buffer.get_mut(len..).filter(|rest| !rest.is_empty());
        match client.read(rest.ok_or(Fault::TooLong)?) {
            Ok(0) => return Err(Fault::Gone),
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Err(Fault::TooSlow);
            }
            Err(_) => return Err(Fault::Gone),
        }
        let read = buffer.get(..len).unwrap_or(&[]);
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(buffer.get(..at).unwrap_or(&[]));
        }
    }
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
    is_head_only: bool,
}

impl Answer {
    fn error(code: u16, why: &str) -> Self {
        let status = match code {
            400 => "400 Bad Request",
            404 => "404 Not Found",
            405 => "405 Method Not Allowed\r\nAllow: GET, HEAD",
            408 => "408 Request Timeout",
            431 => "431 Request Header Fields Too Large",
            _ => "500 Internal Server Error",
        };
        Self {
            status,
            kind: "text/plain; charset=utf-8",
            body: format!("{why}\n"),
            is_head_only: false,
        }
    }
}

/// The answer to a request's head.
fn answer(head: &[u8], source: &dyn Source) -> Answer {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or(&[]);
    let Ok(line) = core::str::from_utf8(line) else {
        return Answer::error(400, "a request is text");
    };
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Answer::error(400, "a request begins with a method, a path and a version");
    };
    if !version.starts_with("HTTP/1.") {
        return Answer::error(400, "this is HTTP/1.1");
    }
    if method != "GET" && method != "HEAD" {
        return Answer::error(405, "statistics can only be read: GET or HEAD");
    }
    let path = target.split(['?', '#']).next().unwrap_or("");
    if path == "/" {
        let body = "/metrics\n/stats.json\n/stats.txt\n/findings.txt\n/process.json\n";
        return Answer {
            status: "200 OK",
            kind: "text/plain; charset=utf-8",
            body: body.to_owned(),
            is_head_only: method == "HEAD",
        };
    }
    let mut body = String::new();
    match source.write(path, &mut body) {
        None => Answer::error(404, "there is nothing here: / names what there is"),
        Some(Err(_)) => Answer::error(500, "the report could not be written"),
        Some(Ok(())) => Answer {
            status: "200 OK",
            kind: match path {
                "/metrics" => "text/plain; version=0.0.4; charset=utf-8",
                "/stats.json" | "/process.json" => "application/json",
                _ => "text/plain; charset=utf-8",
            },
            body,
            is_head_only: method == "HEAD",
        },
    }
}

/// What the system says of the process, each with its name and its meaning.
fn process() -> [(&'static str, &'static str, u64); 7] {
    let usage = Usage::read();
    let rollup = Rollup::read().unwrap_or_default();
    [
        (
            "virtual_bytes",
            "Bytes of address space",
            usage.map_or(0, |u| u.virtual_bytes),
        ),
        (
            "resident_bytes",
            "Bytes in memory",
            usage.map_or(0, |u| u.resident_bytes),
        ),
        (
            "anonymous_bytes",
            "Of these, of no file",
            rollup.anonymous_bytes,
        ),
        (
            "lazily_freed_bytes",
            "Of these, given back and not taken yet",
            rollup.lazily_freed_bytes,
        ),
        (
            "huge_bytes",
            "Of the anonymous ones, in huge pages",
            rollup.huge_bytes,
        ),
        ("mappings", "Mappings", rss::mappings().unwrap_or(0) as u64),
        ("id", "The process's number", u64::from(std::process::id())),
    ]
}

/// What the system says of the process, as JSON.
///
/// # Errors
/// Those of `to`.
pub fn process_json(to: &mut String) -> fmt::Result {
    let mut comma = '{';
    for (name, _, value) in process() {
        write!(to, "{comma}\"{name}\":{value}")?;
        comma = ',';
    }
    writeln!(to, "}}")
}

fn process_metrics(to: &mut String) -> fmt::Result {
    for (name, help, value) in process() {
        writeln!(to, "# HELP temporal_slab_process_{name} {help}")?;
        writeln!(to, "# TYPE temporal_slab_process_{name} gauge")?;
        writeln!(to, "temporal_slab_process_{name} {value}")?;
    }
    Ok(())
}
