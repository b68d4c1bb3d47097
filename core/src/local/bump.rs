//! Bump blocks of a local: where it lays the small objects of epochs that are young.
//!
//! ```text
//! Local::alloc_in ──> alloc_near: the block where it laid last ──> done
//!        └─ lay_elsewhere ── another block of the epoch; one whose objects are dead; a spare; the pool; new pages
//!                   └────── the epoch is old, or the object large ──> slabs
//! Local::free ──> free_near, else by the page map: a block of its own, without an atomic ──> done
//!        └─ free_bumped ──> free_others: the shared count; the last one has the block
//! ```
//!
//! The blocks that a local owns are in lists of its own (`Owned`), until it leaves them: when it finds that their epoch was closed, and
//! when it is flushed or dropped.

use super::Local;
use super::survivors::Survivors;
use crate::block::{BumpBlock, Freed, Kind, Length, MAX_ALIGN, MAX_SHORT, MAX_SIZE, UNIT};
use crate::cache::Owned;
use crate::config::{Config, Table};
use crate::depot::EpochDepot;
use crate::epoch::{Epoch, Pin, Position};
use crate::error::{AllocError, FreeError};
use crate::heap::epoch_of;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// Empty blocks that a local keeps for its next epoch, by kind.
const MAX_SPARES: [u8; Kind::ALL.len()] = [16, 16, 4];

/// Blocks of an epoch from which on it is old if most of its objects are dead, and from which on it is old anyway.
const MANY: usize = 4;
const MOST: usize = 64;

/// Bytes of blocks that a local keeps at most though nothing lives in them, for each epoch: those of the epoch, and the spares.
pub(super) const MOST_HELD: usize = {
    let [small, medium, large] = MAX_SPARES;
    (MOST + large as usize) * Kind::Large.bytes()
        + small as usize * Kind::Small.bytes()
        + medium as usize * Kind::Medium.bytes()
};

/// Blocks that a local looks at for each epoch that was closed, to find those that are over.
const LOOKS: usize = 8;

/// A local's bump blocks. It alone changes them.
#[derive(Debug)]
pub(super) struct Bumps<R> {
    near: Near,
    survivors: Survivors<R>,
    /// The era of an epoch that is old for the local, or 0: see [`Local::is_old`].
    old: u64,
    /// How many bytes the local is going to lay in an epoch, by what it laid in those before: see [`Bumps::note_laid`].
    expected: usize,
    owned: Owned,
    /// How many epochs had been closed when blocks of closed ones were last looked for, and how many blocks were left then.
    closes_seen: u64,
    left: usize,
    /// Empty ones, by kind, and how many.
    spares: [(*mut BumpBlock, u8); Kind::ALL.len()],
}

/// The block where the local laid last: most allocations name the same epoch as the one before, and most objects that are freed are of
/// this block.
#[derive(Debug)]
struct Near {
    /// Which era is open where the epoch's record is. Of the blocks that the local owns in the epoch the first pins the record, so it is
    /// the block's era or none.
    open: *const AtomicU64,
    index: usize,
    /// Objects of at most so many bytes are laid without a closer look: none where the local knows classes that survive. Asked for each object,
    /// in place of the length alone, it costs nothing; a look for classes would cost a tenth.
    limit: usize,
    block: *const BumpBlock,
    /// The addresses whose free is the local's count alone: those of the block, or none.
    base: usize,
    bytes: usize,
}

/// The word of a local that has laid nowhere: no era. `Relaxed`: a constant.
static NOWHERE: AtomicU64 = AtomicU64::new(0);

impl Near {
    const NONE: Self = Self {
        open: &raw const NOWHERE,
        index: 0,
        limit: 0,
        block: ptr::null(),
        base: 0,
        bytes: 0,
    };
}

impl<R> Bumps<R> {
    pub(super) const NONE: Self = Self {
        near: Near::NONE,
        survivors: Survivors::NONE,
        old: 0,
        expected: 0,
        owned: Owned::NONE,
        closes_seen: 0,
        left: 0,
        spares: [(ptr::null_mut(), 0); Kind::ALL.len()],
    };
}

impl<R> Bumps<R> {
    /// Notes how many bytes were laid in an epoch that the local leaves: at least as many are expected of the next, or as many as a block holds.
    #[inline]
    fn note_laid(&mut self, laid: usize) {
        self.expected = self.expected.max(laid.min(Kind::Large.bytes()));
    }

    /// Notes that the local begins an epoch: less is expected of the next, whether or not it ever leaves this one. So large blocks for
    /// epochs that turn out to be small are few.
    const fn note_begun(&mut self) {
        self.expected -= self.expected.div_ceil(4);
    }

