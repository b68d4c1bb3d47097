//! Bump blocks of a local: where it lays the small objects of epochs that are young.
//!
//! ```text
//! Local::alloc_in ──> lay in the current block ──────────> done
//!        └─ lay_elsewhere ── another block of the epoch; one whose objects are dead; a spare; the pool; new pages
//!                   └────── the epoch is old, or the object large ──> slabs
//! Local::free_bumped ──> the local's own block: no atomic ─> done
//!        └────────────── another's: the shared count; the last one has the block
//! ```
//!
//! The blocks that a local owns are in a list of its own, until it leaves them: when their epoch was closed, and when it is
//! flushed or dropped.

use super::Local;
use crate::bump::{BumpBlock, Freed, Kind, MAX_ALIGN, MAX_SIZE};
use crate::config::{Config, Table};
use crate::depot::Row;
use crate::epoch::{Epoch, Position};
use crate::error::{AllocError, FreeError};
use crate::provider::PageProvider;
use crate::sync::Ordering::Relaxed;
use core::ptr::{self, NonNull};
use lock_api::RawMutex;

/// Empty blocks of a kind that a local keeps for its next epoch.
const MAX_SPARES: u8 = 16;

/// Blocks of an epoch from which on it is old if most of its objects are dead, and from which on it is old anyway.
const MANY: usize = 8;
const MOST: usize = 256;

/// Bytes of blocks that a local keeps at most though nothing lives in them, for each epoch: those of the epoch, and the spares.
pub(super) const MOST_HELD: usize =
    MOST * Kind::Large.bytes() + MAX_SPARES as usize * (Kind::Small.bytes() + Kind::Large.bytes());

/// The largest object for which a local begins with a small block.
const SMALL_OBJECT: usize = 1024;

/// A local's bump blocks. It alone changes them.
#[derive(Debug)]
pub(super) struct Bumps<R> {
    /// The era of the epoch in which the local laid last, or 0: most allocations name the same epoch as the one before.
    era: u64,
    position: *const Position<Row<R>>,
    block: *const BumpBlock,
    /// The era of an epoch that is old for the local, or 0: see [`Local::is_old`].
    old: u64,
    /// The blocks that it owns, of whatever epochs.
    owned: *mut BumpBlock,
    /// Empty ones, by kind, and how many.
    spares: [(*mut BumpBlock, u8); Kind::ALL.len()],
}

impl<R> Bumps<R> {
    pub(super) const NONE: Self = Self {
        era: 0,
        position: ptr::null(),
        block: ptr::null(),
        old: 0,
        owned: ptr::null_mut(),
        spares: [(ptr::null_mut(), 0); Kind::ALL.len()],
    };
}

