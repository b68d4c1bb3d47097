//! Memory really falls: by policy, by demand, by the background thread, after a gigabyte.
#![cfg(target_os = "linux")]

mod common;

use common::{Rng, TestHeap, TestLocal, alone, layout, touched};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use temporal_slab::Policy;
use temporal_slab_hosted::rss::Usage;
use temporal_slab_hosted::{MmapProvider, Reclaimer};

const MIB: u64 = 1 << 20;

/// The tests take turns: each wants the machine for itself.
static TURN: Mutex<()> = Mutex::new(());

fn in_turn(test: &str) -> bool {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    alone(test)
}

fn resident() -> u64 {
    Usage::read().unwrap().resident_bytes
}

fn fill(local: &mut TestLocal<'_>, count: usize, size: usize) -> Vec<NonNull<u8>> {
    (0..count).map(|_| touched(local, size)).collect()
}

fn free_all(
    local: &mut TestLocal<'_>,
    objects: impl IntoIterator<Item = NonNull<u8>>,
    size: usize,
) {
    for object in objects {
        // SAFETY: each is live and used no more.
        unsafe { local.free(object, layout(size)) }.unwrap();
    }
}

fn shuffle<T>(items: &mut [T]) {
    let mut rng = Rng(11);
    for end in (1..items.len()).rev() {
        items.swap(end, rng.below(end + 1));
    }
}

/// After a gigabyte of 128-byte objects is freed in random order, and reclaimed, at most 1.5 % of the peak
/// is resident. Catches reclamation that needs objects to go in order, and metadata that faults back.
#[test]
fn a_gigabyte_goes_back() {
    if in_turn("a_gigabyte_goes_back") {
        return;
    }
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    let before = resident();
    let count = (1usize << 30) / 128;
    let mut objects = fill(&mut local, count, 128);
    let list = (count * size_of::<NonNull<u8>>()) as u64;
    shuffle(&mut objects);
    let peak = resident() - before - list;
    free_all(&mut local, objects.iter().copied(), 128);
    local.flush();
    heap.reclaim();
    let left = resident() - before - list;
    let percent = left as f64 * 100.0 / peak as f64;
    println!(
        "{} MiB at the peak, {} KiB left: {percent:.2} %",
        peak / MIB,
        left / 1024
    );
    assert!(percent <= 1.5, "{percent}");
}

/// The four policies, switched on a live heap: what each keeps of 64 MiB that became empty in an epoch
/// that is open, what a close makes of it, which gives back all of it under one of them, and that a demand gets it all, from any thread.
#[test]
fn policies_at_work() {
    if in_turn("policies_at_work") {
        return;
    }
    let heap: &'static TestHeap = Box::leak(Box::new(TestHeap::new(MmapProvider::new())));
    let kept = |policy: Policy| {
        heap.set_policy(Policy::NEVER);
        let mut local = heap.local().unwrap();
        let epoch = heap.open_epoch().unwrap();
        let objects: Vec<_> = (0..512 * 1024)
            .map(|_| {
                let object = local.alloc_in(epoch, layout(128)).unwrap();
                // SAFETY: the object is ours and this long.
                unsafe { object.write_bytes(1, 128) };
                object
            })
            .collect();
        let full = resident();
        // Switched while everything is live.
        heap.set_policy(policy);
        free_all(&mut local, objects.iter().copied(), 128);
        local.leave(epoch);
        let empty = full.saturating_sub(resident());
        heap.close(epoch).unwrap();
        let closed = full.saturating_sub(resident());
        drop(local);
        std::thread::spawn(|| heap.reclaim()).join().unwrap();
        let demanded = full.saturating_sub(resident());
        println!(
            "{policy:?}: of 64 MiB {} went as it emptied, {} with the close, {} on demand",
            empty / MIB,
            closed / MIB,
            demanded / MIB
        );
        [empty / MIB, closed / MIB, demanded / MIB]
    };
    let [empty, _, _] = kept(Policy::EAGER);
    assert!(empty >= 60);
    let [empty, closed, _] = kept(Policy::keeping(16 << 20));
    assert!(
        (40..=56).contains(&empty) && (48..=56).contains(&closed),
        "{empty} {closed}"
    );
    let [empty, closed, _] = kept(Policy::ON_CLOSE);
    assert!(empty <= 4 && closed >= 60, "{empty} {closed}");
    let [empty, closed, demanded] = kept(Policy::NEVER);
    assert!(
        empty <= 4 && closed <= 4 && demanded >= 60,
        "{empty} {closed} {demanded}"
    );
}

