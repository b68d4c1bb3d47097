//! The allocator for programs in C: its header is that of the source, and a program that calls every function finds what
//! the header promises, in C and in C++, linked both ways, and under valgrind.
#![cfg(target_os = "linux")]

mod common;

use common::programs::{compiler, place, scratch, ship, succeeds};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

const CRATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hosted/capi");
const BARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hosted/bare");

static SCRATCH: LazyLock<PathBuf> = LazyLock::new(|| scratch("capi"));

/// Where the libraries are.
static LIBRARIES: LazyLock<PathBuf> =
    LazyLock::new(|| ship("temporal-slab-capi", None, &SCRATCH.join("library")));

/// The headers are what the sources say. `UPDATE=1` writes them.
#[test]
fn the_headers_are_of_the_source() {
    for (folder, name) in [(CRATE, "temporal_slab.h"), (BARE, "temporal_slab_bare.h")] {
        let file = Path::new(folder).join("include").join(name);
        let mut header = Vec::new();
        cbindgen::generate(folder).unwrap().write(&mut header);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &header).unwrap();
        }
        let written = std::fs::read(&file).unwrap_or_default();
        assert!(
            written == header,
            "run `UPDATE=1 cargo test -p temporal-slab-tests --test capi the_headers` to write {name} anew"
        );
    }
}

/// What has a kind in both headers has one number, and the library without a system has no kind of its own. Catches a
/// program for both that takes one failure for another.
#[test]
fn errors_have_one_number() {
    let numbers = |folder: &str, header: &str, prefix: &str| -> BTreeMap<String, u32> {
        let header = std::fs::read_to_string(Path::new(folder).join("include").join(header));
        let header = header.unwrap();
        let kinds = header.lines().filter_map(|line| {
            let (name, number) = line.trim().strip_prefix(prefix)?.split_once(" = ")?;
            Some((name.to_owned(), number.trim_end_matches(',').parse().ok()?))
        });
        kinds.collect()
    };
    let all = numbers(CRATE, "temporal_slab.h", "SLAB_ERROR_");
    let bare = numbers(BARE, "temporal_slab_bare.h", "SLAB_BARE_ERROR_");
    assert!(all.len() >= 14 && bare.len() >= 13, "{all:?}, {bare:?}");
    for (name, number) in &bare {
        assert_eq!(all.get(name), Some(number), "{name}");
    }
}

/// The library without a system, built for a machine that has none, in a program whose table is an array.
#[test]
fn bare_metal() {
    const MACHINE: &str = "x86_64-unknown-none";
    let target = SCRATCH.join("bare");
    let libraries = ship("temporal-slab-bare", Some(MACHINE), &target);
    let program = place(&SCRATCH, "c-bare");
    succeeds(
        compiler("gcc")
            .args(["-std=c11", "-no-pie", "-I"])
            .arg(Path::new(BARE).join("include"))
            .arg(Path::new(BARE).join("tests/c/bare.c"))
            .arg(libraries.join("libtemporal_slab_bare.a"))
            .arg("-o")
            .arg(&program),
    );
    assert!(succeeds(&mut Command::new(&program)).contains("works on bare metal"));
}

fn build(name: &str, arguments: &[&str], program: &str, is_static: bool) -> PathBuf {
    build_of("api.c", name, arguments, program, is_static)
}

fn build_of(
    source: &str,
    name: &str,
    arguments: &[&str],
    program: &str,
    is_static: bool,
) -> PathBuf {
    let program = place(&SCRATCH, program);
    let mut command = compiler(name);
    command
        .arg("-pthread")
        .args(arguments)
        .arg("-I")
        .arg(Path::new(CRATE).join("include"))
        .arg(Path::new(CRATE).join("tests/c").join(source))
        .arg("-o")
        .arg(&program);
    if is_static {
        command
            .args(["-x", "none"])
            .arg(LIBRARIES.join("libtemporal_slab_c.a"));
        command.args(["-lpthread", "-ldl", "-lm"]);
    } else {
        command.arg("-L").arg(&*LIBRARIES).arg("-ltemporal_slab_c");
        command.arg(format!("-Wl,-rpath,{}", LIBRARIES.display()));
    }
    succeeds(&mut command);
    program
}

fn runs(command: &mut Command) {
    assert!(succeeds(command).contains("every function does what it should"));
}

#[test]
fn every_function_in_c() {
    runs(&mut Command::new(build(
        "gcc",
        &["-std=c11"],
        "c-shared",
        false,
    )));
    runs(&mut Command::new(build(
        "gcc",
        &["-std=c99"],
        "c-static",
        true,
    )));
}

#[test]
fn every_function_in_cpp() {
    runs(&mut Command::new(build(
        "g++",
        &["-std=c++17", "-x", "c++"],
        "cpp-shared",
        false,
    )));
}

/// Forks while the first allocator is made, in processes that have none. With a library that tells the C library of itself
/// only then, every third run of this hung. Linked statically, too: a linker leaves out what nothing names.
#[test]
fn first_allocators_and_forks() {
    for (name, is_static) in [("fork-shared", false), ("fork-static", true)] {
        let program = build_of("fork.c", "gcc", &["-std=c11"], name, is_static);
        let said = succeeds(&mut Command::new(program));
        assert!(said.contains("every child can make an allocator"));
    }
}

/// What the program reads and writes is its own, as far as valgrind sees it.
#[test]
fn every_function_under_valgrind() {
    let program = build("gcc", &["-std=c11"], "c-valgrind", false);
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--error-exitcode=9", "--leak-check=full"])
        // The system keeps the stacks of ended threads, and points into the middle of what belongs to them.
        .arg("--errors-for-leak-kinds=definite")
        .env("WITHOUT_FORKS", "1")
        .arg(program);
    runs(&mut command);
}

/// What is installed is found by `pkg-config`, where there is one, and a program is built by what it says.
#[test]
fn installed() {
    let prefix = SCRATCH.join("prefix");
    succeeds(
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["install-c", "--prefix"])
            .arg(&prefix)
            .env("CARGO_TARGET_DIR", SCRATCH.join("library")),
    );
    let found = std::fs::read_to_string(prefix.join("lib/pkgconfig/temporal-slab.pc")).unwrap();
    let line = |name: &str| {
        let line = found
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.replace("${libdir}", &prefix.join("lib").to_string_lossy())
            .replace("${includedir}", &prefix.join("include").to_string_lossy())
    };
    let program = place(&SCRATCH, "c-installed");
    succeeds(
        Command::new("gcc")
            .args(line("Cflags:").split_whitespace())
            .arg(Path::new(CRATE).join("tests/c/api.c"))
            .arg("-o")
            .arg(&program)
            .args(line("Libs:").split_whitespace()),
    );
    runs(Command::new(&program).env("LD_LIBRARY_PATH", prefix.join("lib")));
}
