//! Looks up addresses from threads that own nothing there, while the owners free the objects and the heap gives the memory
//! back.
//!
//! [`Heap::usable_size`] and [`Local::usable_size`] are safe functions: any thread may ask for any address at any time. The first
//! three tests are safe code throughout. The last one also frees pointers that are no objects, which a checked heap allows.
//!
//! Makers allocate in a scope and beside it by every way of allocation: slots of plain slabs, slots of slabs with handles,
//! runs up to 32 KiB, runs of blocks, regions of megabytes. They publish the addresses, free everything and call `reclaim`.
//! Askers ask for the published addresses and for what lies around them: inside objects, behind them, at the
//! ends of chunks, outside of the heap.
//!
//! Catches:
//! - a chunk's map that is read after the lock was released under which the chunk was found. The chunk may be unmapped by
//!   then: SIGSEGV; in Miri and ThreadSanitizer a race with the deallocation, or a use after free;
//! - a chunk that a local remembers although it was unmapped meanwhile: the same;
//! - a slab's body that is read without holding the slab, while its next owner writes it (`Slab::body` against
//!   `Slab::adopt`): a data race in Miri and ThreadSanitizer;
//! - a live object whose size is not found, and a free of no object that is not refused.
//!
//! Before lookups were made safe, each test ended by SIGSEGV within 0.3 seconds, in each of a dozen runs. Miri reported the
//! race of the bodies in the checked heaps, and the race with the deallocation in the unchecked heap and in the last test,
//! each within the first seeds. ThreadSanitizer reported a use after free at once.
//!
//! For a longer run: `TEMPORAL_SLAB_SECONDS=60 cargo test --release -p temporal-slab --all-features --test it lookups::`.

use crate::common::host::HostProvider;
use crate::common::lookups::{Board, Polite};
use crate::common::{Bumping, Family, Hard, Rng, alone, host_keeps, layout, steps, walk};
use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec as VecIn;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use core::time::Duration;
use std::time::Instant;
use temporal_slab::adapter::LocalAllocator;
use temporal_slab::config::{Checked, Config, Unchecked};
use temporal_slab::{Heap, Local, Policy, RawHandle, Scope};

/// Sizes that each way of allocation serves, in chunks of 256 KiB; with chunks of 64 KiB there are no runs of blocks.
const SIZES: [usize; 12] = [
    16,
    48,
    200,
    1000,
    3000,
    8000,
    10_000,
    20_000,
    32_768,
    70_000,
    120_000,
    steps(1_500_000, 140_000),
];
/// Makers and askers together.
const THREADS: usize = steps(8, 4);
/// Scopes of each maker under Miri; elsewhere the time decides.
const ROUNDS: usize = 4;

type TestConfig<F, const CHUNK: usize> = <F as Family>::Over<HostProvider<CHUNK>, Polite>;
type TestHeap<F, const CHUNK: usize> = Heap<TestConfig<F, CHUNK>>;
type TestLocal<'h, F, const CHUNK: usize> = Local<'h, TestConfig<F, CHUNK>>;

/// What the threads of a storm share.
struct Storm<'h, F: Family, const CHUNK: usize> {
    heap: &'h TestHeap<F, CHUNK>,
    board: Board,
    /// Askers free instead of asking.
    frees: bool,
    making: AtomicUsize,
    asked: AtomicU64,
    found: AtomicU64,
    end: Instant,
    /// A thread panicked: the others stop.
    is_over: AtomicBool,
}

/// Stops the storm if its thread panics.
struct Ends<'s>(&'s AtomicBool);
impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Relaxed);
        }
    }
}

