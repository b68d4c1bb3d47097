//! What happens to memory that became empty.
//!
//! Empty memory is in one of two places: whole slabs in their class list's cache, ready for the same epoch
//! and class, and warm pages, ready for anything. The policy bounds the sum; what exceeds it goes
//! back to the provider in runs as long as they come. Beside these, except under [`Policy::EAGER`], one
//! slab of each epoch and class that the shared path uses may be empty and stay open for its next take;
//! it is not counted as reclaimable, and [`Heap::reclaim`] takes it too.

use super::{Heap, Policy};
use crate::class::BLOCK;
use crate::config::{Config, Table};
use crate::depot::{After, ClassList, EpochDepot, Keep};
use crate::error::AllocError;
use crate::pages::{Geometry, Short};
use crate::provider::PageProvider;
use crate::sync::{AtomicUsize, Ordering};

/// Beside what the heap holds, the share of it that may be empty slabs of one depot when that depot asks for fresh memory.
const SPARE: usize = 16;

/// The most that goes back at once under [`Policy::keeping`]: about a tenth of a millisecond's work.
const BATCH: usize = 2 << 20;

/// How many slabs were looked at, how many of them were moved to the pages, and the bytes of these.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Swept {
    pub(super) scanned: u64,
    pub(super) moved: u64,
    pub(super) bytes: u64,
}

impl Swept {
    const fn moved(&mut self, bytes: usize) {
        self.scanned += 1;
        self.moved += 1;
        self.bytes += bytes as u64;
    }
}

