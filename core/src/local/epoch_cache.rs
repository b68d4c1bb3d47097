//! Epoch caches: what a local has in one depot, and how it finds, makes and gives them up.

use super::{Last, Local, NEAR};
use crate::cache::{CacheState, Cell, Entry, LocalCounters, OwnCounters, bump};
use crate::config::{Config, Table};
use crate::depot::EpochDepot;
use crate::epoch::{Epoch, Serves, Tag};
use crate::error::{AllocError, FreeError};
use crate::handle::FreeWord;
use crate::heap::Heap;
use crate::pages::{Kind, NO_DEPOT};
use crate::sync::Ordering;
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use lock_api::RawMutex;

/// A local's place in a depot: a copyable name for memory that the local owns.
#[derive(Debug)]
pub(super) struct EpochCache<'h, R> {
    /// The depot's number, or [`NO_DEPOT`].
    pub(super) id: u16,
    pub(super) cells: *mut Cell,
    pub(super) depot: &'h EpochDepot<R>,
    pub(super) state: *mut CacheState,
}

impl<R> Clone for EpochCache<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for EpochCache<'_, R> {}

impl<'h, R: RawMutex> EpochCache<'h, R> {
    /// No epoch cache. It has a depot only because a reference cannot be null.
    pub(super) const fn none(depot: &'h EpochDepot<R>) -> Self {
        Self {
            id: NO_DEPOT,
            cells: ptr::null_mut(),
            depot,
            state: ptr::null_mut(),
        }
    }

    /// A new epoch cache, known to the heap's registry.
    pub(super) fn make<C: Config<Lock = R>>(
        heap: &'h Heap<C>,
        depot: &'h EpochDepot<R>,
        local: *const LocalCounters,
    ) -> Result<Self, AllocError> {
        let classes = Table::<C>::LISTED;
        let (layout, cells_at) = CacheState::layout(classes).ok_or(AllocError::TooLarge)?;
        let memory = heap.with_reclaim(|| heap.pages.take_meta(Kind::CacheState, layout))?;
        let state: *mut CacheState = memory.as_ptr().cast();
        // SAFETY: the memory is of this layout and nobody else's; the state is valid until `unmake`.
        unsafe {
            state.write(CacheState {
                next: ptr::null_mut(),
                prev: ptr::null_mut(),
                depot: depot.id(),
                at: ptr::from_ref(depot).cast(),
                sibling: ptr::null_mut(),
                era: Serves::tag(depot.tag()),
                own: OwnCounters::default(),
                local,
            });
            let cells = state.byte_add(cells_at).cast::<Cell>();
            for class in 0..classes {
                let shape = Table::<C>::TABLE.class(class);
                cells.add(class).write(Cell::new(shape, C::CHECKED));
            }
            heap.locals.with(|list| list.insert(state));
            Ok(Self {
                id: depot.id(),
                cells,
                depot,
                state,
            })
        }
    }

    /// An epoch cache that is in no depot any more gets one.
    ///
    /// # Safety
    /// `state` is that of an empty epoch cache of this heap, not in its registry, and the caller's.
    unsafe fn again<C: Config<Lock = R>>(
        heap: &'h Heap<C>,
        depot: &'h EpochDepot<R>,
        state: *mut CacheState,
    ) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            (*state).depot = depot.id();
            (*state).at = ptr::from_ref(depot).cast();
            (*state).era.set(depot.tag());
            (*state).own.forget();
            heap.locals.with(|list| list.insert(state));
            Self::of::<C>(state)
        }
    }

    /// The epoch cache of a state.
    ///
    /// # Safety
    /// `state` is that of an epoch cache of a heap with this configuration.
    unsafe fn of<C: Config>(state: *mut CacheState) -> Self {
        let cells_at = CacheState::layout(Table::<C>::LISTED).map_or(0, |(_, at)| at);
        // SAFETY: the state is valid, its cells follow it, and depots are valid as long as the heap.
        unsafe {
            Self {
                id: (*state).depot,
                cells: state.byte_add(cells_at).cast(),
                depot: &*(*state).at.cast(),
                state,
            }
        }
    }
}

