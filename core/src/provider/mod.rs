//! The contract with the outside: where memory comes from and where it goes back.
//!
//! Principles:
//! - Five verbs and no policy. A provider does what it is told; when to tell it is the heap's matter.
//! - The heap calls a provider with none of its own locks held. A provider may lock, sleep or be slow.
//! - The heap does not trust a provider's answers: a region that is misaligned, short, wrapping or
//!   already held is handed straight back and the request fails.

#[cfg(any(test, feature = "testing"))]
mod faulty;
mod fixed;

use bitflags::bitflags;
use core::fmt;
use core::ptr::NonNull;

#[cfg(any(test, feature = "testing"))]
pub use faulty::{Accounts, Fault, FaultyProvider};
pub use fixed::StaticProvider;

bitflags! {
    /// What a provider can do, so that the heap neither asks for the impossible nor does twice
    /// what the platform does already.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        /// Memory from `acquire` reads as zero until it is first written.
        const FRESH_ZERO = 1 << 0;
        /// `decommit` gives physical memory back. Without it only whole regions go back.
        const DECOMMIT = 1 << 1;
        /// Decommitted pages read as zero when they are next used.
        const DECOMMIT_ZERO = 1 << 2;
        /// Pages come by themselves when they are touched: `commit` need not be called.
        const LAZY_COMMIT = 1 << 3;
        /// `acquire` may succeed later although it failed now.
        const GROW = 1 << 4;
        /// `populate` does something.
        const POPULATE = 1 << 5;
    }
}

/// A contiguous piece of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The first byte. Its provenance covers the whole region.
    pub base: NonNull<u8>,
    /// How many bytes there are.
    pub size: usize,
}

impl Region {
    /// The address behind the last byte, or `None` if the region does not end inside the address
    /// space.
    #[must_use]
    pub fn end(&self) -> Option<usize> {
        self.base.addr().get().checked_add(self.size)
    }
}

/// The provider did not do what it was asked: `commit` found no memory, or `decommit` failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderError;

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the page provider refused")
    }
}

impl core::error::Error for ProviderError {}

/// A source of pages.
///
/// # Safety
///
/// The heap hands out the memory that it gets here, so an implementor promises:
/// - a region from [`acquire`](Self::acquire) is readable and writable through its pointer, used by
///   nobody else, and stays so until it is given to [`release`](Self::release);
/// - [`decommit`](Self::decommit) and [`commit`](Self::commit) touch nothing outside the pages that
///   they are given;
/// - what [`remap`](Self::remap) gives is as its postcondition says: the old region is gone then, and there
///   is nothing to go back to;
/// - no method unwinds, and none calls the heap that uses this provider.
///
/// A region from `acquire` that breaks the shape that was asked for (too small, misaligned, wrapping,
/// overlapping one that the heap still holds) is not undefined behaviour: the heap refuses it and releases it.
pub unsafe trait PageProvider {
    /// The size and alignment of the chunks that the heap asks for: a power of two from 64 KiB to
    /// 4 MiB. Anything else does not compile:
    ///
    /// ```compile_fail,E0080
    /// use temporal_slab::{Heap, config::Standard, provider::StaticProvider};
    /// let heap: Heap<Standard<StaticProvider<'_, 0>>> = Heap::new(StaticProvider::new(&mut []));
    /// let _ = heap.local();
    /// ```
    /// ```compile_fail,E0080
    /// use temporal_slab::{Heap, config::Standard, provider::StaticProvider};
    /// let heap: Heap<Standard<StaticProvider<'_, 100_000>>> = Heap::new(StaticProvider::new(&mut []));
    /// let _ = heap.local();
    /// ```
    /// ```compile_fail,E0080
    /// use temporal_slab::{Heap, config::Standard, provider::StaticProvider};
    /// let heap: Heap<Standard<StaticProvider<'_, 8388608>>> = Heap::new(StaticProvider::new(&mut []));
    /// let _ = heap.local();
    /// ```
    const CHUNK_SIZE: usize;

    /// A region of at least `size` bytes whose base is a multiple of `align`, or `None`.
    ///
    /// Pre: `size > 0`, `align` is a power of two. Post: as the trait's promises. May refuse for any
    /// reason; must not block for ever.
    fn acquire(&self, size: usize, align: usize) -> Option<Region>;

    /// Takes a region back whole. Post: nothing of it is the heap's any more.
    ///
    /// # Safety
    /// `region` came from `acquire` of this provider, was not released since, and nobody uses it.
    unsafe fn release(&self, region: Region);

