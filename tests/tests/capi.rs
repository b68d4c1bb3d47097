//! The allocator for programs in C: its header is that of the source, and a program that calls every function finds what
//! the header promises, in C and in C++, linked both ways, and under valgrind.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

const CRATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hosted/capi");

fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Where the libraries are, built as they are shipped.
static LIBRARIES: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = scratch().join("library");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--profile",
            "dist",
            "-p",
            "temporal-slab-capi",
        ])
        .arg("--target-dir")
        .arg(&target)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built));
    target.join("dist")
});

fn text(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr];
    parts.map(|part| String::from_utf8_lossy(part)).concat()
}

/// The header is what the source says. `UPDATE=1` writes it.
#[test]
fn the_header_is_of_the_source() {
    let file = Path::new(CRATE).join("include/temporal_slab.h");
    let bindings = cbindgen::generate(CRATE).unwrap();
    let mut header = Vec::new();
    bindings.write(&mut header);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &header).unwrap();
    }
    let written = std::fs::read(&file).unwrap_or_default();
    assert!(
        written == header,
        "run `UPDATE=1 cargo test -p temporal-slab-tests --test capi the_header` to write it anew"
    );
}

fn build(compiler: &str, arguments: &[&str], name: &str, is_static: bool) -> PathBuf {
    let program = scratch().join(name);
    let mut command = Command::new(compiler);
    command
        .args(["-g", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .args(arguments)
        .arg("-I")
        .arg(Path::new(CRATE).join("include"))
        .arg(Path::new(CRATE).join("tests/c/api.c"))
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
    let built = command.output().unwrap();
    assert!(built.status.success(), "{}", text(&built));
    program
}

fn runs(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("every function does what it should"));
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

/// What the program reads and writes is its own, as far as valgrind sees it.
#[test]
fn every_function_under_valgrind() {
    let program = build("gcc", &["-std=c11"], "c-valgrind", false);
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--error-exitcode=9", "--leak-check=full"])
        .arg(program);
    runs(&mut command);
}