impl<'h, C: Config> Local<'h, C> {
    /// Allocates in an epoch that is not the one before, or where nothing is at hand.
    #[cold]
    #[inline(never)]
    pub(super) fn take_in_elsewhere(
        &mut self,
        epoch: Epoch,
        class: usize,
    ) -> Result<NonNull<u8>, AllocError> {
        let cache = self.cache_in(epoch)?;
        match self.pick(cache.cells, class) {
            Some(object) => Ok(object),
            None => self.refill(cache, epoch.tag(), class),
        }
    }

    /// As [`Self::take_in_elsewhere`], for a class with tags.
    #[cold]
    #[inline(never)]
    pub(super) fn take_word_in_elsewhere(
        &mut self,
        epoch: Epoch,
        class: usize,
    ) -> Result<FreeWord, AllocError> {
        let cache = self.cache_in(epoch)?;
        match self.pick_word(cache.cells, class) {
            Some(word) => Ok(word),
            None => self.refill_word(cache, epoch.tag(), class),
        }
    }

    /// The epoch cache in the depot of an epoch, which is at hand for the next allocation there.
    fn cache_in(&mut self, epoch: Epoch) -> Result<EpochCache<'h, C::Lock>, AllocError> {
        let depot = self.open_depot(epoch)?;
        let near = *self.near(depot.id());
        // What an epoch cache near at hand holds is of the era that its depot serves: see `pick`.
        let cache = if near.id == depot.id() {
            near
        } else {
            self.cache_of(depot, epoch.tag())?
        };
        if let Some(position) = self.heap.position(epoch) {
            // SAFETY: `inner` is valid and this local's alone.
            unsafe {
                (*self.inner).last = Last {
                    epoch: Some(epoch),
                    position,
                    cells: cache.cells,
                };
            }
        }
        Ok(cache)
    }

    /// The epoch cache in a depot that serves an era.
    pub(super) fn cache_of(
        &mut self,
        depot: &'h EpochDepot<C::Lock>,
        tag: Tag,
    ) -> Result<EpochCache<'h, C::Lock>, AllocError> {
        self.notice_closes();
        if depot.tag() != tag {
            return Err(self.closed(depot, None));
        }
        if depot.id() == self.home.id {
            Ok(self.home)
        } else {
            self.sit(depot).map_err(|error| {
                self.count_refusal(error);
                self.heap.refused(error, Some(depot), None)
            })
        }
    }

    /// Allocates what no class serves, in an epoch.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_large_in(
        &mut self,
        epoch: Epoch,
        layout: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        self.notice_closes();
        let depot = self.open_depot(epoch)?;
        let object = self.heap.alloc_large(depot, epoch.tag(), layout);
        object.map(|(object, _)| object)
    }

    /// Frees an object of a depot where this local has no epoch cache near at hand.
    ///
    /// # Safety
    /// As for [`Heap::free`], for a layout of this class.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn free_elsewhere(
        &mut self,
        object: NonNull<u8>,
        class: usize,
    ) -> Result<(), FreeError> {
        self.notice_closes();
        let address = object.addr().get();
        // SAFETY: a live object lies in a chunk of the heap and pins its slab; depots stay valid.
        let depot: &'h EpochDepot<C::Lock> = unsafe { (*self.slab_of(address)).body().depot_of() };
        // In a closed epoch a slot goes straight back, so that its slab can be reclaimed.
        if depot.tag().is_open()
            && let Ok(cache) = self.sit(depot)
        {
            let entry = self.entry_of(address, class);
            if !self.cell(cache, class).push(entry, C::CHECKED) {
                self.spill(cache, class, entry);
            }
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.heap.free_slot(object, class) }
    }

    /// Keeps a slot with a tag at hand whose depot has no epoch cache near at hand, or gives it back.
    #[cold]
    #[inline(never)]
    pub(super) fn put_slot_elsewhere(
        &mut self,
        depot: &'h EpochDepot<C::Lock>,
        class: usize,
        word: FreeWord,
    ) {
        self.notice_closes();
        if depot.tag().is_open()
            && let Ok(cache) = self.sit(depot)
        {
            let entry = Entry::unmarked(word.0);
            if !self.cell(cache, class).push(entry, C::CHECKED) {
                self.spill(cache, class, entry);
            }
            return;
        }
        self.put_back(word);
    }

    /// The epoch cache in a depot, made if there is none, and near at hand from now on.
    fn sit(
        &mut self,
        depot: &'h EpochDepot<C::Lock>,
    ) -> Result<EpochCache<'h, C::Lock>, AllocError> {
        // SAFETY: `inner` and the epoch caches in its list are valid, and this local's alone.
        let state = unsafe {
            let mut state = (*self.inner).caches;
            while !state.is_null() && (*state).depot != depot.id() {
                state = (*state).sibling;
            }
            state
        };
        let cache = if state.is_null() {
            // SAFETY: `inner` is this local's, and so is the spare epoch cache, which is empty.
            let cache = unsafe {
                let spare = core::mem::replace(&mut (*self.inner).spare, ptr::null_mut());
                if spare.is_null() {
                    EpochCache::make(self.heap, depot, ptr::from_ref(self.counters()))?
                } else {
                    EpochCache::again(self.heap, depot, spare)
                }
            };
            // SAFETY: the epoch cache was just made; `inner` is this local's.
            unsafe {
                (*cache.state).sibling = (*self.inner).caches;
                (*self.inner).caches = cache.state;
            }
            cache
        } else {
            // SAFETY: an epoch cache of this local.
            unsafe { EpochCache::of::<C>(state) }
        };
        self.set_near(depot.id(), cache);
        Ok(cache)
    }

    fn set_near(&mut self, id: u16, cache: EpochCache<'h, C::Lock>) {
        // SAFETY: `inner` is valid and this local's alone.
        unsafe { (&mut (*self.inner).near)[usize::from(id) % NEAR] = cache };
    }

    /// Gives up the epoch caches in epochs that were closed since the last look.
    pub(super) fn notice_closes(&mut self) {
        let closes = self.heap.closes();
        // SAFETY: `inner` is valid and this local's alone.
        let seen = unsafe { core::mem::replace(&mut (*self.inner).closes_seen, closes) };
        if closes != seen {
            self.leave_closed_blocks(closes);
            self.leave_caches(|depot| !depot.tag().is_open());
        }
    }

    /// Gives back all that this local holds in an epoch, and its epoch cache there. Call it before
    /// [`Heap::close`] where this local served the epoch: what it holds would keep slabs from being
    /// reclaimed until its next slow path.
    pub fn leave(&mut self, epoch: Epoch) {
        let tag = epoch.tag();
        self.leave_blocks_of(epoch);
        // SAFETY: `inner` is valid and this local's alone.
        if unsafe { !(*self.inner).caches.is_null() } {
            self.leave_caches(|depot| depot.tag() == tag || depot.tag() == tag.closed());
        }
    }

    /// Gives back all that this local holds. Slabs that become empty by it are reclaimed by policy.
    pub fn flush(&mut self) {
        self.leave_all_blocks();
        self.give_spares();
        self.leave_caches(|_| true);
        for class in 0..Table::<C>::LISTED {
            self.flush_class(self.home, class);
        }
    }

    #[cold]
    fn leave_caches(&mut self, is_over: impl Fn(&EpochDepot<C::Lock>) -> bool) {
        // SAFETY: `inner` and the epoch caches in its list are valid, and this local's alone.
        unsafe {
            let mut link: *mut *mut CacheState = &raw mut (*self.inner).caches;
            while !(*link).is_null() {
                let cache: EpochCache<'h, C::Lock> = EpochCache::of::<C>(*link);
                if is_over(cache.depot) {
                    *link = (*cache.state).sibling;
                    self.give_up(cache);
                } else {
                    link = &raw mut (*cache.state).sibling;
                }
            }
        }
    }

    /// Gives up what is held in an epoch cache, and the epoch cache, which is kept if there is no spare one.
    fn give_up(&mut self, cache: EpochCache<'h, C::Lock>) {
        self.vacate(cache);
        // SAFETY: `inner` is valid and this local's alone.
        let spare = unsafe { &mut (*self.inner).spare };
        if spare.is_null() {
            *spare = cache.state;
        } else {
            self.unmake(cache);
        }
    }

    /// Gives back all that is held in an epoch cache, which is in no depot then.
    fn vacate(&mut self, cache: EpochCache<'h, C::Lock>) {
        for class in 0..Table::<C>::LISTED {
            // A cell that was never used has no store, and one without a store holds nothing.
            if self.cell(cache, class).has_store() {
                self.flush_class(cache, class);
                self.cell(cache, class).visits.set(0);
            }
        }
        if self.near(cache.id).id == cache.id {
            self.set_near(cache.id, EpochCache::none(self.home.depot));
        }
        // SAFETY: `inner` is valid and this local's alone.
        unsafe {
            if (*self.inner).last.cells == cache.cells {
                (*self.inner).last = Last::NONE;
            }
        }
        // SAFETY: the epoch cache was in the registry since it got its depot.
        self.heap.locals.with(|list| unsafe {
            list.remove(cache.state);
            // Under the lock, so that who sums sees them here or there.
            self.pass_counts_on(cache);
        });
    }

    /// Gives the memory of an empty epoch cache back that is in no registry.
    fn unmake(&self, cache: EpochCache<'h, C::Lock>) {
        let pages = &self.heap.pages;
        for class in 0..Table::<C>::LISTED {
            let cell = self.cell(cache, class);
            let kind = if cell.is_full_size() {
                Kind::FullStore
            } else {
                Kind::SmallStore
            };
            if let Some(store) = NonNull::new(cell.take_store()) {
                // SAFETY: the store is empty, and it was of this kind.
                unsafe { pages.put_meta(kind, store) };
            }
        }
        // SAFETY: nobody has the epoch cache after this.
        unsafe { pages.put_meta(Kind::CacheState, NonNull::new_unchecked(cache.state.cast())) };
    }

    /// Adds what was done in an epoch cache that goes to what the depot and the classes keep.
    fn pass_counts_on(&self, cache: EpochCache<'h, C::Lock>) {
        let depot = cache.depot;
        // SAFETY: the epoch cache is this local's.
        let (own, is_of_depot, counters) = unsafe {
            let state = cache.state;
            (
                (*state).own.read(),
                CacheState::is_of(state, depot.tag()),
                CacheState::home_counters(state),
            )
        };
        let (from_stash, spills) = own;
        if is_of_depot {
            depot
                .counters
                .from_stash
                .fetch_add(from_stash, Ordering::Relaxed);
            depot.counters.spills.fetch_add(spills, Ordering::Relaxed);
        }
        let Some(counters) = counters else {
            return;
        };
        let classes = Table::<C>::LISTED;
        for class in 0..classes {
            // SAFETY: the counters are this local's.
            let (from_stash, spills) =
                unsafe { LocalCounters::class(counters, classes, class) }.read();
            self.heap.keep_local_counts(class, from_stash, spills);
        }
    }

    /// Calls `f` for each epoch cache of this local.
    pub(super) fn for_each_epoch_cache(&self, mut f: impl FnMut(*mut CacheState)) {
        f(self.home.state);
        // SAFETY: `inner` and the epoch caches in its list are valid, and this local's alone.
        unsafe {
            let mut state = (*self.inner).caches;
            while !state.is_null() {
                f(state);
                state = (*state).sibling;
            }
        }
    }

    /// Notes that an epoch was closed.
    #[cold]
    pub(super) fn closed(&self, depot: &EpochDepot<C::Lock>, class: Option<usize>) -> AllocError {
        bump(&self.counters().slow.epoch_closed);
        self.heap
            .refused(AllocError::EpochClosed, Some(depot), class)
    }
}

impl<C: Config> Drop for Local<'_, C> {
    fn drop(&mut self) {
        self.leave_all_blocks();
        self.give_spares();
        self.leave_caches(|_| true);
        // SAFETY: `inner` is valid and this local's alone; a spare epoch cache is one of this heap.
        unsafe {
            let spare = core::mem::replace(&mut (*self.inner).spare, ptr::null_mut());
            if !spare.is_null() {
                self.unmake(EpochCache::of::<C>(spare));
            }
        }
        self.vacate(self.home);
        self.unmake(self.home);
        // SAFETY: `inner` is of this kind, and nobody has it after this.
        unsafe {
            let inner = NonNull::new_unchecked(self.inner.cast());
            self.heap.pages.put_meta(Kind::Local, inner);
        }
    }
}
