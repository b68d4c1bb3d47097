//! A thread that gives back what was empty for a while.
//!
//! The policy of a heap decides what happens when memory becomes empty; this decides what happens when it
//! stays so. Several times in each decay it asks the heap how much was empty all the time since the last
//! question. The least of these over one decay was of no use to anybody for so long, and goes back.

use crate::sys;
use core::fmt;
use core::time::Duration;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use temporal_slab::Heap;
use temporal_slab::config::Config;

/// Questions in each decay.
const LOOKS: usize = 8;

/// The thread. It ends when this is dropped. A forked child has none, and dropping this there does nothing.
pub struct Reclaimer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
    /// The process that has the thread.
    process: i32,
}

impl Reclaimer {
    /// Starts a thread that gives back what of `heap` was empty for `decay`.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start<C>(heap: &'static Heap<C>, decay: Duration) -> io::Result<Self>
    where
        C: Config<Provider: Sync, Lock: Sync> + 'static,
    {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let seen = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("tslab-reclaim".to_owned())
            .spawn(move || run(heap, decay, &seen))?;
        Ok(Self {
            stop,
            thread: Some(thread),
            process: sys::process(),
        })
    }
}

fn run<C: Config>(heap: &Heap<C>, decay: Duration, stop: &(Mutex<bool>, Condvar)) {
    let pause = (decay / LOOKS as u32).max(Duration::from_millis(1));
    let mut seen = [0; LOOKS];
    for look in (0..LOOKS).cycle() {
        let stopped = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = stop
            .1
            .wait_timeout_while(stopped, pause, |stopped| !*stopped);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
        let idle = heap.take_idle_bytes();
        if let Some(place) = seen.get_mut(look) {
            *place = idle;
        }
        let unused = seen.iter().copied().min().unwrap_or(0);
        if unused > 0 {
            heap.reclaim_to(heap.bytes().reclaimable.saturating_sub(unused));
            seen.iter_mut().for_each(|s| *s = s.saturating_sub(unused));
            // What just went is not to be taken for use.
            let _since = heap.take_idle_bytes();
        }
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        if self.process != sys::process() {
            // There is nobody to stop, and nobody to free the lock if it was held.
            core::mem::forget(self.thread.take());
            return;
        }
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended, too.
            let _ended = thread.join();
        }
    }
}

impl fmt::Debug for Reclaimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reclaimer").finish_non_exhaustive()
    }
}
