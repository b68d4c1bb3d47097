//! Who takes part, and measuring them in turns.
//!
//! A machine's speed drifts by more than what allocators differ in, over seconds. So contenders are
//! not measured one after another but in rounds: each has a short turn in each round, the first turn
//! goes round, and what counts is the median over the rounds.

use core::time::Duration;

use super::contender::{Contender, GLIBC, JEMALLOC, MIMALLOC, OursLocal, OursShared};
use super::options::Options;
use super::pattern::{Pattern, Scratch, Team};

/// What a contender is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ours as it is meant to be used: with the fastest peer.
    Ours,
    /// Ours with another policy: the same, where that can matter.
    OursOnClose,
    /// Ours without a local: with ours.
    Shared,
    /// Another allocator.
    Peer,
}

/// A contender whose type is forgotten; it is known again inside [`Runs::run`].
pub(crate) struct Entrant {
    /// As it is called in reports and filters.
    pub(crate) name: &'static str,
    /// What it is compared with.
    pub(crate) role: Role,
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
    pub(crate) fn all() -> [Self; 6] {
        let locals = || (OursLocal::new(), OursLocal::new());
        let (here, there) = locals();
        let ours = Self::new("ours", Role::Ours, here, there);
        let on_close = Self::new(
            "ours-on-close",
            Role::OursOnClose,
            OursLocal::on_close(),
            OursLocal::on_close(),
        );
        [
            ours,
            on_close,
            Self::new("ours-shared", Role::Shared, OursShared, OursShared),
            Self::new("mimalloc", Role::Peer, MIMALLOC, MIMALLOC),
            Self::new("jemalloc", Role::Peer, JEMALLOC, JEMALLOC),
            Self::new("glibc", Role::Peer, GLIBC, GLIBC),
        ]
    }

    /// Whether it has a figure in this row.
    pub(crate) fn takes_part(&self, row: Row) -> bool {
        match self.role {
            Role::Ours | Role::Peer => true,
            // Nothing is given back in the other patterns.
            Role::OursOnClose => row.pattern == Pattern::FreeMillion,
            Role::Shared => !row.pattern.is_threaded(),
        }
    }

    /// Runs so many units of the row's pattern.
    pub(crate) fn run(&mut self, row: Row, units: u64, scratch: &mut Scratch) -> Duration {
        self.team.run(row, units, scratch)
    }
}

/// One pattern with one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The pattern.
    pub(crate) pattern: Pattern,
    /// The size of the objects; of no meaning to [`Pattern::Mixed`].
    pub(crate) size: usize,
}

impl Row {
    /// Every row, in the order of [`Pattern::ALL`].
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Pattern::ALL.into_iter().flat_map(|pattern| {
            let sizes: &[usize] = match pattern {
                Pattern::Mixed => &[0],
                _ => &[64, 128, 512],
            };
            sizes.iter().map(move |&size| Self { pattern, size })
        })
    }

    /// The pattern's name, and the size.
    pub(crate) fn name(self) -> String {
        match self.pattern {
            Pattern::Mixed => format!("{}/16-768", self.pattern.name()),
            _ => format!("{}/{}", self.pattern.name(), self.size),
        }
    }
}

/// What was measured of one contender.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Who.
    pub(crate) name: &'static str,
    /// What it is compared with.
    pub(crate) role: Role,
    /// Nanoseconds for an operation, by round.
    pub(crate) rounds: Vec<f64>,
}

impl Figures {
    /// Over all rounds.
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.rounds, 0.5)
    }
}

/// The value below which a part of the values lies.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * part).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Rounds of [`Pattern::FreeMillion`], which takes long to prepare, at most.
const MILLION_ROUNDS: usize = 7;

/// Measures one row in rounds.
pub(crate) fn interleaved(
    row: Row,
    entrants: &mut [Entrant],
    scratch: &mut Scratch,
    options: &Options,
) -> Vec<Figures> {
    let mut taking_part: Vec<_> = entrants
        .iter_mut()
        .filter(|entrant| entrant.takes_part(row))
        .map(|entrant| {
            let units = units_for(options.slice, row, entrant, scratch);
            (entrant, units, Vec::new())
        })
        .collect();
    let is_million = row.pattern == Pattern::FreeMillion;
    let rounds = if is_million {
        options.rounds.min(MILLION_ROUNDS)
    } else {
        options.rounds
    };
    let count = taking_part.len();
    for round in 0..rounds {
        for turn in 0..count {
            let (entrant, units, times) = &mut taking_part[(round + turn) % count];
            if !is_million {
                // The others had the caches meanwhile.
                entrant.run(row, units.div_ceil(8), scratch);
            }
            let time = entrant.run(row, *units, scratch);
            times.push(per_operation(time, row, *units));
        }
    }
    let figures = |(entrant, _, rounds): (&mut Entrant, u64, Vec<f64>)| Figures {
        name: entrant.name,
        role: entrant.role,
        rounds,
    };
    taking_part.into_iter().map(figures).collect()
}

fn per_operation(time: Duration, row: Row, units: u64) -> f64 {
    time.as_nanos() as f64 / (units as f64 * row.pattern.unit() as f64)
}

/// As many units as take about so long. Warms the contender up.
fn units_for(slice: Duration, row: Row, entrant: &mut Entrant, scratch: &mut Scratch) -> u64 {
    let mut units = 1;
    if row.pattern == Pattern::FreeMillion {
        // Preparing a second one would take longer than what it adds to a turn.
        entrant.run(row, units, scratch);
        return units;
    }
    loop {
        let time = entrant.run(row, units, scratch);
        if time >= slice / 8 {
            let scale = slice.as_secs_f64() / time.as_secs_f64();
            return ((units as f64 * scale).round() as u64).max(1);
        }
        units *= 2;
    }
}
