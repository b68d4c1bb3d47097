//! `cargo xtask mutants`: breaks the core in one place at a time, and sees whether a test notices.
//!
//! cargo-mutants makes the changes, in a copy of the repository. There are three rounds, each for what the one before did
//! not notice: the quick tests, as one program that ends with the first failure; those that take long; and the loom models.
//! What none of them notices has to have a reason in a list, and be at most a twentieth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{install, root, words};
use crate::copy::Copy;
use crate::decisions::Decisions;
use crate::stages::LOOM_PREEMPTIONS;

const TABLE: &str = "core/docs/mutants.md";
const DECISIONS: &str = "core/docs/mutants.txt";

/// What is broken.
const FILES: [&str; 5] = ["handle/**", "slab.rs", "depot/**", "epoch/**", "chunk/**"];

/// Models and tests, which are not.
const TESTS: [&str; 5] = [
    "**/models.rs",
    "**/models/**",
    "**/races.rs",
    "**/tests.rs",
    // Only the walker's word for what a test prints.
    "**/view.rs",
];

/// What is the same: bits are put together of parts that have none in common. That they are put together at all is seen
/// with `&` in place of `|`.
const SAME: &str = r"replace \| with \^";

/// Test files that take long, or that wait for much to happen.
const LONG: [&str; 6] = [
    "faults",
    "forged",
    "handles",
    "memory",
    "properties",
    "sizes",
];

/// Test files that are for Miri alone.
const MIRI: [&str; 1] = ["races"];

/// Tests of the quick files that take seconds each.
const SLOW: [&str; 4] = [
    "only_metadata_is_read",
    "eras_under_contention",
    "lifetimes_do_not_mix",
    "simultaneous_double_frees",
];

/// As many of a hundred viable mutants have to be noticed.
const ENOUGH: usize = 95;

/// What to break.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only mutants whose name, as cargo-mutants has it, this expression matches; the table stays as it is.
    #[arg(long, value_name = "REGEX")]
    only: Option<String>,
    /// Go on where the last run was ended.
    #[arg(long)]
    resume: bool,
}

/// Breaks what the options say; whether enough was noticed, and all else has a reason.
pub(crate) fn run(options: &Options) -> Result<bool> {
    install("cargo-mutants")?;
    let copy = Copy::make("mutants")?;
    let mut rounds = Rounds::new(&copy, options)?;
    rounds.tests("quick", &quick()?, &SLOW)?;
    rounds.tests("long", &LONG.map(String::from), &[])?;
    rounds.models()?;
    let mut decisions = Decisions::read(&root().join(DECISIONS))?;
    let (table, bad) = judged(&rounds.results, &mut decisions);
    if options.only.is_none() {
        fs::write(root().join(TABLE), table).with_context(|| format!("cannot write {TABLE}"))?;
        for name in decisions.unused() {
            println!("{DECISIONS} has a reason for what is noticed, or is not there: {name}");
        }
    }
    for problem in &bad {
        println!("{problem}");
    }
    Ok(bad.is_empty())
}

/// The table, and what is not as it should be.
fn judged(results: &Results, decisions: &mut Decisions) -> (String, Vec<String>) {
    let mut files: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for name in &results.caught {
        files.entry(file_of(name)).or_default().0 += 1;
    }
    for name in &results.missed {
        files.entry(file_of(name)).or_default().1 += 1;
    }
    let (caught, missed) = (results.caught.len(), results.missed.len());
    let viable = caught + missed;
    let share =
        |caught: usize, missed: usize| caught as f64 * 100.0 / (caught + missed).max(1) as f64;
    let mut table = format!(
        "# What notices a broken line\n\n\
         Written by `cargo xtask mutants`. cargo-mutants broke handles, slabs, depots, epochs and chunks in one place at a \
         time, and the tests ran, and then the loom models, until one failed. Of {viable} mutants that could be built \
         {caught} were noticed, {:.1} %; {} more could not be built.\n\n\
         | file | noticed | not noticed | share |\n|---|---|---|---|\n",
        share(caught, missed),
        results.unviable.len(),
    );
    for (file, (caught, missed)) in files {
        let share = share(caught, missed);
        table.push_str(&format!(
            "| `{file}` | {caught} | {missed} | {share:.0} % |\n"
        ));
    }
    table.push_str("\n## Not noticed, and why\n\n");
    let mut bad = Vec::new();
    if caught * 100 < viable * ENOUGH {
        bad.push(format!(
            "{caught} of {viable} were noticed, which is less than {ENOUGH} %"
        ));
    }
    for name in &results.missed {
        let name = without_place(name);
        let why = decisions.of(&name).map(String::from).unwrap_or_else(|| {
            bad.push(format!("not noticed, and without a reason: {name}"));
            "**no reason yet**".into()
        });
        table.push_str(&format!("- `{name}`: {why}\n"));
    }
    (table, bad)
}

/// The file of a mutant, below the core's sources.
fn file_of(name: &str) -> &str {
    let path = name.split(':').next().unwrap_or(name);
    path.strip_prefix("core/src/").unwrap_or(path)
}

/// A mutant's name without its line and column, which are others after the next change.
fn without_place(name: &str) -> String {
    let what = name.splitn(4, ':').nth(3).unwrap_or(name);
    format!("{}:{what}", file_of(name))
}

/// The test files of the core that are neither long nor for Miri.
fn quick() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("core/tests"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|_| path.is_file())
            && !LONG.contains(&name)
            && !MIRI.contains(&name)
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// What came of the mutants so far, by their names.
#[derive(Debug, Default)]
struct Results {
    caught: BTreeSet<String>,
    unviable: BTreeSet<String>,
    missed: BTreeSet<String>,
}

