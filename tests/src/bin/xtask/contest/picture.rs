//! A page with a picture for each pattern: every contender on the plane of time and memory.

use std::fmt::Write as _;

use super::report::Report;

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 280.0;
/// What is left of the axes, and below them.
const EDGE: f64 = 52.0;

pub(crate) fn page(reports: &[Report]) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>temporal-slab: contest</title>\n\
         <style>body{font:14px sans-serif;margin:2em}svg{border:1px solid #ddd;margin:4px}text{font:11px sans-serif}</style>\n\
         <p>Time to the right, peak memory upwards, both by their logarithms. Ours is red; who is on the front is filled.</p>\n",
    );
    for report in reports {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "<h2>{}</h2>", report.mode.name());
        let mean = report.means();
        page += &picture(report, "mean, to the best", &mean, ("times", "times"));
        for row in &report.rows {
            page += &picture(report, &row.name, &report.points(row), ("ms", "MiB"));
        }
    }
    page
}

/// An axis by logarithms: from where to where.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// With room around the values; of values that are nearly the same it does not make much.
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::MAX, f64::min);
        let high = values.fold(low * 1.2, f64::max);
        let room = (high / low).powf(0.12);
        Self {
            low: low / room,
            high: high * room,
        }
    }

    /// From 0 to 1.
    fn part(&self, value: f64) -> f64 {
        (value / self.low).ln() / (self.high / self.low).ln()
    }

    /// Round values within: 1, 2 and 5 of each power of ten, or finer ones where that is not two.
    fn ticks(&self) -> Vec<f64> {
        let from = |steps: &[f64]| -> Vec<f64> {
            let powers = (-3..7).map(|power| 10f64.powi(power));
            let all = powers.flat_map(|power| steps.iter().map(move |step| step * power));
            all.filter(|tick| (self.low..self.high).contains(tick))
                .collect()
        };
        let coarse = from(&[1.0, 2.0, 5.0]);
        if coarse.len() >= 2 {
            return coarse;
        }
        from(&[
            1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0,
        ])
    }
}

fn picture(report: &Report, title: &str, points: &[(f64, f64)], units: (&str, &str)) -> String {
    let (across, up) = (
        Axis::of(points.iter().map(|point| point.0)),
        Axis::of(points.iter().map(|point| point.1)),
    );
    let x = |time: f64| EDGE + across.part(time) * (WIDTH - EDGE - 10.0);
    let y = |peak: f64| HEIGHT - 34.0 - up.part(peak) * (HEIGHT - 60.0);
    let mut svg = format!(
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\"><text x=\"{EDGE}\" y=\"16\" font-weight=\"bold\">{title}</text>\n"
    );
    let (left, bottom) = (EDGE, HEIGHT - 34.0);
    for tick in across.ticks() {
        let at = x(tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {bottom}V26\" stroke=\"#eee\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 14.0,
            shown(tick)
        );
    }
    for tick in up.ticks() {
        let at = y(tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {at:.1}H{}\" stroke=\"#eee\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - 10.0,
            left - 4.0,
            at + 4.0,
            shown(tick)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><text x=\"4\" y=\"16\">{}</text>",
        WIDTH - 10.0,
        HEIGHT - 4.0,
        units.0,
        units.1
    );
    // Labels from the top down, each below those that it would cover.
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| points[b].1.total_cmp(&points[a].1));
    let mut labels: Vec<(f64, f64)> = Vec::new();
    let front = report.front(points);
    for place in order {
        let (at_x, at_y) = (x(points[place].0), y(points[place].1));
        let color = if report.is_peer(place) {
            "#357"
        } else {
            "#c22"
        };
        let fill = if front[place] { color } else { "none" };
        let is_right = at_x > WIDTH - 80.0;
        let label_x = if is_right { at_x - 7.0 } else { at_x + 7.0 };
        let mut label_y = at_y + 4.0;
        while let Some(other) = labels.iter().find(|(other_x, other_y)| {
            (other_x - label_x).abs() < 62.0 && (other_y - label_y).abs() < 10.0
        }) {
            label_y = other.1 + 10.5;
        }
        labels.push((label_x, label_y));
        let _ = writeln!(
            svg,
            "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"{color}\"/>\
             <text x=\"{label_x:.1}\" y=\"{label_y:.1}\" fill=\"{color}\" text-anchor=\"{}\">{}</text>",
            if is_right { "end" } else { "start" },
            report.contenders[place].name
        );
    }
    svg + "</svg>\n"
}

/// A tick's value, as short as it can be.
fn shown(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
