//! `cargo xtask instructions`: counts the instructions of the fast paths and compares them with the
//! record.
//!
//! Unlike times, counts are the same on a busy machine and an idle one, so a small loss shows at
//! once. They say nothing about caches and branches: that is for the benchmarks.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{command, on_path, output, root, target_dir, words};
use crate::libraries;

/// What the program `fastpath` can do.
const OPERATIONS: [&str; 6] = [
    "pair-local",
    "batch-alloc",
    "batch-free",
    "pair-shared",
    "pair-mixed",
    PRELOADED,
];

/// The one of them that is C's: with ours preloaded, which checks.
const PRELOADED: &str = "pair-malloc";

/// How often a short and a long run do it. The difference is what counts, so that the preparation
/// and the start of the program do not.
const SHORT: u32 = 1_000;
const LONG: u32 = 11_000;

/// By how much a count may grow.
const ALLOWED: f64 = 0.05;

/// The record, from the top of the repository.
const RECORD: &str = "tests/instructions.toml";

const HEADING: &str = "\
# Instructions for each operation, as `cargo xtask instructions --record` counted them: for x86_64, with
# the pinned toolchain and the profile `bench`. The calls and the loop around them are included. A pair is
# an allocation and a free; batches are of 10,000 objects; mixed pairs have sizes from 16 to 768. Heaps are unchecked,
# but for `pair-malloc`: that is C's `malloc` and `free` with the checked library preloaded.
# `cargo xtask instructions` fails when one of them grows by more than 5 %.

";

/// What to do with the counts.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write the counts to the record instead of comparing them with it.
    #[arg(long)]
    record: bool,
}

/// Counts all operations, then compares or records; whether none has grown too much.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if !on_path("valgrind") {
        bail!("there is no valgrind; `cargo xtask setup` installs it");
    }
    let program = build()?;
    let counts = OPERATIONS
        .iter()
        .map(|&name| Ok((name.to_string(), count(&program, name)?)))
        .collect::<Result<Vec<_>>>()?;
    let path = root().join(RECORD);
    if options.record {
        fs::write(&path, write(&counts)).with_context(|| format!("cannot write {RECORD}"))?;
        counts
            .iter()
            .for_each(|(name, count)| println!("{name:12} {count:8.2}"));
        println!("recorded in {RECORD}");
        return Ok(true);
    }
    let text = fs::read_to_string(&path).with_context(|| {
        format!("cannot read {RECORD}; `cargo xtask instructions --record` writes it")
    })?;
    let recorded = read(&text).with_context(|| format!("cannot read {RECORD}"))?;
    let (report, ok) = compare(&recorded, &counts);
    print!("{report}");
    Ok(ok)
}

/// Builds the program as the benchmarks are built and says where it is.
fn build() -> Result<PathBuf> {
    output(words(
        "cargo build -p temporal-slab-tests --features fastpath --bin fastpath --profile bench",
    ))?;
    // The profile `bench` has no folder of its own.
    Ok(target_dir().join("release").join("fastpath"))
}

/// Instructions for one operation.
fn count(program: &Path, operation: &str) -> Result<f64> {
    let short = total(program, operation, SHORT)?;
    let long = total(program, operation, LONG)?;
    // A long run that takes no more instructions does not do what it should.
    let difference = long
        .checked_sub(short)
        .filter(|&difference| difference > 0)
        .with_context(|| {
            format!("{operation}: {LONG} runs took {long} instructions, {SHORT} took {short}")
        })?;
    Ok(difference as f64 / f64::from(LONG - SHORT))
}

/// Instructions of a whole run.
fn total(program: &Path, operation: &str, times: u32) -> Result<u64> {
    let folder = target_dir().join("instructions");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // It is kept: `callgrind_annotate` shows where the instructions are.
    let profile = folder.join(format!("{operation}-{times}.out"));
    let mut valgrind = command("valgrind");
    if operation == PRELOADED {
        valgrind.env("LD_PRELOAD", libraries::ours()?);
    }
    valgrind
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args([operation, &times.to_string()]);
    output(valgrind)?;
    let text = fs::read_to_string(&profile)
        .with_context(|| format!("cannot read {}", profile.display()))?;
    total_of(&text).with_context(|| format!("there is no sum in {}", profile.display()))
}

