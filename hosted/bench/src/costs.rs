//! What the things cost that only this allocator has, and what they are worth: handles beside pointers, closes beside
//! what they give back, policies beside what stays resident, and scopes beside `bumpalo`.

use super::contender::{Ours, failed};
use super::context::Context;
use super::results::Measured;
use bumpalo::Bump;
use core::alloc::{GlobalAlloc, Layout};
use core::hint::black_box;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use mimalloc::MiMalloc;
use std::time::Instant;
use temporal_slab::config::Unchecked;
use temporal_slab::{Heap, Local, Policy, Scope};
use temporal_slab_hosted::MmapProvider;

type TheLocal = Local<'static, Unchecked<MmapProvider>>;
type TheScope = Scope<'static, Unchecked<MmapProvider>>;

const LAYOUT: Layout = match Layout::from_size_align(128, 8) {
    Ok(layout) => layout,
    Err(_) => panic!("a small size"),
};

static HANDLES: Ours<MmapProvider> = Heap::new(MmapProvider::new());
static SCOPES: Ours<MmapProvider> = Heap::new(MmapProvider::new());

/// Slabs' worth of bytes that a closed epoch had.
const CLOSED: [usize; 3] = [64 << 10, 1 << 20, 16 << 20];

const POLICIES: [(&str, Policy); 4] = [
    ("ours-eager", Policy::EAGER),
    ("ours", Policy::keeping(1 << 20)),
    ("ours-on-close", Policy::ON_CLOSE),
    ("ours-never", Policy::NEVER),
];

pub(super) fn variants() -> Vec<(&'static str, Vec<String>)> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let closes = CLOSED.iter().flat_map(|bytes| {
        let name = close_name(*bytes);
        ["time", "kept"].map(|figure| format!("{name}/{figure}"))
    });
    vec![
        ("handles", names(&["alloc-free", "get"])),
        (
            "scopes",
            names(&["1000-objects", "1000-objects-dropped", "empty"]),
        ),
        ("close", closes.collect()),
        ("policies", names(&["batches/time", "batches/resident"])),
    ]
}

pub(super) fn run(context: &mut Context<'_>) {
    handles(context);
    scopes(context);
    for bytes in CLOSED {
        close(context, bytes);
    }
    policies(context);
}

fn close_name(bytes: usize) -> String {
    match bytes >> 20 {
        0 => format!("{}-KiB", bytes >> 10),
        mib => format!("{mib}-MiB"),
    }
}

/// Measures contenders in turns: each is a closure that does something so many times and says what that took.
pub(super) type Turn<'t> = (&'static str, bool, Box<dyn FnMut(u32) -> Duration + 't>);

pub(super) fn in_turns(
    context: &mut Context<'_>,
    workload: &str,
    variant: &str,
    turns: &mut [Turn<'_>],
) {
    if !context.wants(workload, variant) {
        return;
    }
    context.begin(workload, variant);
    let mut all: Vec<(u32, Vec<f64>)> = turns
        .iter_mut()
        .map(|(_, _, turn)| {
            let mut count = 16;
            let mut time = turn(count);
            while time < context.slice / 16 {
                count *= 2;
                time = turn(count);
            }
            let scale = context.slice.as_secs_f64() / time.as_secs_f64();
            (((f64::from(count) * scale) as u32).max(1), Vec::new())
        })
        .collect();
    for round in 0..context.rounds {
        for step in 0..turns.len() {
            let place = (round + step) % turns.len();
            let (count, rounds) = &mut all[place];
            let time = (turns[place].2)(*count);
            rounds.push(time.as_nanos() as f64 / f64::from(*count));
        }
    }
    let measured: Vec<Measured> = turns
        .iter()
        .zip(all)
        .map(|((contender, is_ours, _), (_, rounds))| Measured {
            contender,
            is_ours: *is_ours,
            rounds,
        })
        .collect();
    context.results.add(workload, variant, "ns", &measured);
}

/// Does it so many times.
pub(super) fn times(count: u32, mut work: impl FnMut()) -> Duration {
    let begin = Instant::now();
    for _ in 0..count {
        work();
    }
    begin.elapsed()
}

fn local(heap: &'static Ours<MmapProvider>) -> TheLocal {
    let local = heap.local();
    local.unwrap_or_else(|error| failed(&format!("no local for the heap: {error}")))
}

/// An object, written to.
fn make(local: &mut TheLocal) -> NonNull<u8> {
    let object = local.alloc(LAYOUT);
    let object = object.unwrap_or_else(|_| failed("ours has no memory"));
    // SAFETY: the object is ours and this long.
    unsafe { object.cast::<u64>().write(1) };
    black_box(object)
}

fn free(local: &mut TheLocal, object: NonNull<u8>) {
    // SAFETY: only called with what `make` gave, once each.
    if unsafe { local.free(object, LAYOUT) }.is_err() {
        failed("ours refused a free");
    }
}

/// The one atomic exchange that a free of a handle cannot do without: of two threads that free it one must lose.
fn exchange(word: &AtomicU64) {
    let seen = word.load(Ordering::Relaxed);
    let next = seen.wrapping_add(1);
    let _won = word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed);
}

