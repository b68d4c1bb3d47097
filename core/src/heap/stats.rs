//! Snapshots: what the heap's counts and lists say together.
//!
//! Reading takes each lock for a short time: a list of slabs is counted [`STEP`] at a time. The list of locals is
//! gone through under its lock, which is taken where a local begins, ends, or comes to serve an epoch.

use super::Heap;
use crate::cache::{CacheState, LocalCounters};
use crate::class::MAX_CLASSES;
use crate::config::{Config, Table};
use crate::depot::{ClassListCounts, EpochDepot, Stock};
use crate::epoch::{Books, Epoch, EpochError, Label, Position};
use crate::provider::PageProvider;
use crate::snapshot::{
    BlockStats, ClassStats, EpochStats, HandleIds, HeapStats, HeldInClosed, LastClose, LocalsStats,
    LockStats, Locks, PageStats, Residency, SharedPathStats, SizeCounts, SlabStats, SlowPathStats,
    VERSION,
};
use crate::sync::{LockCounts, Ordering::Relaxed};
use core::alloc::Layout;
use core::sync::atomic::AtomicU64;

/// Slabs of a list that are looked at while its lock is held.
const STEP: usize = 256;

impl<C: Config> Heap<C> {
    /// A snapshot of the heap. Takes time with the epochs times the classes, the slabs that have free slots, and
    /// the locals times the epochs that they serve.
    #[must_use]
    pub fn stats(&self) -> HeapStats {
        let (mut slabs, mut slow) = (SlabStats::default(), SlowPathStats::default());
        let (mut shared, mut class_lists) = (SharedPathStats::default(), LockStats::default());
        let mut residency = Residency::default();
        let mut overflowed_bytes = 0u64;
        for class in 0..self.class_count() {
            let Some(class) = self.class_stats(class) else {
                continue;
            };
            slabs.add(&class.slabs);
            slow.add(&class.slow);
            shared.add(&class.shared);
            class_lists.add(&class.lock);
            Self::place(&mut residency, &class);
            let overflowed = class
                .slabs
                .overflowed
                .saturating_mul(class.slab_bytes as u64);
            overflowed_bytes = overflowed_bytes.saturating_add(overflowed);
        }
        let errors = self.counters.error_stats();
        let large = self.counters.large_stats();
        // Before those that are open or about to be are counted, so that nothing counts as a close that was none.
        let opened = self.openings.last_era();
        let taken = self.count_taken();
        let (open_epochs, closing_epochs) = self.count_epochs();
        let (blocks, ..) = self.block_stats(None);
        let pooled = self.pooled_bytes();
        residency.live = residency
            .live
            .saturating_add(large.bytes() + blocks.live_bytes);
        residency.pinned = residency.pinned.saturating_add(blocks.pinned_bytes);
        residency.cached = residency.cached.saturating_add(pooled);
        let idle = blocks.bytes - blocks.live_bytes - blocks.pinned_bytes;
        residency.held = residency.held.saturating_add(idle.saturating_sub(pooled));
        let live_bytes = residency.live;
        let pages = self.page_stats();
        let bytes = self.pages.bytes();
        residency.warm = bytes.warm as u64;
        residency.metadata = bytes.meta as u64;
        residency.scoped = self.counters.scoped_bytes();
        let placed: u64 = residency.parts().iter().map(|(_, bytes)| bytes).sum();
        residency.fragments = pages.resident.saturating_sub(placed);
        let (given, ids) = self.handle_ids();
        HeapStats {
            version: VERSION,
            ring: Table::<C>::EPOCHS as u64,
            open_epochs,
            closing_epochs,
            locals: self.locals_stats(),
            residency,
            pages,
            slabs,
            live_bytes,
            overflowed_bytes,
            slow,
            shared,
            locks: Locks {
                lists: class_lists,
                pages: lock_stats(self.pages.lock_counts()),
                ring: lock_stats(self.books.counts()),
                locals: lock_stats(self.locals.counts()),
            },
            large,
            blocks,
            closes: self
                .counters
                .close_stats(opened.saturating_sub(taken + u64::from(self.mixed.is_there()))),
            errors,
            handle_ids: HandleIds {
                given: given.into(),
                total: ids.into(),
            },
        }
    }

