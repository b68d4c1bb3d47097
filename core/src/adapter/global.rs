//! `GlobalAlloc` over a `static` heap.
//!
//! How a program finds the local of the current CPU or thread is its own matter: a GS-based slot in
//! a kernel, a thread-local in a hosted program. [`FindLocal`] is that question. Where the answer is
//! "not now" (early boot, an interrupt handler that met a local in use), the shared path serves.

use crate::config::Config;
use crate::error::{AllocError, FreeError};
use crate::heap::Heap;
use crate::local::Local;
use crate::sync::{AtomicBool, Ordering};
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::{self, NonNull};

/// Finds the local that the current context may use.
///
/// # Safety
/// `with` never lets two contexts have the same local at the same time: neither two CPUs, nor an
/// interrupt handler and the code that it interrupted.
pub unsafe trait FindLocal<C: Config + 'static> {
    /// Calls `f` with the current context's local, or with `None` where there is none to be had.
    fn with<T>(
        &self,
        heap: &'static Heap<C>,
        f: impl FnOnce(Option<&mut Local<'static, C>>) -> T,
    ) -> T;
}

/// No locals: every call takes the shared path. Right for an allocator that is not hot.
#[derive(Debug, Clone, Copy, Default)]
pub struct SharedOnly;

// SAFETY: it never hands out a local.
unsafe impl<C: Config + 'static> FindLocal<C> for SharedOnly {
    fn with<T>(
        &self,
        _heap: &'static Heap<C>,
        f: impl FnOnce(Option<&mut Local<'static, C>>) -> T,
    ) -> T {
        f(None)
    }
}

/// One local and a flag that says that it is in use, for kernels with one CPU. Whoever finds it in use,
/// such as an interrupt handler, takes the shared path and does not wait; interrupts stay as they are.
///
/// The local belongs to the heap that the first call names. Calls that name another get `None`.
pub struct LockedLocal<C: Config + 'static> {
    /// Set with `Acquire`, cleared with `Release`: each use of the local happens before the next.
    in_use: AtomicBool,
    local: UnsafeCell<Option<Local<'static, C>>>,
}

// SAFETY: the flag lets one context at a time have the local, which may be sent between them.
unsafe impl<C: Config<Provider: Sync, Lock: Sync>> Sync for LockedLocal<C> {}

impl<C: Config> LockedLocal<C> {
    /// A place for the local, which is made at first use.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            in_use: AtomicBool::new(false),
            local: UnsafeCell::new(None),
        }
    }
}

impl<C: Config> Default for LockedLocal<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Config> fmt::Debug for LockedLocal<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedLocal").finish_non_exhaustive()
    }
}

/// Clears the flag however its holder leaves.
struct InUse<'a>(&'a AtomicBool);

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        // Pairs: the swap in `LockedLocal::with`
        self.0.store(false, Ordering::Release);
    }
}

// SAFETY: the flag lets one context in at a time, and the others get `None`.
unsafe impl<C: Config<Provider: Sync, Lock: Sync>> FindLocal<C> for LockedLocal<C> {
    fn with<T>(
        &self,
        heap: &'static Heap<C>,
        f: impl FnOnce(Option<&mut Local<'static, C>>) -> T,
    ) -> T {
        // Pairs: the store in `InUse::drop`
        if self.in_use.swap(true, Ordering::Acquire) {
            return f(None);
        }
        let _in_use = InUse(&self.in_use);
        // SAFETY: the flag was clear and is ours until `_in_use` drops.
        let place = unsafe { &mut *self.local.get() };
        if place.is_none() {
            *place = heap.local().ok();
        }
        f(place.as_mut().filter(|local| ptr::eq(local.heap(), heap)))
    }
}

/// A `#[global_allocator]` over a heap.
///
/// ```
/// use temporal_slab::adapter::{Global, LockedLocal};
/// use temporal_slab::{Heap, config::Standard, provider::StaticProvider};
///
/// const SIZE: usize = 8 << 20;
/// static mut MEMORY: [u8; SIZE] = [0; SIZE];
/// type Pages = Standard<StaticProvider<'static>>;
/// // SAFETY: nothing else in this program names MEMORY.
/// static HEAP: Heap<Pages> =
///     Heap::new(unsafe { StaticProvider::from_raw((&raw mut MEMORY).cast(), SIZE) });
///
/// #[global_allocator]
/// static GLOBAL: Global<Pages, LockedLocal<Pages>> = Global::new(&HEAP, LockedLocal::new());
///
/// let words: Vec<String> = (0..100).map(|n| n.to_string()).collect();
/// assert_eq!(words.len(), 100);
/// assert!(HEAP.bytes().taken > 0);
/// ```
pub struct Global<C: Config + 'static, F> {
    heap: &'static Heap<C>,
    find: F,
}

impl<C: Config, F: FindLocal<C>> Global<C, F> {
    /// An allocator over `heap` that finds locals with `find`.
    #[must_use]
    pub const fn new(heap: &'static Heap<C>, find: F) -> Self {
        Self { heap, find }
    }

    /// The heap.
    #[must_use]
    pub const fn heap(&self) -> &'static Heap<C> {
        self.heap
    }

    /// As `GlobalAlloc::alloc`, with the reason if it fails.
    ///
    /// # Errors
    /// As for [`Heap::alloc`].
    #[inline]
    pub fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.find.with(self.heap, |local| match local {
            Some(local) => local.alloc(layout),
            None => self.heap.alloc(layout),
        })
    }

    /// As `GlobalAlloc::dealloc`, with the reason if it is refused.
    ///
    /// # Errors
    /// As for [`Heap::free`].
    ///
    /// # Safety
    /// As for [`Heap::free`].
    #[inline]
    pub unsafe fn try_free(&self, object: NonNull<u8>, layout: Layout) -> Result<(), FreeError> {
        self.find.with(self.heap, |local| match local {
            // SAFETY: the caller's promise.
            Some(local) => unsafe { local.free(object, layout) },
            // SAFETY: the caller's promise.
            None => unsafe { self.heap.free(object, layout) },
        })
    }
}

fn or_null(result: Result<NonNull<u8>, AllocError>) -> *mut u8 {
    result.map_or(ptr::null_mut(), NonNull::as_ptr)
}

// SAFETY: the heap hands out memory of the layout's size and alignment that is nobody else's until
// it is freed; failures are null pointers; nothing unwinds.
unsafe impl<C: Config, F: FindLocal<C>> GlobalAlloc for Global<C, F> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        or_null(self.try_alloc(layout))
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        if let Some(object) = NonNull::new(object) {
            // The interface has no way to report a refusal; a checked heap leaves itself intact.
            // SAFETY: the caller's promise.
            let _refused = unsafe { self.try_free(object, layout) };
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        or_null(self.find.with(self.heap, |local| match local {
            Some(local) => local.alloc_zeroed(layout),
            None => self.heap.alloc_zeroed(layout),
        }))
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
            return ptr::null_mut();
        };
        let Some(object) = NonNull::new(object) else {
            return ptr::null_mut();
        };
        or_null(self.find.with(self.heap, |local| match local {
            // SAFETY: the caller's promise.
            Some(local) => unsafe { local.resize(object, layout, new) },
            // SAFETY: the caller's promise.
            None => unsafe { self.heap.resize(object, layout, new) },
        }))
    }
}

impl<C: Config, F> fmt::Debug for Global<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Global")
            .field("heap", self.heap)
            .finish_non_exhaustive()
    }
}
