//! Pages from the operating system.

use core::ptr::{self, NonNull};
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};

/// `mmap` for regions, `madvise` to give their pages back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mmap;

/// What `mmap` rounds to on the machines that this is for; it need not be what the CPU calls a page.
const PAGE: usize = 4096;

/// Unmaps, unless there is nothing to unmap, which `munmap` would refuse.
///
/// # Safety
/// The bytes are mapped by [`Mmap::acquire`] and nobody uses them.
unsafe fn unmap(base: *mut u8, size: usize) {
    if size > 0 {
        // SAFETY: the caller's promise. The result is of no use: a mapping that could not be
        // removed is a leak, and no one here could mend it.
        unsafe { libc::munmap(base.cast(), size) };
    }
}

// SAFETY: private anonymous mappings are readable, writable and nobody else's until they are
// unmapped; MADV_DONTNEED keeps to the range that it is given.
unsafe impl PageProvider for Mmap {
    const CHUNK_SIZE: usize = 4 << 20;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        let size = size.checked_next_multiple_of(PAGE)?;
        let align = align.max(PAGE);
        // The kernel aligns to pages only, so the aligned part is cut out of a longer mapping.
        let mapped = size.checked_add(align - PAGE)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that
        // exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        let base: *mut u8 = base.cast();
        let lead = base.addr().next_multiple_of(align) - base.addr();
        // SAFETY: `lead + size` is at most `mapped`, and what is unmapped was handed to nobody.
        let region = unsafe {
            let aligned = base.add(lead);
            unmap(base, lead);
            unmap(aligned.add(size), mapped - lead - size);
            aligned
        };
        let base = NonNull::new(region)?;
        Some(Region { base, size })
    }

    unsafe fn release(&self, region: Region) {
        // SAFETY: the region is what `acquire` left mapped, and the caller gives it up.
        unsafe { unmap(region.base.as_ptr(), region.size) };
    }

    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        // SAFETY: the pages are mapped, and the caller gives their content up.
        let result =
            unsafe { libc::madvise(pages.base.as_ptr().cast(), pages.size, libc::MADV_DONTNEED) };
        if result == 0 {
            Ok(())
        } else {
            Err(ProviderError)
        }
    }

    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        // They come when they are touched.
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
