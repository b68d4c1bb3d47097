//! The threat model names its tests, and they are there.

use std::collections::BTreeSet;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const DOCUMENT: &str = include_str!("../../core/docs/threats.md");

/// What is quoted like `folder/file.rs::name`: the file and the name.
fn names(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|quoted| quoted.rsplit_once("::"))
        .filter(|(file, _)| file.contains('/'))
}

/// Whether a source has a function of this name, in Rust or in C, and in a file of tests a test.
fn has(file: &str, source: &str, name: &str) -> bool {
    if file.ends_with(".c") || file.ends_with(".cpp") {
        let begins = |line: &str| line.starts_with("static ") && line.ends_with('{');
        return source
            .lines()
            .any(|line| begins(line) && line.contains(&format!("{name}(")));
    }
    let mut is_test = false;
    for line in source.lines() {
        let line = line.trim();
        let code = line
            .trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ");
        if line == "#[test]" {
            is_test = true;
        } else if code.starts_with(&format!("fn {name}(")) {
            return is_test || !file.contains("/tests/");
        } else if code.starts_with("fn ") {
            is_test = false;
        }
    }
    false
}

/// Each test that the document names exists. Catches a test that is renamed, moved or taken away, and a name with a
/// mistake in it.
#[test]
fn what_is_named_is_there() {
    let mut found = BTreeSet::new();
    for (file, name) in names(DOCUMENT) {
        let path = Path::new(ROOT).join(file);
        let source = std::fs::read_to_string(&path);
        let source = source.unwrap_or_else(|error| panic!("{file}::{name}: {error}"));
        assert!(has(file, &source, name), "there is no test {file}::{name}");
        found.insert((file, name));
    }
    assert!(found.len() > 80, "{} tests are named", found.len());
}

/// Each line of a table of faults names a test, or says that there is none. Catches a claim without evidence.
#[test]
fn each_fault_has_a_test() {
    let mut is_of_faults = false;
    let mut faults = 0;
    for line in DOCUMENT.lines() {
        if !line.starts_with('|') {
            is_of_faults = false;
        } else if line.starts_with("| fault |") {
            is_of_faults = true;
        } else if is_of_faults && !line.starts_with("|---") {
            faults += 1;
            let has_name = names(line).next().is_some();
            assert!(
                has_name || line.contains("no test"),
                "without a test: {line}"
            );
        }
    }
    assert!(faults > 60, "{faults} faults");
}

/// What is looked for is found, and what is not there is not. Catches a search that finds everything.
#[test]
fn a_name_of_nothing_is_found_out() {
    let source = "#[test]\nfn one() {}\nfn helper() {}\npub(crate) fn two(a: u8) {}\n";
    assert!(has("a/src/b.rs", source, "one") && has("a/src/b.rs", source, "two"));
    assert!(!has("a/src/b.rs", source, "on") && !has("a/src/b.rs", source, "three"));
    assert!(has("a/tests/b.rs", source, "one") && !has("a/tests/b.rs", source, "helper"));
    assert!(has("a.c", "static int f(void) {\n", "f") && !has("a.c", "    f();\n", "f"));
    let text = "`a/b.rs::c`, `Heap::free` and `d/e.c::f`";
    assert_eq!(
        names(text).collect::<Vec<_>>(),
        [("a/b.rs", "c"), ("d/e.c", "f")]
    );
}
