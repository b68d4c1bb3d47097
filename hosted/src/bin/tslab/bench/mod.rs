//! `tslab bench`: this allocator against the best, in one run and in turns.
//!
//! Principles:
//! - What counts is a ratio to the fastest peer, taken round by round in the same run: the machine's speed is no part
//!   of it. A figure whose rounds lie too far apart is marked, and is no fact.
//! - Each workload is a file that knows its contenders; what they measured goes into one list of results, and every
//!   form of report is made of that.

mod environment;
mod html;
mod micro;
mod requests;
mod results;
mod table;

use anyhow::{Context as _, Result, ensure};
use core::time::Duration;
use environment::Environment;
use indicatif::{ProgressBar, ProgressStyle};
use results::Results;
use std::path::{Path, PathBuf};

/// An allocator to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    Mimalloc,
    Jemalloc,
    Glibc,
}

impl Peer {
    const ALL: [Self; 3] = [Self::Mimalloc, Self::Jemalloc, Self::Glibc];
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fewer and shorter turns: under a minute, and more noise.
    #[arg(long)]
    quick: bool,
    /// Only what has this in its name, as micro/pair or requests.
    #[arg(long, default_value = "")]
    only: String,
    /// Whom to compare with.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL)]
    peers: Vec<Peer>,
    /// How many threads the requests are served by.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = threads)]
    threads: Vec<usize>,
    /// Names what there is to run, and ends.
    #[arg(long)]
    list: bool,
    /// Where to write the results for programs.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to write a page for people.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Where to write the results for a spreadsheet.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// An earlier run (--json) to compare with: fails if a ratio became worse than the tolerance allows.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// By how much a ratio may be worse than in the baseline.
    #[arg(long, default_value_t = 0.15)]
    tolerance: f64,
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=64) => Ok(count),
        _ => Err("from 1 to 64".to_owned()),
    }
}

/// What the workloads share.
struct Context<'o> {
    options: &'o Options,
    peers: Vec<Peer>,
    rounds: usize,
    slice: Duration,
    bar: ProgressBar,
    results: Results,
}

impl Context<'_> {
    fn wants(&self, workload: &str, variant: &str) -> bool {
        format!("{workload}/{variant}").contains(&self.options.only)
    }

    fn begin(&self, workload: &str, variant: &str) {
        self.bar.set_message(format!("{workload}/{variant}"));
        self.bar.inc(1);
    }
}

/// All that there is to run.
fn all(options: &Options) -> Vec<String> {
    let micro = micro::variants()
        .into_iter()
        .map(|variant| format!("micro/{variant}"));
    let requests = requests::variants(&options.threads);
    let requests = requests
        .into_iter()
        .map(|variant| format!("requests/{variant}"));
    micro.chain(requests).collect()
}

/// Runs what is asked for; whether nothing became worse than the baseline allows.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let names = all(options);
    let wanted: Vec<&String> = names
        .iter()
        .filter(|name| name.contains(&options.only))
        .collect();
    if options.list {
        wanted.iter().for_each(|name| println!("{name}"));
        return Ok(true);
    }
    ensure!(
        !wanted.is_empty(),
        "nothing has {:?} in its name: --list names what there is",
        options.only
    );
    // Before a minute is spent.
    let baseline = options.baseline.as_deref().map(Results::read).transpose()?;
    for path in [&options.json, &options.html, &options.csv]
        .into_iter()
        .flatten()
    {
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
        bar,
        results: Results::new(environment),
    };
    // A single thread first: a C library may take short cuts in a process that has but one.
    micro::run(&mut context);
    requests::run(&mut context);
    context.bar.finish_and_clear();
    let results = context.results;
    print!("{}", table::of(&results));
    if let Some(path) = &options.json {
        write(path, &(serde_json::to_string_pretty(&results)? + "\n"))?;
    }
    if let Some(path) = &options.csv {
        write(path, &results.csv())?;
    }
    if let Some(path) = &options.html {
        write(path, &html::of(&results))?;
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
