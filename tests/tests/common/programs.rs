//! Libraries built as they are shipped, and programs in C and C++ that are built and run with them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

/// Where a test's files are, beside its program.
pub fn scratch(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Where a program is to be built, each in a place of its own: what one test links another cannot run.
///
/// # Panics
/// If the place is taken.
pub fn place(folder: &Path, name: &str) -> PathBuf {
    static TAKEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let path = folder.join(name);
    let is_free = TAKEN.lock().unwrap().insert(path.clone());
    assert!(is_free, "two programs at {}", path.display());
    path
}

/// Builds a library as it is shipped, for this machine or the one that is named. Gives the folder where it is.
pub fn ship(package: &str, machine: Option<&str>, target: &Path) -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--quiet", "--profile", "dist", "-p", package])
        // Of its own, so that nobody waits for who runs the tests.
        .arg("--target-dir")
        .arg(target);
    if let Some(machine) = machine {
        command.args(["--target", machine]);
    }
    succeeds(&mut command);
    target.join(machine.unwrap_or_default()).join("dist")
}

/// A compiler that lets no warning pass.
pub fn compiler(name: &str) -> Command {
    let mut command = Command::new(name);
    command.args(["-g", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    command
}

/// Runs a command, which succeeds. Gives what it wrote.
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// All that a command wrote.
pub fn text(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr];
    parts.map(|part| String::from_utf8_lossy(part)).concat()
}
