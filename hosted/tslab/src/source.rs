//! What is looked at: another program, or a workload of our own. Both by the same way.

use crate::{client, workload};
use anyhow::Result;
use core::time::Duration;
use std::path::PathBuf;
use temporal_slab_hosted::TemporalSlab;
use temporal_slab_hosted::export::{Address, Exporter};

#[derive(clap::Args)]
pub(crate) struct From {
    /// Where a program serves its statistics: 127.0.0.1:PORT, http://127.0.0.1:PORT or unix:PATH.
    #[arg(long, conflicts_with = "workload")]
    from: Option<String>,
    /// What to run and look at.
    #[arg(long, value_enum, default_value_t = workload::Kind::Requests)]
    workload: workload::Kind,
    /// How long the workload runs before it is looked at once.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// Something that serves statistics.
pub(crate) struct Source {
    address: Address,
    /// Fields are dropped in this order: the workload stops, then nobody serves it.
    running: Option<workload::Running>,
    _exporter: Option<Exporter>,
    warm_up: Duration,
}

impl Source {
    pub(crate) fn open(from: &From) -> Result<Self> {
        if let Some(address) = &from.from {
            return Ok(Self {
                address: address.parse()?,
                running: None,
                _exporter: None,
                warm_up: Duration::ZERO,
            });
        }
        let socket: PathBuf =
            std::env::temp_dir().join(format!("tslab-{}.socket", std::process::id()));
        let exporter = TemporalSlab::export(&format!("unix:{}", socket.display()))?;
        Ok(Self {
            address: exporter.address().clone(),
            running: Some(workload::start(from.workload)?),
            _exporter: Some(exporter),
            warm_up: Duration::try_from_secs_f64(from.seconds)?,
        })
    }

    /// Waits until a workload has run for a while. There is nothing to wait for elsewhere.
    pub(crate) fn settled(self) -> Result<Self> {
        if self.running.is_some() {
            std::thread::sleep(self.warm_up);
        }
        Ok(self)
    }

    pub(crate) fn get(&self, path: &str) -> Result<String> {
        client::get(&self.address, path)
    }

    /// What a person would call it.
    pub(crate) fn name(&self) -> String {
        match &self.running {
            Some(running) => format!("workload {:?}", running.kind()),
            None => self.address.to_string(),
        }
    }
}