impl<F: Family, const CHUNK: usize> Storm<'_, F, CHUNK> {
    /// Allocates, publishes and frees objects of some sizes, half of them in a scope.
    fn make(&self, rng: &mut Rng, beside: impl Allocator + Copy) {
        let (heap, board) = (self.heap, &self.board);
        let scope = Scope::new(heap);
        let mut kept = Vec::new();
        let mut named: Vec<RawHandle> = Vec::new();
        // Few at a time, so that the heap is empty again and again.
        for _ in 0..1 + rng.below(3) {
            let size = SIZES[rng.below(SIZES.len())];
            for _ in 0..1 + rng.below(steps(8, 2)) {
                let object = match rng.below(4) {
                    0 => scope
                        .alloc_layout(layout(size))
                        .unwrap()
                        .as_ptr()
                        .cast_const(),
                    1 => {
                        let Ok(handle) = scope.alloc_raw(layout(size)) else {
                            continue;
                        };
                        heap.get_raw(handle).unwrap().as_ptr()
                    }
                    2 => {
                        let Ok(handle) = heap.alloc_raw(layout(size)) else {
                            continue;
                        };
                        named.push(handle);
                        let object = heap.get_raw(handle).unwrap();
                        assert!(heap.usable_size(object).is_err(), "it has a handle");
                        object.as_ptr()
                    }
                    _ => {
                        let bytes: VecIn<u8, _> = VecIn::with_capacity_in(size, beside);
                        let object = bytes.as_ptr();
                        kept.push(bytes);
                        object
                    }
                };
                board.show(rng, object);
            }
        }
        for bytes in &kept {
            let object = NonNull::new(bytes.as_ptr().cast_mut()).unwrap();
            // As an array of bytes: of no alignment.
            let found = heap.usable_size(object).unwrap();
            assert!(found >= bytes.capacity(), "{found} of {}", bytes.capacity());
        }
        drop(kept);
        named
            .into_iter()
            .for_each(|handle| heap.free_raw(handle).unwrap());
        drop(scope);
    }

    /// Allocates, publishes and frees small objects of an epoch.
    fn make_in_epoch(&self, rng: &mut Rng, local: &mut TestLocal<'_, F, CHUNK>) {
        // A heap whose records are all in use has none.
        let Ok(epoch) = self.heap.open_epoch() else {
            return;
        };
        let mut made = Vec::new();
        for _ in 0..rng.below(steps(60, 4)) {
            let layout = layout(1 + rng.below(1500));
            let object = local.alloc_in(epoch, layout).unwrap();
            self.board.show(rng, object.as_ptr());
            made.push((object, layout));
        }
        for (object, layout) in made {
            // SAFETY: it is live, of this layout, and freed once.
            unsafe { local.free(object, layout) }.unwrap();
        }
        local.leave(epoch);
        self.heap.close(epoch).unwrap();
    }

    fn maker(&self, seed: u64) {
        let _ends = Ends(&self.is_over);
        Polite::yield_each(4);
        let mut rng = Rng(seed);
        let local = LocalAllocator::new(self.heap.local().unwrap());
        let mut of_epochs = self.heap.local().unwrap();
        for round in 0.. {
            if self.is_over.load(Relaxed) || self.is_enough(round) {
                break;
            }
            if round % 2 == 0 {
                self.make(&mut rng, self.heap);
            } else {
                self.make(&mut rng, &local);
            }
            self.make_in_epoch(&mut rng, &mut of_epochs);
            self.heap.reclaim();
        }
        self.making.fetch_sub(1, Relaxed);
    }

    fn is_enough(&self, rounds: usize) -> bool {
        if cfg!(miri) {
            rounds >= ROUNDS
        } else {
            Instant::now() >= self.end
        }
    }

    /// Asks or frees until the makers are done.
    fn asker(&self, seed: u64) {
        let _ends = Ends(&self.is_over);
        Polite::yield_each(4);
        let mut rng = Rng(seed);
        let mut local = self.heap.local().unwrap();
        let (mut asked, mut found) = (0, 0);
        while self.making.load(Relaxed) > 0 && !self.is_over.load(Relaxed) {
            for _ in 0..steps(256, 4) {
                asked += 1;
                if self.frees {
                    self.free(&mut rng, &mut local);
                } else {
                    found += u64::from(self.ask(&mut rng, &mut local));
                }
            }
        }
        self.asked.fetch_add(asked, Relaxed);
        self.found.fetch_add(found, Relaxed);
    }

    /// Asks for the size of something. Returns whether it has one.
    fn ask(&self, rng: &mut Rng, local: &mut TestLocal<'_, F, CHUNK>) -> bool {
        let object = self.board.any(rng, CHUNK);
        let size = if rng.below(2) == 0 {
            self.heap.usable_size(object)
        } else {
            local.usable_size(object)
        };
        // A checked heap knows where objects begin.
        assert!(
            size.is_err()
                || !TestConfig::<F, CHUNK>::CHECKED
                || object.addr().get().is_multiple_of(16)
        );
        assert_ne!(size, Ok(0));
        size.is_ok()
    }

    /// Frees something that is no object, by one of the four ways.
    fn free(&self, rng: &mut Rng, local: &mut TestLocal<'_, F, CHUNK>) {
        assert!(TestConfig::<F, CHUNK>::CHECKED);
        let object = self.board.no_begin(rng, CHUNK);
        let layout = layout(SIZES[rng.below(SIZES.len())]);
        // SAFETY: the heap is checked, and no object begins there: it is refused.
        let freed = unsafe {
            match rng.below(4) {
                0 => self.heap.free(object, layout),
                1 => self.heap.free_unsized(object),
                2 => local.free(object, layout),
                _ => local.free_unsized(object),
            }
        };
        assert!(freed.is_err(), "{object:?} was freed");
    }
}

