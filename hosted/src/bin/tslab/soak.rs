//! `tslab soak`: threads that come and go do everything that a heap offers, at random, and the walker looks at the heap
//! between them.
//!
//! In each turn of a second new threads, each with a new local, go on with what those before them left: objects of all
//! sizes, in epochs and without, with handles and without, passed from thread to thread, resized, and freed by whoever
//! has them, while another thread gives memory back and the policy changes. Every object is full of a byte that its
//! owner knows, which is looked at when it ends. Between turns the heap is at rest and is walked.

use anyhow::{Context as _, Result, ensure};
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;
use temporal_slab::config::Checked;
use temporal_slab::{AllocError, Census, Epoch, EpochError, Heap, Local, Policy, RawHandle};
use temporal_slab_hosted::rss::Usage;
use temporal_slab_hosted::{FutexLock, MmapProvider};

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
}

type TheHeap = Heap<MmapProvider, FutexLock, Checked>;
type TheLocal = Local<'static, MmapProvider, FutexLock, Checked>;

static HEAP: TheHeap = Heap::new(MmapProvider::new().without_readings());

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
    let mut csv = options
        .csv
        .as_ref()
        .map(|path| {
            std::fs::File::create(path)
                .with_context(|| format!("{} cannot be written", path.display()))
        })
        .transpose()?;
    let head = [
        "seconds",
        "operations",
        "objects",
        "MiB live",
        "MiB resident",
        "MiB process",
        "mappings",
    ];
    println!("{}", head.map(|name| format!("{name:>13}")).concat());
    if let Some(csv) = &mut csv {
        writeln!(csv, "{}", head.map(|name| name.replace(' ', "_")).join(","))?;
    }
    let begin = Instant::now();
    let end = begin + Duration::from_secs(options.seconds);
    let mut turn = 0;
    while Instant::now() < end {
        let stop = Instant::now() + Duration::from_secs(1).min(end - Instant::now());
        one_turn(options, turn, stop)?;
        turn += 1;
        let census = walk()?;
        let mib = |bytes: usize| format!("{:.1}", bytes as f64 / 1_048_576.0);
        let live = census.live_slot_bytes + census.run_bytes + census.region_bytes;
        let process = Usage::read().map_or(0, |usage| usage.resident_bytes) as usize;
        let row = [
            begin.elapsed().as_secs().to_string(),
            OPERATIONS.load(Ordering::Relaxed).to_string(),
            (census.live_slots + census.runs + census.regions).to_string(),
            mib(live),
            mib(census.resident),
            mib(process),
            mappings().to_string(),
        ];
        println!(
            "{}",
            row.each_ref().map(|value| format!("{value:>13}")).concat()
        );
        if let Some(csv) = &mut csv {
            writeln!(csv, "{}", row.join(","))?;
        }
    }
    let left = core::mem::take(&mut *lock(&LEFT));
    for object in left {
        finish(object, |object, layout| {
            // SAFETY: it is live, and freed once.
            unsafe { HEAP.free(object, layout) }
        })?;
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
        "{} operations in {turn} turns; every rule held, and at the end nothing was left",
        OPERATIONS.load(Ordering::Relaxed)
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
                scope.spawn(move || worker(Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)), stop))
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
            2 => HEAP.set_policy(Policy::Eager),
            3 => HEAP.set_policy(Policy::Never),
            4 => HEAP.set_policy(Policy::OnClose),
            5 => HEAP.set_policy(Policy::Warm {
                bytes: rng.below(32 << 20),
            }),
            _ => HEAP.set_policy(Policy::Batched {
                bytes: rng.below(32 << 20),
            }),
        }
        std::thread::sleep(Duration::from_millis(5 + rng.below(40) as u64));
    }
}

/// Objects that a thread keeps, at most.
const KEPT: usize = 3_000;

fn worker(mut rng: Rng, stop: Instant) -> Result<()> {
    let mut local: TheLocal = HEAP.local()?;
    let mut objects: Vec<Object> = {
        let mut left = lock(&LEFT);
        let count = left.len().min(KEPT);
        let from = left.len() - count;
        left.split_off(from)
    };
    let mut count = 0u64;
    while Instant::now() < stop {
        for _ in 0..200 {
            step(&mut rng, &mut local, &mut objects)?;
            count += 1;
        }
    }
    lock(&LEFT).append(&mut objects);
    OPERATIONS.fetch_add(count, Ordering::Relaxed);
    Ok(())
}

