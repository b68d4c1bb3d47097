//! The stages of `cargo xtask sanitize`: the same tests where somebody watches every access.
//!
//! - ThreadSanitizer has two threads meet at an access without an order between them. Each concurrent test is run again
//!   and again for a minute, and so is the soak, which does everything at once.
//! - AddressSanitizer has accesses outside of what lives. It does not know our objects, but all that lies around them.
//! - Miri has both, and what pointers may be used for, by both of its models, in as many schedules as there are seeds,
//!   with loads that may see old values.

use std::process::Command;
use std::time::Duration;

use crate::command::{target_dir, words};
use crate::stages::{MIRI_WHOLE, Stage, miri};
use crate::toolchain;

/// For so long each concurrent test is run under ThreadSanitizer.
const LONG: Duration = Duration::from_secs(60);

/// So many schedules of each concurrent test.
const SEEDS: &str = "-Zmiri-many-seeds=0..64";

/// Tests of the core in which threads do everything. (Those with one thread have one schedule.)
const STORMS: &str = "--test it -- \
                      locals_only shared_path_only both_with \
                      under_contention threads_share_a_domain readers_and_removers";

/// The tests of the core in which threads meet, and those of them that Miri runs.
const MEETINGS: [(&str, &str); 11] = [
    ("tsan-threads", "--test it -- threads::"),
    ("tsan-handles", "--test it -- handles::"),
    ("tsan-values", "--test it -- values::"),
    ("tsan-epochs", "--test it -- epochs::"),
    ("tsan-eras", "--test it -- eras::"),
    ("tsan-blocks", "--test it -- bumps:: survivors:: learning::"),
    ("tsan-domains", "--test it -- domains::"),
    ("tsan-scopes", "--test it -- scopes::"),
    ("tsan-stats", "--test it -- stats:: counts::"),
    ("tsan-adapters", "--test it -- adapters:: hostile::"),
    ("tsan-lookups", "--test it -- lookups::"),
];

/// What AddressSanitizer cannot be asked: what measures the resident set, faults, mappings or advice, which are its own, too.
const NOT_ADDRESS: [&str; 8] = [
    "a_million_objects_cost_two_percent",
    "threads_come_and_go",
    "a_checkerboard_splits_no_mapping",
    "batches_spare_faults",
    "out_of_mappings_is_an_error",
    "refused_advice_is_seen",
    "a_gigabyte_goes_back",
    "policies_at_work",
];

pub(crate) fn stages() -> Vec<Stage> {
    let mut stages: Vec<Stage> = MEETINGS
        .into_iter()
        .map(|(name, tests)| {
            let line = format!("test --release -p temporal-slab --all-features {tests}");
            long(name, sanitized("thread", &line))
        })
        .collect();
    // What is skipped measures the resident set, which is the sanitizer's here.
    let hosted = "test --release -p temporal-slab-hosted --features export,checked \
                  --test global --test reclaim --test signals --test lookups --test survivors -- \
                  --skip threads_come_and_go";
    let skips: String = NOT_ADDRESS
        .iter()
        .map(|name| format!(" --skip {name}"))
        .collect();
    let address = format!(
        "test --no-fail-fast -p temporal-slab -p temporal-slab-hosted -p tslab --all-features \
         --lib --tests --{skips}"
    );
    let soak = "run --release -p tslab -- soak --threads 8 --seconds 60";
    stages.extend([
        long("tsan-hosted", sanitized("thread", hosted)),
        Stage::new("tsan-soak", vec![sanitized("thread", soak)]),
        Stage::of_tests("asan", vec![sanitized("address", &address)]),
        Stage::new("asan-soak", vec![sanitized("address", soak)]),
        Stage {
            together: true,
            ..Stage::of_tests(
                "miri-seeds",
                ["", "-Zmiri-tree-borrows"]
                    .into_iter()
                    .flat_map(|model| [seeds(model, "--test it races::"), seeds(model, STORMS)])
                    .collect(),
            )
        },
    ]);
    stages
}

/// A stage of tests that is repeated for long.
fn long(name: &'static str, command: Command) -> Stage {
    Stage {
        at_least: LONG,
        ..Stage::of_tests(name, vec![command])
    }
}

/// A command of cargo's with everything, the standard library too, made for a sanitizer.
fn sanitized(sanitizer: &str, line: &str) -> Command {
    let toolchain = toolchain::miri().unwrap_or("nightly");
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut command = words(&format!(
        "cargo +{toolchain} {verb} -Zbuild-std --target x86_64-unknown-linux-gnu"
    ));
    // Other flags would otherwise have everything built anew each time.
    command
        .arg("--target-dir")
        .arg(target_dir().join(sanitizer))
        .args(rest.split_whitespace())
        .env("RUSTFLAGS", format!("-Zsanitizer={sanitizer}"))
        // What a test leaves behind when it ends is not what is looked for.
        // And what the host gets back may be used again soon, for the tests give back gigabytes.
        .env("ASAN_OPTIONS", "detect_leaks=0:quarantine_size_mb=64")
        .env("TSAN_OPTIONS", "halt_on_error=1");
    command
}

/// Concurrent tests of the core under Miri, with many seeds.
fn seeds(model: &str, tests: &str) -> Command {
    let flags = format!("{MIRI_WHOLE} {SEEDS} -Zmiri-preemption-rate=0.05 {model}");
    miri(&flags, tests)
}
