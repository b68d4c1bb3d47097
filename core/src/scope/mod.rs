//! Scopes: memory that one value owns and that goes all at once.
//!
//! Principles:
//! - A scope bumps through blocks that grow by a factor, so it has few of them, finds the next one in a
//!   fixed table in itself, and frees everything in time proportional to that table.
//! - An empty scope is a few words and takes nothing from the heap.
//! - What is allocated is borrowed from the scope, so nothing outlives it: that is the compiler's work.
//! - Objects with handles lie in slabs of the scope's own and end with it, whoever has the handles.
//! - Destructors run for those who asked, in the reverse order of asking, each once, also when one of
//!   them panics. Who asks must not borrow ([`Scope::alloc_with_drop`] takes `'static` values): a destructor that
//!   looked at another value of the scope could find it destroyed already.

mod handles;

use crate::config::Config;
use crate::error::AllocError;
use crate::heap::{Heap, ScopeSlabs};
use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::ptr::{self, NonNull};

/// The first block. Each further one is four times as large as the one before, or larger.
const FIRST_BLOCK: usize = 4096;

/// From this size on blocks only double.
const LARGE_BLOCK: usize = 16 << 20;

/// As many blocks as a scope can have: by then they are larger than any memory.
const BLOCKS: usize = 40;

/// The largest block that a reset keeps.
const KEPT_BLOCK: usize = 64 << 10;

/// What blocks are aligned to. Larger alignments are met inside a block.
const BLOCK_ALIGN: usize = 64;

/// A bump allocator over a heap: making one is free, and dropping it frees all that is in it.
///
/// ```
/// # use temporal_slab::{Heap, Scope, config::Standard, provider::StaticProvider};
/// # let mut memory = vec![core::mem::MaybeUninit::uninit(); 1 << 20];
/// # let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
/// # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(provider);
/// let scope = Scope::new(&heap);
/// let number = scope.alloc(41)?;
/// *number += 1;
/// let name = scope.alloc_str("request")?;
/// let squares = scope.alloc_slice_fill_with(10, |n| n * n)?;
/// assert_eq!((*number, &*name, squares[9]), (42, "request", 81));
/// # Ok::<(), temporal_slab::AllocError>(())
/// ```
///
/// What is in it cannot outlive it, nor a reset:
///
/// ```compile_fail,E0505
/// # use temporal_slab::{Heap, Scope, config::Standard, provider::StaticProvider};
/// # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(StaticProvider::new(&mut []));
/// let scope = Scope::new(&heap);
/// let number = scope.alloc(1).unwrap();
/// drop(scope);
/// *number += 1;
/// ```
/// ```compile_fail,E0502
/// # use temporal_slab::{Heap, Scope, config::Standard, provider::StaticProvider};
/// # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(StaticProvider::new(&mut []));
/// let mut scope = Scope::new(&heap);
/// let number = scope.alloc(1).unwrap();
/// scope.reset();
/// *number += 1;
/// ```
/// ```compile_fail,E0310
/// # use temporal_slab::{Heap, Scope, config::Standard, provider::StaticProvider};
/// # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(StaticProvider::new(&mut []));
/// fn borrow<'a, T: Send>(scope: &'a Scope<'_, Standard<StaticProvider<'_>>>, value: T) { let _ = scope.alloc_with_drop(value); }
/// ```
pub struct Scope<'h, C: Config> {
    heap: &'h Heap<C>,
    /// What is left of the newest block: from `next` up to `end`.
    next: Cell<*mut u8>,
    end: Cell<*mut u8>,
    count: Cell<usize>,
    blocks: [Cell<(*mut u8, usize)>; BLOCKS],
    /// The destructor that was asked for last.
    last: Cell<*mut Asked>,
    /// What holds the objects with handles, if there are any.
    slabs: Cell<*mut ScopeSlabs>,
}

// SAFETY: the scope owns its blocks. What is in them is borrowed while it is reachable, and the values
// whose destructors it runs are `Send`, by the bound of `alloc_with_drop`.
unsafe impl<C: Config<Provider: Sync, Lock: Sync>> Send for Scope<'_, C> {}

