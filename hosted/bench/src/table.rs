//! The table that a run prints.

use super::results::{Figure, NOISE, Ratio, Results, Standing};
use core::fmt::Write;

/// A line for each variant and each of ours: the figures, and the ratio to the fastest peer.
pub(super) fn of(results: &Results) -> String {
    let mut text = String::new();
    let mut last = "";
    let mut columns: Vec<&str> = Vec::new();
    for (workload, variant) in variants(results) {
        if workload != last {
            last = workload;
            columns = peers(results, workload);
            let _ = write!(text, "\n{workload:<28}{:<17}{:>11}", "", "ours");
            for peer in &columns {
                let _ = write!(text, "{peer:>0$}", width(peer));
            }
            let rest = if columns.is_empty() {
                ""
            } else {
                "      to the fastest peer"
            };
            let _ = writeln!(text, "   unit{rest}");
        }
        lines(&mut text, results, (workload, variant), &columns);
    }
    verdicts(&mut text, results);
    if let Some(clock) = results.clock_ns {
        let _ = writeln!(
            text,
            "\nReading the clock costs {clock:.0} ns, which is in every figure of latency."
        );
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
            "\n~ marks a figure whose rounds lie too far apart to be a fact: the quartiles by over {:.0} % of the median.",
            NOISE * 100.0
        );
    }
    text
}

fn verdicts(text: &mut String, results: &Results) {
    let standing = |standing| {
        results
            .targets
            .iter()
            .filter(move |t| t.standing == standing)
    };
    let (met, missed) = (
        standing(Standing::Met).count(),
        standing(Standing::Missed).count(),
    );
    let _ = writeln!(
        text,
        "\n{met} of {} bounds are met, {missed} are missed.",
        results.targets.len()
    );
    for (word, which) in [
        ("missed", Standing::Missed),
        ("undecided", Standing::Undecided),
    ] {
        for target in standing(which) {
            let _ = writeln!(
                text,
                "{word}: {}/{}: {} is at {:.2} of {}, and {:.2} is the bound",
                target.workload,
                target.variant,
                target.ours,
                target.ours_over_peer,
                target.peer,
                target.at_most
            );
        }
    }
}

fn width(peer: &str) -> usize {
    (peer.len() + 2).max(11)
}

/// The peers that took part in a workload.
pub(super) fn peers<'r>(results: &'r Results, workload: &str) -> Vec<&'r str> {
    let mut peers: Vec<&str> = Vec::new();
    for ratio in results
        .ratios
        .iter()
        .filter(|ratio| ratio.workload == workload)
    {
        if !peers.contains(&ratio.peer.as_str()) {
            peers.push(&ratio.peer);
        }
    }
    peers
}

/// Workloads, in the order of the run.
pub(super) fn workloads(results: &Results) -> Vec<&str> {
    let mut workloads: Vec<&str> = Vec::new();
    for (workload, _) in variants(results) {
        if !workloads.contains(&workload) {
            workloads.push(workload);
        }
    }
    workloads
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

fn lines(text: &mut String, results: &Results, variant: (&str, &str), peers: &[&str]) {
    let is_here = |figure: &&Figure| (figure.workload.as_str(), figure.variant.as_str()) == variant;
    let all: Vec<&Figure> = results.results.iter().filter(is_here).collect();
    let to_fastest = ours(results, variant);
    let of_ours = all
        .iter()
        .filter(|figure| !peers.contains(&figure.contender.as_str()));
    for (index, figure) in of_ours.enumerate() {
        let name = if index == 0 { variant.1 } else { "" };
        let _ = write!(
            text,
            "{name:<28}{:<17}{:>11}",
            figure.contender,
            shown(Some(figure))
        );
        for peer in peers {
            let theirs = all
                .iter()
                .find(|figure| index == 0 && figure.contender == *peer);
            let _ = write!(text, "{:>1$}", shown(theirs.copied()), width(peer));
        }
        let ratio = to_fastest
            .iter()
            .find(|ratio| ratio.ours == figure.contender);
        let _ = match ratio {
            Some(Ratio {
                ours_over_peer,
                low,
                high,
                peer,
                ..
            }) => {
                let unit = &figure.unit;
                writeln!(
                    text,
                    "   {unit:<8}  {ours_over_peer:.2} ({low:.2} to {high:.2}) of {peer}"
                )
            }
            None => writeln!(text, "   {}", figure.unit),
        };
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
