//! What the tests of this crate share.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test binary uses its own part"
)]

#[path = "../../../tests/actions/src/rng.rs"]
mod rng;

use core::alloc::Layout;
use std::process::{Command, Output};

pub use rng::Rng;

/// A layout of so many bytes.
pub fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Whether this process was started by [`alone`] for this test.
pub fn is_alone(test: &str) -> bool {
    std::env::var("TSLAB_ALONE").as_deref() == Ok(test)
}

/// Runs one test of this binary in a process of its own, for tests that spoil the process they run in or
/// whose figures others would spoil. In that process it gives `false`, and the test does its work.
pub fn alone(test: &str) -> bool {
    if is_alone(test) {
        return false;
    }
    let output: Output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env("TSLAB_ALONE", test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test}: {}", output.status);
    assert!(text.contains("1 passed"), "{test} was not found");
    true
}
