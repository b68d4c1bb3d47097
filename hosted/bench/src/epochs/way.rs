//! How objects that go together are allocated: in an epoch, alone, or in what a peer has for it.

use crate::contender::{Contender, failed};
use core::alloc::Layout;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::hint::black_box;
use core::ptr::{self, NonNull};
use std::ffi::CString;
use temporal_slab::config::Config;
use temporal_slab::{Epoch, Heap, Local};

/// What is timed calls these directly.
pub(super) trait Way: Send {
    type Group: Copy;

    fn begin(&mut self) -> Self::Group;

    fn alloc(&mut self, group: Self::Group, layout: Layout) -> NonNull<u8>;

    /// # Safety
    /// As for [`Contender::free`], for an object of a group that has not ended, or one that may outlive it.
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout);

    fn end(&mut self, group: Self::Group);
}

/// An epoch of ours.
pub(super) struct InEpochs<C: Config + 'static>(Local<'static, C>);

impl<C: Config> InEpochs<C> {
    pub(super) fn of(heap: &'static Heap<C>) -> Self {
        let local = heap.local();
        Self(local.unwrap_or_else(|error| failed(&format!("no local: {error}"))))
    }
}

impl<C: Config<Provider: Sync, Lock: Sync>> Way for InEpochs<C> {
    type Group = Epoch;

    #[inline(always)]
    fn begin(&mut self) -> Epoch {
        let epoch = self.0.heap().open_epoch();
        epoch.unwrap_or_else(|_| failed("ours has no epoch"))
    }

    #[inline(always)]
    fn alloc(&mut self, epoch: Epoch, layout: Layout) -> NonNull<u8> {
        match self.0.alloc_in(epoch, layout) {
            Ok(object) => black_box(object),
            Err(_) => failed("ours has no memory"),
        }
    }

    #[inline(always)]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        if unsafe { self.0.free(object, layout) }.is_err() {
            failed("ours refused a free");
        }
    }

    #[inline(always)]
    fn end(&mut self, epoch: Epoch) {
        self.0.leave(epoch);
        if self.0.heap().close(epoch).is_err() {
            failed("ours refused a close");
        }
    }
}

/// The objects alone.
pub(super) struct Alone<C>(pub(super) C);

impl<C: Contender> Way for Alone<C> {
    type Group = ();

    #[inline(always)]
    fn begin(&mut self) {}

    #[inline(always)]
    fn alloc(&mut self, (): (), layout: Layout) -> NonNull<u8> {
        black_box(self.0.alloc(layout))
    }

    #[inline(always)]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.free(object, layout) };
    }

    #[inline(always)]
    fn end(&mut self, (): ()) {}
}

unsafe extern "C" {
    fn mi_heap_new() -> *mut c_void;
    fn mi_heap_destroy(heap: *mut c_void);
    fn mi_heap_malloc_aligned(heap: *mut c_void, size: usize, align: usize) -> *mut c_void;
    fn mi_free_size_aligned(object: *mut c_void, size: usize, align: usize);
    fn _rjem_mallctl(
        name: *const c_char,
        old: *mut c_void,
        old_len: *mut usize,
        new: *mut c_void,
        new_len: usize,
    ) -> c_int;
    fn _rjem_mallocx(size: usize, flags: c_int) -> *mut c_void;
    fn _rjem_sdallocx(object: *mut c_void, size: usize, flags: c_int);
}

/// A heap of mimalloc that is made and destroyed.
pub(super) struct InHeap;

impl Way for InHeap {
    type Group = *mut c_void;

    fn begin(&mut self) -> *mut c_void {
        // SAFETY: it needs nothing.
        unsafe { mi_heap_new() }
    }

    #[inline(always)]
    fn alloc(&mut self, heap: *mut c_void, layout: Layout) -> NonNull<u8> {
        // SAFETY: the heap is this thread's and not destroyed.
        let object = unsafe { mi_heap_malloc_aligned(heap, layout.size(), layout.align()) };
        NonNull::new(black_box(object.cast())).unwrap_or_else(|| failed("mimalloc has no memory"))
    }

    #[inline(always)]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { mi_free_size_aligned(object.as_ptr().cast(), layout.size(), layout.align()) };
    }

    fn end(&mut self, heap: *mut c_void) {
        // SAFETY: nothing in it is used any more.
        unsafe { mi_heap_destroy(heap) };
    }
}

/// An arena of jemalloc that is made and destroyed.
pub(super) struct InArena;

/// What says that no cache of the thread is used, nor does another arena's free object come from there.
const NO_CACHE: c_int = 1 << 8;

impl Way for InArena {
    type Group = u32;

    fn begin(&mut self) -> u32 {
        let (mut arena, mut length) = (0u32, size_of::<u32>());
        // SAFETY: the name is one that it has, and what it says has this length.
        let error = unsafe {
            let (arena, nothing) = ((&raw mut arena).cast(), ptr::null_mut());
            _rjem_mallctl(
                c"arenas.create".as_ptr(),
                arena,
                &raw mut length,
                nothing,
                0,
            )
        };
        if error != 0 {
            failed("jemalloc has no arena");
        }
        arena
    }

    #[inline(always)]
    fn alloc(&mut self, arena: u32, layout: Layout) -> NonNull<u8> {
        let flags = ((arena as c_int + 1) << 20) | NO_CACHE;
        // SAFETY: the arena is there; whatever is asked for here is aligned to 8 anyway.
        let object = unsafe { _rjem_mallocx(layout.size(), flags) };
        NonNull::new(black_box(object.cast())).unwrap_or_else(|| failed("jemalloc has no memory"))
    }

    #[inline(always)]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { _rjem_sdallocx(object.as_ptr().cast(), layout.size(), NO_CACHE) };
    }

    fn end(&mut self, arena: u32) {
        let name = CString::new(format!("arena.{arena}.destroy")).unwrap_or_default();
        let name: &CStr = &name;
        let (nothing, no_length) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: nothing in it is used any more.
        if unsafe { _rjem_mallctl(name.as_ptr(), nothing, no_length, nothing, 0) } != 0 {
            failed("jemalloc keeps the arena");
        }
    }
}