/// A destructor to run. Lies beside its value, in the scope's memory.
struct Asked {
    before: *mut Asked,
    value: *mut u8,
    run: unsafe fn(*mut u8),
}

impl<'h, C: Config> Scope<'h, C> {
    /// An empty scope.
    #[must_use]
    pub const fn new(heap: &'h Heap<C>) -> Self {
        Self {
            heap,
            next: Cell::new(ptr::null_mut()),
            end: Cell::new(ptr::null_mut()),
            count: Cell::new(0),
            blocks: [const { Cell::new((ptr::null_mut(), 0)) }; BLOCKS],
            last: Cell::new(ptr::null_mut()),
            slabs: Cell::new(ptr::null_mut()),
        }
    }

    /// Uninitialised bytes.
    ///
    /// # Errors
    /// If the heap has no memory for another block.
    #[inline]
    pub fn alloc_layout(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let next = self.next.get();
        let lead = next.addr().wrapping_neg() & (layout.align() - 1);
        let left = self.end.get().addr() - next.addr();
        // A layout's size is at most `isize::MAX`, and so is the lead: no overflow. A null `next` has
        // nothing left, but a size of zero would fit it.
        if lead + layout.size() <= left && !next.is_null() {
            // SAFETY: that much is left of the block.
            unsafe {
                let object = next.add(lead);
                self.next.set(object.add(layout.size()));
                return Ok(NonNull::new_unchecked(object));
            }
        }
        self.bytes_in_new_block(layout)
    }

    /// Makes the bytes that were given last longer, if there is room behind them.
    #[cfg(feature = "allocator-api2")]
    #[inline]
    pub(crate) fn extend(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Option<NonNull<u8>> {
        let (next, at) = (self.next.get(), object.addr().get());
        let more = new.size().checked_sub(old.size())?;
        let newest = self.blocks.get(self.count.get().checked_sub(1)?)?;
        // The object of a block that ends where this one begins may seem to be the last one.
        let is_here = at >= newest.get().0.addr();
        let is_last = is_here && at + old.size() == next.addr() && at & (new.align() - 1) == 0;
        if !is_last || more > self.end.get().addr() - next.addr() {
            return None;
        }
        // By the block's pointer and not by the object's, which may be good for the old bytes alone.
        // SAFETY: the object ends at `next`, and that much is left of the block behind it.
        unsafe {
            self.next.set(next.add(more));
            Some(NonNull::new_unchecked(next.sub(old.size())))
        }
    }

    /// Bytes that read as zero.
    ///
    /// # Errors
    /// As for [`Scope::alloc_layout`].
    #[expect(clippy::mut_from_ref, reason = "each call gives other bytes")]
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<&mut [u8], AllocError> {
        let bytes = self.alloc_layout(layout)?;
        // SAFETY: the bytes are this long and were given to nobody else.
        unsafe {
            bytes.write_bytes(0, layout.size());
            Ok(core::slice::from_raw_parts_mut(
                bytes.as_ptr(),
                layout.size(),
            ))
        }
    }

    /// Moves a value into the scope. Its destructor does not run; see [`Scope::alloc_with_drop`].
    ///
    /// # Errors
    /// As for [`Scope::alloc_layout`]; the value is then dropped.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "each call gives another object")]
    pub fn alloc<T>(&self, value: T) -> Result<&mut T, AllocError> {
        let object = self.alloc_layout(Layout::new::<T>())?.cast::<T>();
        // SAFETY: the object is large enough, aligned, and was given to nobody else.
        unsafe {
            object.write(value);
            Ok(&mut *object.as_ptr())
        }
    }

    /// Moves a value into the scope, and drops it when the scope is dropped or reset.
    ///
    /// # Errors
    /// As for [`Scope::alloc`].
    #[expect(clippy::mut_from_ref, reason = "each call gives another object")]
    pub fn alloc_with_drop<T: Send + 'static>(&self, value: T) -> Result<&mut T, AllocError> {
        unsafe fn run<T>(value: *mut u8) {
            // SAFETY: the caller names a value of this type that was not dropped yet.
            unsafe { value.cast::<T>().drop_in_place() }
        }
        // Both or neither: a value whose destructor could not be noted is dropped here.
        let asked = self.alloc_layout(Layout::new::<Asked>())?.cast::<Asked>();
        let object = self.alloc_layout(Layout::new::<T>())?.cast::<T>();
        // The reference is made last and of the pointer that is kept, so using it does not kill that.
        // SAFETY: both places are large enough, aligned, and were given to nobody else.
        unsafe {
            object.write(value);
            self.ask(asked.as_ptr(), object.as_ptr().cast(), run::<T>);
            Ok(&mut *object.as_ptr())
        }
    }

