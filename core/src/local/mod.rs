//! A local: one CPU's or thread's fast path.
//!
//! Principles:
//! - `alloc` pops a pointer that was freed here, else takes the lowest bit of a word that is held
//!   here. `free` pushes. Neither writes anything that another CPU reads.
//! - Everything held is a bit of some slab's word, so a local owns no slab and no list, and when it
//!   goes it gives its bits back. There is nothing to adopt.
//! - What a local holds is bounded: see [`Local::holding_bound`].
//!
//! A local has an *epoch cache* in each depot that it serves: the root's for good, those of other epochs from
//! their first use until it notices, at a slow path, that the epoch was closed.

mod bump;
mod by_address;
mod epoch_cache;
mod handles;
mod magazines;
mod resize;
mod slow;
mod survivors;

use crate::block::Length;
use crate::cache::{CacheState, Cell, Entry, LocalCounters};
use crate::config::{Config, Table};
use crate::depot::EpochDepot;
use crate::epoch::{Epoch, Position, Tag};
use crate::error::{AllocError, FreeError};
use crate::heap::Heap;
use crate::pages::{Kind, NO_DEPOT};
use crate::slab::{Slab, SlotName};
use crate::snapshot::{self, LocalStats, SlowPathStats};
use core::alloc::Layout;
use core::fmt;
use core::ptr::{self, NonNull};

use bump::Bumps;
use epoch_cache::EpochCache;
pub use magazines::{Magazines, NO_MAGAZINES, NoMagazines};

/// How many epoch caches are found by one look. More are found by walking a list.
const NEAR: usize = 8;

/// The name of a slot, below 64, of a plain slab; 0 in a heap that has no marks.
#[inline(always)]
fn slot_name<C: Config>(slab: *const Slab, slot: usize) -> u64 {
    if C::CHECKED {
        SlotName::new(slab, slot).0
    } else {
        0
    }
}

/// A fast path over a heap, for one thread or CPU at a time.
///
/// A local is a plain value: give one to each thread, or keep one for each CPU. Objects may be freed
/// on any local of the heap, or without one. Dropping a local gives back all that it holds.
pub struct Local<'h, C: Config> {
    heap: &'h Heap<C>,
    /// The epoch cache in the root's depot.
    home: EpochCache<'h, C::Lock>,
    /// The rest. It lies apart so that nothing ever writes to the local itself, and the compiler can
    /// keep what the fast paths read in registers across a loop.
    inner: *mut LocalInner<'h, C::Lock>,
}

/// What changes in a local, in metadata memory.
#[derive(Debug)]
struct LocalInner<'h, R> {
    /// Where the local allocated last that named an epoch: most allocations name the same as the one before.
    last: Last<R>,
    /// Bump blocks.
    bumps: Bumps<R>,
    /// Epoch caches in other depots, by the lowest bits of the depot's number.
    near: [EpochCache<'h, R>; NEAR],
    /// The newest epoch cache but the home one; the others follow it.
    caches: *mut CacheState,
    /// An epoch cache in no depot, empty, with the stores that its cells had: for the next epoch, so that a program with an
    /// epoch for each request does not get and give memory for each.
    spare: *mut CacheState,
    /// What a heap that shuffles draws from: never 0.
    draw: u64,
    /// How many epochs had been closed when the epoch caches were last looked through.
    closes_seen: u64,
    /// Why the last slow path failed that did.
    failed: AllocError,
    /// What is counted, behind this in the same memory. Others read it.
    counters: *const LocalCounters,
}

/// An epoch, its position in the ring, and the cells of this local's epoch cache in the depot that serves it.
#[derive(Debug)]
struct Last<R> {
    epoch: Option<Epoch>,
    position: *const Position<EpochDepot<R>>,
    cells: *mut Cell,
}

impl<R> Last<R> {
    const NONE: Self = Self {
        epoch: None,
        position: ptr::null(),
        cells: ptr::null_mut(),
    };
}

// SAFETY: a local's epoch caches are reached through this value alone, but for what is atomic in them, and
// apart from the walker at rest.
unsafe impl<C: Config<Provider: Sync, Lock: Sync>> Send for Local<'_, C> {}

impl<C: Config> Heap<C> {
    /// A local: a fast path for one thread or CPU.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn local(&self) -> Result<Local<'_, C>, AllocError> {
        let root = self.root()?;
        Local::new(self, root).map_err(|error| self.refused(error, None, None))
    }
}

