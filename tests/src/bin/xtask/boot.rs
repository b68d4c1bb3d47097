//! Booting the demo kernel in QEMU, by software emulation.
//!
//! The image is made by `bootimage`, used as a library in a process of its own: the boot loader is built
//! from source with `RUSTC_BOOTSTRAP`, which nothing else is to see. All kernels share the boot loader's
//! build directory, so a file is locked meanwhile.

use std::fs::{self, File};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{root, target_dir, words};

const KERNEL: &str = "temporal-slab-kernel-demo";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many CPUs the machine has.
    #[arg(long, default_value_t = 1)]
    smp: usize,
    /// How much memory it has, as QEMU takes it.
    #[arg(long, default_value = "256M")]
    mem: String,
    /// Build the kernel with optimizations.
    #[arg(long)]
    release: bool,
    /// Wait for a debugger on port 1234 before the first instruction.
    #[arg(long)]
    gdb: bool,
    /// What the kernel is told to do: `run`, `report` its heap's figures, `count` instructions, `panic` or
    /// `hang`.
    #[arg(long, default_value = "run")]
    mode: String,
    /// How many times it is booted. Stops at the first boot that does not pass.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Seconds without a byte on the serial port after which a boot counts as hung. How long a boot takes in all
    /// depends on the computer, the profile and the CPUs: without `--release`, `--smp 4` takes minutes on two cores.
    /// A boot that goes on for 40 times as long as this is ended, too.
    #[arg(long, default_value_t = 30)]
    timeout: u64,
}

/// How many times its timeout a boot may take that makes progress.
const LONGEST: u32 = 40;

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Panicked,
    Failed,
    Hung,
    /// QEMU ended with a code that the kernel never gives.
    Unknown(Option<i32>),
}

