//! The kernel's heap and its global allocator.
//!
//! Before there are frames, and for whoever wants to be apart, a small `linked_list_allocator` serves; all
//! else goes through the adapter to temporal-slab. An object tells by its address whose it is.

use core::alloc::{GlobalAlloc, Layout};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use linked_list_allocator::Heap as EarlyHeap;
use temporal_slab::adapter::{Global, LockedLocal};
use temporal_slab::config::Config;
use temporal_slab::provider::PageProvider;
use temporal_slab::{Heap, Policy};

use crate::lock::IrqLock;
use crate::memory::FrameProvider;

/// Checked, so that a bug of the kernel's is found where it is made.
#[derive(Debug)]
pub(crate) struct KernelConfig<P = FrameProvider>(PhantomData<P>);

impl<P: PageProvider> Config for KernelConfig<P> {
    type Provider = P;
    type Lock = IrqLock;
    const CHECKED: bool = true;
    const RING: usize = 32;
    const EPOCHS: usize = Self::RING;
    // A kernel of 64 MiB does not want two tables of 16 KiB for its first handle.
    const HANDLE_IDS_LOG2: u32 = 16;
}

pub(crate) type KernelHeap = Heap<KernelConfig>;
type KernelLocal = LockedLocal<KernelConfig>;

pub(crate) static HEAP: KernelHeap = Heap::new(FrameProvider);

#[global_allocator]
static GLOBAL: KernelAllocator = KernelAllocator {
    early: lock_api::Mutex::new(EarlyHeap::empty()),
    has_frames: AtomicBool::new(false),
    late: Global::new(&HEAP, LockedLocal::new()),
};

const EARLY: usize = 64 << 10;
static mut EARLY_MEMORY: [u8; EARLY] = [0; EARLY];

struct KernelAllocator {
    early: lock_api::Mutex<IrqLock, EarlyHeap>,
    /// Set once, with `Release` when the frames are there, read with `Acquire`.
    has_frames: AtomicBool,
    late: Global<KernelConfig, KernelLocal>,
}

impl KernelAllocator {
    fn is_early(object: *mut u8) -> bool {
        let first = (&raw const EARLY_MEMORY).addr();
        (first..first + EARLY).contains(&object.addr())
    }
}

// SAFETY: each of the two hands out memory that is nobody else's, and gets back what it handed out, which
// the address tells.
unsafe impl GlobalAlloc for KernelAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.has_frames.load(Ordering::Acquire) {
            // SAFETY: passed on.
            return unsafe { self.late.alloc(layout) };
        }
        let object = self.early.lock().allocate_first_fit(layout);
        object.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        if !Self::is_early(object) {
            // SAFETY: passed on.
            return unsafe { self.late.dealloc(object, layout) };
        }
        if let Some(object) = NonNull::new(object) {
            // SAFETY: it came from the early heap, with this layout.
            unsafe { self.early.lock().deallocate(object, layout) };
        }
    }
}

/// Makes the early heap usable. Call it once, first of all.
pub(crate) fn init_early() {
    // SAFETY: nothing else names this memory, and this is called once.
    unsafe {
        GLOBAL
            .early
            .lock()
            .init((&raw mut EARLY_MEMORY).cast(), EARLY)
    };
}

/// From here on everything comes from frames.
pub(crate) fn init_late() {
    // Without decommit memory goes back by whole chunks, on demand and with a close.
    HEAP.set_policy(Policy::ON_CLOSE);
    GLOBAL.has_frames.store(true, Ordering::Release);
}
