//! What the tests of this crate share.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::process::{Command, Output};

/// A small generator, so that a failing case can be run again.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
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
