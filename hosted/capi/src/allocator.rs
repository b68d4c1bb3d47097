//! Allocators, and the locals that threads have in them.
//!
//! A thread's locals lie in a variable of its own, each with a share of the heap that it is of. So a heap whose allocator
//! is freed stays until the last thread that used it has ended, or has made another local: it gives up those of heaps
//! that are over then.

use crate::error::{SlabError, guarded};
use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use temporal_slab::class::FINE_SIZES;
use temporal_slab::config::Config;
use temporal_slab::{Epoch, Heap, Local};
use temporal_slab_hosted::{FutexLock, MmapProvider};

/// Many sizes, every free checked, and young epochs bump.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForC;

impl Config for ForC {
    type Provider = MmapProvider;
    type Lock = FutexLock;
    const SIZES: &'static [usize] = FINE_SIZES;
    const CHECKED: bool = true;
    const BUMPS: bool = true;
}

pub(crate) type TheHeap = Heap<ForC>;
pub(crate) type TheLocal = Local<'static, ForC>;

/// An allocator: a heap of its own.
#[derive(Debug)]
pub struct SlabAllocator {
    pub(crate) shared: Arc<Shared>,
}

/// What threads share.
pub(crate) struct Shared {
    pub(crate) heap: TheHeap,
    /// The allocator was freed. `Relaxed`: whoever sees it gives up a local that nobody uses.
    is_over: AtomicBool,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        crate::fork::remove(self);
    }
}

/// A thread's local, and its share of the heap: dropped in this order.
struct OwnLocal {
    local: TheLocal,
    shared: Arc<Shared>,
}

thread_local! {
    static LOCALS: RefCell<Vec<OwnLocal>> = const { RefCell::new(Vec::new()) };
}

/// Makes an allocator. Null if there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn slab_allocator_create() -> *mut SlabAllocator {
    guarded(core::ptr::null_mut(), || {
        let shared = Arc::new(Shared {
            heap: Heap::new(MmapProvider::new()),
            is_over: AtomicBool::new(false),
        });
        crate::fork::add(Arc::as_ptr(&shared));
        // The first epoch, which is always there.
        shared.heap.current()?;
        Ok(Box::into_raw(Box::new(SlabAllocator { shared })))
    })
}

/// Ends an allocator and all that was allocated with it. Null is fine. Its memory goes back when no thread has a fast
/// path in it any more: see the head of this file.
///
/// # Safety
/// The allocator was made by `slab_allocator_create`, and is not used any more, nor are its objects and domains.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_allocator_free(alloc: *mut SlabAllocator) {
    guarded((), || {
        if alloc.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        let alloc = unsafe { Box::from_raw(alloc) };
        alloc.shared.is_over.store(true, Ordering::Relaxed);
        give_up_old_locals();
        Ok(())
    });
}

/// Gives everything that is empty back to the system now.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_reclaim(alloc: *mut SlabAllocator) {
    guarded((), || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        with_local(shared, |local| local.map(TheLocal::flush));
        shared.heap.reclaim();
        Ok(())
    });
}

/// Lets the allocator hold at most so many bytes from the system. What it holds already stays.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_set_limit(alloc: *mut SlabAllocator, bytes: usize) {
    guarded((), || {
        // SAFETY: the caller's promise.
        unsafe { of(alloc) }?.heap.set_limit(bytes);
        Ok(())
    });
}

/// What is behind an allocator.
///
/// # Safety
/// `alloc` is an allocator that lives for as long as the result is used, or null.
pub(crate) unsafe fn of<'a>(alloc: *const SlabAllocator) -> Result<&'a Arc<Shared>, SlabError> {
    // SAFETY: the caller's promise.
    let alloc = unsafe { alloc.as_ref() };
    alloc.map(|alloc| &alloc.shared).ok_or(SlabError::Argument)
}

impl Shared {
    /// The epoch that a number names.
    pub(crate) fn epoch(&self, id: u32) -> Result<Epoch, SlabError> {
        let newest = self.heap.newest_epoch_at(id as usize);
        newest.ok_or(SlabError::BadEpoch)
    }
}

/// Gives up this thread's locals of allocators that were freed.
fn give_up_old_locals() {
    let _ending = LOCALS.try_with(|locals| {
        locals
            .borrow_mut()
            .retain(|own| !own.shared.is_over.load(Ordering::Relaxed));
    });
}

/// Runs `work` with this thread's local, or with none if the thread is ending or there is no memory for one.
pub(crate) fn with_local<T>(
    shared: &Arc<Shared>,
    work: impl FnOnce(Option<&mut TheLocal>) -> T,
) -> T {
    let mut work = Some(work);
    let done = LOCALS.try_with(|locals| {
        let mut locals = locals.borrow_mut();
        let place = locals
            .iter()
            .position(|own| Arc::ptr_eq(&own.shared, shared));
        let place = place.or_else(|| {
            locals.retain(|own| !own.shared.is_over.load(Ordering::Relaxed));
            let local = shared.heap.local().ok()?;
            // SAFETY: the heap stays for as long as the share beside the local, which is dropped after it, and it does not
            // move: it is behind the share's pointer.
            let local = unsafe { core::mem::transmute::<Local<'_, _>, TheLocal>(local) };
            locals.push(OwnLocal {
                local,
                shared: Arc::clone(shared),
            });
            Some(locals.len() - 1)
        });
        let local = place
            .and_then(|place| locals.get_mut(place))
            .map(|own| &mut own.local);
        work.take().map(|work| work(local))
    });
    match (done, work) {
        (Ok(Some(result)), _) => result,
        (_, Some(work)) => work(None),
        // It ran, so it gave a result.
        (_, None) => unreachable!("what runs gives a result"),
    }
}
