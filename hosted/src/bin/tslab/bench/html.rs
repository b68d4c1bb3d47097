//! The page for people: one file, which needs nothing else.

use super::results::{Figure, Results};
use super::table;
use core::fmt::Write;

const STYLE: &str = "
:root { color-scheme: light dark; --fg: #1c2024; --dim: #60646c; --bg: #fcfcfd; --card: #fff; --line: #d9d9e0;
  --ours: #30a46c; --peer: #8b8d98; }
@media (prefers-color-scheme: dark) {
  :root { --fg: #edeef0; --dim: #b0b4ba; --bg: #111113; --card: #18191b; --line: #363a3f; --ours: #3dd68c; --peer: #777b84; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; background: var(--bg); color: var(--fg);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p { margin: .25rem 0 1rem; color: var(--dim); max-width: 45rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .875rem; margin: 1rem 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
thead th { color: var(--dim); font-weight: 500; border-bottom: 1px solid var(--line); }
td.heat { background: hsl(var(--hue) 60% 50% / .28); }
.bars { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr max-content; gap: .2rem .75rem;
  align-items: center; font-size: .8125rem; margin: .25rem 0 1.25rem; }
.bars i { display: block; height: .8rem; border-radius: .2rem; background: var(--peer); min-width: 2px; }
.bars i.ours { background: var(--ours); } .bars span:nth-child(3n) { color: var(--dim); }
h3 { font-size: .9375rem; margin: 1rem 0 .25rem; font-weight: 600; }
.noisy { opacity: .55; }
";

/// The page.
pub(super) fn of(results: &Results) -> String {
    let mut page =
        String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    let _ = writeln!(
        page,
        "<title>temporal-slab against its peers</title><style>{STYLE}</style></head><body>"
    );
    page += "<h1>temporal-slab against its peers</h1>\n";
    page += "<p>Contenders take turns in one run. A ratio is the middle one of the rounds: below 1 ours took less time. \
             Pale figures are of rounds that lie too far apart to be facts.</p>\n<dl>";
    for (name, value) in results.environment.lines() {
        let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", Escaped(&value));
    }
    page += "</dl>\n<h2>Ratios</h2>\n<div class=\"scroll\">";
    heat(&mut page, results);
    page += "</div>\n";
    let mut last = "";
    for (workload, variant) in table::variants(results) {
        if workload != last {
            last = workload;
            let _ = writeln!(page, "<h2>{}</h2>", Escaped(workload));
        }
        bars(&mut page, results, (workload, variant));
    }
    page += "</body></html>\n";
    page
}

/// A line for each variant and each of ours, a column for each peer.
fn heat(page: &mut String, results: &Results) {
    let peers = table::peers(results);
    *page += "<table><thead><tr><th>workload</th><th>ours</th>";
    for peer in &peers {
        let _ = write!(page, "<th>{}</th>", Escaped(peer));
    }
    *page += "</tr></thead><tbody>\n";
    for variant in table::variants(results) {
        for ours in table::ours(results, variant) {
            let name = format!("{}/{}", variant.0, variant.1);
            let _ = write!(
                page,
                "<tr><td>{}</td><td>{}</td>",
                Escaped(&name),
                Escaped(&ours.ours)
            );
            for peer in &peers {
                let mut ratios = results.ratios.iter();
                let found = ratios.find(|ratio| {
                    (ratio.workload.as_str(), ratio.variant.as_str()) == variant
                        && ratio.ours == ours.ours
                        && ratio.peer == *peer
                });
                match found {
                    Some(ratio) => {
                        let (low, high) = (ratio.low, ratio.high);
                        let hue = hue(ratio.ours_over_peer);
                        let _ = write!(
                            page,
                            "<td class=\"heat\" style=\"--hue:{hue}\" title=\"{low:.2} to {high:.2}\">{:.2}</td>",
                            ratio.ours_over_peer
                        );
                    }
                    None => *page += "<td></td>",
                }
            }
            *page += "</tr>\n";
        }
    }
    *page += "</tbody></table>";
}

/// From green (a quarter of the time) by yellow (as much) to red (twice as much).
fn hue(ratio: f64) -> u32 {
    let position = (1.0 - ratio.max(0.01).log2()).clamp(0.0, 3.0) / 3.0;
    (position * 140.0).round() as u32
}

fn bars(page: &mut String, results: &Results, variant: (&str, &str)) {
    let figures: Vec<&Figure> = results
        .results
        .iter()
        .filter(|f| (f.workload.as_str(), f.variant.as_str()) == variant)
        .collect();
    let most = figures
        .iter()
        .map(|figure| figure.median)
        .fold(0.0, f64::max);
    let _ = write!(page, "<h3>{}</h3><div class=\"bars\">", Escaped(variant.1));
    for figure in figures {
        let width = if most > 0.0 {
            figure.median / most * 100.0
        } else {
            0.0
        };
        let ours = if figure.contender.starts_with("ours") {
            " class=\"ours\""
        } else {
            ""
        };
        let noisy = if figure.noisy { " class=\"noisy\"" } else { "" };
        let _ = write!(
            page,
            "<span{noisy}>{}</span><span{noisy}><i{ours} style=\"width:{width:.1}%\"></i></span>\
             <span{noisy}>{:.2} {}</span>",
            Escaped(&figure.contender),
            figure.median,
            Escaped(&figure.unit)
        );
    }
    *page += "</div>\n";
}

/// A text in a page.
struct Escaped<'t>(&'t str);

impl core::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                _ => f.write_char(char)?,
            }
        }
        Ok(())
    }
}
