//! Text for people.

use super::diagnosis::diagnose;
use super::finding::{Bytes, Finding, InLine};
use super::labels::epochs;
use super::{Labels, Report};
use core::fmt::{self, Write};
use temporal_slab::config::Config;
use temporal_slab::snapshot::{EpochStats, HeapStats};

/// Findings of one kind that are shown.
const SHOWN: usize = 3;

/// What the parts of the resident bytes are.
const PARTS: [(&str, &str); 10] = [
    ("live", "live objects"),
    ("held", "held by locals; flush gives it back"),
    ("pinned", "free between live objects, until those die"),
    ("open", "empty, open for the shared path; reclaim takes it"),
    (
        "cached",
        "empty slabs, kept for their epoch; reclaim takes it",
    ),
    ("warm", "empty pages, kept for anyone; reclaim takes it"),
    ("tails", "behind the last slots of slabs"),
    ("scoped", "slabs of scopes"),
    ("metadata", "the heap's own"),
    ("fragments", "free parts of pages in use"),
];

/// Writes one report.
pub(super) fn write<C: Config>(report: &Report<'_, C>, to: &mut dyn Write) -> fmt::Result {
    let heap = report.heap;
    let stats = heap.stats();
    writeln!(
        to,
        "{} resident, {} live in {} objects, {} committed",
        Bytes(stats.pages.resident),
        Bytes(stats.live_bytes),
        stats.live_objects(),
        Bytes(stats.pages.committed),
    )?;
    residency(to, &stats)?;
    slow_path(to, &stats)?;
    shared(to, &stats)?;
    for (cause, times) in report.sampled() {
        let [p50, p99] = [0.5, 0.99].map(|share| times.quantile_ns(share));
        let (name, count, longest) = (cause.name(), times.count(), times.longest_ns());
        writeln!(
            to,
            "sampled, {name:<10}{count:>9} times: p50 {p50} ns, p99 {p99} ns, longest {longest} ns"
        )?;
    }
    classes(report, to)?;
    writeln!(
        to,
        "\nepochs{:>28}{:>12}{:>11}{:>11}{:>8}",
        "label", "objects", "bytes", "live", "age"
    )?;
    for stats in epochs(heap, 0).filter_map(|(_, epoch)| heap.epoch_stats(epoch).ok()) {
        epoch(to, &stats)?;
    }
    let labels = Labels::read(heap, report.top);
    writeln!(
        to,
        "\nlabels{:>28}{:>12}{:>11}{:>11}",
        "epochs", "objects", "bytes", "slow"
    )?;
    for label in labels.top().iter().chain([&labels.other]) {
        writeln!(
            to,
            "  {:<24}{:>8}{:>12}{:>11}{:>11}",
            Name(label.label.as_str()),
            label.epochs,
            label.live_objects,
            Pad(Bytes(label.bytes)),
            label.slow.hits(),
        )?;
    }
    writeln!(to)?;
    findings(report, to)
}

/// Writes what is wrong, or that nothing is.
pub(super) fn findings<C: Config>(report: &Report<'_, C>, to: &mut dyn Write) -> fmt::Result {
    let diagnosis = diagnose(report.heap, &report.thresholds);
    if diagnosis.found == 0 {
        return writeln!(to, "nothing was found that needs a remedy");
    }
    // Each kind once, in the order of its worst, with a few of its kind.
    for (index, finding) in diagnosis.findings().enumerate() {
        let is_kind = |other: &&Finding| other.name() == finding.name();
        if diagnosis
            .findings()
            .take(index)
            .any(|other| is_kind(&other))
        {
            continue;
        }
        let (severity, name) = (finding.severity().name(), finding.name());
        writeln!(to, "{severity}: {name}: {}", finding.action())?;
        for other in diagnosis.findings().filter(is_kind).take(SHOWN) {
            writeln!(to, "    {other}")?;
        }
        let more = diagnosis.findings().filter(is_kind).skip(SHOWN).count();
        if more > 0 {
            writeln!(to, "    and {more} more of this kind")?;
        }
    }
    let kept = diagnosis.findings().count();
    match diagnosis.found.saturating_sub(kept) {
        0 => Ok(()),
        more => writeln!(to, "and {more} more findings"),
    }
}

fn residency(to: &mut dyn Write, stats: &HeapStats) -> fmt::Result {
    for (name, bytes) in stats.residency.parts() {
        if bytes == 0 {
            continue;
        }
        let what = PARTS
            .iter()
            .find(|(part, _)| *part == name)
            .map_or("", |(_, what)| what);
        let share = temporal_slab::snapshot::share(bytes, stats.pages.resident);
        writeln!(
            to,
            "  {name:<10}{:>11}{:>7.1} %  {:<20}  {what}",
            Pad(Bytes(bytes)),
            share * 100.0,
            Bar(share),
        )?;
    }
    Ok(())
}

