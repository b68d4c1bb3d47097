//! Epochs, by their numbers.

use crate::allocator::{Shared, SlabAllocator, of, with_local};
use crate::error::{SlabError, guarded};
use core::ffi::{CStr, c_char};
use std::sync::Arc;
use temporal_slab::{Epoch, EpochState};

/// A number of an epoch, from 0: the first epoch's, which is never closed. A number is used again once its epoch is closed and nothing
/// is left of it; there are as many as memory allows.
pub type EpochId = u32;

/// What is given where there is no epoch: no position.
const NO_EPOCH: EpochId = EpochId::MAX;

/// The current epoch. `UINT32_MAX` if there is no such allocator.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoch_current(alloc: *mut SlabAllocator) -> EpochId {
    guarded(NO_EPOCH, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        Ok(shared.heap.current()?.index() as EpochId)
    })
}

/// Begins an epoch and makes it current; the one that was current is closed, unless it is the first. Gives the new one,
/// or `UINT32_MAX` if there is none to be had; then all is as it was.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoch_advance(alloc: *mut SlabAllocator) -> EpochId {
    guarded(NO_EPOCH, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let old = shared.heap.current()?;
        if old.index() != 0 {
            leave(shared, old);
        }
        Ok(shared.heap.advance()?.index() as EpochId)
    })
}

/// Begins an epoch beside the current one, which stays so: for a request, a frame or a connection. `UINT32_MAX` if there is none to be
/// had.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_epoch_open(alloc: *mut SlabAllocator) -> EpochId {
    guarded(NO_EPOCH, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        Ok(shared.heap.open_epoch()?.index() as EpochId)
    })
}

/// Closes an epoch: nothing more is allocated in it, what is empty in it goes back to the system now, and what empties
/// later when it does. Whether it did.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoch_close(alloc: *mut SlabAllocator, epoch: EpochId) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let epoch = shared.epoch(epoch)?;
        leave(shared, epoch);
        if epoch.index() != 0 && shared.heap.state(epoch)? == EpochState::Closing {
            return Err(SlabError::ClosedEpoch);
        }
        shared.heap.reclaim_epoch(epoch)?;
        Ok(true)
    })
}

/// This thread gives up what it holds in an epoch.
pub(crate) fn leave(shared: &Arc<Shared>, epoch: Epoch) {
    with_local(shared, |local| {
        if let Some(local) = local {
            local.leave(epoch);
        }
    });
}

/// Calls an epoch something: the first 31 bytes of `label`. Whether it did.
///
/// # Safety
/// `alloc` is an allocator or null, `label` a text that ends with a zero, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_epoch_set_label(
    alloc: *mut SlabAllocator,
    epoch: EpochId,
    label: *const c_char,
) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        if label.is_null() {
            return Err(SlabError::Argument);
        }
        // SAFETY: the caller's promise.
        let label = unsafe { CStr::from_ptr(label) }.to_string_lossy();
        shared.heap.set_label(shared.epoch(epoch)?, &label)?;
        Ok(true)
    })
}

/// Counts somebody who is inside an epoch. Whether it did.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_epoch_inc_refcount(
    alloc: *mut SlabAllocator,
    epoch: EpochId,
) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        shared.heap.enter(shared.epoch(epoch)?)?;
        Ok(true)
    })
}

/// Counts that somebody left. Whether it did: nobody leaves where nobody is.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_epoch_dec_refcount(
    alloc: *mut SlabAllocator,
    epoch: EpochId,
) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let epoch = shared.epoch(epoch)?;
        if !shared.heap.exit(epoch) {
            return Err(SlabError::Misuse);
        }
        Ok(true)
    })
}

/// How many are inside an epoch.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_epoch_get_refcount(alloc: *mut SlabAllocator, epoch: EpochId) -> u64 {
    guarded(0, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let stats = shared.heap.epoch_stats(shared.epoch(epoch)?)?;
        Ok(u64::from(stats.domains))
    })
}
