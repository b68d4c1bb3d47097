//! A copy of the repository to change, so that the one that somebody works in is never touched.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

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
        let mut folders = vec![copy.0.join("core")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if !root().join(path.strip_prefix(&copy.0)?).is_file() {
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(copy)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// Replaces the ordering at `at` of a file while `f` runs.
    pub(crate) fn with_weaker<T>(
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
