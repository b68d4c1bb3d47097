//! Pages from `mmap`, given back by `madvise`.
//!
//! Principles:
//! - A region is one mapping, next to the last one where there is room: aligned regions leave no holes
//!   between them, and the kernel joins neighbours into one mapping of its own.
//! - Inside a region nothing is ever unmapped or protected. Pages go back by advice, which splits no
//!   mapping; whole regions go back by `munmap`. Advice on huge pages may split one, at the ends of chunks.
//! - No locks and no allocation: it runs inside the allocator, in any thread, and across forks.
//! - Every refusal of the kernel is an answer, not a panic.
//!
//! The atomics are counts and a hint, all `Relaxed`: nothing is ordered by them. `mapped` is compared with
//! the limit in one read-modify-write, so two requests do not pass it together.

use crate::rss;
use crate::sys::{self, Advice};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};

/// How pages are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purge {
    /// Now: the resident set falls at once (`MADV_DONTNEED`).
    #[default]
    Now,
    /// When the system wants them (`MADV_FREE`): cheaper where they are soon used again. Until then they
    /// stay in the resident set; [`rss::Rollup::lazily_freed_bytes`] tells them apart.
    Lazy,
}

/// Pages of anonymous memory.
#[derive(Debug)]
pub struct MmapProvider {
    purge: Purge,
    huge: bool,
    populate: bool,
    reads_resident: bool,
    limit: AtomicUsize,
    mapped: AtomicUsize,
    /// Below which address the next region would touch the last one: of those that are aligned to a chunk,
    /// and of the smaller ones, which would else be in the way of the others. A guess: the kernel decides.
    hints: [AtomicUsize; 2],
    failed_advice: AtomicU64,
    failed_unmaps: AtomicU64,
}

