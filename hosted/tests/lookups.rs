//! Looks up addresses from threads that own nothing there, while their mappings are removed.
//!
//! As the core's test of this name, over `MmapProvider`, which unmaps chunks: [`Heap::usable_size`] and [`Local::usable_size`] of a
//! heap of the test's own, and [`TemporalSlab::usable_size`] of the process's heap. All of it is safe code.
//!
//! Catches a header of a chunk that is read after the lock was released under which the chunk was found, or that a thread's
//! local remembers: the process ends by SIGSEGV. So each test runs in a process of its own.
//!
//! Before lookups were made safe, each test failed within 0.4 seconds, in each of nine runs.
//!
//! For a longer run: `TEMPORAL_SLAB_SECONDS=60 cargo test --release -p temporal-slab-hosted --test lookups`.
#![cfg(target_os = "linux")]

mod common;

use common::lookups::{Board, Polite};
use common::{Rng, alone, layout};
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};
use temporal_slab::config::{Checked, Config, Unchecked};
use temporal_slab::provider::PageProvider;
use temporal_slab::{FreeError, Heap, Policy, Scope};
use temporal_slab_hosted::{MmapProvider, TemporalSlab};

#[global_allocator]
static GLOBAL: TemporalSlab = TemporalSlab;

const CHUNK: usize = MmapProvider::CHUNK_SIZE;
const ASKERS: u64 = 7;
static BOARD: Board = Board::new();

fn show(rng: &mut Rng, object: NonNull<u8>) {
    BOARD.show(rng, object.as_ptr());
}

/// Allocates objects of all sizes in scopes, of one size some chunks full; publishes and frees them; reclaims.
fn make<C: Config>(heap: &Heap<C>, rng: &mut Rng) {
    let scope = Scope::new(heap);
    for size in [100, 5000, 30_000, 3 << 20] {
        show(rng, scope.alloc_layout(layout(size)).unwrap());
    }
    for size in [16, 1000] {
        let handle = scope.alloc_raw(layout(size)).unwrap();
        let object = heap.get_raw(handle).unwrap();
        assert!(heap.usable_size(object).is_err(), "it has a handle");
        show(rng, object);
    }
    // Of one scope the blocks soon are larger than chunks.
    let size = 64_000 * (1 + rng.below(8));
    let scopes: Vec<_> = (0..12_000_000 / size).map(|_| Scope::new(heap)).collect();
    for scope in &scopes {
        show(rng, scope.alloc_layout(layout(size)).unwrap());
    }
    drop((scope, scopes));
    heap.reclaim();
}

/// Runs `make` on one thread, and what `asker` returns on seven others.
fn storm<A: FnMut(NonNull<u8>) -> Result<usize, FreeError>>(
    make: impl Fn(&mut Rng),
    asker: impl Fn() -> A + Sync,
) {
    let seconds = std::env::var("TEMPORAL_SLAB_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let [asked, found] = [const { AtomicU64::new(0) }; 2];
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..ASKERS {
            let (asked, found, is_over, asker) = (&asked, &found, &is_over, &asker);
            scope.spawn(move || {
                let (mut rng, mut ask) = (Rng(100 + seed), asker());
                Polite::yield_each(1);
                while !is_over.load(Relaxed) {
                    for _ in 0..256 {
                        let size = ask(BOARD.any(&mut rng, CHUNK));
                        assert_ne!(size, Ok(0));
                        found.fetch_add(u64::from(size.is_ok()), Relaxed);
                    }
                    asked.fetch_add(256, Relaxed);
                }
            });
        }
        let mut rng = Rng(1);
        while Instant::now() < end {
            make(&mut rng);
        }
        is_over.store(true, Relaxed);
    });
    println!("{asked:?} asked for, {found:?} found");
    assert!(
        found.into_inner() > 0,
        "nothing was there when it was asked for"
    );
}

/// Half of the askers ask the heap, half a local of their own.
fn own_heap<C: Config<Provider = MmapProvider, Lock = Polite>>() {
    let heap = Heap::<C>::new(MmapProvider::new());
    heap.set_policy(Policy::EAGER);
    let (heap, turn) = (&heap, AtomicU64::new(0));
    storm(
        |rng| make(heap, rng),
        || {
            let by_local = turn.fetch_add(1, Relaxed) % 2 == 0;
            let local = heap.local().unwrap();
            move |object| {
                if by_local {
                    local.usable_size(object)
                } else {
                    heap.usable_size(object)
                }
            }
        },
    );
    heap.reclaim();
    // SAFETY: all threads have ended, and their locals.
    let census = unsafe { heap.walk() }.unwrap();
    assert_eq!((census.live_slots, census.runs, census.regions), (0, 0, 0));
}

#[test]
fn addresses_of_a_checked_heap() {
    if !alone("addresses_of_a_checked_heap") {
        own_heap::<Checked<MmapProvider, Polite>>();
    }
}

#[test]
fn addresses_of_an_unchecked_heap() {
    if !alone("addresses_of_an_unchecked_heap") {
        own_heap::<Unchecked<MmapProvider, Polite>>();
    }
}

/// The process's heap, which also serves the test itself. Live objects are found.
#[test]
fn addresses_of_the_process() {
    if alone("addresses_of_the_process") {
        return;
    }
    TemporalSlab::heap().set_policy(Policy::EAGER);
    storm(
        |rng| {
            let size = 1000 * (1 + rng.below(500));
            let kept: Vec<Vec<u8>> = (0..12_000_000 / size)
                .map(|_| Vec::with_capacity(size))
                .collect();
            for bytes in &kept {
                let object = NonNull::new(bytes.as_ptr().cast_mut()).unwrap();
                show(rng, object);
                let found = TemporalSlab::usable_size(object).unwrap();
                assert!(found >= bytes.capacity(), "{found} of {}", bytes.capacity());
            }
            drop(kept);
            make(TemporalSlab::heap(), rng);
        },
        || TemporalSlab::usable_size,
    );
}
