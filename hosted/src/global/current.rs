//! The epoch that a thread is in: guards that route what it allocates.
//!
//! The guards of a thread are a list, the innermost first; the thread is in the epoch of the first. A guard
//! takes itself out of the list wherever it is, so guards that are dropped out of order route nothing
//! wrongly. A guard that is forgotten routes its thread for good, and no other.

use super::here::here;
use super::thread::{Node, Thread};
use super::{GlobalConfig, GlobalDomain, HEAP, TemporalSlab};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use temporal_slab::{DomainGuard, Epoch, EpochError};

impl Node {
    const fn new(epoch: Option<Epoch>) -> Self {
        Self {
            epoch,
            outer: ptr::null_mut(),
            inner: ptr::null_mut(),
        }
    }

    /// Makes a node the innermost of its thread.
    ///
    /// # Safety
    /// The node is in no list, and stays where it is until it was unlinked.
    unsafe fn link(node: *mut Self, thread: &Thread) {
        let outer = thread.innermost.get();
        // SAFETY: those in the list are their guards', and this thread's; nobody is looking at them.
        unsafe {
            (*node).outer = outer;
            if let Some(outer) = outer.as_mut() {
                outer.inner = node;
            }
            thread.innermost.set(node);
            thread.set_epoch((*node).epoch);
        }
    }

    /// Takes a node out, wherever in the list it is.
    ///
    /// # Safety
    /// It was linked, in this thread.
    unsafe fn unlink(node: *mut Self, thread: &Thread) {
        // SAFETY: as in `link`.
        unsafe {
            let Self { outer, inner, .. } = node.read();
            if let Some(outer) = outer.as_mut() {
                outer.inner = inner;
            }
            match inner.as_mut() {
                Some(inner) => inner.outer = outer,
                None => {
                    thread.innermost.set(outer);
                    thread.set_epoch(outer.as_ref().and_then(|outer| outer.epoch));
                }
            }
        }
    }
}

/// While this is there, what the thread allocates belongs to an epoch.
#[must_use = "what it routes is what is allocated while it is there"]
pub struct Routed<'d> {
    node: NonNull<Node>,
    epoch: Epoch,
    /// Dropped after this: the last one out may close the epoch.
    inside: Option<DomainGuard<'d, GlobalConfig>>,
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
        match Routed::new(epoch, None) {
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

    /// Runs `f` outside of the epoch that this thread is in: what `f` allocates belongs to the root epoch. For what is known to
    /// outlive a phase, as what goes into a cache: in the phase it would keep a block of it, and its record, for as long as it
    /// lives.
    ///
    /// ```
    /// use temporal_slab_hosted::TemporalSlab;
    /// let mut cache = Vec::new();
    /// let phase = TemporalSlab::phase()?;
    /// let answer = String::from("of the phase");
    /// TemporalSlab::outside(|| cache.push(answer.clone()));
    /// drop(answer);
    /// drop(phase);
    /// assert_eq!(cache, ["of the phase"]);
    /// # Ok::<(), temporal_slab::EpochError>(())
    /// ```
    pub fn outside<T>(f: impl FnOnce() -> T) -> T {
        while_in(None, f)
    }

    /// Runs `f` inside an epoch: what this thread allocates meanwhile belongs to it, while it is open.
    ///
    /// As [`TemporalSlab::route`], for what begins and ends in one call. It takes no memory.
    pub fn inside<T>(epoch: Epoch, f: impl FnOnce() -> T) -> T {
        while_in(Some(epoch), f)
    }

    /// The epoch that this thread is in, if it is in one.
    #[must_use]
    pub fn current() -> Option<Epoch> {
        here(Thread::epoch)
    }
}

/// Runs `f` in an epoch, or in none but the root.
fn while_in<T>(epoch: Option<Epoch>, f: impl FnOnce() -> T) -> T {
    /// Ends it, also when `f` panics.
    struct Linked(*mut Node);
    impl Drop for Linked {
        fn drop(&mut self) {
            // SAFETY: it was linked below, in this thread.
            here(|thread| unsafe { Node::unlink(self.0, thread) });
        }
    }
    let mut node = Node::new(epoch);
    let node = &raw mut node;
    // SAFETY: the node is in this frame, which lasts longer than the guard.
    here(|thread| unsafe { Node::link(node, thread) });
    let _linked = Linked(node);
    f()
}

/// Closes an epoch that this thread may have been the last in. What it keeps of it would stay else.
pub(crate) fn close(epoch: Epoch) {
    here(|thread| thread.leave(epoch));
    // Somebody may have closed it already.
    let _closed = HEAP.close(epoch);
}

impl<'d> Routed<'d> {
    fn new(
        epoch: Epoch,
        inside: Option<DomainGuard<'d, GlobalConfig>>,
    ) -> Result<Self, EpochError> {
        let node = here(|thread| {
            // SAFETY: nobody is using the local.
            let node = match unsafe { thread.first_local() } {
                Some(local) => local.alloc(Layout::new::<Node>()),
                None => HEAP.alloc(Layout::new::<Node>()),
            };
            let node: NonNull<Node> = node.ok()?.cast();
            // SAFETY: the node is new, and stays until the guard is dropped.
            unsafe {
                node.write(Node::new(Some(epoch)));
                Node::link(node.as_ptr(), thread);
            }
            Some(node)
        });
        Ok(Self {
            node: node.ok_or(EpochError::OutOfMemory)?,
            epoch,
            inside,
            thread: PhantomData,
        })
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for Routed<'_> {
    fn drop(&mut self) {
        here(|thread| {
            // SAFETY: the node was linked in this thread, and allocated with this layout; nobody is using the local.
            let _freed = unsafe {
                Node::unlink(self.node.as_ptr(), thread);
                match thread.first_local() {
                    Some(local) => local.free(self.node.cast(), Layout::new::<Node>()),
                    None => HEAP.free(self.node.cast(), Layout::new::<Node>()),
                }
            };
        });
        let epoch = self.epoch;
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
        close(self.epoch);
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
