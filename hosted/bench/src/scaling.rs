//! Scaling: any of a thousand live objects is freed and another one allocated, by 1 to 16 threads at once.
//!
//! Told are the time for each operation of all threads together, which falls as long as threads do not stand in each
//! other's way; the 99th percentile of single operations, one in 64 of which is timed; and of ours how many atomic
//! read-modify-writes there were on lines that threads share, which is what does not scale.

use super::clock::{Clock, now};
use super::contender::{Contender, Kind, Visitor};
use super::context::Context;
use super::results::{Measured, quantile};
use core::alloc::Layout;
use core::hint::black_box;
use core::ptr::NonNull;
use core::time::Duration;
use std::sync::Barrier;
use std::time::Instant;
use temporal_slab_page::Series;

/// Live objects of each thread.
const LIVE: usize = 1_000;
/// One in so many operations is timed.
const TIMED: usize = 64;

pub(super) fn variants(threads: &[usize]) -> Vec<String> {
    let of = |threads: &usize| {
        ["time", "p99", "shared-writes"].map(|what| format!("{threads}-threads/{what}"))
    };
    threads.iter().flat_map(of).collect()
}

pub(super) fn run(context: &mut Context<'_>) {
    let kinds: Vec<Kind> = Kind::all(&context.peers)
        .into_iter()
        .filter(|kind| {
            !matches!(
                kind,
                Kind::OursOnClose | Kind::OursHuge | Kind::OursChecked | Kind::OursHardened
            )
        })
        .collect();
    let clock = Clock::read();
    let mut medians: Vec<Vec<(f64, f64)>> = vec![Vec::new(); kinds.len()];
    for threads in context.options.scaling_threads() {
        let name = |what: &str| format!("{threads}-threads/{what}");
        let all = ["time", "p99", "shared-writes"].map(name);
        if !all.iter().any(|variant| context.wants("scaling", variant)) {
            continue;
        }
        context.begin("scaling", &format!("{threads}-threads"));
        let found = turns(context, &kinds, threads, clock);
        let measured = |figure: fn(&Turn) -> f64| -> Vec<Measured> {
            let rows = kinds.iter().zip(&found);
            rows.map(|(kind, turns)| Measured {
                contender: kind.name(),
                is_ours: kind.is_ours(),
                rounds: turns.iter().map(figure).collect(),
            })
            .collect()
        };
        let times = measured(|turn| turn.ns);
        for (medians, times) in medians.iter_mut().zip(&times) {
            medians.push((threads as f64, times.median()));
        }
        let writes: Vec<Measured> = measured(|turn| turn.shared_writes)
            .into_iter()
            .filter(|measured| measured.is_ours)
            .collect();
        context.results.add("scaling", &all[0], "ns", &times);
        context
            .results
            .add("scaling", &all[1], "ns", &measured(|turn| turn.p99));
        context.results.add("scaling", &all[2], "for each", &writes);
    }
    for (kind, points) in kinds.iter().zip(medians) {
        if points.len() > 1 {
            context.results.series.push(Series {
                workload: "scaling".to_owned(),
                variant: "operations".to_owned(),
                contender: kind.name().to_owned(),
                x: "threads".to_owned(),
                y: "millions of operations in a second".to_owned(),
                points: points
                    .into_iter()
                    .map(|(threads, ns)| (threads, 1e3 / ns))
                    .collect(),
            });
        }
    }
}

fn turns(context: &Context<'_>, kinds: &[Kind], threads: usize, clock: Clock) -> Vec<Vec<Turn>> {
    let counts: Vec<usize> = kinds
        .iter()
        .map(|kind| {
            let turn = kind.visit(One {
                kind: *kind,
                threads,
                count: 20_000,
                clock,
            });
            let operations = context.slice.as_nanos() as f64 / turn.ns / threads as f64;
            // As many as take about so long, and enough of them to have a 99th percentile.
            (operations as usize).max(20_000)
        })
        .collect();
    let mut found: Vec<Vec<Turn>> = vec![Vec::new(); kinds.len()];
    for round in 0..context.rounds {
        for step in 0..kinds.len() {
            let place = (round + step) % kinds.len();
            let (kind, count) = (kinds[place], counts[place]);
            found[place].push(kind.visit(One {
                kind,
                threads,
                count,
                clock,
            }));
        }
    }
    found
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    /// For each operation of all threads together.
    ns: f64,
    p99: f64,
    /// On lines that threads share, for each operation.
    shared_writes: f64,
}

