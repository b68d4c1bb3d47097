//! `cargo xtask preload`: programs that know nothing of this allocator, with its memory functions preloaded, checked and
//! unchecked, beside the C library's and other allocators'. Their output is to be the same; their time and what they have
//! resident are compared.

mod inputs;
mod programs;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use programs::{PROGRAMS, Program, Turn};

use crate::command::{on_path, target_dir};
use crate::libraries;
use crate::ratios::{least, marked, mean, middle};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many turns each program has under each allocator, at least. Its best time counts, and its middle peak.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only programs that have this in their name.
    #[arg(long, default_value = "")]
    only: String,
    /// Only these peers, separated by commas.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
}

/// What ours may use of the best peer's time: with one program, and in the mean.
const TIME: f64 = 1.03;
const TIME_MEAN: f64 = 1.0;
/// What ours may have resident of what mimalloc has, in the mean.
const MEMORY_MEAN: f64 = 1.0;

/// Packages, and a program of each by which it is known to be there.
const PACKAGES: [(&str, &str); 9] = [
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("sqlite3", "sqlite3"),
    ("git", "git"),
    ("perl", "perl"),
    ("python3", "python3"),
    ("lua5.4", "lua5.4"),
    ("redis-server", "redis-server"),
    ("redis-tools", "redis-benchmark"),
];

const OURS: [&str; 2] = ["unchecked", "checked"];
const PEERS: [&str; 5] = ["mimalloc2", "mimalloc3", "jemalloc", "snmalloc", "glibc"];
/// The peer whose memory is our bound.
const LEAN: &str = "mimalloc2";

/// What is preloaded, by its name.
type Contender = (&'static str, PathBuf);

/// A program's best time in seconds and its middle peak in MiB, under one contender.
type Figures = (f64, f64);

pub(crate) fn run(options: &Options) -> Result<bool> {
    for name in &options.peers {
        ensure!(
            PEERS.contains(&name.as_str()),
            "there is no peer {name:?}; there are {}",
            PEERS.join(", ")
        );
    }
    install()?;
    let contenders = contenders(&options.peers)?;
    let folder = target_dir().join("preload");
    std::fs::create_dir_all(&folder)?;
    inputs::write(&folder)?;
    println!("CPU seconds / MiB at the peak; best time and middle peak");
    print!("{:<15}", "");
    for (name, _) in &contenders {
        print!("{name:>13}");
    }
    for name in OURS {
        print!("   {:>21}", format!("{name}: CPU   MiB "));
    }
    println!();
    let mut ratios: [Vec<Ratios>; 2] = Default::default();
    for program in PROGRAMS.iter().filter(|p| p.name.contains(&options.only)) {
        let turns = turns(program, &contenders, options.rounds, &folder)?;
        let figures: Vec<Figures> = turns.iter().map(|turns| figures(turns)).collect();
        print!("{:<15}", program.name);
        for (time, peak) in &figures {
            print!("{:>13}", format!("{time:.2}/{peak:.1}"));
        }
        for (own, ratios) in ratios.iter_mut().enumerate() {
            let ratio = Ratios::of(own, &figures, &contenders);
            print!(
                "   {}{}",
                marked(Some(ratio.time), TIME, 14),
                marked(ratio.memory, f64::MAX, 5)
            );
            ratios.push(ratio);
        }
        println!();
    }
    print!(
        "{:<15}{:>width$}",
        "mean",
        "",
        width = 13 * contenders.len()
    );
    let mut is_good = true;
    for ratios in &ratios {
        let time = mean(ratios.iter().map(|ratio| ratio.time));
        let memory = mean(ratios.iter().filter_map(|ratio| ratio.memory));
        print!(
            "   {}{}",
            marked(time, TIME_MEAN, 14),
            marked(memory, MEMORY_MEAN, 5)
        );
        is_good &= ratios.iter().all(|ratio| ratio.time <= TIME);
        is_good &= time.is_none_or(|time| time <= TIME_MEAN);
        is_good &= memory.is_none_or(|memory| memory <= MEMORY_MEAN);
    }
    println!(
        "\nasked, and marked (!) otherwise: at most {TIME} of the best peer's time, {TIME_MEAN} in the mean; at most \
         {MEMORY_MEAN} of {LEAN}'s memory in the mean"
    );
    Ok(is_good)
}

/// How one of ours compares.
struct Ratios {
    /// With the fastest peer.
    time: f64,
    /// With the lean one, if it takes part.
    memory: Option<f64>,
}

impl Ratios {
    fn of(own: usize, figures: &[Figures], contenders: &[Contender]) -> Self {
        let (time, peak) = figures[own];
        let peers = &figures[OURS.len()..];
        let lean = contenders.iter().position(|(name, _)| *name == LEAN);
        Self {
            time: time / least(peers.iter().map(|(time, _)| *time)),
            memory: lean.map(|lean| peak / figures[lean].1),
        }
    }
}

/// Ours, then the peers that are asked for.
fn contenders(names: &[String]) -> Result<Vec<Contender>> {
    eprintln!("building what is preloaded");
    let mut all = vec![
        (OURS[0], libraries::ours_unchecked()?),
        (OURS[1], libraries::ours()?),
    ];
    let is_asked = |peer: &&str| names.is_empty() || names.iter().any(|name| name == peer);
    for peer in PEERS.into_iter().filter(is_asked) {
        let library = match peer {
            "glibc" => PathBuf::new(),
            peer => libraries::peer(peer)?,
        };
        all.push((peer, library));
    }
    ensure!(all.len() > OURS.len(), "there is no peer to compare with");
    Ok(all)
}

/// Runs a program under all contenders in turns, which all have to make it print the same.
fn turns(
    program: &Program,
    contenders: &[Contender],
    asked: usize,
    folder: &Path,
) -> Result<Vec<Vec<Turn>>> {
    let mut turns: Vec<Vec<Turn>> = contenders.iter().map(|_| Vec::new()).collect();
    let mut rounds = asked.max(1);
    let mut round = 0;
    while round < rounds {
        for step in 0..contenders.len() {
            let place = (round + step) % contenders.len();
            let (name, library) = &contenders[place];
            eprint!(
                "\r{} under {name}: turn {} of {rounds}\x1b[K",
                program.name,
                round + 1
            );
            let turn = (program.run)(folder, library)
                .with_context(|| format!("{} under {name}", program.name))?;
            turns[place].push(turn);
        }
        round += 1;
        if round == 1 {
            rounds = rounds_for(rounds, turns[0][0].cpu);
        }
    }
    eprint!("\r\x1b[K");
    let expected = turns[0][0].printed;
    for (turns, (name, _)) in turns.iter().zip(contenders) {
        ensure!(
            turns.iter().all(|turn| turn.printed == expected),
            "{} under {name} printed something else than under {}",
            program.name,
            contenders[0].0
        );
    }
    Ok(turns)
}

/// So many rounds that what is short is run for two seconds by each, but at most three times as often as was asked.
fn rounds_for(asked: usize, once: Duration) -> usize {
    let wanted = (2.0 / once.as_secs_f64().max(0.01)).ceil() as usize;
    wanted.clamp(asked, asked * 3)
}

fn figures(turns: &[Turn]) -> Figures {
    (
        least(turns.iter().map(|turn| turn.cpu.as_secs_f64())),
        middle(turns.iter().map(|turn| turn.peak_kib as f64 / 1024.0)),
    )
}

fn install() -> Result<()> {
    let lacking: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, program)| !on_path(program))
        .map(|(package, _)| *package)
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    libraries::install(&lacking)
}
