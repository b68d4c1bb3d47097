//! Parts of a run that have a process of their own: what is resident is of a process, and what is cold of one that has
//! not begun.

use super::contender::Kind;
use anyhow::{Context as _, Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use std::process::{Command, Stdio};

/// What a child is told; a subcommand that help does not show.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Part {
    /// Which part.
    #[arg(value_enum)]
    pub(super) work: Work,
    /// Whose.
    pub(super) contender: String,
    /// What the part is asked for, as JSON.
    pub(super) parameters: String,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Latency,
    Churn,
    Serve,
}

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Churn => "churn",
            Self::Serve => "serve",
        }
    }
}

/// The command that starts a part.
pub(super) fn command(
    work: Work,
    contender: &str,
    parameters: &impl serde::Serialize,
) -> Result<Command> {
    let program = std::env::current_exe().context("this program's file is not found")?;
    let mut command = Command::new(program);
    command
        .args(["bench-part", work.name(), contender])
        .arg(serde_json::to_string(parameters)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    Ok(command)
}

/// Runs a part to its end: what it printed.
pub(super) fn run<T: DeserializeOwned>(
    work: Work,
    contender: &str,
    parameters: &impl serde::Serialize,
) -> Result<T> {
    let output = command(work, contender, parameters)?
        .output()
        .context("a part of the run did not start")?;
    ensure!(
        output.status.success(),
        "the part {} of {contender} failed ({})",
        work.name(),
        output.status
    );
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the part {} of {contender} printed no result", work.name()))
}

/// In the child.
pub(crate) fn serve(part: &Part) -> Result<()> {
    let parameters = &part.parameters;
    let text = match part.work {
        Work::Latency => {
            let kind = Kind::named(&part.contender);
            let kind = kind.ok_or_else(|| anyhow!("{} is nobody", part.contender))?;
            serde_json::to_string(&super::latency::part(
                kind,
                serde_json::from_str(parameters)?,
            ))?
        }
        Work::Churn => {
            let account = super::churn::part(&part.contender, &serde_json::from_str(parameters)?);
            let account = account.ok_or_else(|| anyhow!("{} is nobody", part.contender))?;
            serde_json::to_string(&account)?
        }
        Work::Serve => {
            return super::requests::part(&part.contender, &serde_json::from_str(parameters)?);
        }
    };
    println!("{text}");
    Ok(())
}