    /// What the heap has from its provider, and what it asked of it. O(1).
    #[must_use]
    pub fn page_stats(&self) -> PageStats {
        self.pages.stats()
    }

    /// How many classes there are to ask for: first those of plain objects, then those of objects with
    /// handles.
    #[must_use]
    pub const fn class_count(&self) -> usize {
        Table::<C>::LISTED
    }

    /// The index of the class that serves a layout, if one does.
    #[must_use]
    pub fn class_of(&self, layout: Layout) -> Option<usize> {
        Table::<C>::TABLE.index_for(layout)
    }

    /// A snapshot of a class. `None` if there is none of this index. Takes time with the epochs, the class's
    /// slabs that have free slots, and the locals.
    #[must_use]
    pub fn class_stats(&self, index: usize) -> Option<ClassStats> {
        if index >= Table::<C>::LISTED {
            return None;
        }
        let shape = Table::<C>::TABLE.class(index);
        let mut counts = ClassListCounts::default();
        let mut spread = 0;
        // Under the ring's lock, so that no era ends meanwhile and is found both here and there.
        self.books.with(|_| {
            if let Some(counters) = self.counters.class::<C>(index) {
                // SAFETY: the ring's lock is held.
                counts.add(unsafe { &*counters.before.get() });
            }
            for depot in self.depots() {
                let (class_list, is_spread) = depot.class_list(index).counts();
                counts.add(&class_list);
                spread += u64::from(is_spread);
            }
        });
        let mut stock = Stock::default();
        for depot in self.depots() {
            stock.add(&depot.class_list(index).stock(shape, STEP));
        }
        let mut slow = slow_stats(&counts);
        let mut held = 0;
        self.locals.with(|list| {
            list.for_each(|state| {
                // SAFETY: states in the list are valid while its lock is held, and the class is one.
                unsafe {
                    held += CacheState::held_of(state, Table::<C>::LISTED, index) as u64;
                    if let Some(counters) = CacheState::home_counters(state) {
                        let own = LocalCounters::class(counters, Table::<C>::LISTED, index);
                        add_own(&mut slow, &own.from_stash, &own.spills);
                    }
                }
            });
            // Under the lock, for locals that go pass their counts on under it.
            if let Some(counters) = self.counters.class::<C>(index) {
                add_own(&mut slow, &counters.from_stash, &counters.spills);
                slow.no_word = counters.no_word.load(Relaxed);
                counters.refused.add_to(&mut slow);
            }
        });
        Some(ClassStats {
            version: VERSION,
            index,
            size: shape.size(),
            has_handles: shape.is_tagged,
            slots_per_slab: shape.slots(),
            slab_bytes: shape.slab_bytes(),
            slabs: slab_stats(&counts, &stock, shape.slots(), held),
            slow,
            shared: shared_stats(&counts, spread),
            lock: lock_stats(counts.lock),
        })
    }