impl End {
    /// From QEMU's exit code: see `Exit` in the kernel.
    const fn of(code: Option<i32>) -> Self {
        match code {
            Some(33) => Self::Passed,
            Some(35) => Self::Panicked,
            Some(37) => Self::Failed,
            code => Self::Unknown(code),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    let image = build(options.release)?;
    for boot in 1..=options.repeat {
        let (end, time) = boot_once(options, &image)?;
        if options.repeat > 1 {
            eprintln!(
                "boot {boot} of {}: {end:?} after {time:.1?}",
                options.repeat
            );
        }
        if end != End::Passed {
            eprintln!("boot: {}", explain(end, options.timeout));
            return Ok(false);
        }
    }
    Ok(true)
}

fn explain(end: End, timeout: u64) -> String {
    match end {
        End::Passed => "the kernel passed".to_owned(),
        End::Panicked => "the kernel panicked: its last line says why".to_owned(),
        End::Failed => {
            "the kernel's self-test failed: see the lines that begin with FAILED".to_owned()
        }
        End::Hung => format!(
            "the kernel hung: it was silent for {timeout} seconds, or went on for {LONGEST} times as long"
        ),
        End::Unknown(code) => {
            format!("QEMU ended by itself, with the code {code:?}: a triple fault?")
        }
    }
}

/// The kernel's image, built if need be.
fn build(release: bool) -> Result<PathBuf> {
    let profile = if release { "release" } else { "debug" };
    let flag = if release { " --release" } else { "" };
    let line = format!("cargo build --quiet -p {KERNEL} --target x86_64-unknown-none{flag}");
    let built = words(&line).status().context("cargo could not be run")?;
    ensure!(built.success(), "the kernel did not build");
    let folder = target_dir().join("x86_64-unknown-none").join(profile);
    let (kernel, image) = (folder.join(KERNEL), folder.join(format!("{KERNEL}.img")));
    let lock_path = target_dir().join("bootimage.lock");
    let lock = File::create(&lock_path).with_context(|| format!("{}", lock_path.display()))?;
    lock.lock().context("the lock on the boot loader's build")?;
    if is_newer(&image, &kernel) {
        return Ok(image);
    }
    // A fresh name first, so that an image is whole or not there.
    let fresh = image.with_extension("new");
    let me = std::env::current_exe().context("this program's own path")?;
    let mut command = crate::command::command(&me.to_string_lossy());
    let made = command
        .arg("image")
        .args([&kernel, &fresh])
        .env("RUSTC_BOOTSTRAP", "1")
        .output()
        .context("the image could not be made")?;
    ensure!(
        made.status.success(),
        "the image could not be made: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    fs::rename(&fresh, &image)?;
    Ok(image)
}

fn is_newer(image: &Path, kernel: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    matches!((time(image), time(kernel)), (Some(image), Some(kernel)) if image >= kernel)
}

#[derive(clap::Args)]
pub(crate) struct Image {
    kernel: PathBuf,
    image: PathBuf,
}

/// Puts a kernel behind the boot loader, which is built if need be.
pub(crate) fn image(image: &Image) -> Result<()> {
    let manifest = root().join("kernel-demo").join("Cargo.toml");
    let mut builder = bootimage::builder::Builder::new(Some(manifest.clone()))
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    builder
        .create_bootimage(&manifest, &image.kernel, &image.image, true)
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// Boots once and shows the serial log; how it ended.
fn boot_once(options: &Options, image: &Path) -> Result<(End, Duration)> {
    let drive = format!("format=raw,snapshot=on,file={}", image.display());
    let mode = format!("name=opt/tslab/mode,string={}", options.mode);
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-drive", &drive, "-fw_cfg", &mode, "-m", &options.mem])
        .args(["-smp", &options.smp.to_string(), "-accel", "tcg"])
        .args([
            "-display",
            "none",
            "-serial",
            "stdio",
            "-net",
            "none",
            "-no-reboot",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if options.mode == "count" {
        // The machine's clock counts instructions.
        command.args(["-icount", "shift=0"]);
    }
    if options.gdb {
        command.args(["-s", "-S"]);
        eprintln!("boot: waiting for a debugger: gdb -ex 'target remote :1234'");
    }
    let start = Instant::now();
    let mut machine = command
        .spawn()
        .context("qemu-system-x86_64 could not be run: `cargo xtask setup` installs it")?;
    let end = watch(&mut machine, options)?;
    Ok((end, start.elapsed()))
}

fn watch(machine: &mut Child, options: &Options) -> Result<End> {
    let (Some(mut serial), Some(mut errors)) = (machine.stdout.take(), machine.stderr.take())
    else {
        bail!("QEMU has no output");
    };
    let quiet = options.repeat > 1;
    let (progress, progressed) = mpsc::channel();
    let reader = thread::spawn(move || {
        let colours = std::io::stdout().is_terminal();
        let (mut line, mut bytes) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = serial.read(&mut bytes) {
            // Nobody is listening any more if the time is up.
            let _late = progress.send(());
            for byte in &bytes[..count] {
                if *byte != b'\n' {
                    line.push(*byte);
                    continue;
                }
                if !quiet {
                    println!("{}", painted(&String::from_utf8_lossy(&line), colours));
                }
                line.clear();
            }
        }
        if !(quiet || line.is_empty()) {
            println!("{}", painted(&String::from_utf8_lossy(&line), colours));
        }
    });
    let silence = Duration::from_secs(options.timeout);
    let end = Instant::now() + silence * LONGEST;
    let hung = loop {
        let silent = if options.gdb {
            // A debugger may stop it for any time.
            progressed
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        } else {
            progressed.recv_timeout(silence)
        };
        match silent {
            Ok(()) if options.gdb || Instant::now() < end => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Timeout) => break true,
            Err(mpsc::RecvTimeoutError::Disconnected) => break false,
        }
    };
    if hung {
        machine.kill().context("QEMU could not be stopped")?;
    }
    let status = machine.wait()?;
    // The reader ends with the machine.
    let _joined = reader.join();
    if hung {
        return Ok(End::Hung);
    }
    let end = End::of(status.code());
    if let End::Unknown(_) = end {
        let mut text = String::new();
        // What can be read of it helps; that nothing can is no other error.
        let _read = errors.read_to_string(&mut text);
        eprint!("{text}");
    }
    Ok(end)
}

/// A line of the log, with what passed in green and what failed in red.
fn painted(line: &str, colours: bool) -> String {
    let line = line.trim_end_matches('\r');
    let colour = if line.starts_with("ok ") || line == "verdict: passed" {
        32
    } else if ["FAILED", "panic", "verdict"]
        .iter()
        .any(|word| line.starts_with(word))
    {
        31
    } else {
        0
    };
    if colours && colour != 0 {
        format!("\x1b[{colour}m{line}\x1b[0m")
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_painted_by_what_they_say() {
        assert_eq!(
            painted("ok     handles\r", true),
            "\x1b[32mok     handles\x1b[0m"
        );
        assert_eq!(
            painted("FAILED epochs: closed", true),
            "\x1b[31mFAILED epochs: closed\x1b[0m"
        );
        assert_eq!(painted("okay", true), "okay");
        assert_eq!(painted("panic: x", false), "panic: x");
    }

    /// Watches a shell's line as if it were a machine.
    fn watched(line: &str, timeout: u64) -> End {
        let options = Options {
            smp: 1,
            mem: String::new(),
            release: false,
            gdb: false,
            mode: String::new(),
            repeat: 2,
            timeout,
        };
        let mut machine = Command::new("sh");
        machine.args(["-c", line]);
        machine.stdout(Stdio::piped()).stderr(Stdio::piped());
        watch(&mut machine.spawn().unwrap(), &options).unwrap()
    }

    /// A machine that is slow and says something now and then is not hung; one that says nothing is. Catches a limit on the
    /// whole time, which a slow computer exceeds.
    #[test]
    fn a_machine_is_judged_by_its_progress() {
        let slow = "for n in 1 2 3 4 5 6 7 8; do printf .; sleep 0.8; done; exit 33";
        assert_eq!(watched(slow, 5), End::Passed);
        assert_eq!(watched("echo begins; exec sleep 100", 2), End::Hung);
        assert_eq!(watched("exec sleep 100", 2), End::Hung);
    }

    #[test]
    fn exit_codes_are_told_apart() {
        let ends = [33, 35, 37, 0, 1].map(|code| End::of(Some(code)));
        assert_eq!(ends[..3], [End::Passed, End::Panicked, End::Failed]);
        assert_eq!(ends[3], End::Unknown(Some(0)));
        assert!(explain(End::Hung, 7).contains("7 seconds"));
    }
}
