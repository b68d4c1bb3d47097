//! The epoch that a thread is in: guards that route what it allocates.
//!
//! The guards of a thread are a list, the innermost first; the thread is in the epoch of the first. A guard
//! takes itself out of the list wherever it is, so guards that are dropped out of order route nothing
//! wrongly. A guard that is forgotten routes its thread for good, and no other.

use super::here::here;
use super::thread::Thread;
use super::{FutexLock, GlobalConfig, GlobalDomain, HEAP, MmapProvider, TemporalSlab};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use temporal_slab::{Epoch, EpochError, Inside};

/// A guard's place in its thread's list. Lies in the heap, so that the guard may move.
pub(super) struct Node {
    epoch: Epoch,
    outer: *mut Node,
    inner: *mut Node,
}

/// While this is there, what the thread allocates belongs to an epoch.
#[must_use = "what it routes is what is allocated while it is there"]
pub struct Routed<'d> {
    node: NonNull<Node>,
    /// Dropped after this: the last one out may close the epoch.
    inside: Option<Inside<'d, MmapProvider, FutexLock, GlobalConfig>>,
    /// It is of its thread.
    thread: PhantomData<*mut ()>,
}

/// A phase of a thread: an epoch of its own, closed when this is dropped. What was allocated in it and lives
/// on stays valid.
#[must_use = "the phase ends when it is dropped"]
pub struct Phase {
    routed: Option<Routed<'static>>,
    epoch: Epoch,
}

impl TemporalSlab {
    /// Routes what this thread allocates into an epoch. The epoch is not closed at the end.
    ///
    /// ```
    /// use temporal_slab_hosted::TemporalSlab;
    /// let epoch = TemporalSlab::heap().open_epoch()?;
    /// let routed = TemporalSlab::route(epoch)?;
    /// // Boxes, vectors and maps that are made here belong to the epoch...
    /// drop(routed);
    /// // ...and those that are made here do not.
    /// TemporalSlab::heap().close(epoch)?;
    /// # Ok::<(), temporal_slab::EpochError>(())
    /// ```
    ///
    /// # Errors
    /// If the epoch is closed, or there is no memory for a note of it.
    pub fn route(epoch: Epoch) -> Result<Routed<'static>, EpochError> {
        if HEAP.state(epoch)? != temporal_slab::EpochState::Active {
            return Err(EpochError::Closed);
        }
        Routed::new(epoch, None)
    }

    /// Goes into a domain, and routes what this thread allocates into its epoch.
    ///
    /// # Errors
    /// As for [`TemporalSlab::route`], or if the domain is over another heap than the process's.
    pub fn enter(domain: &GlobalDomain) -> Result<Routed<'_>, EpochError> {
        if !ptr::eq(domain.heap(), &raw const HEAP) {
            return Err(EpochError::OtherHeap);
        }
        let inside = domain.enter()?;
        Routed::new(domain.epoch(), Some(inside))
    }

    /// Opens an epoch and routes what this thread allocates into it, until the phase is dropped.
    ///
    /// # Errors
    /// If every position of the ring is in use, or there is no memory.
    pub fn phase() -> Result<Phase, EpochError> {
        let epoch = HEAP.open_epoch()?;
        match Self::route(epoch) {
            Ok(routed) => Ok(Phase {
                routed: Some(routed),
                epoch,
            }),
            Err(error) => {
                // It was just opened, so it can be closed.
                let _closed = HEAP.close(epoch);
                Err(error)
            }
        }
    }

    /// The epoch that this thread is in, if it is in one.
    #[must_use]
    pub fn current() -> Option<Epoch> {
        here(Thread::epoch)
    }
}

impl<'d> Routed<'d> {
    fn new(
        epoch: Epoch,
        inside: Option<Inside<'d, MmapProvider, FutexLock, GlobalConfig>>,
    ) -> Result<Self, EpochError> {
        let node = HEAP.alloc(Layout::new::<Node>());
        let node: NonNull<Node> = node.map_err(|_| EpochError::OutOfMemory)?.cast();
        here(|thread| {
            let outer = thread.innermost.get();
            // SAFETY: the node is new; those in the list are their guards', and this thread's.
            unsafe {
                node.write(Node {
                    epoch,
                    outer,
                    inner: ptr::null_mut(),
                });
                if let Some(outer) = outer.as_mut() {
                    outer.inner = node.as_ptr();
                }
            }
            thread.innermost.set(node.as_ptr());
            thread.set_epoch(Some(epoch));
        });
        Ok(Self {
            node,
            inside,
            thread: PhantomData,
        })
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        // SAFETY: the node is this guard's.
        unsafe { self.node.as_ref() }.epoch
    }
}

impl Drop for Routed<'_> {
    fn drop(&mut self) {
        here(|thread| {
            // SAFETY: the node and its neighbours are guards' of this thread, and no one is looking at them.
            unsafe {
                let Node { outer, inner, .. } = self.node.read();
                if let Some(outer) = outer.as_mut() {
                    outer.inner = inner;
                }
                match inner.as_mut() {
                    Some(inner) => inner.outer = outer,
                    None => {
                        thread.innermost.set(outer);
                        thread.set_epoch(outer.as_ref().map(|outer| outer.epoch));
                    }
                }
            }
        });
        let epoch = self.epoch();
        // SAFETY: the node is in no list, and it was allocated with this layout.
        let _freed = unsafe { HEAP.free(self.node.cast(), Layout::new::<Node>()) };
        if self.inside.is_some() {
            // Before the last one out closes the epoch: what this thread keeps of it would stay.
            here(|thread| thread.leave(epoch));
        }
        self.inside = None;
    }
}

impl Phase {
    /// Its epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        self.routed = None;
        here(|thread| thread.leave(self.epoch));
        // Somebody may have closed it already.
        let _closed = HEAP.close(self.epoch);
    }
}

impl fmt::Debug for Routed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Routed").field(&self.epoch()).finish()
    }
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Phase").field(&self.epoch).finish()
    }
}
