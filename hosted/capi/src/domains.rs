//! Domains: phases of a thread that nest, each over an epoch. What a thread is inside when it ends it leaves then.

use crate::allocator::{SlabAllocator, of};
use crate::epochs::{EpochId, leave};
use crate::error::{SlabError, guarded};
use core::cell::RefCell;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use temporal_slab::{Epoch, EpochState};

/// A domain. What is here may be read; the library writes it.
#[repr(C)]
#[derive(Debug)]
pub struct EpochDomain {
    /// The allocator.
    pub alloc: *mut SlabAllocator,
    /// Its epoch.
    pub epoch_id: EpochId,
    /// Whether the epoch is closed when the last one who is inside leaves.
    pub auto_close: bool,
    /// How many times threads are inside.
    pub entered: u32,
    /// Which epoch of those that were at this position.
    pub era: u64,
}

/// The domains that a thread is inside, the innermost last. A thread that ends leaves them.
struct Inside(Vec<*mut EpochDomain>);

impl Drop for Inside {
    fn drop(&mut self) {
        while let Some(domain) = self.0.pop() {
            // SAFETY: a domain is not destroyed while somebody is inside, and this thread is.
            let _left = unsafe { leave_domain(domain) };
        }
    }
}

thread_local! {
    static INSIDE: RefCell<Inside> = const { RefCell::new(Inside(Vec::new())) };
}

/// Runs `work` on the domains that this thread is inside; a thread that has ended is in none.
fn inside<T>(
    work: impl FnOnce(&mut Vec<*mut EpochDomain>) -> Result<T, SlabError>,
) -> Result<T, SlabError> {
    INSIDE
        .try_with(|inside| work(&mut inside.borrow_mut().0))
        .unwrap_or(Err(SlabError::Misuse))
}

/// Leaves a domain that was struck off the thread's.
///
/// # Safety
/// The thread is inside it.
unsafe fn leave_domain(domain: *mut EpochDomain) -> Result<(), SlabError> {
    // SAFETY: somebody is inside, so it is not destroyed.
    let this = unsafe { &*domain };
    let (alloc, epoch, auto_close) = (this.alloc, this.epoch(), this.auto_close);
    // The last use of it: who finds nobody inside may destroy it. `Release`, with the `Acquire` there.
    this.count().fetch_sub(1, Ordering::Release);
    // SAFETY: the domain's allocator outlives whoever is inside.
    let shared = unsafe { of(alloc) }?;
    let epoch = epoch?;
    if auto_close {
        leave(shared, epoch);
    }
    if auto_close {
        shared.heap.exit_and_close(epoch);
    } else {
        shared.heap.exit(epoch);
    }
    Ok(())
}

/// How deep a thread's domains may nest.
const DEPTH: usize = 1024;

impl EpochDomain {
    fn epoch(&self) -> Result<Epoch, SlabError> {
        Epoch::from_parts(self.epoch_id, self.era).ok_or(SlabError::BadEpoch)
    }

    /// The count, which several threads may change.
    fn count(&self) -> &AtomicU32 {
        // SAFETY: the field is only changed by this, and an integer of this kind may be.
        unsafe { AtomicU32::from_ptr(ptr::from_ref(&self.entered).cast_mut()) }
    }
}

/// Makes a domain over an epoch of `alloc`, not entered yet.
///
/// # Safety
/// `alloc` is an allocator or null.
unsafe fn make(alloc: *mut SlabAllocator, epoch: Epoch, auto_close: bool) -> *mut EpochDomain {
    Box::into_raw(Box::new(EpochDomain {
        alloc,
        epoch_id: epoch.index() as EpochId,
        auto_close,
        entered: 0,
        era: epoch.era(),
    }))
}

