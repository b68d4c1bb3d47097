//! Epochs of tasks.
//!
//! A task has no thread: a runtime polls it on whichever is free, and polls others in between. So a thread is in a task's epoch
//! during each poll of the task, and during its drop, and not in between: [`in_epoch`] makes such a future of any, for whatever
//! runtime. What the future allocates while it is polled belongs to the epoch, whichever threads poll it. Its result may live on.
//!
//! A task that is given a phase of its own ([`in_phase`]) has an epoch that is closed when the future is done, or dropped
//! before that, on whatever thread. Futures nest, as phases do: the innermost epoch counts.
//!
//! ```
//! # let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
//! # runtime.block_on(async {
//! use temporal_slab_hosted::task::in_phase;
//! let request = in_phase(async {
//!     let words: Vec<String> = ["of", "the", "phase"].map(String::from).into();
//!     words.len()
//! })?;
//! request.set_label("GET /words");
//! assert_eq!(request.await, 3);
//! # Ok::<(), temporal_slab::EpochError>(())
//! # }).unwrap();
//! ```

#[cfg(feature = "tower")]
mod layer;

use crate::TemporalSlab;
use crate::global::close;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use pin_project_lite::pin_project;
use temporal_slab::{Epoch, EpochError};

#[cfg(feature = "tower")]
pub use layer::{EpochLayer, EpochService};

pin_project! {
    /// A future that is polled in an epoch. See [`in_epoch`] and [`in_phase`].
    ///
    /// Once it is done it is [`Poll::Pending`] for ever.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are polled"]
    pub struct EpochFuture<F> {
        // Gone once it is done.
        #[pin]
        future: Option<F>,
        phase: TaskEpoch,
    }

    impl<F> PinnedDrop for EpochFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            // The epoch is closed after this, also if the future's drop panics.
            this.end();
        }
    }
}

/// The epoch of a task.
#[derive(Debug)]
struct TaskEpoch {
    /// None where there was none to be had: then the task is in the epoch of the thread that polls it.
    epoch: Option<Epoch>,
    /// It is the task's own, and is closed with it.
    is_own: bool,
}

impl TaskEpoch {
    #[cfg(feature = "tower")]
    const NONE: Self = Self {
        epoch: None,
        is_own: false,
    };

    /// A new one.
    fn own() -> Result<Self, EpochError> {
        Ok(Self {
            epoch: Some(TemporalSlab::heap().open_epoch()?),
            is_own: true,
        })
    }

    /// Runs `f` in the epoch.
    fn inside<T>(&self, f: impl FnOnce() -> T) -> T {
        match self.epoch {
            Some(epoch) => TemporalSlab::inside(epoch, f),
            None => f(),
        }
    }

    /// Closes an epoch that is the task's own.
    fn end(&mut self) {
        if core::mem::take(&mut self.is_own)
            && let Some(epoch) = self.epoch
        {
            close(epoch);
        }
    }
}

impl Drop for TaskEpoch {
    fn drop(&mut self) {
        self.end();
    }
}

/// A future that is in an epoch whenever it is polled, and when it is dropped. If the epoch is closed meanwhile, allocation goes on
/// outside of it.
pub const fn in_epoch<F: Future>(epoch: Epoch, future: F) -> EpochFuture<F> {
    EpochFuture {
        future: Some(future),
        phase: TaskEpoch {
            epoch: Some(epoch),
            is_own: false,
        },
    }
}

/// As [`in_epoch`], in an epoch of its own, which is closed when the future is done or dropped.
///
/// # Errors
/// If there is no memory for an epoch, or as many as are allowed.
pub fn in_phase<F: Future>(future: F) -> Result<EpochFuture<F>, EpochError> {
    Ok(EpochFuture {
        phase: TaskEpoch::own()?,
        future: Some(future),
    })
}

impl<F> EpochFuture<F> {
    /// The epoch, if there is one. One of the future's own is over once that is done.
    #[must_use]
    pub const fn epoch(&self) -> Option<Epoch> {
        self.phase.epoch
    }

    /// Calls the epoch something, as [`Heap::set_label`](temporal_slab::Heap::set_label) does. Of one that is over nothing happens.
    pub fn set_label(&self, label: &str) {
        if let Some(epoch) = self.phase.epoch {
            let _labelled = TemporalSlab::heap().set_label(epoch, label);
        }
    }

    /// Drops the future, in the epoch, and closes that if it is the task's own.
    fn end(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.phase.inside(|| this.future.set(None));
        this.phase.end();
    }
}

impl<F: Future> Future for EpochFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.as_mut().project();
        let Some(future) = this.future.as_pin_mut() else {
            return Poll::Pending;
        };
        let polled = this.phase.inside(|| future.poll(context));
        if polled.is_ready() {
            self.end();
        }
        polled
    }
}
