//! Bump blocks: where they come from and go to, and what others than their owners free in them.
//!
//! Blocks are the root's pages, whatever epochs they serve. An empty one waits in the pool, under the cache budget, with its
//! place in the page map; its pages go back as those of a slab that waits.

use super::{Heap, ROOT_DEPOT};
use crate::block::{BumpBlock, Freed, Kind, Length};
use crate::config::{Config, Table};
use crate::epoch::{Epoch, Pin};
use crate::error::{AllocError, FreeError};
use crate::pages::{Entry, MetaShape, set_entries};
use crate::slab::Key;
use crate::snapshot::{BlockStats, SizeCounts};
use crate::sync::{AtomicPtr, AtomicUsize, Lock, Ordering};
use core::ptr::{self, NonNull};
use lock_api::RawMutex;

/// The bump blocks of a heap.
#[derive(Debug)]
pub(super) struct Blocks<R> {
    pool: Lock<R, Pool>,
    /// The block whose metadata was made last; the others follow it. `Release` when one is added, `Acquire` where they are gone
    /// through: who sees one sees its metadata.
    last_made: AtomicPtr<BumpBlock>,
    /// Bytes of blocks whose pages the next close is to give back. `Relaxed`: a count.
    due: AtomicUsize,
}

/// Empty blocks that nobody has: of each kind the first, which leads to the others, and how many.
#[derive(Debug)]
struct Pool([(*mut BumpBlock, usize); Kind::ALL.len()]);

impl Pool {
    fn push(&mut self, block: &BumpBlock) {
        let (first, count) = &mut self.0[block.kind() as usize];
        block.sibling.store(*first, Ordering::Relaxed);
        *first = ptr::from_ref(block).cast_mut();
        *count += 1;
    }

    fn pop<'b>(&mut self, kind: Kind) -> Option<&'b BumpBlock> {
        let (first, count) = &mut self.0[kind as usize];
        // SAFETY: blocks are valid as long as the heap.
        let block = unsafe { first.as_ref() }?;
        *first = block.sibling.load(Ordering::Relaxed);
        *count -= 1;
        Some(block)
    }
}

// SAFETY: the blocks are the heap's, and reached through the pool under its lock alone.
unsafe impl Send for Pool {}

impl<R: RawMutex> Blocks<R> {
    pub(super) const fn new() -> Self {
        Self {
            pool: Lock::new(Pool([(ptr::null_mut(), 0); Kind::ALL.len()])),
            last_made: AtomicPtr::new(ptr::null_mut()),
            due: AtomicUsize::new(0),
        }
    }

    /// The pool's lock, for as long as the caller says.
    pub(super) fn hold(&self) {
        self.pool.hold();
    }

    /// Ends [`Blocks::hold`].
    ///
    /// # Safety
    /// This context holds it, or is a copy of one that did.
    pub(super) unsafe fn let_go(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.pool.let_go() }
    }
}

/// The epoch that a block serves, or served.
pub(crate) fn epoch_of(block: &BumpBlock) -> Option<Epoch> {
    Epoch::from_parts(block.index(), block.era())
}

impl<C: Config> Heap<C> {
    /// The block that an address is in.
    #[inline(always)]
    pub(crate) fn block_at(&self, address: usize) -> Option<&BumpBlock> {
        if !Table::<C>::BUMPS {
            return None;
        }
        self.block_of(self.entry(address))
    }

    /// The block that an entry names.
    #[inline(always)]
    pub(crate) fn block_of(&self, entry: Entry) -> Option<&BumpBlock> {
        // SAFETY: such an entry names a block's metadata, which stays one until the heap is dropped.
        (Table::<C>::BUMPS && entry.is_bumped()).then(|| unsafe { BumpBlock::of(entry.slab_at()) })
    }

    /// Whether an address is in a bump block.
    pub(super) fn is_bumped(&self, object: NonNull<u8>) -> bool {
        self.block_at(object.addr().get()).is_some()
    }

    /// What a block's metadata needs.
    const fn block_meta(kind: Kind) -> MetaShape {
        const { assert!(Kind::ALL.len() == MetaShape::BLOCKS) };
        MetaShape::block(kind.layout(), kind as usize)
    }

    /// An empty block, which the caller has: from the pool, or new. Where there is no memory for one, what is empty goes back if the caller
    /// `reclaims`.
    pub(crate) fn take_block(&self, kind: Kind, reclaims: bool) -> Result<&BumpBlock, AllocError> {
        let pooled = self.blocks.pool.with(|pool| pool.pop(kind));
        if let Some(block) = pooled {
            self.budget.take(kind.bytes());
            return Ok(block);
        }
        let root = self.root()?;
        let granules = kind.granules() as u32;
        let take = || {
            let make_room = |short| self.make_room(root, short);
            let meta = Self::block_meta(kind);
            // SAFETY: the depot is one of this heap.
            unsafe {
                self.pages
                    .take_slab(root.blocks(), meta, granules, granules, || true, make_room)
            }
        };
        let (slab, run, _) = if reclaims {
            self.with_reclaim(take)?
        } else {
            take()?
        };
        let body = run.body(root, granules);
        // SAFETY: the metadata is of this kind, and it and its run were just taken.
        unsafe {
            let block = BumpBlock::of(slab);
            block.place(run.base.addr(), kind);
            slab.adopt(Key::new(ROOT_DEPOT, Key::BLOCK), body);
            let entry = Entry::of_slab(slab, Key::BLOCK, false);
            set_entries::<C::Provider>(run.chunk, run.base.addr(), granules as usize, entry);
            self.note_block(block);
            Ok(block)
        }
    }

