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
mod costs;
mod environment;
mod epochs;
mod latency;
mod micro;
mod page;
mod requests;
mod results;
mod scaling;
mod table;
mod targets;

pub(crate) use child::{Part, serve as part};
pub(crate) use page::of_series as page_of;
pub(crate) use results::Series;

use anyhow::{Context as _, Result, ensure};
use contender::Peer;
use core::time::Duration;
use environment::Environment;
use indicatif::{ProgressBar, ProgressStyle};
use results::Results;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fewer and shorter turns: under a minute, and more noise.
    #[arg(long)]
    quick: bool,
    /// Only what has one of these in its name, as micro/pair,requests.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Whom to compare with.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL)]
    peers: Vec<Peer>,
    /// How many threads serve requests and share an allocator; by default 1 and 2, and for scaling 1, 2, 4, 8 and 16.
    #[arg(long, value_delimiter = ',', value_parser = threads)]
    threads: Vec<usize>,
    /// When churning programs with epochs begin another one: request, batch:N, or manual, which is when the load
    /// changes.
    #[arg(long, default_value = "batch:16")]
    epochs: churn::Epochs,
    /// After how many requests a churning program frees what one allocated; 0 is at its end.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(0..=512))]
    lag: u16,
    /// How many of a thousand objects a churning program never frees; the leaking one has ten if this is 0.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1000))]
    leaked: u64,
    /// Names what there is to run, and ends.
    #[arg(long)]
    list: bool,
    /// Where to write the results for programs. Without any of these three, they and a page go where builds go.
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

impl Options {
    /// Those of a run that nothing is said to.
    #[cfg(test)]
    fn usual() -> Self {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            options: Options,
        }
        let alone = <Alone as clap::Parser>::try_parse_from(["bench"]);
        alone
            .map(|alone| alone.options)
            .expect("nothing is required")
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only))
    }

    /// Where to write: if nothing is said, results and a page, where builds go.
    fn files(&self) -> [Option<PathBuf>; 3] {
        let said = [&self.json, &self.html, &self.csv];
        if said.iter().any(|path| path.is_some()) {
            return said.map(Clone::clone);
        }
        let folder = Path::new("target");
        let folder = if folder.is_dir() {
            folder
        } else {
            Path::new("")
        };
        let file = |name: &str| Some(folder.join(name));
        [file("tslab-bench.json"), file("tslab-bench.html"), None]
    }

    /// Those that serve requests.
    fn request_threads(&self) -> Vec<usize> {
        self.threads_or(&[1, 2])
    }

    /// Beyond the machine's CPUs as well.
    fn scaling_threads(&self) -> Vec<usize> {
        self.threads_or(&[1, 2, 4, 8, 16])
    }

    fn threads_or(&self, usual: &[usize]) -> Vec<usize> {
        if self.threads.is_empty() {
            usual.to_vec()
        } else {
            self.threads.clone()
        }
    }
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
    /// What is wanted, in the order of the run.
    names: Vec<String>,
    bar: ProgressBar,
    results: Results,
}

impl Context<'_> {
    fn wants(&self, workload: &str, variant: &str) -> bool {
        self.options.wants(&format!("{workload}/{variant}"))
    }

    /// `variant` is one, or what several that are measured together begin with.
    fn begin(&self, workload: &str, variant: &str) {
        let name = format!("{workload}/{variant}");
        let place = self
            .names
            .iter()
            .position(|wanted| wanted.starts_with(&name));
        if let Some(place) = place {
            self.bar.set_position(place as u64);
        }
        self.bar.set_message(name);
    }
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
pub(crate) fn run(options: &Options) -> Result<bool> {
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
