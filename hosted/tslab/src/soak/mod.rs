//! `tslab soak`: threads that come and go do everything that a heap offers, at random, and the walker looks at the heap
//! between them.
//!
//! In each turn of a second new threads, each with a new local, go on with what those before them left: objects of all
//! sizes, in epochs and without, with handles and without, passed from thread to thread, resized, and freed by whoever
//! has them, while another thread gives memory back and the policy changes, some allocations are timed, and the system
//! refuses one call in fifty. The heap checks, wipes and shuffles. Every object is full of a byte that its owner knows,
//! which is looked at when it ends. Between turns the heap is at rest and is walked.

mod fickle;
mod track;
mod worker;

use anyhow::{Context as _, Result, ensure};
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;
use temporal_slab::config::Config;
use temporal_slab::{Census, Epoch, Heap, Local, Policy, RawHandle};
use temporal_slab_hosted::rss::Usage;
use temporal_slab_hosted::{FutexLock, MmapProvider};
use temporal_slab_report::Latency;

use fickle::Fickle;
use track::{Row, Track};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// For how long.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Threads at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Another one makes other choices; which thread comes first is the system's.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write a line for each turn, for a spreadsheet.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Where to write a page with a picture of each column.
    #[arg(long)]
    html: Option<PathBuf>,
}

/// Everything that a heap can be asked to do besides.
#[derive(Debug)]
struct Everything;
impl Config for Everything {
    type Provider = Fickle;
    type Lock = FutexLock;
    const CHECKED: bool = true;
    const ZERO_ON_FREE: bool = true;
    const SHUFFLED: bool = true;
}

type TheHeap = Heap<Everything>;
type TheLocal = Local<'static, Everything>;

static HEAP: TheHeap = Heap::new(Fickle::new(MmapProvider::new().without_readings()));

static LATENCY: Latency = Latency::new();

/// What threads leave to each other, and the epochs that are open.
static LEFT: Mutex<Vec<Object>> = Mutex::new(Vec::new());
static EPOCHS: Mutex<Vec<Epoch>> = Mutex::new(Vec::new());
static OPERATIONS: AtomicU64 = AtomicU64::new(0);

/// A live object.
#[derive(Debug)]
struct Object {
    at: NonNull<u8>,
    layout: Layout,
    /// What it is full of.
    byte: u8,
    handle: Option<RawHandle>,
}

// SAFETY: whoever has it is the only one who uses the object, and any thread may free it.
unsafe impl Send for Object {}

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * bound as u64) >> 32) as usize
    }
}

/// Runs it. Fails if a rule is broken.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut track = Track::begin(options.csv.as_deref())?;
    let begin = Instant::now();
    let end = begin + Duration::from_secs(options.seconds);
    let mut turn = 0;
    while Instant::now() < end {
        let stop = Instant::now() + Duration::from_secs(1).min(end - Instant::now());
        one_turn(options, turn, stop)?;
        turn += 1;
        let census = walk()?;
        track.add(Row {
            seconds: begin.elapsed().as_secs_f64(),
            operations: OPERATIONS.load(Ordering::Relaxed),
            objects: census.live_slots + census.runs + census.regions,
            live: census.live_slot_bytes + census.run_bytes + census.region_bytes,
            resident: census.resident,
            metadata: usize::try_from(HEAP.stats().residency.metadata)?,
            process: Usage::read().map_or(0, |usage| usage.resident_bytes) as usize,
            mappings: mappings(),
        })?;
    }
    if let Some(path) = &options.html {
        std::fs::write(path, track.page()?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    track.judge()?;
    let left = core::mem::take(&mut *lock(&LEFT));
    for object in left {
        worker::end(object)?;
    }
    for epoch in core::mem::take(&mut *lock(&EPOCHS)) {
        HEAP.close(epoch)?;
    }
    HEAP.reclaim();
    let census = walk()?;
    ensure!(
        census.slabs + census.runs + census.regions == 0,
        "everything was freed, and this is left: {census:?}"
    );
    println!(
        "{} operations in {turn} turns, {} calls refused; every rule held, and at the end nothing was left",
        OPERATIONS.load(Ordering::Relaxed),
        HEAP.provider().refused()
    );
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn walk() -> Result<Census> {
    // SAFETY: all threads have ended, and their locals with them.
    unsafe { HEAP.walk() }.context("the heap is broken")
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count())
}

fn one_turn(options: &Options, turn: u64, stop: Instant) -> Result<()> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads)
            .map(|number| {
                let seed = options.seed ^ (turn << 16) ^ u64::from(number) << 1 | 1;
                scope
                    .spawn(move || worker::run(Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)), stop))
            })
            .collect();
        let over = &over;
        let reclaimer = scope.spawn(move || reclaimer(Rng(options.seed ^ turn | 1), over));
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        over.store(true, Ordering::Relaxed);
        let reclaimed = reclaimer.join();
        for result in results {
            result.map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        ensure!(reclaimed.is_ok(), "the reclaimer panicked");
        Ok(())
    })
}

/// Gives memory back, and changes what is given back without it.
fn reclaimer(mut rng: Rng, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        match rng.below(8) {
            0 => HEAP.reclaim(),
            1 => HEAP.reclaim_to(rng.below(64 << 20)),
            2 => HEAP.set_policy(Policy::EAGER),
            3 => HEAP.set_policy(Policy::NEVER),
            4 => HEAP.set_policy(Policy::ON_CLOSE),
            5 => HEAP.set_policy(Policy::proportional(rng.below(32 << 20))),
            _ => HEAP.set_policy(Policy::keeping(rng.below(32 << 20))),
        }
        std::thread::sleep(Duration::from_millis(5 + rng.below(40) as u64));
    }
}
