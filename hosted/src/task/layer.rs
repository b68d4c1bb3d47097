//! A layer of `tower`: each request has an epoch of its own.

use super::{EpochFuture, TaskEpoch};
use crate::TemporalSlab;
use core::task::{Context, Poll};
use temporal_slab::Label;
use tower_layer::Layer;
use tower_service::Service;

/// Gives each request of a service an epoch, from the call to when its future is done or dropped, with a label that a function
/// makes of the request: of its route, say.
///
/// A request for which there is no epoch to be had is served without one.
#[derive(Debug, Clone)]
pub struct EpochLayer<L> {
    label: L,
}

impl<L> EpochLayer<L> {
    /// `label` says what the epoch of a request is called, whose beginning is used: see [`Label::new`].
    pub const fn new<R>(label: L) -> Self
    where
        L: Fn(&R) -> Label,
    {
        Self { label }
    }
}

impl<S, L: Clone> Layer<S> for EpochLayer<L> {
    type Service = EpochService<S, L>;

    fn layer(&self, inner: S) -> EpochService<S, L> {
        EpochService {
            inner,
            label: self.label.clone(),
        }
    }
}

/// A service whose requests have epochs of their own: see [`EpochLayer`].
#[derive(Debug, Clone)]
pub struct EpochService<S, L> {
    inner: S,
    label: L,
}

impl<S, L, R> Service<R> for EpochService<S, L>
where
    S: Service<R>,
    L: Fn(&R) -> Label,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = EpochFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let phase = TaskEpoch::own().unwrap_or(TaskEpoch::NONE);
        if let Some(epoch) = phase.epoch {
            let label = (self.label)(&request);
            let _labelled = TemporalSlab::heap().set_label(epoch, label.as_str());
        }
        let future = phase.inside(|| self.inner.call(request));
        EpochFuture {
            future: Some(future),
            phase,
        }
    }
}