impl<C: Config> Heap<C> {
    /// What happens to memory that becomes empty.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::decode(self.policy.load(Ordering::Relaxed))
    }

    /// The same heap with a policy, for one that is a constant.
    #[must_use]
    pub const fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = AtomicUsize::new(policy.encode());
        self
    }

    /// Changes what happens to memory that becomes empty, and applies it to what is empty now.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(policy.encode(), Ordering::Relaxed);
        self.trim_at.store(0, Ordering::Relaxed);
        if policy.keeps_nothing() {
            self.sweep();
            self.empty_caches(0);
        }
        self.settle();
    }

    /// Gives everything that is empty back to the provider now, from any thread. What locals hold
    /// stays, up to their bound; they give it up when they are flushed.
    pub fn reclaim(&self) {
        self.trim_at.store(0, Ordering::Relaxed);
        self.sweep();
        self.empty_caches(0);
        self.pages.release_empty_chunks();
        if self.pages.can_decommit() {
            self.pages.cool(0);
        }
    }

    /// Gives what is empty back to the provider until at most `keep` bytes of it are left, and whole chunks of
    /// which nothing is left, from any thread: [`Heap::reclaim`] with a remainder.
    pub fn reclaim_to(&self, keep: usize) {
        self.trim_at.store(0, Ordering::Relaxed);
        self.cool_all_but(keep);
        if self.reclaimable() > keep {
            self.empty_caches(keep);
            self.cool_all_but(keep);
        }
        self.pages.release_cold_chunks();
    }

    /// Takes memory for `bytes` more of objects from the provider now and, where it can, has their pages
    /// made present, for programs that want no fault and no call to the provider later. From then on it is
    /// empty memory like any other: under [`Policy::NEVER`] and [`Policy::ON_CLOSE`] it stays, under
    /// the others as much as these keep.
    ///
    /// # Errors
    /// If there is not so much memory, or the limit does not allow it: what was got by then is kept. If no layout can have so
    /// many bytes, nothing is got.
    pub fn reserve(&self, bytes: usize) -> Result<(), AllocError> {
        // A number that went below zero would else take all the memory that the machine has.
        if bytes > isize::MAX as usize {
            return Err(AllocError::TooLarge);
        }
        for _ in 0..bytes.div_ceil(Geometry::<C::Provider>::CHUNK) {
            self.pages.reserve_chunk()?;
        }
        Ok(())
    }

    /// Runs `f`; if it finds no memory, gives back what is empty, and runs it again if anything came
    /// back since, by this context or another.
    pub(crate) fn with_reclaim<T>(
        &self,
        f: impl Fn() -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        let before = self.pages.returned();
        match f() {
            Err(short @ (AllocError::OutOfMemory | AllocError::Limit)) => {
                self.reclaim();
                let changed = self.pages.returned() != before;
                if changed { f() } else { Err(short) }
            }
            done => done,
        }
    }

    /// Decides, under the lock of a class list, whether an emptied slab of so many bytes stays in its cache.
    pub(super) fn keep(&self, bytes: usize) -> Keep {
        if self.budget.put(bytes, self.cache_bound(self.policy())) {
            Keep::Cached
        } else {
            Keep::Recycle
        }
    }

    /// Whether an empty bump block of so many bytes waits in the pool.
    pub(super) fn keeps_block(&self, bytes: usize) -> bool {
        self.keeps_blocks() && self.budget.put(bytes, self.cache_bound(self.policy()))
    }

    /// Whether empty bump blocks wait at all: they are for the next epoch of any local.
    pub(crate) fn keeps_blocks(&self) -> bool {
        let policy = self.policy();
        !policy.returns_on_close() && !policy.keeps_nothing()
    }

    /// Whether an empty slab may stay as it is where the shared path looks first.
    pub(crate) fn may_linger(&self) -> bool {
        !self.policy().keeps_nothing()
    }

    /// Notes that slabs of so many bytes left a cache.
    pub(crate) fn uncached(&self, bytes: usize) {
        self.budget.take(bytes);
    }

    /// Returns the low-water mark of the reclaimable bytes since the last call, and resets it. For one caller, such as a thread
    /// that gives back what stays empty.
    pub fn take_idle_bytes(&self) -> usize {
        self.pages.least_warm() + self.budget.least()
    }

    /// Applies the policy after so many bytes of an epoch became empty: those of a closed epoch go back
    /// at once.
    pub(super) fn settle_depot(&self, is_closed: bool, bytes: usize) {
        if is_closed && self.policy().returns_on_close() {
            self.pages.cool(self.pages.warm().saturating_sub(bytes));
        } else {
            self.settle();
        }
    }

    /// Applies the policy after memory became empty. How many bytes went back.
    pub(super) fn settle(&self) -> u64 {
        let policy = self.policy();
        let Some(bytes) = policy.kept(self.in_use()) else {
            return if policy.keeps_nothing() {
                self.pages.cool(0)
            } else {
                0
            };
        };
        let (empty, at) = (self.reclaimable(), self.trim_at.load(Ordering::Relaxed));
        if empty > at.max(bytes) {
            return self.trim(bytes);
        }
        if empty + 2 * BATCH < at {
            // A mark that a failure raised comes down with what is empty.
            self.trim_at.store(empty + BATCH, Ordering::Relaxed);
        }
        0
    }

    /// Bytes of slabs that class lists may keep now: what the policy keeps, less what is warm in the pages.
    fn cache_bound(&self, policy: Policy) -> usize {
        let bound = policy.cache_bound(self.in_use());
        bound.saturating_sub(if bound == usize::MAX {
            0
        } else {
            self.pages.warm()
        })
    }

    /// Bytes in memory that are not reclaimable, as of a moment ago.
    fn in_use(&self) -> usize {
        self.pages.resident().saturating_sub(self.reclaimable())
    }

    /// Gives a batch of what is empty back. What could not be given back raises the mark for the next
    /// try, so that a provider that takes nothing back is not asked at every free.
    #[cold]
    fn trim(&self, bytes: usize) -> u64 {
        let batch = BATCH.min(bytes / 2);
        let keep = bytes - batch;
        // Where caches hold the most of it they give up a share, too. Else a program whose objects are slabs at first and then extents
        // would be left with as little for these as the slabs leave, at each free.
        let cached = self.budget.bytes();
        if cached > keep / 2 {
            self.empty_caches(cached - batch.min(cached));
        }
        let mut returned = self.cool_all_but(keep);
        if self.reclaimable() > keep {
            self.empty_caches(keep / 2);
            returned += self.cool_all_but(keep);
        }
        let left = self.reclaimable();
        let at = if left > keep { left + batch } else { 0 };
        self.trim_at.store(at, Ordering::Relaxed);
        returned
    }

    /// Decommits pages until at most `keep` bytes, with the caches', are empty. How many went back.
    fn cool_all_but(&self, keep: usize) -> u64 {
        self.pages.cool(keep.saturating_sub(self.budget.bytes()))
    }

    /// Before the heap grows, it uses what it has: moves empty slabs to the pages, as much as a chunk if all caches
    /// hold that much and a chunk is wanted, and as much as a block if the depot's do and a block is. Whether it did.
    ///
    /// To have a block made present takes about as long as to move as much; so the more blocks a depot has opened, the
    /// fewer empty slabs it may keep beside them.
    pub(super) fn make_room(&self, depot: &EpochDepot<C::Lock>, short: Short) -> bool {
        if short == Short::Chunk {
            let cached = self.budget.bytes();
            return cached >= <C::Provider>::CHUNK_SIZE
                && self.empty_caches(cached - <C::Provider>::CHUNK_SIZE);
        }
        let bytes_of = |(class, class_list): &(usize, &ClassList<C::Lock>)| {
            class_list.cached() * Table::<C>::TABLE.class(*class).slab_bytes()
        };
        let cached: usize = depot.used_class_lists().map(|used| bytes_of(&used)).sum();
        let most = (self.pages.taken() / SPARE).max(BLOCK);
        let fullest = depot.used_class_lists().max_by_key(bytes_of);
        let (Some((class, class_list)), true) = (fullest, cached > most) else {
            return false;
        };
        let bytes = Table::<C>::TABLE.class(class).slab_bytes();
        let mut moved = 0;
        while moved < BLOCK {
            let Some(slab) = class_list.uncache() else {
                break;
            };
            self.uncached(bytes);
            self.return_run(After::Recycle(slab));
            moved += bytes;
        }
        moved > 0
    }

    /// Bytes in memory that are empty, as of a moment ago.
    fn reclaimable(&self) -> usize {
        self.pages.warm() + self.budget.bytes()
    }

    /// Moves every whole slab that lingers in a list to the pages.
    fn sweep(&self) {
        self.depots().for_each(|depot| {
            self.sweep_depot(depot);
        });
    }

    /// Moves the slabs that linger in a depot to the pages.
    fn sweep_depot(&self, depot: &EpochDepot<C::Lock>) -> Swept {
        let mut swept = Swept::default();
        // A slab that lingers was listed before its class list was closed, or is so now.
        for (class, class_list) in depot
            .used_class_lists()
            .filter(|(_, class_list)| class_list.listed() > 0)
        {
            let mut seen = 0;
            let shape = Table::<C>::TABLE.class(class);
            while let Some(after) = class_list.sweep(shape, &mut seen) {
                self.return_run(after);
                swept.moved(shape.slab_bytes());
            }
            // In the last pass: those that stay.
            swept.scanned += seen;
        }
        swept
    }

    /// Moves all of a depot's empty slabs to the pages.
    pub(super) fn empty_depot(&self, depot: &EpochDepot<C::Lock>) -> Swept {
        let mut swept = self.sweep_depot(depot);
        for (class, class_list) in depot
            .used_class_lists()
            .filter(|(_, class_list)| class_list.cached() > 0)
        {
            let bytes = Table::<C>::TABLE.class(class).slab_bytes();
            while let Some(slab) = class_list.uncache() {
                self.uncached(bytes);
                self.return_run(After::Recycle(slab));
                swept.moved(bytes);
            }
        }
        swept
    }

    /// Moves cached slabs, and bump blocks that wait, to the pages until caches hold at most `keep` bytes; whether there were any.
    fn empty_caches(&self, keep: usize) -> bool {
        let mut moved = self.empty_pool(keep);
        for depot in self.depots() {
            for (class, class_list) in depot.used_class_lists() {
                let bytes = Table::<C>::TABLE.class(class).slab_bytes();
                while self.budget.bytes() > keep {
                    let Some(slab) = class_list.uncache() else {
                        break;
                    };
                    self.uncached(bytes);
                    self.return_run(After::Recycle(slab));
                    moved = true;
                }
            }
        }
        moved
    }
}
