//! Who takes part, and how each is built.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use super::Mode;
use crate::command::{command, output, target_dir, words};
use crate::libraries;

/// A program, and what is preloaded.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    program: PathBuf,
    preload: Option<PathBuf>,
    /// For ours: what it may take of the best peer's time.
    pub(crate) bound: Option<f64>,
}

const PEERS: [&str; 6] = [
    "mimalloc2",
    "mimalloc3",
    "jemalloc",
    "snmalloc",
    "rpmalloc",
    "glibc",
];

/// What ours may take of the best peer's time: as it is when it checks nothing, and when it checks each pointer.
const BOUND: f64 = 1.05;
const BOUND_CHECKED: f64 = 1.2;

impl Contender {
    pub(crate) fn command(&self, argument: &str) -> Command {
        let mut command = command(&self.program.to_string_lossy());
        command.arg(argument).env_remove("LD_PRELOAD");
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library);
        }
        command
    }
}

/// An error if one of the names is no peer's.
pub(crate) fn check(names: &[String]) -> Result<()> {
    for name in names {
        ensure!(
            PEERS.contains(&name.as_str()),
            "there is no peer {name:?}; there are {}",
            PEERS.join(", ")
        );
    }
    Ok(())
}

/// Ours and the peers that are asked for, built.
pub(crate) fn contenders(mode: Mode, names: &[String]) -> Result<Vec<Contender>> {
    let peers = PEERS
        .into_iter()
        .filter(|peer| names.is_empty() || names.iter().any(|name| name == peer));
    eprintln!("building the contenders, {}", mode.name());
    let program = |name: &str| target_dir().join("release").join(format!("contest-{name}"));
    let build = |feature: &str, names: &[&str]| {
        let bins: String = names
            .iter()
            .map(|n| format!(" --bin contest-{n}"))
            .collect();
        output(words(&format!(
            "cargo build --quiet --profile bench -p temporal-slab-tests --features {feature}{bins}"
        )))
    };
    let contender = |name, of: &str, preload, bound| Contender {
        name,
        program: program(of),
        preload,
        bound,
    };
    match mode {
        Mode::Global => {
            let (special, mut usual): (Vec<&str>, Vec<&str>) =
                peers.partition(|&peer| peer == "mimalloc2");
            usual.insert(0, "ours");
            build("contest", &usual)?;
            if !special.is_empty() {
                build("contest-mimalloc2", &special)?;
            }
            let mut all = vec![contender("ours", "ours", None, Some(BOUND))];
            let peers = special.into_iter().chain(usual.into_iter().skip(1));
            all.extend(peers.map(|peer| contender(peer, peer, None, None)));
            Ok(all)
        }
        Mode::Preload => {
            build("contest", &["glibc"])?;
            let unchecked = Some(libraries::ours_unchecked()?);
            let mut all = vec![
                contender("unchecked", "glibc", unchecked, Some(BOUND)),
                contender(
                    "checked",
                    "glibc",
                    Some(libraries::ours()?),
                    Some(BOUND_CHECKED),
                ),
            ];
            for peer in peers {
                let library = match peer {
                    "glibc" => None,
                    peer => Some(libraries::peer(peer)?),
                };
                all.push(contender(peer, "glibc", library, None));
            }
            Ok(all)
        }
    }
}
