//! Judgements of tools that others keep: `cargo xtask deny`, `semver` and `coverage`. Each installs its tool if it is
//! not there.

use anyhow::{Context as _, Result};

use crate::command::{command, install, output, target_dir, words};

/// What whoever changes the public face is compared with.
#[derive(clap::Args)]
pub(crate) struct SemverOptions {
    /// A commit or a tag; without it the newest tag, or where there is none the commit before the last.
    #[arg(long)]
    baseline: Option<String>,
}

/// How much is to be covered.
#[derive(clap::Args)]
pub(crate) struct CoverageOptions {
    /// Fail if less than so many percent of the lines are run.
    #[arg(long, default_value_t = 90)]
    lines: u8,
    /// Write a page for each file to look at, too.
    #[arg(long)]
    html: bool,
}

/// Licences, sources and doubles of all that ships, and what is known against it.
pub(crate) fn deny() -> Result<bool> {
    install("cargo-deny")?;
    let check = |what: &str| {
        let line = format!("cargo deny --log-level warn --config tests/deny.toml check {what}");
        words(&line).status().context("cannot run cargo-deny")
    };
    let is_clean = check("bans licenses sources")?.success();
    // The list of what is known is fetched, which is not possible everywhere.
    if output(words("cargo deny fetch db")).is_err() {
        println!("advisories: NOT CHECKED, for the list could not be fetched");
        return Ok(is_clean);
    }
    Ok(check("advisories")?.success() && is_clean)
}

/// Whether the core's public face still serves those who use the baseline's.
pub(crate) fn semver(options: &SemverOptions) -> Result<bool> {
    install("cargo-semver-checks")?;
    let baseline = match &options.baseline {
        Some(baseline) => baseline.clone(),
        None => output(words("git describe --tags --abbrev=0"))
            .map_or_else(|_| "HEAD~1".into(), |tag| tag.trim().into()),
    };
    println!("semver: the core beside {baseline}");
    let line = format!(
        "cargo semver-checks --package temporal-slab --all-features --baseline-rev {baseline}"
    );
    let status = words(&line)
        .status()
        .context("cannot run cargo-semver-checks")?;
    Ok(status.success())
}

/// How much of the core and of the hosted crate the tests run.
pub(crate) fn coverage(options: &CoverageOptions) -> Result<bool> {
    install("cargo-llvm-cov")?;
    let mut run = command("cargo");
    run.args(["llvm-cov", "--all-features", "--lib", "--tests"])
        // The tests of `tslab` run what it is made of, too.
        .args([
            "-p",
            "temporal-slab",
            "-p",
            "temporal-slab-hosted",
            "-p",
            "tslab",
        ])
        // What is run by tests alone covers itself, and programs are not what is asked for.
        .args([
            "--ignore-filename-regex",
            "(tests|models|benches|bin|hosted/(bench|page|tslab))/",
        ])
        .args(["--fail-under-lines", &options.lines.to_string()])
        .arg("--no-fail-fast")
        .env("CARGO_TARGET_DIR", target_dir().join("coverage"));
    if options.html {
        run.arg("--html");
        println!(
            "coverage: a page will be in {}",
            target_dir().join("coverage").display()
        );
    }
    let status = run.status().context("cannot run cargo-llvm-cov")?;
    Ok(status.success())
}