impl<'h, P: PageProvider, R: RawMutex, C: Config> Local<'h, P, R, C> {
    #[expect(
        clippy::mut_from_ref,
        reason = "`inner` is this local's alone, and no two are used at a time"
    )]
    #[inline(always)]
    fn bumps(&self) -> &mut Bumps<R> {
        // SAFETY: `inner` is valid and this local's alone.
        unsafe { &mut (*self.inner).bumps }
    }

    /// Lays an object of a class in an epoch. `None` where slabs serve it.
    #[inline(always)]
    pub(super) fn lay_in(
        &mut self,
        epoch: Epoch,
        class: usize,
        align: usize,
    ) -> Result<Option<NonNull<u8>>, AllocError> {
        let size = Table::<C>::TABLE.class(class).size();
        let bumps = self.bumps();
        // SAFETY: where an era is noted the position and the block are valid, as long as the heap.
        unsafe {
            if bumps.era == epoch.era()
                && (*bumps.position).is_open_in(epoch.era_id())
                && let Some(at) = (*bumps.block).lay(size, align, C::CHECKED)
            {
                return Ok(Some(object_at(at)));
            }
        }
        if bumps.old == epoch.era() {
            return Ok(None);
        }
        self.lay_elsewhere(epoch, size, align)
    }

    #[cold]
    #[inline(never)]
    fn lay_elsewhere(
        &mut self,
        epoch: Epoch,
        size: usize,
        align: usize,
    ) -> Result<Option<NonNull<u8>>, AllocError> {
        if epoch.index() == 0 || size > MAX_SIZE || align > MAX_ALIGN {
            return Ok(None);
        }
        self.notice_closes();
        let position = self.heap.position(epoch);
        let position = position.filter(|position| position.is_open_in(epoch.era_id()));
        let position = position.ok_or_else(|| self.refused_closed(epoch))?;
        let mut blocks = 0;
        let mut at = self.bumps().owned;
        // SAFETY: owned blocks are valid.
        while let Some(block) = unsafe { at.as_ref() } {
            at = block.sibling.load(Relaxed);
            if block.era() != epoch.era() {
                continue;
            }
            if block.used() > 0 && block.is_dead() {
                block.start_over(C::CHECKED);
            }
            if let Some(object) = block.lay(size, align, C::CHECKED) {
                self.go_on_in(epoch, position, block);
                return Ok(Some(object_at(object)));
            }
            blocks += 1;
        }
        // Now and then: it takes a look at each of them.
        if blocks >= MANY && blocks.is_power_of_two() && self.is_old(epoch, blocks) {
            self.bumps().old = epoch.era();
            return Ok(None);
        }
        let kind = if blocks == 0 && size <= SMALL_OBJECT {
            Kind::Small
        } else {
            Kind::Large
        };
        let block = self.take_block(kind).inspect_err(|error| {
            self.count_refusal(*error);
            self.heap.refused(*error, None, None);
        })?;
        if blocks == 0 && !position.pin(epoch.era_id()) {
            self.put_spare(block);
            return Err(self.refused_closed(epoch));
        }
        block.pins.store(blocks == 0, Relaxed);
        block.begin(
            self.inner.cast(),
            epoch.index() as u32,
            epoch.era(),
            C::CHECKED,
        );
        let bumps = self.bumps();
        block.sibling.store(bumps.owned, Relaxed);
        bumps.owned = ptr::from_ref(block).cast_mut();
        self.go_on_in(epoch, position, block);
        Ok(block.lay(size, align, C::CHECKED).map(object_at))
    }

    #[cold]
    fn refused_closed(&self, epoch: Epoch) -> AllocError {
        let error = self.heap.refused_closed(epoch);
        self.count_refusal(error);
        error
    }

    /// Whether an epoch in which the local owns so many blocks goes on with slabs: what is left of its objects pins blocks that
    /// slabs would fill again, or it is so large that a few blocks more save it nothing.
    fn is_old(&self, epoch: Epoch, blocks: usize) -> bool {
        let (mut live, mut made) = (0, 0);
        let mut at = self.bumps().owned;
        // SAFETY: owned blocks are valid.
        while let Some(block) = unsafe { at.as_ref() } {
            at = block.sibling.load(Relaxed);
            if block.era() == epoch.era() {
                live += block.live().0;
                made += block.made();
            }
        }
        blocks >= MOST || live * 2 < made
    }

    fn go_on_in(&self, epoch: Epoch, position: &'h Position<Row<R>>, block: &BumpBlock) {
        let bumps = self.bumps();
        bumps.era = epoch.era();
        bumps.position = position;
        bumps.block = block;
    }

    fn take_block(&self, kind: Kind) -> Result<&'h BumpBlock, AllocError> {
        match self.take_spare(kind) {
            Some(block) => Ok(block),
            None => self.heap.take_block(kind),
        }
    }

    fn take_spare(&self, kind: Kind) -> Option<&'h BumpBlock> {
        let (first, count) = &mut self.bumps().spares[kind as usize];
        // SAFETY: spares are valid, as long as the heap.
        let block = unsafe { first.as_ref() }?;
        *first = block.sibling.load(Relaxed);
        *count -= 1;
        Some(block)
    }

    /// Keeps an empty block, which the local has, or gives it back.
    fn put_spare(&self, block: &'h BumpBlock) {
        let (first, count) = &mut self.bumps().spares[block.kind() as usize];
        if *count >= MAX_SPARES || !self.heap.keeps_blocks() {
            return self.heap.put_block(block);
        }
        block.sibling.store(*first, Relaxed);
        *first = ptr::from_ref(block).cast_mut();
        *count += 1;
    }

    /// Frees an object in a block. `size` says how long it should be, where that is known.
    ///
    /// # Safety
    /// As for [`Local::free_any`].
    #[inline]
    pub(super) unsafe fn free_bumped(
        &mut self,
        block: &'h BumpBlock,
        object: NonNull<u8>,
        size: impl FnOnce() -> Option<usize>,
    ) -> Result<(), FreeError> {
        let at = object.addr().get();
        if C::CHECKED {
            let checked = block.check(at, size());
            checked.map_err(|error| self.heap.refused_free(error))?;
        }
        if block.is_owned_by(self.inner.cast()) {
            if block.free_own(at, C::CHECKED) && block.used() * 2 > block.kind().bytes() {
                block.start_over(C::CHECKED);
            }
            return Ok(());
        }
        let freed = block.free_other(at, C::CHECKED);
        if freed.map_err(|error| self.heap.refused_free(error))? == Freed::Emptied {
            self.heap.end_block(block);
            self.put_spare(block);
        }
        Ok(())
    }

    /// Makes the object that was laid last in a block of this local longer or shorter where it is.
    pub(super) fn extend(
        &self,
        block: &BumpBlock,
        at: usize,
        size: usize,
        new: usize,
        align: usize,
    ) -> bool {
        block.is_owned_by(self.inner.cast())
            && at.is_multiple_of(align)
            && new <= MAX_SIZE
            && block.extend(at, size, new)
    }

    /// Leaves the blocks of epochs that are over for this local.
    pub(super) fn leave_blocks(&mut self, is_over: impl Fn(Epoch) -> bool) {
        // The block whose link leads to the next one, or none.
        let mut before: Option<&BumpBlock> = None;
        let mut at = self.bumps().owned;
        // SAFETY: owned blocks are valid, as long as the heap.
        while let Some(block) = unsafe { at.as_ref() } {
            at = block.sibling.load(Relaxed);
            if !epoch_of(block).is_none_or(&is_over) {
                before = Some(block);
                continue;
            }
            let bumps = self.bumps();
            match before {
                Some(before) => before.sibling.store(at, Relaxed),
                None => bumps.owned = at,
            }
            if ptr::eq(bumps.block, block) {
                (bumps.era, bumps.block) = (0, ptr::null());
            }
            // Before the one of its epoch that pins the record for all, which is the last in the list. Once it was left the block
            // may be somebody else's.
            if !block.is_empty() {
                self.heap.pin_block(block);
            }
            if block.leave() == Freed::Emptied {
                self.heap.end_block(block);
                self.put_spare(block);
            }
        }
    }

    /// Gives the spare blocks back.
    pub(super) fn give_spares(&self) {
        for kind in Kind::ALL {
            while let Some(block) = self.take_spare(kind) {
                self.heap.put_block(block);
            }
        }
    }

    /// The epochs of blocks that this local owns and that were closed.
    pub(super) fn leave_closed_blocks(&mut self) {
        if !self.bumps().owned.is_null() {
            let heap = self.heap;
            self.leave_blocks(|epoch| {
                heap.position(epoch)
                    .is_none_or(|position| !position.is_open_in(epoch.era_id()))
            });
        }
    }
}

/// The epoch that a block serves.
pub(super) fn epoch_of(block: &BumpBlock) -> Option<Epoch> {
    Epoch::from_parts(block.index(), block.era())
}

/// The object that was laid at an address.
#[inline(always)]
fn object_at(at: usize) -> NonNull<u8> {
    // SAFETY: no block is at null, and its chunk's provenance is exposed.
    unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(at)) }
}
