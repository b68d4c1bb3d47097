//! Strings and vectors that grow as they are pushed to, and a buffer that doubles.

use super::Pattern;
use super::objects::Rng;
use std::hint::black_box;

pub(super) const PATTERNS: [Pattern; 3] = [
    ("strings-push", strings),
    ("vectors-push", vectors),
    ("strings-doubling", doubling),
];

/// How many grow at the same time, each in its turn, so that what is behind one is often taken.
const TOGETHER: usize = 8;

/// Strings of 16 bytes to 8 MiB, by pieces of at most 32 bytes.
fn strings() -> usize {
    const PIECE: &str = "thirty-two bytes, which are ASCII";
    let mut rng = Rng(21);
    let mut pushed = 0;
    for _ in 0..40 {
        let mut growing: [(String, usize); TOGETHER] =
            core::array::from_fn(|_| (String::new(), rng.log(16, 8 << 20)));
        while growing.iter().any(|(text, end)| text.len() < *end) {
            for (text, end) in &mut growing {
                // A few pieces in each turn.
                for _ in 0..16 {
                    if text.len() < *end {
                        text.push_str(&PIECE[..rng.between(1, 32)]);
                        pushed += 1;
                    }
                }
            }
        }
        black_box(&growing);
    }
    pushed
}

/// Vectors of 2 to 512 Ki elements of 8 or of 24 bytes, so of up to 12 MiB.
fn vectors() -> usize {
    let mut rng = Rng(22);
    let mut pushed = 0;
    for _ in 0..180 {
        let mut words: [(Vec<u64>, usize); TOGETHER] =
            core::array::from_fn(|_| (Vec::new(), rng.log(2, 512 << 10)));
        let mut triples: Vec<[u64; 3]> = Vec::new();
        let end = rng.log(2, 512 << 10);
        let is_short =
            |words: &[(Vec<u64>, usize)]| words.iter().any(|(list, end)| list.len() < *end);
        while is_short(&words) || triples.len() < end {
            for (list, end) in &mut words {
                for n in 0..32 {
                    if list.len() < *end {
                        list.push(n);
                        pushed += 1;
                    }
                }
            }
            for n in 0..32 {
                if triples.len() < end {
                    triples.push([n; 3]);
                    pushed += 1;
                }
            }
        }
        black_box((&words, &triples));
    }
    pushed
}

/// Buffers that double from 64 bytes to 16 MiB, filled each time.
fn doubling() -> usize {
    const TIMES: usize = 40;
    for turn in 0..TIMES {
        let mut buffer: Vec<u8> = Vec::with_capacity(64);
        buffer.resize(64, turn as u8);
        while buffer.len() < 16 << 20 {
            let len = buffer.len();
            buffer.reserve_exact(len);
            buffer.resize(len * 2, turn as u8);
        }
        black_box(&buffer);
    }
    TIMES * 18
}
