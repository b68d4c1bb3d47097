//! The table: what each contender took, and how ours compares with the fastest peer.

use core::fmt::Write as _;
use std::fs;

use super::driver::{Figures, Role, Row, quantile};
use super::pattern::Pattern;

/// How much of the fastest peer's time ours may take.
const fn target(pattern: Pattern) -> f64 {
    match pattern {
        Pattern::Pair => 0.7,
        Pattern::InOrder | Pattern::Reversed => 0.8,
        Pattern::Random => 0.9,
        Pattern::Mixed | Pattern::TwoAtOnce => 0.6,
        Pattern::Across => 0.35,
        Pattern::FreeMillion => 0.5,
    }
}

/// How many times the local's time the shared path may take.
const SHARED_TARGET: f64 = 3.0;

const COLUMNS: [&str; 5] = ["ours", "ours-shared", "mimalloc", "jemalloc", "glibc"];

const NOTES: &str = "\
Nanoseconds for an allocation and a free; for free-million, for a free. Medians over rounds in which
all contenders have a turn each. The ratio is ours to the fastest peer (*), with its quartiles over the
rounds; that of the shared path is to ours.
free-million: the default policy gives memory back to the system inside the timed region. With the
policy OnClose (the lines +on-close) it does not.
";

/// A load average above which figures are not to be trusted.
const BUSY: f64 = 0.5;

/// Lines as rows come in, and what became of the targets.
#[derive(Debug)]
pub(crate) struct Table {
    load: Option<f64>,
    text: String,
    met: usize,
    missed: Vec<String>,
}

impl Table {
    /// An empty table. To be made before anything runs: it notes how busy the machine is.
    pub(crate) fn new() -> Self {
        let load = fs::read_to_string("/proc/loadavg").ok();
        Self {
            load: load.and_then(|load| load.split(' ').next()?.parse().ok()),
            text: String::new(),
            met: 0,
            missed: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, row: Row, figures: &[Figures]) {
        let of = |role| figures.iter().find(|f| f.role == role);
        let fastest = figures
            .iter()
            .filter(|f| f.role == Role::Peer)
            .min_by(|a, b| a.median().total_cmp(&b.median()));
        let (Some(ours), Some(fastest)) = (of(Role::Ours), fastest) else {
            return;
        };
        let shared = of(Role::Shared);
        self.line(row, &row.name(), figures, ours, fastest);
        if let Some(shared) = shared {
            let name = format!("{} (shared)", row.name());
            self.compare("| shared", &name, shared, ours, SHARED_TARGET);
        }
        self.end_line();
        if let Some(on_close) = of(Role::OursOnClose) {
            let name = format!("{}+on-close", row.name());
            self.line(row, &name, &[], on_close, fastest);
            self.end_line();
        }
    }

    /// The figures of a line, of which `ours` may be a variant, and the comparison with the peer.
    fn line(&mut self, row: Row, name: &str, all: &[Figures], ours: &Figures, fastest: &Figures) {
        let _ = write!(self.text, "{name:27}");
        for column in COLUMNS {
            let shown = if column == COLUMNS[0] {
                Some(ours)
            } else {
                all.iter().find(|f| f.name == column)
            };
            let mark = if column == fastest.name && !all.is_empty() {
                '*'
            } else {
                ' '
            };
            let _ = match shown {
                Some(figures) => write!(self.text, " {:>10.2}{mark}", figures.median()),
                None => write!(self.text, " {:>10} ", ""),
            };
        }
        self.compare("|", name, ours, fastest, target(row.pattern));
    }

    /// `figures` in relation to `base`, and whether that is within the target.
    fn compare(
        &mut self,
        heading: &str,
        name: &str,
        figures: &Figures,
        base: &Figures,
        target: f64,
    ) {
        let ratio = figures.median() / base.median();
        let pairs = figures.rounds.iter().zip(&base.rounds);
        let by_round: Vec<f64> = pairs.map(|(a, b)| a / b).collect();
        let verdict = if ratio <= target {
            self.met += 1;
            "met"
        } else {
            self.missed
                .push(format!("{name}: {ratio:.2}, not {target}"));
            "MISSED"
        };
        let (low, high) = (quantile(&by_round, 0.25), quantile(&by_round, 0.75));
        let _ = write!(
            self.text,
            " {heading} {ratio:5.2} ({low:.2}-{high:.2}) of {target:<4} {verdict:6}"
        );
    }

    fn end_line(&mut self) {
        self.text.truncate(self.text.trim_end().len());
        self.text.push('\n');
    }

    /// The lines that were added, with a heading and a summary; nothing if there were none.
    pub(crate) fn finish(self) -> String {
        let Self {
            load,
            text,
            met,
            missed,
        } = self;
        if text.is_empty() {
            return String::new();
        }
        let mut out = format!("\n{NOTES}\n{:27}", "");
        for column in COLUMNS {
            let _ = write!(out, " {column:>10} ");
        }
        out.truncate(out.trim_end().len());
        let _ = write!(out, "\n{text}\n{met} of {} targets met", met + missed.len());
        if let Some(load) = load.filter(|&load| load > BUSY) {
            let _ = write!(
                out,
                " (the load average was {load} before the run: other programs had the CPUs as well, \
                 and figures for two threads mean little)"
            );
        }
        if missed.is_empty() {
            out.push('\n');
        } else {
            let _ = write!(out, "; missed:\n  {}\n", missed.join("\n  "));
        }
        out
    }
}
