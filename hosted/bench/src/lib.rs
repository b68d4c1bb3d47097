//! `tslab bench`: this allocator against the best, in one run and in turns.
//!
//! Principles:
//! - What counts is a ratio to the fastest peer, taken round by round in the same run: the machine's speed is no part
//!   of it. A figure whose rounds lie too far apart is marked, and is no fact.
//! - Each workload is a file that knows its contenders; what they measured goes into one list of results, and every
//!   form of report is made of that.

mod child;
mod churn;
mod clock;
mod contender;
mod context;
mod costs;
mod environment;
mod epochs;
mod latency;
mod micro;
mod options;
mod page;
mod requests;
mod results;
mod scaling;
mod table;
mod targets;

pub use child::Part;
pub use options::Options;

use anyhow::{Context as _, Result, ensure};
use child::Work;
use context::Context;
use core::time::Duration;
use environment::Environment;
use indicatif::{ProgressBar, ProgressStyle};
use results::Results;
use std::path::Path;

/// What has a process of its own.
const WORKS: [Work; 3] = [latency::WORK, churn::WORK, requests::WORK];

/// Does a part of a run, in the process that was started for it.
///
/// # Errors
/// If there is no such part or contender, or the part fails.
pub fn part(part: &Part) -> Result<()> {
    child::serve(&WORKS, part)
}

/// All that there is to run, in the order of the run.
fn all(options: &Options) -> Vec<String> {
    let first = [
        ("micro", micro::variants()),
        ("kernel", micro::kernel_variants()),
        ("latency", latency::variants()),
        ("scaling", scaling::variants(&options.scaling_threads())),
        ("churn", churn::variants()),
        ("requests", requests::variants(&options.request_threads())),
    ];
    let workloads = first
        .into_iter()
        .chain(epochs::variants())
        .chain(costs::variants());
    let names = |(workload, variants): (&str, Vec<String>)| {
        let name = |variant| format!("{workload}/{variant}");
        variants.into_iter().map(name).collect::<Vec<_>>()
    };
    workloads.flat_map(names).collect()
}

/// Runs what is asked for; whether nothing became worse than the baseline allows.
///
/// Parts of it run in processes of their own: this program with the subcommand `bench-part`, whose arguments are a [`Part`].
///
/// # Errors
/// If nothing of that name is there, a file cannot be read or written, or a part fails.
pub fn run(options: &Options) -> Result<bool> {
    let names = all(options);
    let wanted: Vec<String> = names
        .into_iter()
        .filter(|name| options.wants(name))
        .collect();
    if options.list {
        wanted.iter().for_each(|name| println!("{name}"));
        return Ok(true);
    }
    ensure!(
        !wanted.is_empty(),
        "nothing has {:?} in its name: --list names what there is",
        options.only.join(",")
    );
    // Before minutes are spent.
    let targets = targets::read()?;
    let baseline = options.baseline.as_deref().map(Results::read).transpose()?;
    let [json, html, csv] = options.files();
    for path in [&json, &html, &csv].into_iter().flatten() {
        std::fs::write(path, "")
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let environment = Environment::read();
    let bar = ProgressBar::new(wanted.len() as u64);
    let style = "{bar:30} {pos:>3}/{len} {msg:<28} {elapsed_precise} of about {duration_precise}";
    bar.set_style(ProgressStyle::with_template(style)?);
    let (rounds, slice) = if options.quick { (5, 8) } else { (15, 25) };
    let mut context = Context {
        options,
        peers: options.peers.clone(),
        rounds,
        slice: Duration::from_millis(slice),
        names: wanted,
        bar,
        results: Results::new(environment),
    };
    // A single thread first: a C library may take short cuts in a process that has but one.
    micro::run(&mut context);
    micro::run_kernel(&mut context);
    latency::run(&mut context)?;
    scaling::run(&mut context);
    churn::run(&mut context)?;
    requests::run(&mut context)?;
    epochs::run(&mut context);
    costs::run(&mut context);
    context.bar.finish_and_clear();
    let mut results = context.results;
    results.targets = targets::judge(&targets, &results);
    print!("{}", table::of(&results));
    if let Some(path) = &json {
        write(path, &(serde_json::to_string_pretty(&results)? + "\n"))?;
    }
    if let Some(path) = &csv {
        write(path, &results.csv())?;
    }
    if let Some(path) = &html {
        write(path, &page::of(&results)?)?;
    }
    let Some(baseline) = baseline else {
        return Ok(true);
    };
    let worse = results.regressions(&baseline, options.tolerance);
    for line in &worse {
        println!("worse: {line}");
    }
    if worse.is_empty() {
        println!(
            "nothing is worse than the baseline by more than {:.0} %",
            options.tolerance * 100.0
        );
    }
    Ok(worse.is_empty())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    eprintln!("written: {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file of bounds can be read, and each bound names a workload that there is.
    #[test]
    fn bounds_are_of_what_there_is() {
        let names = all(&Options::usual());
        let targets = targets::read().unwrap();
        assert!(targets.len() > 5);
        for target in &targets {
            assert!(
                names.iter().any(|name| target.is_of(name)),
                "{target:?} is of nothing"
            );
        }
    }
}