    /// A snapshot of an epoch, in the era that the token names. Takes time with the classes, the epoch's slabs
    /// that have free slots, and the locals times the epochs that they serve.
    ///
    /// # Errors
    /// If the epoch is over and its position was used again.
    pub fn epoch_stats(&self, epoch: Epoch) -> Result<EpochStats, EpochError> {
        let positions = self.positions()?;
        let now = self.pages.provider().now_ns();
        let mut stats = self.books.with(|books| {
            let current = books.current(|index| positions.get(index));
            let younger = self.openings.last_era().saturating_sub(epoch.era());
            let (position, record) = books.of(positions.get(epoch.index()), epoch)?;
            let opened_at_ns = position.opened_at(epoch.era_id());
            let ages = now.zip(opened_at_ns);
            Ok(EpochStats {
                version: VERSION,
                epoch,
                state: Books::state(position, epoch),
                is_current: current == Some(epoch),
                label: record.label,
                opened_at_ns,
                age_ns: ages.map(|(now, opened)| now.saturating_sub(opened)),
                domains: record.domains,
                younger,
                bytes: 0,
                live_bytes: 0,
                large_objects: 0,
                large_bytes: 0,
                slabs: SlabStats::default(),
                pinned_slots: 0,
                pinned_bytes: 0,
                slow: SlowPathStats::default(),
                shared: SharedPathStats::default(),
                lock: LockStats::default(),
                last_close: record
                    .last_close
                    .map(|(resident_before, resident_after)| LastClose {
                        resident_before,
                        resident_after,
                    }),
                blocks: BlockStats::default(),
                mixed_objects: 0,
                mixed_bytes: 0,
                sizes: SizeCounts::default(),
            })
        })?;
        let pins = positions.get(epoch.index()).map(Position::pins);
        let pinning;
        (stats.blocks, stats.sizes, pinning) = self.block_stats(Some(epoch));
        if let Some(pins) = pins {
            // What counts in its record and is no block.
            stats.mixed_objects = u64::from(pins.count()).saturating_sub(pinning);
            stats.mixed_bytes = pins.object_bytes();
            stats.sizes.count(stats.mixed_objects, stats.mixed_bytes);
        }
        stats.bytes = stats.blocks.bytes + stats.mixed_bytes;
        stats.live_bytes = stats.blocks.live_bytes + stats.mixed_bytes;
        stats.pinned_bytes = stats.blocks.pinned_bytes;
        let depot = positions.get(epoch.index()).and_then(|at| at.depot());
        if let Some(depot) =
            depot.filter(|depot| depot.tag() == epoch.tag() || depot.tag() == epoch.tag().closed())
        {
            self.fill_epoch(&mut stats, depot);
        }
        // Its figures, unless it ended meanwhile.
        self.books
            .with(|books| books.of(positions.get(epoch.index()), epoch).map(|_| ()))?;
        Ok(stats)
    }

    /// The epoch at a position of the ring, if it is open, or closed and something of it is left; not the one that mixed slabs
    /// are of. Positions
    /// are counted from 0, the root epoch's, to below [`Heap::epoch_records`].
    #[must_use]
    pub fn epoch_at(&self, index: usize) -> Option<Epoch> {
        // A heap that was not used has no epochs, and is not to get its first for being asked.
        let position = self.positions.get(index)?;
        if self.mixed.is_epoch(index) {
            return None;
        }
        let (era, is_open) = position.newest();
        let epoch = Epoch::from_parts(index as u32, era)?;
        let is_there = is_open
            || position.pins().count() > 0
            || position
                .depot()
                .is_some_and(|depot| depot.bytes() > 0 && depot.tag() == epoch.tag().closed());
        is_there.then_some(epoch)
    }

    /// Positions that epochs have, or had: [`Heap::epoch_at`] finds those that are there below this.
    #[must_use]
    pub fn epoch_records(&self) -> usize {
        self.positions.len().max(Table::<C>::RING)
    }

    /// What an epoch was called.
    ///
    /// # Errors
    /// As for [`Heap::epoch_stats`].
    pub fn label(&self, epoch: Epoch) -> Result<Label, EpochError> {
        let positions = self.positions()?;
        self.books
            .with(|books| Ok(books.of(positions.get(epoch.index()), epoch)?.1.label))
    }

    /// Bytes that an epoch holds: of its slabs, of its large objects and, which takes time with all bump blocks, of those.
    ///
    /// # Errors
    /// As for [`Heap::epoch_stats`].
    pub fn epoch_bytes(&self, epoch: Epoch) -> Result<u64, EpochError> {
        let positions = self.positions()?;
        let (depot, mixed) = self.books.with(|books| {
            let (position, _) = books.of(positions.get(epoch.index()), epoch)?;
            let depot = position.depot().map_or(0, EpochDepot::bytes) as u64;
            Ok((depot, position.pins().object_bytes()))
        })?;
        Ok(depot + mixed + self.block_stats(Some(epoch)).0.bytes)
    }