fn handles(context: &mut Context<'_>) {
    let (mut pointers, mut handles) = (local(&HANDLES), local(&HANDLES));
    let mut exchanging = local(&HANDLES);
    let word = AtomicU64::new(0);
    let kept = handles.alloc_raw(LAYOUT);
    let kept = kept.unwrap_or_else(|_| failed("ours has no memory"));
    let object = make(&mut pointers);
    let mut pairs: [Turn<'_>; 4] = [
        (
            "ours-handle",
            true,
            Box::new(|count| {
                times(count, || {
                    let handle = handles.alloc_raw(LAYOUT);
                    let handle = black_box(handle.unwrap_or_else(|_| failed("ours has no memory")));
                    if let Some(object) = handles.heap().get_raw(handle) {
                        // SAFETY: the object is ours and this long.
                        unsafe { object.cast::<u64>().write(1) };
                    }
                    if handles.free_raw(black_box(handle)).is_err() {
                        failed("ours refused a handle");
                    }
                })
            }),
        ),
        (
            "pointer",
            false,
            Box::new(|count| {
                times(count, || {
                    let object = make(&mut pointers);
                    free(&mut pointers, object);
                })
            }),
        ),
        // What the machine asks for the exchange, and the least that it leaves possible.
        (
            "exchange",
            true,
            Box::new(|count| times(count, || exchange(&word))),
        ),
        (
            "pointer-exchange",
            true,
            Box::new(|count| {
                times(count, || {
                    let object = make(&mut exchanging);
                    free(&mut exchanging, object);
                    exchange(&word);
                })
            }),
        ),
    ];
    in_turns(context, "handles", "alloc-free", &mut pairs);
    drop(pairs);
    let mut gets: [Turn<'_>; 2] = [
        (
            "ours-handle",
            true,
            Box::new(|count| {
                times(count, || {
                    black_box(HANDLES.get_raw(black_box(kept)));
                })
            }),
        ),
        (
            "pointer",
            false,
            Box::new(|count| {
                times(count, || {
                    // SAFETY: the object lives and was written.
                    black_box(unsafe { black_box(object).cast::<u64>().read_volatile() });
                })
            }),
        ),
    ];
    in_turns(context, "handles", "get", &mut gets);
    drop(gets);
    free(&mut pointers, object);
    let _freed = handles.free_raw(kept);
}

/// 8 to 127 bytes, in an order that nobody foresees.
fn layouts() -> Vec<Layout> {
    let mut seed = 3u64;
    let size = |_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        8 + (seed >> 33) as usize % 120
    };
    let sizes = (0..1000).map(size);
    sizes
        .filter_map(|size| Layout::from_size_align(size, 8).ok())
        .collect()
}