    /// Notes a block's metadata where all are found.
    fn note_block(&self, block: &BumpBlock) {
        if block.note_known() {
            return;
        }
        let last_made = &self.blocks.last_made;
        let mut older = last_made.load(Ordering::Relaxed);
        loop {
            block.older.store(older, Ordering::Relaxed);
            let new = ptr::from_ref(block).cast_mut();
            match last_made.compare_exchange_weak(older, new, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => older = now,
            }
        }
    }

    /// Takes an empty block, which the caller has, back: it waits, or its pages go.
    pub(crate) fn put_block(&self, block: &BumpBlock) {
        let bytes = block.kind().bytes();
        if self.keeps_block(bytes) {
            self.blocks.pool.with(|pool| pool.push(block));
            return;
        }
        self.unmake_block(block);
        let policy = self.policy();
        if policy.returns_on_close() && !policy.keeps_nothing() {
            self.blocks.due.fetch_add(bytes, Ordering::Relaxed);
        }
        self.settle();
    }

    /// Gives the pages of blocks back that became empty since the last close, if the policy gives back on a close. How many bytes went
    /// back.
    pub(super) fn close_blocks(&self) -> u64 {
        if !self.policy().returns_on_close() {
            return 0;
        }
        match self.blocks.due.swap(0, Ordering::Relaxed) {
            0 => 0,
            due => self.pages.cool(self.pages.warm().saturating_sub(due)),
        }
    }

    /// Gives the pages of an empty block back that the caller has.
    fn unmake_block(&self, block: &BumpBlock) {
        let (slab, kind) = (block.slab(), block.kind());
        // SAFETY: nobody else has the block, so its body is stable and its run in nobody's use.
        unsafe {
            let body = slab.body();
            let (chunk, base) = (body.chunk.cast(), body.base.addr());
            set_entries::<C::Provider>(chunk, base, kind.granules(), Entry::NONE);
            slab.adopt(Key::new(ROOT_DEPOT, Key::NO_BLOCK), body);
            let is_reusable = slab.end_life();
            let meta = is_reusable.then_some((slab, Self::block_meta(kind)));
            let depot = body.depot_of::<C::Lock>();
            self.pages
                .put_slab(depot.blocks(), meta, chunk, base, kind.granules() as u32);
        }
    }

    /// Gives the pages of blocks that wait back until caches hold at most `keep` bytes; whether there were any.
    pub(super) fn empty_pool(&self, keep: usize) -> bool {
        let mut moved = false;
        for kind in Kind::ALL.into_iter().rev() {
            while self.budget.bytes() > keep {
                let block = self.blocks.pool.with(|pool| pool.pop(kind));
                let Some(block) = block else { break };
                self.budget.take(kind.bytes());
                self.unmake_block(block);
                moved = true;
            }
        }
        moved
    }

    /// Bytes of blocks that wait in the pool.
    pub(super) fn pooled_bytes(&self) -> u64 {
        let count = |pool: &mut Pool| {
            let kinds = Kind::ALL.into_iter().zip(pool.0);
            kinds
                .map(|(kind, (_, count))| (kind.bytes() * count) as u64)
                .sum()
        };
        self.blocks.pool.with(count)
    }

    /// A block that others emptied, or whose owner left it empty: it serves its epoch no more. The caller has it.
    pub(crate) fn end_block(&self, block: &BumpBlock) {
        if block.pins.load(Ordering::Relaxed)
            && let Some(position) = self.positions.get(block.index() as usize)
        {
            position.unpin(Pin::BLOCK);
            block.pins.store(false, Ordering::Relaxed);
        }
    }

    /// The block is to be left with what lives in it, while its epoch's record is pinned by another or by itself.
    pub(crate) fn pin_block(&self, block: &BumpBlock) {
        if !block.pins.load(Ordering::Relaxed)
            && let Some(position) = self.position_at(block.index() as usize)
        {
            position.pin_more(Pin::BLOCK);
            block.pins.store(true, Ordering::Relaxed);
        }
    }

    /// Frees an object in a block whose owner the caller is not. `length` is how long it should be, where that is known.
    ///
    /// # Safety
    /// As for [`Heap::free_unsized`].
    pub(crate) unsafe fn free_bumped(
        &self,
        block: &BumpBlock,
        object: NonNull<u8>,
        length: Option<Length>,
    ) -> Result<(), FreeError> {
        if block.free_other(object.addr().get(), length, C::CHECKED)? == Freed::Emptied {
            self.end_block(block);
            self.put_block(block);
        }
        Ok(())
    }

    /// Where blocks are, of an epoch or of all, what lives there by size, and how many of them count in records. At rest exact in objects.
    pub(crate) fn block_stats(&self, of: Option<Epoch>) -> (BlockStats, SizeCounts, u64) {
        let (mut stats, mut sizes, mut pinning) = (BlockStats::default(), SizeCounts::default(), 0);
        let mut at = self.blocks.last_made.load(Ordering::Acquire);
        // SAFETY: blocks are valid as long as the heap.
        while let Some(block) = unsafe { at.as_ref() } {
            at = block.older.load(Ordering::Relaxed);
            let is_of = of.is_none_or(|epoch| block.era() == epoch.era());
            if !block.is_block() || !is_of {
                continue;
            }
            pinning += u64::from(block.pins.load(Ordering::Relaxed));
            let (objects, bytes) = block.live(C::CHECKED);
            let all = block.kind().bytes() as u64;
            stats.blocks += 1;
            stats.bytes += all;
            stats.live_objects += objects;
            stats.live_bytes += bytes;
            if objects > 0 {
                stats.pinned_bytes += all.saturating_sub(bytes);
            }
            if C::CHECKED && objects > 0 {
                let lengths = block.lengths();
                lengths.for_each(|length| sizes.count(1, length.bytes() as u64));
            } else {
                sizes.count(objects, bytes);
            }
        }
        (stats, sizes, pinning)
    }
}