    /// Notes in `asked` that `run` is to run on `value`.
    ///
    /// # Safety
    /// `asked` is memory of the scope for this; `run` may run on `value` once when the scope goes.
    unsafe fn ask(&self, asked: *mut Asked, value: *mut u8, run: unsafe fn(*mut u8)) {
        // SAFETY: the caller's promise.
        unsafe {
            asked.write(Asked {
                before: self.last.get(),
                value,
                run,
            });
        }
        self.last.set(asked);
    }

    /// A slice whose elements `f` makes.
    ///
    /// # Errors
    /// As for [`Scope::alloc_layout`], or if so many elements are too large.
    #[expect(clippy::mut_from_ref, reason = "each call gives another slice")]
    pub fn alloc_slice_fill_with<T>(
        &self,
        len: usize,
        mut f: impl FnMut(usize) -> T,
    ) -> Result<&mut [T], AllocError> {
        let layout = Layout::array::<T>(len).map_err(|_| AllocError::TooLarge)?;
        let first = self.alloc_layout(layout)?.cast::<T>();
        for index in 0..len {
            // SAFETY: inside the slice. If `f` panics the elements so far are not dropped, as promised.
            unsafe { first.add(index).write(f(index)) };
        }
        // SAFETY: all elements were written, and the memory was given to nobody else.
        Ok(unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), len) })
    }

    /// A copy of a slice.
    ///
    /// # Errors
    /// As for [`Scope::alloc_layout`].
    #[expect(clippy::mut_from_ref, reason = "each call gives another slice")]
    pub fn alloc_slice_copy<T: Copy>(&self, slice: &[T]) -> Result<&mut [T], AllocError> {
        let first = self.alloc_layout(Layout::for_value(slice))?.cast::<T>();
        // SAFETY: the memory is large enough, aligned, and was given to nobody else.
        unsafe {
            first.copy_from_nonoverlapping(NonNull::from(slice).cast(), slice.len());
            Ok(core::slice::from_raw_parts_mut(first.as_ptr(), slice.len()))
        }
    }

    /// A copy of a text.
    ///
    /// # Errors
    /// As for [`Scope::alloc_layout`].
    #[expect(clippy::mut_from_ref, reason = "each call gives another text")]
    pub fn alloc_str(&self, text: &str) -> Result<&mut str, AllocError> {
        let bytes = self.alloc_slice_copy(text.as_bytes())?;
        // SAFETY: a copy of a text is text.
        Ok(unsafe { core::str::from_utf8_unchecked_mut(bytes) })
    }

    /// Bytes that the scope holds from the heap.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let blocks = self.blocks.iter().take(self.count.get());
        blocks.map(|block| block.get().1).sum()
    }

    /// The heap.
    #[must_use]
    pub const fn heap(&self) -> &'h Heap<C> {
        self.heap
    }

    /// Drops and frees all that is in the scope. It keeps one block for what comes next: its largest of at most
    /// 64 KiB. So one that serves many requests of that size takes nothing from the heap any more.
    pub fn reset(&mut self) {
        self.clear(true);
    }

    #[cold]
    #[inline(never)]
    fn bytes_in_new_block(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let count = self.count.get();
        let place = self.blocks.get(count).ok_or(AllocError::OutOfMemory)?;
        // A block is aligned well enough for most; for the others the lead needs room.
        let lead = if layout.align() > BLOCK_ALIGN {
            layout.align()
        } else {
            0
        };
        let wanted = layout
            .size()
            .checked_add(lead)
            .ok_or(AllocError::TooLarge)?;
        let wanted = wanted.max(1).checked_next_multiple_of(FIRST_BLOCK);
        let wanted = wanted.ok_or(AllocError::TooLarge)?;
        let newest = count.checked_sub(1).and_then(|last| self.blocks.get(last));
        let next = newest.map_or(FIRST_BLOCK, |block| {
            let size = block.get().1;
            size.saturating_mul(if size < LARGE_BLOCK { 4 } else { 2 })
        });
        // Where so much is not to be had, what is needed may be.
        let block = self.block(next.max(wanted));
        let (base, size) = block.or_else(|_| self.block(wanted))?;
        place.set((base.as_ptr(), size));
        self.count.set(count + 1);
        self.next.set(base.as_ptr());
        // SAFETY: the end of the block.
        self.end.set(unsafe { base.as_ptr().add(size) });
        self.alloc_layout(layout)
    }

    fn block(&self, size: usize) -> Result<(NonNull<u8>, usize), AllocError> {
        let layout = Self::block_layout(size).ok_or(AllocError::TooLarge)?;
        self.heap.alloc(layout).map(|base| (base, size))
    }

    fn block_layout(size: usize) -> Option<Layout> {
        Layout::from_size_align(size, BLOCK_ALIGN).ok()
    }

    /// Runs the destructors and frees all blocks, but one if `keeps`.
    fn clear(&mut self, keeps: bool) {
        /// Goes on with the rest if a destructor panics.
        struct Rest<'a, 'h, C: Config>(&'a mut Scope<'h, C>, bool);
        impl<C: Config> Drop for Rest<'_, '_, C> {
            fn drop(&mut self) {
                self.0.clear(self.1);
            }
        }
        let rest = Rest(self, keeps);
        // SAFETY: what was asked for lies in the scope's blocks, which are freed after this.
        while let Some(asked) = unsafe { rest.0.last.get().as_ref() } {
            // Struck off first, so that it runs once whatever it does.
            rest.0.last.set(asked.before);
            // SAFETY: the value is of the type that `run` was made for, and was not dropped yet.
            unsafe { (asked.run)(asked.value) };
        }
        // Nothing panics from here on.
        core::mem::forget(rest);
        self.end_handles();
        self.free_blocks(keeps);
    }

    fn free_blocks(&mut self, keeps: bool) {
        // They grow, but for those that memory was too short for.
        let small = self.blocks.iter().take(self.count.get());
        let small = small.filter(|block| block.get().1 <= KEPT_BLOCK);
        let kept = small
            .max_by_key(|block| block.get().1)
            .filter(|_| keeps)
            .map_or((ptr::null_mut(), 0), |block| {
                block.replace((ptr::null_mut(), 0))
            });
        for block in self.blocks.iter().take(self.count.get()) {
            let (base, size) = block.replace((ptr::null_mut(), 0));
            if let (Some(base), Some(layout)) = (NonNull::new(base), Self::block_layout(size)) {
                // SAFETY: the block came from the heap with this layout; what was in it is borrowed by
                // nobody, because the scope is borrowed exclusively.
                let _freed = unsafe { self.heap.free(base, layout) };
            }
        }
        let (base, size) = kept;
        if let Some(base) = NonNull::new(base) {
            // SAFETY: the block is so long, and what was in it is borrowed by nobody.
            unsafe { self.heap.wipe(base, size) };
        }
        self.count.set(usize::from(!base.is_null()));
        let [first, ..] = &self.blocks;
        first.set(kept);
        self.next.set(base);
        self.end.set(base.wrapping_add(size));
    }
}

impl<C: Config> Drop for Scope<'_, C> {
    #[inline]
    fn drop(&mut self) {
        if self.count.get() > 0 {
            self.clear(false);
        }
    }
}

impl<C: Config> fmt::Debug for Scope<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("allocated_bytes", &self.allocated_bytes())
            .finish_non_exhaustive()
    }
}
