//! One program, which knows nothing of the allocator that it runs on. With the name of a pattern it does that pattern's
//! work, once, and prints how many units that was, the nanoseconds on the clock and on the processors, and the KiB that were
//! resident at the peak. With `list` it names the patterns. With `half` it prints what is resident after a random half of
//! many objects was freed.
//!
//! Principles:
//! - A pattern is a fixed amount of work: what is random comes from a generator with a fixed seed.
//! - A pattern has a process of its own, so that its peak is its own and nothing was warmed by another.

mod blocks;
mod cache;
mod documents;
mod growth;
mod half;
mod handed;
mod interpreter;
mod micro;
mod objects;
mod threads;

use std::time::Instant;

/// A name, and the work: how many units it was.
type Pattern = (&'static str, fn() -> usize);

fn patterns() -> impl Iterator<Item = &'static Pattern> {
    let lists: [&[Pattern]; 8] = [
        &micro::PATTERNS,
        &threads::PATTERNS,
        &handed::PATTERNS,
        &blocks::PATTERNS,
        &growth::PATTERNS,
        &interpreter::PATTERNS,
        &cache::PATTERNS,
        &documents::PATTERNS,
    ];
    lists.into_iter().flatten()
}

/// The processors' time for this process so far, in nanoseconds.
fn on_processors() -> u64 {
    // SAFETY: zero bytes are one.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: the place is ours.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let nanos = |time: libc::timeval| {
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_usec.unsigned_abs() * 1000
    };
    nanos(usage.ru_utime) + nanos(usage.ru_stime)
}

/// The most that was resident, in KiB. What `getrusage` says would begin with the program that started this one.
fn peak() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("the system tells");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.and_then(|n| n.parse().ok()).expect("a number")
}

pub(crate) fn main(reclaim: fn()) {
    let asked = std::env::args().nth(1).unwrap_or_default();
    match asked.as_str() {
        "half" => half::half(reclaim),
        "list" => patterns().for_each(|(name, _)| println!("{name}")),
        asked => {
            let pattern = patterns().find(|(name, _)| *name == asked);
            let (_, work) = pattern.expect("a pattern's name, `list` or `half`");
            let start = Instant::now();
            let units = work();
            let wall = start.elapsed().as_nanos();
            println!("{units} {wall} {} {}", on_processors(), peak());
        }
    }
}
