//! The tables of the page.

use crate::results::{Figure, Ratio, Results, Standing};
use crate::table;
use core::fmt::Write;
use temporal_slab_page::Escaped;

/// What the ratios were to be, and which are not.
pub(super) fn targets(page: &mut String, results: &Results) {
    if results.targets.is_empty() {
        return;
    }
    let count = |standing| {
        results
            .targets
            .iter()
            .filter(|target| target.standing == standing)
            .count()
    };
    let _ = writeln!(
        page,
        "<h2>Bounds</h2><p>{} of {} bounds are met, {} are missed, {} are not decided by this run.</p>",
        count(Standing::Met),
        results.targets.len(),
        count(Standing::Missed),
        count(Standing::Undecided)
    );
    let open: Vec<_> = results
        .targets
        .iter()
        .filter(|target| target.standing != Standing::Met)
        .collect();
    if open.is_empty() {
        return;
    }
    head(
        page,
        &["workload", "ours"],
        ["peer", "ratio", "bound", ""].into_iter(),
    );
    for target in open {
        let (class, word) = match target.standing {
            Standing::Missed => ("missed", "missed"),
            _ => ("undecided", "undecided"),
        };
        let _ = writeln!(
            page,
            "<tr><td class=\"name\">{}/{}</td><td class=\"name\">{}</td><td>{}</td><td>{:.2}</td><td>{:.2}</td>\
             <td class=\"{class}\">{word}</td></tr>",
            Escaped(&target.workload),
            Escaped(&target.variant),
            Escaped(&target.ours),
            Escaped(&target.peer),
            target.ours_over_peer,
            target.at_most
        );
    }
    *page += END;
}

const END: &str = "</tbody></table></div>\n";

fn head<'c>(page: &mut String, names: &[&str], columns: impl Iterator<Item = &'c str>) {
    *page += "<div class=\"scroll\"><table><thead><tr>";
    for name in names {
        let _ = write!(page, "<th class=\"name\">{}</th>", Escaped(name));
    }
    for column in columns {
        let _ = write!(page, "<th>{}</th>", Escaped(column));
    }
    *page += "</tr></thead><tbody>\n";
}

/// What the variants of a workload are put together by: their name without size and figure.
fn group(ratio: &Ratio) -> String {
    let mut parts = ratio.variant.split('/');
    let first = parts.next().unwrap_or_default();
    match ratio.workload.as_str() {
        // States and loads are told by their figures: a time and a size have no mean.
        "churn" => format!("churn/{}", parts.next().unwrap_or_default()),
        "latency" => format!(
            "latency/{first}/{}",
            ratio.variant.split('/').nth(2).unwrap_or_default()
        ),
        "requests" => format!("requests/{first}/{}", parts.next_back().unwrap_or_default()),
        "scaling" => format!("scaling/{}", parts.next_back().unwrap_or_default()),
        workload => format!("{workload}/{first}"),
    }
}

/// A table for all workloads that have the same peers: a line for each group of variants, of the way in which ours is
/// meant to be used there, and a column for each peer.
pub(super) fn heat(page: &mut String, results: &Results) {
    let mut sets: Vec<Vec<&str>> = Vec::new();
    for workload in table::workloads(results) {
        let peers = table::peers(results, workload);
        if !peers.is_empty() && !sets.contains(&peers) {
            sets.push(peers);
        }
    }
    for peers in sets {
        let is_here = |ratio: &&Ratio| table::peers(results, &ratio.workload) == peers;
        let ratios: Vec<&Ratio> = results.ratios.iter().filter(is_here).collect();
        head(page, &["workload", "ours"], peers.iter().copied());
        let mut done: Vec<String> = Vec::new();
        for ratio in &ratios {
            let name = group(ratio);
            let is_main = MAIN.contains(&ratio.ours.as_str());
            if !is_main || done.contains(&name) {
                continue;
            }
            for ours in MAIN {
                heat_line(page, &ratios, &name, ours, &peers);
            }
            done.push(name);
        }
        *page += END;
    }
}

/// How ours is meant to be used; the other ways are among all figures.
const MAIN: [&str; 5] = [
    "ours",
    "ours-epoch",
    "ours-epoch-64",
    "ours-scope",
    "ours-handle",
];

fn heat_line(page: &mut String, ratios: &[&Ratio], name: &str, ours: &str, peers: &[&str]) {
    let of_line = |ratio: &&&Ratio| ratio.ours == ours && group(ratio) == name;
    let line: Vec<&Ratio> = ratios.iter().filter(of_line).copied().collect();
    if line.is_empty() {
        return;
    }
    let (name, ours) = (Escaped(name), Escaped(ours));
    let _ = write!(
        page,
        "<tr><td class=\"name\">{name}</td><td class=\"name\">{ours}</td>"
    );
    for peer in peers {
        let same = line.iter().filter(|ratio| ratio.peer == *peer);
        let logs: Vec<f64> = same
            .map(|ratio| ratio.ours_over_peer.max(1e-9).ln())
            .collect();
        let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        cell(page, (!logs.is_empty()).then_some(mean), "");
    }
    *page += "</tr>\n";
}

