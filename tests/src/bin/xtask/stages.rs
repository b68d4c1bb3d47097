//! The stages of `cargo xtask test`.

use std::process::Command;
use std::time::Duration;

use crate::command::{target_dir, words};
use crate::toolchain;

/// For the layers below the public face: no pointer is made from an integer, not even one whose
/// provenance was exposed, because Miri cannot check what such a pointer may reach.
const MIRI_STRICT: &str = "-Zmiri-strict-provenance";

/// For whole heaps, which make a pointer to a slab from the address in an entry of the page map: see the core's
/// `pages/entry.rs`.
pub(crate) const MIRI_WHOLE: &str = "-Zmiri-permissive-provenance -Zmiri-disable-isolation";

/// The files of the core's program of tests.
const FILES: &str = include_str!("../../../../core/tests/it/main.rs");

/// Processes that share the files under Miri: the longer one runs the slower it gets, and each takes seconds to begin.
const PARTS: usize = 12;

/// The files that take longest there: each is in another process, and those begin first.
const LONG: [&str; 12] = [
    "survivors",
    "bumps",
    "lookups",
    "properties",
    "counts",
    "stats",
    "values",
    "epochs",
    "checked",
    "by_address",
    "races",
    "handles",
];

/// For loom's models. How many times a thread may be preempted in one execution: bugs of atomic protocols show with two or
/// three; without a bound the larger models do not end.
pub(crate) const LOOM: [(&str, &str); 2] =
    [("RUSTFLAGS", "--cfg loom"), ("LOOM_MAX_PREEMPTIONS", "3")];

/// A named check that consists of commands; it is ok when all of them are.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) commands: Vec<Command>,
    /// It fails if it runs no test: a wrong `cfg` or name could empty it without anybody noticing.
    pub(crate) needs_tests: bool,
    /// Its commands run at the same time, as many as there are processors: each uses one for long.
    pub(crate) together: bool,
    /// Its commands are run again and again until so much time has passed.
    pub(crate) at_least: Duration,
    /// It takes so long that it is run when it is asked for.
    pub(crate) is_deep: bool,
}

impl Stage {
    /// One that is run once, and need not run a test.
    pub(crate) fn new(name: &'static str, commands: Vec<Command>) -> Self {
        Self {
            name,
            commands,
            needs_tests: false,
            together: false,
            at_least: Duration::ZERO,
            is_deep: false,
        }
    }

    /// The same, but it fails if it runs no test.
    pub(crate) fn of_tests(name: &'static str, commands: Vec<Command>) -> Self {
        Self {
            needs_tests: true,
            ..Self::new(name, commands)
        }
    }
}

/// The stages that take minutes and not more.
pub(crate) fn quick() -> Vec<Stage> {
    let mut stages = all();
    stages.retain(|stage| !stage.is_deep);
    stages
}

/// All stages, the quick ones first.
pub(crate) fn all() -> Vec<Stage> {
    vec![
        check("fmt", [words("cargo fmt --all --check")]),
        check(
            "clippy",
            [
                words("cargo clippy --workspace --all-targets --all-features -- -D warnings"),
                // Without the benchmark it has other lines.
                words("cargo clippy -p tslab --all-targets -- -D warnings"),
                words(
                    "cargo clippy -p temporal-slab-kernel-demo --target x86_64-unknown-none \
                     -- -D warnings",
                ),
            ],
        ),
        check(
            "no-std",
            [words(
                "cargo build -p temporal-slab -p temporal-slab-report --all-features --target x86_64-unknown-none",
            )],
        ),
        check("oldest", [oldest()]),
        check(
            "kernel",
            [words(
                "cargo build -p temporal-slab-kernel-demo --target x86_64-unknown-none",
            )],
        ),
        tests(
            "kernel-logic",
            words("cargo test --no-fail-fast -p temporal-slab-kernel-demo --lib"),
        ),
        check("doc", [doc()]),
        tests(
            "tests",
            words("cargo test --no-fail-fast --all-features --lib --bins --tests --examples"),
        ),
        // As it is installed: without the allocators that the benchmark compares with.
        tests(
            "tslab",
            words("cargo test --no-fail-fast -p tslab --test tslab the_bench_is_a_feature"),
        ),
        // They have a stage of their own because `cargo test` runs them alone or after all others.
        // There need not be any.
        check(
            "doc-tests",
            [words("cargo test --no-fail-fast --all-features --doc")],
        ),
        check("instructions", [words("cargo xtask instructions")]),
        tests("loom", loom()),
        Stage {
            is_deep: true,
            ..tests(
                "i686",
                words(
                    "cargo test --no-fail-fast -p temporal-slab -p temporal-slab-report --all-features \
                     --target i686-unknown-linux-gnu",
                ),
            )
        },
        Stage {
            is_deep: true,
            together: true,
            ..Stage::of_tests("miri", under_miri())
        },
    ]
}

