//! The table that a run prints.

use super::results::{Figure, Ratio, Results};
use core::fmt::Write;

/// A line for each variant and each of ours: the figures, and the ratio to the fastest peer.
pub(super) fn of(results: &Results) -> String {
    let mut text = String::new();
    let mut last = "";
    let peers = peers(results);
    for (workload, variant) in variants(results) {
        if workload != last {
            last = workload;
            let unit = results
                .results
                .iter()
                .find(|f| f.workload == workload)
                .map_or("", |f| &f.unit);
            let _ = write!(
                text,
                "\n{:<22}{:<16}{:>11}",
                format!("{workload} ({unit})"),
                "",
                "ours"
            );
            for peer in &peers {
                let _ = write!(text, "{peer:>12}");
            }
            let _ = writeln!(text, "   to the fastest peer");
        }
        line(&mut text, results, (workload, variant), &peers);
    }
    if results.environment.is_busy() {
        let load = results.environment.load;
        let _ = writeln!(
            text,
            "\nThe load was {load:.2} before the run: other programs had the CPUs, too."
        );
    }
    if results.results.iter().any(|figure| figure.noisy) {
        let _ = writeln!(
            text,
            "\n~ marks a figure whose rounds lie too far apart to be a fact."
        );
    }
    text
}

/// The peers that took part.
pub(super) fn peers(results: &Results) -> Vec<&str> {
    let mut peers: Vec<&str> = Vec::new();
    for ratio in &results.ratios {
        if !peers.contains(&ratio.peer.as_str()) {
            peers.push(&ratio.peer);
        }
    }
    peers
}

/// Workloads with their variants, in the order of the run.
pub(super) fn variants(results: &Results) -> Vec<(&str, &str)> {
    let mut variants: Vec<(&str, &str)> = Vec::new();
    for figure in &results.results {
        let variant = (figure.workload.as_str(), figure.variant.as_str());
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    variants
}

/// Those of ours that have a ratio in a variant, each with that to the fastest peer, or to the first of those that
/// are as fast.
pub(super) fn ours<'r>(results: &'r Results, (workload, variant): (&str, &str)) -> Vec<&'r Ratio> {
    let mut found: Vec<&Ratio> = Vec::new();
    for ratio in &results.ratios {
        let is_here = ratio.workload == workload && ratio.variant == variant && ratio.is_fastest;
        if is_here && !found.iter().any(|other| other.ours == ratio.ours) {
            found.push(ratio);
        }
    }
    found
}

pub(super) fn figure<'r>(
    results: &'r Results,
    (workload, variant): (&str, &str),
    contender: &str,
) -> Option<&'r Figure> {
    let mut figures = results.results.iter();
    figures.find(|f| f.workload == workload && f.variant == variant && f.contender == contender)
}

fn line(text: &mut String, results: &Results, variant: (&str, &str), peers: &[&str]) {
    for (index, ratio) in ours(results, variant).into_iter().enumerate() {
        let name = if index == 0 { variant.1 } else { "" };
        let _ = write!(text, "{name:<22}{:<16}", ratio.ours);
        let _ = write!(text, "{:>11}", shown(figure(results, variant, &ratio.ours)));
        for peer in peers {
            let shown = if index == 0 {
                shown(figure(results, variant, peer))
            } else {
                String::new()
            };
            let _ = write!(text, "{shown:>12}");
        }
        let (low, high) = (ratio.low, ratio.high);
        let _ = writeln!(
            text,
            "   {:.2} ({low:.2} to {high:.2}) of {}",
            ratio.ours_over_peer, ratio.peer
        );
    }
}

/// A figure, with a mark if it is none.
fn shown(figure: Option<&Figure>) -> String {
    figure.map_or_else(String::new, |figure| {
        let mark = if figure.noisy { "~" } else { "" };
        let digits = if figure.median < 1000.0 { 2 } else { 0 };
        format!("{mark}{:.digits$}", figure.median)
    })
}