fn cell(page: &mut String, ratio: Option<f64>, title: &str) {
    let _ = match ratio {
        Some(ratio) => write!(
            page,
            "<td class=\"heat\" style=\"--hue:{}\" title=\"{title}\">{ratio:.2}</td>",
            hue(ratio)
        ),
        None => write!(page, "<td></td>"),
    };
}

/// From green (a quarter) by yellow (as much) to red (twice as much).
fn hue(ratio: f64) -> u32 {
    let position = (1.0 - ratio.max(0.01).log2()).clamp(0.0, 3.0) / 3.0;
    (position * 140.0).round() as u32
}

/// A line for each variant of a workload and each of ours, with the spread in the title.
pub(super) fn ratios(page: &mut String, results: &Results, workload: &str) {
    let peers = table::peers(results, workload);
    if peers.is_empty() {
        return;
    }
    head(page, &["variant", "ours"], peers.iter().copied());
    for variant in table::variants(results)
        .into_iter()
        .filter(|(of, _)| *of == workload)
    {
        for ours in table::ours(results, variant) {
            let _ = write!(
                page,
                "<tr><td class=\"name\">{}</td><td class=\"name\">{}</td>",
                Escaped(variant.1),
                Escaped(&ours.ours)
            );
            for peer in &peers {
                let found = results.ratios.iter().find(|ratio| {
                    (ratio.workload.as_str(), ratio.variant.as_str()) == variant
                        && ratio.ours == ours.ours
                        && ratio.peer == *peer
                });
                let title = found.map(|ratio| format!("{:.2} to {:.2}", ratio.low, ratio.high));
                cell(
                    page,
                    found.map(|ratio| ratio.ours_over_peer),
                    &title.unwrap_or_default(),
                );
            }
            *page += "</tr>\n";
        }
    }
    *page += END;
}

/// What an earlier implementation in C told of itself, in nanoseconds: p50, p99, p99.9.
const SEED: [(&str, [f64; 3]); 2] = [
    ("alloc", [26.0, 1423.0, 2303.0]),
    ("free", [24.0, 45.0, 184.0]),
];

/// The table that the project started from, and the same of this run.
pub(super) fn seed(page: &mut String, results: &Results) {
    let figure = |variant: &str, contender: &str| {
        let is_it = |f: &&Figure| {
            f.workload == "latency" && f.variant == variant && f.contender == contender
        };
        results.results.iter().find(is_it)
    };
    if !results
        .results
        .iter()
        .any(|figure| figure.workload == "latency")
    {
        return;
    }
    let clock = results.clock_ns.unwrap_or(0.0);
    let _ = writeln!(
        page,
        "<h2>The table that this began with</h2>\n<p>1,000,000 allocations of 128 bytes and their frees, each timed: an \
         earlier implementation in C by its own account, on a machine of its own, and this one and the peers here. \
         Ref the clock costs {clock:.0} ns here, which is in every figure. Nanoseconds.</p>"
    );
    let contenders = [
        "ours",
        "ours-on-close",
        "ours-huge",
        "mimalloc",
        "jemalloc",
        "snmalloc",
        "glibc",
    ];
    let columns = core::iter::once("C, its account").chain(contenders);
    head(page, &[""], columns);
    for (state, kinds) in [("cold", ["touch", "free"]), ("warm", ["alloc", "free"])] {
        for (kind, (_, theirs)) in kinds.iter().zip(SEED) {
            for (quantile, theirs) in ["p50", "p99", "p99.9"].iter().zip(theirs) {
                let variant = format!("{state}/{kind}/{quantile}");
                let theirs = if state == "cold" {
                    format!("{theirs:.0}")
                } else {
                    String::new()
                };
                let _ = write!(
                    page,
                    "<tr><td class=\"name\">{variant}</td><td>{theirs}</td>"
                );
                for contender in contenders {
                    let _ = match figure(&variant, contender) {
                        Some(figure) if figure.noisy => {
                            write!(page, "<td class=\"noisy\">{:.0}</td>", figure.median)
                        }
                        Some(figure) => write!(page, "<td>{:.0}</td>", figure.median),
                        None => write!(page, "<td></td>"),
                    };
                }
                *page += "</tr>\n";
            }
        }
    }
    *page += END;
}

/// Why calls took over ten medians.
pub(super) fn causes(page: &mut String, results: &Results) {
    if results.tails.is_empty() {
        return;
    }
    *page += "<details><summary>Why the long ones took long</summary>\n<p>Calls of over ten medians, over all rounds, by \
              what was counted while they ran. The peers do not count: of theirs the system tells page faults and when the \
              thread was taken off its CPU. The control is a loop around nothing.</p>\n";
    head(
        page,
        &["calls", "contender", "cause"],
        ["count", "longest"].into_iter(),
    );
    for tail in &results.tails {
        let _ = writeln!(
            page,
            "<tr><td class=\"name\">{}</td><td class=\"name\">{}</td><td class=\"name\">{}</td><td>{}</td>\
             <td>{:.0} ns</td></tr>",
            Escaped(&tail.variant),
            Escaped(&tail.contender),
            Escaped(&tail.cause),
            tail.count,
            tail.longest_ns
        );
    }
    *page += END;
    *page += "</details>\n";
}
