//! The micro patterns: who takes part, and measuring them in turns.
//!
//! A machine's speed drifts by more than what allocators differ in, over seconds. So contenders are
//! not measured one after another but in rounds: each has a short turn in each round, the first turn
//! goes round, and what counts is the median over the rounds.

mod contender;
mod partner;
mod pattern;

use super::results::Measured;
use super::{Context, Peer};
use contender::{Contender, GLIBC, JEMALLOC, MIMALLOC, OursLocal, OursShared};
use core::time::Duration;
use pattern::{Pattern, Scratch, Team};

/// Which of ours, or which other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Ours as it is meant to be used.
    Ours,
    /// Ours with a policy that gives nothing back meanwhile: where that can matter.
    OursOnClose,
    /// Ours without a local.
    Shared,
    /// Another allocator.
    Peer(Peer),
}

/// A contender whose type is forgotten; it is known again inside [`Runs::run`].
struct Entrant {
    name: &'static str,
    role: Role,
    team: Box<dyn Runs>,
}

trait Runs {
    fn run(&mut self, row: Row, units: u64, scratch: &mut Scratch) -> Duration;
}

impl<C: Contender> Runs for Team<C> {
    fn run(&mut self, row: Row, units: u64, scratch: &mut Scratch) -> Duration {
        Team::run(self, row.pattern, row.size, units, scratch)
    }
}

impl Entrant {
    fn new<C: Contender>(name: &'static str, role: Role, here: C, there: C) -> Self {
        let team = Box::new(Team::new(here, there));
        Self { name, role, team }
    }

    /// All of them. They last for the whole run, and so does what they keep for later.
    fn all() -> [Self; 6] {
        let (here, there) = (OursLocal::new(), OursLocal::new());
        let closing = (OursLocal::on_close(), OursLocal::on_close());
        [
            Self::new("ours", Role::Ours, here, there),
            Self::new("ours-on-close", Role::OursOnClose, closing.0, closing.1),
            Self::new("ours-shared", Role::Shared, OursShared, OursShared),
            Self::new("mimalloc", Role::Peer(Peer::Mimalloc), MIMALLOC, MIMALLOC),
            Self::new("jemalloc", Role::Peer(Peer::Jemalloc), JEMALLOC, JEMALLOC),
            Self::new("glibc", Role::Peer(Peer::Glibc), GLIBC, GLIBC),
        ]
    }

    /// Whether it has a figure in this row.
    fn takes_part(&self, row: Row, peers: &[Peer]) -> bool {
        match self.role {
            Role::Ours => true,
            Role::Peer(peer) => peers.contains(&peer),
            // Nothing is given back in the other patterns.
            Role::OursOnClose => row.pattern == Pattern::FreeMillion,
            Role::Shared => !row.pattern.is_threaded(),
        }
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

/// Rounds of [`Pattern::FreeMillion`], which takes long to prepare, at most.
const MILLION_ROUNDS: usize = 5;

/// Measures the variants that are asked for.
pub(super) fn run(context: &mut Context<'_>) {
    let rows: Vec<Row> = Row::all()
        .filter(|row| context.wants("micro", &row.name()))
        .collect();
    if rows.is_empty() {
        return;
    }
    let mut entrants = Entrant::all();
    let mut scratch = Scratch::new();
    for row in rows {
        context.begin("micro", &row.name());
        let figures = interleaved(row, &mut entrants, &mut scratch, context);
        context.results.add("micro", &row.name(), "ns", &figures);
    }
}

fn interleaved(
    row: Row,
    entrants: &mut [Entrant],
    scratch: &mut Scratch,
    context: &Context<'_>,
) -> Vec<Measured> {
    let slice = context.slice;
    let mut taking_part: Vec<_> = entrants
        .iter_mut()
        .filter(|entrant| entrant.takes_part(row, &context.peers))
        .map(|entrant| {
            let units = units_for(slice, row, entrant, scratch);
            (entrant, units, Vec::new())
        })
        .collect();
    let is_million = row.pattern == Pattern::FreeMillion;
    let rounds = if is_million {
        context.rounds.min(MILLION_ROUNDS)
    } else {
        context.rounds
    };
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
    let measured = |(entrant, _, rounds): (&mut Entrant, u64, Vec<f64>)| Measured {
        contender: entrant.name,
        is_ours: !matches!(entrant.role, Role::Peer(_)),
        rounds,
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
