//! Atomics, cells and the lock, from `core` or, under `cfg(loom)`, from loom.
//!
//! Principles:
//! - One place decides which atomics the crate runs on; every other module imports from here, so a
//!   loom model runs the very code that ships.
//! - [`Lock`] hands its data to a closure. No guard type leaks, so a critical section is as long as
//!   the braces show, and nothing that may call the outside world is ever written inside them.
//! - [`Cell`] is a cell whose accesses are guarded by a protocol rather than a lock. Under loom each
//!   access is tracked, so a protocol that lets two of them meet fails its model.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

#[cfg(not(loom))]
mod imp {
    use core::cell::UnsafeCell;
    use core::fmt;
    use lock_api::RawMutex;

    /// Data behind a raw mutex that the embedder chooses.
    pub(crate) struct Lock<R, T> {
        raw: R,
        data: UnsafeCell<T>,
    }

    // SAFETY: `data` is only reached between `lock` and `unlock` of `raw`, which excludes all other
    // threads, so sharing the lock moves `T` between threads and never shares it.
    unsafe impl<R: Sync, T: Send> Sync for Lock<R, T> {}

    impl<R: RawMutex, T> Lock<R, T> {
        pub(crate) const fn new(data: T) -> Self {
            Self {
                raw: R::INIT,
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
            self.raw.lock();
            let _unlock = Unlock(&self.raw);
            // SAFETY: the mutex is held until `_unlock` drops, so this is the only reference.
            f(unsafe { &mut *self.data.get() })
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

pub(crate) use imp::{Cell, Lock};