/// Runs a storm. Returns how many lookups found an object.
fn storm<F: Family, const CHUNK: usize>(policy: Policy, makers: usize, frees: bool) -> u64 {
    host_keeps(false);
    let seconds = std::env::var("TEMPORAL_SLAB_SECONDS").ok();
    let seconds: f64 = seconds.and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let heap = TestHeap::<F, CHUNK>::new(HostProvider::default());
    heap.set_policy(policy);
    let storm = Storm::<F, CHUNK> {
        heap: &heap,
        board: Board::new(),
        frees,
        making: AtomicUsize::new(makers),
        asked: AtomicU64::new(0),
        found: AtomicU64::new(0),
        end: Instant::now() + Duration::from_secs_f64(seconds / 2.0),
        is_over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for seed in 0..makers as u64 {
            let storm = &storm;
            scope.spawn(move || storm.maker(seed));
        }
        for seed in 0..(THREADS - makers) as u64 {
            let storm = &storm;
            scope.spawn(move || storm.asker(100 + seed));
        }
    });
    heap.reclaim();
    assert_eq!(walk(&heap).live_slots, 0);
    let [asked, found] = [&storm.asked, &storm.found].map(|count| count.load(Relaxed));
    println!("chunks of {CHUNK}, {policy:?}: {asked} asked for, {found} found");
    assert!(asked > steps(1000, 8) as u64);
    found
}

/// Runs lookups with small and large chunks, and with policies that give memory back early and late.
fn lookups<F: Family>() {
    let found = storm::<F, 65536>(Policy::EAGER, 1, false)
        + storm::<F, { 1 << 18 }>(Policy::DEFAULT, 2, false);
    assert!(
        found > 0 || cfg!(miri),
        "nothing was there when it was asked for"
    );
}

#[test]
fn any_address_may_be_asked_for() {
    if !alone("lookups::any_address_may_be_asked_for") {
        lookups::<Checked<()>>();
    }
}

#[test]
fn any_address_may_be_asked_for_unchecked() {
    if !alone("lookups::any_address_may_be_asked_for_unchecked") {
        lookups::<Unchecked<()>>();
    }
}

#[test]
fn any_address_may_be_asked_for_in_bump_blocks() {
    temporal_slab_actions::configs! {
        /// Not checked.
        struct Loose {
            const CHECKED: bool = false;
            const BUMPS: bool = true;
        }
    }
    if !alone("lookups::any_address_may_be_asked_for_in_bump_blocks") {
        lookups::<Bumping<()>>();
        lookups::<Loose<()>>();
    }
}

#[test]
fn any_address_may_be_asked_for_of_a_hardened_heap() {
    if !alone("lookups::any_address_may_be_asked_for_of_a_hardened_heap") {
        lookups::<Hard<()>>();
    }
}

/// A checked heap refuses to free what is no object, whatever happens to the memory there meanwhile.
#[test]
fn what_is_no_object_is_refused_beside_reclaims() {
    if !alone("lookups::what_is_no_object_is_refused_beside_reclaims") {
        storm::<Checked<()>, 65536>(Policy::EAGER, 1, true);
        storm::<Hard<()>, { 1 << 18 }>(Policy::DEFAULT, 2, true);
        storm::<Bumping<()>, { 1 << 18 }>(Policy::EAGER, 2, true);
    }
}
