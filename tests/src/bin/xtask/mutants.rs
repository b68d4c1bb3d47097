//! `cargo xtask mutants`: breaks the core in one place at a time, and sees whether a test notices.
//!
//! cargo-mutants makes the changes, in a copy of the repository. There are three rounds, each for what the one before did
//! not notice: the quick tests, until the first failure; all but those that take longest; and the loom models.
//! What none of them notices has to have a reason in a list, and be at most a twentieth. Orderings are `cargo xtask weaken`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{display, install, output, root};
use crate::copy::Copy;
use crate::decisions::Decisions;
use crate::stages::LOOM;

const TABLE: &str = "core/docs/mutants.md";
const DECISIONS: &str = "core/docs/mutants.txt";

/// What is broken.
const FILES: [&str; 5] = ["handle/**", "slab/**", "depot/**", "epoch/**", "pages/**"];

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
/// with `&` in place of `|`. And tests that stand beside what they test.
const SAME: [&str; 2] = [r"replace \| with \^", "tests::"];

/// Test files of `core/tests/it` that take long, or that wait for much to happen, and tests of others that take seconds each.
const LONG: [&str; 8] = [
    "faults::",
    "forged::",
    "handles::",
    "properties::",
    "sizes::",
    "epochs::eras_under_contention",
    "epochs::lifetimes_do_not_mix",
    "checked::simultaneous_double_frees_are_found_in_the_end",
];

/// What says something under Miri alone, and what takes so long where nothing is optimised that others, which do the same for less long,
/// stand for it.
const NEVER: [&str; 6] = [
    "races::",
    "faults::every_call_fails_once",
    "faults::every_call_is_the_last_that_works",
    "handles::every_dead_handle_is_refused",
    "handles::handles_of_closed_epochs_are_refused_for_ever",
    "a_hundred_million_cycles_leak_nothing",
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
    let mut decisions = Decisions::read(&root().join(DECISIONS))?;
    let copy = Copy::make("mutants")?;
    let mut rounds = Rounds::new(&copy, options)?;
    rounds.tests("quick", &["it"], &LONG)?;
    rounds.tests("long", &["it", "memory", "reads"], &[])?;
    rounds.models()?;
    let (table, mut bad) = judged(&rounds.results, &mut decisions);
    if options.only.is_none() {
        fs::write(root().join(TABLE), table).with_context(|| format!("cannot write {TABLE}"))?;
        bad.extend(rounds.results.too_few());
        bad.extend(decisions.unused().map(|name| {
            format!("{DECISIONS} has a reason for what is noticed, or is not there: {name}")
        }));
    }
    for problem in &bad {
        println!("{problem}");
    }
    Ok(bad.is_empty())
}

/// The table, and what has no reason.
fn judged(results: &Results, decisions: &mut Decisions) -> (String, Vec<String>) {
    let mut files: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for name in results.noticed() {
        files.entry(file_of(name)).or_default().0 += 1;
    }
    let mut missed: BTreeMap<String, usize> = BTreeMap::new();
    for name in &results.missed {
        files.entry(file_of(name)).or_default().1 += 1;
        *missed.entry(without_place(name)).or_default() += 1;
    }
    let mut table = format!(
        "# What notices a broken line\n\n\
         Written by `cargo xtask mutants`. cargo-mutants broke handles, slabs, depots, epochs and chunks in one place at a \
         time, and the tests ran, and then the loom models, until one failed. Of {} mutants that could be built \
         {} were noticed, {:.1} %: {} by a test or a model that failed and {} by one that did not end. {} more could not be \
         built.\n\n\
         | file | noticed | not noticed | share |\n|---|---|---|---|\n",
        results.viable(),
        results.noticed().count(),
        share(results.noticed().count(), results.viable()),
        results.failed.len(),
        results.late.len(),
        results.unviable.len(),
    );
    for (file, (noticed, missed)) in files {
        let share = share(noticed, noticed + missed);
        table.push_str(&format!(
            "| `{file}` | {noticed} | {missed} | {share:.0} % |\n"
        ));
    }
    table.push_str("\n## Not noticed, and why\n\n");
    let mut bad = Vec::new();
    for (name, count) in &missed {
        let why = decisions.of(name).map(String::from).unwrap_or_else(|| {
            bad.push(format!("not noticed, and without a reason: {name}"));
            "**no reason yet**".into()
        });
        let places = match count {
            1 => String::new(),
            count => format!(" ({count} places)"),
        };
        table.push_str(&format!("- `{name}`{places}: {why}\n"));
    }
    (table, bad)
}

