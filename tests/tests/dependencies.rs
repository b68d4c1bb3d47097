//! What whoever takes the core takes with it.

use std::process::Command;

/// The core's own, and what `lock_api` needs.
const ALLOWED: [&str; 5] = [
    "bitflags",
    "lock_api",
    "scopeguard",
    "spin",
    "temporal-slab",
];

/// Nothing else is built with the core, on any machine, without features or with those that bring nothing of their own.
/// Catches a dependency that slips in, a default feature of one that brings more, and a build script's.
#[test]
fn the_core_brings_little() {
    for features in [&[][..], &["--features", "walker"]] {
        let listed = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--package",
                "temporal-slab",
                "--edges",
                "normal,build",
                "--target",
                "all",
            ])
            .args(["--prefix", "none", "--format", "{p}", "--locked"])
            .args(features)
            .output()
            .unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(
            listed.status.success(),
            "{}",
            String::from_utf8_lossy(&listed.stderr)
        );
        let mut names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, ALLOWED, "with {features:?}");
    }
}
