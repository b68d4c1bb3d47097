//! What a review found by attacking the heap, each kept as a test: providers that do all that their
//! contract allows, callers that do all that safe code may.

use crate::common::host::HostProvider;
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Mutex;
use temporal_slab::adapter::{FindLocal, Global, LockedLocal};
use temporal_slab::config::{Checked, Config, Unchecked};
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region, StaticProvider};
use temporal_slab::{AllocError, FreeError, Heap, Policy};

const CHUNK: usize = 1 << 18;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// Frees what a test allocated.
fn free<C: Config>(heap: &Heap<C>, object: NonNull<u8>, layout: Layout) {
    // SAFETY: tests free what they allocated, once, and use it no more.
    unsafe { heap.free(object, layout) }.unwrap();
}

/// Memory that is never given back, so that a static heap can use it.
fn leaked(size: usize, align: usize) -> Option<Region> {
    // SAFETY: no size here is zero.
    let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout(size, align)) })?;
    Some(Region { base, size })
}

/// A provider that does what its fields say.
#[derive(Default)]
struct Odd {
    host: HostProvider<CHUNK>,
    /// Pages that were decommitted and not committed since.
    uncommitted: Mutex<BTreeSet<usize>>,
    is_lazy: bool,
    fails_commit: AtomicBool,
    loses_on_failed_decommit: AtomicBool,
    /// Chunks come at twice the size, with junk in the second half.
    gives_more: bool,
    /// Bytes of physical memory, if they are counted: decommit gives some back.
    budget: Option<AtomicUsize>,
}

fn pages(region: Region) -> impl Iterator<Item = usize> {
    let base = region.base.addr().get();
    (base..base + region.size).step_by(4096)
}

// SAFETY: memory comes from the host provider, and decommit writes only to what it is given.
unsafe impl PageProvider for Odd {
    const CHUNK_SIZE: usize = CHUNK;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        if let Some(budget) = &self.budget {
            budget
                .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(size))
                .ok()?;
        }
        if !self.gives_more || size != CHUNK {
            return self.host.acquire(size, align);
        }
        let region = self.host.acquire(2 * CHUNK, align)?;
        // SAFETY: the second half is ours still.
        unsafe { region.base.add(CHUNK).write_bytes(0x41, CHUNK) };
        Some(region)
    }
    unsafe fn release(&self, region: Region) {
        if let Some(budget) = &self.budget {
            budget.fetch_add(region.size, SeqCst);
        }
        // SAFETY: passed on.
        unsafe { self.host.release(region) }
    }
    unsafe fn decommit(&self, region: Region) -> Result<(), ProviderError> {
        let fails = self.loses_on_failed_decommit.load(SeqCst);
        // SAFETY: nobody uses the content.
        unsafe {
            region
                .base
                .write_bytes(if fails { 0xDB } else { 0 }, region.size)
        };
        if fails {
            return Err(ProviderError);
        }
        if let Some(budget) = &self.budget {
            budget.fetch_add(region.size, SeqCst);
        }
        self.uncommitted.lock().unwrap().extend(pages(region));
        Ok(())
    }
    unsafe fn commit(&self, region: Region) -> Result<(), ProviderError> {
        if self.fails_commit.swap(false, SeqCst) {
            return Err(ProviderError);
        }
        let mut uncommitted = self.uncommitted.lock().unwrap();
        pages(region).for_each(|page| {
            uncommitted.remove(&page);
        });
        Ok(())
    }
    fn capabilities(&self) -> Capabilities {
        let content = Capabilities::FRESH_ZERO | Capabilities::DECOMMIT_ZERO;
        let lazy = if self.is_lazy {
            Capabilities::LAZY_COMMIT
        } else {
            Capabilities::empty()
        };
        content | Capabilities::DECOMMIT | lazy
    }
}

