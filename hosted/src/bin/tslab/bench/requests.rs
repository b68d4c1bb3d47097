//! Requests: each is parsed into a map of lists of texts, and answered; all of it is over when the answer is.
//!
//! The same code for every contender. The peers free what a request made one by one, as does ours without an epoch;
//! ours with an epoch does so too, in slabs that no other request shares; ours with a scope drops all at once. The
//! provider is not asked for readings of the process at each close, as under the global allocator: that alone takes
//! longer than a request.

use super::results::{Measured, quantile};
use super::{Context, Peer};
use allocator_api2::alloc::{AllocError, Allocator};
use allocator_api2::vec::Vec as AVec;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::time::Duration;
use hashbrown::{DefaultHashBuilder, HashMap};
use std::alloc::System;
use std::sync::Barrier;
use std::time::Instant;
use temporal_slab::adapter::LocalAllocator;
use temporal_slab::config::Unchecked;
use temporal_slab::stats::Histogram;
use temporal_slab::{Heap, Policy, Scope};
use temporal_slab_hosted::{FutexLock, MmapProvider};

type Ours = Heap<MmapProvider, FutexLock, Unchecked>;

/// One for each way of use, so that none finds what another left.
static PLAIN: Ours = Heap::new(MmapProvider::new().without_readings());
static EPOCHS: Ours = Heap::new(MmapProvider::new().without_readings());
static BATCHES: Ours = Heap::new(MmapProvider::new().without_readings());
static WARM: Ours = Heap::new(MmapProvider::new().without_readings());
static SCOPES: Ours = Heap::new(MmapProvider::new().without_readings());

/// Requests of an epoch, for [`Way::EpochOfMany`].
const MANY: usize = 64;

/// How a contender is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Scope,
    EpochOfMany,
    Epoch,
    /// An epoch for each, under a policy that keeps what a close empties.
    WarmEpoch,
    Plain,
    Peer(Peer),
}

impl Way {
    const OURS: [Self; 5] = [
        Self::Scope,
        Self::EpochOfMany,
        Self::WarmEpoch,
        Self::Epoch,
        Self::Plain,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Scope => "ours-scope",
            Self::EpochOfMany => "ours-epoch-64",
            Self::Epoch => "ours-epoch",
            Self::WarmEpoch => "ours-epoch-warm",
            Self::Plain => "ours",
            Self::Peer(Peer::Mimalloc) => "mimalloc",
            Self::Peer(Peer::Jemalloc) => "jemalloc",
            Self::Peer(Peer::Glibc) => "glibc",
        }
    }
}

/// Another allocator, for the collections.
struct Raw<A: 'static>(&'static A);

impl<A> Clone for Raw<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for Raw<A> {}

// SAFETY: what a global allocator hands out is valid until it is freed, whoever has its name.
unsafe impl<A: GlobalAlloc> Allocator for Raw<A> {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: collections ask for no size of zero.
        let object = NonNull::new(unsafe { self.0.alloc(layout) }).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(object, layout.size()))
    }

    #[inline]
    unsafe fn deallocate(&self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(object.as_ptr(), layout) };
    }

    #[inline]
    unsafe fn grow(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise; the alignment stays, as it does for vectors and tables.
        let object = unsafe { self.0.realloc(object.as_ptr(), old, new.size()) };
        let object = NonNull::new(object).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(object, new.size()))
    }
}

type Text<A> = AVec<u8, A>;

/// Requests as they come in: fields with values, some of which repeat.
fn texts() -> Vec<String> {
    let mut seed = 1u64;
    let mut below = move |n: u64| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) % n
    };
    (0..512)
        .map(|number| {
            let fields: Vec<String> = (0..8 + below(24))
                .map(|_| {
                    let value = "v".repeat(4 + below(60) as usize);
                    format!("field-{}={value}-{number}", below(20))
                })
                .collect();
            fields.join("&")
        })
        .collect()
}

/// Serves a request: its answer's length and a sum of its bytes, so that nothing is left out.
fn serve<A: Allocator + Copy>(alloc: A, text: &str) -> u64 {
    let mut fields: HashMap<Text<A>, AVec<Text<A>, A>, DefaultHashBuilder, A> =
        HashMap::new_in(alloc);
    let copy = |part: &str| {
        let mut text = Text::new_in(alloc);
        text.extend_from_slice(part.as_bytes());
        text
    };
    for pair in text.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        fields
            .entry(copy(name))
            .or_insert_with(|| AVec::new_in(alloc))
            .push(copy(value));
    }
    let mut names: AVec<&Text<A>, A> = AVec::new_in(alloc);
    names.extend(fields.keys());
    names.sort_unstable();
    let mut answer = Text::new_in(alloc);
    for name in names {
        answer.extend_from_slice(name);
        for value in &fields[name] {
            answer.push(b' ');
            answer.extend_from_slice(value);
        }
        answer.push(b'\n');
    }
    answer.len() as u64 + answer.iter().map(|byte| u64::from(*byte)).sum::<u64>()
}

