//! Pages from the system, which every so often refuses.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab_hosted::MmapProvider;

/// Refuses one call in so many, of each kind that may fail.
const ONE_IN: u64 = 50;

/// A provider that refuses what it could do, here and there.
#[derive(Debug)]
pub(super) struct Fickle {
    inner: MmapProvider,
    /// Calls that might have been refused, and those that were: figures, `Relaxed`.
    calls: AtomicU64,
    refused: AtomicU64,
}

impl Fickle {
    pub(super) const fn new(inner: MmapProvider) -> Self {
        Self {
            inner,
            calls: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// How many calls were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Whether this call is one of those, by a number that has no pattern in it.
    fn refuses(&self) -> bool {
        let number = self.calls.fetch_add(1, Relaxed);
        let mixed = (number ^ 0x5851_F42D_4C95_7F2D).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let is_refused = (mixed >> 33).is_multiple_of(ONE_IN);
        self.refused.fetch_add(u64::from(is_refused), Relaxed);
        is_refused
    }
}

// SAFETY: what is not refused is done by the provider inside, which is one.
unsafe impl PageProvider for Fickle {
    const CHUNK_SIZE: usize = MmapProvider::CHUNK_SIZE;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        (!self.refuses()).then(|| self.inner.acquire(size, align))?
    }

    unsafe fn release(&self, region: Region) {
        // SAFETY: the caller's promise.
        unsafe { self.inner.release(region) }
    }

    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        if self.refuses() {
            return Err(ProviderError);
        }
        // SAFETY: the caller's promise.
        unsafe { self.inner.decommit(pages) }
    }

    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        if self.refuses() {
            return Err(ProviderError);
        }
        // SAFETY: the caller's promise.
        unsafe { self.inner.commit(pages) }
    }

    unsafe fn populate(&self, pages: Region) {
        // SAFETY: the caller's promise.
        unsafe { self.inner.populate(pages) }
    }

    unsafe fn populate_whole(&self, pages: Region) {
        // SAFETY: passed on.
        unsafe { self.inner.populate_whole(pages) }
    }

    unsafe fn remap(&self, region: Region, size: usize, align: usize) -> Option<Region> {
        if self.refuses() {
            return None;
        }
        // SAFETY: the caller's promise.
        unsafe { self.inner.remap(region, size, align) }
    }

    fn capabilities(&self) -> Capabilities {
        // Pages that were given back are asked for again, so that this is refused, too.
        self.inner.capabilities() - Capabilities::LAZY_COMMIT
    }

    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn now_ns(&self) -> Option<u64> {
        self.inner.now_ns()
    }

    fn is_present(&self, page: usize) -> Option<bool> {
        self.inner.is_present(page)
    }

    fn resident_bytes(&self) -> Option<u64> {
        self.inner.resident_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some calls are refused and most are not. Catches a soak that asks for faults and has none.
    #[test]
    fn some_calls_are_refused() {
        let fickle = Fickle::new(MmapProvider::new());
        let got: Vec<Region> = (0..1_000)
            .filter_map(|_| fickle.acquire(4096, 4096))
            .collect();
        assert_eq!(got.len() as u64 + fickle.refused(), 1_000);
        assert!((5..80).contains(&fickle.refused()), "{}", fickle.refused());
        let first = got[0].base;
        // SAFETY: the region is ours; then each is given back once.
        unsafe {
            first.write(1);
            got.into_iter().for_each(|region| fickle.release(region));
        }
    }
}