/// After a commit failed, the same pages are committed before they are handed out.
#[test]
fn a_failed_commit_is_made_up_for() {
    let provider = Odd::default();
    let heap = Heap::<Unchecked<&Odd>>::new(&provider);
    heap.set_policy(Policy::NEVER);
    let l = layout(20_000, 16);
    let kept = heap.alloc(l).unwrap();
    free(&heap, heap.alloc(l).unwrap(), l);
    heap.reclaim();
    assert!(!provider.uncommitted.lock().unwrap().is_empty());
    // Twice, because the heap tries again when something came back meanwhile.
    for _ in 0..2 {
        provider.fails_commit.store(true, SeqCst);
        let object = heap.alloc(l);
        provider.fails_commit.store(false, SeqCst);
        let object = object.or_else(|error| {
            assert_eq!(error, AllocError::OutOfMemory);
            heap.alloc(l)
        });
        let object = object.unwrap();
        let first = object.addr().get();
        let uncommitted = provider
            .uncommitted
            .lock()
            .unwrap()
            .range(first..first + l.size())
            .count();
        assert_eq!(
            uncommitted, 0,
            "pages of a live object that were not committed"
        );
        free(&heap, object, l);
        heap.reclaim();
    }
    free(&heap, kept, l);
}

/// A resize that only asks for a larger alignment gets it.
#[test]
fn a_resize_meets_the_new_alignment() {
    let heap = Heap::<Unchecked<_>>::new(HostProvider::<65536>::default());
    for size in [100, 20_000, 1 << 20] {
        for align in [64, 4096, 1 << 17, 4 << 20] {
            let (old, new) = (layout(size, 8), layout(size, align));
            let objects: Vec<_> = (0..6).map(|_| heap.alloc(old).unwrap()).collect();
            for object in objects {
                // SAFETY: it is live, and the old pointer is used no more.
                let object = unsafe { heap.resize(object, old, new) }.unwrap();
                assert!(object.addr().get().is_multiple_of(align), "{new:?}");
                free(&heap, object, new);
            }
        }
    }
}

struct Leaking;
// SAFETY: the memory is leaked, so it is nobody else's for ever.
unsafe impl PageProvider for Leaking {
    const CHUNK_SIZE: usize = CHUNK;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        leaked(size, align)
    }
    unsafe fn release(&self, _region: Region) {}
    unsafe fn decommit(&self, _pages: Region) -> Result<(), ProviderError> {
        Err(ProviderError)
    }
    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        Ok(())
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::LAZY_COMMIT
    }
}

/// One place for a local, used with two heaps: each heap's objects stay its own.
#[test]
fn a_locked_local_is_of_one_heap() {
    static ONE: Heap<Unchecked<Leaking>> = Heap::new(Leaking);
    static OTHER: Heap<Unchecked<Leaking>> = Heap::new(Leaking);
    let place = LockedLocal::new();
    place.with(&ONE, |local| assert!(local.is_some()));
    let before = ONE.bytes();
    let global = Global::new(&OTHER, place);
    let object = global.try_alloc(layout(64, 8)).unwrap();
    assert!(OTHER.bytes().taken > 0 && ONE.bytes() == before);
    // SAFETY: it is live and used no more.
    unsafe { global.try_free(object, layout(64, 8)) }.unwrap();
}

/// What lies behind a chunk, in a region that is longer than was asked for, is nobody's.
#[test]
fn the_tail_of_a_long_region_is_foreign() {
    let provider = Odd {
        gives_more: true,
        is_lazy: true,
        ..Odd::default()
    };
    let heap = Heap::<Checked<&Odd>>::new(&provider);
    let object = heap.alloc(layout(64, 8)).unwrap();
    let tail = (object.addr().get() & !(CHUNK - 1)) + CHUNK + 100 * 1024;
    let wild = object.map_addr(|_| tail.try_into().unwrap());
    // SAFETY: a checked heap refuses it.
    let freed = unsafe { heap.free(wild, layout(64, 8)) };
    assert_eq!(freed, Err(FreeError::Foreign));
    free(&heap, object, layout(64, 8));
}

/// A decommit that failed may have lost content that was zero before.
#[test]
fn a_failed_decommit_leaves_nothing_to_be_trusted() {
    let provider = Odd {
        is_lazy: true,
        ..Odd::default()
    };
    let heap = Heap::<Unchecked<&Odd>>::new(&provider);
    heap.set_policy(Policy::NEVER);
    let kept = heap.alloc(layout(100_000, 8)).unwrap();
    free(&heap, heap.alloc(layout(9000, 8)).unwrap(), layout(9000, 8));
    provider.loses_on_failed_decommit.store(true, SeqCst);
    heap.reclaim();
    let l = layout(32 * 1024, 16384);
    let objects: Vec<_> = (0..4).map(|_| heap.alloc_zeroed(l).unwrap()).collect();
    for object in objects {
        // SAFETY: it is live and this long.
        let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), l.size()) };
        let step = if cfg!(miri) { 61 } else { 1 };
        assert!(bytes.iter().step_by(step).all(|byte| *byte == 0));
        free(&heap, object, l);
    }
    free(&heap, kept, layout(100_000, 8));
}