impl MmapProvider {
    /// Pages come some at a time, a little before they are touched, and go at once when they are given back.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            purge: Purge::Now,
            huge: false,
            populate: true,
            reads_resident: true,
            limit: AtomicUsize::new(usize::MAX),
            mapped: AtomicUsize::new(0),
            hints: [const { AtomicUsize::new(0) }; 2],
            failed_advice: AtomicU64::new(0),
            failed_unmaps: AtomicU64::new(0),
        }
    }

    /// Chooses how pages are given back.
    #[must_use]
    pub const fn purging(self, purge: Purge) -> Self {
        Self { purge, ..self }
    }

    /// Asks for huge pages everywhere, and not only for long objects of a program that is seen to use these whole. Fewer faults
    /// and fewer misses in the address cache, for memory that is used densely; what is given back splits them.
    #[must_use]
    pub const fn with_huge_pages(self) -> Self {
        Self { huge: true, ..self }
    }

    /// Lets pages come one by one, as they are touched, and not some at a time when an epoch that is not small draws from
    /// them: the least memory, and a fault for each page.
    #[must_use]
    pub const fn without_populating(self) -> Self {
        Self {
            populate: false,
            ..self
        }
    }

    /// Has heaps count what is resident, instead of asking the system before and after each close of an
    /// epoch, which takes some microseconds.
    #[must_use]
    pub const fn without_readings(self) -> Self {
        Self {
            reads_resident: false,
            ..self
        }
    }

    /// Lets at most `bytes` be mapped. (While a large object is being moved its new place counts, and its
    /// old one, which goes as the pages come, does not.)
    #[must_use]
    pub const fn with_limit(self, bytes: usize) -> Self {
        Self {
            limit: AtomicUsize::new(bytes),
            ..self
        }
    }

    /// Bytes that are mapped.
    pub fn mapped_bytes(&self) -> usize {
        self.mapped.load(Relaxed)
    }

    /// Times that the kernel refused to take pages back. They count as resident on.
    pub fn failed_advice(&self) -> u64 {
        self.failed_advice.load(Relaxed)
    }

    /// Times that the kernel refused to take a mapping away. It is lost to the process, but not its memory:
    /// that was given back.
    pub fn failed_unmaps(&self) -> u64 {
        self.failed_unmaps.load(Relaxed)
    }

    /// Counts `bytes` as mapped, within the limit.
    fn count(&self, bytes: usize) -> bool {
        let limit = self.limit.load(Relaxed);
        let within = |mapped: usize| mapped.checked_add(bytes).filter(|sum| *sum <= limit);
        self.mapped.fetch_update(Relaxed, Relaxed, within).is_ok()
    }

    fn discount(&self, bytes: usize) {
        self.mapped.fetch_sub(bytes, Relaxed);
    }

    fn hint(&self, align: usize) -> &AtomicUsize {
        let [chunks, others] = &self.hints;
        if align >= Self::CHUNK_SIZE {
            chunks
        } else {
            others
        }
    }

    /// A mapping of `size` bytes whose base is a multiple of `align`.
    fn map(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let hint = self.hint(align);
        let below = hint.load(Relaxed).saturating_sub(size) & !(align - 1);
        let base = sys::map(ptr::without_provenance_mut(below), size)?;
        let base = if base.addr().get().is_multiple_of(align) {
            base
        } else {
            // SAFETY: it was just mapped, and nobody uses it.
            unsafe { self.unmap(base.as_ptr(), size) };
            self.map_and_trim(size, align)?
        };
        // The kernel fills the address space from above.
        hint.store(base.addr().get(), Relaxed);
        if self.huge {
            // A wish: without it there are small pages.
            // SAFETY: it was just mapped, and this loses nothing.
            unsafe { sys::advise(base.as_ptr(), size, Advice::Huge) };
        }
        Some(base)
    }

    /// A longer mapping, less what is in front of the aligned part and behind it.
    #[cold]
    fn map_and_trim(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let whole = size.checked_add(align - sys::page_size())?;
        let base = sys::map(ptr::null_mut(), whole)?.as_ptr();
        let lead = base.addr().wrapping_neg() & (align - 1);
        let aligned = base.wrapping_add(lead);
        // SAFETY: parts of what was just mapped, which nobody uses. Where there are too many mappings for a
        // split, all of it goes back in one piece.
        unsafe {
            let tail = whole - lead - size;
            if !sys::unmap(aligned.wrapping_add(size), tail) {
                self.unmap(base, whole);
                return None;
            }
            if !sys::unmap(base, lead) {
                self.unmap(base, lead + size);
                return None;
            }
        }
        NonNull::new(aligned)
    }

    /// # Safety
    /// As for [`sys::unmap`].
    unsafe fn unmap(&self, base: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        let gone = unsafe { sys::unmap(base, size) };
        if !gone {
            // The addresses are lost, the memory is not.
            self.failed_unmaps.fetch_add(1, Relaxed);
            // SAFETY: the caller's promise.
            unsafe { sys::advise(base, size, Advice::DontNeed) };
        }
    }
}

/// The chunks that hold so many pages.
fn chunks_around(pages: Region) -> Region {
    let lead = pages.base.addr().get() % MmapProvider::CHUNK_SIZE;
    let base = NonNull::new(pages.base.as_ptr().wrapping_sub(lead));
    Region {
        base: base.unwrap_or(pages.base),
        size: (lead + pages.size).next_multiple_of(MmapProvider::CHUNK_SIZE),
    }
}

/// The huge pages that lie in so many pages.
fn huge_pages(pages: Region) -> Option<Region> {
    const HUGE: usize = 2 << 20;
    let lead = pages.base.addr().get().wrapping_neg() % HUGE;
    let size = pages.size.checked_sub(lead)? / HUGE * HUGE;
    let base = NonNull::new(pages.base.as_ptr().wrapping_add(lead))?;
    (size > 0).then_some(Region { base, size })
}

impl Default for MmapProvider {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: private anonymous mappings are readable, writable and nobody else's until they are unmapped;
// advice keeps to its range; nothing unwinds or calls a heap.
unsafe impl PageProvider for MmapProvider {
    const CHUNK_SIZE: usize = 4 << 20;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        if size == 0 || !align.is_power_of_two() {
            return None;
        }
        let size = size.checked_next_multiple_of(sys::page_size())?;
        if !self.count(size) {
            return None;
        }
        let base = self.map(size, align.max(sys::page_size()));
        if base.is_none() {
            self.discount(size);
        }
        base.map(|base| Region { base, size })
    }

