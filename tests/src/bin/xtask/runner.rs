//! Runs stages and sums them up, for `cargo xtask test` and `cargo xtask sanitize`.

use std::io::{self, BufRead, Write};
use std::num::NonZero;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{display, in_one_pipe};
use crate::counts::Counts;
use crate::setup;
use crate::stages::Stage;

/// What to run, and how much to show of it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run this stage only; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// List the stages and run none.
    #[arg(long)]
    list: bool,
    /// Show the output of every stage as it comes, not only that of failed ones.
    #[arg(long)]
    verbose: bool,
}

impl Options {
    /// Whether stages are chosen by name, or listed to choose from.
    pub(crate) fn names_stages(&self) -> bool {
        self.list || !self.only.is_empty()
    }
}

/// What came of a stage.
struct Outcome {
    ok: bool,
    counts: Counts,
    /// All that its commands wrote, unless that was shown already.
    output: Vec<u8>,
}

/// Runs the chosen ones of `stages`, all of them even when one fails; whether all were ok.
pub(crate) fn run(options: &Options, stages: fn() -> Vec<Stage>) -> Result<bool> {
    if options.list {
        for stage in stages() {
            println!(
                "{}{}",
                stage.name,
                if stage.is_deep { " (deep)" } else { "" }
            );
        }
        return Ok(true);
    }
    let start = Instant::now();
    // Before the set-up, which can take minutes.
    check_names(&options.only, &stages())?;

    let mut failed = Vec::new();
    let mut counts = Counts::default();
    // What is lacking fails the stages that need it; the others can run.
    if let Err(error) = setup::run() {
        eprintln!("error: {error:#}");
        failed.push("setup");
        counts.failed += 1;
    }

    // Only now, because the set-up decides which toolchain there is.
    let stages = stages();
    let width = stages
        .iter()
        .map(|stage| stage.name.len())
        .max()
        .unwrap_or(0);
    let chosen = stages
        .into_iter()
        .filter(|stage| is_chosen(stage.name, &options.only));
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for stage in chosen {
        let (name, began) = (stage.name, Instant::now());
        let outcome = run_stage(stage, width, options.verbose)?;
        times.push((name, began.elapsed()));
        counts += outcome.counts;
        if !outcome.ok {
            failed.push(name);
            // A stage can fail without a failed test: by a warning, or a crash. The last line is
            // not to hide that.
            counts.failed += u64::from(outcome.counts.failed == 0);
        }
    }

    let verdict = if failed.is_empty() {
        "all ok".into()
    } else {
        format!("failed: {}", failed.join(", "))
    };
    let all = start.elapsed().as_secs_f64();
    times.sort_by_key(|(_, time)| core::cmp::Reverse(*time));
    let shares: Vec<String> = times
        .iter()
        .map(|(name, time)| format!("{name} {:.0} %", 100.0 * time.as_secs_f64() / all))
        .collect();
    println!(
        "\nwhere the time went: {}\n{} stages in {all:.1} s, {verdict}\n{counts}",
        shares.join(", "),
        times.len(),
    );
    Ok(failed.is_empty())
}

fn is_chosen(name: &str, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|chosen| chosen == name)
}

fn check_names(only: &[String], stages: &[Stage]) -> Result<()> {
    let names: Vec<_> = stages.iter().map(|stage| stage.name).collect();
    for name in only {
        if !names.contains(&name.as_str()) {
            bail!(
                "there is no stage `{name}`; the stages are: {}",
                names.join(", ")
            );
        }
    }
    Ok(())
}

