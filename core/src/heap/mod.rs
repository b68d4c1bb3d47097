//! The heap: the public face of the allocator, and the shared path that works from any context.
//!
//! Principles:
//! - A heap is a `const`-constructible value that owns everything it takes from its provider, and
//!   gives all of it back when it is dropped.
//! - The shared path needs no thread, CPU or local: an interrupt handler may use it while the code
//!   that it interrupted is inside its own local.
//! - A failed request first makes the heap give back what is empty, and tries once more.

mod blocks;
mod budget;
mod by_address;
mod closing;
mod counters;
mod depots;
mod epochs;
mod give_back;
mod handles;
mod large;
mod mixed;
mod pause;
mod policy;
mod reclaim;
mod route;
mod scoped;
mod shared;
mod stats;
mod typed;
#[cfg(feature = "walker")]
mod walker;
mod wipe;

use crate::block::Length;
use crate::cache::Registry;
use crate::config::{Config, Table};
use crate::depot::EpochDepot;
use crate::epoch::{Books, Openings, Positions, Tag};
use crate::error::{AllocError, FreeError};
use crate::handle::Ids;
use crate::pages::{Entry, Pages};
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Lock, Ordering};
use core::alloc::Layout;
use core::fmt;
use core::ptr::{self, NonNull};

use blocks::Blocks;
pub(crate) use blocks::epoch_of;
use budget::CacheBudget;
pub use closing::Closed;
use counters::Counters;
use mixed::Mixed;
pub use policy::{Emptied, Policy};
pub(crate) use route::Route;
pub(crate) use scoped::ScopeSlabs;
pub(crate) use shared::ROOT_DEPOT;
pub use typed::{Handle, Ref};
#[cfg(feature = "walker")]
pub use walker::{Census, SlabCensus, Violation};

/// An allocator over the pages of a provider.
///
/// `C` names the provider, the lock and the constants. [`Standard`](crate::config::Standard) and its neighbours are
/// configurations over any provider: `Heap<Standard<MyProvider>>`.
///
/// A heap can be a `static`, a local variable, or part of something else. What it hands out is valid
/// until it is freed or the heap is dropped.
pub struct Heap<C: Config> {
    pub(crate) pages: Pages<C::Provider, C::Lock>,
    /// The depot of the epoch that everything without an epoch belongs to. Null until first use.
    /// `Release` when it is set, `Acquire` when it is read: the reader sees a placed depot.
    root: AtomicPtr<EpochDepot<C::Lock>>,
    /// The epochs' records.
    positions: Positions<EpochDepot<C::Lock>>,
    /// The depot that was made last. `Release` when it is set, under the ring's lock; `Acquire` in `depots`: the reader sees
    /// this depot and, through it, the older ones.
    newest: AtomicPtr<EpochDepot<C::Lock>>,
    /// What opening an epoch draws and notes.
    openings: Openings,
    /// The ring's lock. Taken before any other of the heap's locks, and never inside one.
    books: Lock<C::Lock, Books>,
    /// Counts epochs that were closed with a depot or with something left. `Release` where it changes, `Acquire` in `closes`.
    closes: AtomicU64,
    pub(crate) locals: Lock<C::Lock, Registry>,
    /// What the handles' ids lead to.
    pub(crate) ids: Ids<C>,
    /// The policy, encoded. `Relaxed`: a choice that orders nothing.
    policy: AtomicUsize,
    budget: CacheBudget,
    blocks: Blocks<C::Lock>,
    mixed: Mixed<C::Lock>,
    /// Warm bytes at which the next batch is given back. `Relaxed`: a hint.
    trim_at: AtomicUsize,
    pub(crate) counters: Counters,
}

// SAFETY: everything inside is atomic or behind the configuration's lock, which is a mutex; the provider is shared.
unsafe impl<C: Config<Provider: Sync, Lock: Sync>> Sync for Heap<C> {}
// SAFETY: the pointers inside name memory that belongs to the heap and moves with it.
unsafe impl<C: Config<Provider: Send, Lock: Send>> Send for Heap<C> {}

