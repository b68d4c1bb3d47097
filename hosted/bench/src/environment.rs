//! Where a run took place: what a reader needs to know before believing a figure.

use serde::{Deserialize, Serialize};
use std::fs::read_to_string;
use std::process::Command;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) version: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) kernel: String,
    pub(crate) compiler: String,
    pub(crate) flags: String,
    pub(crate) governor: String,
    pub(crate) huge_pages: String,
    pub(crate) memory_bytes: u64,
    /// The load average of a minute before the run.
    pub(crate) load: f64,
    /// Seconds since 1970.
    pub(crate) time: u64,
}

impl Environment {
    pub(crate) fn read() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            compiler: compiler().unwrap_or_else(unknown),
            flags: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            }
            .to_owned(),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .unwrap_or_else(|| "not told".to_owned()),
            huge_pages: line("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_else(unknown),
            memory_bytes: memory().unwrap_or(0),
            load: line("/proc/loadavg")
                .and_then(|line| line.split(' ').next()?.parse().ok())
                .unwrap_or(0.0),
            time: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| time.as_secs()),
        }
    }

    /// The lines that a report begins with.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        vec![
            ("CPU", format!("{} x {}", self.cpus, self.cpu)),
            ("kernel", self.kernel.clone()),
            ("compiler", format!("{}, {}", self.compiler, self.flags)),
            ("governor", self.governor.clone()),
            ("huge pages", self.huge_pages.clone()),
            ("memory", format!("{} MiB", self.memory_bytes >> 20)),
            ("load before", format!("{:.2}", self.load)),
        ]
    }

    /// Whether other programs had the CPUs as well.
    pub(crate) fn is_busy(&self) -> bool {
        self.load > 0.5
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn line(path: &str) -> Option<String> {
    Some(read_to_string(path).ok()?.trim().to_owned())
}

/// The value of the first line that begins with a name.
fn field(path: &str, name: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> Option<u64> {
    let kib = field("/proc/meminfo", "MemTotal")?;
    Some(kib.split(' ').next()?.parse::<u64>().ok()? * 1024)
}

/// That of this machine, which built this program where it was built by `cargo tslab`.
fn compiler() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
