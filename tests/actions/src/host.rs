//! A provider over the host's own allocator, which gives zeroed regions and can grow.

use core::alloc::Layout;
use core::ptr::NonNull;
use std::alloc::{alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::sync::Mutex;
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};

/// The largest region that there is memory for.
const MOST: usize = 1 << 30;

/// Regions from the host, with the chunk size as a parameter; each is `TIMES` as long as what was asked for. Knows what is
/// out, so a region that is given back wrongly is caught here and not in the host's allocator.
#[derive(Debug, Default)]
pub struct HostProvider<const CHUNK: usize = 65536, const TIMES: usize = 1> {
    out: Mutex<BTreeMap<usize, Layout>>,
}

impl<const CHUNK: usize, const TIMES: usize> HostProvider<CHUNK, TIMES> {
    /// How many regions are out.
    pub fn regions_out(&self) -> usize {
        self.out.lock().unwrap().len()
    }
}

// SAFETY: the host's allocator gives memory that is nobody else's until it is given back; decommit
// and commit touch nothing but the pages they are given.
unsafe impl<const CHUNK: usize, const TIMES: usize> PageProvider for HostProvider<CHUNK, TIMES> {
    const CHUNK_SIZE: usize = CHUNK;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        let size = size.checked_mul(TIMES).filter(|size| *size <= MOST)?;
        let layout = Layout::from_size_align(size, align).ok()?;
        // SAFETY: the size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        self.out.lock().unwrap().insert(base.addr().get(), layout);
        Some(Region { base, size })
    }

    unsafe fn release(&self, region: Region) {
        let layout = self.out.lock().unwrap().remove(&region.base.addr().get());
        let layout = layout.expect("a region that is out");
        assert_eq!(layout.size(), region.size);
        // SAFETY: it came from `alloc_zeroed` with this layout.
        unsafe { dealloc(region.base.as_ptr(), layout) };
    }

    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: nobody uses the content.
        unsafe { pages.base.write_bytes(0, pages.size) };
        Ok(())
    }

    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FRESH_ZERO
            | Capabilities::DECOMMIT
            | Capabilities::DECOMMIT_ZERO
            | Capabilities::LAZY_COMMIT
            | Capabilities::GROW
    }
}

impl<const CHUNK: usize, const TIMES: usize> Drop for HostProvider<CHUNK, TIMES> {
    fn drop(&mut self) {
        let left = self.out.get_mut().unwrap().len();
        if !std::thread::panicking() {
            assert_eq!(left, 0, "every region came back");
        }
    }
}
