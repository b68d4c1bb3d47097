//! Commands that run in the repository as if a user had typed them.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, BufReader, PipeReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// What `cargo run` and rustup tell the programs that they start. A nested cargo must not take it
/// for its own: `RUSTUP_TOOLCHAIN` would hide the components that `rust-toolchain.toml` lists,
/// `CARGO` would make a nightly cargo call a stable one.
const INHERITED: [&str; 4] = [
    "CARGO",
    "RUSTUP_TOOLCHAIN",
    "RUST_RECURSION_COUNT",
    "LD_LIBRARY_PATH",
];

/// The top folder of the repository.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Where cargo puts what it builds, unless told otherwise.
pub(crate) fn target_dir() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target")))
}

/// A command with the environment of whoever called `cargo xtask`, to be run at the top of the
/// repository.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    for name in INHERITED {
        command.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        let of_the_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if of_the_package {
            command.env_remove(name);
        }
    }
    // The output is read by a program before anyone sees it.
    command.env("CARGO_TERM_COLOR", "never");
    command
}

/// [`command`], with its arguments in one string that is split at spaces.
pub(crate) fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = command(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// The command as one could type it, without the variables that all commands share.
pub(crate) fn display(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value.filter(|_| name != "CARGO_TERM_COLOR") {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{}={:?} ",
                name.to_string_lossy(),
                value.to_string_lossy()
            );
        }
    }
    text.push_str(&command.get_program().to_string_lossy());
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Runs the command to its end and returns what it wrote to standard output; its failure is an
/// error that holds all that it said.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let shown = display(&command);
    let output = command
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}):\n{stdout}{stderr}", output.status);
    }
    Ok(stdout)
}

/// A child that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The time that processors spent on it.
    pub(crate) cpu: Duration,
    /// The most memory that was present for it.
    pub(crate) peak_kib: u64,
}

/// Waits for a child, and asks what it took.
pub(crate) fn wait(child: &Child) -> Result<Ended> {
    let mut status = 0;
    // SAFETY: zero bytes are one.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    let id = i32::try_from(child.id())?;
    // SAFETY: both places are ours.
    let waited = unsafe { libc::wait4(id, &raw mut status, 0, &raw mut usage) };
    ensure!(waited == id, "a child was lost");
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok(Ended {
        status: ExitStatus::from_raw(status),
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        peak_kib: usage.ru_maxrss.unsigned_abs(),
    })
}

/// Installs a tool of cargo's unless it is there.
pub(crate) fn install(tool: &str) -> Result<()> {
    if is_there(tool) {
        return Ok(());
    }
    println!("installing {tool}, which takes a few minutes");
    let mut install = words(&format!("cargo install --locked --quiet {tool}"));
    install
        .arg("--target-dir")
        .arg(target_dir().join("install"));
    output(install)?;
    ensure!(
        is_there(tool),
        "{tool} was installed, but cargo does not find it: add cargo's folder of programs to the search path"
    );
    Ok(())
}

/// Whether cargo finds a tool of its own, which need not be on the search path.
fn is_there(tool: &str) -> bool {
    let name = tool.strip_prefix("cargo-").unwrap_or(tool);
    output(words(&format!("cargo {name} --version"))).is_ok()
}

/// Starts a command whose output and errors come in order: through one pipe.
pub(crate) fn in_one_pipe(command: &mut Command) -> Result<(Child, BufReader<PipeReader>)> {
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    command
        .stdout(writer.try_clone().context("cannot make a pipe")?)
        .stderr(writer);
    let child = command.spawn();
    // It holds our ends for writing, and the pipe ends only when all of them are closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = child.with_context(|| format!("cannot run `{}`", display(command)))?;
    Ok((child, BufReader::new(reader)))
}

/// Whether a program of that name is on the search path.
pub(crate) fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::{command, display, words};

    #[test]
    fn a_line_becomes_program_and_arguments() {
        let command = words("cargo  test --all");
        assert_eq!(command.get_program(), "cargo");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["test", "--all"]);
    }

    #[test]
    fn display_shows_set_variables_only() {
        let mut command = words("cargo test");
        command.env("RUSTFLAGS", "--cfg loom").env_remove("HOME");
        assert_eq!(display(&command), r#"RUSTFLAGS="--cfg loom" cargo test"#);
    }

    #[test]
    fn the_calling_cargo_is_not_passed_on() {
        let command = command("cargo");
        let removed = |name: &str| {
            command
                .get_envs()
                .any(|(n, value)| n == name && value.is_none())
        };
        assert!(removed("RUSTUP_TOOLCHAIN"));
        assert!(removed("CARGO"));
    }
}
