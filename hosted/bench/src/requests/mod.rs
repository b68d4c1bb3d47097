//! Requests, in process and over the loopback interface: what serving one takes, the longest ones, and what is resident.

mod http;
mod way;

pub(super) use http::WORK;

use super::context::Context;
use super::results::Measured;
use anyhow::Result;
use core::time::Duration;
use hdrhistogram::Histogram;
use std::sync::Barrier;
use std::time::Instant;
use temporal_slab_page::Series;
use way::Way;

/// What is told of the times of single requests.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
/// What is told, the time for each of all requests together first.
const FIGURES: [&str; 4] = ["time", "p50", "p99", "p99.9"];

/// The variants that there are.
pub(super) fn variants(threads: &[usize]) -> Vec<String> {
    let name =
        |kind: &str, threads: &usize, figure: &str| format!("{kind}/{threads}-threads/{figure}");
    let in_process = threads
        .iter()
        .flat_map(|threads| FIGURES.map(|figure| name("in-process", threads, figure)));
    let over_http = threads.iter().flat_map(|threads| {
        let figures = FIGURES.into_iter().chain(["peak"]);
        figures.map(|figure| name("http", threads, figure))
    });
    in_process.chain(over_http).collect()
}

pub(super) fn run(context: &mut Context<'_>) -> Result<()> {
    for kind in ["in-process", "http"] {
        for threads in context.options.request_threads() {
            let variant = format!("{kind}/{threads}-threads");
            let all = FIGURES.iter().chain(&["peak"]);
            let mut all = all.map(|figure| format!("{variant}/{figure}"));
            if !all.any(|variant| context.wants("requests", &variant)) {
                continue;
            }
            context.begin("requests", &variant);
            let ways = Way::all(&context.peers);
            if kind == "http" {
                http::measure(context, &ways, threads, &variant)?;
            } else {
                measure(context, &ways, threads, &variant);
            }
        }
    }
    Ok(())
}

/// What one contender took, round by round.
#[derive(Debug, Default)]
struct Rounds {
    figures: [Vec<f64>; FIGURES.len()],
    /// The times of all rounds.
    all: Option<Times>,
}

/// Nanoseconds, to a hundredth.
type Times = Histogram<u64>;

fn no_times() -> Times {
    const LONGEST: u64 = 100_000_000_000;
    Times::new_with_max(LONGEST, 2).expect("two digits are kept")
}

/// What lasts longer is taken for the longest time that there is room for.
fn note(times: &mut Times, begin: Instant) {
    times.saturating_record(begin.elapsed().as_nanos() as u64);
}

impl Rounds {
    fn add(&mut self, ns: f64, times: &Times) {
        self.figures[0].push(ns);
        for (figure, (_, share)) in self.figures[1..].iter_mut().zip(QUANTILES) {
            figure.push(times.value_at_quantile(share) as f64);
        }
        let all = self.all.get_or_insert_with(no_times);
        all.add(times).expect("all of them grow as they must");
    }
}

/// Takes in what all contenders took.
fn report(context: &mut Context<'_>, ways: &[Way], variant: &str, rounds: &[Rounds]) {
    for (index, figure) in FIGURES.iter().enumerate() {
        let name = format!("{variant}/{figure}");
        if !context.wants("requests", &name) {
            continue;
        }
        let all: Vec<Measured> = ways
            .iter()
            .zip(rounds)
            .map(|(way, rounds)| Measured {
                contender: way.name(),
                is_ours: way.is_ours(),
                rounds: rounds.figures[index].clone(),
            })
            .collect();
        context.results.add("requests", &name, "ns", &all);
    }
    for (way, rounds) in ways.iter().zip(rounds) {
        let Some(times) = &rounds.all else {
            continue;
        };
        let steps = (0..=16).map(|step| 10f64.powf(-f64::from(step) / 4.0));
        let points = steps.map(|share| (times.value_at_quantile(1.0 - share) as f64, share));
        context.results.series.push(Series {
            workload: "requests".to_owned(),
            variant: variant.to_owned(),
            contender: way.name().to_owned(),
            x: "ns".to_owned(),
            y: "share that took longer".to_owned(),
            points: points.filter(|point| point.0 > 0.0).collect(),
        });
    }
}

fn measure(context: &mut Context<'_>, ways: &[Way], threads: usize, variant: &str) {
    let texts = way::texts();
    let count = requests_for(context.slice * 4, threads, &texts);
    let mut rounds: Vec<Rounds> = ways.iter().map(|_| Rounds::default()).collect();
    let mut sums = Vec::new();
    for round in 0..context.rounds {
        for step in 0..ways.len() {
            let place = (round + step) % ways.len();
            let (ns, times, sum) = turn(ways[place], threads, &texts, count);
            rounds[place].add(ns, &times);
            sums.push(sum);
        }
    }
    // Whoever serves, the answers are the same.
    assert!(sums.iter().all(|sum| Some(sum) == sums.first()), "{sums:?}");
    report(context, ways, variant, &rounds);
}

/// Serves `count` requests in one way, and notes what each took: a sum over the answers, so that nothing is left out.
fn work(way: Way, texts: &[String], count: usize, times: &mut Times) -> u64 {
    way::with(way, |serve| {
        let mut sum = 0u64;
        for text in texts.iter().cycle().take(count) {
            let begin = Instant::now();
            serve(text, &mut |answer| {
                let bytes = answer.iter().map(|byte| u64::from(*byte));
                sum = sum.wrapping_add(answer.len() as u64 + bytes.sum::<u64>());
            });
            note(times, begin);
        }
        sum
    })
}

/// One turn: nanoseconds for a request of all threads together, and the times of each.
fn turn(way: Way, threads: usize, texts: &[String], count: usize) -> (f64, Times, u64) {
    let gate = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let gate = &gate;
                scope.spawn(move || {
                    let mut times = no_times();
                    // So that what a thread does once is done.
                    work(way, texts, count / 20 + 1, &mut times);
                    times.clear();
                    gate.wait();
                    let begin = Instant::now();
                    let sum = work(way, texts, count, &mut times);
                    (sum, begin, Instant::now(), times)
                })
            })
            .collect();
        gate.wait();
        let ended: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .collect();
        let begin = ended.iter().map(|worker| worker.1).min();
        let end = ended.iter().map(|worker| worker.2).max();
        let elapsed = begin
            .zip(end)
            .map_or(Duration::ZERO, |(begin, end)| end - begin);
        let mut all = no_times();
        let mut sum = 0u64;
        for (theirs, _, _, times) in &ended {
            sum = sum.wrapping_add(*theirs);
            all.add(times).expect("all of them grow as they must");
        }
        let ns = elapsed.as_nanos() as f64 / (count * threads) as f64;
        (ns, all, sum)
    })
}

/// As many requests of each thread as take about so long.
fn requests_for(slice: Duration, threads: usize, texts: &[String]) -> usize {
    let (ns, ..) = turn(Way::Plain, threads, texts, 2000);
    ((slice.as_nanos() as f64 / ns / threads as f64) as usize).max(1000)
}
