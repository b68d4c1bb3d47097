//! A report as it was read: what the pictures are made of.

use crate::source::Source;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Instant;

/// One look at a heap and its process.
pub(crate) struct Report {
    pub(crate) at: Instant,
    stats: Value,
    process: Value,
}

/// An epoch, as far as it is shown.
pub(crate) struct Epoch<'r> {
    pub(crate) name: &'r str,
    pub(crate) position: u64,
    pub(crate) is_open: bool,
    pub(crate) is_current: bool,
    pub(crate) bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) live_objects: u64,
}

/// Something that is wrong.
pub(crate) struct Finding<'r> {
    pub(crate) severity: &'r str,
    pub(crate) kind: &'r str,
    pub(crate) evidence: &'r str,
    pub(crate) action: &'r str,
}

impl Report {
    pub(crate) fn read(source: &Source) -> Result<Self> {
        Self::parse(&source.get("/stats.json")?, &source.get("/process.json")?)
    }

    pub(crate) fn parse(stats: &str, process: &str) -> Result<Self> {
        let stats: Value = serde_json::from_str(stats).context("the statistics are not JSON")?;
        let known = u64::from(temporal_slab::snapshot::VERSION);
        let schema = stats["schema"].as_u64().unwrap_or(0);
        ensure!(
            schema == known,
            "the program's statistics are of version {schema}, and this tslab knows {known}: use the one that came with it"
        );
        Ok(Self {
            at: Instant::now(),
            stats,
            process: serde_json::from_str(process).context("the process's figures are not JSON")?,
        })
    }

    /// A figure of the heap; a part of it after a dot.
    pub(crate) fn heap(&self, name: &str) -> u64 {
        let mut value = &self.stats["heap"];
        for name in name.split('.') {
            value = &value[name];
        }
        value.as_u64().unwrap_or(0)
    }

    pub(crate) fn process(&self, name: &str) -> u64 {
        self.process[name].as_u64().unwrap_or(0)
    }

    /// The sum over the parts of a figure.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        let parts = self.stats["heap"][name].as_object();
        parts.map_or(0, |parts| parts.values().filter_map(Value::as_u64).sum())
    }

    pub(crate) fn parts(&self, name: &str) -> Vec<(&str, u64)> {
        let parts = self.stats["heap"][name].as_object();
        let parts = parts.into_iter().flatten();
        parts
            .map(|(name, value)| (name.as_str(), value.as_u64().unwrap_or(0)))
            .collect()
    }

    /// The epochs, those that hold the most first.
    pub(crate) fn epochs(&self) -> Vec<Epoch<'_>> {
        let mut epochs: Vec<Epoch<'_>> = list(&self.stats["epochs"])
            .map(|epoch| {
                let number = |name: &str| epoch[name].as_u64().unwrap_or(0);
                let flag = |name: &str| epoch[name].as_bool().unwrap_or(false);
                Epoch {
                    name: epoch["label"].as_str().unwrap_or(""),
                    position: number("position"),
                    is_open: flag("open"),
                    is_current: flag("current"),
                    bytes: number("bytes"),
                    live_bytes: number("live_bytes"),
                    live_objects: number("live_objects"),
                }
            })
            .collect();
        epochs.sort_by_key(|epoch| core::cmp::Reverse(epoch.bytes));
        epochs
    }

    /// Sampled times of a cause: how many, the median and the longest but one in a hundred.
    pub(crate) fn latencies(&self) -> Vec<(&str, u64, u64, u64)> {
        let causes = self.stats["latency"].as_object().into_iter().flatten();
        causes
            .map(|(cause, times)| {
                let number = |name: &str| times[name].as_u64().unwrap_or(0);
                (
                    cause.as_str(),
                    number("count"),
                    number("p50_ns"),
                    number("p99_ns"),
                )
            })
            .collect()
    }

    pub(crate) fn findings(&self) -> Vec<Finding<'_>> {
        list(&self.stats["findings"])
            .map(|finding| {
                let text = |name: &str| finding[name].as_str().unwrap_or("");
                Finding {
                    severity: text("severity"),
                    kind: text("kind"),
                    evidence: text("evidence"),
                    action: text("action"),
                }
            })
            .collect()
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.findings()
            .iter()
            .any(|finding| finding.severity == "error")
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
