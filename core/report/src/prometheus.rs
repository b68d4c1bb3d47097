//! The text format of Prometheus, version 0.0.4: figures of the heap, of each class that is in use, and of the
//! labels that hold the most. There are no more series than that, whatever the program calls its epochs.

use super::metric::{Kind, Metric, Value, of_class, of_heap, of_label};
use super::{Labels, Report};
use core::fmt::{self, Write};
use temporal_slab::class::MAX_CLASSES;
use temporal_slab::config::Config;
use temporal_slab::snapshot::ClassStats;

/// What every name begins with.
const PREFIX: &str = "temporal_slab_";

/// Figures of classes that are read at a time. The format wants all samples of a name together, so classes are
/// read several times, and never all of their figures are kept.
const AT_ONCE: usize = 8;

/// Writes one report.
pub(super) fn write<C: Config>(report: &Report<'_, C>, to: &mut dyn Write) -> fmt::Result {
    let heap = report.heap;
    let stats = heap.stats();
    let mut last = "";
    each(
        |sink| of_heap(&stats, sink),
        |metric| {
            if metric.name != last {
                head(to, "", &metric)?;
                last = metric.name;
            }
            sample(to, "", &metric, None)
        },
    )?;
    classes(report, to)?;
    latency(report, to)?;
    let labels = Labels::read(heap, report.top);
    // With a label more, so that it is told apart from an epoch that is called so.
    let top = labels.top().iter().map(|label| (label, false));
    let all = top.chain([(&labels.other, true)]);
    let mut index = 0;
    loop {
        let mut is_known = false;
        for (label, rest) in all.clone() {
            let found = nth(|sink| of_label(label, sink), index);
            let Some(metric) = found else { break };
            if !is_known {
                head(to, "label_", &metric)?;
                is_known = true;
            }
            let label = Escaped(label.label.as_str());
            sample(
                to,
                "label_",
                &metric,
                Some(format_args!("label=\"{label}\",rest=\"{rest}\"")),
            )?;
        }
        if !is_known {
            return Ok(());
        }
        index += 1;
    }
}

/// A class and some of its figures, as bits.
#[derive(Clone, Copy)]
struct Column {
    size: usize,
    has_handles: bool,
    bits: [u64; AT_ONCE],
}

fn classes<C: Config>(report: &Report<'_, C>, to: &mut dyn Write) -> fmt::Result {
    let heap = report.heap;
    let is_used = |class: &ClassStats| class.slabs.made > 0;
    let (mut first, mut last) = (0, "");
    loop {
        let mut columns: [Option<Column>; 2 * MAX_CLASSES] = [None; 2 * MAX_CLASSES];
        let mut heads: [Option<Metric>; AT_ONCE] = [None; AT_ONCE];
        let found = (0..heap.class_count()).filter_map(|index| heap.class_stats(index));
        for (class, column) in found.filter(is_used).zip(&mut columns) {
            let mut bits = [0; AT_ONCE];
            let mut index = 0;
            of_class(&class, &mut |metric| {
                let at = index_in(index, first);
                if let Some(at) = at {
                    heads[at] = Some(metric);
                    bits[at] = match metric.value {
                        Value::Count(count) => count,
                        Value::Share(share) => share.to_bits(),
                    };
                }
                index += 1;
            });
            *column = Some(Column {
                size: class.size,
                has_handles: class.has_handles,
                bits,
            });
        }
        for (at, metric) in heads.iter().enumerate() {
            let Some(metric) = metric else {
                return Ok(());
            };
            if metric.name != last {
                head(to, "class_", metric)?;
                last = metric.name;
            }
            for column in columns.iter().flatten() {
                let value = match metric.value {
                    Value::Count(_) => Value::Count(column.bits[at]),
                    Value::Share(_) => Value::Share(f64::from_bits(column.bits[at])),
                };
                let metric = Metric { value, ..*metric };
                let (size, handles) = (column.size, column.has_handles);
                sample(
                    to,
                    "class_",
                    &metric,
                    Some(format_args!("class=\"{size}\",handles=\"{handles}\"")),
                )?;
            }
        }
        first += AT_ONCE;
    }
}

/// A histogram with a bucket for each doubling, in seconds as the format's users expect.
fn latency<C: Config>(report: &Report<'_, C>, to: &mut dyn Write) -> fmt::Result {
    let mut is_first = true;
    for (cause, times) in report.sampled() {
        if core::mem::replace(&mut is_first, false) {
            writeln!(
                to,
                "# HELP {PREFIX}alloc_seconds Sampled times of allocations"
            )?;
            writeln!(to, "# TYPE {PREFIX}alloc_seconds histogram")?;
        }
        let cause = cause.name();
        for doubling in 4..31 {
            let ns = 1u64 << doubling;
            let (below, le) = (times.below(ns), ns as f64 / 1e9);
            writeln!(
                to,
                "{PREFIX}alloc_seconds_bucket{{cause=\"{cause}\",le=\"{le}\"}} {below}"
            )?;
        }
        let (count, sum) = (times.count(), times.sum_ns() as f64 / 1e9);
        writeln!(
            to,
            "{PREFIX}alloc_seconds_bucket{{cause=\"{cause}\",le=\"+Inf\"}} {count}"
        )?;
        writeln!(to, "{PREFIX}alloc_seconds_sum{{cause=\"{cause}\"}} {sum}")?;
        writeln!(
            to,
            "{PREFIX}alloc_seconds_count{{cause=\"{cause}\"}} {count}"
        )?;
    }
    Ok(())
}

fn index_in(index: usize, first: usize) -> Option<usize> {
    index.checked_sub(first).filter(|at| *at < AT_ONCE)
}

/// Calls `f` with each figure until it fails.
fn each(
    visit: impl FnOnce(&mut dyn FnMut(Metric)),
    mut f: impl FnMut(Metric) -> fmt::Result,
) -> fmt::Result {
    let mut done = Ok(());
    visit(&mut |metric| {
        if done.is_ok() {
            done = f(metric);
        }
    });
    done
}

fn nth(visit: impl FnOnce(&mut dyn FnMut(Metric)), index: usize) -> Option<Metric> {
    let (mut found, mut at) = (None, 0);
    visit(&mut |metric| {
        if at == index {
            found = Some(metric);
        }
        at += 1;
    });
    found
}

fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "_total",
        Kind::Gauge => "",
    }
}

fn head(to: &mut dyn Write, of: &str, metric: &Metric) -> fmt::Result {
    let (name, suffix) = (metric.name, suffix(metric.kind));
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    writeln!(to, "# HELP {PREFIX}{of}{name}{suffix} {}", metric.help)?;
    writeln!(to, "# TYPE {PREFIX}{of}{name}{suffix} {kind}")
}

fn sample(
    to: &mut dyn Write,
    of: &str,
    metric: &Metric,
    labels: Option<fmt::Arguments<'_>>,
) -> fmt::Result {
    write!(to, "{PREFIX}{of}{}{}", metric.name, suffix(metric.kind))?;
    match (labels, metric.part) {
        (Some(labels), Some((label, part))) => write!(to, "{{{labels},{label}=\"{part}\"}}")?,
        (Some(labels), None) => write!(to, "{{{labels}}}")?,
        (None, Some((label, part))) => write!(to, "{{{label}=\"{part}\"}}")?,
        (None, None) => {}
    }
    match metric.value {
        Value::Count(count) => writeln!(to, " {count}"),
        Value::Share(share) => writeln!(to, " {share:.6}"),
    }
}

/// A label's value.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                _ => f.write_char(char)?,
            }
        }
        Ok(())
    }
}
