//! `cargo xtask fuzz`: each target for a while, beginning with the inputs that are kept.

use std::env;
use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::command::{
    command, display, in_one_pipe, install, output, root, target_dir, wait, words,
};
use crate::toolchain;

/// The targets, the quick ones first.
const TARGETS: [&str; 4] = ["handles", "encoders", "capi", "api"];

/// The longest input.
const LONGEST: u32 = 2048;

/// As many inputs are kept for a target at most, and as many bytes: they are run by every test run.
const KEPT: (usize, u64) = (400, 300_000);

/// What to run, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run each target for so many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Run this target only; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = TARGETS)]
    target: Vec<String>,
    /// Then keep the inputs that reach what others do not, and no others.
    #[arg(long)]
    minimise: bool,
}

/// Runs the chosen targets, all of them even when one finds something; whether none did.
pub(crate) fn run(options: &Options) -> Result<bool> {
    // Any nightly compiler does, and this one is there.
    let Some(toolchain) = toolchain::miri() else {
        bail!("fuzzing needs a nightly compiler: run `cargo xtask setup`");
    };
    install("cargo-fuzz")?;
    let chosen =
        |name: &&str| options.target.is_empty() || options.target.iter().any(|t| t == name);
    let mut all_fine = true;
    for name in TARGETS.into_iter().filter(chosen) {
        let target = Target::build(name, toolchain)?;
        let is_fine = target.fuzz(options.seconds)?;
        all_fine &= is_fine;
        if is_fine && options.minimise {
            target.minimise()?;
        }
    }
    Ok(all_fine)
}

/// A target that was built.
struct Target {
    name: &'static str,
    program: PathBuf,
    /// The inputs that are kept in the repository.
    kept: PathBuf,
    /// All that were found on this machine.
    scratch: PathBuf,
}

impl Target {
    fn build(name: &'static str, toolchain: &str) -> Result<Self> {
        let start = Instant::now();
        let built = target_dir().join("fuzz");
        let mut build = words(&format!(
            "cargo +{toolchain} fuzz build --fuzz-dir tests/fuzz {name} --target-dir"
        ));
        build.arg(&built);
        output(build)?;
        println!("{name}: built in {:.0} s", start.elapsed().as_secs_f64());
        let machine = format!("{}-unknown-linux-gnu/release", env::consts::ARCH);
        let scratch = target_dir().join("fuzz-corpus").join(name);
        fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot make {}", scratch.display()))?;
        Ok(Self {
            name,
            program: built.join(machine).join(name),
            kept: root().join("tests/fuzz/corpus").join(name),
            scratch,
        })
    }

    /// Runs the target; whether it found nothing.
    fn fuzz(&self, seconds: u64) -> Result<bool> {
        let found = root().join("tests/fuzz/artifacts").join(self.name);
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let mut fuzz = self.program();
        fuzz.arg(&self.scratch)
            .args(self.inputs())
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args([
                "-timeout=20",
                "-rss_limit_mb=3000",
                "-len_control=30",
                "-print_final_stats=1",
            ]);
        let before = listed(&found)?;
        println!("{}", display(&fuzz));
        let (child, lines) = in_one_pipe(&mut fuzz)?;
        for line in lines.split(b'\n') {
            let line = line.context("cannot read what the target says")?;
            let line = String::from_utf8_lossy(&line);
            if !is_chatter(&line) {
                println!("{line}");
            }
        }
        let ended = wait(&child)?;
        println!(
            "{}: {:.0} s of CPU time",
            self.name,
            ended.cpu.as_secs_f64()
        );
        if ended.status.success() {
            return Ok(true);
        }
        let inputs = listed(&found)?
            .into_iter()
            .filter(|path| !before.contains(path));
        let inputs: Vec<String> = inputs.map(|path| path.display().to_string()).collect();
        println!(
            "{}: {}; the input is {}",
            self.name,
            ended.status,
            if inputs.is_empty() {
                "not known".into()
            } else {
                inputs.join(" ")
            }
        );
        Ok(false)
    }

