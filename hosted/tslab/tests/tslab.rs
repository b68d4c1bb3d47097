//! The program `tslab`: what it prints of its own workloads and of another process.
#![cfg(target_os = "linux")]

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
        .args(["serve", workload, "--at", &address, "--seconds", "3600"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while !socket.exists() {
        assert!(Instant::now() < end, "nobody serves");
        std::thread::sleep(Duration::from_millis(20));
    }
    Served(child, address)
}

/// Whether nothing is wrong with a heap. A hardened one has no blocks: its epochs take slabs from the pages' lock and give them back, and two
/// threads that open one for each request do wait there, more or less often.
fn is_as_it_should_be(findings: &str) -> bool {
    let mut kinds = findings.lines().filter(|line| {
        ["error: ", "warning: ", "note: "]
            .iter()
            .any(|kind| line.starts_with(kind))
    });
    findings.contains("nothing was found")
        || cfg!(feature = "hardened")
            && kinds.all(|line| line.starts_with("warning: lock_contended"))
}

/// A workload that is as it should be gets no diagnosis, nor a word on what it left, for that is nothing.
#[test]
fn the_doctor_lets_the_healthy_go() {
    let output = text(&tslab(&[
        "doctor",
        "--workload",
        "requests",
        "--seconds",
        "2",
    ]));
    assert!(is_as_it_should_be(&output), "{output}");
    assert!(!output.contains("\"request\": "), "{output}");
}

/// Each workload gets the diagnosis that it is built for, and its exit code.
#[test]
fn the_doctor_knows_its_patients() {
    for (workload, finding, is_error) in [
        ("leak", "error: leak", true),
        ("pinned", "warning: fragmentation", true),
        ("churn", "note: cache_too_small", false),
        ("forgotten", "forgotten_close", false),
    ] {
        // How far a workload comes in a second depends on what else the computer does.
        let mut outputs = ["2", "10", "60"]
            .iter()
            .map(|seconds| tslab(&["doctor", "--workload", workload, "--seconds", seconds]));
        let output = outputs.find(|output| text(output).contains(finding));
        let output = output.unwrap_or_else(|| panic!("{workload}: {finding} is not found"));
        let text = text(&output);
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
    let end = Instant::now() + Duration::from_secs(60);
    // The workload has to come as far as its leak.
    let has_leaked = || tslab(&["doctor", "--from", &served.1]).status.code() == Some(1);
    while !has_leaked() {
        assert!(Instant::now() < end, "it does not leak");
        std::thread::sleep(Duration::from_millis(100));
    }
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
    let doctor = tslab(&["doctor", "--from", &served.1]);
    assert_eq!(doctor.status.code(), Some(1));
    // Of thousands one in 64 is sampled.
    let doctor = text(&doctor);
    assert!(
        doctor.contains(" to 128 B")
            && doctor.contains("by size")
            && doctor.contains("workload.rs:"),
        "{doctor}"
    );
}

/// Files of a test, gone with it.
struct Files(Vec<PathBuf>);

impl Files {
    fn new(names: &[&str]) -> Self {
        let path = |name: &&str| {
            std::env::temp_dir().join(format!("tslab-test-{}-{name}", std::process::id()))
        };
        Self(names.iter().map(path).collect())
    }

    fn name(&self, number: usize) -> &str {
        self.0[number].to_str().unwrap()
    }

    fn read(&self, number: usize) -> String {
        std::fs::read_to_string(&self.0[number]).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            let _may_not_be_there = std::fs::remove_file(path);
        }
    }
}

/// A short run of a part of each workload writes all its reports, and they are what their schema says: those that have
/// plots have them, every peer that was asked for took part, and the page needs nothing else. Catches a report that is
/// not what its schema says, a workload that measures nothing, and a child process that fails.
#[cfg(feature = "bench")]
#[test]
fn the_bench_reports() {
    let files = Files::new(&["all.json", "all.html", "all.csv"]);
    let only = "micro/pair/64,kernel/pair/64,latency/warm,scaling,churn/burst,in-process/1,http/1,handles,\
                scopes,close/64-KiB,policies";
    let output = tslab(&[
        "bench",
        "--quick",
        "--only",
        only,
        "--peers",
        "mimalloc,snmalloc",
        "--threads",
        "1,2",
        "--lag",
        "16",
        "--epochs",
        "batch:4",
        "--json",
        files.name(0),
        "--html",
        files.name(1),
        "--csv",
        files.name(2),
    ]);
    let printed = text(&output);
    assert!(output.status.success(), "{printed}");
    assert!(
        printed.contains("to the fastest peer") && printed.contains("bounds are met"),
        "{printed}"
    );
    let results: serde_json::Value = serde_json::from_str(&files.read(0)).unwrap();
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    let schema = serde_json::from_str(include_str!("../../bench/docs/bench.schema.json")).unwrap();
    compiler.add_resource("bench.json", schema).unwrap();
    let schema = compiler.compile("bench.json", &mut schemas).unwrap();
    if let Err(error) = schemas.validate(&results, schema) {
        panic!("{error:#}");
    }
    let named = |list: &str, name: &str, value: &str| {
        let list = results[list].as_array().unwrap();
        list.iter().filter(|item| item[name] == value).count()
    };
    for workload in [
        "micro", "kernel", "latency", "scaling", "churn", "requests", "handles", "scopes", "close",
        "policies",
    ] {
        assert!(
            named("results", "workload", workload) > 0,
            "{workload} measured nothing"
        );
    }
    for workload in ["latency", "scaling", "churn", "requests"] {
        assert!(
            named("series", "workload", workload) > 1,
            "{workload} has no plot"
        );
    }
    for peer in [
        "mimalloc",
        "snmalloc",
        "talc",
        "bumpalo",
        "linked_list_allocator",
        "buddy_system_allocator",
    ] {
        assert!(named("ratios", "peer", peer) > 0, "{peer} took no part");
    }
    assert_eq!(named("targets", "peer", "1 ns"), 1, "of the empty scope");
    assert_eq!(
        named("ratios", "peer", "jemalloc"),
        0,
        "it was not asked for"
    );
    let page = files.read(1);
    assert!(page.matches("<svg").count() >= 6 && page.contains("in-process/1-threads"));
    let links = ["src=", "href=", "url(", "@import"];
    assert!(
        links.iter().all(|link| !page.contains(link)),
        "it needs nothing else"
    );
    let lines = results["results"].as_array().unwrap().len() + 1;
    assert_eq!(files.read(2).lines().count(), lines);
}

/// A run is no worse than one in which ours took a hundred times as long, and worse than one in which it took a hundredth;
/// one that is no report is no baseline. (Two runs on a busy computer may differ by some times.)
#[cfg(feature = "bench")]
#[test]
fn the_bench_compares() {
    let files = Files::new(&["baseline.json", "unread.csv"]);
    let only = [
        "bench",
        "--quick",
        "--only",
        "micro/pair/64",
        "--peers",
        "glibc",
        "--csv",
        files.name(1),
    ];
    let output = tslab(&[&only[..], &["--json", files.name(0)]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let mut better: serde_json::Value = serde_json::from_str(&files.read(0)).unwrap();
    assert_eq!(
        better["results"].as_array().unwrap().len(),
        3,
        "two of ours and a peer"
    );
    let mut times = |times: f64| {
        for ratio in better["ratios"].as_array_mut().unwrap() {
            let was = ratio["ours_over_peer"].as_f64().unwrap();
            ratio["ours_over_peer"] = serde_json::json!(was * times);
        }
        std::fs::write(files.name(0), better.to_string()).unwrap();
    };
    times(100.0);
    let output = tslab(&[&only[..], &["--baseline", files.name(0)]].concat());
    assert!(output.status.success(), "{}", text(&output));
    times(0.0001);
    let output = tslab(&[&only[..], &["--baseline", files.name(0)]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("worse: micro/pair/64"),
        "{}",
        text(&output)
    );
    for (broken, words) in [("{}", "is not a report"), ("", "is not a report")] {
        std::fs::write(files.name(0), broken).unwrap();
        let output = tslab(&[&only[..], &["--baseline", files.name(0)]].concat());
        let printed = text(&output);
        assert!(
            output.status.code() == Some(2) && printed.contains(words),
            "{printed}"
        );
    }
    for (wrong, words) in [
        (["--only", "nothing like it"], "--list"),
        (["--epochs", "batch:0"], "batch:N"),
        (["--threads", "0"], "from 1 to 64"),
        (["--json", "/nonexistent/file"], "cannot be written"),
    ] {
        let output = tslab(&[&["bench"][..], &wrong].concat());
        let printed = text(&output);
        assert!(
            output.status.code() == Some(2) && printed.contains(words),
            "{wrong:?}: {printed}"
        );
    }
}

/// A program without the benchmark takes its options, and says how to get one that has it.
#[cfg(not(feature = "bench"))]
#[test]
fn the_bench_is_a_feature() {
    for options in [&[][..], &["--quick", "--only", "churn"], &["--list"]] {
        let output = tslab(&[&["bench"][..], options].concat());
        let printed = text(&output);
        assert!(
            output.status.code() == Some(2) && printed.contains("--features bench"),
            "{options:?}: {printed}"
        );
    }
}

/// A short soak passes, and writes a line for each turn.
#[test]
fn a_short_soak() {
    let files = Files::new(&["soak.csv"]);
    let output = tslab(&[
        "soak",
        "--seconds",
        "3",
        "--threads",
        "4",
        "--csv",
        files.name(0),
    ]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains("nothing was left"),
        "{}",
        text(&output)
    );
    assert!(files.read(0).lines().count() >= 2, "a head and a turn");
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
