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

/// A short run of the benchmark writes all its reports; a run that is compared with itself is no worse, and with one
/// in which ours took a hundredth it is. Catches a report that is not what its schema says.
#[test]
fn the_bench_reports_and_compares() {
    let file = |name: &str| {
        std::env::temp_dir().join(format!("tslab-bench-{}-{name}", std::process::id()))
    };
    let [json, html, csv] = ["results.json", "page.html", "table.csv"].map(file);
    let paths = [&json, &html, &csv].map(|path| path.to_str().unwrap().to_owned());
    let only = ["bench", "--quick", "--only", "micro/pair/64"];
    let output = tslab(
        &[
            &only[..],
            &["--json", &paths[0], "--html", &paths[1], "--csv", &paths[2]],
        ]
        .concat(),
    );
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("to the fastest peer") && text(&output).contains("pair/64"));
    let results: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(
        results["results"].as_array().unwrap().len(),
        5,
        "two of ours and three peers"
    );
    assert_eq!(results["ratios"].as_array().unwrap().len(), 6);
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../docs/bench.schema.json")).unwrap();
    for (list, item) in [
        ("results", &results["results"][0]),
        ("ratios", &results["ratios"][0]),
    ] {
        let required = schema["properties"][list]["items"]["required"]
            .as_array()
            .unwrap();
        assert_eq!(item.as_object().unwrap().len(), required.len(), "{item}");
        assert!(
            required
                .iter()
                .all(|name| item.get(name.as_str().unwrap()).is_some()),
            "{item}"
        );
    }
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(
        page.contains("micro/pair/64") && !page.contains("src=") && !page.contains("http"),
        "it needs nothing else"
    );
    assert_eq!(std::fs::read_to_string(&csv).unwrap().lines().count(), 6);
    let mut better = results;
    for ratio in better["ratios"].as_array_mut().unwrap() {
        ratio["ours_over_peer"] =
            serde_json::json!(ratio["ours_over_peer"].as_f64().unwrap() / 100.0);
    }
    std::fs::write(&json, better.to_string()).unwrap();
    let output = tslab(&[&only[..], &["--baseline", &paths[0]]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("worse: micro/pair/64"),
        "{}",
        text(&output)
    );
    std::fs::write(&json, "{}").unwrap();
    let output = tslab(&[&only[..], &["--baseline", &paths[0]]].concat());
    assert!(
        output.status.code() == Some(2) && text(&output).contains("is not a report"),
        "{}",
        text(&output)
    );
    let output = tslab(&["bench", "--only", "nothing like it"]);
    assert!(
        output.status.code() == Some(2) && text(&output).contains("--list"),
        "{}",
        text(&output)
    );
    for path in [json, html, csv] {
        std::fs::remove_file(path).unwrap();
    }
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
