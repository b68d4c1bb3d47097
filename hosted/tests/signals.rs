//! A heap that signal handlers use, by the shared path, while the threads that they interrupt do the same.
//!
//! Each thread has a timer of its own whose handler allocates, checks and frees, thousands of times a second, wherever
//! the thread happens to be. It catches a section that a handler waits for although the interrupted thread is in it
//! (nothing moves, and an alarm ends the process), a word or a list that is changed in two steps where one is needed
//! (the walker, or an object that is not what its owner wrote), and signals that stay held back (the last check).
//!
//! For a longer run: `TEMPORAL_SLAB_SECONDS=60 cargo test --release -p temporal-slab-hosted --test signals -- --nocapture`.

use core::alloc::Layout;
use core::cell::{Cell, RefCell};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use temporal_slab::config::Checked;
use temporal_slab::lock_api::RawMutex;
use temporal_slab::{AllocError, Epoch, Heap, Policy, RawHandle};
use temporal_slab_hosted::{MmapProvider, SignalLock};

/// A lock that counts the signals that came while it was held, which it let through at its end.
#[derive(Debug)]
struct Counting(SignalLock);

// SAFETY: as for the lock inside.
unsafe impl RawMutex for Counting {
    const INIT: Self = Self(SignalLock::INIT);
    type GuardMarker = <SignalLock as RawMutex>::GuardMarker;

    fn lock(&self) {
        self.0.lock();
    }

    fn try_lock(&self) -> bool {
        self.0.try_lock()
    }

    unsafe fn unlock(&self) {
        if is_pending() {
            LOCKED.fetch_add(1, Relaxed);
        }
        // SAFETY: the caller has it.
        unsafe { self.0.unlock() }
    }
}

static HEAP: Heap<Checked<MmapProvider, Counting>> = Heap::new(MmapProvider::new());

// Figures: `Relaxed`.
static SIGNALS: AtomicU64 = AtomicU64::new(0);
static INSIDE: AtomicU64 = AtomicU64::new(0);
static LOCKED: AtomicU64 = AtomicU64::new(0);
static OPERATIONS: AtomicU64 = AtomicU64::new(0);
/// Handlers may look into the heap. `Relaxed`: a thread's own handler reads what the thread wrote.
static IS_ON: AtomicBool = AtomicBool::new(true);

/// What is live, and how it can be told.
#[derive(Clone, Copy)]
struct Object {
    at: NonNull<u8>,
    layout: Layout,
    byte: u8,
    handle: Option<RawHandle>,
}

const KEPT: usize = 200;

/// What a thread has, or a thread's handler.
struct Hand {
    random: u64,
    objects: [Option<Object>; KEPT],
}

