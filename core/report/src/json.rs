//! JSON, in the form that `stats.schema.json` in this crate's `docs` describes.

use super::labels::epochs;
use super::metric::{Metric, Value, of_class, of_epoch, of_heap, of_label};
use super::{Labels, Report, diagnose};
use core::fmt::{self, Write};
use temporal_slab::Epoch;
use temporal_slab::config::Config;
use temporal_slab::snapshot::{EpochStats, VERSION};

/// Writes one report.
pub(super) fn write<C: Config>(report: &Report<'_, C>, to: &mut dyn Write) -> fmt::Result {
    let heap = report.heap;
    write!(to, "{{\"schema\":{VERSION},\"heap\":{{")?;
    let stats = heap.stats();
    figures(to, false, |sink| of_heap(&stats, sink))?;
    write!(to, "}},\"classes\":[")?;
    let mut is_first = true;
    for class in (0..heap.class_count()).filter_map(|index| heap.class_stats(index)) {
        comma(to, &mut is_first)?;
        write!(
            to,
            "{{\"size\":{},\"handles\":{},\"slots_per_slab\":{},\"slab_bytes\":{}",
            class.size, class.has_handles, class.slots_per_slab, class.slab_bytes
        )?;
        figures(to, true, |sink| of_class(&class, sink))?;
        write!(to, "}}")?;
    }
    write!(to, "],\"epochs\":[")?;
    is_first = true;
    for stats in epochs(heap, 0).filter_map(|(_, epoch)| heap.epoch_stats(epoch).ok()) {
        comma(to, &mut is_first)?;
        write!(to, "{{")?;
        epoch(to, &stats)?;
        figures(to, true, |sink| of_epoch(&stats, sink))?;
        write!(to, "}}")?;
    }
    write!(to, "],\"labels\":[")?;
    is_first = true;
    let labels = Labels::read(heap, report.top);
    for label in labels.top() {
        comma(to, &mut is_first)?;
        write!(to, "{{\"label\":{}", Text(label.label.as_str()))?;
        figures(to, true, |sink| of_label(label, sink))?;
        write!(to, "}}")?;
    }
    write!(to, "],\"latency\":{{")?;
    is_first = true;
    for (cause, times) in report.sampled() {
        comma(to, &mut is_first)?;
        write!(
            to,
            "\"{}\":{{\"count\":{},\"sum_ns\":{},\"p50_ns\":{},\"p99_ns\":{},\"p999_ns\":{},\"max_ns\":{}}}",
            cause.name(),
            times.count(),
            times.sum_ns(),
            times.quantile_ns(0.5),
            times.quantile_ns(0.99),
            times.quantile_ns(0.999),
            times.longest_ns(),
        )?;
    }
    write!(to, "}},\"other_labels\":{{")?;
    figures(to, false, |sink| of_label(&labels.other, sink))?;
    write!(to, "}},\"findings\":[")?;
    is_first = true;
    for finding in diagnose(heap, &report.thresholds).findings() {
        comma(to, &mut is_first)?;
        write!(
            to,
            "{{\"kind\":\"{}\",\"severity\":\"{}\",\"bytes\":{},\"evidence\":{},\"action\":{}}}",
            finding.name(),
            finding.severity().name(),
            finding.bytes(),
            Text(finding),
            Text(finding.action()),
        )?;
    }
    write!(to, "]}}")
}

fn epoch(to: &mut dyn Write, stats: &EpochStats) -> fmt::Result {
    let token: Epoch = stats.epoch;
    write!(
        to,
        "\"position\":{},\"era\":{},\"label\":{},\"open\":{},\"current\":{},\"age_ns\":{}",
        token.index(),
        token.era(),
        Text(stats.label.as_str()),
        stats.is_open(),
        stats.is_current,
        OrNull(stats.age_ns),
    )?;
    let (before, after) = stats
        .last_close
        .map(|close| (close.resident_before, close.resident_after))
        .unzip();
    write!(
        to,
        ",\"resident_before_close\":{},\"resident_after_close\":{}",
        OrNull(before),
        OrNull(after)
    )
}

fn comma(to: &mut dyn Write, is_first: &mut bool) -> fmt::Result {
    if !core::mem::replace(is_first, false) {
        to.write_char(',')?;
    }
    Ok(())
}

/// Writes figures as the fields of an object that is open; parts of one name are an object of their own.
fn figures(
    to: &mut dyn Write,
    mut has_fields: bool,
    visit: impl FnOnce(&mut dyn FnMut(Metric)),
) -> fmt::Result {
    let mut done = Ok(());
    let mut open: Option<&str> = None;
    visit(&mut |metric| {
        if done.is_ok() {
            done = figure(to, metric, &mut has_fields, &mut open);
        }
    });
    done?;
    if open.is_some() {
        to.write_char('}')?;
    }
    Ok(())
}

fn figure(
    to: &mut dyn Write,
    metric: Metric,
    has_fields: &mut bool,
    open: &mut Option<&'static str>,
) -> fmt::Result {
    let goes_on = metric.part.is_some() && *open == Some(metric.name);
    if !goes_on && open.take().is_some() {
        to.write_char('}')?;
    }
    if *has_fields {
        to.write_char(',')?;
    }
    *has_fields = true;
    if let Some((_, part)) = metric.part {
        if !goes_on {
            write!(to, "\"{}\":{{", metric.name)?;
            *open = Some(metric.name);
        }
        write!(to, "\"{part}\":")?;
    } else {
        write!(to, "\"{}\":", metric.name)?;
    }
    match metric.value {
        Value::Count(count) => write!(to, "{count}"),
        Value::Share(share) => write!(to, "{share:.6}"),
    }
}

/// A number, or `null`.
struct OrNull(Option<u64>);

impl fmt::Display for OrNull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number}"),
            None => f.write_str("null"),
        }
    }
}

/// A text in quotes.
struct Text<T>(T);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write!(Escape(f), "{}", self.0)?;
        f.write_char('"')
    }
}

/// Escapes what a JSON text may not hold as it is.
struct Escape<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            match char {
                '"' | '\\' => write!(self.0, "\\{char}")?,
                '\0'..='\x1f' => write!(self.0, "\\u{:04x}", u32::from(char))?,
                _ => self.0.write_char(char)?,
            }
        }
        Ok(())
    }
}
