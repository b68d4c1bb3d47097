//! The contest: one program, built once for each allocator with the allocator as its global one, the
//! programs run in turns so that the machine's moods hit all alike.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::command::{target_dir, words};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many turns each program has. What counts is its best.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Compare what is resident after a random half of a gigabyte was freed, instead of times.
    #[arg(long)]
    half: bool,
}

const CONTENDERS: [&str; 4] = ["ours", "mimalloc", "jemalloc", "glibc"];

/// Best figures, by what was measured, one for each contender.
type Figures = BTreeMap<(usize, String), [f64; 4]>;

pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    build()?;
    let rounds = if options.half { 1 } else { options.rounds };
    let mut figures = Figures::new();
    for round in 1..=rounds {
        eprintln!("contest: turn {round} of {rounds}");
        for (place, contender) in CONTENDERS.iter().enumerate() {
            for (line, (name, figure)) in turn(contender, options.half)?.into_iter().enumerate() {
                let best = figures.entry((line, name)).or_insert([f64::MAX; 4]);
                best[place] = best[place].min(figure);
            }
        }
    }
    print(&figures, options.half);
    Ok(true)
}

fn build() -> anyhow::Result<()> {
    let bins: String = CONTENDERS
        .iter()
        .map(|c| format!(" --bin contest-{c}"))
        .collect();
    let line = format!(
        "cargo build --quiet --profile bench -p temporal-slab-tests --features contest{bins}"
    );
    let status = words(&line).status().context("cargo could not be run")?;
    ensure!(status.success(), "the programs did not build");
    Ok(())
}

/// Runs a contender once; what it measured.
fn turn(contender: &str, half: bool) -> anyhow::Result<Vec<(String, f64)>> {
    let program: PathBuf = target_dir()
        .join("release")
        .join(format!("contest-{contender}"));
    let mut command = Command::new(&program);
    if half {
        command.arg("half");
    }
    let output = command
        .output()
        .with_context(|| format!("{} could not be run", program.display()))?;
    ensure!(output.status.success(), "{contender}: {}", output.status);
    let text = String::from_utf8(output.stdout).context("a program's output is text")?;
    let parse = |line: &str| {
        let (name, figure) = line.split_once(' ').context("a name and a figure")?;
        Ok((name.to_owned(), figure.parse()?))
    };
    text.lines().map(parse).collect()
}

fn print(figures: &Figures, half: bool) {
    let unit = if half {
        "MiB resident"
    } else {
        "ns for each unit"
    };
    println!(
        "{unit:<18}{:>9}{:>10}{:>10}{:>10}   ours to the best",
        CONTENDERS[0], CONTENDERS[1], CONTENDERS[2], CONTENDERS[3]
    );
    for ((_, name), [ours, others @ ..]) in figures {
        let best = others.iter().copied().fold(f64::MAX, f64::min);
        let [a, b, c] = others;
        println!(
            "{name:<18}{ours:>9.2}{a:>10.2}{b:>10.2}{c:>10.2}   {:.2}",
            ours / best
        );
    }
}
