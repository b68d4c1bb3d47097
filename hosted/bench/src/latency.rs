//! The tail: 1,000,000 allocations of 128 bytes and then their frees, each timed by itself.
//!
//! Cold is an allocator that nothing was taken from in its process, warm one that the same was done with before. With
//! `touch` the first write to the object is in the time. What reading the clock costs is in every figure, and told.
//!
//! Every sample over ten medians is put under a cause that was counted: of the local's counters, of the heap's, of the
//! system's; of a peer, of the system's alone. A cause that brings others (a new slab that needed a new chunk) is named
//! by the rarest. What no counter explains is compared with a control, the same loop around nothing: what that sees are
//! interrupts, and a host that runs something else.

use super::child::{self, Work};
use super::clock::{Clock, now};
use super::contender::{Contender, Counted, Kind, Visitor};
use super::context::Context;
use super::results::{Measured, Tail};
use anyhow::{Result, anyhow};
use core::alloc::Layout;
use core::hint::black_box;
use core::ptr::NonNull;
use serde::{Deserialize, Serialize};
use temporal_slab_page::Series;

const LAYOUT: Layout = match Layout::from_size_align(128, 8) {
    Ok(layout) => layout,
    Err(_) => panic!("a small size"),
};

/// Causes, the rarest first.
const CAUSES: [&str; 8] = [
    "descheduled",
    "new chunk",
    "decommit",
    "page fault",
    "new slab",
    "depot visit",
    "refill or spill",
    "no counter",
];

/// What is told of the times.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// All loops of one contender, in a process of which nothing was allocated before.
pub(super) const WORK: Work = Work {
    name: "latency",
    run: |contender, parameters| child::answer(parameters, |asked| part(contender, asked)),
};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Asked {
    count: usize,
    touch: bool,
    /// A loop around nothing.
    control: bool,
}

/// The times of one kind of call.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Times {
    name: String,
    quantiles: [f64; QUANTILES.len()],
    /// Shares of the samples that took longer than so many nanoseconds.
    curve: Vec<(f64, f64)>,
    /// For each cause, how many samples over ten medians had it, and the longest.
    causes: Vec<(String, u64, f64)>,
    /// What reading the clock costs, in nanoseconds.
    clock: f64,
}

pub(super) fn variants() -> Vec<String> {
    let kinds = [
        "cold/alloc",
        "cold/touch",
        "cold/free",
        "warm/alloc",
        "warm/touch",
        "warm/free",
    ];
    let of = |kind: &str| QUANTILES.map(|(name, _)| format!("{kind}/{name}"));
    kinds.into_iter().flat_map(of).collect()
}

pub(super) fn run(context: &mut Context<'_>) -> Result<()> {
    let wanted = variants()
        .iter()
        .any(|variant| context.wants("latency", variant));
    if !wanted {
        return Ok(());
    }
    let kinds: Vec<Kind> = Kind::all(&context.peers)
        .into_iter()
        .filter(|kind| !matches!(kind, Kind::Shared | Kind::OursChecked | Kind::OursHardened))
        .collect();
    let (rounds, count) = if context.options.quick {
        (3, 300_000)
    } else {
        (7, 1_000_000)
    };
    let mut found: Vec<Vec<Times>> = vec![Vec::new(); kinds.len()];
    let mut control = Vec::new();
    context.begin("latency", "");
    for round in 0..rounds {
        for touch in [false, true] {
            for step in 0..kinds.len() {
                let place = (round + step) % kinds.len();
                let asked = Asked {
                    count,
                    touch,
                    control: false,
                };
                let times: Vec<Times> = child::run(&WORK, kinds[place].name(), &asked)?;
                found[place].extend(times);
            }
        }
        let asked = Asked {
            count,
            touch: false,
            control: true,
        };
        control.extend(child::run::<Vec<Times>>(&WORK, "ours", &asked)?);
    }
    context.results.clock_ns = control.first().map(|times| times.clock);
    report(context, &kinds, &found);
    note(context, "control", "control: nothing", &control);
    Ok(())
}

