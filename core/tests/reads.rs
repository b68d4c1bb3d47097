//! What a handle is looked up in: metadata, and nothing else. The memory of the objects, and of the
//! chunks' own maps, is taken away from the process while handles are looked up; a read of it ends it.
#![cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]

use core::alloc::Layout;
use std::sync::Mutex;
use temporal_slab::config::{Checked, Config, Unchecked};
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab::{HandleError, Heap, RawHandle};
use temporal_slab_hosted::MmapProvider;

/// Pages from the system, with a note of the chunks that are out.
#[derive(Debug, Default)]
struct Noted(Mutex<Vec<Region>>, MmapProvider);

impl Noted {
    fn protect(&self, protection: i32) {
        for region in self.0.lock().unwrap().iter() {
            // SAFETY: the region is mapped; who reads it while it is protected is what is tested.
            let done =
                unsafe { libc::mprotect(region.base.as_ptr().cast(), region.size, protection) };
            assert_eq!(done, 0);
        }
    }
}

// SAFETY: as `MmapProvider`, to which all is passed on.
unsafe impl PageProvider for Noted {
    const CHUNK_SIZE: usize = MmapProvider::CHUNK_SIZE;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        let region = self.1.acquire(size, align)?;
        if size == Self::CHUNK_SIZE {
            self.0.lock().unwrap().push(region);
        }
        Some(region)
    }
    unsafe fn release(&self, region: Region) {
        self.0.lock().unwrap().retain(|r| r.base != region.base);
        // SAFETY: passed on.
        unsafe { self.1.release(region) };
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: passed on.
        unsafe { self.1.decommit(pages) }
    }
    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: passed on.
        unsafe { self.1.commit(pages) }
    }
    fn capabilities(&self) -> Capabilities {
        self.1.capabilities()
    }
}

/// Live, dead and forged handles are decided without a look at an object page or a chunk. Catches (by the
/// end of the process) a look-up that goes through the chunk's map, or that keeps a generation beside
/// the object.
fn looks_at_metadata_only<C: Config<Provider = Noted>>() {
    let heap = Heap::<C>::new(Noted::default());
    let mut local = heap.local().unwrap();
    let layout = |n: usize| Layout::from_size_align([64, 200, 1000][n % 3], 8).unwrap();
    let mut live: Vec<RawHandle> = (0..20_000)
        .map(|n| local.alloc_raw(layout(n)).unwrap())
        .collect();
    let dead = live.split_off(10_000);
    for handle in &dead {
        local.free_raw(*handle).unwrap();
    }
    heap.provider().protect(libc::PROT_NONE);
    for handle in &live {
        assert!(heap.get_raw(*handle).is_some());
        for bit in 0..64 {
            let forged = RawHandle::from_bits(handle.bits() ^ 1 << bit);
            // A flip of a bit of the slot or the id may be another live handle.
            let found = heap.get_raw(forged);
            assert!(found.is_none() || live.contains(&forged));
            if found.is_none() {
                assert!(heap.free_raw(forged).is_err());
            }
        }
    }
    for handle in &dead {
        assert_eq!(heap.try_get_raw(*handle), Err(HandleError::Stale));
        assert_eq!(local.free_raw(*handle), Err(HandleError::Stale));
    }
    // Nor does the free of a live one through a local touch it.
    for handle in &live[..32] {
        local.free_raw(*handle).unwrap();
    }
    heap.provider().protect(libc::PROT_READ | libc::PROT_WRITE);
}

#[test]
fn only_metadata_is_read() {
    looks_at_metadata_only::<Unchecked<Noted>>();
    looks_at_metadata_only::<Checked<Noted>>();
}
