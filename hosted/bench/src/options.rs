//! What a run is asked for.

use super::contender::Peer;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What to measure, whom to compare with, and where to write it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Fewer and shorter turns: under a minute, and more noise.
    #[arg(long)]
    pub(super) quick: bool,
    /// Only what has one of these in its name, as micro/pair,requests.
    #[arg(long, value_delimiter = ',')]
    pub(super) only: Vec<String>,
    /// Whom to compare with.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL)]
    pub(super) peers: Vec<Peer>,
    /// How many threads serve requests and share an allocator; by default 1 and 2, and for scaling 1, 2, 4, 8 and 16.
    #[arg(long, value_delimiter = ',', value_parser = threads)]
    pub(super) threads: Vec<usize>,
    /// When churning programs with epochs begin another one: request, batch:N, or manual, which is when the load
    /// changes.
    #[arg(long, default_value = "batch:16")]
    pub(super) epochs: Epochs,
    /// After how many requests a churning program frees what one allocated; 0 is at its end.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(0..=512))]
    pub(super) lag: u16,
    /// How many of a thousand objects a churning program never frees; the leaking one has ten if this is 0.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub(super) leaked: u64,
    /// Names what there is to run, and ends.
    #[arg(long)]
    pub(super) list: bool,
    /// Where to write the results for programs. Without any of these three, they and a page go where builds go.
    #[arg(long)]
    pub(super) json: Option<PathBuf>,
    /// Where to write a page for people.
    #[arg(long)]
    pub(super) html: Option<PathBuf>,
    /// Where to write the results for a spreadsheet.
    #[arg(long)]
    pub(super) csv: Option<PathBuf>,
    /// An earlier run (--json) to compare with: fails if a ratio became worse than the tolerance allows.
    #[arg(long)]
    pub(super) baseline: Option<PathBuf>,
    /// By how much a ratio may be worse than in the baseline.
    #[arg(long, default_value_t = 0.15)]
    pub(super) tolerance: f64,
}

impl Options {
    /// Those of a run that nothing is said to.
    #[cfg(test)]
    pub(super) fn usual() -> Self {
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

    pub(super) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only))
    }

    /// Where to write: if nothing is said, results and a page, where builds go.
    pub(super) fn files(&self) -> [Option<PathBuf>; 3] {
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
    pub(super) fn request_threads(&self) -> Vec<usize> {
        self.threads_or(&[1, 2])
    }

    /// Beyond the machine's CPUs as well.
    pub(super) fn scaling_threads(&self) -> Vec<usize> {
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

/// When a program that has epochs begins another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Epochs {
    Request,
    Batch(usize),
    /// When the load changes.
    Manual,
}

impl core::str::FromStr for Epochs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let batch = text.strip_prefix("batch:").map(str::parse);
        match (text, batch) {
            ("request", _) => Ok(Self::Request),
            ("manual", _) => Ok(Self::Manual),
            (_, Some(Ok(count @ 1..))) => Ok(Self::Batch(count)),
            _ => Err("request, batch:N or manual".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How epochs are asked for.
    #[test]
    fn epochs_are_read() {
        assert_eq!("batch:32".parse(), Ok(Epochs::Batch(32)));
        assert_eq!("request".parse(), Ok(Epochs::Request));
        for wrong in ["batch:0", "batch:", "batch", "x"] {
            assert!(wrong.parse::<Epochs>().is_err(), "{wrong}");
        }
    }
}
