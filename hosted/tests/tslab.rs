//! The program `tslab`: what it prints of its own workloads and of another process.
#![cfg(all(target_os = "linux", feature = "cli"))]

use core::time::Duration;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

fn tslab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tslab"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A process that serves a workload; killed when it is dropped.
struct Served(Child, String);

impl Drop for Served {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn serve(workload: &str) -> Served {
    let socket: PathBuf =
        std::env::temp_dir().join(format!("tslab-test-{}-{workload}", std::process::id()));
    let address = format!("unix:{}", socket.display());
    let child = Command::new(env!("CARGO_BIN_EXE_tslab"))
        .args(["serve", workload, "--at", &address, "--seconds", "60"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !socket.exists() {
        assert!(Instant::now() < end, "nobody serves");
        std::thread::sleep(Duration::from_millis(20));
    }
    Served(child, address)
}

/// Each workload gets the diagnosis that it is built for, and its exit code; the one that is as it should be gets
/// none.
#[test]
fn the_doctor_knows_its_patients() {
    for (workload, finding, is_error) in [
        ("requests", "nothing was found", false),
        ("leak", "error: leak", true),
        ("pinned", "warning: fragmentation", true),
        ("churn", "note: cache_too_small", false),
        ("forgotten", "forgotten_close", false),
    ] {
        let output = tslab(&["doctor", "--workload", workload, "--seconds", "2"]);
        let text = text(&output);
        assert!(text.contains(finding), "{workload}: {text}");
        assert_eq!(
            output.status.code(),
            Some(i32::from(is_error)),
            "{workload}: {text}"
        );
    }
}

/// The reports of another process, in every format, and a picture of it.
#[test]
fn another_process_is_looked_at() {
    let served = serve("leak");
    std::thread::sleep(Duration::from_secs(1));
    for (arguments, word) in [
        (&["stats"][..], "slow paths"),
        (&["stats", "--text"], "session store"),
        (&["stats", "--json"], "\"schema\":1"),
        (
            &["stats", "--prometheus"],
            "temporal_slab_process_resident_bytes",
        ),
        (&["watch", "--once"], "process RSS"),
        (&["watch", "--once"], "session store"),
    ] {
        let output = tslab(&[arguments, &["--from", &served.1]].concat());
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains(word), "{word} in {}", text(&output));
    }
    let process = tslab(&["watch", "--once", "--from", &served.1]);
    assert!(
        text(&process).contains(&format!("process {}", served.0.id())),
        "the other's, and not its own"
    );
    assert_eq!(
        tslab(&["doctor", "--from", &served.1]).status.code(),
        Some(1)
    );
}

/// What cannot be done is said, with what to do, and is not a panic.
#[test]
fn mistakes_are_explained() {
    for (arguments, words) in [
        (&["stats", "--from", "nowhere"][..], "unix:PATH"),
        (
            &["stats", "--from", "127.0.0.1:1"],
            "nobody serves at http://127.0.0.1:1",
        ),
        (
            &["stats", "--from", "unix:/nonexistent/socket"],
            "nobody serves",
        ),
        (&["stats", "--json", "--text"], "cannot be used with"),
        (&["watch", "--every", "1"], "50..=60000"),
        (&["watch", "--from", "127.0.0.1:1"], "no terminal"),
        (
            &["serve", "requests", "--at", "0.0.0.0:0"],
            "other machines",
        ),
        (&["doctor", "--seconds", "-1"], "error"),
    ] {
        let output = tslab(arguments);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
    // A reader who has seen enough.
    let line = format!(
        "{} stats --json --seconds 0.1 | head -c 10",
        env!("CARGO_BIN_EXE_tslab")
    );
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(!text(&output).contains("panicked"), "{}", text(&output));
}