/// In percent.
fn share(part: usize, whole: usize) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// The file of a mutant, below the core's sources.
fn file_of(name: &str) -> &str {
    let path = name.split(':').next().unwrap_or(name);
    path.strip_prefix("core/src/").unwrap_or(path)
}

/// A mutant's name without its line and column, which are others after the next change. What is changed alike in several
/// places of a function has one name.
fn without_place(name: &str) -> String {
    let what = name.splitn(4, ':').nth(3).unwrap_or(name);
    format!("{}:{what}", file_of(name))
}

/// What came of the mutants so far, by their names.
#[derive(Debug, Default)]
struct Results {
    /// A test or a model failed.
    failed: BTreeSet<String>,
    /// One did not end.
    late: BTreeSet<String>,
    unviable: BTreeSet<String>,
    missed: BTreeSet<String>,
}

impl Results {
    fn all(&mut self) -> [(&'static str, &mut BTreeSet<String>); 4] {
        [
            ("caught.txt", &mut self.failed),
            ("timeout.txt", &mut self.late),
            ("unviable.txt", &mut self.unviable),
            ("missed.txt", &mut self.missed),
        ]
    }

    /// Adds what a run of cargo-mutants wrote, as far as it came.
    fn add(&mut self, folder: &Path) -> Result<()> {
        for (file, found) in self.all() {
            found.extend(names(&folder.join(file))?);
        }
        self.late.retain(|name| !self.failed.contains(name));
        let is_noticed = |name: &String| self.failed.contains(name) || self.late.contains(name);
        self.missed.retain(|name| !is_noticed(name));
        // What is not there for a model was there for the tests before.
        let is_viable = |name: &String| is_noticed(name) || self.missed.contains(name);
        self.unviable.retain(|name| !is_viable(name));
        Ok(())
    }

    /// Forgets what is not in the sources any more.
    fn keep(&mut self, there: &BTreeSet<String>) {
        for (_, found) in self.all() {
            found.retain(|name| there.contains(name));
        }
    }

    /// Where a run that is ended finds them again.
    fn save(&mut self, folder: &Path) -> Result<()> {
        for (file, found) in self.all() {
            let text: String = found.iter().map(|name| format!("{name}\n")).collect();
            fs::write(folder.join(file), text)?;
        }
        Ok(())
    }

    fn noticed(&self) -> impl Iterator<Item = &String> {
        self.failed.iter().chain(&self.late)
    }

    fn viable(&self) -> usize {
        self.noticed().count() + self.missed.len()
    }

    fn too_few(&self) -> Option<String> {
        let (noticed, viable) = (self.noticed().count(), self.viable());
        (noticed * 100 < viable * ENOUGH)
            .then(|| format!("{noticed} of {viable} were noticed, which is less than {ENOUGH} %"))
    }
}

/// The rounds, run in a copy of the repository.
struct Rounds<'c> {
    copy: &'c Copy,
    only: Option<&'c str>,
    out: PathBuf,
    /// All that there is to break.
    there: BTreeSet<String>,
    results: Results,
}

impl<'c> Rounds<'c> {
    fn new(copy: &'c Copy, options: &'c Options) -> Result<Self> {
        let out = match options.only {
            Some(_) => "some",
            None => "all",
        };
        let out = copy.folder().with_file_name(out);
        if !options.resume {
            let _old = fs::remove_dir_all(&out);
        }
        fs::create_dir_all(&out)?;
        let mut rounds = Self {
            copy,
            only: options.only.as_deref(),
            out,
            there: BTreeSet::new(),
            results: Results::default(),
        };
        let mut list = rounds.cargo_mutants();
        list.arg("--list");
        rounds.there = output(list)?.lines().map(String::from).collect();
        ensure!(!rounds.there.is_empty(), "nothing to break is called so");
        // What was saved after the last whole round, and what the one behind it came to.
        rounds.results.add(&rounds.out)?;
        rounds.results.add(&rounds.out.join("mutants.out"))?;
        rounds.results.keep(&rounds.there);
        Ok(rounds)
    }

