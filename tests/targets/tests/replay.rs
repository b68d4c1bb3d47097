//! Every input that is kept, run again: those that reach what others do not (`corpus`), and those that once found
//! something (`found`).

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use temporal_slab_targets::{api, capi, encoders, handles};

/// The inputs in a folder, if there is one.
fn inputs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn replay(name: &str, target: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let (corpus, found) = (
        fuzz.join("corpus").join(name),
        fuzz.join("found").join(name),
    );
    let paths = [inputs(&corpus), inputs(&found)].concat();
    assert!(paths.len() > 10, "{} holds the inputs", corpus.display());
    target(&[]);
    for path in &paths {
        let data = fs::read(path).unwrap();
        let ran = catch_unwind(AssertUnwindSafe(|| target(&data)));
        assert!(ran.is_ok(), "it was {} that did it", path.display());
    }
    println!("{name}: {} inputs", paths.len());
}

#[test]
fn api_inputs() {
    replay("api", api);
}

#[test]
fn handles_inputs() {
    replay("handles", handles);
}

#[test]
fn capi_inputs() {
    replay("capi", capi);
}

#[test]
fn encoders_inputs() {
    replay("encoders", encoders);
}