    /// Adds what an era's class lists and epoch caches say.
    fn fill_epoch(&self, stats: &mut EpochStats, depot: &EpochDepot<C::Lock>) {
        let held = self.held_in(depot);
        for (class, class_list) in depot.used_class_lists() {
            let shape = Table::<C>::TABLE.class(class);
            let ((counts, is_spread), stock) = (class_list.counts(), class_list.stock(shape, STEP));
            let slabs = slab_stats(&counts, &stock, shape.slots(), held[class]);
            let live = slabs.live_slots.saturating_mul(shape.size() as u64);
            stats.live_bytes = stats.live_bytes.saturating_add(live);
            stats.sizes.count(slabs.live_slots, live);
            let open = slabs.whole.saturating_mul(shape.slots() as u64);
            let pinned = slabs.free_slots.saturating_sub(open);
            let bytes = pinned.saturating_mul(shape.size() as u64);
            stats.pinned_slots = stats.pinned_slots.saturating_add(pinned);
            stats.pinned_bytes = stats.pinned_bytes.saturating_add(bytes);
            stats.slabs.add(&slabs);
            stats.slow.add(&slow_stats(&counts));
            stats
                .shared
                .add(&shared_stats(&counts, u64::from(is_spread)));
            stats.lock.add(&lock_stats(counts.lock));
        }
        let slow = &mut stats.slow;
        let tag = depot.tag();
        self.locals.with(|list| {
            list.for_each(|state| {
                // SAFETY: states in the list are valid while its lock is held.
                unsafe {
                    if (*state).depot == depot.id() && CacheState::is_of(state, tag) {
                        add_own(slow, &(*state).own.from_stash, &(*state).own.spills);
                    }
                }
            });
            add_own(slow, &depot.counters.from_stash, &depot.counters.spills);
        });
        slow.no_word = depot.counters.no_word.load(Relaxed);
        depot.counters.refused.add_to(slow);
        let (objects, bytes) = depot.large();
        (stats.large_objects, stats.large_bytes) = (objects as u64, bytes as u64);
        stats.sizes.count(stats.large_objects, stats.large_bytes);
        stats.live_bytes = stats.live_bytes.saturating_add(bytes as u64);
        stats.bytes = stats.bytes.saturating_add(depot.bytes() as u64);
    }

    /// Slots that locals hold in a depot, by class.
    fn held_in(&self, depot: &EpochDepot<C::Lock>) -> [u64; 2 * MAX_CLASSES] {
        let mut held = [0; 2 * MAX_CLASSES];
        self.locals.with(|list| {
            list.for_each(|state| {
                // SAFETY: states in the list are valid while its lock is held.
                if unsafe { (*state).depot } != depot.id() {
                    return;
                }
                for (class, held) in held.iter_mut().enumerate().take(Table::<C>::LISTED) {
                    // SAFETY: as above, and the class is one.
                    *held +=
                        unsafe { CacheState::held_of(state, Table::<C>::LISTED, class) } as u64;
                }
            });
        });
        held
    }

    fn locals_stats(&self) -> LocalsStats {
        let mut stats = LocalsStats::default();
        self.locals.with(|list| {
            list.for_each(|state| {
                // SAFETY: states in the list are valid while its lock is held; so are their depots, and their
                // locals' counters.
                let (held, is_home, is_open, number) = unsafe {
                    (
                        CacheState::held::<C>(state).1 as u64,
                        CacheState::home_counters(state).is_some(),
                        CacheState::serves::<C::Lock>(state).tag().is_open(),
                        (*CacheState::counters(state)).number(),
                    )
                };
                stats.locals += u64::from(is_home);
                stats.epoch_caches += 1;
                stats.held_bytes += held;
                if !is_open {
                    stats.closed_epoch_caches += 1;
                    stats.held_in_closed_bytes += held;
                    if held > stats.most_held_in_closed.bytes {
                        stats.most_held_in_closed = HeldInClosed {
                            local: number,
                            bytes: held,
                        };
                    }
                }
            });
        });
        stats
    }

    /// Positions that are open, or claimed to be opened.
    fn count_taken(&self) -> u64 {
        let positions = (0..self.positions.len()).filter_map(|index| self.positions.get(index));
        positions.filter(|position| position.is_taken()).count() as u64
    }

