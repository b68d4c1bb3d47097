//! What the workloads share.

use super::contender::Peer;
use super::options::Options;
use super::results::Results;
use core::time::Duration;
use indicatif::ProgressBar;

/// A run, as far as it has come.
pub(super) struct Context<'o> {
    pub(super) options: &'o Options,
    pub(super) peers: Vec<Peer>,
    pub(super) rounds: usize,
    pub(super) slice: Duration,
    /// What is wanted, in the order of the run.
    pub(super) names: Vec<String>,
    pub(super) bar: ProgressBar,
    pub(super) results: Results,
}

impl Context<'_> {
    pub(super) fn wants(&self, workload: &str, variant: &str) -> bool {
        self.options.wants(&format!("{workload}/{variant}"))
    }

    /// `variant` is one, or what several that are measured together begin with.
    pub(super) fn begin(&self, workload: &str, variant: &str) {
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
