//! A provider over bytes that the caller has: a `static`, a linker section, a stack buffer.
//!
//! Free extents are kept in address order in a list whose nodes lie in the free bytes themselves,
//! so the provider needs no memory of its own; neighbours merge when they are released. First fit:
//! regions are few and large, so a walk of the list is short.

use super::{Capabilities, PageProvider, ProviderError, Region};
use core::fmt;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, align_of, size_of};
use core::ptr::{self, NonNull};
use lock_api::{Mutex, RawMutex};

/// Serves regions from one fixed piece of memory. It cannot grow and has no physical memory to
/// give back, so what a heap returns is whole regions, which the next request may have again.
///
/// ```
/// use core::alloc::Layout;
/// use temporal_slab::{Heap, config::Standard, provider::StaticProvider};
///
/// const SIZE: usize = 512 * 1024;
/// static mut MEMORY: [u8; SIZE] = [0; SIZE];
/// // SAFETY: nothing else in this program names MEMORY.
/// static HEAP: Heap<Standard<StaticProvider<'static>>> =
///     Heap::new(unsafe { StaticProvider::from_raw((&raw mut MEMORY).cast(), SIZE) });
///
/// let layout = Layout::new::<[u64; 8]>();
/// let object = HEAP.alloc(layout).unwrap();
/// // SAFETY: `object` came from this heap with this layout and is not used again.
/// unsafe { HEAP.free(object, layout).unwrap() };
/// ```
///
/// `CHUNK` is the chunk size that heaps over it use. `R` is its lock: a kernel whose interrupt handlers
/// allocate brings the one that masks interrupts, as for the heap.
pub struct StaticProvider<'m, const CHUNK: usize = 65536, R = spin::Mutex<()>> {
    extents: Mutex<R, Extents>,
    memory: PhantomData<&'m mut [u8]>,
}

/// The free extents. Invariant: ascending, disjoint, never adjacent, each a multiple of [`UNIT`] in
/// base and size, all inside the caller's memory, and none of it in use by anyone else.
struct Extents {
    first: *mut Extent,
    /// Memory that was not looked at yet: `const` construction cannot write the first node.
    raw: (*mut u8, usize),
}

struct Extent {
    next: *mut Extent,
    size: usize,
}

/// What regions are rounded to.
const UNIT: usize = 64;
const _: () = assert!(size_of::<Extent>() <= UNIT && align_of::<Extent>() <= UNIT);

// SAFETY: the pointers name memory that this provider alone owns; the mutex orders all access.
unsafe impl Send for Extents {}

impl<'m, const CHUNK: usize, R: RawMutex> StaticProvider<'m, CHUNK, R> {
    /// A provider over `memory`, for as long as it is borrowed.
    #[must_use]
    pub const fn new(memory: &'m mut [MaybeUninit<u8>]) -> Self {
        // SAFETY: the exclusive borrow makes the bytes ours for 'm, which the type carries.
        unsafe { Self::from_raw(memory.as_mut_ptr().cast(), memory.len()) }
    }

    /// A provider over `size` bytes at `base`, usable in a `static`.
    ///
    /// # Safety
    /// The bytes are readable and writable for `'m`, and nobody else uses them meanwhile.
    #[must_use]
    pub const unsafe fn from_raw(base: *mut u8, size: usize) -> Self {
        Self {
            extents: Mutex::from_raw(
                R::INIT,
                Extents {
                    first: ptr::null_mut(),
                    raw: (base, size),
                },
            ),
            memory: PhantomData,
        }
    }

    /// Bytes that are not in anyone's hands, and the longest run of them.
    #[must_use]
    pub fn free_bytes(&self) -> (usize, usize) {
        let mut extents = self.extents.lock();
        extents.adopt_raw();
        let (mut sum, mut longest) = (0, 0);
        let mut at = extents.first;
        while !at.is_null() {
            // SAFETY: the list's invariant; the lock is held.
            let extent = unsafe { &*at };
            sum += extent.size;
            longest = longest.max(extent.size);
            at = extent.next;
        }
        (sum, longest)
    }
}

