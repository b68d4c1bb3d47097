//! Plots, as SVG in the page: their colours are the page's, for light and dark.

use crate::Series;
use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

/// What a plot's axes are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// Times to the right, shares that took longer upwards: both by factors of ten.
    Tail,
    /// Both from nothing on.
    Plain,
}

/// Contenders and the names of their colours, in the order in which they stand in a legend.
const COLOURS: [(&str, &str); 15] = [
    ("ours", "ours"),
    ("ours-epoch", "ours2"),
    ("ours-epoch-64", "ours5"),
    ("ours-on-close", "ours2"),
    ("ours-shared", "ours3"),
    ("ours-huge", "ours3"),
    ("ours-epoch-cold", "ours3"),
    ("ours-epoch-warm", "ours3"),
    ("ours-scope", "ours4"),
    ("ours-epoch, committed", "dim"),
    ("mimalloc", "peer1"),
    ("jemalloc", "peer2"),
    ("snmalloc", "peer3"),
    ("glibc", "peer4"),
    ("live", "dim2"),
];

/// The page's variable for a contender.
pub(super) fn colour(contender: &str) -> &'static str {
    let known = COLOURS.iter().find(|(name, _)| *name == contender);
    known.map_or("dim", |(_, colour)| colour)
}

// plotters knows colours by numbers alone: each of these stands for a variable of the page.
const MARKS: [(&str, RGBColor); 12] = [
    ("ours", RGBColor(1, 0, 1)),
    ("ours2", RGBColor(1, 0, 2)),
    ("ours3", RGBColor(1, 0, 3)),
    ("ours4", RGBColor(1, 0, 4)),
    ("ours5", RGBColor(1, 0, 12)),
    ("peer1", RGBColor(1, 0, 5)),
    ("peer2", RGBColor(1, 0, 6)),
    ("peer3", RGBColor(1, 0, 7)),
    ("peer4", RGBColor(1, 0, 8)),
    ("dim", RGBColor(1, 0, 9)),
    ("dim2", RGBColor(1, 0, 10)),
    ("line", RGBColor(1, 0, 11)),
];

fn mark(name: &str) -> RGBColor {
    let found = MARKS.iter().find(|(of, _)| *of == name);
    found.map_or(BLACK, |(_, mark)| *mark)
}

/// A picture of the series, which have their axes in common.
pub(super) fn svg(series: &[&Series], axes: Axes) -> Result<String> {
    let points = || {
        series
            .iter()
            .flat_map(|series| series.points.iter().copied())
    };
    let most = |of: fn((f64, f64)) -> f64| points().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let least = |of: fn((f64, f64)) -> f64| points().map(of).fold(f64::INFINITY, f64::min);
    let (x, y) = (most(|point| point.0), most(|point| point.1));
    let mut text = String::new();
    match axes {
        Axes::Tail => {
            let x = (least(|point| point.0) * 0.9..x * 1.2).log_scale();
            let y = (least(|point| point.1) * 0.8..1.0).log_scale();
            draw(&mut text, series, x, y, axes)?;
        }
        Axes::Plain => draw(&mut text, series, 0.0..x, 0.0..y * 1.08, axes)?,
    }
    for (name, RGBColor(red, green, blue)) in MARKS {
        let number = format!("\"#{red:02X}{green:02X}{blue:02X}\"");
        text = text.replace(&number, &format!("\"var(--{name})\""));
    }
    Ok(text.replace("\"#000000\"", "\"var(--fg)\""))
}

fn draw<X, Y>(text: &mut String, series: &[&Series], x: X, y: Y, axes: Axes) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let failed = |error: &dyn core::fmt::Display| anyhow!("a plot was not drawn: {error}");
    let first = series.first().ok_or_else(|| anyhow!("a plot of nothing"))?;
    let area = SVGBackend::with_string(text, (560, 340)).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .margin_right(16)
        .x_label_area_size(if axes == Axes::Tail { 28 } else { 44 })
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)
        .map_err(|error| failed(&error))?;
    let font = ("sans-serif", 15).into_font();
    let number: fn(&f64) -> String = |value| format!("{value}");
    let (x_label, y_label) = match axes {
        Axes::Tail => (duration as fn(&f64) -> String, part as fn(&f64) -> String),
        Axes::Plain => (number, number),
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(mark("line"))
        .axis_style(mark("line"))
        .label_style(font)
        .x_labels(8)
        .y_labels(8)
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label)
        .x_desc(if axes == Axes::Tail {
            ""
        } else {
            first.x.as_str()
        })
        .y_desc(if axes == Axes::Tail {
            ""
        } else {
            first.y.as_str()
        })
        .draw()
        .map_err(|error| failed(&error))?;
    for series in series {
        let style = mark(colour(&series.contender)).stroke_width(2);
        let line = LineSeries::new(series.points.iter().copied(), style);
        chart.draw_series(line).map_err(|error| failed(&error))?;
    }
    area.present().map_err(|error| failed(&error))?;
    Ok(())
}

/// Nanoseconds, as a person would say it.
fn duration(ns: &f64) -> String {
    let ns = *ns;
    if ns >= 1e6 {
        format!("{} ms", ns / 1e6)
    } else if ns >= 1e3 {
        format!("{} us", ns / 1e3)
    } else {
        format!("{ns} ns")
    }
}

/// A share. More digits than a plot has rows of are of the computation.
fn part(share: &f64) -> String {
    let percent = (share * 1e9).round() / 1e7;
    format!("{percent} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(contender: &str, points: &[(f64, f64)]) -> Series {
        Series {
            workload: "w".to_owned(),
            variant: "v".to_owned(),
            contender: contender.to_owned(),
            x: "<ns>".to_owned(),
            y: "share".to_owned(),
            points: points.to_vec(),
        }
    }

    /// A line for each contender in its colour, no number of a colour left, and what is written in a label is text.
    #[test]
    fn plots_have_the_colours_of_the_page() {
        let ours = series("ours", &[(10.0, 1.0), (100.0, 0.01)]);
        let peer = series("mimalloc", &[(10.0, 1.0), (5000.0, 0.001)]);
        for axes in [Axes::Tail, Axes::Plain] {
            let text = svg(&[&ours, &peer], axes).unwrap();
            assert!(
                text.starts_with("<svg") && text.contains("stroke=\"var(--ours)\""),
                "{text}"
            );
            assert!(text.contains("stroke=\"var(--peer1)\""), "{text}");
            assert!(!text.contains("\"#") && !text.contains("<ns>"), "{text}");
        }
        assert!(svg(&[], Axes::Plain).is_err());
        assert_eq!(
            (duration(&2000.0).as_str(), part(&0.001).as_str()),
            ("2 us", "0.1 %")
        );
    }
}