impl<'h, C: Config> Local<'h, C> {
    pub(crate) fn new(
        heap: &'h Heap<C>,
        root: &'h EpochDepot<C::Lock>,
    ) -> Result<Self, AllocError> {
        let classes = Table::<C>::LISTED;
        let layout = LocalCounters::layout(classes)
            .and_then(|(counters, _)| Layout::new::<LocalInner<'h, C::Lock>>().extend(counters));
        let (layout, counters_at) = layout.map_err(|_| AllocError::TooLarge)?;
        let memory = heap.with_reclaim(|| heap.pages.take_meta(Kind::Local, layout))?;
        let inner: *mut LocalInner<'h, C::Lock> = memory.as_ptr().cast();
        // SAFETY: the memory is of this layout and nobody else's.
        let counters = unsafe {
            let number = heap.counters.next_local();
            let counters = LocalCounters::place(memory.as_ptr().add(counters_at), classes, number);
            inner.write(LocalInner {
                last: Last::NONE,
                bumps: Bumps::NONE,
                near: [EpochCache::none(root); NEAR],
                caches: ptr::null_mut(),
                spare: ptr::null_mut(),
                draw: heap.seed() | 1,
                closes_seen: heap.closes(),
                failed: AllocError::OutOfMemory,
                counters,
            });
            counters
        };
        match EpochCache::make(heap, root, counters) {
            Ok(home) => Ok(Self { heap, home, inner }),
            Err(error) => {
                // SAFETY: `inner` is not used.
                unsafe { heap.pages.put_meta(Kind::Local, memory) };
                Err(error)
            }
        }
    }

    /// Allocates in the root epoch. A size of zero gets a unique pointer that must be freed too.
    ///
    /// # Errors
    /// If there is no memory, the limit is reached, or the size is beyond any provider.
    // Always: the compiler takes the unlikely half of the body for a reason not to, and a call costs
    // as much as the rest. Epoch caches are copied in the slow halves only, for the same reason.
    #[inline(always)]
    pub fn alloc(&mut self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        // The slow halves give an option, which fits a register; a result would put the fast path's
        // pointer through memory where the two meet. And they are the end of it, so nothing needs to
        // survive them.
        let object = match Table::<C>::TABLE.index_at_once(layout) {
            Some(class) => match self.pick(self.home.cells, class) {
                Some(object) => Some(object),
                None => self.refill_home(class),
            },
            None => self.alloc_other_home(layout),
        };
        object.ok_or_else(|| self.failure())
    }

    /// As [`Local::alloc`], if that takes no more than a few instructions. `None` says nothing of whether there is memory.
    #[cfg(feature = "allocator-api2")]
    #[inline(always)]
    pub(crate) fn alloc_at_once(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the magazines are this local's.
        unsafe { self.heap.alloc_from(self.magazines(), layout) }
    }

    /// Allocates in an epoch.
    ///
    /// # Errors
    /// As for [`Local::alloc`], or if the epoch is closed.
    #[inline]
    pub fn alloc_in(&mut self, epoch: Epoch, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if Table::<C>::BUMPS {
            return match self.alloc_near(epoch, layout) {
                Some(object) => Ok(object),
                None => self.lay_elsewhere(epoch, layout),
            };
        }
        self.alloc_in_slabs(epoch, layout)
    }

    /// As [`Local::alloc_in`], in slabs, or as a large object.
    #[inline]
    fn alloc_in_slabs(&mut self, epoch: Epoch, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        match Table::<C>::TABLE.index_for(layout) {
            Some(class) => self.take_in(epoch, class),
            None => self.alloc_large_in(epoch, layout),
        }
    }

    /// As [`Local::alloc_in`], and the bytes of the layout are zero.
    ///
    /// # Errors
    /// As there.
    pub fn alloc_zeroed_in(
        &mut self,
        epoch: Epoch,
        layout: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        if Table::<C>::TABLE.index_for(layout).is_none() {
            self.notice_closes();
            return self.heap.alloc_zeroed_in(epoch, layout);
        }
        let object = self.alloc_in(epoch, layout)?;
        // SAFETY: the object has at least this size.
        unsafe { object.write_bytes(0, layout.size()) };
        Ok(object)
    }

    /// The depot of an epoch, if it accepts allocations.
    fn open_depot(&self, epoch: Epoch) -> Result<&'h EpochDepot<C::Lock>, AllocError> {
        let depot = self.heap.open_depot(epoch);
        depot.inspect_err(|error| self.count_refusal(*error))
    }

    /// A slot of a class, in an epoch.
    #[inline]
    fn take_in(&mut self, epoch: Epoch, class: usize) -> Result<NonNull<u8>, AllocError> {
        if let Some(cells) = self.last_cells(epoch)
            && let Some(object) = self.pick(cells, class)
        {
            return Ok(object);
        }
        self.take_in_elsewhere(epoch, class)
    }