/// A turn of one contender.
struct One {
    kind: Kind,
    threads: usize,
    /// Operations of each thread.
    count: usize,
    clock: Clock,
}

impl Visitor for One {
    type Out = Turn;

    fn visit<C: Contender>(self, make: fn() -> C) -> Turn {
        let gate = Barrier::new(self.threads + 1);
        let before = shared_writes(self.kind);
        let (elapsed, mut ticks) = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads)
                .map(|number| {
                    let gate = &gate;
                    let count = self.count;
                    scope.spawn(move || worker(make(), number, count, gate))
                })
                .collect();
            gate.wait();
            let ended: Vec<Ended> = workers
                .into_iter()
                .map(|worker| worker.join().expect("a worker does not panic"))
                .collect();
            // By their own clocks: where there are fewer CPUs than threads this one is woken when it is too late.
            let begin = ended.iter().map(|worker| worker.begin).min();
            let end = ended.iter().map(|worker| worker.end).max();
            let elapsed = begin
                .zip(end)
                .map_or(Duration::ZERO, |(begin, end)| end - begin);
            let ticks: Vec<u64> = ended.into_iter().flat_map(|worker| worker.ticks).collect();
            (elapsed, ticks)
        });
        ticks.sort_unstable();
        let all = (self.threads * self.count) as f64;
        let times: Vec<f64> = ticks
            .iter()
            .map(|ticks| *ticks as f64 * self.clock.scale)
            .collect();
        // On the shared path each allocation takes its bit by one, and each free puts it back by one.
        let bits = if self.kind == Kind::Shared { 2.0 } else { 0.0 };
        Turn {
            ns: elapsed.as_nanos() as f64 / all,
            p99: quantile(&times, 0.99),
            shared_writes: (shared_writes(self.kind) - before) as f64 / all + bits,
        }
    }
}

/// Atomic read-modify-writes on lines that threads share, so far: words that locals took and gave, takes that found
/// their bit gone, and locks, each taken by one and given up by one.
fn shared_writes(kind: Kind) -> u64 {
    kind.stats().map_or(0, |stats| {
        stats.slow.words_taken
            + stats.slow.words_given
            + stats.shared.retries
            + 2 * stats.locks.all().taken
    })
}

/// What a worker has to tell.
struct Ended {
    /// Of the operations that were timed.
    ticks: Vec<u64>,
    begin: Instant,
    end: Instant,
}

#[inline(never)]
fn worker<C: Contender>(mut contender: C, number: usize, count: usize, gate: &Barrier) -> Ended {
    let layout = |draw: u64| {
        let size = 16 + (draw >> 48) as usize % 240;
        Layout::from_size_align(size, 8).unwrap_or(Layout::new::<u64>())
    };
    let mut draw = number as u64 + 1;
    let mut next = move || {
        draw = draw
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        draw
    };
    let make = |contender: &mut C, draw: u64| {
        let object = contender.alloc(layout(draw));
        // SAFETY: an object has at least 16 bytes and is aligned to 8.
        unsafe { object.cast::<u64>().write(1) };
        (black_box(object), layout(draw))
    };
    let mut objects: Vec<(NonNull<u8>, Layout)> =
        (0..LIVE).map(|_| make(&mut contender, next())).collect();
    let mut ticks = Vec::with_capacity(count / TIMED + 1);
    gate.wait();
    let begin = Instant::now();
    for number in 0..count {
        let draw = next();
        let place = &mut objects[(draw >> 33) as usize % LIVE];
        let before = if number % TIMED == 0 { now() } else { 0 };
        // SAFETY: what is in a place is live, and is replaced at once.
        unsafe { contender.free(place.0, place.1) };
        *place = make(&mut contender, draw);
        if before != 0 {
            ticks.push(now() - before);
        }
    }
    let end = Instant::now();
    for (object, layout) in objects {
        // SAFETY: each is live, and freed once.
        unsafe { contender.free(object, layout) };
    }
    Ended { ticks, begin, end }
}