impl Results {
    /// Adds what the last run of cargo-mutants wrote, as far as it came. What it did not get to is as it was.
    fn add(&mut self, folder: &Path) -> Result<()> {
        let read = |file: &str| names(&folder.join(file));
        let (caught, late) = (read("caught.txt")?, read("timeout.txt")?);
        self.caught.extend(caught.into_iter().chain(late));
        self.unviable.extend(read("unviable.txt")?);
        self.missed.extend(read("missed.txt")?);
        let is_known = |name: &String| self.caught.contains(name) || self.unviable.contains(name);
        self.missed.retain(|name| !is_known(name));
        Ok(())
    }

    /// Where a run that is ended finds them again.
    fn save(&self, folder: &Path) -> Result<()> {
        let all = [
            ("caught.txt", &self.caught),
            ("unviable.txt", &self.unviable),
            ("missed.txt", &self.missed),
        ];
        for (file, names) in all {
            let text: String = names.iter().map(|name| format!("{name}\n")).collect();
            fs::write(folder.join(file), text)?;
        }
        Ok(())
    }
}

/// The rounds, run in a copy of the repository.
struct Rounds<'c> {
    copy: &'c Copy,
    only: Option<&'c str>,
    out: PathBuf,
    results: Results,
}

impl<'c> Rounds<'c> {
    fn new(copy: &'c Copy, options: &'c Options) -> Result<Self> {
        let out = copy.folder().with_file_name("out");
        if !options.resume {
            let _old = fs::remove_dir_all(&out);
        }
        fs::create_dir_all(&out)?;
        let mut results = Results::default();
        // What was saved after the last whole round, and what the one behind it came to.
        results.add(&out)?;
        results.add(&out.join("mutants.out"))?;
        Ok(Self {
            copy,
            only: options.only.as_deref(),
            out,
            results,
        })
    }

    /// A round with the core's own tests and some of its test files, made one program: to link is most of what a change
    /// costs.
    fn tests(&mut self, name: &str, files: &[String], skipped: &[&str]) -> Result<()> {
        let mut program = String::from("//! Several test files in one.\n#![allow(missing_docs)]\n");
        for file in files {
            writeln!(program, "#[path = \"{file}.rs\"]\nmod {file};")?;
        }
        let path = format!("core/tests/mutants_{name}.rs");
        fs::write(self.copy.folder().join(path), program)?;
        let mut arguments = vec![
            format!("--cargo-arg=--test=mutants_{name}"),
            "--cargo-arg=--lib".into(),
            "--all-features".into(),
            "--".into(),
            "--".into(),
            // An argument of libtest's that is not stable, for which it wants to be told that we know.
            "-Zunstable-options".into(),
            "--fail-fast".into(),
        ];
        for test in skipped {
            arguments.extend(["--skip".into(), (*test).into()]);
        }
        self.round(name, &arguments, &[("RUSTC_BOOTSTRAP", "1")])
    }

    /// A round with the loom models.
    fn models(&mut self) -> Result<()> {
        let arguments = ["--cargo-arg=--lib", "--profile=release"].map(String::from);
        let variables = [
            ("RUSTFLAGS", "--cfg loom"),
            ("LOOM_MAX_PREEMPTIONS", LOOM_PREEMPTIONS),
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
            ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
        ];
        self.round("models", &arguments, &variables)
    }

    fn round(
        &mut self,
        name: &str,
        arguments: &[String],
        variables: &[(&str, &str)],
    ) -> Result<()> {
        println!("{name}:");
        let mut mutants =
            words("cargo mutants --in-place --iterate --package temporal-slab --no-shuffle");
        mutants.current_dir(self.copy.folder());
        for file in FILES {
            mutants.arg("--file").arg(format!("core/src/{file}"));
        }
        for file in TESTS {
            mutants.arg("--exclude").arg(format!("core/src/{file}"));
        }
        mutants.arg("--exclude-re").arg(SAME);
        if let Some(only) = self.only {
            mutants.arg("--re").arg(only);
        }
        mutants
            .arg("--output")
            .arg(&self.out)
            // What a change leaves unused is no error.
            .args([
                "--cap-lints=true",
                "--colors=never",
                "--timeout-multiplier=4",
            ])
            .args(arguments)
            .env(
                "CARGO_TARGET_DIR",
                self.copy.folder().with_file_name("target"),
            )
            // Most of the time goes into building one crate over and over.
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_PROFILE_TEST_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_TEST_DEBUG", "0")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .envs(variables.iter().copied());
        // It says what it does, and its status says what came of it, which is in its files, too.
        let status = mutants.status().context("cannot run cargo-mutants")?;
        let found = self.out.join("mutants.out");
        let is_done = found.join("outcomes.json").is_file();
        ensure!(
            is_done && status.code() != Some(4),
            "cargo-mutants: {status}"
        );
        self.results.add(&found)?;
        self.results.save(&self.out)
    }
}

/// The lines of a file, if there is one.
fn names(path: &Path) -> Result<BTreeSet<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(String::from).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => bail!("cannot read {}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::{file_of, without_place};

    #[test]
    fn names_outlive_a_change_above() {
        let name = "core/src/depot/row.rs:56:9: replace Row::id -> u16 with 0";
        assert_eq!(file_of(name), "depot/row.rs");
        assert_eq!(
            without_place(name),
            "depot/row.rs: replace Row::id -> u16 with 0"
        );
    }
}