impl Extents {
    /// Turns the caller's memory into the first extent, once.
    fn adopt_raw(&mut self) {
        let (base, size) = core::mem::replace(&mut self.raw, (ptr::null_mut(), 0));
        if base.is_null() {
            return;
        }
        let skip = base.addr().next_multiple_of(UNIT) - base.addr();
        let size = size.saturating_sub(skip) & !(UNIT - 1);
        if size >= UNIT {
            // SAFETY: `skip < size`, so this stays inside the caller's memory, which is ours.
            unsafe { self.insert(base.add(skip), size) };
        }
    }

    /// Puts an extent back, merged with its neighbours.
    ///
    /// # Safety
    /// `[base, base + size)` is ours, in nobody's use, and meets the struct's invariant.
    unsafe fn insert(&mut self, base: *mut u8, size: usize) {
        let mut link: *mut *mut Extent = &mut self.first;
        let mut before: *mut Extent = ptr::null_mut();
        // SAFETY: all nodes reached are free extents, valid by the invariant; `base` likewise.
        unsafe {
            while !(*link).is_null() && (*link).addr() < base.addr() {
                before = *link;
                link = &raw mut (*before).next;
            }
            let after = *link;
            let node: *mut Extent = base.cast();
            node.write(Extent { next: after, size });
            if !after.is_null() && base.addr() + size == after.addr() {
                (*node).size += (*after).size;
                (*node).next = (*after).next;
            }
            *link = node;
            if !before.is_null() && before.addr() + (*before).size == base.addr() {
                (*before).size += (*node).size;
                (*before).next = (*node).next;
            }
        }
    }

    /// Cuts a run out of the first extent that can hold it.
    fn cut(&mut self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let mut link: *mut *mut Extent = &mut self.first;
        // SAFETY: as in `insert`; the parts that are written back are inside the extent that was
        // unlinked and do not overlap the run that is handed out.
        unsafe {
            while !(*link).is_null() {
                let extent = *link;
                let have = (*extent).size;
                let at = extent.addr();
                let lead = at.checked_next_multiple_of(align)? - at;
                if lead.checked_add(size).is_some_and(|need| need <= have) {
                    *link = (*extent).next;
                    let base: *mut u8 = extent.cast();
                    if lead > 0 {
                        self.insert(base, lead);
                    }
                    if have > lead + size {
                        self.insert(base.add(lead + size), have - lead - size);
                    }
                    return NonNull::new(base.add(lead));
                }
                link = &raw mut (*extent).next;
            }
        }
        None
    }
}

// SAFETY: `cut` hands out runs that no free extent and no other run overlaps; they lie in memory
// that the constructor's caller gave up. decommit and commit touch nothing.
unsafe impl<const CHUNK: usize, R: RawMutex> PageProvider for StaticProvider<'_, CHUNK, R> {
    const CHUNK_SIZE: usize = CHUNK;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        if size == 0 || !align.is_power_of_two() {
            return None;
        }
        let size = size.checked_next_multiple_of(UNIT)?;
        let mut extents = self.extents.lock();
        extents.adopt_raw();
        let base = extents.cut(size, align.max(UNIT))?;
        Some(Region { base, size })
    }

    unsafe fn release(&self, region: Region) {
        // SAFETY: the region came from `cut`, so it meets the invariant and is nobody's now.
        unsafe {
            self.extents
                .lock()
                .insert(region.base.as_ptr(), region.size)
        }
    }

    unsafe fn decommit(&self, _pages: Region) -> Result<(), ProviderError> {
        Err(ProviderError)
    }

    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LAZY_COMMIT
    }
}

impl<const CHUNK: usize, R> fmt::Debug for StaticProvider<'_, CHUNK, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticProvider").finish_non_exhaustive()
    }
}