/// Serves `count` requests in one way, and notes what each took.
fn work(way: Way, texts: &[String], count: usize, times: &Histogram) -> u64 {
    let mut sum = 0u64;
    let mut each = |serve: &mut dyn FnMut(usize, &str) -> u64| {
        for (number, text) in texts.iter().cycle().take(count).enumerate() {
            let begin = Instant::now();
            sum = sum.wrapping_add(serve(number, text));
            times.record(begin.elapsed().as_nanos() as u64);
        }
    };
    match way {
        Way::Scope => {
            let mut scope = Scope::new(&SCOPES);
            each(&mut |_, text| {
                let answer = serve(&scope, text);
                scope.reset();
                answer
            });
        }
        Way::Epoch | Way::WarmEpoch => {
            let heap = if way == Way::Epoch { &EPOCHS } else { &WARM };
            if way == Way::WarmEpoch {
                heap.set_policy(Policy::Warm { bytes: 4 << 20 });
            }
            let local = LocalAllocator::new(heap.local().expect("there is memory"));
            each(&mut |_, text| {
                let epoch = heap.open_epoch().expect("the ring has room");
                let answer = serve(local.in_epoch(epoch), text);
                local.leave(epoch);
                heap.close(epoch).expect("it is open");
                answer
            });
        }
        Way::EpochOfMany => {
            let local = LocalAllocator::new(BATCHES.local().expect("there is memory"));
            let mut epoch = BATCHES.open_epoch().expect("the ring has room");
            each(&mut |number, text| {
                if number % MANY == MANY - 1 {
                    local.leave(epoch);
                    BATCHES.close(epoch).expect("it is open");
                    epoch = BATCHES.open_epoch().expect("the ring has room");
                }
                serve(local.in_epoch(epoch), text)
            });
            local.leave(epoch);
            BATCHES.close(epoch).expect("it is open");
        }
        Way::Plain => {
            let local = LocalAllocator::new(PLAIN.local().expect("there is memory"));
            each(&mut |_, text| serve(&local, text));
        }
        Way::Peer(Peer::Mimalloc) => each(&mut |_, text| serve(Raw(&mimalloc::MiMalloc), text)),
        Way::Peer(Peer::Jemalloc) => {
            each(&mut |_, text| serve(Raw(&tikv_jemallocator::Jemalloc), text))
        }
        Way::Peer(Peer::Glibc) => each(&mut |_, text| serve(Raw(&System), text)),
    }
    sum
}

/// One turn: nanoseconds for a request and thread, and the times of each.
fn turn(way: Way, threads: usize, texts: &[String], count: usize) -> (f64, Histogram, u64) {
    let times = Histogram::new();
    let gate = Barrier::new(threads + 1);
    let (elapsed, sum) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let (gate, times) = (&gate, &times);
                scope.spawn(move || {
                    // So that what a thread does once is done.
                    let unknown = Histogram::new();
                    work(way, texts, count / 20 + 1, &unknown);
                    gate.wait();
                    work(way, texts, count, times)
                })
            })
            .collect();
        gate.wait();
        let begin = Instant::now();
        let sums = workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"));
        let sum = sums.fold(0u64, u64::wrapping_add);
        (begin.elapsed(), sum)
    });
    (elapsed.as_nanos() as f64 / count as f64, times, sum)
}

/// The variants that there are.
pub(super) fn variants(threads: &[usize]) -> Vec<String> {
    threads
        .iter()
        .map(|threads| format!("{threads}-threads"))
        .collect()
}

pub(super) fn run(context: &mut Context<'_>) {
    for threads in context.options.threads.clone() {
        let variant = format!("{threads}-threads");
        if !context.wants("requests", &variant) {
            continue;
        }
        context.begin("requests", &variant);
        measure(context, threads, &variant);
    }
}

/// What is told of the times of single requests.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

fn measure(context: &mut Context<'_>, threads: usize, variant: &str) {
    let texts = texts();
    let ways: Vec<Way> = Way::OURS
        .into_iter()
        .chain(context.peers.iter().map(|peer| Way::Peer(*peer)))
        .collect();
    let count = requests_for(context.slice * 4, threads, &texts);
    let mut rounds: Vec<[Vec<f64>; 1 + QUANTILES.len()]> =
        ways.iter().map(|_| Default::default()).collect();
    let mut sums = Vec::new();
    for round in 0..context.rounds {
        for step in 0..ways.len() {
            let place = (round + step) % ways.len();
            let (ns, times, sum) = turn(ways[place], threads, &texts, count);
            rounds[place][0].push(ns);
            for (index, (_, share)) in QUANTILES.iter().enumerate() {
                rounds[place][index + 1].push(times.quantile_ns(*share) as f64);
            }
            sums.push(sum);
        }
    }
    // Whoever serves, the answers are the same.
    assert!(sums.iter().all(|sum| Some(sum) == sums.first()), "{sums:?}");
    let names = ["ns", "ns p50", "ns p99", "ns p99.9"];
    for (index, unit) in names.into_iter().enumerate() {
        let all: Vec<Measured> = ways
            .iter()
            .zip(&rounds)
            .map(|(way, rounds)| Measured {
                contender: way.name(),
                is_ours: !matches!(way, Way::Peer(_)),
                rounds: rounds[index].clone(),
            })
            .collect();
        let workload = match index {
            0 => "requests".to_owned(),
            _ => format!("requests-{}", QUANTILES[index - 1].0),
        };
        context.results.add(&workload, variant, unit, &all);
    }
}

/// As many requests as take about so long.
fn requests_for(slice: Duration, threads: usize, texts: &[String]) -> usize {
    let (ns, ..) = turn(Way::Plain, threads, texts, 2000);
    let median = quantile(&[ns], 0.5);
    ((slice.as_nanos() as f64 / median) as usize).max(1000)
}
