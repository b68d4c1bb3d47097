//! `tslab`: looks at a program's heap from outside, or at a workload of its own; and measures it against others.

#[cfg(not(feature = "bench"))]
mod bench;
mod client;
mod report;
mod soak;
mod source;
mod view;
mod watch;
mod workload;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use source::Source;
use std::io::Write;
use std::process::ExitCode;
#[cfg(feature = "bench")]
use temporal_slab_bench as bench;
use temporal_slab_hosted::TemporalSlab;
use temporal_slab_hosted::export::Address;

#[global_allocator]
static GLOBAL: TemporalSlab = TemporalSlab;

/// Statistics and a diagnosis of programs that use temporal-slab.
///
/// A program is looked at where it serves its statistics (`TemporalSlab::export`, with the feature `export`); without
/// --from a workload is run here and looked at.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Prints a report once.
    Stats {
        #[command(flatten)]
        from: source::From,
        #[command(flatten)]
        format: Format,
    },
    /// Says what is wrong and what to do about it; fails if anything is an error.
    Doctor {
        #[command(flatten)]
        from: source::From,
    },
    /// Shows memory, epochs and rates as they change.
    Watch {
        #[command(flatten)]
        from: source::From,
        /// Milliseconds between two looks.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(50..=60_000))]
        every: u64,
        /// Prints one picture and ends.
        #[arg(long)]
        once: bool,
    },
    /// Measures this allocator against others, in turns, and prints the ratios to the fastest.
    Bench(bench::Options),
    /// Does everything that a heap offers, on many threads at random, and has the walker look at it in between.
    Soak(soak::Options),
    /// A part of a benchmark that has a process of its own.
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchPart(bench::Part),
    /// Runs a workload and serves its statistics, until it is interrupted or the time is over.
    Serve {
        /// What to run.
        #[arg(value_enum)]
        workload: workload::Kind,
        /// Where to serve: 127.0.0.1:PORT or unix:PATH.
        #[arg(long, default_value = "127.0.0.1:9184")]
        at: String,
        /// Ends after so many seconds.
        #[arg(long)]
        seconds: Option<u64>,
    },
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct Format {
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// In the text format of Prometheus.
    #[arg(long)]
    prometheus: bool,
    /// As text for people, which is the default.
    #[arg(long)]
    text: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tslab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Stats { from, format } => {
            let path = if format.json {
                "/stats.json"
            } else if format.prometheus {
                "/metrics"
            } else {
                "/stats.txt"
            };
            print(&Source::open(&from)?.settled()?.get(path)?)?;
        }
        Task::Doctor { from } => {
            let source = Source::open(&from)?.settled()?;
            print(&source.get("/findings.txt")?)?;
            if report::Report::read(&source)?.has_errors() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Watch { from, every, once } => {
            let source = Source::open(&from)?;
            if once {
                print(&watch::picture(&source.settled()?)?)?;
            } else {
                watch::run(&source, core::time::Duration::from_millis(every))?;
            }
        }
        Task::Bench(options) => {
            if !bench::run(&options)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Soak(options) => soak::run(&options)?,
        #[cfg(feature = "bench")]
        Task::BenchPart(part) => bench::part(&part)?,
        Task::Serve {
            workload,
            at,
            seconds,
        } => serve(workload, &at, seconds)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what somebody else wrote. A reader who has seen enough is no error.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match done {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

fn serve(kind: workload::Kind, at: &str, seconds: Option<u64>) -> Result<()> {
    let exporter = TemporalSlab::export(at)?;
    if let Address::Unix(path) = exporter.address()
        && !path.is_absolute()
    {
        bail!("{}: the path of a socket is to be absolute", path.display());
    }
    let _running = workload::start(kind)?;
    eprintln!("{kind:?} served at {}", exporter.address());
    eprintln!("look at it with: tslab watch --from {}", exporter.address());
    match seconds {
        Some(seconds) => std::thread::sleep(core::time::Duration::from_secs(seconds)),
        None => loop {
            std::thread::park();
        },
    }
    Ok(())
}
