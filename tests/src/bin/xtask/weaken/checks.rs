//! What is to notice a weaker ordering: the loom models, and the tests of races under Miri.

use std::cell::OnceCell;
use std::fmt;
use std::fs;
use std::io::{BufRead, Read};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{display, in_one_pipe};
use crate::copy::Copy;
use crate::stages::{LOOM, MIRI_WHOLE};
use crate::toolchain;

/// How many schedules and choices of what a load sees Miri tries.
const SEEDS: &str = "0..8";

/// Whoever takes longer waits for ever: for what a weaker ordering never shows it.
const LIMIT: Duration = Duration::from_secs(600);

/// The model or test that failed.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(crate) is_miri: bool,
    name: String,
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.is_miri { "Miri" } else { "loom" };
        write!(f, "{by}: `{}`", self.name)
    }
}

/// The checks, run in a copy of the repository.
#[derive(Debug)]
pub(crate) struct Checks<'c> {
    copy: &'c Copy,
    /// Only the models.
    is_quick: bool,
    /// The files that are built for the models; the compiler's own list.
    modelled: OnceCell<String>,
}

impl<'c> Checks<'c> {
    pub(crate) fn new(copy: &'c Copy, is_quick: bool) -> Self {
        Self {
            copy,
            is_quick,
            modelled: OnceCell::new(),
        }
    }

    /// Runs all of them; what failed first.
    pub(crate) fn run(&self) -> Result<Option<Caught>> {
        Ok(self
            .loom()?
            .or(self.miri("--lib races::")?)
            .or(self.miri("--test it races::")?))
    }

    /// Runs those that a change of this file can fail, the quick ones first.
    pub(crate) fn run_for(&self, file: &str) -> Result<Option<Caught>> {
        let list = self.modelled.get();
        let modelled = list.is_none_or(|list| list.contains(&format!("src/{file}")));
        if modelled && let Some(caught) = self.loom()? {
            return Ok(Some(caught));
        }
        let folder = file.split('/').next().unwrap_or(file);
        let races = format!("core/src/{folder}/races.rs");
        if self.copy.folder().join(races).is_file()
            && let Some(caught) = self.miri(&format!("--lib {folder}::races::"))?
        {
            return Ok(Some(caught));
        }
        self.miri("--test it races::")
    }

    fn loom(&self) -> Result<Option<Caught>> {
        let mut build = self
            .copy
            .command("cargo test -p temporal-slab --release --lib --no-run");
        build.envs(LOOM);
        let shown = display(&build);
        let built = build
            .output()
            .with_context(|| format!("cannot run `{shown}`"))?;
        let said = String::from_utf8_lossy(&built.stderr);
        let program = said
            .lines()
            .filter(|_| built.status.success())
            .find_map(|line| {
                line.trim()
                    .strip_prefix("Executable ")?
                    .rsplit_once('(')?
                    .1
                    .strip_suffix(')')
            });
        let Some(program) = program else {
            bail!("`{shown}` failed:\n{said}");
        };
        let program = self.copy.folder().join(program);
        if let Ok(list) = fs::read_to_string(program.with_extension("d")) {
            let _known = self.modelled.set(list);
        }
        let mut models = Command::new(program);
        models.envs(LOOM);
        self.first_failure(models, false)
    }

    fn miri(&self, what: &str) -> Result<Option<Caught>> {
        if self.is_quick {
            return Ok(None);
        }
        let toolchain = toolchain::miri().unwrap_or("nightly");
        let mut command = self.copy.command(&format!(
            "cargo +{toolchain} miri test -p temporal-slab --all-features {what}"
        ));
        command.env(
            "MIRIFLAGS",
            format!("{MIRI_WHOLE} -Zmiri-many-seeds={SEEDS} -Zmiri-preemption-rate=0.1"),
        );
        self.first_failure(command, true)
    }

    /// Runs a program of tests until one fails.
    fn first_failure(&self, mut command: Command, is_miri: bool) -> Result<Option<Caught>> {
        let shown = display(&command);
        command.process_group(0);
        let (mut child, mut lines) = in_one_pipe(&mut command)?;
        let group = i32::try_from(child.id())?;
        // SAFETY: a signal to the processes that this one started.
        let end = move || unsafe { libc::kill(-group, libc::SIGKILL) };
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let start = Instant::now();
        let watch = thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                if start.elapsed() > LIMIT {
                    end();
                    return true;
                }
                thread::sleep(Duration::from_millis(20));
            }
            false
        });
        let (mut name, mut last, mut all) = (None, String::new(), String::new());
        let mut line = Vec::new();
        while name.is_none() && lines.by_ref().read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line).into_owned();
            // Miri ends with the first error; the test that runs then is the one begun last, of one of the seeds.
            if let Some((_, rest)) = text.split_once("test ")
                && let Some((test, verdict)) = rest.split_once(" ...")
            {
                last = test.to_owned();
                if verdict.trim() == "FAILED" {
                    name = Some(last.clone());
                }
            }
            if is_miri && !last.is_empty() && text.contains("error: ") {
                name = Some(last.clone());
            }
            all.push_str(&text);
            line.clear();
        }
        if name.is_some() {
            end();
        }
        let status = child.wait()?;
        is_over.store(true, Ordering::Relaxed);
        let timed_out = watch.join().unwrap_or(false);
        Ok(match name {
            Some(name) => Some(Caught { is_miri, name }),
            None if status.success() => None,
            // If it had come to the tests.
            None if timed_out && !last.is_empty() => Some(Caught {
                is_miri,
                name: format!("{last} (does not end)"),
            }),
            None => bail!("`{shown}` failed without a failed test:\n{all}"),
        })
    }
}
