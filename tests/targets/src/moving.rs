//! A provider that moves regions, as `mremap` does, and breaks as well.

use core::cell::Cell;
use core::ptr;
use temporal_slab::provider::{
    Capabilities, Fault, FaultyProvider, PageProvider, ProviderError, Region,
};
use temporal_slab_actions::Control;

/// Regions of a provider that breaks, which can be moved.
#[derive(Debug)]
pub(crate) struct Moving<P> {
    inner: FaultyProvider<P, true, 128>,
    moves: Cell<u64>,
}

impl<P: PageProvider> Moving<P> {
    /// # Safety
    /// As for [`FaultyProvider::overlapping`].
    pub(crate) const unsafe fn new(inner: P) -> Self {
        Self {
            // SAFETY: the caller's promise.
            inner: unsafe { FaultyProvider::overlapping(inner) },
            moves: Cell::new(0),
        }
    }

    pub(crate) const fn inner(&self) -> &FaultyProvider<P, true, 128> {
        &self.inner
    }
}

impl<P: PageProvider> Control for Moving<P> {
    fn break_calls(&self, after: u64, count: u64, fault: Fault) {
        self.inner.break_calls(after, count, fault);
    }
    fn mend(&self) {
        self.inner.mend();
    }
    fn broken(&self) -> u64 {
        self.inner.accounts().broken
    }
    fn moves(&self) -> u64 {
        self.moves.get()
    }
}

// SAFETY: all but moves are passed on to a provider that keeps the contract; a move is a new region with the content of
// the old one, which is then given back.
unsafe impl<P: PageProvider> PageProvider for Moving<P> {
    const CHUNK_SIZE: usize = P::CHUNK_SIZE;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        self.inner.acquire(size, align)
    }
    unsafe fn release(&self, region: Region) {
        // SAFETY: the caller keeps the same contract.
        unsafe { self.inner.release(region) }
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: the caller keeps the same contract.
        unsafe { self.inner.decommit(pages) }
    }
    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: the caller keeps the same contract.
        unsafe { self.inner.commit(pages) }
    }
    unsafe fn remap(&self, region: Region, size: usize, align: usize) -> Option<Region> {
        let broken = self.broken();
        let moved = self.inner.acquire(size, align)?;
        if self.broken() > broken {
            // What is moved is as it should be, or is not moved.
            // SAFETY: it was just acquired.
            unsafe { self.inner.release(moved) };
            return None;
        }
        // SAFETY: two regions, both at least so long; nobody uses the old one.
        unsafe {
            ptr::copy_nonoverlapping(
                region.base.as_ptr(),
                moved.base.as_ptr(),
                region.size.min(size),
            );
            self.inner.release(region);
        }
        self.moves.set(self.moves.get() + 1);
        Some(moved)
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