fn check<const N: usize>(name: &'static str, commands: [Command; N]) -> Stage {
    Stage::new(name, Vec::from(commands))
}

fn tests(name: &'static str, command: Command) -> Stage {
    Stage::of_tests(name, vec![command])
}

fn doc() -> Command {
    let mut command = words("cargo doc --no-deps --all-features");
    command.env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// The crates that are published, with the oldest compiler that they are for.
fn oldest() -> Command {
    let mut command = words(&format!(
        "cargo +{} check --locked -p temporal-slab -p temporal-slab-report -p temporal-slab-hosted \
         -p temporal-slab-capi -p temporal-slab-bare -p temporal-slab-malloc --features \
         temporal-slab/allocator-api2,temporal-slab/walker,temporal-slab-hosted/export,temporal-slab-hosted/origins,\
         temporal-slab-hosted/tower",
        toolchain::OLDEST
    ));
    command.arg("--target-dir").arg(target_dir().join("oldest"));
    command
}

fn loom() -> Command {
    let mut command = words("cargo test --no-fail-fast -p temporal-slab --release --lib");
    // Other flags would otherwise have everything built anew each time.
    command.arg("--target-dir").arg(target_dir().join("loom"));
    command.envs(LOOM);
    command
}

/// The core's tests under Miri, in parts.
fn under_miri() -> Vec<Command> {
    let whole = |what: &str| miri(MIRI_WHOLE, &format!("--test it {what}"));
    let mut files: Vec<&str> = FILES
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .filter(|file| *file != "common")
        .collect();
    files.sort_by_key(|file| {
        LONG.iter()
            .position(|long| long == file)
            .unwrap_or(LONG.len())
    });
    let part = |first: usize| {
        let files = files.iter().skip(first).step_by(PARTS);
        files.map(|file| format!(" {file}::")).collect::<String>()
    };
    let parts = (0..PARTS).map(|first| whole(&format!("--{}", part(first))));
    // What narrow words can change.
    let narrow = ["handles:: sizes::", "properties::checked", "threads::"]
        .map(|files| whole(&format!("--target i686-unknown-linux-gnu -- {files}")));
    let strict = miri(MIRI_STRICT, "--lib");
    narrow.into_iter().chain(parts).chain([strict]).collect()
}

pub(crate) fn miri(flags: &str, what: &str) -> Command {
    // If there is no such toolchain, the stage fails with rustup's word on it.
    let toolchain = toolchain::miri().unwrap_or("nightly");
    let mut command = words(&format!("cargo +{toolchain} miri test --no-fail-fast"));
    command.arg("--target-dir").arg(target_dir().join("miri"));
    command.args(["-p", "temporal-slab", "--all-features"]);
    // Last, for it may say which tests, behind a `--`.
    command.args(what.split_whitespace());
    command.env("MIRIFLAGS", flags);
    command
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    /// Catches a file that no part has, and one that is in two.
    #[test]
    fn miri_runs_each_file_once() {
        let commands = super::under_miri();
        let words = commands.iter().flat_map(|command| command.get_args());
        let mut runs: Vec<_> = words
            .filter_map(|word| word.to_str()?.strip_suffix("::"))
            .collect();
        runs.sort_unstable();
        let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/tests/it");
        let mut files: Vec<_> = std::fs::read_dir(tests)
            .unwrap()
            .filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned()))
            .filter(|file| file != "main")
            .chain(["handles", "sizes", "threads"].map(str::to_owned))
            .collect();
        files.sort_unstable();
        assert_eq!(runs, files);
        // The word that names some tests of a file names one.
        let properties = std::fs::read_to_string(format!("{tests}/properties.rs")).unwrap();
        assert!(properties.contains("fn checked"));
    }

    /// Catches a stage that is for another version than the manifest says.
    #[test]
    fn the_oldest_is_what_the_manifest_says() {
        let manifest = include_str!("../../../../Cargo.toml");
        let version = crate::toolchain::OLDEST.trim_end_matches(".0");
        assert!(manifest.contains(&format!("\nrust-version = \"{version}\"\n")));
    }

    #[test]
    fn names_are_distinct() {
        let stages = super::all();
        let names: HashSet<_> = stages.iter().map(|stage| stage.name).collect();
        assert_eq!(names.len(), stages.len());
    }
}
