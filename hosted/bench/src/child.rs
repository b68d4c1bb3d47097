//! Parts of a run that have a process of their own: what is resident is of a process, and what is cold of one that has
//! not begun.

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::process::{Command, Stdio};

/// What a child is told; a subcommand that help does not show.
#[derive(Debug, clap::Args)]
pub struct Part {
    /// Which part.
    work: String,
    /// Whose.
    contender: String,
    /// What the part is asked for, as JSON.
    parameters: String,
}

/// A kind of part. The workload that has it says what it is told and what it prints: nothing here knows a workload.
pub(super) struct Work {
    pub(super) name: &'static str,
    /// In the child: does it for a contender, with parameters as JSON, and prints what came of it.
    pub(super) run: fn(contender: &str, parameters: &str) -> Result<()>,
}

/// The command that starts a part.
pub(super) fn command(
    work: &Work,
    contender: &str,
    parameters: &impl Serialize,
) -> Result<Command> {
    let program = std::env::current_exe().context("this program's file is not found")?;
    let mut command = Command::new(program);
    command
        .args(["bench-part", work.name, contender])
        .arg(serde_json::to_string(parameters)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    Ok(command)
}

/// Runs a part to its end: what it printed.
pub(super) fn run<T: DeserializeOwned>(
    work: &Work,
    contender: &str,
    parameters: &impl Serialize,
) -> Result<T> {
    let output = command(work, contender, parameters)?
        .output()
        .context("a part of the run did not start")?;
    ensure!(
        output.status.success(),
        "the part {} of {contender} failed ({})",
        work.name,
        output.status
    );
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the part {} of {contender} printed no result", work.name))
}

/// In the child: does the part, which is one of those.
pub(super) fn serve(works: &[Work], part: &Part) -> Result<()> {
    let work = works.iter().find(|work| work.name == part.work);
    let work = work.with_context(|| format!("{} is no part of a run", part.work))?;
    (work.run)(&part.contender, &part.parameters)
}

/// In the child: what `run` gets of a part.
pub(super) fn answer<P: DeserializeOwned, R: Serialize>(
    parameters: &str,
    part: impl FnOnce(P) -> Result<R>,
) -> Result<()> {
    let result = part(serde_json::from_str(parameters)?)?;
    println!("{}", serde_json::to_string(&result)?);
    Ok(())
}
