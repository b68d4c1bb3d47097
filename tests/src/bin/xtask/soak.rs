//! `cargo xtask soak`: the long run, with a table and a page of pictures at its end.

use anyhow::{Context as _, Result};

use crate::command::{target_dir, words};

/// How long, and on how many threads.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// For how many seconds.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Threads at a time.
    #[arg(long, default_value_t = 8)]
    threads: u16,
}

/// Runs it; whether every rule held and memory stayed flat.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let files = ["csv", "html"].map(|kind| target_dir().join(format!("soak.{kind}")));
    let line = format!(
        "cargo run --quiet --release --package tslab -- soak --seconds {} --threads {}",
        options.seconds, options.threads
    );
    let status = words(&line)
        .arg("--csv")
        .arg(&files[0])
        .arg("--html")
        .arg(&files[1])
        .status()
        .context("cannot run cargo")?;
    println!(
        "the figures are in {}, the pictures in {}",
        files[0].display(),
        files[1].display()
    );
    Ok(status.success())
}