    /// The kind of an epoch's next block, after so many bytes and the newest block, if there is one: by what is still to be expected, and
    /// where more came than that, a larger one each time.
    const fn next_kind(&self, laid: usize, newest: Option<Kind>) -> Kind {
        match newest {
            Some(newest) if laid >= self.expected => newest.larger(),
            _ => Kind::for_bytes(self.expected.saturating_sub(laid)),
        }
    }
}

impl<'h, C: Config> Local<'h, C> {
    #[expect(
        clippy::mut_from_ref,
        reason = "`inner` is this local's alone, and no two are used at a time"
    )]
    #[inline(always)]
    fn bumps(&self) -> &mut Bumps<C::Lock> {
        // SAFETY: `inner` is valid and this local's alone.
        unsafe { &mut (*self.inner).bumps }
    }

    pub(super) fn survivors(&self) -> &mut Survivors<C::Lock> {
        &mut self.bumps().survivors
    }

    /// Allocates in an epoch, if that takes no more than a few instructions: in the bump block where the local laid last. `None` says
    /// nothing of whether there is memory: [`Local::alloc_in`] does.
    #[inline(always)]
    pub fn alloc_near(&self, epoch: Epoch, layout: Layout) -> Option<NonNull<u8>> {
        let near = &self.bumps().near;
        if layout.align() > UNIT || near.index != epoch.index() {
            return None;
        }
        // SAFETY: it is of a position of the heap, or of none.
        let open = unsafe { (*near.open).load(Relaxed) };
        if open != epoch.era() {
            return None;
        }
        let block = near.block;
        let length = match Length::up_to(near.limit, layout.size()) {
            Some(length) => length,
            None => self.beside_survivors(layout)?,
        };
        // SAFETY: where it says an era, which a token has, there is a block, valid as long as the heap.
        unsafe { (*block).lay(length).map(object_at) }
    }

    /// How long an object is laid that may be one of those that outlive their epochs, if it is none.
    #[inline]
    fn beside_survivors(&self, layout: Layout) -> Option<Length> {
        let survivors = self.survivors();
        if !survivors.are_some() {
            return None;
        }
        let class = Table::<C>::TABLE.index_at_once(layout)?;
        let length = Length::up_to(Self::LIMIT, layout.size())?;
        (!survivors.has(class)).then_some(length)
    }

    /// What is laid without a closer look, at most.
    const LIMIT: usize = {
        let largest = Table::<C>::TABLE.largest as usize;
        if largest < MAX_SHORT {
            largest
        } else {
            MAX_SHORT
        }
    };

    #[cold]
    #[inline(never)]
    pub(super) fn lay_elsewhere(
        &mut self,
        epoch: Epoch,
        layout: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        let (size, align) = (layout.size(), layout.align());
        let is_slabs = epoch.index() == 0 || epoch.era() == self.bumps().old;
        // What no class serves is freed as a large object.
        let is_large = Table::<C>::TABLE.index_for(layout).is_none();
        if is_slabs || is_large || size > MAX_SIZE || align > MAX_ALIGN {
            return self.alloc_in_slabs(epoch, layout);
        }
        let length = Length::of(size);
        self.notice_closes();
        let position = self.heap.position(epoch);
        let position = position.filter(|position| position.is_open_in(epoch.era_id()));
        let position = position.ok_or_else(|| self.refused_closed(epoch))?;
        if self.survivors().are_some()
            && let Some(object) = self.alloc_survivor(epoch, position, layout)
        {
            return Ok(object);
        }
        let (mut blocks, mut laid) = (0, 0);
        for block in self.blocks_of(epoch) {
            if block.used() > 0 && block.is_dead() {
                block.start_over();
            }
            if let Some(object) = block.lay_aligned(length, align) {
                let is_only = self.blocks_of(epoch).nth(1).is_none();
                self.go_on_in(epoch, position, block, is_only);
                return Ok(object_at(object));
            }
            blocks += 1;
            laid += block.used();
        }
        // Now and then: it takes a look at each of them.
        if blocks >= MANY && blocks.is_power_of_two() && self.is_old(epoch, blocks) {
            self.bumps().old = epoch.era();
            return self.alloc_in_slabs(epoch, layout);
        }
        let newest = self.blocks_of(epoch).next().map(BumpBlock::kind);
        let kind = self.bumps().next_kind(laid, newest);
        let block = self.take_block(kind, length).inspect_err(|error| {
            self.count_refusal(*error);
            self.heap.refused(*error, None, None);
        })?;
        if blocks == 0 && !position.pin(epoch.era_id(), Pin::BLOCK) {
            self.put_spare(block);
            return Err(self.refused_closed(epoch));
        }
        if blocks == 0 {
            self.bumps().note_begun();
        }
        block.pins.store(blocks == 0, Relaxed);
        let is_watched = !C::CHECKED && self.survivors().watch();
        block.begin(
            self.home.cells,
            epoch.index() as u32,
            epoch.era(),
            is_watched,
        );
        self.bumps().owned.add(block);
        self.go_on_in(epoch, position, block, blocks == 0);
        let at = block.lay_aligned(length, align);
        at.map(object_at).ok_or(AllocError::OutOfMemory)
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
        for block in self.blocks_of(epoch) {
            live += block.live(false).0;
            made += block.made();
        }
        blocks >= MOST || live * 2 < made
    }

    /// The blocks of an epoch that this local owns.
    fn blocks_of(&self, epoch: Epoch) -> impl Iterator<Item = &'h BumpBlock> + use<'h, C> {
        // SAFETY: blocks are valid as long as the heap.
        unsafe { self.bumps().owned.of(epoch.index(), epoch.era()) }
    }

    /// Notes the block where the local lays next, and whether it is the only one that it owns of the epoch.
    fn go_on_in(
        &self,
        epoch: Epoch,
        position: &'h Position<EpochDepot<C::Lock>>,
        block: &BumpBlock,
        is_only: bool,
    ) {
        let limit = self.limit();
        self.bumps().near = Near {
            open: position.open_word(),
            index: epoch.index(),
            limit,
            block,
            base: block.base(),
            // The free of an object in a watched one is noted elsewhere. Of several blocks any may be the next one where an object is freed:
            // the page map finds it as quickly as a guess that is wrong.
            bytes: if is_only && !block.is_watched() {
                block.kind().bytes()
            } else {
                0
            },
        };
    }

    /// See [`Near::limit`].
    fn limit(&self) -> usize {
        if self.survivors().are_some() {
            0
        } else {
            Self::LIMIT
        }
    }

    /// An empty block of this kind. Where there is none, and no memory for one, one of a smaller kind that holds an object of this length; then
    /// one for which what is empty elsewhere goes back; and then whatever the local has that is longer.
    fn take_block(&self, kind: Kind, length: Length) -> Result<&'h BumpBlock, AllocError> {
        let fits = |kind: &Kind| kind.bytes() >= length.bytes();
        let kinds = core::iter::successors(Some(kind), |kind| kind.smaller().filter(fits));
        let mut shortest = kind;
        for kind in kinds {
            if let Some(block) = self.take_spare(kind) {
                return Ok(block);
            }
            if let Ok(block) = self.heap.take_block(kind, false) {
                return Ok(block);
            }
            shortest = kind;
        }
        self.heap.take_block(shortest, true).or_else(|error| {
            let mut all = Kind::ALL.into_iter().filter(fits);
            let spare = all.find_map(|kind| self.take_spare(kind));
            spare.ok_or(error)
        })
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
        if *count >= MAX_SPARES[block.kind() as usize] || !self.heap.keeps_blocks() {
            return self.heap.put_block(block);
        }
        block.sibling.store(*first, Relaxed);
        *first = ptr::from_ref(block).cast_mut();
        *count += 1;
    }

    /// Frees the object that begins at an address, if that is in the block in which the local laid last and the free is the local's count
    /// alone. If not, nothing has changed. `length` says how long it should be, where that is known.
    #[inline(always)]
    pub(super) fn free_near(&self, at: usize, length: Option<Length>) -> bool {
        let near = &self.bumps().near;
        let offset = at.wrapping_sub(near.base);
        if !Table::<C>::BUMPS || offset >= near.bytes {
            return false;
        }
        // SAFETY: where there is a length there is a block, valid as long as the heap, of so many bytes.
        unsafe {
            core::hint::assert_unchecked(!near.block.is_null());
            (*near.block).free_own_at(offset, length, C::CHECKED)
        }
    }

    /// Frees an object in a block. `length` says how long it should be, where that is known.
    ///
    /// # Safety
    /// As for [`Local::free_unsized`].
    #[inline(always)]
    pub(super) unsafe fn free_bumped(
        &mut self,
        block: &'h BumpBlock,
        object: NonNull<u8>,
        length: Option<Length>,
    ) -> Result<(), FreeError> {
        if !block.is_owned_by(self.home.cells) {
            return self.free_others(block, object, length);
        }
        let freed = block.free_own(object.addr().get(), length, C::CHECKED);
        freed.map_err(|error| self.heap.refused_free(error))
    }

    /// Frees an object in a block that is not this local's.
    #[inline(never)]
    fn free_others(
        &mut self,
        block: &'h BumpBlock,
        object: NonNull<u8>,
        length: Option<Length>,
    ) -> Result<(), FreeError> {
        let freed = block.free_other(object.addr().get(), length, C::CHECKED);
        if freed.map_err(|error| self.heap.refused_free(error))? == Freed::Emptied {
            self.heap.end_block(block);
            self.put_spare(block);
        }
        Ok(())
    }

    /// Makes an object as long as another layout asks where it is, if it is the one that this local laid last in a bump block and there is
    /// room. Whether it did: if so it is from now on to be freed with `new`.
    ///
    /// # Safety
    /// As for [`Local::resize`].
    #[inline]
    pub unsafe fn resize_near(&self, object: NonNull<u8>, old: Layout, new: Layout) -> bool {
        // SAFETY: if there is a block it is valid, as long as the heap.
        let block = unsafe { self.bumps().near.block.as_ref() };
        block.is_some_and(|block| self.extend(block, object.addr().get(), old, new))
    }

    /// Makes the object that was laid last in a block of this local longer or shorter where it is.
    pub(super) fn extend(&self, block: &BumpBlock, at: usize, old: Layout, new: Layout) -> bool {
        block.is_owned_by(self.home.cells)
            && at.is_multiple_of(new.align())
            && old.size().max(new.size()) <= MAX_SIZE
            && (Table::<C>::TABLE.index_at_once(new).is_some()
                || Table::<C>::TABLE.index_for(new).is_some())
            && block.extend(at, Length::of(old.size()), Length::of(new.size()))
    }

    /// Leaves the blocks of an epoch.
    #[inline]
    pub(super) fn leave_blocks_of(&mut self, epoch: Epoch) {
        // SAFETY: blocks are valid as long as the heap.
        if let Some(block) = unsafe { self.bumps().owned.take_empty(epoch) } {
            // Most epochs are over with all that was allocated there.
            self.bumps().note_laid(block.used());
            self.forget_near(block);
            return self.end_owned(block);
        }
        self.leave_blocks(Some(epoch.index()), true, |block| {
            block.era() == epoch.era()
        });
    }

    /// Leaves all blocks.
    pub(super) fn leave_all_blocks(&mut self) {
        self.leave_blocks(None, false, |_| true);
    }

    /// Leaves the blocks of epochs that were closed. Not at each close: only once an eighth as many epochs were closed as blocks were left
    /// when this was done last, so that a close costs a look at a few of those. Blocks that came since have their first look.
    pub(super) fn leave_closed_blocks(&mut self, closes: u64) {
        let bumps = self.bumps();
        let seen = closes.wrapping_sub(bumps.closes_seen);
        if bumps.owned.count() == 0 || seen <= (bumps.left / LOOKS) as u64 {
            return;
        }
        bumps.closes_seen = closes;
        let heap = self.heap;
        self.leave_blocks(None, true, |block| {
            let position = heap.position_at(block.index() as usize);
            !position.is_some_and(|position| position.is_open_at(block.era()))
        });
        let bumps = self.bumps();
        bumps.left = bumps.owned.count();
    }

    /// Leaves the blocks that `is_over` says, among those of an epoch's index or of all. What lives there then may outlive its epoch, if
    /// their epochs `end`: see [`Local::note_left`].
    fn leave_blocks(
        &mut self,
        index: Option<usize>,
        end: bool,
        is_over: impl Fn(&BumpBlock) -> bool,
    ) {
        // SAFETY: blocks are valid as long as the heap.
        let over = unsafe { self.bumps().owned.take(index, is_over) };
        let (mut laid, mut epochs) = (0, 0);
        for block in over {
            laid += block.used();
            epochs += usize::from(block.pins.load(Relaxed));
            if end {
                self.note_left(block);
            }
            self.forget_near(block);
            // Before the one of its epoch that pins the record for all, which is the last in the list. Once it was left the block
            // may be somebody else's.
            if !block.is_empty() {
                self.heap.pin_block(block);
            }
            // If the epoch was closed while blocks were looked at some of them are owned still: the last one pins the record for these.
            if block.pins.load(Relaxed)
                && let Some(owned) = epoch_of(block).and_then(|epoch| self.blocks_of(epoch).last())
            {
                self.heap.pin_block(owned);
            }
            self.end_owned(block);
        }
        // What was learned is for the objects that follow.
        self.bumps().near.limit = self.limit();
        if let Some(laid) = laid.checked_div(epochs) {
            self.bumps().note_laid(laid);
        }
    }

    /// The local lays no more objects in a block that it owns.
    fn forget_near(&self, block: &BumpBlock) {
        let bumps = self.bumps();
        if ptr::eq(bumps.near.block, block) {
            bumps.near = Near::NONE;
        }
    }

    /// Leaves a block that is in no list any more, and has it if it is empty.
    fn end_owned(&self, block: &'h BumpBlock) {
        if block.leave() == Freed::Emptied {
            self.heap.end_block(block);
            self.put_spare(block);
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
}

/// The object that was laid at an address.
#[inline(always)]
fn object_at(at: usize) -> NonNull<u8> {
    // SAFETY: no block is at null, and its chunk's provenance is exposed.
    unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(at)) }
}
