//! The programs, and how one turn of each is run.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::command::{Ended, wait};

/// A program, by how one turn of it is run in a folder of its own under what is preloaded.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) run: fn(&Path, &Path) -> Result<Turn>,
}

pub(super) const PROGRAMS: [Program; 9] = [
    Program {
        name: "gcc",
        run: gcc,
    },
    Program {
        name: "g++",
        run: gxx,
    },
    Program {
        name: "sqlite3",
        run: sqlite,
    },
    Program {
        name: "git",
        run: git,
    },
    Program {
        name: "perl",
        run: perl,
    },
    Program {
        name: "python3",
        run: python,
    },
    Program {
        name: "lua",
        run: lua,
    },
    Program {
        name: "redis",
        run: |folder, preload| redis(folder, preload, REDIS_ALONE),
    },
    Program {
        name: "redis-pipeline",
        run: |folder, preload| redis(folder, preload, REDIS_PIPELINE),
    },
];

/// What one turn came to.
#[derive(Default)]
pub(super) struct Turn {
    /// Of all CPUs, the system's part included.
    pub(super) cpu: Duration,
    pub(super) peak_kib: u64,
    /// Of what was printed, a digest.
    pub(super) printed: u64,
}

impl Turn {
    fn new(ended: &Ended, printed: u64) -> Self {
        Self {
            cpu: ended.cpu,
            peak_kib: ended.peak_kib,
            printed,
        }
    }

    /// Both, one after the other.
    fn then(mut self, next: Self) -> Self {
        self.cpu += next.cpu;
        self.peak_kib = self.peak_kib.max(next.peak_kib);
        self.printed = self.printed.rotate_left(1) ^ next.printed;
        self
    }
}

/// Runs a command to its end under what is preloaded: what it printed, its time and its memory, its children's included.
fn turn(folder: &Path, mut command: Command, preload: &Path) -> Result<Turn> {
    if !preload.as_os_str().is_empty() {
        command.env("LD_PRELOAD", preload);
    }
    // Not by a pipe: it may be megabytes, which this process is not to have had in memory.
    let file = folder.join("printed");
    command.stdout(File::create(&file)?).stderr(Stdio::null());
    let ended = measured(command)?;
    ensure!(ended.status.success(), "it ended with {}", ended.status);
    Ok(Turn::new(&ended, digest(File::open(&file)?)?))
}

/// Starts a command and waits for its end.
fn measured(mut command: Command) -> Result<Ended> {
    forget_peak();
    wait(&command.spawn()?)
}

/// Has the system forget the peak of this process' own memory: a child's begins with what its parent had.
fn forget_peak() {
    // Where that cannot be done, small programs seem larger than they are, all by the same.
    let _is_done = std::fs::write("/proc/self/clear_refs", "5");
}

fn digest(mut from: impl std::io::Read) -> Result<u64> {
    let (mut hasher, mut part) = (DefaultHasher::new(), [0; 1 << 14]);
    loop {
        match from.read(&mut part)? {
            0 => return Ok(hasher.finish()),
            length => hasher.write(&part[..length]),
        }
    }
}

fn gcc(folder: &Path, preload: &Path) -> Result<Turn> {
    let mut command = Command::new("gcc");
    command
        .current_dir(folder)
        .args(["-O1", "-S", "-o", "-", "large.c"]);
    turn(folder, command, preload)
}

fn gxx(folder: &Path, preload: &Path) -> Result<Turn> {
    let mut command = Command::new("g++");
    command
        .current_dir(folder)
        .args(["-std=c++17", "-O1", "-S", "-o", "-", "templates.cpp"]);
    turn(folder, command, preload)
}

fn sqlite(folder: &Path, preload: &Path) -> Result<Turn> {
    let mut command = Command::new("sqlite3");
    let script = std::fs::File::open(folder.join("build.sql"))?;
    command.arg(":memory:").stdin(script);
    turn(folder, command, preload)
}

fn git(folder: &Path, preload: &Path) -> Result<Turn> {
    let work = folder.join("git");
    let _was_there = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&work)?;
    let git = |arguments: &str| {
        let mut command = Command::new("git");
        command
            .current_dir(&work)
            .args(["-c", "pack.threads=1", "-c", "gc.auto=0"])
            .args(arguments.split(' '));
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", &work)
            .stdin(Stdio::null());
        command
    };
    let mut import = git("-C made.git fast-import --quiet");
    turn(folder, git("init --quiet --bare -b main made.git"), preload)?;
    import.stdin(std::fs::File::open(folder.join("history"))?);
    let turns = turn(folder, import, preload)?
        .then(turn(
            folder,
            git("clone --quiet --no-local made.git copy"),
            preload,
        )?)
        .then(turn(
            folder,
            git("-C copy repack -adfq --depth=20 --window=20"),
            preload,
        )?)
        .then(turn(
            folder,
            git("-C copy log --stat --format=%H%s"),
            preload,
        )?)
        .then(turn(folder, git("-C copy fsck --strict"), preload)?);
    Ok(turns)
}

