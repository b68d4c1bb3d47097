//! The micro patterns: who takes part, and measuring them in turns.
//!
//! A machine's speed drifts by more than what allocators differ in, over seconds. So contenders are
//! not measured one after another but in rounds: each has a short turn in each round, the first turn
//! goes round, and what counts is the median over the rounds.

mod kernel;
mod partner;
mod pattern;

use super::contender::{Contender, Kind, Visitor};
use super::context::Context;
use super::results::Measured;
use core::time::Duration;
use pattern::Pattern;
use pattern::{Scratch, Team};

/// A contender whose type is forgotten; it is known again inside [`Runs::run`].
pub(super) struct Entrant {
    name: &'static str,
    is_ours: bool,
    team: Box<dyn Runs>,
}

impl Entrant {
    /// `make` makes the contender for a thread. There is one for each thread, that lasts for the whole run, and so
    /// does what it keeps for later.
    pub(super) fn new<C: Contender>(name: &'static str, is_ours: bool, make: fn() -> C) -> Self {
        let team = Box::new(Team::new(make(), make()));
        Self {
            name,
            is_ours,
            team,
        }
    }
}

impl Visitor for Kind {
    type Out = Entrant;

    fn visit<C: Contender>(self, make: fn() -> C) -> Entrant {
        Entrant::new(self.name(), self.is_ours(), make)
    }
}

trait Runs {
    fn run(&mut self, row: Row, units: u64, scratch: &mut Scratch) -> Duration;
    fn hold(&mut self, row: Row);
    fn let_go(&mut self);
}

impl<C: Contender> Runs for Team<C> {
    fn run(&mut self, row: Row, units: u64, scratch: &mut Scratch) -> Duration {
        Team::run(self, row.pattern, row.size, units, scratch)
    }

    fn hold(&mut self, row: Row) {
        Team::hold(self, row.size);
    }

    fn let_go(&mut self) {
        Team::let_go(self);
    }
}

/// Whether a contender has a figure in a row.
fn takes_part(entrant: &Entrant, row: Row) -> bool {
    match entrant.name {
        // Nothing is given back in the other patterns.
        "ours-on-close" => row.pattern == Pattern::FreeMillion,
        "ours-shared" => !row.pattern.is_threaded(),
        // One size tells what they cost.
        "ours-checked" | "ours-hardened" => {
            !row.pattern.is_threaded() && [0, 128].contains(&row.size)
        }
        _ => true,
    }
}

/// One pattern with one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    pattern: Pattern,
    /// The size of the objects; of no meaning to [`Pattern::Mixed`].
    size: usize,
}

impl Row {
    /// Every row, in the order of [`Pattern::ALL`].
    fn all() -> impl Iterator<Item = Self> {
        Pattern::ALL.into_iter().flat_map(|pattern| {
            let sizes: &[usize] = match pattern {
                Pattern::Mixed => &[0],
                _ => &[64, 128, 512],
            };
            sizes.iter().map(move |&size| Self { pattern, size })
        })
    }

    /// The patterns of one thread, without that of a million, which a kernel's heap has no room for.
    fn of_kernels() -> impl Iterator<Item = Self> {
        Self::all().filter(|row| {
            row.size != 512
                && !row.pattern.is_threaded()
                && !matches!(row.pattern, Pattern::FreeMillion | Pattern::Reversed)
        })
    }

    /// The pattern's name, and the size.
    fn name(self) -> String {
        match self.pattern {
            Pattern::Mixed => format!("{}/16-768", self.pattern.name()),
            _ => format!("{}/{}", self.pattern.name(), self.size),
        }
    }
}

/// The variants that there are.
pub(super) fn variants() -> Vec<String> {
    Row::all().map(Row::name).collect()
}

/// Those that a heap of a kernel is measured by.
pub(super) fn kernel_variants() -> Vec<String> {
    Row::of_kernels().map(Row::name).collect()
}

/// Rounds of what takes long to prepare, at most.
const FEW_ROUNDS: usize = 4;

/// Measures the variants that are asked for.
pub(super) fn run(context: &mut Context<'_>) {
    measure(context, "micro", Row::all(), |context| {
        let kinds = Kind::all(&context.peers).into_iter();
        let kinds = kinds.filter(|kind| *kind != Kind::OursHuge);
        kinds.map(|kind| kind.visit(kind)).collect()
    });
}

/// The same, of allocators for kernels.
pub(super) fn run_kernel(context: &mut Context<'_>) {
    measure(context, "kernel", Row::of_kernels(), |_| kernel::entrants());
}

fn measure(
    context: &mut Context<'_>,
    workload: &'static str,
    rows: impl Iterator<Item = Row>,
    entrants: impl FnOnce(&Context<'_>) -> Vec<Entrant>,
) {
    let rows: Vec<Row> = rows
        .filter(|row| context.wants(workload, &row.name()))
        .collect();
    if rows.is_empty() {
        return;
    }
    let mut entrants = entrants(context);
    let mut scratch = Scratch::new();
    for row in rows {
        context.begin(workload, &row.name());
        let is_long = row.pattern == Pattern::FreeMillion || workload == "kernel";
        let rounds = if is_long { FEW_ROUNDS } else { usize::MAX };
        let figures = interleaved(row, &mut entrants, &mut scratch, context, rounds);
        context.results.add(workload, &row.name(), "ns", &figures);
    }
}

fn interleaved(
    row: Row,
    entrants: &mut [Entrant],
    scratch: &mut Scratch,
    context: &Context<'_>,
    rounds: usize,
) -> Vec<Measured> {
    let slice = context.slice;
    let mut taking_part: Vec<_> = entrants
        .iter_mut()
        .filter(|entrant| takes_part(entrant, row))
        .map(|entrant| {
            entrant.team.hold(row);
            let units = units_for(slice, row, entrant, scratch);
            (entrant, units, Vec::new())
        })
        .collect();
    let is_million = row.pattern == Pattern::FreeMillion;
    let rounds = context.rounds.min(rounds);
    let count = taking_part.len();
    for round in 0..rounds {
        for turn in 0..count {
            let (entrant, units, times) = &mut taking_part[(round + turn) % count];
            if !is_million {
                // The others had the caches meanwhile.
                entrant.team.run(row, units.div_ceil(8), scratch);
            }
            let time = entrant.team.run(row, *units, scratch);
            times.push(per_operation(time, row, *units));
        }
    }
    let measured = |(entrant, _, rounds): (&mut Entrant, u64, Vec<f64>)| {
        entrant.team.let_go();
        Measured {
            contender: entrant.name,
            is_ours: entrant.is_ours,
            rounds,
        }
    };
    taking_part.into_iter().map(measured).collect()
}

fn per_operation(time: Duration, row: Row, units: u64) -> f64 {
    time.as_nanos() as f64 / (units as f64 * row.pattern.unit() as f64)
}

/// As many units as take about so long. Warms the contender up.
fn units_for(slice: Duration, row: Row, entrant: &mut Entrant, scratch: &mut Scratch) -> u64 {
    let mut units = 1;
    if row.pattern == Pattern::FreeMillion {
        // Preparing a second one would take longer than what it adds to a turn.
        entrant.team.run(row, units, scratch);
        return units;
    }
    loop {
        let time = entrant.team.run(row, units, scratch);
        if time >= slice / 8 {
            let scale = slice.as_secs_f64() / time.as_secs_f64();
            return ((units as f64 * scale).round() as u64).max(1);
        }
        units *= 2;
    }
}
