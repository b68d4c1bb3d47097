//! The page for people: one file, which needs nothing else.

mod tables;

use super::results::{Figure, Results};
use super::table;
use anyhow::Result;
use core::fmt::Write;
use temporal_slab_page::{Axes, END, Escaped, Series, begin, pictures};

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
    page += END;
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