/// The background thread gives back what was empty for a decay, and not before; what is in use over and over
/// it leaves alone. Dropping it ends it.
#[test]
fn what_stays_empty_decays() {
    if in_turn("what_stays_empty_decays") {
        return;
    }
    let heap: &'static TestHeap = Box::leak(Box::new(TestHeap::new(MmapProvider::new())));
    heap.set_policy(Policy::NEVER);
    let mut local = heap.local().unwrap();
    let decay = Duration::from_millis(800);
    let reclaimer = Reclaimer::start(heap, decay).unwrap();
    // 32 MiB that are used again and again stay, however short each use is.
    let start = Instant::now();
    let mut decommits = 0;
    let (mut full, mut last_use, mut longest) = (0, start, Duration::ZERO);
    while start.elapsed() < 3 * decay {
        longest = longest.max(last_use.elapsed());
        last_use = Instant::now();
        let objects = fill(&mut local, 32 * 1024, 1024);
        full = resident();
        free_all(&mut local, objects, 1024);
        local.flush();
        std::thread::sleep(Duration::from_millis(20));
        if start.elapsed() < decay {
            decommits = heap.page_stats().decommits;
        }
    }
    let given = heap.page_stats().decommits - decommits;
    // On a machine that let this test wait for longer it was not in use.
    let was_in_use = longest.max(last_use.elapsed()) < decay / 2;
    assert!(
        given < 100 || !was_in_use,
        "{given} decommits of what is in use"
    );
    while last_use.elapsed() < decay / 2 {
        std::thread::sleep(Duration::from_millis(5));
        // A machine that is busy may wake this test late: then it proves nothing.
        let left = full.saturating_sub(resident());
        assert!(
            left < 8 * MIB || last_use.elapsed() > decay / 2,
            "too early: {left}"
        );
    }
    while full.saturating_sub(resident()) < 28 * MIB {
        assert!(last_use.elapsed() < 100 * decay, "it does not decay");
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("decayed {:?} after the last use", last_use.elapsed());
    drop(reclaimer);
}

/// Batches on their way from one thread to another. Both look again and again before they let the other run:
/// it is the allocators that are to be measured and not the system's waking.
struct Belt {
    places: [Mutex<Option<Vec<usize>>>; 8],
    is_over: AtomicBool,
}

impl Belt {
    fn new() -> Self {
        Self {
            places: [const { Mutex::new(None) }; 8],
            is_over: AtomicBool::new(false),
        }
    }

    fn put(&self, number: usize, batch: Vec<usize>) {
        let place = &self.places[number % self.places.len()];
        for turn in 0u32.. {
            let mut place = place.lock().unwrap();
            if place.is_none() {
                *place = Some(batch);
                return;
            }
            drop(place);
            rest(turn);
        }
    }

    fn take(&self, number: usize) -> Option<Vec<usize>> {
        let place = &self.places[number % self.places.len()];
        for turn in 0u32.. {
            let is_over = self.is_over.load(Ordering::Acquire);
            let batch = place.lock().unwrap().take();
            if batch.is_some() || is_over {
                return batch;
            }
            rest(turn);
        }
        None
    }
}

fn rest(turn: u32) {
    if turn < 1000 {
        core::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// The objects of a batch.
fn objects(batch: &mut Vec<usize>) -> impl Iterator<Item = NonNull<u8>> {
    batch.drain(..).map(|address| {
        let object = core::ptr::with_exposed_provenance_mut(address);
        NonNull::new(object).expect("no object is at null")
    })
}

/// Allocates so many batches on this thread and frees them on another. Memory stays bounded, however many there are, and
/// locks are taken for batches of objects and not for each. How fast it is in comparison is measured by the benchmark's
/// partners.
fn handoff(batches: usize) {
    const BATCH: usize = 1000;
    let heap: &'static TestHeap = Box::leak(Box::new(TestHeap::new(MmapProvider::new())));
    let (full, empty) = (Belt::new(), Belt::new());
    let mut most = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut local = heap.local().unwrap();
            for number in 0.. {
                let Some(mut batch) = full.take(number) else {
                    break;
                };
                for object in objects(&mut batch) {
                    // SAFETY: the object was handed over and is used no more.
                    unsafe { local.free(object, layout(128)) }.unwrap();
                }
                empty.put(number, batch);
            }
        });
        let mut local = heap.local().unwrap();
        for number in 0..batches {
            // As many as the belts have places are on their way.
            let mut batch = match number {
                0..6 => Vec::with_capacity(BATCH),
                _ => empty.take(number - 6).unwrap_or_default(),
            };
            for _ in 0..BATCH {
                let object = local.alloc(layout(128)).unwrap();
                // SAFETY: the object is ours.
                unsafe { object.cast::<usize>().write(1) };
                batch.push(object.as_ptr().expose_provenance());
            }
            full.put(number, batch);
            if number % 100 == 0 {
                most = most.max(heap.bytes().resident);
            }
        }
        full.is_over.store(true, Ordering::Release);
    });
    let locks = heap.stats().locks.all().taken;
    let share = locks as f64 / (batches * BATCH) as f64;
    println!(
        "{batches} batches of {BATCH}: {most} bytes resident, {share:.4} locks for each object"
    );
    // At most what is on its way, in magazines and stashes.
    assert!(most < 8 << 20, "{most}");
    assert!(share < 0.05, "{share} locks for each object");
}

#[test]
fn producer_and_consumer() {
    if !in_turn("producer_and_consumer") {
        handoff(100_000);
    }
}

#[test]
#[ignore = "takes ten minutes"]
fn producer_and_consumer_soak() {
    if !in_turn("producer_and_consumer_soak") {
        handoff(30_000_000);
    }
}
