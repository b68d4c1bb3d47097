//! What a thread has: a local, and the epoch that it is in.
//!
//! # States
//!
//! *new* (nothing yet) -> *making* (its local is being made: a call that comes back here meanwhile takes
//! the shared path) -> *ready* (a local, and nothing else) <-> *inside* (a local and an epoch) or *sampled* (a local and a sampler, and
//! maybe an epoch) -> *gone* (the thread is ending: the shared path). Only the thread itself changes its state.
//!
//! The state lies in a thread-local variable without a destructor, so it can be used from the first call
//! to the last. The local is given up by a destructor of the C library's, which runs after those of Rust.

use super::here::set_magazines;
use super::key::key;
use super::{GlobalConfig, HEAP, fork, or_null};
use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::num::NonZeroU32;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, Ordering};
use temporal_slab::{AllocError, Epoch, Local, Magazines};
use temporal_slab_report::{Latency, Sampler};

/// A guard's place in its thread's list: in the heap, so that the guard may move, or in the frame of a function that waits.
pub(super) struct Node {
    /// None: what is allocated belongs to no epoch but the root.
    pub(super) epoch: Option<Epoch>,
    pub(super) outer: *mut Node,
    pub(super) inner: *mut Node,
}

type TheLocal = Local<'static, GlobalConfig>;

const NEW: u8 = 0;
const MAKING: u8 = 1;
const GONE: u8 = 2;
/// This and what is above it have a local.
const READY: u8 = 3;
const INSIDE: u8 = 4;
const SAMPLED: u8 = 5;

/// The times of all threads that were asked for them.
pub(super) static LATENCY: Latency = Latency::new();

/// One in how many allocations of a thread that begins is sampled, or 0. `Relaxed`: by itself.
static EVERY: AtomicU32 = AtomicU32::new(0);

/// Samples one in `every` allocations of threads that begin from now on, or none.
pub(super) fn sample_new(every: Option<NonZeroU32>) {
    EVERY.store(every.map_or(0, NonZeroU32::get), Ordering::Relaxed);
}

thread_local! {
    pub(super) static THREAD: Thread = const { Thread::new() };
}

/// A thread's own.
pub(super) struct Thread {
    /// What it allocates from, and what it frees to: see `here`, where a shared library has them elsewhere.
    #[cfg_attr(feature = "shared-library", expect(dead_code))]
    pub(super) magazines: Cell<(Magazines, Magazines)>,
    state: Cell<u8>,
    local: UnsafeCell<MaybeUninit<TheLocal>>,
    /// The epoch that the thread is in, if its state says so.
    epoch: Cell<Option<Epoch>>,
    /// What times some of the thread's allocations, if it was asked for.
    sampler: Cell<Option<Sampler<'static>>>,
    is_sampled: Cell<bool>,
    /// The allocation that goes on is one of these.
    is_due: Cell<bool>,
    /// The innermost guard of those that route this thread: see `current`.
    pub(super) innermost: Cell<*mut Node>,
}

impl Thread {
    const fn new() -> Self {
        Self {
            magazines: Cell::new((Magazines::NONE, Magazines::NONE)),
            state: Cell::new(NEW),
            local: UnsafeCell::new(MaybeUninit::uninit()),
            epoch: Cell::new(None),
            sampler: Cell::new(None),
            is_sampled: Cell::new(false),
            is_due: Cell::new(false),
            innermost: Cell::new(ptr::null_mut()),
        }
    }

    /// Changes the state, and what the fast path finds with it.
    fn set_state(&self, state: u8) {
        self.state.set(state);
        let free = if state >= READY {
            // SAFETY: the thread has a local, and nobody is using it.
            unsafe { self.local() }.magazines()
        } else {
            Magazines::NONE
        };
        let alloc = if state == READY {
            free
        } else {
            Magazines::NONE
        };
        set_magazines(self, alloc, free);
    }

    #[inline]
    pub(super) fn has_local(&self) -> bool {
        self.state.get() >= READY
    }