fn report(context: &mut Context<'_>, kinds: &[Kind], found: &[Vec<Times>]) {
    let first = found.first().map_or(&[][..], Vec::as_slice);
    let mut names: Vec<&str> = Vec::new();
    for times in first {
        if !names.contains(&times.name.as_str()) {
            names.push(&times.name);
        }
    }
    for name in names {
        for (index, (quantile, _)) in QUANTILES.iter().enumerate() {
            let rounds = |all: &[Times]| {
                let same = all.iter().filter(|times| times.name == name);
                same.map(|times| times.quantiles[index]).collect()
            };
            let all: Vec<Measured> = kinds
                .iter()
                .zip(found)
                .map(|(kind, all)| Measured {
                    contender: kind.name(),
                    is_ours: kind.is_ours(),
                    rounds: rounds(all),
                })
                .collect();
            let variant = format!("{name}/{quantile}");
            if context.wants("latency", &variant) {
                context.results.add("latency", &variant, "ns", &all);
            }
        }
        for (kind, all) in kinds.iter().zip(found) {
            let same: Vec<Times> = all
                .iter()
                .filter(|times| times.name == name)
                .cloned()
                .collect();
            note(context, kind.name(), name, &same);
        }
    }
}

/// Takes in the curve of the middle round, by its 99.9 %, and the causes of all.
fn note(context: &mut Context<'_>, contender: &str, variant: &str, rounds: &[Times]) {
    let mut sorted: Vec<&Times> = rounds.iter().collect();
    sorted.sort_by(|a, b| a.quantiles[2].total_cmp(&b.quantiles[2]));
    let Some(middle) = sorted.get(sorted.len() / 2) else {
        return;
    };
    context.results.series.push(Series {
        workload: "latency".to_owned(),
        variant: variant.to_owned(),
        contender: contender.to_owned(),
        x: "ns".to_owned(),
        y: "share that took longer".to_owned(),
        points: middle.curve.clone(),
    });
    for name in CAUSES {
        let of_rounds = rounds
            .iter()
            .flat_map(|times| &times.causes)
            .filter(|cause| cause.0 == name);
        let (count, longest_ns) = of_rounds.fold((0, 0.0), |(count, most), cause| {
            (count + cause.1, f64::max(most, cause.2))
        });
        if count > 0 {
            context.results.tails.push(Tail {
                variant: variant.to_owned(),
                contender: contender.to_owned(),
                cause: name.to_owned(),
                count,
                longest_ns,
            });
        }
    }
}

/// In the child.
fn part(contender: &str, asked: Asked) -> Result<Vec<Times>> {
    let kind = Kind::named(contender).ok_or_else(|| anyhow!("{contender} is nobody"))?;
    let clock = Clock::read();
    if asked.control {
        return Ok(vec![control(&asked, clock)]);
    }
    Ok(kind.visit(Loops { asked, clock }))
}

struct Loops {
    asked: Asked,
    clock: Clock,
}

impl Visitor for Loops {
    type Out = Vec<Times>;

    fn visit<C: Contender>(self, make: fn() -> C) -> Vec<Times> {
        let count = self.asked.count;
        let mut objects: Vec<NonNull<u8>> = vec![NonNull::dangling(); count];
        let mut samples = Samples::new(self.clock, count);
        let mut contender = make();
        let mut all = Vec::new();
        for state in ["cold", "warm"] {
            allocate(&mut contender, &mut objects, &mut samples, self.asked.touch);
            let kind = if self.asked.touch { "touch" } else { "alloc" };
            all.push(samples.take(&format!("{state}/{kind}")));
            for object in &objects {
                let before = contender.counted();
                let start = now();
                // SAFETY: each object is live and freed once.
                unsafe { contender.free(*object, LAYOUT) };
                let end = now();
                samples.add(end - start, before, || contender.counted());
            }
            let frees = samples.take(&format!("{state}/free"));
            if !self.asked.touch {
                // Of objects whose memory was touched nothing else is to be said.
                all.push(frees);
            }
        }
        all
    }
}

#[inline(never)]
fn allocate<C: Contender>(
    contender: &mut C,
    objects: &mut [NonNull<u8>],
    samples: &mut Samples,
    touch: bool,
) {
    for place in objects {
        let before = contender.counted();
        let start = now();
        let object = contender.alloc(LAYOUT);
        if touch {
            // SAFETY: the object is ours and this long.
            unsafe { object.cast::<u64>().write(1) };
        }
        let end = now();
        *place = black_box(object);
        samples.add(end - start, before, || contender.counted());
    }
}