/// The sum in what callgrind wrote.
fn total_of(profile: &str) -> Option<u64> {
    profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .and_then(|sum| sum.trim().parse().ok())
}

type Counts = Vec<(String, f64)>;

fn write(counts: &Counts) -> String {
    let mut text = String::from(HEADING);
    for (name, count) in counts {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} = {count:.2}");
    }
    text
}

/// Reads lines of the form `name = number`, apart from empty ones and comments.
fn read(text: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let count = line.split_once('=').and_then(|(name, count)| {
            let count = count.trim().parse().ok()?;
            Some((name.trim().to_string(), count))
        });
        match count {
            Some(count) => counts.push(count),
            None => bail!("line {} is not of the form `name = number`", index + 1),
        }
    }
    Ok(counts)
}

/// A line for each operation, and whether all are well.
fn compare(recorded: &Counts, counts: &Counts) -> (String, bool) {
    let mut report = format!("{:12} {:>8} {:>8}\n", "", "recorded", "now");
    let mut ok = true;
    for (name, now) in counts {
        let recorded = recorded.iter().find(|(known, _)| known == name);
        let (shown, verdict) = match recorded {
            None => (f64::NAN, "NOT RECORDED"),
            Some(&(_, recorded)) if *now > recorded * (1.0 + ALLOWED) => (recorded, "GREW"),
            Some(&(_, recorded)) if *now < recorded * (1.0 - ALLOWED) => {
                (recorded, "fell: record it")
            }
            Some(&(_, recorded)) => (recorded, "ok"),
        };
        ok &= !matches!(verdict, "NOT RECORDED" | "GREW");
        // The sum turns a negative zero into one without a sign.
        let growth = ((now / shown - 1.0) * 1000.0).round() / 10.0 + 0.0;
        let _ = writeln!(
            report,
            "{name:12} {shown:8.2} {now:8.2} {growth:+7.1} %  {verdict}"
        );
    }
    for (name, _) in recorded {
        if !counts.iter().any(|(known, _)| known == name) {
            ok = false;
            let _ = writeln!(
                report,
                "{name:12} is recorded, but there is no such operation"
            );
        }
    }
    if !ok {
        let _ = writeln!(
            report,
            "If that is meant to be: cargo xtask instructions --record"
        );
    }
    (report, ok)
}

#[cfg(test)]
mod tests {
    use super::{Counts, compare, read, total_of, write};

    fn counts(pairs: &[(&str, f64)]) -> Counts {
        pairs
            .iter()
            .map(|&(name, count)| (name.to_string(), count))
            .collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let some = counts(&[("pair", 24.5), ("batch", 3.25)]);
        assert_eq!(read(&write(&some)).unwrap(), some);
    }

    #[test]
    fn a_line_that_is_neither_is_named() {
        let error = read("# comment\n\npair 24\n").unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    #[test]
    fn growth_fails_beyond_what_is_allowed_only() {
        let recorded = counts(&[("pair", 100.0)]);
        for (now, ok) in [(50.0, true), (100.0, true), (105.0, true), (105.1, false)] {
            assert_eq!(compare(&recorded, &counts(&[("pair", now)])).1, ok, "{now}");
        }
    }

    #[test]
    fn both_must_have_the_same_operations() {
        let (one, two) = (
            counts(&[("pair", 1.0)]),
            counts(&[("pair", 1.0), ("batch", 1.0)]),
        );
        assert!(!compare(&one, &two).1);
        assert!(!compare(&two, &one).1);
    }

    #[test]
    fn the_sum_of_a_profile() {
        assert_eq!(
            total_of("events: Ir\nfn=x\n1 2\ntotals: 1234\n"),
            Some(1234)
        );
        assert_eq!(total_of("events: Ir\n"), None);
    }
}
