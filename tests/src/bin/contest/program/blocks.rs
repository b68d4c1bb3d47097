//! Blocks of megabytes.

use super::Pattern;
use super::objects::{Rng, get_ends, get_filled, get_touched, replace};
use std::sync::mpsc::sync_channel;
use std::thread;

pub(super) const PATTERNS: [Pattern; 4] = [
    ("blocks-whole", || {
        replace(SLOTS, 60, &mut Rng(3), |rng| {
            get_filled(rng.log(LEAST, MOST))
        })
    }),
    ("blocks-ends", || {
        replace(SLOTS, 25_000, &mut Rng(3), |rng| {
            get_ends(rng.log(LEAST, MOST))
        })
    }),
    ("blocks-1-21", || {
        replace(20, 300, &mut Rng(3), |rng| {
            get_touched(rng.between(1 << 20, 21 << 20))
        })
    }),
    ("buffers-queue", buffers),
];

/// About 300 MiB: the mean of what each doubling has alike is 5.1 MiB here.
const SLOTS: usize = 59;
const LEAST: usize = 64 << 10;
const MOST: usize = 32 << 20;

/// Buffers that are filled here and read and freed by another thread.
fn buffers() -> usize {
    const TIMES: usize = 400;
    let (give, take) = sync_channel::<Vec<u8>>(4);
    let reading = thread::spawn(move || {
        let sum = |buffer: Vec<u8>| {
            buffer
                .iter()
                .step_by(4096)
                .map(|n| u64::from(*n))
                .sum::<u64>()
        };
        take.into_iter().map(sum).sum::<u64>()
    });
    let mut rng = Rng(9);
    for turn in 0..TIMES {
        let buffer = vec![turn as u8; rng.between(1 << 20, 6 << 20)];
        give.send(buffer).expect("the other thread is there");
    }
    drop(give);
    reading.join().expect("it does not panic");
    TIMES
}