/// A request that finds no memory makes the heap give back warm pages too, before it fails.
#[test]
fn pressure_gives_back_all_that_is_empty() {
    let budget = Some(AtomicUsize::new(2 << 20));
    let provider = Odd {
        is_lazy: true,
        budget,
        ..Odd::default()
    };
    let heap = Heap::<Unchecked<&Odd>>::new(&provider);
    heap.set_policy(Policy::NEVER);
    let l = layout(1024, 8);
    let objects: Vec<_> = (0..1500).map(|_| heap.alloc(l).unwrap()).collect();
    let mut kept = Vec::new();
    for (number, object) in objects.into_iter().enumerate() {
        if number % 200 == 0 {
            kept.push(object)
        } else {
            free(&heap, object, l)
        }
    }
    let large = layout(1 << 20, 8);
    free(
        &heap,
        heap.alloc(large)
            .expect("what is empty is given back for it"),
        large,
    );
    kept.into_iter().for_each(|object| free(&heap, object, l));
}

thread_local!(static HELD: Cell<usize> = const { Cell::new(0) });

/// A lock that counts how many of its kind this thread holds.
struct Counting(spin::Mutex<()>);
// SAFETY: it is the inner mutex, and counts.
unsafe impl lock_api::RawMutex for Counting {
    const INIT: Self = Self(spin::Mutex::new(()));
    type GuardMarker = lock_api::GuardSend;
    fn lock(&self) {
        core::mem::forget(self.0.lock());
        HELD.set(HELD.get() + 1);
    }
    fn try_lock(&self) -> bool {
        let locked = self.0.try_lock().map(core::mem::forget).is_some();
        HELD.set(HELD.get() + usize::from(locked));
        locked
    }
    unsafe fn unlock(&self) {
        HELD.set(HELD.get() - 1);
        // SAFETY: the caller holds it.
        unsafe { self.0.force_unlock() }
    }
}

/// Fails the test if it is called under a lock.
struct Watching;
impl Watching {
    fn look(what: &str) {
        assert_eq!(HELD.get(), 0, "{what} was called under a lock");
    }
}
// SAFETY: as for `Leaking`; a decommit that does nothing keeps to its range.
unsafe impl PageProvider for Watching {
    const CHUNK_SIZE: usize = CHUNK;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        Self::look("acquire");
        leaked(size, align)
    }
    unsafe fn release(&self, _region: Region) {
        Self::look("release");
    }
    unsafe fn decommit(&self, _pages: Region) -> Result<(), ProviderError> {
        Self::look("decommit");
        Ok(())
    }
    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        Self::look("commit");
        Ok(())
    }
    fn capabilities(&self) -> Capabilities {
        Self::look("capabilities");
        Capabilities::DECOMMIT | Capabilities::POPULATE
    }
    unsafe fn populate(&self, _pages: Region) {
        Self::look("populate");
    }
    fn page_size(&self) -> usize {
        Self::look("page_size");
        4096
    }
    fn now_ns(&self) -> Option<u64> {
        Self::look("now_ns");
        Some(1)
    }
    fn resident_bytes(&self) -> Option<u64> {
        Self::look("resident_bytes");
        None
    }
}

temporal_slab_actions::configs! {
    /// As [`Watching`], for what a configuration runs.
    struct WatchingCpu {
        const CHECKED: bool = false;
        fn cpu() -> u32 {
            Watching::look("cpu");
            0
        }
    }
}

