//! What is done with an allocator while the clock runs.

use core::alloc::Layout;
use core::hint::black_box;
use core::ptr::NonNull;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use super::partner::{self, BATCH, Gate, Parcel, Ring};
use crate::contender::Contender;

/// A way to use an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Allocate, free, again.
    Pair,
    /// Allocate 10,000, free them in the same order.
    InOrder,
    /// Allocate 10,000, free the last one first.
    Reversed,
    /// Of 10,000 live objects, free any and allocate another.
    Random,
    /// The same, of sizes from 16 to 768, each drawn anew.
    Mixed,
    /// Allocate on one thread, free on another.
    Across,
    /// Two threads, each of which allocates 1,000 and frees them, over and over.
    TwoAtOnce,
    /// Free a million in the order in which they were allocated; nothing else is timed.
    FreeMillion,
}

impl Pattern {
    /// All of them, those of a single thread first: see [`partner`].
    pub(super) const ALL: [Self; 8] = [
        Self::Pair,
        Self::InOrder,
        Self::Reversed,
        Self::Random,
        Self::Mixed,
        Self::FreeMillion,
        Self::Across,
        Self::TwoAtOnce,
    ];

    /// As it is called in reports and filters.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::InOrder => "batch-in-order",
            Self::Reversed => "batch-reversed",
            Self::Random => "random",
            Self::Mixed => "mixed",
            Self::Across => "across-threads",
            Self::TwoAtOnce => "two-threads",
            Self::FreeMillion => "free-million",
        }
    }

    /// The operations in one unit, the least that can be run. An operation is an allocation and a
    /// free, but for [`FreeMillion`](Self::FreeMillion), where it is a free.
    pub(super) const fn unit(self) -> usize {
        match self {
            Self::Pair | Self::Random | Self::Mixed => 1,
            Self::InOrder | Self::Reversed => LIVE,
            Self::Across | Self::TwoAtOnce => BATCH,
            Self::FreeMillion => MILLION,
        }
    }

    /// Whether it takes two threads.
    pub(super) const fn is_threaded(self) -> bool {
        matches!(self, Self::Across | Self::TwoAtOnce)
    }
}

/// Objects alive in the patterns of one thread.
const LIVE: usize = 10_000;
/// Objects in [`Pattern::FreeMillion`].
pub(super) const MILLION: usize = 1_000_000;

/// Replacements before the clock starts: the live objects then lie as they will for ever, and not in
/// the order in which they were allocated.
const SHUFFLES: usize = 3 * LIVE;

/// The sizes of [`Pattern::Mixed`].
const MIXED: core::ops::RangeInclusive<usize> = 16..=768;

/// What all objects are aligned to. The least that allocators for C give anyway.
const ALIGN: usize = 8;

/// Where patterns keep what they allocated. Made before anything is timed, so that patterns do not
/// use the global allocator, which is a contender.
pub(super) struct Scratch {
    objects: Vec<NonNull<u8>>,
    sized: Vec<(NonNull<u8>, u32)>,
}

impl Scratch {
    /// Room for the largest pattern.
    pub(super) fn new() -> Self {
        Self {
            objects: vec![NonNull::dangling(); MILLION],
            sized: vec![(NonNull::dangling(), 0); LIVE],
        }
    }
}

/// Numbers that no predictor foresees, at three cycles each.
struct Draw(u64);

/// How many draws there are before they begin anew: more than a branch predictor remembers.
const DRAWS: usize = 1 << 16;

impl Draw {
    #[inline]
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // The upper bits of this generator are the random ones.
        (((self.0 >> 32) * bound as u64) >> 32) as usize
    }
}

/// Places and sizes in the order in which they are used, drawn before the clock runs: a generator in
/// the loop would take as long as an allocation and make all contenders look alike.
fn draws() -> Vec<(u16, u16)> {
    let mut draw = Draw(1);
    let (min, count) = (*MIXED.start(), MIXED.end() - MIXED.start() + 1);
    (0..DRAWS)
        .map(|_| (draw.below(LIVE) as u16, (min + draw.below(count)) as u16))
        .collect()
}

/// Allocates and writes the first bytes, as every program does sooner or later. `black_box` keeps
/// the pair from being seen through where it is inlined.
#[inline(always)]
fn make<C: Contender>(contender: &mut C, layout: Layout) -> NonNull<u8> {
    let object = contender.alloc(layout);
    // SAFETY: an object has at least 8 bytes and is aligned to 8.
    unsafe { object.cast::<u64>().write(1) };
    black_box(object)
}

