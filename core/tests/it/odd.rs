//! Providers that answer questions oddly: pages of any size, clocks that go back, figures that cannot be. Whatever they
//! say, what the heap asks of them lies inside of what they gave, and nothing ends the program.

use crate::common::host::HostProvider;
use crate::common::{layout, steps, walk};
use core::cell::{Cell, RefCell};
use temporal_slab::config::Checked;
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab::{AllocError, Heap, Policy};
use temporal_slab_report::Report;

const CHUNK: usize = 1 << 18;

struct Odd {
    host: HostProvider<CHUNK>,
    page: usize,
    /// What the clock says next, and what is resident.
    says: Cell<usize>,
    out: RefCell<Vec<Region>>,
    asked: Cell<usize>,
}

/// What a clock without shame says, one after the other.
const TIMES: [u64; 6] = [u64::MAX, 0, 1 << 63, u64::MAX / 2, u64::MAX, 5];

impl Odd {
    fn new(page: usize) -> Self {
        Self {
            host: HostProvider::default(),
            page,
            says: Cell::new(0),
            out: RefCell::default(),
            asked: Cell::new(0),
        }
    }

    fn figure(&self) -> u64 {
        self.says.set(self.says.get() + 1);
        TIMES[self.says.get() % TIMES.len()]
    }

    /// What was asked for lies in one region, and is whole pages, if there are such.
    fn look(&self, what: &str, pages: Region) {
        self.asked.set(self.asked.get() + 1);
        let (first, end) = (pages.base.addr().get(), pages.end().unwrap());
        let out = self.out.borrow();
        let inside =
            |region: &&Region| region.base.addr().get() <= first && end <= region.end().unwrap();
        assert!(
            out.iter().any(|region| inside(&region)),
            "{what} of {pages:?}, pages of {}",
            self.page
        );
        if self.page.is_power_of_two() && self.page >= 1024 {
            let whole = first.is_multiple_of(self.page) && pages.size.is_multiple_of(self.page);
            assert!(whole, "{what} of {pages:?}, pages of {}", self.page);
        }
    }
}

// SAFETY: memory comes from the host's provider, and what is said of pages touches none but those.
unsafe impl PageProvider for Odd {
    const CHUNK_SIZE: usize = CHUNK;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        if size >= 1 << 24 {
            return None;
        }
        let region = self.host.acquire(size, align)?;
        self.out.borrow_mut().push(region);
        Some(region)
    }
    unsafe fn release(&self, region: Region) {
        self.out.borrow_mut().retain(|other| *other != region);
        // SAFETY: passed on.
        unsafe { self.host.release(region) };
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        self.look("decommit", pages);
        Ok(())
    }
    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        self.look("commit", pages);
        Ok(())
    }
    unsafe fn populate(&self, pages: Region) {
        self.look("populate", pages);
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::DECOMMIT | Capabilities::POPULATE
    }
    fn page_size(&self) -> usize {
        self.page
    }
    fn now_ns(&self) -> Option<u64> {
        Some(self.figure())
    }
    fn resident_bytes(&self) -> Option<u64> {
        Some(self.figure())
    }
}

/// A little of everything, in epochs; gives how often pages were asked for.
fn work(page: usize) -> usize {
    let provider = Odd::new(page);
    let heap = Heap::<Checked<&Odd>>::new(&provider);
    let mut local = heap.local().unwrap();
    heap.set_policy(Policy::EAGER);
    let _reserved = heap.reserve(CHUNK);
    for _ in 0..steps(6, 2) {
        let epoch = heap.advance().unwrap();
        let mut objects = Vec::new();
        for size in [16, 700, 5000, 20_000, 90_000, 600_000] {
            for _ in 0..steps(9, 3) {
                match local.alloc_in(epoch, layout(size)) {
                    Ok(object) => objects.push((object, size)),
                    // A region of whole pages, where a page is as long as all memory.
                    Err(error) => assert!(
                        matches!(error, AllocError::TooLarge | AllocError::OutOfMemory)
                            && size > CHUNK / 2
                            && page > 1 << 23,
                        "{error}"
                    ),
                }
            }
        }
        for (object, size) in &objects {
            // SAFETY: it is live and this long.
            unsafe { object.write_bytes(1, *size) };
        }
        for (object, size) in objects {
            crate::common::free(&heap, object, size);
        }
        let mut text = String::new();
        let report = Report::new(&heap);
        report.json(&mut text).unwrap();
        report.prometheus(&mut text).unwrap();
        report.text(&mut text).unwrap();
        report.findings(&mut text).unwrap();
        assert!(heap.epoch_stats(epoch).is_ok() && text.len() > 1000);
        local.leave(epoch);
    }
    heap.close(heap.current().unwrap()).unwrap();
    heap.reclaim();
    drop(local);
    assert_eq!(walk(&heap).live_slots, 0);
    drop(heap);
    provider.asked.get()
}

/// Catches a page that is longer than a block, or than a chunk, of which more is touched than the heap was given; and a
/// size that a program divides by.
#[test]
#[cfg_attr(miri, ignore = "megabytes")]
fn pages_of_any_size() {
    assert!(work(4096) > 0 && work(1024) > 0 && work(65536) > 0);
    for shift in [17, 18, 19, 20, 21, 30, usize::BITS - 2, usize::BITS - 1] {
        work(1 << shift);
    }
}

/// As above, for what no page can be: the contract says so, and it is no reason to touch what is another's.
#[test]
#[cfg_attr(miri, ignore = "megabytes")]
fn pages_of_no_size() {
    for page in [0, 1, 512, 1000, 3000, 4097, 100_000, usize::MAX] {
        work(page);
    }
}
