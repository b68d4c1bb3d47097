//! The memory functions for C, as programs in C and C++ see them: linked, and preloaded.
//!
//! The programs are in `hosted/malloc/tests/c`; each says what it looks at.
#![cfg(target_os = "linux")]

mod common;

use common::programs::{compiler, scratch, ship, succeeds, text};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hosted/malloc/tests/c");

static SCRATCH: LazyLock<PathBuf> = LazyLock::new(|| scratch("preload"));

static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = ship("temporal-slab-malloc", None, &SCRATCH.join("library"));
    folder.join("libtemporal_slab_malloc.so")
});

/// Builds a program, linked with the library if it calls what only that has.
fn build(source: &str, is_linked: bool) -> PathBuf {
    let is_plus = source.ends_with(".cpp");
    let program = SCRATCH.join(source.replace('.', "-"));
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
    let printed = succeeds(&mut Command::new(build("functions.c", true)));
    assert!(printed.contains("every function does what it should"));
}

/// The operators of C++ and what is made of them, preloaded.
#[test]
fn operators() {
    let printed = succeeds(&mut preloaded(&build("operators.cpp", false)));
    assert!(printed.contains("every operator does what it should"));
}

/// 22 ways to free twice and 25 to free what was never allocated: each ends with one line that names the pointer and the
/// reason; or, as the environment says, with the line and on, or just on.
#[test]
fn misuse_is_found() {
    let program = build("misuse.c", true);
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

/// 1,000 forks while four threads allocate: no child hangs.
#[test]
fn forks() {
    succeeds(preloaded(&build("forks.c", false)).arg("1000"));
}

/// 10,000 short threads leave nothing behind.
#[test]
fn short_threads() {
    succeeds(preloaded(&build("threads.c", false)).arg("10000"));
}
