//! A small simulated server, whose memory can be watched: requests as epochs, a cache that lives long, a
//! frame loop. One line for each phase: what is live, what is held from the frames, what went back.

use alloc::vec::Vec;
use core::alloc::Layout;
use core::fmt::{self, Write};
use core::ptr::NonNull;

use temporal_slab::{Domain, Epoch};
use temporal_slab_report::Report;

use crate::heap::{HEAP, KernelConfig};
use crate::memory;
use crate::serial::{Serial, say};

type TheReport = Report<'static, KernelConfig>;
type TheDomain = Domain<'static, KernelConfig>;

/// Live bytes of the cache, in 1 KiB entries.
const CACHE: usize = 512;

struct Cache {
    entries: [Option<NonNull<u8>>; CACHE],
    next: usize,
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap_or(Layout::new::<u64>())
}

impl Cache {
    /// Puts an entry in the place of the oldest.
    fn insert(&mut self) -> bool {
        let Ok(entry) = HEAP.alloc(layout(1024)) else {
            return false;
        };
        let place = self.next % CACHE;
        self.next += 1;
        match self
            .entries
            .get_mut(place)
            .and_then(|old| old.replace(entry))
        {
            // SAFETY: the entry was allocated with this layout, and is in the cache no more.
            Some(old) => unsafe { HEAP.free(old, layout(1024)) }.is_ok(),
            None => true,
        }
    }
}

/// What lives until the end of a phase.
type Objects = Vec<(NonNull<u8>, Layout)>;

/// One request: some objects that live until the phase ends, and an entry for the cache.
fn request(epoch: Epoch, cache: &mut Cache, objects: &mut Objects, number: usize) -> bool {
    for n in 0..20 {
        let layout = layout(64 + (number * 31 + n * 97) % 1500);
        match HEAP.alloc_in(epoch, layout) {
            Ok(object) => objects.push((object, layout)),
            Err(_) => return false,
        }
    }
    cache.insert()
}

/// Frees what a phase left; how many of them could not be.
fn end(objects: &mut Objects) -> usize {
    // SAFETY: each was allocated with its layout, and is in the list no more.
    let freed = objects
        .drain(..)
        .map(|(object, layout)| unsafe { HEAP.free(object, layout) });
    freed.filter(Result::is_err).count()
}

fn row(phase: &str, live: u64, before: usize) {
    let held = HEAP.bytes().taken;
    let (free, total) = memory::frames();
    say!(
        "{phase:<28}{live:>10}{:>11}{:>14}{:>13}",
        held / 1024,
        before.saturating_sub(held) / 1024,
        (total - free) * 4
    );
}

/// Writes what the heap knows of itself to the serial port, in each encoding between two marks.
fn report() -> usize {
    let report = Report::new(&HEAP);
    let to = &mut Serial::init();
    let mut write = |name, encode: fn(&TheReport, &mut dyn Write) -> fmt::Result| {
        say!("report {name} begins");
        let done = encode(&report, to);
        say!("");
        say!("report {name} ends");
        usize::from(done.is_err())
    };
    write("text", |report, to| report.text(to))
        + write("json", |report, to| report.json(to))
        + write("prometheus", |report, to| report.prometheus(to))
}

/// Runs the phases, and reports before the last if it is to; how many steps of them went wrong.
pub(crate) fn run(reports: bool) -> usize {
    say!("");
    say!("phase                         live obj   held KiB  returned KiB   frames KiB");
    let mut cache = Cache {
        entries: [None; CACHE],
        next: 0,
    };
    let mut objects = Vec::with_capacity(20 * 500);
    let mut wrong = 0;
    for phase in 1..=4usize {
        let opened: Result<TheDomain, _> = Domain::open(&HEAP);
        let Ok(domain) = opened.map(Domain::close_on_exit) else {
            return wrong + 1;
        };
        wrong += usize::from(HEAP.set_label(domain.epoch(), "requests").is_err());
        let inside = domain.enter();
        for number in 0..500 {
            let done = request(
                domain.epoch(),
                &mut cache,
                &mut objects,
                phase * 500 + number,
            );
            wrong += usize::from(!done);
        }
        let live = HEAP
            .epoch_stats(domain.epoch())
            .map_or(0, |info| info.live_objects());
        let held = HEAP.bytes().taken;
        row("500 requests", live, held);
        wrong += end(&mut objects);
        // The last one out closes the epoch.
        drop(inside);
        HEAP.reclaim();
        row("  their epoch is closed", 0, held);
    }
    // A frame loop: one epoch, entered again and again, empty after each frame.
    let opened: Result<TheDomain, _> = Domain::open(&HEAP);
    if let Ok(domain) = opened {
        let held = HEAP.bytes().taken;
        for frame in 0..600 {
            let inside = domain.enter();
            let done = request(domain.epoch(), &mut cache, &mut objects, frame);
            wrong += usize::from(!done || inside.is_err()) + end(&mut objects);
        }
        row("600 frames of a loop", 0, held);
        wrong += usize::from(HEAP.close(domain.epoch()).is_err());
    }
    if reports {
        wrong += report();
    }
    let held = HEAP.bytes().taken;
    for entry in cache.entries.into_iter().flatten() {
        // SAFETY: as in `insert`.
        wrong += usize::from(unsafe { HEAP.free(entry, layout(1024)) }.is_err());
    }
    drop(objects);
    HEAP.reclaim();
    row("the cache is dropped", 0, held);
    say!("");
    wrong
}