    unsafe fn release(&self, region: Region) {
        // SAFETY: the caller's promise.
        unsafe { self.unmap(region.base.as_ptr(), region.size) };
        self.discount(region.size);
        // The last region that was mapped leaves its place to the next.
        let base = region.base.addr().get();
        for hint in &self.hints {
            let _other = hint.compare_exchange(base, base + region.size, Relaxed, Relaxed);
        }
    }

    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        let advice = match self.purge {
            Purge::Now => Advice::DontNeed,
            Purge::Lazy => Advice::Free,
        };
        // SAFETY: the caller's promise.
        if unsafe { sys::advise(pages.base.as_ptr(), pages.size, advice) } {
            return Ok(());
        }
        self.failed_advice.fetch_add(1, Relaxed);
        Err(ProviderError)
    }

    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        // Pages come when they are touched.
        Ok(())
    }

    unsafe fn populate(&self, pages: Region) {
        // A hint: where the kernel is too old for it the pages come one by one.
        // SAFETY: the caller's promise; this loses nothing.
        unsafe { sys::advise(pages.base.as_ptr(), pages.size, Advice::PopulateWrite) };
    }

    unsafe fn populate_whole(&self, pages: Region) {
        // Huge pages are welcome now and not later: what is touched after they went back is to bring no more than a page.
        let huge = huge_pages(pages).filter(|_| !self.huge);
        let advise = |pages: Region, advice| {
            // SAFETY: the caller's promise; this loses nothing.
            unsafe { sys::advise(pages.base.as_ptr(), pages.size, advice) };
        };
        if let Some(huge) = huge {
            advise(huge, Advice::Huge);
        }
        advise(pages, Advice::PopulateWrite);
        if let Some(huge) = huge {
            // Of whole chunks, which regions of them are made of: with the same advice neighbours are one mapping.
            advise(chunks_around(huge), Advice::Small);
        }
    }

    unsafe fn remap(&self, region: Region, size: usize, align: usize) -> Option<Region> {
        let size = size.checked_next_multiple_of(sys::page_size())?;
        let (base, old) = (region.base.as_ptr(), region.size);
        let stays_aligned = base.addr().is_multiple_of(align);
        if size <= old && stays_aligned {
            // SAFETY: the caller's promise.
            let done = unsafe { sys::resize_in_place(base, old, size) };
            if done {
                self.discount(old - size);
            }
            return done.then_some(Region { size, ..region });
        }
        if size <= old || !self.count(size - old) {
            return None;
        }
        // SAFETY: the caller's promise. The target was just mapped, and goes away as the pages come. After a
        // move that failed it may be gone already, and be somebody else's: its addresses are given up.
        let moved = unsafe {
            if stays_aligned && sys::resize_in_place(base, old, size) {
                Some(region.base)
            } else {
                self.map(size, align.max(sys::page_size()))
                    .filter(|target| {
                        let moved = sys::move_to(base, old, size, target.as_ptr());
                        self.failed_unmaps.fetch_add(u64::from(!moved), Relaxed);
                        moved
                    })
            }
        };
        if moved.is_none() {
            self.discount(size - old);
        }
        moved.map(|base| Region { base, size })
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::FRESH_ZERO
            | Capabilities::DECOMMIT
            | Capabilities::LAZY_COMMIT
            | Capabilities::GROW;
        can.set(Capabilities::DECOMMIT_ZERO, self.purge == Purge::Now);
        can.set(Capabilities::POPULATE, self.populate);
        can
    }

    fn page_size(&self) -> usize {
        sys::page_size()
    }

    fn now_ns(&self) -> Option<u64> {
        Some(sys::now_ns())
    }

    fn recent_ns(&self) -> Option<u64> {
        Some(sys::recent_ns())
    }

    fn is_present(&self, page: usize) -> Option<bool> {
        sys::is_present(page)
    }

    fn resident_bytes(&self) -> Option<u64> {
        let usage = self.reads_resident.then(rss::Usage::read)?;
        usage.map(|usage| usage.resident_bytes)
    }
}
