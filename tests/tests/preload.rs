//! The memory functions for C, as programs in C and C++ see them: linked, and preloaded.
//!
//! The programs are in `hosted/malloc/tests/c`; each says what it looks at.
#![cfg(target_os = "linux")]

mod common;

use common::programs::{compiler, place, scratch, ship, succeeds, text};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hosted/malloc/tests/c");

static SCRATCH: LazyLock<PathBuf> = LazyLock::new(|| scratch("preload"));

static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = ship("temporal-slab-malloc", None, &SCRATCH.join("library"));
    folder.join("libtemporal_slab_malloc.so")
});

/// Builds a test's program, linked with the library if it calls what only that has.
fn build(test: &str, source: &str, is_linked: bool) -> PathBuf {
    let is_plus = source.ends_with(".cpp");
    let program = place(&SCRATCH, &format!("{test}-{}", source.replace('.', "-")));
    let mut command = compiler(if is_plus { "g++" } else { "gcc" });
    command
        // What is tried here is what compilers warn of, and know to leave out.
        .args(["-pthread", "-fno-builtin", "-Wno-free-nonheap-object"])
        .arg(if is_plus { "-std=c++17" } else { "-std=gnu11" })
        .arg(Path::new(SOURCES).join(source))
        .arg("-o")
        .arg(&program);
    if !is_plus {
        command.args(["-Wno-use-after-free"]);
    }
    if is_linked {
        let folder = LIBRARY.parent().unwrap().display();
        command.arg(&*LIBRARY).arg(format!("-Wl,-rpath,{folder}"));
    }
    succeeds(&mut command);
    program
}

fn preloaded(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", &*LIBRARY);
    command
}

/// Each function, linked.
#[test]
fn functions() {
    let printed = succeeds(&mut Command::new(build("functions", "functions.c", true)));
    assert!(printed.contains("every function does what it should"));
}

/// The operators of C++ and what is made of them, preloaded.
#[test]
fn operators() {
    let printed = succeeds(&mut preloaded(&build("operators", "operators.cpp", false)));
    assert!(printed.contains("every operator does what it should"));
}

/// 22 ways to free twice and 25 to free what was never allocated: each ends with one line that names the pointer and the
/// reason; or, as the environment says, with the line and on, or just on.
#[test]
fn misuse_is_found() {
    let program = build("misuse_is_found", "misuse.c", true);
    let kinds = (1..=22).chain(101..=125);
    for kind in kinds {
        let run = |choice: &str| {
            let mut command = Command::new(&program);
            command.arg(kind.to_string());
            if !choice.is_empty() {
                command.env("TEMPORAL_SLAB_INVALID", choice);
            }
            command.output().unwrap()
        };
        let output = run("");
        let printed = text(&output);
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(signal, Some(6), "kind {kind}: {printed}");
        assert!(
            printed.starts_with("temporal-slab: ")
                && printed.contains("(0x")
                && printed.lines().count() == 1,
            "kind {kind}: {printed}"
        );
        let reason = if kind < 100 { "" } else { "pointer" };
        assert!(printed.contains(reason), "kind {kind}: {printed}");
        let output = run("ignore");
        assert!(output.status.success(), "kind {kind}: {}", text(&output));
        assert_eq!(text(&output), "nothing was found\n", "kind {kind}");
        let output = run("warn");
        assert!(
            output.status.success() && text(&output).contains("temporal-slab: "),
            "kind {kind}"
        );
    }
}

