//! Atomics, cells and the lock, from `core` or, under `cfg(loom)`, from loom.
//!
//! Principles:
//! - One place decides which atomics the crate runs on; every other module imports from here, so a
//!   loom model runs the very code that ships.
//! - [`Lock`] hands its data to a closure. No guard type leaks, so a critical section is as long as
//!   the braces show, and nothing that may call the outside world is ever written inside them.
//! - The lock counts how often it was taken, and how often not at once: under itself, so counting costs
//!   no access that the lock's line did not have anyway.
//! - [`Cell`] is a cell whose accesses are guarded by a protocol rather than a lock. Under loom each
//!   access is tracked, so a protocol that lets two of them meet fails its model.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

/// A load that has a place in the one order of all `SeqCst` accesses. loom takes such a load for one that acquires; a
/// read-modify-write, which has a place in the order of the changes of its own word, stands for it there.
#[inline(always)]
pub(crate) fn load_in_order(word: &AtomicU64) -> u64 {
    if cfg!(loom) {
        word.fetch_or(0, Ordering::AcqRel)
    } else {
        word.load(Ordering::SeqCst)
    }
}

/// How often a lock was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LockCounts {
    /// Times that it was taken.
    pub(crate) taken: u64,
    /// Of these, times that somebody else had it at first.
    pub(crate) contended: u64,
}

#[cfg(not(loom))]
mod imp {
    use super::LockCounts;
    use core::cell::UnsafeCell;
    use core::fmt;
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use lock_api::RawMutex;

    /// Data behind a raw mutex that the embedder chooses.
    pub(crate) struct Lock<R, T> {
        raw: R,
        /// Both counts are written under the lock alone and read by anyone: `Relaxed`, figures.
        taken: AtomicU64,
        contended: AtomicU64,
        data: UnsafeCell<T>,
    }

    // SAFETY: `data` is only reached between `lock` and `unlock` of `raw`, which excludes all other
    // threads, so sharing the lock moves `T` between threads and never shares it.
    unsafe impl<R: Sync, T: Send> Sync for Lock<R, T> {}

    impl<R: RawMutex, T> Lock<R, T> {
        pub(crate) const fn new(data: T) -> Self {
            Self {
                raw: R::INIT,
                taken: AtomicU64::new(0),
                contended: AtomicU64::new(0),
                data: UnsafeCell::new(data),
            }
        }

        /// Runs `f` on the data while no one else can. `f` must not call back into the heap's
        /// locks or the provider.
        #[inline]
        pub(crate) fn with<T2>(&self, f: impl FnOnce(&mut T) -> T2) -> T2 {
            struct Unlock<'a, R: RawMutex>(&'a R);
            impl<R: RawMutex> Drop for Unlock<'_, R> {
                #[inline]
                fn drop(&mut self) {
                    // SAFETY: made right after `lock` returned, on this same context.
                    unsafe { self.0.unlock() }
                }
            }
            let at_once = self.raw.try_lock();
            if !at_once {
                self.raw.lock();
            }
            let _unlock = Unlock(&self.raw);
            add(&self.taken, 1);
            if !at_once {
                add(&self.contended, 1);
            }
            // SAFETY: the mutex is held until `_unlock` drops, so this is the only reference.
            f(unsafe { &mut *self.data.get() })
        }

        /// How often it was taken, as of a moment ago. What [`Lock::hold`] did is not counted.
        pub(crate) fn counts(&self) -> LockCounts {
            // In this order, so that there are never more contended ones than there are.
            let contended = self.contended.load(Relaxed);
            LockCounts {
                taken: self.taken.load(Relaxed).max(contended),
                contended,
            }
        }

        /// Begins to count anew. For who holds the lock.
        pub(crate) fn forget_counts(&self) {
            self.taken.store(0, Relaxed);
            self.contended.store(0, Relaxed);
        }

        /// Takes the lock for as long as the caller says.
        pub(crate) fn hold(&self) {
            self.raw.lock();
        }

        /// Ends [`Lock::hold`].
        ///
        /// # Safety
        /// This context holds the lock, or is a copy of one that did.
        pub(crate) unsafe fn let_go(&self) {
            // SAFETY: the caller's promise.
            unsafe { self.raw.unlock() }
        }

        /// The data, when the caller owns the whole lock.
        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.data.get_mut()
        }
    }

    impl<R, T> fmt::Debug for Lock<R, T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Lock").finish_non_exhaustive()
        }
    }

    /// Adds to a count that only this context writes now.
    #[inline]
    pub(crate) fn add(count: &AtomicU64, more: u64) {
        count.store(count.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// A cell whose readers and writers are kept apart by a protocol named where it is used.
    #[derive(Debug)]
    pub(crate) struct Cell<T>(UnsafeCell<T>);

    impl<T: Copy> Cell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(UnsafeCell::new(value))
        }

        /// # Safety
        /// No other context writes the cell during the call.
        #[inline]
        pub(crate) unsafe fn get(&self) -> T {
            // SAFETY: the caller keeps writers away.
            unsafe { *self.0.get() }
        }

        /// # Safety
        /// No other context reads or writes the cell during the call.
        #[inline]
        pub(crate) unsafe fn set(&self, value: T) {
            // SAFETY: the caller keeps everyone else away.
            unsafe { *self.0.get() = value }
        }
    }
}