/// The layout of a size.
#[inline]
fn layout_of(size: usize) -> Layout {
    // SAFETY: 8 is a power of two, and sizes are far below the address space's end.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

/// Objects that stay alive while a pattern runs, as some do in every program. Without them a page empties each time a
/// lone object is freed, and some allocators give it up and get another: 30 ns instead of 4, or not, by what ran
/// before.
const BALLAST: usize = 64;

/// A contender on both threads.
pub(super) struct Team<C> {
    here: C,
    ballast: Vec<(NonNull<u8>, Layout)>,
    /// Away while the second thread runs; if that panics so does this one.
    there: Option<C>,
}

impl<C: Contender> Team<C> {
    /// One for each thread.
    pub(super) const fn new(here: C, there: C) -> Self {
        Self {
            here,
            ballast: Vec::new(),
            there: Some(there),
        }
    }

    /// Keeps objects of a size alive until [`let_go`](Self::let_go).
    pub(super) fn hold(&mut self, size: usize) {
        // Of no size: of many.
        for number in 0..BALLAST {
            let size = if size == 0 { 16 + number * 12 } else { size };
            let object = make(&mut self.here, layout_of(size));
            self.ballast.push((object, layout_of(size)));
        }
    }

    pub(super) fn let_go(&mut self) {
        for (object, layout) in self.ballast.drain(..) {
            // SAFETY: allocated with this layout in `hold`, and freed once.
            unsafe { self.here.free(object, layout) };
        }
    }

    /// Runs so many units and returns how long they took. Leaves no object behind.
    pub(super) fn run(
        &mut self,
        pattern: Pattern,
        size: usize,
        units: u64,
        scratch: &mut Scratch,
    ) -> Duration {
        // One that the compiler knows could be resolved to a class ahead of time.
        let layout = black_box(layout_of(size));
        let units = usize::try_from(units).unwrap_or(usize::MAX);
        let (here, objects) = (&mut self.here, &mut scratch.objects[..]);
        match pattern {
            Pattern::Pair => pair(here, layout, units),
            Pattern::InOrder => batch::<C, false>(here, layout, units, &mut objects[..LIVE]),
            Pattern::Reversed => batch::<C, true>(here, layout, units, &mut objects[..LIVE]),
            Pattern::Random => random(here, layout, units, &mut objects[..LIVE]),
            Pattern::Mixed => mixed(here, units, &mut scratch.sized),
            Pattern::FreeMillion => free_million(here, layout, units, objects),
            Pattern::Across => self.with_partner(units, |here, there, units| {
                across(here, there, layout, units)
            }),
            Pattern::TwoAtOnce => self.with_partner(units, |here, there, units| {
                two_at_once(here, there, layout, units, &mut objects_of(BATCH))
            }),
        }
    }

    fn with_partner(
        &mut self,
        units: usize,
        run: impl FnOnce(&mut C, C, usize) -> (C, Duration),
    ) -> Duration {
        let there = self.there.take().expect("the second thread is at rest");
        let (there, time) = run(&mut self.here, there, units);
        self.there = Some(there);
        time
    }
}

/// Places for objects.
fn objects_of(count: usize) -> Vec<NonNull<u8>> {
    vec![NonNull::dangling(); count]
}

/// Fills every place.
#[inline]
fn fill<C: Contender>(contender: &mut C, layout: Layout, objects: &mut [NonNull<u8>]) {
    for place in objects {
        *place = make(contender, layout);
    }
}

/// Frees every place in order.
///
/// # Safety
/// All of them came from [`fill`] with this contender and layout, and are live.
#[inline]
unsafe fn drain<C: Contender>(contender: &mut C, layout: Layout, objects: &[NonNull<u8>]) {
    for &object in objects {
        // SAFETY: the caller's promise.
        unsafe { contender.free(object, layout) };
    }
}

#[inline(never)]
fn pair<C: Contender>(contender: &mut C, layout: Layout, units: usize) -> Duration {
    let start = Instant::now();
    for _ in 0..units {
        let object = make(contender, layout);
        // SAFETY: just allocated.
        unsafe { contender.free(object, layout) };
    }
    start.elapsed()
}

#[inline(never)]
fn batch<C: Contender, const REVERSED: bool>(
    contender: &mut C,
    layout: Layout,
    units: usize,
    objects: &mut [NonNull<u8>],
) -> Duration {
    let start = Instant::now();
    for _ in 0..units {
        fill(contender, layout, objects);
        if REVERSED {
            for &object in objects.iter().rev() {
                // SAFETY: just allocated, each freed once.
                unsafe { contender.free(object, layout) };
            }
        } else {
            // SAFETY: just filled.
            unsafe { drain(contender, layout, objects) };
        }
    }
    start.elapsed()
}

#[inline(never)]
fn random<C: Contender>(
    contender: &mut C,
    layout: Layout,
    units: usize,
    objects: &mut [NonNull<u8>],
) -> Duration {
    let draws = draws();
    let replace = |contender: &mut C, objects: &mut [NonNull<u8>], count| {
        for &(place, _) in draws.iter().cycle().take(count) {
            let place = &mut objects[place as usize];
            // SAFETY: what is in a place is live, and is replaced at once.
            unsafe { contender.free(*place, layout) };
            *place = make(contender, layout);
        }
    };
    fill(contender, layout, objects);
    replace(contender, objects, SHUFFLES);
    let start = Instant::now();
    replace(contender, objects, units);
    let time = start.elapsed();
    // SAFETY: every place holds a live object.
    unsafe { drain(contender, layout, objects) };
    time
}

#[inline(never)]
fn mixed<C: Contender>(
    contender: &mut C,
    units: usize,
    objects: &mut [(NonNull<u8>, u32)],
) -> Duration {
    let draws = draws();
    let replace = |contender: &mut C, objects: &mut [(NonNull<u8>, u32)], count| {
        for &(place, size) in draws.iter().cycle().take(count) {
            let place = &mut objects[place as usize];
            // SAFETY: what is in a place is live, and is replaced at once.
            unsafe { contender.free(place.0, layout_of(place.1 as usize)) };
            *place = (
                make(contender, layout_of(usize::from(size))),
                u32::from(size),
            );
        }
    };
    for (place, &(_, size)) in objects.iter_mut().zip(&draws) {
        *place = (
            make(contender, layout_of(usize::from(size))),
            u32::from(size),
        );
    }
    replace(contender, objects, SHUFFLES);
    let start = Instant::now();
    replace(contender, objects, units);
    let time = start.elapsed();
    for &mut (object, size) in objects {
        // SAFETY: every place holds a live object of its size.
        unsafe { contender.free(object, layout_of(size as usize)) };
    }
    time
}

#[inline(never)]
fn free_million<C: Contender>(
    contender: &mut C,
    layout: Layout,
    units: usize,
    objects: &mut [NonNull<u8>],
) -> Duration {
    let mut time = Duration::ZERO;
    for _ in 0..units {
        fill(contender, layout, objects);
        let start = Instant::now();
        // SAFETY: just filled.
        unsafe { drain(contender, layout, objects) };
        time += start.elapsed();
    }
    time
}

#[inline(never)]
fn across<C: Contender>(here: &mut C, mut there: C, layout: Layout, units: usize) -> (C, Duration) {
    let shared = Arc::new((Gate::default(), Ring::new()));
    let theirs = Arc::clone(&shared);
    let result = partner::start(move || {
        let (gate, ring) = &*theirs;
        gate.pass();
        for number in 0..units {
            ring.take(number, |batch| {
                for &mut Parcel(object) in batch {
                    // SAFETY: the other thread allocated it and passed it on.
                    unsafe { there.free(object, layout) };
                }
            });
        }
        (there, Instant::now())
    });
    let (gate, ring) = &*shared;
    gate.pass();
    let start = Instant::now();
    for number in 0..units {
        ring.put(number, |batch| {
            for place in batch {
                *place = Parcel(make(here, layout));
            }
        });
    }
    let (there, end) = partner::finish(&result);
    (there, end - start)
}

#[inline(never)]
fn batches<C: Contender>(
    contender: &mut C,
    layout: Layout,
    units: usize,
    objects: &mut [NonNull<u8>],
) {
    for _ in 0..units {
        fill(contender, layout, objects);
        // SAFETY: just filled.
        unsafe { drain(contender, layout, objects) };
    }
}

fn two_at_once<C: Contender>(
    here: &mut C,
    mut there: C,
    layout: Layout,
    units: usize,
    objects: &mut [NonNull<u8>],
) -> (C, Duration) {
    let gate = Arc::new(Gate::default());
    let theirs = Arc::clone(&gate);
    let result = partner::start(move || {
        let mut objects = objects_of(BATCH);
        theirs.pass();
        batches(&mut there, layout, units, &mut objects);
        (there, Instant::now())
    });
    gate.pass();
    let start = Instant::now();
    batches(here, layout, units, objects);
    let here_end = Instant::now();
    let (there, there_end) = partner::finish(&result);
    (there, here_end.max(there_end) - start)
}
