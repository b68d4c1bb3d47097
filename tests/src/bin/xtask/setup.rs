//! `cargo xtask setup`: what a fresh machine lacks.
//!
//! Each part looks before it installs, so a second run changes nothing and takes no network.

use std::path::Path;

use anyhow::{Result, bail};

use crate::command::{on_path, output, words};
use crate::toolchain;

/// A package of Debian, and how to tell that what it is for is there, by whatever way it came.
struct Package {
    name: &'static str,
    is_present: fn() -> bool,
}

const PACKAGES: [Package; 3] = [
    Package {
        name: "qemu-system-x86",
        is_present: || on_path("qemu-system-x86_64"),
    },
    Package {
        name: "gcc-multilib",
        is_present: links_32_bit,
    },
    Package {
        name: "valgrind",
        is_present: || on_path("valgrind"),
    },
];

/// Installs what is lacking and says what that was. All parts are tried, even when one fails.
pub(crate) fn run() -> Result<()> {
    let parts = [pinned_toolchain(), oldest_toolchain(), miri(), packages()];
    let mut installed = Vec::new();
    let mut errors = Vec::new();
    for part in parts {
        match part {
            Ok(names) => installed.extend(names),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    if !installed.is_empty() {
        println!("setup: installed {}", installed.join(", "));
    } else if errors.is_empty() {
        println!("setup: nothing was lacking");
    }
    if !errors.is_empty() {
        bail!("setup is incomplete: {}", errors.join("\n"));
    }
    Ok(())
}

/// What `rust-toolchain.toml` lists. Cargo may be configured not to install it, and runs without it
/// all the same.
fn pinned_toolchain() -> Result<Vec<String>> {
    let list = || output(words("rustup component list --installed"));
    // An error here means that the toolchain is missing altogether.
    let before = list().unwrap_or_default();
    output(words("rustup toolchain install"))?;
    let after = list()?;
    Ok(after
        .lines()
        .filter(|name| !before.lines().any(|line| line == *name))
        .map(String::from)
        .collect())
}

/// The oldest compiler that the crates are for.
fn oldest_toolchain() -> Result<Vec<String>> {
    let name = toolchain::OLDEST;
    if toolchain::is_installed(name) {
        return Ok(Vec::new());
    }
    println!("setup: installing the toolchain {name}");
    output(words(&format!(
        "rustup toolchain install {name} --profile minimal"
    )))?;
    Ok(vec![format!("the toolchain {name}")])
}

/// Miri, and the standard libraries that it builds for each target that is tested under it.
fn miri() -> Result<Vec<String>> {
    let mut installed = Vec::new();
    let name = match toolchain::miri() {
        Some(name) => name,
        None => {
            let name = toolchain::install_miri()?;
            installed.push(format!("Miri for {name}"));
            name
        }
    };
    for target in ["", " --target i686-unknown-linux-gnu"] {
        // It looks for itself whether there is anything to do.
        output(words(&format!("cargo +{name} miri setup{target}")))?;
    }
    Ok(installed)
}

fn packages() -> Result<Vec<String>> {
    let lacking = lacking_packages();
    if lacking.is_empty() {
        return Ok(Vec::new());
    }
    let line = format!(
        "apt-get install --yes --no-install-recommends {}",
        lacking.join(" ")
    );
    if !on_path("apt-get") {
        bail!(
            "install what these packages of Debian hold: {}",
            lacking.join(" ")
        );
    }
    if output(words("id -u"))?.trim() != "0" {
        bail!("system packages are lacking; run: sudo apt-get update && sudo {line}");
    }
    println!("setup: installing {}", lacking.join(", "));
    for line in ["apt-get update", &line] {
        let mut command = words(line);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        output(command)?;
    }
    let still_lacking = lacking_packages();
    if !still_lacking.is_empty() {
        bail!(
            "apt-get reported success, but these are still lacking: {}",
            still_lacking.join(" ")
        );
    }
    Ok(lacking.into_iter().map(String::from).collect())
}

fn lacking_packages() -> Vec<&'static str> {
    PACKAGES
        .iter()
        .filter(|package| !(package.is_present)())
        .map(|package| package.name)
        .collect()
}

/// Whether gcc can link 32-bit programs: both of its own library and of the C library's start
/// files.
fn links_32_bit() -> bool {
    // gcc answers with a bare name when it does not know the file.
    ["libgcc.a", "crt1.o"].iter().all(|file| {
        output(words(&format!("gcc -m32 -print-file-name={file}")))
            .is_ok_and(|path| Path::new(path.trim()).is_absolute())
    })
}