/// Where a heap's bytes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeapBytes {
    /// Held from the provider, metadata included.
    pub taken: usize,
    /// Of these, what was touched and not given back by decommit. As accounted, not as measured.
    pub resident: usize,
    /// Of these, what is empty and could be given back: free pages, and slabs kept for reuse.
    pub reclaimable: usize,
}

impl<C: Config> Heap<C> {
    /// A heap that takes nothing from `provider` before it is first used.
    #[must_use]
    pub const fn new(provider: C::Provider) -> Self {
        Self {
            pages: Pages::new(provider),
            root: AtomicPtr::new(ptr::null_mut()),
            positions: Positions::new(Table::<C>::RING),
            newest: AtomicPtr::new(ptr::null_mut()),
            openings: Openings::new(),
            books: Lock::new(Books::new()),
            closes: AtomicU64::new(0),
            locals: Lock::new(Registry::new()),
            ids: Ids::new(),
            policy: AtomicUsize::new(Policy::DEFAULT.encode()),
            budget: CacheBudget::new(),
            blocks: Blocks::new(),
            mixed: Mixed::new(),
            trim_at: AtomicUsize::new(0),
            counters: Counters::new(),
        }
    }

    /// Allocates, without a local. A size of zero gets a unique pointer that must be freed too.
    ///
    /// This works from any context that the configuration's lock keeps others out of: with the default lock, a spin lock
    /// that masks nothing, an interrupt handler must not interrupt code that may be in the heap.
    ///
    /// # Errors
    /// If there is no memory, the limit is reached, or the size is beyond any provider.
    #[inline]
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let depot = self.root()?;
        match Table::<C>::TABLE.index_for(layout) {
            Some(class) => self.alloc_slot(depot, Tag::ROOT, class),
            None => self
                .alloc_large(depot, Tag::ROOT, layout)
                .map(|(object, _)| object),
        }
    }

    /// As [`Heap::alloc`], and the bytes of the layout are zero.
    ///
    /// # Errors
    /// As for [`Heap::alloc`].
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let depot = self.root()?;
        let Some(class) = Table::<C>::TABLE.index_for(layout) else {
            return self.alloc_large_zeroed(depot, Tag::ROOT, layout);
        };
        let object = self.alloc_slot(depot, Tag::ROOT, class)?;
        // SAFETY: the object has at least this size.
        unsafe { object.write_bytes(0, layout.size()) };
        Ok(object)
    }

    /// Frees an object, without a local; from where, see [`Heap::alloc`].
    ///
    /// # Errors
    /// If the heap can tell that there is no such object; it is then as it was. Only a checked heap
    /// can always tell.
    ///
    /// # Safety
    /// `object` was allocated from this heap, by whatever path, with `layout` or with one that
    /// [`Heap::resize_in_place`] replaced by it; it was not freed since, and nobody uses it.
    #[inline]
    pub unsafe fn free(&self, object: NonNull<u8>, layout: Layout) -> Result<(), FreeError> {
        match Table::<C>::TABLE.index_for(layout) {
            Some(class) => {
                if let Some(block) = self.block_at(object.addr().get()) {
                    let length = Length::of(layout.size());
                    // SAFETY: the caller's promise.
                    return unsafe { self.free_bumped(block, object, Some(length)) }
                        .map_err(|error| self.refused_free(error));
                }
                if C::CHECKED {
                    self.check_free(object, class)
                        .map_err(|error| self.refused_free(error))?;
                }
                // SAFETY: the caller's promise.
                unsafe {
                    self.wipe_slot(object, class);
                    self.free_slot_held(object, class)
                }
            }
            // SAFETY: the caller's promise.
            None => unsafe { self.free_large(object, layout) },
        }
    }

    /// Returns true if `new` fits without moving the object. It is then freed with `new`.
    #[must_use]
    pub fn resize_in_place(&self, object: NonNull<u8>, old: Layout, new: Layout) -> bool {
        let provider = self.pages.provider();
        Route::of::<C>(old, provider) == Route::of::<C>(new, provider)
            && (!self.is_bumped(object)
                || (Length::of(old.size()) == Length::of(new.size())
                    && object.addr().get().is_multiple_of(new.align())))
    }

    /// Moves an object to where `new` fits, or leaves it where it is if it fits already. The first
    /// bytes, as many as both layouts have, are kept. A large object that can be made to fit without being copied stays in
    /// its epoch ([`Heap::resize_large`]); another is then of the root epoch.
    ///
    /// # Errors
    /// As for [`Heap::alloc`]; the object is then as it was.
    ///
    /// # Safety
    /// As for [`Heap::free`] with `old`. After `Ok` the old pointer is dead.
    pub unsafe fn resize(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        if self.resize_in_place(object, old, new) {
            return Ok(object);
        }
        // SAFETY: the caller's promise.
        if let Some(moved) = unsafe { self.resize_large(object, old, new) } {
            return Ok(moved);
        }
        let moved = self.alloc(new)?;
        // SAFETY: two different objects of at least this many bytes; the old one is the caller's.
        unsafe {
            moved.copy_from_nonoverlapping(object, old.size().min(new.size()));
            let _freed = self.free(object, old);
        }
        Ok(moved)
    }

    /// How many bytes an object of this layout may use, wherever it was allocated. [`Heap::usable_size`] may know of more.
    #[must_use]
    pub fn good_size(&self, layout: Layout) -> usize {
        let route = Route::of::<C>(layout, self.pages.provider());
        match route {
            // It may be in a bump block.
            Route::Class(_) if Table::<C>::BUMPS => Length::of(layout.size()).bytes(),
            _ => route.usable_size::<C>(),
        }
    }

    /// The page provider.
    #[must_use]
    pub const fn provider(&self) -> &C::Provider {
        self.pages.provider()
    }

    /// Lets the heap hold at most `bytes` from its provider. What it holds already stays.
    pub fn set_limit(&self, bytes: usize) {
        self.pages.set_limit(bytes);
    }

    /// Where the heap's bytes are. Takes time with the epochs that locals serve; `reclaimable` may lag behind by what
    /// other threads are doing at the time.
    #[must_use]
    pub fn bytes(&self) -> HeapBytes {
        let pages = self.pages.bytes();
        HeapBytes {
            taken: pages.taken,
            resident: pages.resident,
            reclaimable: pages.warm + self.budget.bytes(),
        }
    }

    /// How many chunks were got from the provider so far. O(1), without a lock: who times an allocation looks here
    /// before and after.
    #[must_use]
    pub fn chunks_acquired(&self) -> u64 {
        self.pages.acquired_chunks()
    }

    /// Counts the slots of two held words that are in both.
    #[inline]
    pub(crate) fn note_overlap(&self, slots: u64) {
        if slots != 0 {
            self.note_double_free(u64::from(slots.count_ones()));
        }
    }

    /// The root epoch's depot.
    #[inline]
    pub(crate) fn root(&self) -> Result<&EpochDepot<C::Lock>, AllocError> {
        // SAFETY: a depot that was set is valid for as long as the heap.
        match unsafe { self.root.load(Ordering::Acquire).as_ref() } {
            Some(depot) => Ok(depot),
            None => self.first_root(),
        }
    }

    /// Makes the root epoch's depot.
    #[cold]
    #[inline(never)]
    fn first_root(&self) -> Result<&EpochDepot<C::Lock>, AllocError> {
        self.make_root()
            .map_err(|error| self.refused(error, None, None))
    }

    /// Every depot that exists, the newest first.
    pub(crate) fn depots(&self) -> impl Iterator<Item = &EpochDepot<C::Lock>> {
        // SAFETY: depots stay valid for as long as the heap; the depot's initialisation happens before the `Acquire`.
        let newest = unsafe { self.newest.load(Ordering::Acquire).as_ref() };
        // SAFETY: as above; older depots were initialised before a newer one was published.
        core::iter::successors(newest, |depot| unsafe {
            depot.older.load(Ordering::Relaxed).as_ref()
        })
    }

    /// What the page map says of an address.
    #[inline(always)]
    pub(crate) fn entry(&self, address: usize) -> Entry {
        self.pages.map.entry::<C::Provider>(address)
    }
}

impl<C: Config> Drop for Heap<C> {
    fn drop(&mut self) {
        self.pages.dissolve();
    }
}

impl<C: Config> fmt::Debug for Heap<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("bytes", &self.bytes())
            .field("policy", &self.policy())
            .finish_non_exhaustive()
    }
}