fn touch(object: NonNull<u8>) {
    // SAFETY: every object of a scope here has at least 8 bytes, aligned to 8, and is ours.
    unsafe { object.cast::<u64>().write(1) };
    black_box(object);
}

fn fill_scope(scope: &TheScope, layouts: &[Layout]) {
    for layout in layouts {
        let object = scope.alloc_layout(*layout);
        touch(object.unwrap_or_else(|_| failed("ours has no memory")));
    }
}

fn fill_bump(bump: &Bump, layouts: &[Layout]) {
    for layout in layouts {
        touch(bump.alloc_layout(*layout));
    }
}

/// What has no scopes frees one by one.
fn mimalloc(layouts: &[Layout]) -> Turn<'_> {
    let mut objects = Vec::with_capacity(layouts.len());
    let turn = move |count| {
        times(count, || {
            for layout in layouts {
                // SAFETY: the size is not zero.
                let object = NonNull::new(unsafe { MiMalloc.alloc(*layout) });
                let object = object.unwrap_or_else(|| failed("mimalloc has no memory"));
                touch(object);
                objects.push((object, *layout));
            }
            for (object, layout) in objects.drain(..) {
                // SAFETY: just allocated, freed once.
                unsafe { MiMalloc.dealloc(object.as_ptr(), layout) };
            }
        })
    };
    ("mimalloc", false, Box::new(turn))
}