fn perl(folder: &Path, preload: &Path) -> Result<Turn> {
    let mut command = Command::new("perl");
    command
        .arg(folder.join("hashes.pl"))
        .env("PERL_HASH_SEED", "0");
    turn(folder, command, preload)
}

fn python(folder: &Path, preload: &Path) -> Result<Turn> {
    let mut command = Command::new("python3");
    command
        .current_dir(folder)
        .env("PYTHONMALLOC", "malloc")
        .env("PYTHONHASHSEED", "0")
        .args([
            "-W",
            "ignore",
            "-m",
            "test",
            "--quiet",
            "test_dict",
            "test_list",
            "test_set",
            "test_json",
            "test_re",
        ]);
    let mut turn = turn(folder, command, preload)?;
    // Which tests there are, and that they passed, but not how long they took.
    let printed = std::fs::read_to_string(folder.join("printed"))?;
    let lines = printed
        .lines()
        .filter(|line| line.starts_with("Total test") || line.starts_with("Result"));
    turn.printed = digest(lines.collect::<Vec<_>>().join("\n").as_bytes())?;
    Ok(turn)
}

fn lua(folder: &Path, preload: &Path) -> Result<Turn> {
    let mut command = Command::new("lua5.4");
    command.arg(folder.join("objects.lua"));
    turn(folder, command, preload)
}

/// What the server is asked: one command at a time by each client, or four.
const REDIS_ALONE: &str =
    "-q -n 30000 -c 20 -P 1 -r 20000 -d 200 -t set,get,incr,lpush,rpop,sadd,hset,zadd,mset";
const REDIS_PIPELINE: &str =
    "-q -n 60000 -c 20 -P 4 -r 20000 -d 200 -t set,get,incr,lpush,rpop,sadd,hset,zadd,mset";

fn redis(folder: &Path, preload: &Path, load: &str) -> Result<Turn> {
    // One that is free: somebody else may try the same on this computer.
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = &listener.local_addr()?.port().to_string();
    drop(listener);
    // Each on a CPU of its own: how much the server finds to do at each call, and so how many it makes, is otherwise
    // the scheduler's choice.
    let on_cpu = |cpu: usize, program: &str| {
        if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > cpu) {
            let mut command = Command::new("taskset");
            command.args(["-c", &cpu.to_string(), program]);
            command
        } else {
            Command::new(program)
        }
    };
    let mut server = on_cpu(0, "redis-server");
    server
        .current_dir(folder)
        .args([
            "--port",
            port,
            "--save",
            "",
            "--appendonly",
            "no",
            "--bind",
            "127.0.0.1",
            "--daemonize",
            "no",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // This server may be linked to jemalloc; the C library's functions come before that only if they are preloaded too.
    let is_given = !preload.as_os_str().is_empty();
    server.env(
        "LD_PRELOAD",
        if is_given {
            preload
        } else {
            Path::new("libc.so.6")
        },
    );
    forget_peak();
    let server = server.process_group(0).spawn()?;
    let ask = |arguments: &[&str]| -> Result<Vec<u8>> {
        let mut command = Command::new("redis-cli");
        command.args(["-p", port]).args(arguments);
        Ok(command.output()?.stdout)
    };
    let end = Instant::now() + Duration::from_secs(10);
    while ask(&["ping"])? != b"PONG\n" {
        if Instant::now() > end {
            bail!("the server does not answer");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let loaded = on_cpu(1, "redis-benchmark")
        .args(["-p", port])
        .args(load.split(' '))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let printed = ask(&[
        "eval",
        "return {redis.call('llen', 'mylist'), redis.call('exists', 'no')}",
        "0",
    ])?;
    ask(&["shutdown", "nosave"])?;
    let ended = wait(&server)?;
    ensure!(
        loaded.success() && ended.status.success(),
        "the load failed, or the server: {}",
        ended.status
    );
    Ok(Turn::new(&ended, digest(printed.as_slice())?))
}