fn control(asked: &Asked, clock: Clock) -> Times {
    let mut samples = Samples::new(clock, asked.count);
    for _ in 0..asked.count {
        let start = now();
        let end = now();
        samples.add(end - start, Counted::default(), Counted::default);
    }
    samples.take("control: nothing")
}

/// Page faults of this thread, and times that it was taken off its CPU.
fn system() -> [i64; 2] {
    // SAFETY: the structure is ours, and zero bytes are one.
    let usage = unsafe {
        let mut usage: libc::rusage = core::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    [
        usage.ru_minflt + usage.ru_majflt,
        usage.ru_nivcsw + usage.ru_nvcsw,
    ]
    .map(i64::from)
}

/// Times of one kind of call, and the causes of the long ones.
struct Samples {
    clock: Clock,
    ticks: Vec<u64>,
    long: Vec<(u64, usize)>,
    /// What is long enough to look for a cause, in ticks. Below ten medians, so that none of those is missed.
    look: u64,
    seen: [i64; 2],
}

impl Samples {
    fn new(clock: Clock, count: usize) -> Self {
        let mut ticks = vec![1; count];
        ticks.clear();
        let mut long = vec![(1, 1); count];
        long.clear();
        Self {
            clock,
            ticks,
            long,
            look: clock.least * 4,
            seen: system(),
        }
    }

    #[inline(always)]
    fn add(&mut self, ticks: u64, before: Counted, after: impl FnOnce() -> Counted) {
        self.ticks.push(ticks);
        if ticks > self.look {
            self.look_into(ticks, before, after());
        }
    }

    #[cold]
    #[inline(never)]
    fn look_into(&mut self, ticks: u64, before: Counted, after: Counted) {
        // A fault or a switch takes longer than `look`, so it is of this call, or of this bookkeeping since the last
        // long one.
        let now = system();
        let [faults, switches] = [now[0] - self.seen[0], now[1] - self.seen[1]];
        let (slow, was) = (after.slow, before.slow);
        let cause = if switches > 0 {
            0
        } else if after.committed != before.committed {
            1
        } else if after.decommits != before.decommits {
            2
        } else if faults > 0 {
            3
        } else if slow.new_slabs != was.new_slabs {
            4
        } else if slow.depot_visits != was.depot_visits || slow.words_given != was.words_given {
            5
        } else if slow != was {
            6
        } else {
            7
        };
        self.long.push((ticks, cause));
        self.seen = system();
    }

    /// What was found, and begins anew.
    fn take(&mut self, name: &str) -> Times {
        self.ticks.sort_unstable();
        let scale = self.clock.scale;
        let last = self.ticks.len().saturating_sub(1);
        let at = |part: f64| {
            let index = (last as f64 * part) as usize;
            self.ticks
                .get(index)
                .map_or(0.0, |ticks| *ticks as f64 * scale)
        };
        // Four points for each factor of ten of the share that took longer.
        let steps = (1..=24).map(|step| 10f64.powf(-f64::from(step) / 4.0));
        let shares = core::iter::once(0.9).chain(steps);
        let shares = shares.filter(|share| share * last as f64 >= 1.0);
        let curve = shares.map(|share| (at(1.0 - share), share)).collect();
        let median = at(0.5);
        let causes = CAUSES.iter().enumerate().filter_map(|(number, cause)| {
            let long = self.long.iter().filter(|(_, of)| *of == number);
            let times = long.map(|(ticks, _)| *ticks as f64 * scale);
            let long: Vec<f64> = times.filter(|time| *time > 10.0 * median).collect();
            let longest = long.iter().copied().fold(0.0, f64::max);
            (!long.is_empty()).then(|| ((*cause).to_owned(), long.len() as u64, longest))
        });
        let times = Times {
            name: name.to_owned(),
            quantiles: QUANTILES.map(|(_, part)| at(part)),
            curve,
            causes: causes.collect(),
            clock: self.clock.least as f64 * scale,
        };
        self.ticks.clear();
        self.long.clear();
        self.seen = system();
        times
    }
}
