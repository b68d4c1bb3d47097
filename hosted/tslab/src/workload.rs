//! Workloads to look at: one that is as it should be, and one for each thing that can be wrong.

use anyhow::Result;
use core::alloc::Layout;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use temporal_slab::{Epoch, Policy};
use temporal_slab_hosted::TemporalSlab;

/// One in so many allocations is timed.
const SAMPLED: NonZeroU32 = NonZeroU32::new(64).unwrap();

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Threads that serve requests, each in a phase of its own, and a cache.
    Requests,
    /// The same, and a phase whose objects are kept for good.
    Leak,
    /// Phases of which one object in 64 is kept.
    Pinned,
    /// Batches under a policy that keeps nothing.
    Churn,
    /// Threads that share one path.
    Contention,
    /// Epochs that nobody closes.
    Forgotten,
}

/// A workload that runs until this is dropped.
pub(crate) struct Running {
    kind: Kind,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

pub(crate) fn start(kind: Kind) -> Result<Running> {
    let stop = Arc::new(AtomicBool::new(false));
    if kind == Kind::Churn {
        TemporalSlab::heap().set_policy(Policy::EAGER);
    }
    let work: &[fn(&AtomicBool)] = match kind {
        Kind::Requests => &[requests, requests],
        Kind::Leak => &[requests, leak],
        Kind::Pinned => &[requests, pinned],
        Kind::Churn => &[churn, churn],
        Kind::Contention => &[contention, contention, contention, contention],
        Kind::Forgotten => &[requests, forgotten],
    };
    let threads = work.iter().enumerate().map(|(number, work)| {
        let stop = Arc::clone(&stop);
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                TemporalSlab::sample_thread(Some(SAMPLED));
                work(&stop);
            })
    });
    Ok(Running {
        kind,
        threads: threads.collect::<Result<_, _>>()?,
        stop,
    })
}

/// What a request builds: maps, texts, lists.
fn request(number: usize) -> usize {
    let mut fields: HashMap<String, Vec<String>> = HashMap::new();
    for field in 0..8 {
        let values =
            (0..1 + (number + field) % 7).map(|n| format!("value {n} of request {number}"));
        fields.insert(format!("field-{field}"), values.collect());
    }
    let body: Vec<u8> = fields
        .keys()
        .flat_map(|name| name.bytes())
        .cycle()
        .take(1 + number % 5000)
        .collect();
    body.len() + fields.len()
}

fn requests(stop: &AtomicBool) {
    let mut cache: VecDeque<Vec<u8>> = VecDeque::with_capacity(1000);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(phase) = TemporalSlab::phase() else {
            continue;
        };
        let _labelled = TemporalSlab::heap().set_label(phase.epoch(), "request");
        let answer = request(number);
        drop(phase);
        cache.push_back(vec![1; answer % 700]);
        if cache.len() > 900 {
            cache.pop_front();
        }
        if number % 200 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// An epoch of its own that is labelled.
fn epoch(label: &str) -> Option<Epoch> {
    let epoch = TemporalSlab::heap().open_epoch().ok()?;
    TemporalSlab::heap().set_label(epoch, label).ok()?;
    Some(epoch)
}

fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

fn leak(stop: &AtomicBool) {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    if let Some(epoch) = epoch("session store") {
        if let Ok(routed) = TemporalSlab::route(epoch) {
            kept.extend((0..5000).map(|n| vec![2; 64 + n % 64]));
            drop(routed);
        }
        TemporalSlab::flush_thread();
        let _closed = TemporalSlab::heap().close(epoch);
    }
    requests(stop);
}

fn pinned(stop: &AtomicBool) {
    let mut kept: Vec<Box<[u8]>> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if kept.len() < 2000
            && let Some(epoch) = epoch("frames, one in 64 kept")
        {
            if let Ok(routed) = TemporalSlab::route(epoch) {
                let objects: Vec<Box<[u8]>> = (0..64 * 500)
                    .map(|_| vec![3; 128].into_boxed_slice())
                    .collect();
                drop(routed);
                kept.extend(objects.into_iter().step_by(64));
            }
            TemporalSlab::flush_thread();
            let _closed = TemporalSlab::heap().close(epoch);
        }
        pause();
    }
}

fn churn(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let objects: Vec<Vec<u8>> = (0..20_000).map(|n| vec![4; 200 + n % 50]).collect();
        drop(objects);
        TemporalSlab::flush_thread();
    }
}

fn contention(stop: &AtomicBool) {
    let (heap, layout) = (TemporalSlab::heap(), Layout::new::<[u64; 8]>());
    while !stop.load(Ordering::Relaxed) {
        let objects: Vec<_> = (0..100).filter_map(|_| heap.alloc(layout).ok()).collect();
        for object in objects {
            // SAFETY: it was just allocated with this layout, and is used by nobody.
            let _freed = unsafe { heap.free(object, layout) };
        }
    }
}

fn forgotten(stop: &AtomicBool) {
    let mut kept: VecDeque<Vec<Vec<u8>>> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        if kept.len() < 20
            && let Some(epoch) = epoch("import that nobody ended")
            && let Ok(routed) = TemporalSlab::route(epoch)
        {
            kept.push_back((0..200).map(|n| vec![5; n]).collect());
            drop(routed);
        }
        pause();
    }
}
