//! The allocator for C where there is no system: a heap lies in memory that the caller gives, and its pages come through
//! a table of functions. `include/temporal_slab_bare.h` is made of this source by a test.
//!
//! Principles:
//! - Nothing is taken from anywhere but through the table, and all of it goes back through it.
//! - Every function survives null and numbers out of range; what is freed is looked up in a heap that checks.
//! - Any context may call, but for one that interrupts another inside the heap on the same CPU: the lock spins.
#![cfg_attr(target_os = "none", no_std)]

use core::alloc::Layout;
use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};
use temporal_slab::class::FINE_SIZES;
use temporal_slab::config::Config;
use temporal_slab::config::DefaultLock;
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab::{AllocError, Epoch, EpochError, FreeError, Heap, RawHandle};

/// Where pages come from and go back to.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SlabPages {
    /// Handed to each function.
    pub context: *mut c_void,
    /// The size of a page, a power of two; what `decommit` is asked for are whole ones.
    pub page: usize,
    /// Memory of this size, at a multiple of `align`, or null. It stays the heap's until it is released.
    pub acquire: Option<
        unsafe extern "C" fn(context: *mut c_void, size: usize, align: usize) -> *mut c_void,
    >,
    /// Takes it back, whole.
    pub release: Option<unsafe extern "C" fn(context: *mut c_void, base: *mut c_void, size: usize)>,
    /// Takes what is behind pages back, which stay the heap's and may be written to again; whether it did. May be null:
    /// then memory goes back in whole chunks only.
    pub decommit:
        Option<unsafe extern "C" fn(context: *mut c_void, base: *mut c_void, size: usize) -> bool>,
}

/// Why a call failed. Each kind has the number that it has in `temporal_slab.h`; 11 is for what only that library can do.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlabBareError {
    /// No error.
    None = 0,
    /// A pointer is null that must not be, or a number is out of range.
    Argument = 1,
    /// The size is larger than the address space allows; or, of an object with a handle, than 8192 bytes.
    Size = 2,
    /// The epoch is closed.
    ClosedEpoch = 3,
    /// There is no such epoch, or it cannot be closed.
    BadEpoch = 4,
    /// The table had no memory.
    OutOfMemory = 5,
    /// What is asked for at once is more than can be counted.
    Limit = 6,
    /// The handle's object is gone, or there never was one.
    BadHandle = 7,
    /// No object of this heap begins at the pointer.
    BadPointer = 8,
    /// The object was freed already.
    DoubleFree = 9,
    /// Every position of the ring is open or has live objects.
    RingFull = 10,
    /// The ids of handles are used up.
    HandlesExhausted = 12,
    /// A defect of the library: please report it.
    Internal = 13,
}

type Error = SlabBareError;

impl From<AllocError> for SlabBareError {
    fn from(error: AllocError) -> Self {
        match error {
            AllocError::OutOfMemory => Self::OutOfMemory,
            AllocError::Limit => Self::Limit,
            AllocError::TooLarge => Self::Size,
            AllocError::EpochClosed => Self::ClosedEpoch,
            AllocError::HandlesExhausted => Self::HandlesExhausted,
            _ => Self::Internal,
        }
    }
}

impl From<FreeError> for SlabBareError {
    fn from(error: FreeError) -> Self {
        match error {
            FreeError::DoubleFree => Self::DoubleFree,
            _ => Self::BadPointer,
        }
    }
}

impl From<EpochError> for SlabBareError {
    fn from(error: EpochError) -> Self {
        match error {
            EpochError::Closed => Self::ClosedEpoch,
            EpochError::RingFull => Self::RingFull,
            EpochError::OutOfMemory => Self::OutOfMemory,
            _ => Self::BadEpoch,
        }
    }
}

/// Chunks for small machines.
const CHUNK: usize = 256 << 10;

#[derive(Debug)]
struct ForC;

impl Config for ForC {
    type Provider = Table;
    type Lock = DefaultLock;
    const SIZES: &'static [usize] = FINE_SIZES;
    const CHECKED: bool = true;
    const RING: usize = RING;
    const EPOCHS: usize = Self::RING;
}

const RING: usize = 32;

/// A position of the ring, from 0: the first epoch's, which is never closed. There are 32.
pub type SlabBareEpoch = u32;

/// A name of an object that can be kept after the object is gone. Zero is none.
pub type SlabBareHandle = u64;

const NO_EPOCH: SlabBareEpoch = SlabBareEpoch::MAX;

/// The table as a provider.
#[derive(Debug)]
struct Table(SlabPages);

// SAFETY: who gives the table promises that its functions may be called from anywhere.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