impl Hand {
    const fn new(seed: u64) -> Self {
        Self {
            random: seed,
            objects: [None; KEPT],
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (((self.random >> 32) * bound as u64) >> 32) as usize
    }

    /// Ends what is in a place, and puts something else there.
    fn step(&mut self, epoch: Option<Epoch>) {
        let place = self.below(KEPT);
        if let Some(object) = self.objects[place].take() {
            end(object);
        }
        let size = match self.below(100) {
            0..90 => 1 + self.below(500),
            90..99 => 1 + self.below(20_000),
            _ => 1 + self.below(300_000),
        };
        let layout = Layout::from_size_align(size, 8).unwrap();
        let byte = self.below(256) as u8;
        let is_named = self.below(4) == 0 && HEAP.class_of(layout).is_some();
        let epoch = epoch.filter(|_| self.below(2) == 0);
        let got = match (is_named, epoch) {
            (true, Some(epoch)) => HEAP.alloc_raw_in(epoch, layout).map(Err),
            (true, None) => HEAP.alloc_raw(layout).map(Err),
            (false, Some(epoch)) => HEAP.alloc_in(epoch, layout).map(Ok),
            (false, None) => HEAP.alloc(layout).map(Ok),
        };
        let (at, handle) = match got {
            Ok(Ok(at)) => (at, None),
            Ok(Err(handle)) => (HEAP.get_raw(handle).unwrap(), Some(handle)),
            Err(AllocError::EpochClosed) => return,
            Err(error) => panic!("{error}"),
        };
        // SAFETY: the object is ours and this long.
        unsafe { at.write_bytes(byte, size.min(64)) };
        self.objects[place] = Some(Object {
            at,
            layout,
            byte,
            handle,
        });
    }

    fn end_all(&mut self) {
        self.objects
            .iter_mut()
            .filter_map(Option::take)
            .for_each(end);
    }
}

/// Looks whether an object is what its owner wrote, and frees it.
fn end(object: Object) {
    let Object {
        at,
        layout,
        byte,
        handle,
    } = object;
    // SAFETY: it is live and was written so far.
    let bytes = unsafe { core::slice::from_raw_parts(at.as_ptr(), layout.size().min(64)) };
    assert!(
        bytes.iter().all(|found| *found == byte),
        "somebody else wrote here"
    );
    match handle {
        Some(handle) => HEAP.free_raw(handle).unwrap(),
        // SAFETY: it is live, and nobody uses it any more.
        None => unsafe { HEAP.free(at, layout) }.unwrap(),
    }
}

std::thread_local! {
    /// The handler's, which nothing else uses: it does not interrupt itself.
    static HANDLER: RefCell<Hand> = const { RefCell::new(Hand::new(7)) };
    /// Whether the thread is in the heap.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

extern "C" fn on_signal(_signal: i32) {
    SIGNALS.fetch_add(1, Relaxed);
    if IS_INSIDE.get() {
        INSIDE.fetch_add(1, Relaxed);
    }
    if IS_ON.load(Relaxed) {
        HANDLER.with_borrow_mut(|hand| hand.step(None));
    }
}

/// Whether this thread's signal waits.
fn is_pending() -> bool {
    let mut set = core::mem::MaybeUninit::uninit();
    // SAFETY: the set is a place for one, which the first call fills.
    unsafe {
        libc::sigpending(set.as_mut_ptr());
        libc::sigismember(set.as_ptr(), libc::SIGPROF) == 1
    }
}

/// Runs `f` as something that is in the heap.
fn inside<T>(f: impl FnOnce() -> T) -> T {
    IS_INSIDE.set(true);
    let result = f();
    IS_INSIDE.set(false);
    result
}

/// A timer that signals the calling thread every so often.
struct Timer(libc::timer_t);

impl Timer {
    fn start(every: Duration) -> Self {
        // SAFETY: both structures are plain data, and all that is used of them is set; the timer's place is ours.
        unsafe {
            let mut event: libc::sigevent = core::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGPROF;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer = ptr::null_mut();
            assert_eq!(
                libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer),
                0
            );
            let time = libc::timespec {
                tv_sec: 0,
                tv_nsec: i64::from(every.subsec_nanos()),
            };
            let setting = libc::itimerspec {
                it_interval: time,
                it_value: time,
            };
            assert_eq!(
                libc::timer_settime(timer, 0, &raw const setting, ptr::null_mut()),
                0
            );
            Self(timer)
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer is there.
        unsafe { libc::timer_delete(self.0) };
    }
}

fn seconds() -> u64 {
    std::env::var("TEMPORAL_SLAB_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4)
}

/// Whether there were as many signals as are wanted, and as many of them inside of the heap and of its sections. How long
/// that takes depends on what else the computer does; if it never comes to it the alarm ends the process.
fn is_enough() -> bool {
    let [signals, inside, locked] = [&SIGNALS, &INSIDE, &LOCKED].map(|count| count.load(Relaxed));
    let wanted = 1_000 * seconds() / 60;
    signals >= 1_000 * seconds() && inside >= wanted && locked >= wanted
}

/// One thread, and its handler.
fn work(seed: u64, end: Instant) {
    // The first look at what is the handler's is the thread's.
    HANDLER.with_borrow_mut(|hand| hand.random = seed ^ 99);
    let timer = Timer::start(Duration::from_micros(200));
    let mut hand = Hand::new(seed);
    let mut count = 0;
    while Instant::now() < end || !is_enough() {
        let epoch = inside(|| HEAP.open_epoch()).ok();
        for _ in 0..2_000 {
            inside(|| hand.step(epoch));
            count += 1;
        }
        match hand.below(6) {
            0 => inside(|| HEAP.reclaim()),
            1 => inside(|| HEAP.set_policy(Policy::EAGER)),
            2 => inside(|| HEAP.set_policy(Policy::DEFAULT)),
            3 => drop(inside(|| HEAP.stats())),
            _ => {}
        }
        if let Some(epoch) = epoch {
            inside(|| HEAP.close(epoch)).unwrap();
        }
    }
    drop(timer);
    inside(|| hand.end_all());
    HANDLER.with_borrow_mut(Hand::end_all);
    OPERATIONS.fetch_add(count, Relaxed);
    // SAFETY: a question.
    let held_back = unsafe {
        let mut set = core::mem::MaybeUninit::uninit();
        libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), set.as_mut_ptr());
        libc::sigismember(set.as_ptr(), libc::SIGPROF)
    };
    assert_eq!(held_back, 0, "no lock is held, and signals are held back");
}

#[test]
fn handlers_and_threads_share_a_heap() {
    let seconds = seconds();
    // SAFETY: the handler does what a handler may; the alarm ends a process that hangs.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(
            libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()),
            0
        );
        libc::alarm(u32::try_from(seconds * 10 + 300).unwrap());
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        let threads = [1, 2].map(|seed| scope.spawn(move || work(seed, end)));
        for thread in threads {
            thread.join().unwrap();
        }
    });
    // SAFETY: all threads have ended, and their timers.
    unsafe { libc::alarm(0) };
    HEAP.reclaim();
    // SAFETY: nobody uses the heap.
    let census = unsafe { HEAP.walk() }.unwrap();
    assert_eq!(
        census.live_slots + census.runs + census.regions,
        0,
        "{census:?}"
    );
    let [signals, inside, locked, operations] =
        [&SIGNALS, &INSIDE, &LOCKED, &OPERATIONS].map(|count| count.load(Relaxed));
    println!(
        "{seconds} s: {operations} operations, {signals} signals: {inside} came inside one, and {locked} more than \
         that waited for the end of a section"
    );
    assert!(
        is_enough(),
        "{signals} signals, {inside} inside, {locked} in sections"
    );
}