/// Runs one stage and prints its line.
fn run_stage(stage: Stage, width: usize, verbose: bool) -> Result<Outcome> {
    let start = Instant::now();
    let mut stdout = io::stdout();
    let title = format!("{:width$} ...", stage.name);
    // The line begins before the stage does, so that one sees what is running.
    if verbose {
        writeln!(stdout, "{title}")?;
    } else {
        write!(stdout, "{title} ")?;
        stdout.flush()?;
    }

    let mut outcome = Outcome {
        ok: true,
        counts: Counts::default(),
        output: Vec::new(),
    };
    if stage.together {
        run_together(stage.commands, verbose, &mut outcome)?;
    } else {
        run_in_turn(stage.commands, stage.at_least, verbose, &mut outcome)?;
    }
    if outcome.ok && stage.needs_tests && outcome.counts == Counts::default() {
        outcome.ok = false;
        outcome.output.extend_from_slice(b"not a single test ran\n");
    }

    if verbose {
        write!(stdout, "{title} ")?;
    }
    let verdict = if outcome.ok { "ok" } else { "FAILED" };
    writeln!(
        stdout,
        "{verdict:6} {:7.1} s",
        start.elapsed().as_secs_f64()
    )?;
    if !outcome.ok {
        stdout.write_all(&outcome.output)?;
    }
    Ok(outcome)
}

/// Runs commands one after the other, and again until so much time has passed or one fails.
fn run_in_turn(
    mut commands: Vec<Command>,
    at_least: Duration,
    verbose: bool,
    outcome: &mut Outcome,
) -> Result<()> {
    let start = Instant::now();
    loop {
        for command in &mut commands {
            outcome.ok &= run_command(command, verbose, outcome)?;
        }
        if !outcome.ok || start.elapsed() >= at_least {
            return Ok(());
        }
    }
}

/// Runs commands at the same time, as many as there are processors, and adds what came of each, one after the other.
fn run_together(commands: Vec<Command>, verbose: bool, outcome: &mut Outcome) -> Result<()> {
    let run = |mut command| {
        let mut own = Outcome {
            ok: true,
            counts: Counts::default(),
            output: Vec::new(),
        };
        own.ok = run_command(&mut command, verbose, &mut own)?;
        anyhow::Ok(own)
    };
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    let waiting = Mutex::new(commands.into_iter().enumerate());
    let next = || waiting.lock().ok()?.next();
    let mut all = thread::scope(|scope| {
        let work = || -> Result<Vec<(usize, Outcome)>> {
            let mut done = Vec::new();
            while let Some((at, command)) = next() {
                done.push((at, run(command)?));
            }
            Ok(done)
        };
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            let done = thread.join();
            all.extend(done.unwrap_or_else(|_| bail!("a stage's thread panicked"))?);
        }
        anyhow::Ok(all)
    })?;
    all.sort_by_key(|(at, _)| *at);
    for (_, own) in all {
        outcome.ok &= own.ok;
        outcome.counts += own.counts;
        outcome.output.extend_from_slice(&own.output);
    }
    Ok(())
}

/// Runs one command of a stage, adds its tests and its output to `outcome`, and says whether it
/// succeeded.
fn run_command(command: &mut Command, verbose: bool, outcome: &mut Outcome) -> Result<bool> {
    let shown = display(command);
    let mut show = |line: &[u8]| -> Result<()> {
        if verbose {
            io::stdout()
                .write_all(line)
                .context("cannot write to standard output")?;
        } else {
            outcome.output.extend_from_slice(line);
        }
        Ok(())
    };
    show(format!("$ {shown}\n").as_bytes())?;
    let (mut child, mut reader) = match in_one_pipe(command) {
        Ok(started) => started,
        Err(error) => {
            show(format!("{error:#}\n").as_bytes())?;
            return Ok(false);
        }
    };
    let mut line = Vec::new();
    // By bytes: a test may write what is not UTF-8.
    while reader
        .read_until(b'\n', &mut line)
        .with_context(|| format!("cannot read from `{shown}`"))?
        > 0
    {
        if let Some(counts) = Counts::of_line(&String::from_utf8_lossy(&line)) {
            outcome.counts += counts;
        }
        show(&line)?;
        line.clear();
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{shown}`"))?;
    if !status.success() {
        show(format!("`{shown}`: {status}\n").as_bytes())?;
    }
    Ok(status.success())
}
