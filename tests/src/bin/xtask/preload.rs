//! `cargo xtask preload`: programs that know nothing of this allocator, with its memory functions preloaded, beside the
//! C library's and mimalloc's. Their output is to be the same; their time and what they have resident are compared.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{Ended, on_path, output, target_dir, wait, words};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many turns each program has under each allocator.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only programs that have this in their name.
    #[arg(long, default_value = "")]
    only: String,
}

/// What a program may use of the C library's time, and of mimalloc's memory.
const TIME: f64 = 1.0;
const MEMORY: f64 = 1.1;

/// Packages, and a program or file of each by which it is known to be there.
const PACKAGES: [(&str, &str); 6] = [
    ("gcc", "gcc"),
    ("sqlite3", "sqlite3"),
    ("git", "git"),
    ("perl", "perl"),
    ("redis-server", "redis-server"),
    ("redis-tools", "redis-benchmark"),
];
const MIMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2";

/// A program, by how one turn of it is run in a folder of its own under what is preloaded.
struct Program {
    name: &'static str,
    run: fn(&Path, &Path) -> Result<Turn>,
}

const PROGRAMS: [Program; 6] = [
    Program {
        name: "gcc",
        run: gcc,
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
        name: "redis-server",
        run: redis,
    },
];

/// What one turn came to.
#[derive(Default)]
struct Turn {
    /// Of all CPUs, the system's part included.
    cpu: Duration,
    peak_kib: u64,
    output: Vec<u8>,
}

impl Turn {
    fn new(ended: &Ended, output: Vec<u8>) -> Self {
        Self {
            cpu: ended.cpu,
            peak_kib: ended.peak_kib,
            output,
        }
    }

    /// Both, one after the other.
    fn then(mut self, next: Self) -> Self {
        self.cpu += next.cpu;
        self.peak_kib = self.peak_kib.max(next.peak_kib);
        self.output.extend(next.output);
        self
    }
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    install()?;
    let folder = target_dir().join("preload");
    std::fs::create_dir_all(&folder)?;
    inputs(&folder)?;
    output(words(
        "cargo build --quiet --profile dist -p temporal-slab-malloc",
    ))?;
    let ours = target_dir().join("dist/libtemporal_slab_malloc.so");
    let contenders = [
        ("glibc", PathBuf::new()),
        ("ours", ours),
        ("mimalloc", PathBuf::from(MIMALLOC)),
    ];
    println!(
        "{:<14}{:>10}{:>9}{:>10}{:>13}{:>11}{:>9}{:>10}{:>16}",
        "",
        "glibc s",
        "ours s",
        "mimalloc",
        "ours/glibc",
        "glibc MiB",
        "ours",
        "mimalloc",
        "ours/mimalloc"
    );
    let mut is_good = true;
    for program in PROGRAMS
        .iter()
        .filter(|program| program.name.contains(&options.only))
    {
        let mut turns: [Vec<Turn>; 3] = Default::default();
        let mut rounds = options.rounds;
        let mut round = 0;
        while round < rounds {
            for step in 0..contenders.len() {
                let place = (round + step) % contenders.len();
                eprint!("\r{}: turn {} of {rounds} ", program.name, round + 1);
                let turn = (program.run)(&folder, &contenders[place].1)
                    .with_context(|| format!("{} under {}", program.name, contenders[place].0))?;
                turns[place].push(turn);
            }
            round += 1;
            if round == 1 {
                rounds = rounds_for(options.rounds, turns[0][0].cpu);
            }
        }
        eprint!("\r{:40}\r", "");
        let expected = turns[0].first().map(|turn| &turn.output);
        for (turns, (name, _)) in turns.iter().zip(&contenders) {
            let is_same = turns.iter().all(|turn| Some(&turn.output) == expected);
            ensure!(
                is_same,
                "{} under {name} printed something else",
                program.name
            );
        }
        let time = turns
            .each_ref()
            .map(|turns| middle(turns.iter().map(|turn| turn.cpu.as_secs_f64())));
        let peak = turns
            .each_ref()
            .map(|turns| middle(turns.iter().map(|turn| turn.peak_kib as f64 / 1024.0)));
        let pairs = turns[1].iter().zip(&turns[0]);
        let slower =
            middle(pairs.map(|(ours, glibc)| ours.cpu.as_secs_f64() / glibc.cpu.as_secs_f64()));
        let larger = peak[1] / peak[2];
        println!(
            "{:<14}{:>10.2}{:>9.2}{:>10.2}{:>13}{:>11.1}{:>9.1}{:>10.1}{:>16}",
            program.name,
            time[0],
            time[1],
            time[2],
            marked(slower, TIME),
            peak[0],
            peak[1],
            peak[2],
            marked(larger, MEMORY)
        );
        is_good &= slower <= TIME && larger <= MEMORY;
    }
    println!(
        "asked: at most {TIME} of glibc's time, which is marked (!) otherwise, and {MEMORY} of mimalloc's memory"
    );
    Ok(is_good)
}