    /// The cells for an epoch, if it is open and the one that the local allocated in last.
    #[inline]
    fn last_cells(&self, epoch: Epoch) -> Option<*mut Cell> {
        // SAFETY: `inner` is valid and this local's alone; positions are valid for as long as the heap.
        unsafe {
            let last = &(*self.inner).last;
            let is_it = last.epoch == Some(epoch) && (*last.position).is_open_in(epoch.era_id());
            is_it.then_some(last.cells)
        }
    }

    /// Takes what is at hand in an epoch cache's cell.
    #[inline(always)]
    fn pick(&self, cells: *mut Cell, class: usize) -> Option<NonNull<u8>> {
        // SAFETY: an epoch cache has a cell for each class of the table.
        let cell = unsafe { &*cells.add(class) };
        if !C::SHUFFLED {
            return magazines::pick::<C>(cell, class);
        }
        match self.draw(cell) {
            (Some(entry), _) => Some(magazines::live::<C>(entry)),
            (None, from) => magazines::next::<C>(cell, class, from),
        }
    }

    /// The entry of a slot that the local holds, and that has no tag.
    fn entry_of(&self, address: usize, class: usize) -> Entry {
        let name = address as u64;
        if !C::CHECKED {
            return Entry::unmarked(name);
        }
        // SAFETY: the slot is held, so its slab is pinned.
        let (slab, base) = unsafe {
            let slab = self.slab_of(address);
            (slab, (*slab).body().base.addr())
        };
        let slot = Table::<C>::TABLE
            .class(class)
            .slot_of(address.wrapping_sub(base));
        let slot = slot_name::<C>(slab, slot as usize & 63);
        Entry { name, slot }
    }

    /// What is taken from a cell: an entry of the magazine, if there is one, and where else to begin in the word. Only a
    /// heap that shuffles draws.
    #[inline(always)]
    fn draw(&self, cell: &Cell) -> (Option<Entry>, Option<u32>) {
        if !C::SHUFFLED {
            return (cell.pop(C::CHECKED), None);
        }
        // SAFETY: `inner` is valid and this local's alone.
        let draw = unsafe {
            let draw = &mut (*self.inner).draw;
            // Of the generator xorshift64*.
            *draw ^= *draw >> 12;
            *draw ^= *draw << 25;
            *draw ^= *draw >> 27;
            draw.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
        };
        (cell.pop_any(draw as usize >> 6), Some(draw as u32 & 63))
    }