fn slow_path(to: &mut dyn Write, stats: &HeapStats) -> fmt::Result {
    let slow = &stats.slow;
    let counters = slow.counters();
    let causes = counters
        .iter()
        .filter_map(|counter| Some((counter.cause?, counter.value)));
    let all: u64 = causes.clone().map(|(_, count)| count).sum();
    writeln!(
        to,
        "\nslow paths: {} allocations ({} first uses), {} frees, {} refused",
        slow.hits(),
        slow.no_word,
        slow.spills,
        stats.errors.allocs.iter().sum::<u64>()
    )?;
    for (cause, count) in causes.filter(|(_, count)| *count > 0) {
        let share = temporal_slab::snapshot::share(count, all);
        writeln!(
            to,
            "  {cause:<14}{count:>12}{:>7.1} %  {}",
            share * 100.0,
            Bar(share)
        )?;
    }
    Ok(())
}

fn shared(to: &mut dyn Write, stats: &HeapStats) -> fmt::Result {
    let (locks, shared) = (stats.locks.all(), &stats.shared);
    writeln!(
        to,
        "locks: {} taken, {:.2} % waited; shared path: {} takes, {:.2} % retried, {} lists spread by CPU",
        locks.taken,
        locks.contention() * 100.0,
        shared.takes,
        shared.retry_rate() * 100.0,
        shared.spread,
    )?;
    let pages = &stats.pages;
    writeln!(
        to,
        "pages: {} chunks ({} got, {} given back), {} given back by {} decommits, {} failed",
        pages.chunks,
        pages.chunks_acquired,
        pages.chunks_released,
        Bytes(pages.decommitted_bytes),
        pages.decommits,
        pages.decommits_failed,
    )?;
    writeln!(
        to,
        "errors: {} frees and {} handles refused; {} late double frees",
        stats.errors.frees.iter().sum::<u64>(),
        stats.errors.handles.iter().sum::<u64>(),
        stats.errors.late_double_frees,
    )
}

fn classes<C: Config>(report: &Report<'_, C>, to: &mut dyn Write) -> fmt::Result {
    let heap = report.heap;
    writeln!(
        to,
        "\nclasses{:>8}{:>12}{:>8}{:>8}{:>10}{:>10}{:>10}",
        "slabs", "objects", "live", "empty", "made", "recycled", "slow"
    )?;
    for class in (0..heap.class_count()).filter_map(|index| heap.class_stats(index)) {
        let slabs = &class.slabs;
        if slabs.made == 0 {
            continue;
        }
        writeln!(
            to,
            "  {:<5}{}{:>7}{:>12}{:>8}{:>8}{:>10}{:>10}{:>10}",
            class.size,
            if class.has_handles { 'h' } else { ' ' },
            slabs.slabs,
            slabs.live_slots,
            Pad(Used(slabs.slots, slabs.live_slots)),
            slabs.empty(),
            slabs.made,
            slabs.recycled,
            class.slow.hits(),
        )?;
    }
    Ok(())
}

fn epoch(to: &mut dyn Write, stats: &EpochStats) -> fmt::Result {
    let state = match (stats.is_current, stats.is_open()) {
        (true, _) => '*',
        (false, true) => ' ',
        (false, false) => '-',
    };
    write!(
        to,
        "  {:>3}{state} era {:<10}{:>16}{:>12}{:>11}{:>11}",
        stats.epoch.index(),
        stats.epoch.era(),
        Name(stats.label.as_str()),
        stats.live_objects(),
        Pad(Bytes(stats.bytes)),
        Pad(Bytes(stats.live_bytes)),
    )?;
    match stats.age_ns {
        Some(age) => writeln!(to, "{:>7.1}s", age as f64 / 1e9),
        None => writeln!(to, "{:>8}", "-"),
    }
}

/// Which part of so many slots is live.
struct Used(u64, u64);

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("-"),
            slots => write!(
                f,
                "{:.0} %",
                temporal_slab::snapshot::share(self.1, slots) * 100.0
            ),
        }
    }
}

/// A bar of up to 20 signs.
struct Bar(f64);

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signs = (self.0 * 20.0 + 0.5) as usize;
        f.pad("####################".get(..signs.min(20)).unwrap_or(""))
    }
}

/// A label, or what stands for none.
struct Name<'t>(&'t str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.pad("(none)");
        }
        // It is at most 31 bytes long, and so is this.
        Pad(InLine(self.0)).fmt(f)
    }
}

/// Something short, padded as the format says.
struct Pad<T>(T);

impl<T: fmt::Display> fmt::Display for Pad<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut short = Short::default();
        write!(short, "{}", self.0)?;
        f.pad(short.as_str())
    }
}

#[derive(Default)]
struct Short {
    bytes: [u8; 32],
    len: usize,
}

impl Short {
    fn as_str(&self) -> &str {
        let text = self.bytes.get(..self.len).unwrap_or(&[]);
        core::str::from_utf8(text).unwrap_or("")
    }
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let place = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
