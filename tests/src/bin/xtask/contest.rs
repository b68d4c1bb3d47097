//! The contest: one program, with each allocator as its global one, and over each allocator's library preloaded. A pattern is
//! a process; processes take turns, so that the machine's moods hit all alike.

mod contenders;
mod picture;
mod report;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use contenders::{Contender, contenders};
use report::{Figures, Report, Row};

use crate::command::{output, target_dir};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many turns each contender has at each pattern. Its best time counts, and its middle peak.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only patterns that have this in their name.
    #[arg(long, default_value = "")]
    only: String,
    /// Only as global allocators of programs in Rust, or only as libraries that are preloaded.
    #[arg(long)]
    mode: Option<Mode>,
    /// Only these peers, separated by commas.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// The time that is judged: on the clock, or on processors, which is steadier where others are at work.
    #[arg(long, default_value = "wall")]
    time: Time,
    /// Write all figures to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Compare what is resident after a random half of a gigabyte was freed, instead of the patterns.
    #[arg(long)]
    half: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    Global,
    Preload,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Preload => "preload",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Time {
    Wall,
    Cpu,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    let modes = match options.mode {
        Some(mode) => vec![mode],
        // Only the global allocator is asked to give back what is empty.
        None if options.half => vec![Mode::Global],
        None => vec![Mode::Global, Mode::Preload],
    };
    contenders::check(&options.peers)?;
    // All are built before the first runs: a build would disturb them.
    let fields: Vec<(Mode, Vec<Contender>)> = modes
        .into_iter()
        .map(|mode| Ok((mode, contenders(mode, &options.peers)?)))
        .collect::<Result<_>>()?;
    let mut reports = Vec::new();
    for (mode, contenders) in fields {
        if options.half {
            half(mode, &contenders)?;
        } else {
            let report = compete(mode, contenders, options)?;
            report.print();
            reports.push(report);
        }
    }
    if options.half {
        return Ok(true);
    }
    let page = target_dir().join("contest.html");
    write(&page, &picture::page(&reports))?;
    println!("pictures: {}", page.display());
    if let Some(file) = &options.json {
        write(file, &report::json(&reports))?;
    }
    Ok(true)
}

fn write(file: &PathBuf, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

/// The names of the patterns that are asked for.
fn patterns(contender: &Contender, only: &str) -> Result<Vec<String>> {
    let list = output(contender.command("list"))?;
    let names: Vec<String> = list
        .lines()
        .filter(|name| name.contains(only))
        .map(str::to_owned)
        .collect();
    ensure!(
        !names.is_empty(),
        "no pattern has {only:?} in its name; there are:\n{list}"
    );
    Ok(names)
}

/// Runs all contenders in turns.
fn compete(mode: Mode, contenders: Vec<Contender>, options: &Options) -> Result<Report> {
    let names = patterns(&contenders[0], &options.only)?;
    let count = contenders.len();
    let all = options.rounds * names.len() * count;
    let start = std::time::Instant::now();
    let mut turns = vec![vec![Vec::new(); count]; names.len()];
    let mut done = 0;
    for round in 0..options.rounds {
        for (name, turns) in names.iter().zip(&mut turns) {
            // Who begins changes, and so does who comes after whom's mess.
            for step in 0..count {
                let place = (round + step) % count;
                let left = start.elapsed().as_secs_f64() / done.max(1) as f64 * (all - done) as f64;
                eprint!(
                    "\r{}: turn {} of {}: {name} on {}, {done} of {all} done, {:.0} s left\x1b[K",
                    mode.name(),
                    round + 1,
                    options.rounds,
                    contenders[place].name,
                    left
                );
                turns[place].push(turn(&contenders[place], name)?);
                done += 1;
            }
        }
    }
    eprint!("\r\x1b[K");
    let rows = names.into_iter().zip(turns).map(|(name, turns)| Row {
        name,
        figures: turns.iter().map(|turns| Figures::of(turns)).collect(),
    });
    Ok(Report {
        mode,
        time: options.time,
        rounds: options.rounds,
        rows: rows.collect(),
        contenders,
    })
}

/// Runs a contender once; what it took.
fn turn(contender: &Contender, pattern: &str) -> Result<Figures> {
    let text = output(contender.command(pattern))
        .with_context(|| format!("{pattern} on {}", contender.name))?;
    let numbers: Vec<f64> = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{pattern} on {} printed {text:?}", contender.name))?;
    let [units, wall, cpu, peak] = numbers[..] else {
        anyhow::bail!("{pattern} on {} printed {text:?}", contender.name);
    };
    Ok(Figures {
        units,
        wall: wall / 1e6,
        cpu: cpu / 1e6,
        peak: peak / 1024.0,
    })
}

fn half(mode: Mode, contenders: &[Contender]) -> Result<()> {
    println!(
        "{:<22}{:>9}{:>9}{:>9}",
        "MiB resident", "full", "half", "empty"
    );
    for contender in contenders {
        eprint!("\r{}: {}\x1b[K", mode.name(), contender.name);
        let text = output(contender.command("half"))?;
        eprint!("\r\x1b[K");
        print!("{:<22}", contender.name);
        for line in text.lines() {
            print!("{:>9}", line.split(' ').nth(1).unwrap_or_default());
        }
        println!();
    }
    Ok(())
}
