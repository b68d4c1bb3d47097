//! The toolchains beside the pinned one: the nightly that Miri needs, and the oldest that the crates are for.

use anyhow::{Result, bail};

use crate::command::{output, words};

/// Toolchains to run Miri with, the best first. Not every nightly has every component: the dated
/// one is known to.
const NIGHTLIES: [&str; 2] = ["nightly", "nightly-2026-08-01"];

/// What Miri needs of it: itself, and the source that it builds its standard library from.
const COMPONENTS: [&str; 2] = ["miri", "rust-src"];

/// The oldest toolchain that the published crates build with: `rust-version` in the workspace's manifest.
pub(crate) const OLDEST: &str = "1.88.0";

pub(crate) fn is_installed(name: &str) -> bool {
    components_of(name).is_ok()
}

/// The installed toolchain to run Miri with, if there is one that has all it needs.
pub(crate) fn miri() -> Option<&'static str> {
    NIGHTLIES.into_iter().find(|name| is_complete(name))
}

/// Completes or installs a toolchain for Miri and returns its name.
pub(crate) fn install_miri() -> Result<&'static str> {
    let mut errors = String::new();
    for name in NIGHTLIES {
        println!("setup: installing Miri for the toolchain {name}");
        match install(name) {
            Ok(()) => return Ok(name),
            Err(error) => errors.push_str(&format!("\n{error:#}")),
        }
    }
    bail!("no toolchain for Miri could be installed:{errors}")
}

fn install(name: &str) -> Result<()> {
    let components = COMPONENTS.join(" ");
    let command = if components_of(name).is_ok() {
        words(&format!(
            "rustup component add --toolchain {name} {components}"
        ))
    } else {
        let components = components.replace(' ', ",");
        words(&format!(
            "rustup toolchain install {name} --profile minimal --component {components}"
        ))
    };
    output(command)?;
    // rustup has cases of success in which it left something out, so its exit code is not the last
    // word.
    if !is_complete(name) {
        bail!("rustup reported success, but {name} still lacks one of: {components}");
    }
    Ok(())
}

fn is_complete(name: &str) -> bool {
    components_of(name).is_ok_and(|installed| {
        // Installed components carry their host as a suffix, where they have one.
        COMPONENTS
            .iter()
            .all(|wanted| installed.lines().any(|line| line.starts_with(wanted)))
    })
}

/// The installed components of a toolchain, one in each line; an error if it is not installed.
fn components_of(name: &str) -> Result<String> {
    output(words(&format!(
        "rustup component list --installed --toolchain {name}"
    )))
}