/// So many rounds that what is short is run for two seconds by each, but at most eight times as often as was asked.
fn rounds_for(asked: usize, once: Duration) -> usize {
    let wanted = (2.0 / once.as_secs_f64().max(0.01)).ceil() as usize;
    wanted.clamp(asked, asked * 8)
}

fn marked(ratio: f64, bound: f64) -> String {
    format!("{ratio:.2}{}", if ratio <= bound { "" } else { " (!)" })
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn install() -> Result<()> {
    let mut lacking: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, program)| !on_path(program))
        .map(|(package, _)| *package)
        .collect();
    if !Path::new(MIMALLOC).exists() {
        lacking.push("libmimalloc2.0");
    }
    ensure!(on_path("python3"), "there is no python3");
    if lacking.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", lacking.join(", "));
    let install = |update: bool| {
        if update {
            output(words("apt-get update"))?;
        }
        output(words(&format!(
            "apt-get install --yes --no-install-recommends {}",
            lacking.join(" ")
        )))
    };
    install(false).or_else(|_| install(true)).map(|_| ())
}

/// What the programs are given, made anew so that it is the same everywhere.
fn inputs(folder: &Path) -> Result<()> {
    let mut source = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    for number in 0..1500 {
        source += &format!(
            "struct s{number} {{ int a[{}]; struct s{number} *next; }};\n\
             static int f{number}(int x, struct s{number} *s) {{\n  int sum = x;\n  for (int i = 0; i < {}; i++) {{\n    \
             if (s->a[i] > x * {number}) sum += s->a[i]; else sum ^= i << {};\n    switch (sum & 3) {{ case 0: sum += \
             {number}; break; case 1: sum *= 3; break; default: sum -= i; }}\n  }}\n  return s->next ? sum + \
             f{number}(sum, s->next) : sum;\n}}\nint g{number}(int x) {{ struct s{number} s = {{{{x}}, 0}}; return \
             f{number}(x, &s); }}\n",
            number % 30 + 1,
            number % 30 + 1,
            number % 16
        );
    }
    std::fs::write(folder.join("large.c"), source)?;
    let sql = "create table t (id integer primary key, name text, value real);\n\
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 150000)\n\
        insert into t select i, 'name ' || (i * 7919 % 100003), i * 0.5 from n;\n\
        create index by_name on t (name);\n\
        select count(*), sum(value) from t where name like '%77%';\n\
        select name, count(*) c from t group by substr(name, 1, 8) order by c desc, name limit 20;\n\
        update t set name = name || ' x' where id % 3 = 0;\n\
        delete from t where id % 5 = 0;\n\
        select a.name from t a join t b on a.name = b.name || ' x' order by a.name limit 10;\n\
        select group_concat(name, ',') from (select name from t order by name limit 2000);\n";
    std::fs::write(folder.join("build.sql"), sql)?;
    let perl = "my %h; for my $i (1..150000) { my $k = 'k' . ($i * 7919 % 50021); push @{$h{$k}}, \"v$i\"; }\n\
        my $n = 0; for my $k (sort keys %h) { my $s = join ',', @{$h{$k}}; $s =~ s/(\\d)(\\d)/$2$1/g; $n += length $s; }\n\
        my @w = map { { a => $_, b => [1..($_ % 7)] } } 1..60000; my $t = 0; $t += scalar @{$_->{b}} for @w;\n\
        print \"$n $t\\n\";\n";
    std::fs::write(folder.join("hashes.pl"), perl)?;
    let mut history = std::fs::File::create(folder.join("history"))?;
    for commit in 1..=400 {
        let message = format!("change {commit}");
        write!(
            history,
            "commit refs/heads/main\ncommitter a <a@b> {} +0000\ndata {}\n{message}\n",
            1_700_000_000 + commit,
            message.len()
        )?;
        for file in 0..8 {
            let text: String = (0..200)
                .map(|line| {
                    format!(
                        "line {line} of {file}: {}\n",
                        (commit * line * 31 + file) % 997
                    )
                })
                .collect();
            writeln!(
                history,
                "M 100644 inline folder{}/file{}.txt\ndata {}\n{text}",
                file % 3,
                (commit * 3 + file) % 60,
                text.len()
            )?;
        }
    }
    Ok(())
}

