//! What a program does with memory over time.

use crate::options::{Epochs, Options};
use serde::{Deserialize, Serialize};

/// How its load changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub(super) enum Pattern {
    /// The same all the time.
    Steady,
    /// Eight times as many objects in a request, during each fifth part of the time.
    Burst,
    /// Bursts, and a few objects of each request live to the end.
    Pinned,
    /// Steady, and a few objects of each request are never freed.
    Leak,
    /// Nine of ten objects are of one size.
    Hotspot,
    /// Other sizes in each quarter of the time.
    PhaseShift,
    /// Many short requests, and one object of each takes the place of another one in a cache.
    Cache,
}

impl Pattern {
    pub(super) const ALL: [Self; 7] = [
        Self::Steady,
        Self::Burst,
        Self::Pinned,
        Self::Leak,
        Self::Hotspot,
        Self::PhaseShift,
        Self::Cache,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Burst => "burst",
            Self::Pinned => "pinned",
            Self::Leak => "leak",
            Self::Hotspot => "hotspot",
            Self::PhaseShift => "phase-shift",
            Self::Cache => "cache",
        }
    }
}

/// All that a child is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) pattern: Pattern,
    pub(super) epochs: Epochs,
    /// After how many requests a request's objects are freed; 0 is at its end.
    pub(super) lag: usize,
    /// How many of a thousand objects are never freed; of the leaking pattern, if this is nothing, ten.
    pub(super) leaked: u64,
    pub(super) requests: usize,
}

/// Objects of an ordinary request, and of one that puts an object into a cache.
const OBJECTS: usize = 400;
const FEW: usize = 20;
/// The parts of the time in which bursts come and go.
const PARTS: usize = 20;

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Freed with its request's others.
    Request,
    /// Known to live to the end of the run.
    Pinned,
    Leaked,
    /// Freed when another one takes its place in the cache.
    Cached,
}

impl Shape {
    /// Objects of the largest request.
    pub(super) const MOST: usize = OBJECTS * 8;
    /// Objects of the cache.
    pub(super) const CACHE: usize = 20_000;

    /// The shape of a pattern's programs. Those with a cache have an epoch for each request, whose other objects go with it.
    pub(super) fn of(pattern: Pattern, options: &Options) -> Self {
        let requests = if options.quick { 1_000 } else { 4_000 };
        let shape = Self {
            pattern,
            epochs: options.epochs,
            lag: usize::from(options.lag),
            leaked: options.leaked,
            requests,
        };
        if pattern != Pattern::Cache {
            return shape;
        }
        Self {
            epochs: Epochs::Request,
            lag: 0,
            requests: requests * OBJECTS / FEW * 2,
            ..shape
        }
    }

    /// Which part of the run a request is in.
    pub(super) fn part(&self, request: usize) -> usize {
        request * PARTS / self.requests.max(1)
    }

    /// Whether it is the first one of a part: there the load may change.
    pub(super) fn is_turn(&self, request: usize) -> bool {
        request > 0 && self.part(request) != self.part(request - 1)
    }

    pub(super) fn objects(&self, request: usize) -> usize {
        if self.pattern == Pattern::Cache {
            return FEW;
        }
        let bursts = matches!(self.pattern, Pattern::Burst | Pattern::Pinned);
        let is_burst = self.part(request) % 5 == 2;
        match (bursts, is_burst) {
            (true, true) => Self::MOST,
            (true, false) => OBJECTS / 4,
            _ => OBJECTS,
        }
    }

    /// The size and the fate of an object of a request, by its place there and a number that nobody foresees.
    pub(super) fn object(&self, request: usize, place: usize, draw: u64) -> (usize, Fate) {
        let between = |low: usize, high: usize| low + (draw >> 33) as usize % (high - low);
        let size = match self.pattern {
            Pattern::Hotspot if (draw >> 20) % 10 < 9 => 128,
            Pattern::PhaseShift => match self.part(request) * 4 / PARTS {
                0 => between(16, 64),
                1 => between(384, 1024),
                2 => between(64, 256),
                _ => between(1024, 3072),
            },
            // Most are small.
            _ if (draw >> 20) % 8 < 6 => between(16, 256),
            _ => between(256, 1024),
        };
        let of_thousand = (draw >> 10) % 1000;
        let leaked = match (self.pattern, self.leaked) {
            (Pattern::Leak, 0) => 10,
            (_, leaked) => leaked,
        };
        let fate = if self.pattern == Pattern::Cache && place == 0 {
            Fate::Cached
        } else if of_thousand < leaked {
            Fate::Leaked
        } else if self.pattern == Pattern::Pinned && of_thousand >= 995 {
            Fate::Pinned
        } else {
            Fate::Request
        };
        (size, fate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(pattern: Pattern) -> Shape {
        Shape {
            pattern,
            epochs: Epochs::Manual,
            lag: 0,
            leaked: 0,
            requests: 1000,
        }
    }

    /// Bursts are a fifth of the time; fates and sizes are as their patterns say.
    #[test]
    fn patterns_are_what_they_say() {
        let burst = shape(Pattern::Burst);
        let large = (0..1000).filter(|request| burst.objects(*request) == Shape::MOST);
        assert_eq!(large.count(), 200);
        let fates = |shape: Shape, fate: Fate| {
            let mut draw = 1u64;
            let all = (0..100_000usize).filter(|_| {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shape.object(0, 1, draw).1 == fate
            });
            all.count()
        };
        assert_eq!(fates(shape(Pattern::Steady), Fate::Request), 100_000);
        assert!((800..1200).contains(&fates(shape(Pattern::Leak), Fate::Leaked)));
        assert!((350..650).contains(&fates(shape(Pattern::Pinned), Fate::Pinned)));
        let shift = shape(Pattern::PhaseShift);
        assert!(shift.object(0, 0, u64::MAX).0 < 64 && shift.object(999, 0, 0).0 >= 1024);
        let cache = shape(Pattern::Cache);
        let fates = (0..cache.objects(0)).map(|place| cache.object(0, place, 1).1);
        assert_eq!(fates.filter(|fate| *fate == Fate::Cached).count(), 1);
        assert!(shift.is_turn(50) && !shift.is_turn(51));
    }
}
