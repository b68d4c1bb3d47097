//! Domains: counted regions over shared epochs.
//!
//! Principles:
//! - Being inside is a guard's life. A guard stays on its thread, and one that was entered from another
//!   borrows it, so leaving in the wrong order or on another thread does not compile.
//! - A domain owns nothing. The count is the epoch's, so all domains over an epoch count together, and
//!   the last one out, by whichever domain, may close it if that domain was made to.
//! - A guard that is forgotten leaves a count behind, which [`EpochStats::domains`] shows, and nothing
//!   worse: the epoch is then not closed by anyone's exit, only by [`Heap::close`].
//!
//! [`EpochStats::domains`]: crate::snapshot::EpochStats::domains

use crate::config::Config;
use crate::epoch::{Epoch, EpochError};
use crate::error::AllocError;
use crate::heap::{Closed, Heap};
use crate::local::Local;
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// A region of a program's time, over one epoch.
///
/// ```
/// # use temporal_slab::{Domain, Heap, config::Standard, provider::StaticProvider};
/// # use core::alloc::Layout;
/// # let mut memory = vec![core::mem::MaybeUninit::uninit(); 1 << 20];
/// # let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
/// # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(provider);
/// # let mut local = heap.local()?;
/// // A request: single use, closed by the last one out.
/// let request = Domain::open(&heap)?.close_on_exit();
/// let epoch = request.epoch();
/// {
///     let inside = request.enter()?;
///     let object = inside.alloc(&mut local, Layout::new::<[u64; 4]>())?;
///     // SAFETY: it came from this heap with this layout and is not used again.
///     unsafe { local.free(object, Layout::new::<[u64; 4]>())? };
/// }
/// assert!(request.enter().is_err(), "the request is over");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// A guard that was entered from another cannot outlive it:
///
/// ```compile_fail,E0505
/// # use temporal_slab::{Domain, Heap, config::Standard, provider::StaticProvider};
/// # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(StaticProvider::new(&mut []));
/// let (outer, inner) = (Domain::open(&heap).unwrap(), Domain::open(&heap).unwrap());
/// let request = outer.enter().unwrap();
/// let query = request.enter(&inner).unwrap();
/// drop(request);
/// drop(query);
/// ```
///
/// and a guard does not leave its thread:
///
/// ```compile_fail,E0277
/// # use temporal_slab::{Domain, Heap, config::Standard, provider::StaticProvider};
/// # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(StaticProvider::new(&mut []));
/// let domain = Domain::open(&heap).unwrap();
/// let inside = domain.enter().unwrap();
/// std::thread::scope(|scope| { scope.spawn(move || drop(inside)); });
/// ```
pub struct Domain<'h, C: Config> {
    heap: &'h Heap<C>,
    epoch: Epoch,
    closes: bool,
}

impl<'h, C: Config> Domain<'h, C> {
    /// A domain over a new epoch, which stays open until it is closed: a frame loop enters it again
    /// and again.
    ///
    /// # Errors
    /// As for [`Heap::open_epoch`].
    pub fn open(heap: &'h Heap<C>) -> Result<Self, EpochError> {
        heap.open_epoch().map(|epoch| Self::for_epoch(heap, epoch))
    }

    /// A domain over an epoch that exists already. A token of an era that is over is found out on
    /// entering.
    #[must_use]
    pub const fn for_epoch(heap: &'h Heap<C>, epoch: Epoch) -> Self {
        Self {
            heap,
            epoch,
            closes: false,
        }
    }

    /// Makes this domain one whose exit closes the epoch, if nobody is inside it any more then.
    #[must_use]
    pub const fn close_on_exit(self) -> Self {
        Self {
            closes: true,
            ..self
        }
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The heap.
    #[must_use]
    pub const fn heap(&self) -> &'h Heap<C> {
        self.heap
    }

    /// Goes in, until the guard is dropped.
    ///
    /// # Errors
    /// If the epoch is closed.
    pub fn enter(&self) -> Result<DomainGuard<'_, C>, EpochError> {
        self.heap.enter(self.epoch)?;
        Ok(DomainGuard {
            domain: self,
            outer: None,
            thread: PhantomData,
        })
    }

    /// Closes the epoch, whoever is inside: allocation ends for them, and their objects stay valid.
    ///
    /// # Errors
    /// As for [`Heap::close`].
    pub fn close(self) -> Result<Closed, EpochError> {
        self.heap.close(self.epoch)
    }
}

/// Being inside a domain. Dropping it is leaving.
#[must_use = "leaving is dropping this"]
pub struct DomainGuard<'d, C: Config> {
    domain: &'d Domain<'d, C>,
    outer: Option<&'d DomainGuard<'d, C>>,
    /// Not `Send`.
    thread: PhantomData<*const ()>,
}

impl<C: Config> DomainGuard<'_, C> {
    /// Goes into a domain within this one: a transaction in a request, a query in a transaction. This
    /// guard cannot be dropped before the inner one.
    ///
    /// # Errors
    /// If the inner domain's epoch is closed.
    pub fn enter<'a>(&'a self, inner: &'a Domain<'_, C>) -> Result<DomainGuard<'a, C>, EpochError> {
        inner.heap.enter(inner.epoch)?;
        Ok(DomainGuard {
            domain: inner,
            outer: Some(self),
            thread: PhantomData,
        })
    }

    /// The epoch of this domain: the current one of whoever has this guard.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.domain.epoch
    }

    /// The guard that this one was entered from.
    #[must_use]
    pub fn outer(&self) -> Option<&Self> {
        self.outer
    }

    /// How many guards this one is within.
    #[must_use]
    pub fn depth(&self) -> usize {
        core::iter::successors(self.outer, |inside| inside.outer).count()
    }

    /// Allocates in this domain's epoch.
    ///
    /// # Errors
    /// As for [`Local::alloc_in`]; or [`AllocError::OtherHeap`] with a local of another heap.
    pub fn alloc(
        &self,
        local: &mut Local<'_, C>,
        layout: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        if !core::ptr::eq(local.heap(), self.domain.heap) {
            let heap = self.domain.heap;
            return Err(heap.refused(AllocError::OtherHeap, None, None));
        }
        local.alloc_in(self.domain.epoch, layout)
    }
}

impl<C: Config> Drop for DomainGuard<'_, C> {
    fn drop(&mut self) {
        let (heap, epoch) = (self.domain.heap, self.domain.epoch);
        if self.domain.closes {
            heap.exit_and_close(epoch);
        } else {
            heap.exit(epoch);
        }
    }
}

impl<C: Config> fmt::Debug for Domain<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("epoch", &self.epoch)
            .field("closes", &self.closes)
            .finish_non_exhaustive()
    }
}

impl<C: Config> fmt::Debug for DomainGuard<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainGuard")
            .field("epoch", &self.epoch())
            .field("depth", &self.depth())
            .finish_non_exhaustive()
    }
}