// SAFETY: who gives the table promises what its functions do; what does not have the right shape the heap hands back.
unsafe impl PageProvider for Table {
    const CHUNK_SIZE: usize = CHUNK;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        // SAFETY: the table's promise.
        let base = unsafe { self.0.acquire?(self.0.context, size, align) };
        NonNull::new(base.cast()).map(|base| Region { base, size })
    }

    unsafe fn release(&self, region: Region) {
        if let Some(release) = self.0.release {
            // SAFETY: the table's promise, and the caller's.
            unsafe { release(self.0.context, region.base.as_ptr().cast(), region.size) };
        }
    }

    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        let decommit = self.0.decommit.ok_or(ProviderError)?;
        // SAFETY: the table's promise, and the caller's.
        let done = unsafe { decommit(self.0.context, pages.base.as_ptr().cast(), pages.size) };
        if done { Ok(()) } else { Err(ProviderError) }
    }

    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        let all = Capabilities::GROW | Capabilities::LAZY_COMMIT;
        match self.0.decommit {
            Some(_) => all | Capabilities::DECOMMIT,
            None => all,
        }
    }

    fn page_size(&self) -> usize {
        self.0.page
    }
}

/// A heap.
#[derive(Debug)]
pub struct SlabBare {
    heap: Heap<ForC>,
    /// The newest era of each position, or nothing. `Relaxed`: a number that the heap checks.
    eras: [AtomicU64; RING],
    /// Why a call failed last. `Relaxed`: a figure.
    last: AtomicU64,
}

impl SlabBare {
    fn epoch(&self, id: SlabBareEpoch) -> Result<Epoch, Error> {
        let era = self.eras.get(id as usize).ok_or(Error::BadEpoch)?;
        Epoch::from_parts(id, era.load(Ordering::Relaxed)).ok_or(Error::BadEpoch)
    }

    fn noted(&self, epoch: Epoch) -> SlabBareEpoch {
        if let Some(era) = self.eras.get(epoch.index()) {
            era.fetch_max(epoch.era(), Ordering::Relaxed);
        }
        epoch.index() as SlabBareEpoch
    }
}

/// Runs what a function does with a heap, and notes why it failed.
///
/// # Safety
/// `heap` is a heap or null.
unsafe fn with<T>(
    heap: *const SlabBare,
    otherwise: T,
    work: impl FnOnce(&SlabBare) -> Result<T, Error>,
) -> T {
    // SAFETY: the caller's promise.
    let Some(heap) = (unsafe { heap.as_ref() }) else {
        return otherwise;
    };
    work(heap).unwrap_or_else(|error| {
        heap.last.store(error as u64, Ordering::Relaxed);
        otherwise
    })
}

/// The bytes that a heap itself needs, for [`slab_bare_create`].
#[unsafe(no_mangle)]
pub extern "C" fn slab_bare_size() -> usize {
    size_of::<SlabBare>()
}

/// What the memory for a heap is to be aligned to.
#[unsafe(no_mangle)]
pub extern "C" fn slab_bare_align() -> usize {
    align_of::<SlabBare>()
}

/// Makes a heap in `memory`. Null if that is too small or not aligned, or the table is not whole. Nothing is acquired yet
/// but for the first epoch.
///
/// # Safety
/// `memory` has `size` bytes that nobody else uses for as long as the heap, or is null; `pages` is a table whose functions
/// do what is said there, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_create(
    memory: *mut c_void,
    size: usize,
    pages: *const SlabPages,
) -> *mut SlabBare {
    let heap = memory.cast::<SlabBare>();
    // SAFETY: the caller's promise.
    let Some(pages) = (unsafe { pages.as_ref() }) else {
        return ptr::null_mut();
    };
    let is_whole =
        pages.acquire.is_some() && pages.release.is_some() && pages.page.is_power_of_two();
    if heap.is_null() || !heap.is_aligned() || size < size_of::<SlabBare>() || !is_whole {
        return ptr::null_mut();
    }
    // SAFETY: the memory is the caller's to give, large enough and aligned.
    unsafe {
        heap.write(SlabBare {
            heap: Heap::new(Table(*pages)),
            eras: [const { AtomicU64::new(0) }; RING],
            last: AtomicU64::new(0),
        });
        match (*heap).heap.current() {
            Ok(root) => {
                (*heap).noted(root);
                heap
            }
            Err(_) => {
                heap.drop_in_place();
                ptr::null_mut()
            }
        }
    }
}

/// Ends a heap: all of its memory is released, and that which it lies in is the caller's again. Null is fine.
///
/// # Safety
/// `heap` is a heap or null, and neither it nor what was allocated in it is used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_destroy(heap: *mut SlabBare) {
    if !heap.is_null() {
        // SAFETY: the caller's promise.
        unsafe { heap.drop_in_place() };
    }
}