fn step(rng: &mut Rng, local: &mut TheLocal, objects: &mut Vec<Object>) -> Result<()> {
    match rng.below(1000) {
        0..480 if objects.len() < KEPT => allocate(rng, local, objects)?,
        480..500 => pass(rng, objects),
        500..530 if !objects.is_empty() => resize(rng, local, objects)?,
        530..534 => epochs(rng, local)?,
        534..536 => local.flush(),
        _ if !objects.is_empty() => {
            let object = objects.swap_remove(rng.below(objects.len()));
            if rng.below(6) == 0 {
                // SAFETY: it is live, and freed once.
                finish(object, |object, layout| unsafe {
                    HEAP.free(object, layout)
                })?;
            } else {
                // SAFETY: as above.
                finish(object, |object, layout| unsafe {
                    local.free(object, layout)
                })?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn size(rng: &mut Rng) -> usize {
    match rng.below(1000) {
        0..850 => 1 + rng.below(600),
        850..980 => 1 + rng.below(8_000),
        980..999 => 1 + rng.below(100_000),
        _ => 1 + rng.below(3 << 20),
    }
}

fn allocate(rng: &mut Rng, local: &mut TheLocal, objects: &mut Vec<Object>) -> Result<()> {
    let align = 1 << [0, 3, 3, 4, 6, 12][rng.below(6)];
    let layout = Layout::from_size_align(size(rng), align)?;
    let byte = rng.below(256) as u8;
    let epoch = {
        let epochs = lock(&EPOCHS);
        (!epochs.is_empty() && rng.below(2) == 0).then(|| epochs[rng.below(epochs.len())])
    };
    let kind = rng.below(8);
    let named = kind == 0 && HEAP.class_of(layout).is_some();
    let (at, handle) = if named {
        let handle = match epoch {
            Some(epoch) => local.alloc_handle_in(epoch, layout),
            None => local.alloc_handle(layout),
        };
        match handle {
            Ok(handle) => (
                HEAP.get_raw(handle).context("a new handle is refused")?,
                Some(handle),
            ),
            Err(AllocError::EpochClosed | AllocError::TooLarge) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    } else {
        let object = match (epoch, kind) {
            (Some(epoch), 1) => HEAP.alloc_in(epoch, layout),
            (Some(epoch), _) => local.alloc_in(epoch, layout),
            (None, 1) => HEAP.alloc(layout),
            (None, 2) => zeroed(local, layout)?,
            (None, _) => local.alloc(layout),
        };
        match object {
            Ok(object) => (object, None),
            Err(AllocError::EpochClosed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    };
    ensure!(
        at.addr().get().is_multiple_of(align),
        "an object is not aligned to {align}"
    );
    // SAFETY: the object is ours and this long.
    unsafe { at.write_bytes(byte, layout.size()) };
    objects.push(Object {
        at,
        layout,
        byte,
        handle,
    });
    Ok(())
}

fn zeroed(local: &mut TheLocal, layout: Layout) -> Result<Result<NonNull<u8>, AllocError>> {
    let object = local.alloc_zeroed(layout);
    if let Ok(object) = object {
        ensure!(
            is_full_of(object, layout.size(), 0),
            "zeroed memory is not zero"
        );
    }
    Ok(object)
}

fn is_full_of(object: NonNull<u8>, size: usize, byte: u8) -> bool {
    // SAFETY: called with live objects of this size that were written or are zeroed.
    let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), size) };
    bytes.iter().all(|found| *found == byte)
}

/// Leaves objects to others, and takes some of theirs.
fn pass(rng: &mut Rng, objects: &mut Vec<Object>) {
    let mut left = lock(&LEFT);
    let count = rng.below(60).min(objects.len());
    let from = objects.len() - count;
    left.extend(objects.drain(from..));
    let count = rng.below(60).min(left.len());
    // The oldest, so that objects go round.
    objects.extend(left.drain(..count));
}

fn resize(rng: &mut Rng, local: &mut TheLocal, objects: &mut [Object]) -> Result<()> {
    let number = rng.below(objects.len());
    let object = &mut objects[number];
    if object.handle.is_some() {
        return Ok(());
    }
    let new = Layout::from_size_align(size(rng), object.layout.align())?;
    // SAFETY: the object is live and of this layout, and only its new place is used from here on.
    object.at = unsafe { local.resize(object.at, object.layout, new) }?;
    let kept = new.size().min(object.layout.size());
    ensure!(
        is_full_of(object.at, kept, object.byte),
        "a resize lost bytes"
    );
    // SAFETY: the object is ours and this long.
    unsafe { object.at.write_bytes(object.byte, new.size()) };
    object.layout = new;
    Ok(())
}

/// Opens one, or closes one.
fn epochs(rng: &mut Rng, local: &mut TheLocal) -> Result<()> {
    let mut epochs = lock(&EPOCHS);
    if epochs.len() < 12 && rng.below(2) == 0 {
        match HEAP.open_epoch() {
            Ok(epoch) => epochs.push(epoch),
            // Objects of closed ones live on somewhere.
            Err(EpochError::RingFull) => {}
            Err(error) => return Err(error.into()),
        }
    } else if !epochs.is_empty() {
        let number = rng.below(epochs.len());
        let epoch = epochs.swap_remove(number);
        drop(epochs);
        if rng.below(2) == 0 {
            local.leave(epoch);
        }
        HEAP.close(epoch)?;
    }
    Ok(())
}

/// Looks whether an object is as it was left, and ends it.
fn finish(
    object: Object,
    free: impl FnOnce(NonNull<u8>, Layout) -> Result<(), temporal_slab::FreeError>,
) -> Result<()> {
    ensure!(
        is_full_of(object.at, object.layout.size(), object.byte),
        "somebody wrote to {object:?}"
    );
    match object.handle {
        Some(handle) => {
            ensure!(
                HEAP.get_raw(handle) == Some(object.at),
                "a live handle is refused"
            );
            HEAP.free_raw(handle)?;
            ensure!(HEAP.get_raw(handle).is_none(), "a dead handle is accepted");
        }
        None => free(object.at, object.layout)?,
    }
    Ok(())
}
