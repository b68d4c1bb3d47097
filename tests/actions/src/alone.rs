//! Tests in processes of their own.

use std::process::{Command, Output};

/// Whether this process was started by [`alone`] for this test.
pub fn is_alone(test: &str) -> bool {
    std::env::var("TSLAB_ALONE").as_deref() == Ok(test)
}

/// Runs one test of this binary in a process of its own, for tests that spoil the process they run in, or end it, or whose
/// figures others would spoil. `test` is its whole name, with its module. In that process it gives `false`, and the test
/// does its work. Under Miri, which starts no process, it gives `false` at once.
pub fn alone(test: &str) -> bool {
    if cfg!(miri) || is_alone(test) {
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