    /// The thread's local.
    ///
    /// # Safety
    /// The thread has one, and no other reference to it is used while this one is.
    #[inline]
    #[expect(
        clippy::mut_from_ref,
        reason = "the caller sees to it that there is one"
    )]
    pub(super) unsafe fn local(&self) -> &mut TheLocal {
        // SAFETY: the caller's promise.
        unsafe { (*self.local.get()).assume_init_mut() }
    }

    /// The thread's local, made if this is the thread's first call; `None` where there is none to be had, or none any more.
    ///
    /// # Safety
    /// No other reference to the local is used while this one is.
    #[expect(
        clippy::mut_from_ref,
        reason = "the caller sees to it that there is one"
    )]
    pub(super) unsafe fn first_local(&self) -> Option<&mut TheLocal> {
        if self.state.get() == NEW {
            self.begin();
        }
        // SAFETY: the thread has a local, and the caller's promise.
        self.has_local().then(|| unsafe { self.local() })
    }

    /// Allocates, in whatever state.
    #[inline]
    pub(super) fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.state.get() == INSIDE
            && let Some(epoch) = self.epoch.get()
        {
            // SAFETY: the thread has a local, and nobody is using it.
            if let Some(object) = unsafe { self.local() }.alloc_near(epoch, layout) {
                return object.as_ptr();
            }
        }
        self.alloc_elsewhere(layout)
    }

    /// As [`Thread::alloc`], where that takes more than a few instructions.
    #[cold]
    #[inline(never)]
    fn alloc_elsewhere(&self, layout: Layout) -> *mut u8 {
        if self.state.get() == NEW {
            self.begin();
        }
        // SAFETY: the thread has a local where it is asked for, and nobody is using it.
        let object = unsafe {
            match (self.has_local(), self.epoch.get()) {
                (true, epoch) => self.alloc_here(self.local(), epoch, layout),
                // Without a local a thread may be in an epoch all the same.
                (false, Some(epoch)) => match HEAP.alloc_in(epoch, layout) {
                    Err(AllocError::EpochClosed) => HEAP.alloc(layout),
                    object => object,
                },
                (false, None) => HEAP.alloc(layout),
            }
        };
        self.note_origin(&object, self.epoch.get());
        or_null(object)
    }

    /// Allocates in an epoch, whichever the thread is in, if there is a local to do so: for what grows where it was allocated.
    pub(super) fn alloc_in(&self, epoch: Epoch, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: nobody is using the local.
        let local = unsafe { self.first_local() }?;
        let object = self.sampled(local, layout, |local| local.alloc_in(epoch, layout));
        self.note_origin(&object, Some(epoch));
        object.ok()
    }

    /// Notes where an object is allocated that was just timed, if it is of an epoch.
    #[inline]
    fn note_origin(&self, object: &Result<NonNull<u8>, AllocError>, epoch: Option<Epoch>) {
        if !self.is_due.take() {
            return;
        }
        #[cfg(feature = "origins")]
        if let (Ok(object), Some(epoch)) = (object, epoch) {
            // Should noting allocate, that is not noted.
            let sampler = self.sampler.take();
            super::origins::note(*object, epoch);
            self.sampler.set(sampler);
        }
        #[cfg(not(feature = "origins"))]
        let _ = (object, epoch);
    }

    /// Whether the object was made as long as another layout asks where it is: one in a bump block, if it was laid last.
    ///
    /// # Safety
    /// As for `realloc`.
    pub(super) unsafe fn extend(&self, object: NonNull<u8>, old: Layout, new: Layout) -> bool {
        // SAFETY: the thread has a local, and nobody is using it; the caller's promise.
        self.state.get() >= INSIDE && unsafe { self.local().resize_near(object, old, new) }
    }

    /// Allocates through the thread's local, in its epoch if it is in one.
    fn alloc_here(
        &self,
        local: &mut TheLocal,
        epoch: Option<Epoch>,
        layout: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        self.sampled(local, layout, |local| match epoch {
            Some(epoch) => match local.alloc_in(epoch, layout) {
                // Closed under the thread's feet: it goes on outside.
                Err(AllocError::EpochClosed) => local.alloc(layout),
                object => object,
            },
            None => local.alloc(layout),
        })
    }

    /// Allocates, and times it if it is its turn.
    fn sampled(
        &self,
        local: &mut TheLocal,
        layout: Layout,
        alloc: impl FnOnce(&mut TheLocal) -> Result<NonNull<u8>, AllocError>,
    ) -> Result<NonNull<u8>, AllocError> {
        if !self.is_sampled.get() {
            return alloc(local);
        }
        let Some(mut sampler) = self.sampler.take() else {
            return alloc(local);
        };
        let object = if sampler.is_due() {
            self.is_due.set(true);
            sampler.timed(local, layout, alloc)
        } else {
            alloc(local)
        };
        self.sampler.set(Some(sampler));
        object
    }

    /// Times one in `every` of the thread's allocations from now on, or none.
    pub(super) fn sample(&self, every: Option<NonZeroU32>) {
        if self.state.get() == NEW {
            self.begin();
        }
        self.is_sampled.set(every.is_some());
        self.sampler
            .set(every.map(|every| Sampler::new(&LATENCY, every)));
        self.settle();
    }

    /// Takes the plain path where there is neither an epoch nor a sampler.
    fn settle(&self) {
        if !self.has_local() {
            return;
        }
        self.set_state(match (self.is_sampled.get(), self.epoch.get()) {
            (true, _) => SAMPLED,
            (false, Some(_)) => INSIDE,
            (false, None) => READY,
        });
    }

    /// As [`Thread::alloc`], and the bytes of the layout are zero.
    pub(super) fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if self.state.get() == READY {
            // SAFETY: the thread has a local, and nobody is using it.
            return or_null(unsafe { self.local() }.alloc_zeroed(layout));
        }
        if self.state.get() == NEW {
            self.begin();
        }
        let epoch = self.epoch.get();
        let object = if self.has_local() {
            // SAFETY: the thread has a local, and nobody is using it.
            let local = unsafe { self.local() };
            self.sampled(local, layout, |local| match epoch {
                Some(epoch) => match local.alloc_zeroed_in(epoch, layout) {
                    Err(AllocError::EpochClosed) => local.alloc_zeroed(layout),
                    object => object,
                },
                None => local.alloc_zeroed(layout),
            })
        } else {
            match epoch.map(|epoch| HEAP.alloc_zeroed_in(epoch, layout)) {
                Some(Err(AllocError::EpochClosed)) | None => HEAP.alloc_zeroed(layout),
                Some(object) => object,
            }
        };
        self.note_origin(&object, epoch);
        or_null(object)
    }

    /// Makes the thread's local. Without memory for it, or without a way to be told of the thread's end,
    /// the thread stays as it is and is asked again.
    pub(super) fn begin(&self) {
        self.state.set(MAKING);
        fork::prepare_once();
        let made = key(end).and_then(|key| Some((key, HEAP.local().ok()?)));
        let Some((key, local)) = made else {
            self.state.set(NEW);
            return;
        };
        // SAFETY: the key is valid; the value is only handed back to `end`, in this thread.
        let told = unsafe { libc::pthread_setspecific(key, ptr::from_ref(self).cast()) } == 0;
        if !told {
            drop(local);
            self.state.set(NEW);
            return;
        }
        // SAFETY: the thread has no local, so nobody uses the place.
        unsafe { (*self.local.get()).write(local) };
        // A guard may have come before there was memory for a local.
        self.set_state(READY);
        match NonZeroU32::new(EVERY.load(Ordering::Relaxed)) {
            // Unless it was asked for another one before there was memory.
            every @ Some(_) if !self.is_sampled.get() => self.sample(every),
            _ => self.settle(),
        }
    }

    /// Says which epoch the thread is in from now on.
    pub(super) fn set_epoch(&self, epoch: Option<Epoch>) {
        if self.state.get() == NEW {
            self.begin();
        }
        self.epoch.set(epoch);
        self.settle();
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch.get()
    }

    /// Gives back what the local holds.
    pub(super) fn flush(&self) {
        if self.has_local() {
            // SAFETY: the thread has a local, and nobody is using it.
            unsafe { self.local() }.flush();
        }
    }

    /// Gives back what the local holds in an epoch.
    pub(super) fn leave(&self, epoch: Epoch) {
        if self.has_local() {
            // SAFETY: as above.
            unsafe { self.local() }.leave(epoch);
        }
    }
}

/// Called by the C library when a thread ends that had a local.
///
/// # Safety
/// `thread` is what was noted with the key: the ending thread's own.
unsafe extern "C" fn end(thread: *mut c_void) {
    // SAFETY: the thread's variables are there until it is no more.
    let thread = unsafe { &*thread.cast::<Thread>() };
    if thread.has_local() {
        thread.set_state(GONE);
        // SAFETY: it had a local; by its state nobody uses it any more.
        unsafe { (*thread.local.get()).assume_init_drop() };
    }
}