/// Neither the provider nor what a configuration runs is called with one of the heap's locks held.
#[test]
#[cfg_attr(miri, ignore = "it leaks what it allocates")]
fn the_provider_is_called_with_no_lock_held() {
    static HEAP: Heap<WatchingCpu<Watching, Counting>> = Heap::new(Watching);
    let mut local = HEAP.local().unwrap();
    for policy in [Policy::EAGER, Policy::DEFAULT] {
        HEAP.set_policy(policy);
        for size in [16, 100, 9000, 100_000, 1 << 20] {
            let l = layout(size, 8);
            let objects: Vec<_> = (0..100).map(|_| local.alloc(l).unwrap()).collect();
            for object in objects {
                // SAFETY: it is live and used no more.
                unsafe { local.free(object, l) }.unwrap();
            }
            let objects: Vec<_> = (0..20).map(|_| HEAP.alloc(l).unwrap()).collect();
            for object in objects {
                // SAFETY: it is live and used no more.
                unsafe { HEAP.free(object, l) }.unwrap();
            }
        }
        for _ in 0..3 {
            let epoch = HEAP.advance().unwrap();
            HEAP.enter(epoch).unwrap();
            local.alloc_in(epoch, layout(100, 8)).unwrap();
            assert!(HEAP.epoch_stats(epoch).is_ok() && HEAP.stats().open_epochs > 1);
            assert!(HEAP.exit_and_close(epoch));
            let epoch = HEAP.open_epoch().unwrap();
            HEAP.close(epoch).unwrap();
        }
        HEAP.reserve(CHUNK).unwrap();
        HEAP.reclaim();
    }
    let global = Global::new(&HEAP, LockedLocal::new());
    global.try_alloc(layout(100, 8)).unwrap();
}

/// Counts metadata regions, slowly, so that many threads run short at the same time.
struct Slow(AtomicUsize);
// SAFETY: as for `Leaking`, which it is but for the count.
unsafe impl PageProvider for Slow {
    const CHUNK_SIZE: usize = CHUNK;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        if size == 65536 {
            self.0.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_millis(10));
        }
        Leaking.acquire(size, align)
    }
    unsafe fn release(&self, region: Region) {
        // SAFETY: passed on.
        unsafe { Leaking.release(region) }
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: passed on.
        unsafe { Leaking.decommit(pages) }
    }
    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: passed on.
        unsafe { Leaking.commit(pages) }
    }
    fn capabilities(&self) -> Capabilities {
        Leaking.capabilities()
    }
}

/// Threads that run out of metadata at the same time each bring a region; none is thrown away.
#[test]
#[cfg_attr(miri, ignore = "it leaks what it allocates")]
fn metadata_regions_are_used_up() {
    let regions = |threads: usize| {
        let heap = Heap::<Unchecked<Slow>>::new(Slow(AtomicUsize::new(0)));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..16_000 / threads {
                        heap.alloc(layout(8192, 8)).unwrap();
                    }
                });
            }
        });
        heap.provider().0.load(SeqCst)
    };
    let (one, many) = (regions(1), regions(16));
    // Those that arrive together bring up to one each at the end.
    assert!(
        many <= one + 16,
        "{one} regions for one thread, {many} for sixteen"
    );
}

/// A run that fits is found before the heap says that there is no memory.
#[test]
fn a_free_run_is_found_at_last() {
    #[repr(align(65536))]
    struct Memory([core::mem::MaybeUninit<u8>; 6 * 65536]);
    let mut memory = Box::<Memory>::new_uninit();
    // SAFETY: uninitialised bytes are what it is made of.
    let memory = unsafe { memory.assume_init_mut() };
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory.0);
    let heap = Heap::<Unchecked<_>>::new(provider);
    let run = |granules: usize| layout(granules * 1024, 4096);
    let take = |granules: usize| heap.alloc(run(granules)).unwrap();
    take(28);
    take(12);
    let fits = take(20);
    let mut holes = Vec::new();
    for _ in 0..4 {
        take(28);
        take(16);
        holes.push(take(16));
    }
    assert_eq!(heap.alloc(run(20)), Err(AllocError::OutOfMemory));
    free(&heap, fits, run(20));
    holes
        .into_iter()
        .for_each(|hole| free(&heap, hole, run(16)));
    heap.alloc(run(20)).expect("the first run is free again");
}

/// An alignment that is none is refused by the provider, not worked with.
#[test]
fn a_static_provider_refuses_what_is_no_alignment() {
    let mut memory = Box::<[u8]>::new_uninit_slice(1 << 16);
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
    assert!(provider.acquire(64, 101).is_none() && provider.acquire(0, 8).is_none());
}
