//! Objects in regions of their own, with a provider that can resize them.

use crate::common::figures::agree;
use crate::common::host::HostProvider;
use crate::common::layout;
use temporal_slab::Heap;
use temporal_slab::config::Checked;
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};

type Host = HostProvider<{ 1 << 18 }>;

/// Resizes regions by moving them.
#[derive(Debug, Default)]
struct Moving(Host);

// SAFETY: memory comes from the host's provider.
unsafe impl PageProvider for Moving {
    const CHUNK_SIZE: usize = Host::CHUNK_SIZE;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        self.0.acquire(size, align)
    }
    unsafe fn release(&self, region: Region) {
        // SAFETY: passed on.
        unsafe { self.0.release(region) };
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: passed on.
        unsafe { self.0.decommit(pages) }
    }
    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: passed on.
        unsafe { self.0.commit(pages) }
    }
    unsafe fn remap(&self, region: Region, size: usize, align: usize) -> Option<Region> {
        let moved = self.acquire(size, align)?;
        // SAFETY: both are ours and so long.
        unsafe {
            let bytes = region.size.min(moved.size);
            moved.base.copy_from_nonoverlapping(region.base, bytes);
            self.release(region);
        }
        Some(moved)
    }
    fn capabilities(&self) -> Capabilities {
        // Of memory that costs something before it is touched large objects get regions of their own.
        self.0.capabilities() - Capabilities::LAZY_COMMIT
    }
}

/// An object in a region of its own that becomes longer and shorter is as long as it is, for its epoch, too.
#[test]
fn a_region_that_is_resized_is_counted() {
    let heap: Heap<Checked<Moving>> = Heap::new(Moving::default());
    let epoch = heap.open_epoch().unwrap();
    let mut size = 1 << 20;
    let mut object = heap.alloc_in(epoch, layout(size)).unwrap();
    for next in [3 << 20, 1 << 20, 2 << 20] {
        // SAFETY: it is live, of this layout, and what comes is used instead.
        object = unsafe { heap.resize_large(object, layout(size), layout(next)) }.unwrap();
        size = next;
        assert_eq!(heap.epoch_bytes(epoch), Ok(size as u64));
        assert_eq!(agree(&heap).large.bytes(), size as u64);
    }
    // SAFETY: it is live and freed once.
    unsafe { heap.free(object, layout(size)) }.unwrap();
    assert_eq!(heap.epoch_bytes(epoch), Ok(0));
}
