//! Pages with addresses of their own, and frames behind them that come and go.
//!
//! [`FrameProvider`](crate::memory::FrameProvider) hands out physical memory where it is mapped anyway: there
//! is nothing to set up, but a page in use keeps its whole chunk. Here a region is a range of addresses;
//! decommit takes the frames away from behind it, to whoever needs them, and commit puts others there.
//! What is promised is the heap's contract and no more: fresh pages are as the frames' last user left them.

use core::ptr::NonNull;

use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab_kernel_demo::frames::{FRAME, Frames};
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
    Translate,
};
use x86_64::{PhysAddr, VirtAddr};

use crate::lock::IrqLock;
use crate::memory;

/// Where the addresses begin: far from everything that the boot loader mapped.
const FIRST: usize = 0x4444_0000_0000;
const LAST: usize = FIRST + (64 << 30);

/// Ranges that are kept for reuse. More are lost as addresses, never as frames.
const KEPT: usize = 64;

struct Ranges {
    next: usize,
    unused: [(usize, usize); KEPT],
}

impl Ranges {
    /// A range of `size` bytes aligned to `align`: one that was given back, or a new one.
    fn take(&mut self, size: usize, align: usize) -> Option<usize> {
        let fits = |range: &&mut (usize, usize)| range.1 == size && range.0.is_multiple_of(align);
        if let Some(range) = self.unused.iter_mut().find(fits) {
            return Some(core::mem::take(range).0);
        }
        let base = self.next.checked_next_multiple_of(align)?;
        let end = base.checked_add(size).filter(|end| *end <= LAST)?;
        self.next = end;
        Some(base)
    }

    fn give(&mut self, base: usize, size: usize) {
        if let Some(place) = self.unused.iter_mut().find(|range| range.1 == 0) {
            *place = (base, size);
        }
    }
}

static RANGES: lock_api::Mutex<IrqLock, Ranges> = lock_api::Mutex::new(Ranges {
    next: FIRST,
    unused: [(0, 0); KEPT],
});

/// The kernel's page tables and the frames, under the frames' lock.
struct Space<'f> {
    tables: OffsetPageTable<'static>,
    frames: &'f mut Frames<'static>,
}

struct TableFrames<'f>(&'f mut Frames<'static>);

// SAFETY: a frame that is taken is nobody else's.
unsafe impl FrameAllocator<Size4KiB> for TableFrames<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        self.0.take(1, 1).map(frame_at)
    }
}

fn frame_at(number: usize) -> PhysFrame {
    PhysFrame::containing_address(PhysAddr::new((number * FRAME) as u64))
}

fn pages(base: usize, size: usize) -> impl Iterator<Item = Page<Size4KiB>> + Clone {
    (base..base + size)
        .step_by(FRAME)
        .map(|at| Page::containing_address(VirtAddr::new(at as u64)))
}

impl Space<'_> {
    /// Puts a frame behind each page that has none. On failure those that it put there are gone again.
    fn map(&mut self, base: usize, size: usize) -> bool {
        for (done, page) in pages(base, size).enumerate() {
            if self.tables.translate_addr(page.start_address()).is_some() {
                continue;
            }
            let flags =
                PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
            let mapped = self.frames.take(1, 1).is_some_and(|number| {
                // SAFETY: the page is in our own range of addresses and has no frame; the frame is nobody's.
                let mapped = unsafe {
                    let mut tables = TableFrames(self.frames);
                    self.tables
                        .map_to(page, frame_at(number), flags, &mut tables)
                };
                match mapped {
                    Ok(flush) => {
                        flush.flush();
                        true
                    }
                    Err(_) => {
                        let given = self.frames.give(number, 1);
                        assert!(given.is_ok(), "it was just taken");
                        false
                    }
                }
            });
            if !mapped {
                self.unmap(base, done * FRAME);
                return false;
            }
        }
        true
    }

    /// Takes the frames away from behind the pages, and gives them back.
    fn unmap(&mut self, base: usize, size: usize) {
        for page in pages(base, size) {
            if let Ok((frame, flush)) = self.tables.unmap(page) {
                flush.flush();
                let number = (frame.start_address().as_u64() as usize) / FRAME;
                let given = self.frames.give(number, 1);
                assert!(given.is_ok(), "{given:?}: frame {number}");
            }
        }
    }
}

/// Runs `f` with the page tables.
fn with<T>(f: impl FnOnce(Space<'_>) -> T) -> Option<T> {
    memory::with(|frames, offset| {
        let (top, _) = Cr3::read();
        let at = offset + top.start_address().as_u64() as usize;
        let top: *mut PageTable = core::ptr::with_exposed_provenance_mut(at);
        // SAFETY: the active tables, mapped with all of physical memory at the offset; the frames' lock keeps
        // everybody else who changes them away.
        let tables = unsafe { OffsetPageTable::new(&mut *top, VirtAddr::new(offset as u64)) };
        f(Space { tables, frames })
    })
}

/// Pages by page tables.
#[derive(Debug)]
pub(crate) struct VirtualProvider;

// SAFETY: a range of addresses is given to one taker until it comes back; pages have frames of their own
// while they are committed; nothing unwinds or calls a heap.
unsafe impl PageProvider for VirtualProvider {
    const CHUNK_SIZE: usize = 256 << 10;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        let size = size.next_multiple_of(FRAME);
        let base = RANGES.lock().take(size, align)?;
        if with(|mut space| space.map(base, size)) == Some(true) {
            let base = NonNull::new(core::ptr::with_exposed_provenance_mut(base));
            return base.map(|base| Region { base, size });
        }
        RANGES.lock().give(base, size);
        None
    }

    unsafe fn release(&self, region: Region) {
        let base = region.base.addr().get();
        let _mapped = with(|mut space| space.unmap(base, region.size));
        RANGES.lock().give(base, region.size);
    }

    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        with(|mut space| space.unmap(pages.base.addr().get(), pages.size)).ok_or(ProviderError)
    }

    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        match with(|mut space| space.map(pages.base.addr().get(), pages.size)) {
            Some(true) => Ok(()),
            _ => Err(ProviderError),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::DECOMMIT | Capabilities::GROW
    }
}