/// A program that runs with more rights than whoever started it has does not listen to the environment: it aborts, and
/// writes no report. Catches a file that is made by the rights of one and the word of another. It takes root to make such
/// a program, and a place for it that lets it have its rights.
#[test]
fn more_rights_are_not_lent() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    /// Goes, whatever becomes of the test: nobody is to find such a program.
    struct Folder(PathBuf);
    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone = std::fs::remove_dir_all(&self.0);
        }
    }
    let folder = std::env::temp_dir().join(format!("tslab-rights-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let _goes = Folder(folder.clone());
    let (program, report) = (folder.join("program"), folder.join("report.txt"));
    // By another process: what this one has open for writing, a child of another test's may have open still when it is
    // run.
    succeeds(
        Command::new("cp")
            .arg(build("more_rights_are_not_lent", "misuse.c", true))
            .arg(&program),
    );
    let name = std::ffi::CString::new(program.to_str().unwrap()).unwrap();
    // SAFETY: zeroes are such a description; it is this test's, and the name ends with a zero.
    let lends = unsafe {
        let mut place: libc::statvfs = core::mem::zeroed();
        libc::statvfs(name.as_ptr(), &raw mut place) == 0 && place.f_flag & libc::ST_NOSUID == 0
    };
    // SAFETY: a question without side effects.
    let can = lends && unsafe { libc::geteuid() } == 0;
    // Listened to by who has no more rights: this is how it is seen that nothing else keeps it from that.
    for (mode, listens) in [(0o755, true), (0o4755, false)] {
        if !can && !listens {
            println!("not tried: not root, or a place that lends no rights");
            continue;
        }
        std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
        let run = |kind: &str| {
            let mut command = Command::new(&program);
            command.arg(kind).env("TEMPORAL_SLAB_INVALID", "warn");
            command.env("TEMPORAL_SLAB_REPORT", &report);
            if !listens {
                command.uid(65534).gid(65534);
            }
            command.output().unwrap()
        };
        // One that is freed twice, and none.
        let (twice, none) = (run("2"), run("0"));
        let printed = text(&twice);
        assert_eq!(twice.status.success(), listens, "{printed}");
        assert_eq!(twice.status.signal() == Some(6), !listens, "{printed}");
        assert_eq!(none.status.code(), Some(2), "{}", text(&none));
        assert_eq!(report.exists(), listens, "a report is written");
        if listens {
            std::fs::remove_file(&report).unwrap();
        }
    }
}

/// 1,000 forks while four threads allocate: no child hangs.
#[test]
fn forks() {
    succeeds(preloaded(&build("forks", "forks.c", false)).arg("1000"));
}

/// 10,000 short threads leave nothing behind.
#[test]
fn short_threads() {
    succeeds(preloaded(&build("short_threads", "threads.c", false)).arg("10000"));
}

/// A program that is asked to tells at its end what its heap was like: as a line of JSON, as text in a file or on the
/// error stream, and on from what is there; and goes on without if there is no such place. Its output is its own.
#[test]
fn reports_at_the_end() {
    let program = build("reports_at_the_end", "functions.c", true);
    let run = |target: &str| {
        let mut command = Command::new(&program);
        let output = command
            .env("TEMPORAL_SLAB_REPORT", target)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(
            String::from_utf8_lossy(&output.stdout)
                .ends_with("every function does what it should\n")
        );
        String::from_utf8(output.stderr).unwrap()
    };
    for (name, begin) in [
        ("report.json", "{\"schema\":"),
        ("report.txt", "temporal-slab: process "),
    ] {
        let file = SCRATCH.join(name);
        if file.exists() {
            std::fs::remove_file(&file).unwrap();
        }
        assert_eq!(run(file.to_str().unwrap()), "");
        let once = std::fs::read_to_string(&file).unwrap();
        assert!(once.starts_with(begin), "{once}");
        assert_eq!(run(file.to_str().unwrap()), "");
        let twice = std::fs::read_to_string(&file).unwrap();
        assert!(twice.starts_with(&once) && twice[once.len()..].starts_with(begin));
        if name.ends_with("json") {
            assert_eq!(twice.lines().count(), 2);
            for line in twice.lines() {
                let report: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(report["heap"].is_object(), "{line}");
            }
        }
    }
    assert!(run("-").contains(" resident, "));
    assert_eq!(run(""), "");
    assert!(run("/nowhere/report.txt").contains("no report"));
    assert!(run(&"x".repeat(2000)).contains("no report"));
}
