//! A copy of the repository to change, so that the one that somebody works in is never touched.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{output, root, target_dir, words};

/// A copy of the repository below the target folder. It stays, so that the next one builds quickly.
#[derive(Debug)]
pub(crate) struct Copy(PathBuf);

impl Copy {
    /// Brings the copy of the task `name` up to date. A file that is the same is not written, so that it is not built anew.
    pub(crate) fn make(name: &str) -> Result<Self> {
        let copy = Self(target_dir().join(name).join("repository"));
        let listed = output(words("git ls-files --cached --others --exclude-standard"))?;
        let files: HashSet<_> = listed.lines().map(Path::new).collect();
        for file in &files {
            // One that is deleted and still listed is none.
            if root().join(file).is_file() {
                copy.restore(file)?;
            }
        }
        for file in files_below(&copy.0)? {
            if !root().join(file.strip_prefix(&copy.0)?).is_file() {
                fs::remove_file(file)?;
            }
        }
        Ok(copy)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// A command to be run in the copy, with its own folder for what is built. Most of the time goes into building one
    /// crate over and over, so little is spent on making it good.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = words(line);
        command
            .current_dir(&self.0)
            .env("CARGO_TARGET_DIR", self.0.with_file_name("target"))
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_TEST_OPT_LEVEL", "0");
        for profile in ["DEV", "TEST", "RELEASE"] {
            command.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "0");
        }
        command
    }

    /// Replaces what is at `at` of a file while `f` runs.
    pub(crate) fn with_replaced<T>(
        &self,
        (file, at): (&str, usize),
        (from, to): (&str, &str),
        f: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let path = self.0.join(file);
        let text = fs::read_to_string(&path)?;
        let Some(rest) = text.get(at..).and_then(|rest| rest.strip_prefix(from)) else {
            bail!("{file} has no {from} where it was");
        };
        fs::write(&path, format!("{}{to}{rest}", &text[..at]))?;
        let result = f();
        fs::write(&path, text)?;
        result
    }

    /// Makes a file what it is in the repository.
    fn restore(&self, file: impl AsRef<Path>) -> Result<()> {
        let (from, to) = (root().join(&file), self.0.join(&file));
        let wanted = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        if fs::read(&to).is_ok_and(|there| there == wanted) {
            return Ok(());
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&to, wanted).with_context(|| format!("cannot write {}", to.display()))
    }
}

/// All files below a folder, in order.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