/// A domain over the current epoch. It closes nothing by itself. Null if there is no such allocator.
///
/// # Safety
/// `alloc` is an allocator, which outlives the domain, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoch_domain_create(alloc: *mut SlabAllocator) -> *mut EpochDomain {
    guarded(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        unsafe {
            let epoch = of(alloc)?.heap.current()?;
            Ok(make(alloc, epoch, false))
        }
    })
}

/// A domain over an epoch; with `auto_close` the epoch is closed when the last one who is inside leaves. Null if there is
/// no such epoch, or it is closed.
///
/// # Safety
/// `alloc` is an allocator, which outlives the domain, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoch_domain_wrap(
    alloc: *mut SlabAllocator,
    epoch: EpochId,
    auto_close: bool,
) -> *mut EpochDomain {
    guarded(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let epoch = shared.epoch(epoch)?;
        if shared.heap.state(epoch)? != EpochState::Active {
            return Err(SlabError::ClosedEpoch);
        }
        // SAFETY: the caller's promise.
        Ok(unsafe { make(alloc, epoch, auto_close) })
    })
}

/// Goes inside. Whether it did: not if the epoch is closed.
///
/// # Safety
/// `domain` is a domain or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoch_domain_enter(domain: *mut EpochDomain) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let this = unsafe { domain.as_ref() }.ok_or(SlabError::Argument)?;
        // SAFETY: the domain's allocator outlives it.
        let shared = unsafe { of(this.alloc) }?;
        inside(|inside| {
            if inside.len() >= DEPTH {
                return Err(SlabError::Misuse);
            }
            shared.heap.enter(this.epoch()?)?;
            this.count().fetch_add(1, Ordering::Relaxed);
            inside.push(domain);
            Ok(true)
        })
    })
}

/// Leaves. Whether it did: only the domain that this thread entered last can be left.
///
/// # Safety
/// `domain` is a domain or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoch_domain_exit(domain: *mut EpochDomain) -> bool {
    guarded(false, || {
        if domain.is_null() {
            return Err(SlabError::Argument);
        }
        inside(|inside| {
            if inside.last() != Some(&domain) {
                return Err(SlabError::Misuse);
            }
            inside.pop();
            Ok(())
        })?;
        // SAFETY: the thread was inside.
        unsafe { leave_domain(domain) }?;
        Ok(true)
    })
}

/// The domain that this thread entered last and is inside; null if it is in none.
#[unsafe(no_mangle)]
pub extern "C" fn epoch_domain_current() -> *mut EpochDomain {
    guarded(ptr::null_mut(), || {
        inside(|inside| Ok(inside.last().copied().unwrap_or(ptr::null_mut())))
    })
}

/// Closes the domain's epoch. Whether it did: not while somebody is inside, and not twice.
///
/// # Safety
/// `domain` is a domain or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoch_domain_force_close(domain: *mut EpochDomain) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let this = unsafe { domain.as_ref() }.ok_or(SlabError::Argument)?;
        // SAFETY: the domain's allocator outlives it.
        let shared = unsafe { of(this.alloc) }?;
        let epoch = this.epoch()?;
        let stats = shared.heap.epoch_stats(epoch)?;
        if stats.domains > 0 {
            return Err(SlabError::Misuse);
        }
        if !stats.is_open() && epoch.index() != 0 {
            return Err(SlabError::ClosedEpoch);
        }
        leave(shared, epoch);
        shared.heap.reclaim_epoch(epoch)?;
        Ok(true)
    })
}

/// Ends a domain; its epoch stays as it is. Null is fine. Whether it did: not while somebody is inside.
///
/// # Safety
/// `domain` is a domain or null; if this is true it is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoch_domain_destroy(domain: *mut EpochDomain) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let Some(this) = (unsafe { domain.as_ref() }) else {
            return Ok(true);
        };
        if this.count().load(Ordering::Acquire) > 0 {
            return Err(SlabError::Misuse);
        }
        // SAFETY: it was made by a box, and nobody is inside.
        drop(unsafe { Box::from_raw(domain) });
        Ok(true)
    })
}