    /// A round with the core's own tests and those of some programs.
    fn tests(&mut self, name: &str, programs: &[&str], skipped: &[&str]) -> Result<()> {
        let mut arguments = vec!["--cargo-arg=--lib".into(), "--all-features".into()];
        arguments.extend(programs.iter().map(|it| format!("--cargo-arg=--test={it}")));
        arguments.extend(["--".into(), "--".into()]);
        // An argument of libtest's that is not stable, for which it wants to be told that we know.
        arguments.extend(["-Zunstable-options".into(), "--fail-fast".into()]);
        for test in skipped.iter().chain(&NEVER) {
            arguments.extend(["--skip".into(), (*test).into()]);
        }
        self.round(name, &arguments, &[("RUSTC_BOOTSTRAP", "1")])
    }

    /// A round with the loom models.
    fn models(&mut self) -> Result<()> {
        let arguments = ["--cargo-arg=--lib", "--profile=release"].map(String::from);
        self.round("models", &arguments, &LOOM)
    }

    /// cargo-mutants, with all that is to be broken.
    fn cargo_mutants(&self) -> Command {
        let mut mutants = self
            .copy
            .command("cargo mutants --package temporal-slab --colors=never");
        for file in FILES {
            mutants.arg("--file").arg(format!("core/src/{file}"));
        }
        for file in TESTS {
            mutants.arg("--exclude").arg(format!("core/src/{file}"));
        }
        for name in SAME {
            mutants.arg("--exclude-re").arg(name);
        }
        if let Some(only) = self.only {
            mutants.arg("--re").arg(only);
        }
        mutants
    }

    fn round(
        &mut self,
        name: &str,
        arguments: &[String],
        variables: &[(&str, &str)],
    ) -> Result<()> {
        let left = self.there.len() - self.results.noticed().count() - self.results.unviable.len();
        println!("{name}: {left} of {} are left", self.there.len());
        if left == 0 {
            return Ok(());
        }
        let mut mutants = self.cargo_mutants();
        mutants
            .args(["--in-place", "--iterate", "--no-shuffle", "--output"])
            .arg(&self.out)
            // What a change leaves unused is no error.
            .args(["--cap-lints=true", "--timeout-multiplier=4"])
            .args(arguments)
            .envs(variables.iter().copied());
        // It says what it does, and its status that it came to its end: all noticed, some not, some late.
        let status = mutants.status().context("cannot run cargo-mutants")?;
        self.results.add(&self.out.join("mutants.out"))?;
        self.results.save(&self.out)?;
        ensure!(
            matches!(status.code(), Some(0 | 2 | 3)),
            "`{}`: {status}; `--resume` goes on there",
            display(&mutants)
        );
        Ok(())
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
    use super::{Results, file_of, names, without_place};

    /// Catches a mutant that is not noticed by tests, and vanishes because it is not there for the models.
    #[test]
    fn what_is_missed_stays_so() {
        let folder = std::env::temp_dir().join(format!("mutants-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |file: &str, text: &str| std::fs::write(folder.join(file), text).unwrap();
        let mut results = Results::default();
        write("missed.txt", "a\nb\nc\n");
        write("unviable.txt", "d\n");
        results.add(&folder).unwrap();
        write("missed.txt", "");
        write("unviable.txt", "a\nd\n");
        write("caught.txt", "b\n");
        write("timeout.txt", "c\n");
        results.add(&folder).unwrap();
        assert_eq!(Vec::from_iter(&results.missed), ["a"]);
        assert_eq!(Vec::from_iter(&results.unviable), ["d"]);
        assert_eq!(Vec::from_iter(results.noticed()), ["b", "c"]);
        assert_eq!(results.viable(), 3);
        assert!(results.too_few().is_some());
        results.save(&folder).unwrap();
        assert_eq!(
            Vec::from_iter(names(&folder.join("missed.txt")).unwrap()),
            ["a"]
        );
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn names_outlive_a_change_above() {
        let name = "core/src/depot/epoch_depot.rs:56:9: replace EpochDepot::id -> u16 with 0";
        assert_eq!(file_of(name), "depot/epoch_depot.rs");
        assert_eq!(
            without_place(name),
            "depot/epoch_depot.rs: replace EpochDepot::id -> u16 with 0"
        );
    }
}