/// Why a call of this heap failed last.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_last_error(heap: *const SlabBare) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(heap, Error::Argument as u32, |heap| {
            Ok(heap.last.load(Ordering::Relaxed) as u32)
        })
    }
}

/// Allocates in an epoch. `align` is a power of two. Null if it failed.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_alloc(
    heap: *mut SlabBare,
    size: usize,
    align: usize,
    epoch: SlabBareEpoch,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        with(heap, ptr::null_mut(), |heap| {
            if !align.is_power_of_two() {
                return Err(Error::Argument);
            }
            let layout = Layout::from_size_align(size, align).map_err(|_| Error::Size)?;
            Ok(heap
                .heap
                .alloc_in(heap.epoch(epoch)?, layout)?
                .as_ptr()
                .cast())
        })
    }
}

/// Frees an object. Whether it was one; null is fine.
///
/// # Safety
/// `heap` is a heap or null; if `object` is a live object nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_free(heap: *mut SlabBare, object: *mut c_void) -> bool {
    // SAFETY: the caller's promise, and the heap is a checked one.
    unsafe {
        with(heap, false, |heap| {
            if let Some(object) = NonNull::new(object.cast::<u8>()) {
                heap.heap.free_unsized(object)?;
            }
            Ok(true)
        })
    }
}

/// How many bytes an object may use. 0 if it is none.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_usable_size(heap: *mut SlabBare, object: *mut c_void) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        with(heap, 0, |heap| {
            let object = NonNull::new(object.cast::<u8>()).ok_or(Error::Argument)?;
            Ok(heap.heap.usable_size(object)?)
        })
    }
}

/// Allocates an object that is known by a handle. Zero if it failed.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_alloc_obj(
    heap: *mut SlabBare,
    size: usize,
    epoch: SlabBareEpoch,
) -> SlabBareHandle {
    // SAFETY: the caller's promise.
    unsafe {
        with(heap, 0, |heap| {
            let layout = Layout::from_size_align(size, 16).map_err(|_| Error::Size)?;
            Ok(heap.heap.alloc_raw_in(heap.epoch(epoch)?, layout)?.bits())
        })
    }
}

/// Where the object of a handle is, if it lives; else null.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_get_obj(
    heap: *mut SlabBare,
    handle: SlabBareHandle,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        with(heap, ptr::null_mut(), |heap| {
            let object = heap.heap.try_get_raw(RawHandle::from_bits(handle));
            Ok(object.map_err(|_| Error::BadHandle)?.as_ptr().cast())
        })
    }
}

/// Frees the object of a handle. Whether it lived.
///
/// # Safety
/// `heap` is a heap or null; nobody uses the object any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_free_obj(heap: *mut SlabBare, handle: SlabBareHandle) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        with(heap, false, |heap| {
            let freed = heap.heap.free_raw(RawHandle::from_bits(handle));
            freed.map_err(|_| Error::BadHandle).map(|()| true)
        })
    }
}

/// Begins an epoch beside the current one. `UINT32_MAX` if there is none to be had.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_epoch_open(heap: *mut SlabBare) -> SlabBareEpoch {
    // SAFETY: the caller's promise.
    unsafe {
        with(heap, NO_EPOCH, |heap| {
            Ok(heap.noted(heap.heap.open_epoch()?))
        })
    }
}

/// Begins an epoch and makes it current; the one that was is closed, unless it is the first. `UINT32_MAX` if there is none
/// to be had.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_epoch_advance(heap: *mut SlabBare) -> SlabBareEpoch {
    // SAFETY: the caller's promise.
    unsafe { with(heap, NO_EPOCH, |heap| Ok(heap.noted(heap.heap.advance()?))) }
}

/// The current epoch.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_epoch_current(heap: *mut SlabBare) -> SlabBareEpoch {
    // SAFETY: the caller's promise.
    unsafe { with(heap, NO_EPOCH, |heap| Ok(heap.noted(heap.heap.current()?))) }
}

/// Closes an epoch: what is empty in it goes back now. Whether it did.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_epoch_close(heap: *mut SlabBare, epoch: SlabBareEpoch) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        with(heap, false, |heap| {
            heap.heap.reclaim_epoch(heap.epoch(epoch)?)?;
            Ok(true)
        })
    }
}

/// Gives everything that is empty back.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_reclaim(heap: *mut SlabBare) {
    // SAFETY: the caller's promise.
    unsafe {
        with(heap, (), |heap| {
            heap.heap.reclaim();
            Ok(())
        });
    }
}

/// Bytes that are held from the table.
///
/// # Safety
/// `heap` is a heap or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_bare_held_bytes(heap: *const SlabBare) -> usize {
    // SAFETY: the caller's promise.
    unsafe { with(heap, 0, |heap| Ok(heap.heap.bytes().taken)) }
}

/// Nothing here panics; if something does all the same, it goes no further.
#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
