//! The second thread.
//!
//! There is one for the whole run: the peers keep what a thread freed with the thread, and one that
//! had just begun would have nothing.

use core::hint::spin_loop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// Begins when it is first used: a C library may take short cuts in a process of one thread.
static JOBS: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    thread::spawn(move || queue.into_iter().for_each(|job| job()));
    Mutex::new(jobs)
});

/// Runs `work` on the second thread; its result comes through the receiver.
pub(super) fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (result, receiver) = mpsc::sync_channel(1);
    let job = Box::new(move || {
        // Nobody waits for it any more if the run is ending.
        let _unwanted = result.send(work());
    });
    lock(&JOBS).send(job).expect("the second thread is there");
    receiver
}

/// What [`start`] gave a receiver for.
pub(super) fn finish<T>(receiver: &Receiver<T>) -> T {
    receiver.recv().expect("the second thread did its work")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panicked")
}

/// Waits without going to sleep, for waking up costs more than what is timed. But where another
/// program has a CPU, whom this waits for may need this one.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let mut spins = 0u32;
    while !is_so() {
        spins += 1;
        if spins < 200 {
            spin_loop();
        } else {
            thread::yield_now();
        }
    }
}

/// Where two threads meet, once.
#[derive(Default)]
pub(super) struct Gate(AtomicU32);

impl Gate {
    /// Returns when both threads have called it.
    pub(super) fn pass(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
        wait_until(|| self.0.load(Ordering::Acquire) >= 2);
    }
}

/// An object on its way to the other thread.
#[derive(Clone, Copy)]
pub(super) struct Parcel(pub(super) NonNull<u8>);

// SAFETY: whoever has the parcel is the only one who uses the object, and every contender lets any
// thread free it.
unsafe impl Send for Parcel {}

/// Objects that are passed at a time.
pub(super) const BATCH: usize = 1_000;

/// Batches that can be on their way.
const DEPTH: usize = 8;

/// A bounded queue from one thread to one other. One flag and one lock that is never contended, for
/// a whole batch, so that its cost for each object does not count.
pub(super) struct Ring {
    slots: [Slot; DEPTH],
}

struct Slot {
    is_full: AtomicBool,
    batch: Mutex<Vec<Parcel>>,
}

impl Ring {
    /// An empty queue.
    pub(super) fn new() -> Self {
        let slot = |_| Slot {
            is_full: AtomicBool::new(false),
            batch: Mutex::new(vec![Parcel(NonNull::dangling()); BATCH]),
        };
        Self {
            slots: core::array::from_fn(slot),
        }
    }

    /// Lets `fill` write batch `number`, once there is room.
    pub(super) fn put(&self, number: usize, fill: impl FnOnce(&mut [Parcel])) {
        self.pass(number, false, fill);
    }

    /// Lets `read` have batch `number`, once it is there.
    pub(super) fn take(&self, number: usize, read: impl FnOnce(&mut [Parcel])) {
        self.pass(number, true, read);
    }

    fn pass(&self, number: usize, when_full: bool, f: impl FnOnce(&mut [Parcel])) {
        let slot = &self.slots[number % DEPTH];
        wait_until(|| slot.is_full.load(Ordering::Acquire) == when_full);
        f(&mut lock(&slot.batch));
        slot.is_full.store(!when_full, Ordering::Release);
    }
}