    fn count_epochs(&self) -> (u64, u64) {
        let (mut open, mut closing) = (0, 0);
        for epoch in (0..self.epoch_records()).filter_map(|index| self.epoch_at(index)) {
            match self.state(epoch) {
                Ok(crate::epoch::EpochState::Active) => open += 1,
                Ok(crate::epoch::EpochState::Closing) => closing += 1,
                Err(_) => {}
            }
        }
        (open, closing)
    }

    /// Says where a class's slabs are.
    fn place(residency: &mut Residency, class: &ClassStats) {
        let (slabs, size) = (&class.slabs, class.size as u64);
        let open_slots = slabs.whole.saturating_mul(class.slots_per_slab as u64);
        let in_use = slabs.slabs.saturating_sub(slabs.cached);
        let add = |part: &mut u64, bytes: u64| *part = part.saturating_add(bytes);
        add(&mut residency.live, class.live_bytes());
        add(&mut residency.held, slabs.held_slots.saturating_mul(size));
        add(&mut residency.open, open_slots.saturating_mul(size));
        let pinned = slabs.free_slots.saturating_sub(open_slots);
        add(&mut residency.pinned, pinned.saturating_mul(size));
        let cached = slabs.cached.saturating_mul(class.slab_bytes as u64);
        add(&mut residency.cached, cached);
        let tails = in_use
            .saturating_mul(class.slab_bytes as u64)
            .saturating_sub(slabs.slots.saturating_mul(size));
        add(&mut residency.tails, tails);
    }

    /// Opens the class lists of a depot that is to serve another era, and begins to count anew there: what was counted is kept
    /// by class. Under the ring's lock.
    pub(super) fn begin_class_lists(&self, depot: &EpochDepot<C::Lock>) {
        for (class, class_list) in depot.used_class_lists() {
            let counts = class_list.begin_era();
            if let Some(counters) = self.counters.class::<C>(class) {
                // SAFETY: the ring's lock is held.
                unsafe { (*counters.before.get()).add(&counts) };
            }
        }
        depot.counters.forget();
    }
}

fn lock_stats(counts: LockCounts) -> LockStats {
    LockStats {
        taken: counts.taken,
        contended: counts.contended,
    }
}

fn shared_stats(counts: &ClassListCounts, spread: u64) -> SharedPathStats {
    SharedPathStats {
        takes: counts.spread.takes,
        retries: counts.spread.retries,
        checks: counts.spread.checks,
        switches: counts.spread.switches,
        spread,
    }
}

fn slow_stats(counts: &ClassListCounts) -> SlowPathStats {
    SlowPathStats {
        depot_visits: counts.lists.visits,
        from_cache: counts.lists.from_cache,
        new_slabs: counts.made,
        words_taken: counts.lists.taken,
        words_given: counts.given,
        ..SlowPathStats::default()
    }
}

fn add_own(slow: &mut SlowPathStats, from_stash: &AtomicU64, spills: &AtomicU64) {
    slow.from_stash = slow.from_stash.saturating_add(from_stash.load(Relaxed));
    slow.spills = slow.spills.saturating_add(spills.load(Relaxed));
}

fn slab_stats(counts: &ClassListCounts, stock: &Stock, slots: usize, held: u64) -> SlabStats {
    let free = stock.free_slots as u64;
    let slabs = counts.slabs();
    let slots = slabs
        .saturating_sub(stock.cached as u64)
        .saturating_mul(slots as u64)
        .saturating_sub(stock.retired as u64);
    SlabStats {
        slabs,
        listed: stock.listed as u64,
        whole: stock.whole as u64,
        cached: stock.cached as u64,
        slots,
        free_slots: free,
        held_slots: held,
        live_slots: slots.saturating_sub(free).saturating_sub(held),
        made: counts.made,
        recycled: counts.recycled,
        cached_so_far: counts.lists.cached,
        overflowed: counts.lists.overflowed,
        full_to_partial: counts.lists.listed,
        partial_to_full: counts.unlisted,
        is_cut: stock.is_cut,
    }
}
