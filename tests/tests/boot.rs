//! Boots of the demo kernel, each by the task that a user would call. A boot that is silent for half a minute is hung.
#![cfg(target_os = "linux")]

mod common;

use common::programs::text;
use common::reports::{check_json, check_prometheus};
use std::process::{Command, Output};

fn boot(options: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("boot")
        .args(options)
        .output()
        .expect("the task runs");
    let text = text(&output);
    println!("{text}");
    (output, text)
}

fn passes(options: &[&str]) -> String {
    let (output, text) = boot(options);
    assert!(output.status.success());
    assert!(
        text.contains("verdict: passed"),
        "the kernel came to its end"
    );
    assert!(!text.contains("FAILED"));
    text
}

/// The self-test passes in the kernel, and memory comes back phase by phase.
#[test]
fn the_self_test_passes() {
    let text = passes(&["--release"]);
    for name in [
        "collections",
        "handles",
        "epochs",
        "scopes",
        "domains",
        "out of memory",
    ] {
        assert!(text.contains(&format!("ok     {name}")), "{name}");
    }
    assert!(text.contains("the cache is dropped"));
}

/// As it is built without optimizations, where more is checked.
#[test]
fn a_debug_build_passes() {
    passes(&[]);
}

/// Four CPUs allocate a million objects each, pass them to each other and free what they get.
#[test]
fn four_cpus_pass_objects_around() {
    let text = passes(&["--release", "--smp", "4"]);
    assert!(text.contains("4 CPUs, 1000000 objects") && text.contains("ok     CPUs"));
}

/// The timer's handler allocates while the main line is inside the allocator.
#[test]
fn interrupts_allocate() {
    let text = passes(&["--release"]);
    assert!(text.contains("ok     interrupts") && text.contains("handler entries"));
}

/// A machine of 64 MiB runs out of memory, and says so by an error.
#[test]
fn a_small_machine_reports_exhaustion() {
    let text = passes(&["--release", "--mem", "64M"]);
    assert!(text.contains("then OutOfMemory"), "its end is the frames'");
}

#[test]
fn a_large_machine_boots() {
    let text = passes(&["--release", "--mem", "8G"]);
    assert!(text.contains("then Limit"));
}

/// The fast paths take as many instructions in the kernel as they do on the host, give or take what the two
/// programs differ in.
#[test]
fn instructions_are_those_of_the_host() {
    let text = passes(&["--release", "--mode", "count"]);
    let recorded = include_str!("../instructions.toml");
    for name in ["pair-local", "pair-shared"] {
        let figure = |text: &str, before: &str| -> f64 {
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix(before));
            let number = line.and_then(|line| line.trim_start_matches([' ', '=']).parse().ok());
            number.unwrap_or_else(|| panic!("{before} is missing"))
        };
        let host = figure(recorded, name);
        let kernel = figure(&text, &format!("instructions {name}"));
        println!("{name}: {kernel} in the kernel, {host} on the host");
        assert!((0.7..1.4).contains(&(kernel / host)), "{name}");
    }
}

/// What is between two marks of a report on the serial port.
fn reported<'t>(text: &'t str, name: &str) -> &'t str {
    let begin = format!("report {name} begins\n");
    let (_, behind) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{name} begins"));
    let (report, _) = behind
        .split_once(&format!("\nreport {name} ends"))
        .unwrap_or_else(|| panic!("{name} ends"));
    report
}

/// The kernel's heap tells about itself over the serial port, in three encodings that are parsed here. Catches a
/// report that needs more than a kernel has.
#[test]
fn reports_come_over_the_serial_port() {
    let text = passes(&["--release", "--mode", "report"]).replace('\r', "");
    let json = check_json(reported(&text, "json").trim());
    let samples = check_prometheus(&format!("{}\n", reported(&text, "prometheus").trim_end()));
    let entries = json["heap"]["live_objects"].as_f64();
    assert_eq!(samples.get("temporal_slab_live_objects").copied(), entries);
    assert!(entries >= Some(512.0), "the cache is live");
    assert!(json["heap"]["closes"].as_u64() >= Some(4));
    assert!(reported(&text, "text").contains("slow paths"));
}

/// What goes wrong is told apart: a panic, and a hang.
#[test]
fn a_panic_and_a_hang_are_reported() {
    let (output, text) = boot(&["--release", "--mode", "panic"]);
    assert!(!output.status.success());
    assert!(text.contains("panic: panicked at") && text.contains("as it was told to"));
    assert!(text.contains("the kernel panicked"));
    let (output, text) = boot(&["--release", "--mode", "hang", "--timeout", "5"]);
    assert!(!output.status.success());
    assert!(text.contains("the kernel hung"));
}
