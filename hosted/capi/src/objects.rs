//! What is allocated: objects that are known by a pointer, and objects that are known by a handle.

use crate::allocator::{SlabAllocator, TheLocal, of, with_local};
use crate::epochs::EpochId;
use crate::error::{SlabError, guarded};
use core::alloc::Layout;
use core::ffi::c_void;
use core::ptr::{self, NonNull};
use temporal_slab::RawHandle;

/// A name of an object that can be kept after the object is gone: it is refused then. Zero is none.
pub type SlabHandle = u64;

/// What every object is aligned to.
const ALIGN: usize = 16;

fn layout_of(size: usize) -> Result<Layout, SlabError> {
    Layout::from_size_align(size, ALIGN).map_err(|_| SlabError::Size)
}

/// Allocates in an epoch, aligned to 16 bytes. A size of zero gets an object of its own, too. Null if it failed.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_malloc_epoch(
    alloc: *mut SlabAllocator,
    size: usize,
    epoch: EpochId,
) -> *mut c_void {
    guarded(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let (epoch, layout) = (shared.epoch(epoch)?, layout_of(size)?);
        let object = with_local(shared, |local| match local {
            Some(local) => local.alloc_in(epoch, layout),
            None => shared.heap.alloc_in(epoch, layout),
        });
        Ok(object?.as_ptr().cast())
    })
}

/// Frees an object. Null is fine; what is no live object of this allocator is refused, and nothing changes.
///
/// # Safety
/// `alloc` is an allocator or null; if `object` is a live object nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_free(alloc: *mut SlabAllocator, object: *mut c_void) {
    guarded((), || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let Some(object) = NonNull::new(object.cast::<u8>()) else {
            return Ok(());
        };
        // SAFETY: the caller's promise, and the heap is a checked one.
        with_local(shared, |local| unsafe {
            match local {
                Some(local) => local.free_unsized(object),
                None => shared.heap.free_unsized(object),
            }
        })?;
        Ok(())
    });
}

/// How many bytes an object may use. 0 if it is none.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_usable_size(alloc: *mut SlabAllocator, object: *mut c_void) -> usize {
    guarded(0, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let object = NonNull::new(object.cast::<u8>()).ok_or(SlabError::Argument)?;
        Ok(shared.heap.usable_size(object)?)
    })
}

/// Allocates an object that is known by a handle, which is written to `out`. Its size is at most
/// 8192 bytes. Null if it failed; `out` is then 0.
///
/// # Safety
/// `alloc` is an allocator or null, and `out` may be written to or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn alloc_obj_epoch(
    alloc: *mut SlabAllocator,
    size: u32,
    epoch: EpochId,
    out: *mut SlabHandle,
) -> *mut c_void {
    guarded(ptr::null_mut(), || {
        if out.is_null() {
            return Err(SlabError::Argument);
        }
        // SAFETY: the caller's promise.
        let shared = unsafe {
            out.write(0);
            of(alloc)
        }?;
        let (epoch, layout) = (shared.epoch(epoch)?, layout_of(size as usize)?);
        let handle = with_local(shared, |local| match local {
            Some(local) => local.alloc_raw_in(epoch, layout),
            None => shared.heap.alloc_raw_in(epoch, layout),
        })?;
        let object = shared.heap.try_get_raw(handle)?;
        // SAFETY: the caller's promise.
        unsafe { out.write(handle.bits()) };
        Ok(object.as_ptr().cast())
    })
}

/// Where the object of a handle is, if it lives; else null.
///
/// # Safety
/// `alloc` is an allocator or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_obj(alloc: *mut SlabAllocator, handle: SlabHandle) -> *mut c_void {
    guarded(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let object = shared.heap.try_get_raw(RawHandle::from_bits(handle))?;
        Ok(object.as_ptr().cast())
    })
}

/// Frees the object of a handle. Whether it lived: of two who free it one does.
///
/// # Safety
/// `alloc` is an allocator or null; nobody uses the object any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_obj(alloc: *mut SlabAllocator, handle: SlabHandle) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let handle = RawHandle::from_bits(handle);
        with_local(shared, |local| match local {
            Some(local) => TheLocal::free_raw(local, handle),
            None => shared.heap.free_raw(handle),
        })?;
        Ok(true)
    })
}
