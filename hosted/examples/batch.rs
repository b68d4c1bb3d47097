//! A batch job: threads take batches of lines, each in a phase, and what comes of a batch is handed to the thread that sums up.
//!
//! ```sh
//! cargo run --release -p temporal-slab-hosted --example batch
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use temporal_slab_hosted::TemporalSlab;

#[global_allocator]
static GLOBAL: TemporalSlab = TemporalSlab;

const WORDS: [&str; 8] = [
    "epoch", "slab", "block", "page", "local", "depot", "class", "scope",
];

/// The lines of a batch, as they come from somewhere.
fn lines(batch: usize) -> Vec<String> {
    let line = |line: usize| {
        let words = (0..10).map(|word| WORDS[(batch * 31 + line * 7 + word * word) % WORDS.len()]);
        words.collect::<Vec<_>>().join(" ")
    };
    (0..200).map(line).collect()
}

/// How often each word is in a batch.
fn count(batch: usize) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for line in lines(batch) {
        for word in line.split(' ') {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Counts the words of all batches, on some threads.
fn run(threads: usize, batches: usize) -> HashMap<String, u64> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = channel::<HashMap<String, u64>>();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let batch = next.fetch_add(1, Ordering::Relaxed);
                    if batch >= batches {
                        break;
                    }
                    // Without an epoch to be had the batch is counted all the same.
                    let _phase = TemporalSlab::phase().ok();
                    // A channel's own memory would be of the batch, too.
                    let counts = count(batch);
                    if TemporalSlab::outside(|| sender.send(counts)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut all: HashMap<String, u64> = HashMap::new();
        // Each map was made in its batch's epoch, and ends here.
        for (word, count) in receiver.into_iter().flatten() {
            *all.entry(word).or_default() += count;
        }
        all
    })
}

fn main() {
    let counts = run(4, 2000);
    let mut words: Vec<_> = counts.iter().collect();
    words.sort_unstable();
    println!("{words:?}");
    let stats = TemporalSlab::heap().stats();
    println!(
        "{} epochs were closed, {} are open",
        stats.closes.closes, stats.open_epochs
    );
}

/// Catches a batch that is lost, and an epoch that is left open or keeps something.
#[test]
fn batches_are_counted_and_gone() {
    let counts = run(4, 200);
    assert_eq!(counts.values().sum::<u64>(), 200 * 200 * 10);
    let stats = TemporalSlab::heap().stats();
    assert_eq!((stats.open_epochs, stats.closes.closes), (1, 200));
    drop(counts);
}
