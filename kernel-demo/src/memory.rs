//! Physical memory: the frames that the boot loader says are usable, and a page provider over them.

use core::ptr::NonNull;

use bootloader::BootInfo;
use bootloader::bootinfo::MemoryRegionType;
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab_kernel_demo::frames::{FRAME, Frames};

use crate::lock::IrqLock;

/// The machine's frames, and where all of physical memory is mapped.
struct Physical {
    frames: Frames<'static>,
    offset: usize,
}

static PHYSICAL: lock_api::Mutex<IrqLock, Option<Physical>> = lock_api::Mutex::new(None);

/// Runs `f` with the frames and the offset at which physical memory is mapped, if they are known yet.
pub(crate) fn with<T>(f: impl FnOnce(&mut Frames<'static>, usize) -> T) -> Option<T> {
    let mut physical = PHYSICAL.lock();
    physical.as_mut().map(|p| f(&mut p.frames, p.offset))
}

/// How many frames are free, and how many there are.
pub(crate) fn frames() -> (usize, usize) {
    let physical = PHYSICAL.lock();
    physical
        .as_ref()
        .map_or((0, 0), |p| (p.frames.free(), p.frames.total()))
}

/// Takes over the usable memory. Call it once.
pub(crate) fn init(boot: &'static BootInfo) {
    let offset = usize::try_from(boot.physical_memory_offset).expect("addresses have 64 bits");
    let usable = || {
        let regions = boot.memory_map.iter();
        let usable = regions.filter(|region| region.region_type == MemoryRegionType::Usable);
        usable.map(|r| {
            (
                r.range.start_frame_number as usize,
                r.range.end_frame_number as usize,
            )
        })
    };
    let end = usable().map(|(_, end)| end).max().unwrap_or(0);
    let words = Frames::words(end);
    let map_frames = (words * size_of::<u64>()).div_ceil(FRAME);
    let (home, _) = usable()
        .find(|(start, end)| end - start > map_frames)
        .expect("a region is large enough for the map of frames");
    let map: *mut u64 = core::ptr::with_exposed_provenance_mut(offset + home * FRAME);
    // SAFETY: usable memory, mapped at the offset, that nobody else has: its frames are not added below.
    let map = unsafe { core::slice::from_raw_parts_mut(map, words) };
    let mut frames = Frames::new(map);
    for (start, end) in usable() {
        // The first megabyte stays as it is: the other CPUs start there.
        let (start, end) = (start.max(256), end.max(256));
        let first = if start == home {
            home + map_frames
        } else {
            start
        };
        frames.add(first, end - first);
    }
    *PHYSICAL.lock() = Some(Physical { frames, offset });
}

/// Pages straight from frames, through the mapping of all physical memory. They cannot be taken out of it,
/// so only whole regions go back.
#[derive(Debug)]
pub(crate) struct FrameProvider;

// SAFETY: a frame is given to one taker until it comes back, and is mapped at the offset for ever; nothing
// unwinds or calls a heap.
unsafe impl PageProvider for FrameProvider {
    const CHUNK_SIZE: usize = 256 << 10;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        let count = size.div_ceil(FRAME);
        let mut physical = PHYSICAL.lock();
        let physical = physical.as_mut()?;
        // The mapping is aligned to as much as any chunk; for more than that there is no promise.
        if !physical.offset.is_multiple_of(align) {
            return None;
        }
        let first = physical.frames.take(count, align.div_ceil(FRAME).max(1))?;
        let base = core::ptr::with_exposed_provenance_mut(physical.offset + first * FRAME);
        NonNull::new(base).map(|base| Region {
            base,
            size: count * FRAME,
        })
    }

    unsafe fn release(&self, region: Region) {
        let mut physical = PHYSICAL.lock();
        if let Some(physical) = physical.as_mut() {
            let first = (region.base.addr().get() - physical.offset) / FRAME;
            let given = physical.frames.give(first, region.size / FRAME);
            // What the heap gives back it got from here; anything else is a bug worth stopping for.
            assert!(given.is_ok(), "{given:?}: {region:?}");
        }
    }

    unsafe fn decommit(&self, _pages: Region) -> Result<(), ProviderError> {
        Err(ProviderError)
    }

    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}