    /// Gives the physical memory of `pages` back. Post: their content is lost, they stay
    /// addressable. On `Err` nothing has changed but, possibly, the content.
    ///
    /// # Errors
    /// If the platform refused.
    ///
    /// # Safety
    /// `pages` is a multiple of [`page_size`](Self::page_size) in base and size, lies inside one
    /// acquired region, and nobody uses its content.
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError>;

    /// Makes `pages` usable after a decommit. Called only without [`Capabilities::LAZY_COMMIT`].
    /// Pages in it that are in use already keep their content, so two callers may overlap.
    ///
    /// # Errors
    /// If there is no memory for them; they are then as before.
    ///
    /// # Safety
    /// As for [`decommit`](Self::decommit), but parts may be in use.
    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError>;

    /// Makes untouched pages present, so that the first touches of them do not fault one by one: those of a
    /// block that an epoch begins to draw from that is not small, and of some behind it, if there is
    /// [`Capabilities::POPULATE`], or of a chunk that is reserved, whether there is or not. A hint. Their content stays as it is.
    ///
    /// # Safety
    /// `pages` is whole pages inside one acquired region; parts may be in use.
    unsafe fn populate(&self, pages: Region) {
        let _ = pages;
    }

    /// As [`populate`](Self::populate), of a long object that is expected to be used whole: in pages as large as there are.
    ///
    /// # Safety
    /// As there.
    unsafe fn populate_whole(&self, pages: Region) {
        // SAFETY: the caller's promise.
        unsafe { self.populate(pages) }
    }

    /// Makes a region longer or shorter, moved to where there is room if need be. Post: on `Some` the old
    /// region is gone, and the new one, of at least `size` bytes and aligned to `align`, begins with as
    /// much of its content as fits; bytes beyond it are as of a fresh one. On `None` nothing has changed.
    ///
    /// # Safety
    /// `region` came from `acquire` of this provider, was not released since, and nobody uses it meanwhile.
    unsafe fn remap(&self, region: Region, size: usize, align: usize) -> Option<Region> {
        let _ = (region, size, align);
        None
    }

    /// What this provider can do. The same at every call.
    fn capabilities(&self) -> Capabilities;

    /// The unit of [`decommit`](Self::decommit): a power of two of at least 1 KiB, the same at every
    /// call. Above 64 KiB the heap does not decommit and only whole regions go back.
    fn page_size(&self) -> usize {
        4096
    }

    /// A clock for epoch ages, if there is one.
    fn now_ns(&self) -> Option<u64> {
        None
    }

    /// As [`now_ns`](Self::now_ns), some milliseconds ago at most, where that costs less: when an epoch was opened.
    fn recent_ns(&self) -> Option<u64> {
        self.now_ns()
    }

    /// What the platform says is resident, if it says.
    fn resident_bytes(&self) -> Option<u64> {
        None
    }

    /// Whether the page at an address is in memory, if the platform says: a page that was acquired, or has been released since.
    /// Where it does the heap learns whether long objects are used whole.
    fn is_present(&self, page: usize) -> Option<bool> {
        let _ = page;
        None
    }
}

// SAFETY: every call is passed on unchanged to a provider that keeps the contract.
unsafe impl<P: PageProvider + ?Sized> PageProvider for &P {
    const CHUNK_SIZE: usize = P::CHUNK_SIZE;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        (**self).acquire(size, align)
    }
    unsafe fn release(&self, region: Region) {
        // SAFETY: the caller keeps the same contract.
        unsafe { (**self).release(region) }
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: the caller keeps the same contract.
        unsafe { (**self).decommit(pages) }
    }
    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: the caller keeps the same contract.
        unsafe { (**self).commit(pages) }
    }
    unsafe fn populate(&self, pages: Region) {
        // SAFETY: the caller keeps the same contract.
        unsafe { (**self).populate(pages) }
    }
    unsafe fn populate_whole(&self, pages: Region) {
        // SAFETY: the caller keeps the same contract.
        unsafe { (**self).populate_whole(pages) }
    }
    unsafe fn remap(&self, region: Region, size: usize, align: usize) -> Option<Region> {
        // SAFETY: the caller keeps the same contract.
        unsafe { (**self).remap(region, size, align) }
    }
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
    fn page_size(&self) -> usize {
        (**self).page_size()
    }
    fn now_ns(&self) -> Option<u64> {
        (**self).now_ns()
    }
    fn recent_ns(&self) -> Option<u64> {
        (**self).recent_ns()
    }
    fn resident_bytes(&self) -> Option<u64> {
        (**self).resident_bytes()
    }
    fn is_present(&self, page: usize) -> Option<bool> {
        (**self).is_present(page)
    }
}