/// A thousand objects in one scope that is reset, and in a new one each time that is dropped; and one with nothing in it.
fn scopes(context: &mut Context<'_>) {
    let layouts = &layouts()[..];
    let mut scope = Scope::new(&SCOPES);
    let mut bump = Bump::new();
    let ours = |count| {
        times(count, || {
            fill_scope(&scope, layouts);
            scope.reset();
        })
    };
    let theirs = |count| {
        times(count, || {
            fill_bump(&bump, layouts);
            bump.reset();
        })
    };
    let mut turns: [Turn<'_>; 3] = [
        ("ours-scope", true, Box::new(ours)),
        ("bumpalo", false, Box::new(theirs)),
        mimalloc(layouts),
    ];
    in_turns(context, "scopes", "1000-objects", &mut turns);
    let ours = |count| times(count, || fill_scope(&Scope::new(&SCOPES), layouts));
    let theirs = |count| times(count, || fill_bump(&Bump::new(), layouts));
    let mut turns: [Turn<'_>; 3] = [
        ("ours-scope", true, Box::new(ours)),
        ("bumpalo", false, Box::new(theirs)),
        mimalloc(layouts),
    ];
    in_turns(context, "scopes", "1000-objects-dropped", &mut turns);
    let empty = |count| times(count, || drop(black_box(Scope::new(&SCOPES))));
    let mut turns: [Turn<'_>; 1] = [("ours-scope", true, Box::new(empty))];
    in_turns(context, "scopes", "empty", &mut turns);
}

/// Closes an epoch whose objects, of so many bytes, are all freed: what the close takes, and what is resident then.
fn close(context: &mut Context<'_>, bytes: usize) {
    let name = close_name(bytes);
    let variants = ["time", "kept"].map(|figure| format!("{name}/{figure}"));
    if !variants
        .iter()
        .any(|variant| context.wants("close", variant))
    {
        return;
    }
    context.begin("close", &name);
    let mut found = vec![(Vec::new(), Vec::new()); POLICIES.len()];
    let heaps = POLICIES.map(|_| Heap::<Unchecked<_>>::new(MmapProvider::new().without_readings()));
    for round in 0..context.rounds {
        for step in 0..POLICIES.len() {
            let place = (round + step) % POLICIES.len();
            let heap = &heaps[place];
            heap.set_policy(POLICIES[place].1);
            let (time, kept) = closed(heap, bytes);
            found[place].0.push(time.as_nanos() as f64);
            found[place].1.push(kept as f64 / 1024.0);
        }
    }
    let (times, kept): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    add(context, "close", &variants[0], "ns", times);
    add(context, "close", &variants[1], "KiB", kept);
}

type PlainHeap = Heap<Unchecked<MmapProvider>>;

fn closed(heap: &PlainHeap, bytes: usize) -> (Duration, u64) {
    let local = heap.local();
    let mut local = local.unwrap_or_else(|_| failed("ours has no memory"));
    let epoch = heap.open_epoch();
    let epoch = epoch.unwrap_or_else(|error| failed(&format!("no epoch: {error}")));
    let objects: Vec<NonNull<u8>> = (0..bytes / LAYOUT.size())
        .map(|_| {
            let object = local.alloc_in(epoch, LAYOUT);
            let object = object.unwrap_or_else(|_| failed("ours has no memory"));
            // SAFETY: the object is ours and this long.
            unsafe { object.write_bytes(1, LAYOUT.size()) };
            object
        })
        .collect();
    for object in objects {
        // SAFETY: each is live, and freed once.
        if unsafe { local.free(object, LAYOUT) }.is_err() {
            failed("ours refused a free");
        }
    }
    let begin = Instant::now();
    local.leave(epoch);
    if heap.close(epoch).is_err() {
        failed("an open epoch was not closed");
    }
    (begin.elapsed(), heap.page_stats().resident)
}

/// Batches of 10,000 objects, each allocated, written and freed: the time, and what is resident between them.
fn policies(context: &mut Context<'_>) {
    const BATCH: usize = 10_000;
    let variants = ["batches/time", "batches/resident"];
    if !variants
        .iter()
        .any(|variant| context.wants("policies", variant))
    {
        return;
    }
    context.begin("policies", "batches");
    let heaps = POLICIES.map(|_| PlainHeap::new(MmapProvider::new()));
    let mut found = vec![(Vec::new(), Vec::new()); POLICIES.len()];
    let mut objects = Vec::with_capacity(BATCH);
    for round in 0..context.rounds {
        for step in 0..POLICIES.len() {
            let place = (round + step) % POLICIES.len();
            let heap = &heaps[place];
            heap.set_policy(POLICIES[place].1);
            let local = heap.local();
            let mut local = local.unwrap_or_else(|_| failed("ours has no memory"));
            let (mut time, mut resident) = (Duration::ZERO, 0u64);
            const BATCHES: u32 = 10;
            for _ in 0..BATCHES {
                let begin = Instant::now();
                for _ in 0..BATCH {
                    let object = local.alloc(LAYOUT);
                    let object = object.unwrap_or_else(|_| failed("ours has no memory"));
                    // SAFETY: the object is ours and this long.
                    unsafe { object.write_bytes(1, LAYOUT.size()) };
                    objects.push(object);
                }
                for object in objects.drain(..) {
                    // SAFETY: each is live, and freed once.
                    if unsafe { local.free(object, LAYOUT) }.is_err() {
                        failed("ours refused a free");
                    }
                }
                time += begin.elapsed();
                resident += heap.page_stats().resident;
            }
            found[place]
                .0
                .push(time.as_nanos() as f64 / f64::from(BATCHES) / BATCH as f64);
            found[place]
                .1
                .push(resident as f64 / f64::from(BATCHES) / 1024.0);
        }
    }
    let (times, resident): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    add(context, "policies", variants[0], "ns", times);
    add(context, "policies", variants[1], "KiB", resident);
}

/// Takes in a figure of each policy.
fn add(context: &mut Context<'_>, workload: &str, variant: &str, unit: &str, found: Vec<Vec<f64>>) {
    if !context.wants(workload, variant) {
        return;
    }
    let all: Vec<Measured> = POLICIES
        .iter()
        .zip(found)
        .map(|((contender, _), rounds)| Measured {
            contender,
            is_ours: true,
            rounds,
        })
        .collect();
    context.results.add(workload, variant, unit, &all);
}
