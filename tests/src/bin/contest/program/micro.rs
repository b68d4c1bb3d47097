//! Small objects on one thread.

use super::Pattern;
use super::objects::{Object, Rng, get, put, replace};
use std::hint::black_box;

pub(super) const PATTERNS: [Pattern; 8] = [
    ("pair", pair),
    ("batch", batch),
    ("reversed", reversed),
    ("random", || {
        replace(10_000, 20_000_000, &mut Rng(7), |_| get(64))
    }),
    ("mixed", || {
        replace(10_000, 12_000_000, &mut Rng(7), |rng| {
            get(rng.between(16, 766))
        })
    }),
    ("replace-4000", || {
        replace(4000, 20_000_000, &mut Rng(7), |rng| get(rng.between(8, 64)))
    }),
    ("loop-small", loop_small),
    ("vectors", vectors),
];

fn pair() -> usize {
    const TIMES: usize = 30_000_000;
    for _ in 0..TIMES {
        put(get(64));
    }
    TIMES
}

const BATCH: usize = 10_000;
const BATCHES: usize = 2500;

fn batch() -> usize {
    let mut objects: Vec<Object> = Vec::with_capacity(BATCH);
    for _ in 0..BATCHES {
        objects.extend((0..BATCH).map(|_| get(64)));
        objects.drain(..).for_each(put);
    }
    BATCH * BATCHES
}

fn reversed() -> usize {
    let mut objects: Vec<Object> = Vec::with_capacity(BATCH);
    for _ in 0..BATCHES {
        objects.extend((0..BATCH).map(|_| get(64)));
        objects.drain(..).rev().for_each(put);
    }
    BATCH * BATCHES
}

/// Each small size in turn, one object at a time.
fn loop_small() -> usize {
    const TIMES: usize = 500_000;
    for _ in 0..TIMES {
        for size in (8..=512).step_by(8) {
            put(get(size));
        }
    }
    TIMES * 64
}

fn vectors() -> usize {
    const TIMES: usize = 250_000;
    for _ in 0..TIMES {
        let mut numbers = Vec::new();
        for n in 0..1000u64 {
            numbers.push(black_box(n));
        }
        black_box(&numbers);
    }
    TIMES * 1000
}
