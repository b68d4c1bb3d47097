//! The page for people: one file, which needs nothing else.

mod plot;
mod tables;

use super::results::{Figure, Results, Series};
use super::table;
use anyhow::Result;
use core::fmt::Write;
use plot::Axes;

const STYLE: &str = include_str!("style.css");

/// A page of pictures, one for each variant of the series, whose axes are plain.
pub(crate) fn of_series(title: &str, about: &str, series: &[Series]) -> Result<String> {
    let mut page = begin(title);
    let _ = writeln!(page, "<p>{}</p>", Escaped(about));
    let all: Vec<&Series> = series.iter().collect();
    pictures(&mut page, &all, Axes::Plain)?;
    page += "</body></html>\n";
    Ok(page)
}

fn begin(title: &str) -> String {
    let title = Escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    )
}

/// The page.
pub(super) fn of(results: &Results) -> Result<String> {
    let mut page = begin("temporal-slab against its peers");
    page += "<p>Contenders take turns in one run. A ratio is the middle one of the rounds: below 1 ours took less. \
             Pale figures are of rounds that lie too far apart to be facts.</p>\n<dl>";
    for (name, value) in results.environment.lines() {
        let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", Escaped(&value));
    }
    page += "</dl>\n";
    tables::targets(&mut page, results);
    page += "<h2>Ratios</h2>\n<p>The geometric mean over the variants of a workload, for each of ours. Green: ours took \
             less.</p>\n";
    tables::heat(&mut page, results);
    tables::seed(&mut page, results);
    plots(
        &mut page,
        results,
        "latency",
        Axes::Tail,
        "Every call",
        LATENCY,
    )?;
    tables::causes(&mut page, results);
    plots(
        &mut page,
        results,
        "churn",
        Axes::Plain,
        "What stays resident",
        CHURN,
    )?;
    plots(
        &mut page,
        results,
        "scaling",
        Axes::Plain,
        "Threads",
        SCALING,
    )?;
    plots(
        &mut page,
        results,
        "requests",
        Axes::Tail,
        "Requests",
        REQUESTS,
    )?;
    page += "<h2>All figures</h2>\n";
    for workload in table::workloads(results) {
        let _ = writeln!(page, "<details><summary>{}</summary>", Escaped(workload));
        tables::ratios(&mut page, results, workload);
        for variant in table::variants(results)
            .into_iter()
            .filter(|(of, _)| *of == workload)
        {
            bars(&mut page, results, variant);
        }
        page += "</details>\n";
    }
    page += "</body></html>\n";
    Ok(page)
}

const LATENCY: &str = "The share of allocations (of 128 bytes) and frees that took longer than so long, each timed by \
    itself; what reading the clock costs is in each. Cold: nothing was taken from the allocator before. Touch: with the \
    first write to the object.";
const CHURN: &str = "Requests whose objects are freed some requests later, under a load that changes. Live is what a \
    program would need that had no allocator; the run ends with everything freed but what leaked. Committed is what the \
    heap has from the system, touched or not.";
const SCALING: &str = "Each thread replaces any of a thousand objects, over and over.";
const REQUESTS: &str = "The share of requests that took longer than so long: each is parsed into a map of lists of texts \
    and answered.";

/// A plot for each variant of a workload that has series.
fn plots(
    page: &mut String,
    results: &Results,
    workload: &str,
    axes: Axes,
    title: &str,
    about: &str,
) -> Result<()> {
    let all: Vec<&Series> = results
        .series
        .iter()
        .filter(|series| series.workload == workload)
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    let _ = writeln!(page, "<h2>{title}</h2>\n<p>{about}</p>");
    pictures(page, &all, axes)
}

/// A picture for each variant.
fn pictures(page: &mut String, all: &[&Series], axes: Axes) -> Result<()> {
    *page += "<div class=\"plots\">\n";
    let mut done: Vec<&str> = Vec::new();
    for first in all {
        let variant = first.variant.as_str();
        if done.contains(&variant) {
            continue;
        }
        done.push(variant);
        let same: Vec<&Series> = all
            .iter()
            .copied()
            .filter(|series| series.variant == variant)
            .collect();
        let _ = writeln!(
            page,
            "<figure><figcaption>{}</figcaption><ul class=\"legend\">",
            Escaped(variant)
        );
        for series in &same {
            let colour = plot::colour(&series.contender);
            let _ = writeln!(
                page,
                "<li><i style=\"background:var(--{colour})\"></i>{}</li>",
                Escaped(&series.contender)
            );
        }
        let _ = writeln!(
            page,
            "</ul><div class=\"scroll bare\">{}</div></figure>",
            plot::svg(&same, axes)?
        );
    }
    *page += "</div>\n";
    Ok(())
}

fn bars(page: &mut String, results: &Results, variant: (&str, &str)) {
    let is_here = |figure: &&Figure| (figure.workload.as_str(), figure.variant.as_str()) == variant;
    let figures: Vec<&Figure> = results.results.iter().filter(is_here).collect();
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
