//! Producers that allocate, and consumers that do nothing but free: they never allocate, not even to be started or to wait.
//! Objects go through rings that are there beforehand, one from each producer to each consumer.

use super::Pattern;
use super::objects::{Object, Rng, get, read_and_put};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub(super) const PATTERNS: [Pattern; 5] = [
    ("consumers-1x1", || hand_over(1, 1)),
    ("consumers-2x2", || hand_over(2, 2)),
    ("consumers-4x4", || hand_over(4, 4)),
    ("consumers-4x1", || hand_over(4, 1)),
    ("consumers-1x4", || hand_over(1, 4)),
];

/// What all producers make together, in runs that are published at once.
const OBJECTS: usize = RUN * 16 * 6000;
const RUN: usize = 64;
const RUNS: usize = 16;

/// How far an end has come, in a line of its own.
#[repr(align(128))]
struct End(AtomicUsize);

/// Runs of objects, from one thread to another.
struct Ring {
    runs: [UnsafeCell<[MaybeUninit<Object>; RUN]>; RUNS],
    written: End,
    read: End,
}

// SAFETY: a run is the writer's until it is published, and the reader's until that is taken back.
unsafe impl Sync for Ring {}

/// Waits for the other end without blocking: threads may be more than processors.
fn wait(mut is_ready: impl FnMut() -> bool) {
    let mut looks = 0;
    while !is_ready() {
        looks += 1;
        if looks % 32 == 0 {
            thread::yield_now();
        } else {
            core::hint::spin_loop();
        }
    }
}

impl Ring {
    fn new() -> Self {
        Self {
            runs: [const { UnsafeCell::new([MaybeUninit::uninit(); RUN]) }; RUNS],
            written: End(AtomicUsize::new(0)),
            read: End(AtomicUsize::new(0)),
        }
    }

    fn write(&self, mut make: impl FnMut() -> Object) {
        let run = self.written.0.load(Ordering::Relaxed);
        wait(|| run - self.read.0.load(Ordering::Acquire) < RUNS);
        // SAFETY: the reader has done with this run, and waits until it is published.
        let places = unsafe { &mut *self.runs[run % RUNS].get() };
        for place in places {
            place.write(make());
        }
        self.written.0.store(run + 1, Ordering::Release);
    }

    fn free(&self) {
        let run = self.read.0.load(Ordering::Relaxed);
        wait(|| self.written.0.load(Ordering::Acquire) > run);
        // SAFETY: the run is published, and the writer waits until it is read.
        let places = unsafe { &*self.runs[run % RUNS].get() };
        for place in places {
            // SAFETY: all of a published run is written.
            read_and_put(unsafe { place.assume_init() });
        }
        self.read.0.store(run + 1, Ordering::Release);
    }
}

/// The rings that end at one consumer, and how many runs come through each.
struct Consumer {
    rings: Vec<Ring>,
    runs: usize,
}

/// Begins a thread that the standard library knows nothing of, which would allocate in it.
extern "C" fn consume(consumer: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: it is there until this thread was joined, and only read.
    let consumer = unsafe { &*consumer.cast::<Consumer>() };
    for _ in 0..consumer.runs {
        consumer.rings.iter().for_each(Ring::free);
    }
    core::ptr::null_mut()
}

fn hand_over(producers: usize, consumers: usize) -> usize {
    let runs = OBJECTS / RUN / (producers * consumers);
    let rings = || (0..producers).map(|_| Ring::new()).collect();
    let consumers: Vec<Consumer> = (0..consumers)
        .map(|_| Consumer {
            rings: rings(),
            runs,
        })
        .collect();
    let start = |consumer: &Consumer| {
        let mut thread: libc::pthread_t = 0;
        let given = (&raw const *consumer).cast_mut().cast();
        // SAFETY: what is given outlives the thread, which is joined below.
        let result =
            unsafe { libc::pthread_create(&raw mut thread, core::ptr::null(), consume, given) };
        assert_eq!(result, 0, "a thread could not be started");
        thread
    };
    let threads: Vec<libc::pthread_t> = consumers.iter().map(start).collect();
    thread::scope(|scope| {
        for place in 0..producers {
            let consumers = &consumers;
            scope.spawn(move || {
                let mut rng = Rng::nth(place);
                for _ in 0..runs {
                    for consumer in consumers {
                        consumer.rings[place].write(|| get(rng.between(16, 512)));
                    }
                }
            });
        }
    });
    for thread in threads {
        // SAFETY: each was started, and is joined once.
        unsafe { libc::pthread_join(thread, core::ptr::null_mut()) };
    }
    OBJECTS
}