    /// Frees an object, of whatever epoch and whichever path it was allocated by.
    ///
    /// # Errors
    /// If the heap can tell that there is no such object; it is then as it was. Only a checked heap
    /// can always tell.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    #[inline(always)]
    pub unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe {
            if self.free_at_once(object, layout) {
                return Ok(());
            }
            self.free_other(object, layout)
        }
    }

    /// As [`Local::free`], if that takes no more than a few instructions. If not, nothing has changed.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(crate) unsafe fn free_at_once(&self, object: NonNull<u8>, layout: Layout) -> bool {
        let length = Some(Length::of(layout.size()));
        if self.free_near(object.addr().get(), length) {
            return true;
        }
        // SAFETY: the caller's promise; the magazines are this local's.
        unsafe { self.heap.free_layout_to(self.magazines(), object, layout) }
    }

    /// The magazines for the root epoch: those of [`Heap::alloc_from`] and [`Heap::free_to`], for as long as this local is
    /// there.
    #[must_use]
    #[inline(always)]
    pub const fn magazines(&self) -> Magazines {
        Magazines(self.home.cells)
    }

    /// Frees an object whose class takes a search, for whose slot there is no room at hand, of another epoch, in a block that is not this
    /// local's, or that no class serves.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    #[inline(never)]
    unsafe fn free_other(&mut self, object: NonNull<u8>, layout: Layout) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe {
            match Table::<C>::TABLE.index_for(layout) {
                Some(class) => {
                    let entry = self.heap.entry_at_once(object.addr().get());
                    if entry.class() == class && self.heap.free_long_to(self.magazines(), object) {
                        return Ok(());
                    }
                    if let Some(block) = self.heap.block_at(object.addr().get()) {
                        return self.free_bumped(block, object, Some(Length::of(layout.size())));
                    }
                    self.free_in(object, class)
                }
                None => self.heap.free_large(object, layout),
            }
        }
    }

    /// Frees an object of a class, of whatever depot.
    ///
    /// # Safety
    /// As for [`Heap::free`], for a layout of this class.
    unsafe fn free_in(&mut self, object: NonNull<u8>, class: usize) -> Result<(), FreeError> {
        if C::CHECKED {
            let checked = self.heap.check_free(object, class);
            checked.map_err(|error| self.heap.refused_free(error))?;
        }
        let address = object.addr().get();
        // SAFETY: the heap outlives the local.
        let slab = unsafe { self.heap.entry(address).slab() }.ok_or(FreeError::Foreign)?;
        // SAFETY: the caller gives up the object, which is of this class.
        unsafe { self.heap.wipe_slot(object, class) };
        // The object's slot is held until it is given, so the slab stays what it is.
        let id = slab.identity().key().depot();
        // SAFETY: the object was live, and is of this class.
        unsafe { self.heap.end_hold(slab, object, class) };
        let cache = if id == self.home.id {
            self.home
        } else {
            *self.near(id)
        };
        if id != cache.id {
            // SAFETY: the caller's promise.
            return unsafe { self.free_elsewhere(object, class) };
        }
        let kept = self.entry_of(address, class);
        if !self.cell(cache, class).push(kept, C::CHECKED) {
            self.spill(cache, class, kept);
        }
        Ok(())
    }

    /// As [`Local::alloc`], and the bytes of the layout are zero. Memory that comes fresh from a
    /// provider that promises zeroes is not written again.
    ///
    /// # Errors
    /// As for [`Local::alloc`].
    pub fn alloc_zeroed(&mut self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let cache = self.home;
        let Some(class) = Table::<C>::TABLE.index_for(layout) else {
            return self.heap.alloc_large_zeroed(cache.depot, Tag::ROOT, layout);
        };
        if self.cell(cache, class).is_used_up() {
            // The slot that a refill hands out comes from its word too: make the word first.
            self.restock(cache, Tag::ROOT, class)?;
        }
        let is_zero = self.cell(cache, class).is_next_fresh();
        let object = self.alloc(layout)?;
        if !is_zero {
            // SAFETY: the object has at least this size.
            unsafe { object.write_bytes(0, layout.size()) };
        }
        Ok(object)
    }

    /// How often this local left its fast path, and what for. O(1).
    #[must_use]
    pub fn slow_paths(&self) -> SlowPathStats {
        self.counters().slow()
    }

    /// What there is to know of this local. Takes time with the epochs that it serves.
    #[must_use]
    pub fn stats(&self) -> LocalStats {
        let mut stats = LocalStats {
            version: snapshot::VERSION,
            number: self.counters().number(),
            slow: self.slow_paths(),
            ..LocalStats::default()
        };
        // SAFETY: the epoch caches are this local's, and nobody uses it meanwhile.
        self.for_each_epoch_cache(|state| unsafe {
            let depot = CacheState::serves::<C::Lock>(state);
            let held = CacheState::held::<C>(state);
            stats.epochs += 1;
            stats.held_slots += held.0 as u64;
            stats.held_bytes += held.1 as u64;
            if !depot.tag().is_open() {
                stats.closed_epochs += 1;
                stats.held_in_closed_bytes += held.1 as u64;
            }
        });
        stats
    }

    #[inline]
    fn counters(&self) -> &LocalCounters {
        // SAFETY: `inner` and the counters behind it are valid for as long as the local.
        unsafe { &*(*self.inner).counters }
    }

    /// The heap.
    #[must_use]
    pub const fn heap(&self) -> &'h Heap<C> {
        self.heap
    }

    /// The most bytes of slabs that a local keeps from becoming empty, for each epoch that it serves:
    /// each entry of each magazine and each word of each stash may be the last one that is held of
    /// its slab; objects with handles and others have their own. Reached only if every class is used, in the worst
    /// order; a local that uses one class of 128 bytes holds on to 776 KiB at most, one of a class above 8 KiB to 400, and one that has used a class
    /// of up to 2 KiB only a few times, in this epoch and in those that it had the same epoch cache for, to a quarter of that class's share. Where there are bump blocks, those of an epoch whose objects are all dead, until the local
    /// takes or leaves them, and spare ones.
    #[must_use]
    pub fn holding_bound() -> usize {
        let classes = (0..Table::<C>::LISTED).map(|class| Table::<C>::TABLE.class(class));
        let slabs: usize = classes
            .map(|c| (usize::from(c.magazine) + usize::from(c.stash) + 1) * c.slab_bytes())
            .sum();
        let blocks = if Table::<C>::BUMPS {
            bump::MOST_HELD
        } else {
            0
        };
        slabs + blocks
    }

    /// The epoch cache that is near at hand and may be that of this depot.
    #[inline]
    fn near(&self, id: u16) -> &EpochCache<'h, C::Lock> {
        // SAFETY: `inner` is valid and this local's alone.
        unsafe { &(&(*self.inner).near)[usize::from(id) % NEAR] }
    }

    #[inline]
    fn cell(&self, cache: EpochCache<'h, C::Lock>, class: usize) -> &Cell {
        debug_assert!(class < Table::<C>::LISTED && cache.id != NO_DEPOT);
        // SAFETY: an epoch cache has a cell for each class of the table, for as long as the local has the epoch cache.
        unsafe { &*cache.cells.add(class) }
    }
}

impl<C: Config> fmt::Debug for Local<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}