    /// Keeps the inputs that reach what others do not.
    fn minimise(&self) -> Result<()> {
        let merged = self.scratch.with_extension("merged");
        let _old = fs::remove_dir_all(&merged);
        fs::create_dir_all(&merged).with_context(|| format!("cannot make {}", merged.display()))?;
        let mut merge = self.program();
        merge
            .arg("-set_cover_merge=1")
            .arg(&merged)
            .args(self.inputs())
            .arg(&self.scratch);
        output(merge)?;
        let mut inputs: Vec<(u64, PathBuf)> = Vec::new();
        for path in listed(&merged)? {
            inputs.push((fs::metadata(&path)?.len(), path));
        }
        inputs.sort();
        let chosen = spread(&inputs);
        let _old = fs::remove_dir_all(&self.kept);
        fs::create_dir_all(&self.kept)
            .with_context(|| format!("cannot make {}", self.kept.display()))?;
        for (_, path) in &chosen {
            let name = path.file_name().context("an input is a file")?;
            fs::copy(path, self.kept.join(name))?;
        }
        println!(
            "{}: {} of {} inputs are kept",
            self.name,
            chosen.len(),
            inputs.len()
        );
        Ok(())
    }

    fn program(&self) -> Command {
        let mut program = command(&self.program.to_string_lossy());
        program.arg(format!("-max_len={LONGEST}"));
        program
    }

    /// The folders of kept inputs that there are.
    fn inputs(&self) -> Vec<PathBuf> {
        let found = root().join("tests/fuzz/found").join(self.name);
        [self.kept.clone(), found]
            .into_iter()
            .filter(|path| path.is_dir())
            .collect()
    }
}

/// As many inputs as may be kept, of all lengths, if they are in the order of their sizes: long ones get where short ones do
/// not.
fn spread(inputs: &[(u64, PathBuf)]) -> Vec<&(u64, PathBuf)> {
    let mut most = KEPT.0.min(inputs.len());
    loop {
        let chosen: Vec<_> = (0..most)
            .filter_map(|n| inputs.get(n * inputs.len() / most))
            .collect();
        if chosen.iter().map(|(size, _)| size).sum::<u64>() <= KEPT.1 {
            return chosen;
        }
        most -= 1;
    }
}

/// Whether a line only says that there is another input.
fn is_chatter(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    first.starts_with("NEW_FUNC")
        || (first.starts_with('#') && ["NEW", "REDUCE", "RELOAD"].contains(&second))
}

/// The files in a folder.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths: Result<Vec<_>, _> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    paths.with_context(|| format!("cannot read {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::{KEPT, is_chatter, spread};

    #[test]
    fn inputs_of_all_lengths_are_kept() {
        let of = |count: u64, size: u64| -> Vec<_> {
            (0..count).map(|n| (n * size, "".into())).collect()
        };
        assert_eq!(spread(&of(300, 1)).len(), 300);
        for inputs in [of(1700, 1), of(1700, 2)] {
            let chosen = spread(&inputs);
            assert!(chosen.len() <= KEPT.0 && chosen.len() > KEPT.0 / 3);
            assert!(chosen.iter().map(|(size, _)| size).sum::<u64>() <= KEPT.1);
            assert!(chosen.last().unwrap().0 > inputs.last().unwrap().0 * 9 / 10);
        }
        assert!(spread(&[]).is_empty());
    }

    #[test]
    fn what_is_shown() {
        for line in [
            "#9001\tNEW    cov: 4034 ft: 18221 corp: 1785/51Kb lim: 86 exec/s: 1005",
            "\tNEW_FUNC[1/4]: 0x55e166eb8830 in core::slice::sort",
        ] {
            assert!(is_chatter(line), "{line}");
        }
        for line in [
            "#8192\tpulse  cov: 3310 ft: 9131 corp: 357/3362b lim: 11 exec/s: 2730",
            "thread panicked at tests/targets/src/handles.rs",
            "    #1 0x55e166eb8830 in core::panicking",
        ] {
            assert!(!is_chatter(line), "{line}");
        }
    }
}