/// Runs a command to its end under what is preloaded: what it printed, its time and its memory, its children's included.
fn turn(mut command: Command, preload: &Path) -> Result<Turn> {
    if !preload.as_os_str().is_empty() {
        command.env("LD_PRELOAD", preload);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut printed = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        std::io::Read::read_to_end(&mut stdout, &mut printed)?;
    }
    let ended = wait(&child)?;
    ensure!(ended.status.success(), "it ended with {}", ended.status);
    Ok(Turn::new(&ended, printed))
}

fn gcc(folder: &Path, preload: &Path) -> Result<Turn> {
    let mut command = Command::new("gcc");
    command
        .current_dir(folder)
        .args(["-O1", "-S", "-o", "-", "large.c"]);
    turn(command, preload)
}

fn sqlite(folder: &Path, preload: &Path) -> Result<Turn> {
    let mut command = Command::new("sqlite3");
    let script = std::fs::File::open(folder.join("build.sql"))?;
    command.arg(":memory:").stdin(script);
    turn(command, preload)
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
    turn(git("init --quiet --bare -b main made.git"), preload)?;
    import.stdin(std::fs::File::open(folder.join("history"))?);
    let turns = turn(import, preload)?
        .then(turn(
            git("clone --quiet --no-local made.git copy"),
            preload,
        )?)
        .then(turn(
            git("-C copy repack -adfq --depth=50 --window=50"),
            preload,
        )?)
        .then(turn(git("-C copy log --stat --format=%H%s"), preload)?)
        .then(turn(git("-C copy fsck --strict"), preload)?);
    Ok(turns)
}

fn perl(folder: &Path, preload: &Path) -> Result<Turn> {
    let mut command = Command::new("perl");
    command
        .arg(folder.join("hashes.pl"))
        .env("PERL_HASH_SEED", "0");
    turn(command, preload)
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
        ])
        .args(["test_unicode", "test_collections", "test_pickle"]);
    let mut turn = turn(command, preload)?;
    // Which tests there are, and that they passed, but not how long they took.
    let printed = String::from_utf8_lossy(&turn.output);
    let lines = printed
        .lines()
        .filter(|line| line.starts_with("Total test") || line.starts_with("Result"));
    turn.output = lines.collect::<Vec<_>>().join("\n").into_bytes();
    Ok(turn)
}

fn redis(folder: &Path, preload: &Path) -> Result<Turn> {
    const PORT: &str = "16399";
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
            PORT,
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
    let server = server.process_group(0).spawn()?;
    let ask = |arguments: &[&str]| -> Result<Vec<u8>> {
        let mut command = Command::new("redis-cli");
        command.args(["-p", PORT]).args(arguments);
        Ok(command.output()?.stdout)
    };
    let end = Instant::now() + Duration::from_secs(10);
    while ask(&["ping"])? != b"PONG\n" {
        if Instant::now() > end {
            bail!("the server does not answer");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let load =
        "-q -n 60000 -c 20 -P 4 -r 20000 -d 200 -t set,get,incr,lpush,rpop,sadd,hset,zadd,mset";
    let loaded = on_cpu(1, "redis-benchmark")
        .args(["-p", PORT])
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
    Ok(Turn::new(&ended, printed))
}