#[cfg(loom)]
mod imp {
    use super::{AtomicU64, LockCounts, Ordering};
    use core::marker::PhantomData;

    /// loom's mutex in the shape of the real lock; the raw mutex is only a name here.
    #[derive(Debug)]
    pub(crate) struct Lock<R, T> {
        data: loom::sync::Mutex<T>,
        raw: PhantomData<R>,
    }

    impl<R, T> Lock<R, T> {
        pub(crate) fn new(data: T) -> Self {
            Self {
                data: loom::sync::Mutex::new(data),
                raw: PhantomData,
            }
        }

        pub(crate) fn with<T2>(&self, f: impl FnOnce(&mut T) -> T2) -> T2 {
            f(&mut self
                .data
                .lock()
                .expect("a model does not panic under a lock"))
        }

        pub(crate) fn counts(&self) -> LockCounts {
            LockCounts::default()
        }

        pub(crate) fn forget_counts(&self) {}
    }

    /// Adds to a count that only this context writes now.
    pub(crate) fn add(count: &AtomicU64, more: u64) {
        count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    /// A cell that loom watches.
    #[derive(Debug)]
    pub(crate) struct Cell<T>(loom::cell::UnsafeCell<T>);

    impl<T: Copy> Cell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::cell::UnsafeCell::new(value))
        }

        pub(crate) unsafe fn get(&self) -> T {
            // SAFETY: loom fails the model if a writer is about.
            self.0.with(|p| unsafe { *p })
        }

        pub(crate) unsafe fn set(&self, value: T) {
            // SAFETY: loom fails the model if anyone else is about.
            self.0.with_mut(|p| unsafe { *p = value })
        }
    }
}

pub(crate) use imp::{Cell, Lock, add};

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;
    use core::sync::atomic::AtomicBool;
    use lock_api::RawMutex;

    /// Set when somebody finds the lock taken. `Relaxed`: a flag that orders nothing.
    static IS_AWAITED: AtomicBool = AtomicBool::new(false);

    /// A lock that tells so.
    struct Told(spin::Mutex<()>);

    // SAFETY: it is the lock inside.
    unsafe impl RawMutex for Told {
        const INIT: Self = Self(spin::Mutex::new(()));
        type GuardMarker = lock_api::GuardSend;
        fn lock(&self) {
            RawMutex::lock(&self.0);
        }
        fn try_lock(&self) -> bool {
            let locked = RawMutex::try_lock(&self.0);
            IS_AWAITED.fetch_or(!locked, Ordering::Relaxed);
            locked
        }
        unsafe fn unlock(&self) {
            // SAFETY: the caller has it.
            unsafe { RawMutex::unlock(&self.0) }
        }
    }

    /// Each taking is counted once, and as contended if it had to wait. Catches a count that is missed or doubled.
    #[test]
    fn takings_are_counted() {
        let lock: Lock<Told, u32> = Lock::new(0);
        for _ in 0..10 {
            lock.with(|n| *n += 1);
        }
        let counts = |taken, contended| LockCounts { taken, contended };
        assert_eq!(lock.counts(), counts(10, 0));
        let is_held = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                lock.with(|_| {
                    is_held.store(true, Ordering::Relaxed);
                    // The other comes meanwhile.
                    while !IS_AWAITED.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                });
            });
            while !is_held.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            lock.with(|n| *n += 1);
        });
        assert_eq!(lock.counts(), counts(12, 1));
        lock.forget_counts();
        assert_eq!(lock.counts(), counts(0, 0));
    }
}
