//! Survivors: a local learns of which classes objects outlive their epochs, and allocates those in mixed slabs.
//!
//! ```text
//! blocks are left of which less than half lives ── learn: the classes, by the marks ── a class seen twice ──> its objects go to mixed slabs
//!    │      └─── an unchecked heap has no marks of the dead: it keeps them in the next epochs' blocks (WATCHED)
//!    └─── of which more lives: the blocks are as full as slabs would be; some of them are looked at again, LATER blocks later,
//!         and learned from if nearly all is dead
//! alloc_near, lay_elsewhere ── of such a class ──> alloc_mixed: pins the epoch's record, takes a slot, says whose it is
//! VAIN epochs of which no such object was left when the next began ──> all is forgotten
//! ```
//!
//! What is learned is a guess. A wrong one costs an object in an epoch some nanoseconds, or a survivor a block.

use super::Local;
use super::owned::Blocks;
use crate::bump::BumpBlock;
use crate::config::{Config, Table};
use crate::depot::Row;
use crate::epoch::{Epoch, Position};
use crate::error::AllocError;
use crate::provider::PageProvider;
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use lock_api::RawMutex;

/// Blocks in which an unchecked heap marks what dies, after a survivor: the next ones that the local begins.
const WATCHED: u8 = 8;

/// Epochs in a row of which nothing survived, after which no class is taken for one that survives.
const VAIN: u8 = 255;

/// How many blocks were left, since one was of which much lived, when it is looked at again; and for how many that is done each time that
/// the local leaves some.
const LATER: usize = 64;
const EACH: usize = 8;

/// Of so many objects of such a block one may live, for the block to be kept by survivors.
const FEW: u64 = 4;

/// What a local knows of survivors. It alone uses it.
#[derive(Debug)]
pub(super) struct Survivors<R> {
    /// Classes of which an object outlived its epoch, and those of which another one did: a bit for each.
    seen: u64,
    classes: u64,
    /// The epoch in which the local allocated such an object last: its era and its record.
    era: u64,
    position: *const Position<Row<R>>,
    /// Epochs in a row of which none was left.
    vain: u8,
    /// In how many blocks to come what dies is marked.
    watched: u8,
    /// Blocks that were left while much lived, their eras, and whether their marks tell what lives; which is the oldest.
    left: [(*const BumpBlock, u64, bool); LATER],
    oldest: u8,
}

impl<R> Survivors<R> {
    pub(super) const NONE: Self = Self {
        seen: 0,
        classes: 0,
        era: 0,
        position: ptr::null(),
        vain: 0,
        watched: 0,
        left: [(ptr::null(), 0, false); LATER],
        oldest: 0,
    };

    /// Whether objects of some class are taken for survivors.
    #[inline(always)]
    pub(super) const fn are_some(&self) -> bool {
        self.classes != 0
    }

    /// Whether objects of this class are.
    #[inline(always)]
    pub(super) const fn has(&self, class: usize) -> bool {
        self.classes >> (class % 64) & 1 == 1
    }

    /// Notes an object of a class that outlived its epoch.
    const fn note(&mut self, class: usize) {
        let bit = 1 << (class % 64);
        self.classes |= self.seen & bit;
        self.seen |= bit;
        if self.has(class) {
            self.watched = 0;
        }
    }

    const fn forget(&mut self) {
        (self.seen, self.classes, self.vain) = (0, 0, 0);
    }

    /// Whether the block that begins now has its dead marked.
    pub(super) const fn watch(&mut self) -> bool {
        let is_watched = self.watched > 0;
        self.watched = self.watched.saturating_sub(1);
        is_watched
    }

    /// Notes a block that is about to be left, to be looked at again. The one that was noted longest ago, if few of its objects live by
    /// now, and whether its marks tell which.
    fn look_later<'b>(
        &mut self,
        block: &'b BumpBlock,
        is_marked: bool,
    ) -> Option<(&'b BumpBlock, bool)> {
        let oldest = &mut self.left[usize::from(self.oldest) % LATER];
        let noted = (ptr::from_ref(block), block.era(), is_marked);
        let (left, era, is_marked) = core::mem::replace(oldest, noted);
        self.oldest = self.oldest.wrapping_add(1);
        // SAFETY: blocks are valid as long as the heap, and each is of this one.
        let left = unsafe { left.as_ref() }?;
        let live = left.live(false).0;
        let is_kept = left.is_block() && left.era() == era && live > 0;
        (is_kept && live * FEW <= left.made()).then_some((left, is_marked))
    }

    /// Notes in which epoch such an object is allocated now, and whether any was left of the epoch before it.
    fn go_on_in(&mut self, era: u64, position: &Position<Row<R>>) {
        if self.era == era {
            return;
        }
        // SAFETY: positions are valid as long as the heap.
        let before = unsafe { self.position.as_ref() };
        let is_vain = before.is_some_and(|before| before.pins().object_bytes() == 0);
        self.vain = if is_vain { self.vain + 1 } else { 0 };
        if self.vain == VAIN {
            self.forget();
        }
        (self.era, self.position) = (era, position);
    }
}

impl<'h, P: PageProvider, R: RawMutex, C: Config> Local<'h, P, R, C> {
    /// Learns from a block that the local is about to leave, of an epoch that is closed or is going to be.
    pub(super) fn learn_from(&self, block: &BumpBlock) {
        if block.is_dead() {
            return;
        }
        let survivors = self.survivors();
        if !C::CHECKED && !block.is_watched() {
            survivors.watched = WATCHED;
            return;
        }
        self.note_all(block);
    }

    /// Notes some of the blocks that are about to be left though much lives in them, to be looked at later; and looks at as many that were
    /// noted before. What keeps one of those is a survivor: once is enough. Where marks do not tell what it is, they will in blocks to come.
    pub(super) fn learn_later(&self, blocks: Blocks<'h>) {
        let is_marked = |block: &BumpBlock| C::CHECKED || block.is_watched();
        let are_marked = blocks.into_iter().any(is_marked);
        let noted = blocks.filter(|block| !block.is_dead() && is_marked(block) == are_marked);
        for block in noted.take(EACH) {
            match self.survivors().look_later(block, are_marked) {
                Some((left, true)) => {
                    self.note_all(left);
                    self.note_all(left);
                }
                Some((_, false)) => self.survivors().watched = WATCHED,
                None => {}
            }
        }
    }

    /// Notes what lives by a block's marks.
    fn note_all(&self, block: &BumpBlock) {
        let survivors = self.survivors();
        for length in block.lengths() {
            if let Some(class) = Table::<C>::TABLE.index_for_size(length.bytes()) {
                survivors.note(class);
            }
        }
    }

    /// Allocates in a mixed slab, for an epoch whose record this is, if its class is one whose objects survive. `None` if it is not, or
    /// if there is no memory for it: it is laid like others then.
    pub(super) fn alloc_survivor(
        &mut self,
        epoch: Epoch,
        position: &'h Position<Row<R>>,
        layout: Layout,
    ) -> Option<NonNull<u8>> {
        let class = Table::<C>::TABLE.index_for(layout)?;
        let survivors = self.survivors();
        if !survivors.has(class) {
            return None;
        }
        survivors.go_on_in(epoch.era(), position);
        let pin = super::Heap::<P, R, C>::pin_of(class);
        if !position.pin(epoch.era_id(), pin) {
            return None;
        }
        let Ok(object) = self.take_mixed(class) else {
            position.unpin(pin);
            self.survivors().forget();
            return None;
        };
        // SAFETY: it was just taken from a mixed slab.
        unsafe {
            self.heap.set_holder(object, class, epoch.index() as u32);
        }
        Some(object)
    }

    /// A slot of a mixed slab.
    fn take_mixed(&mut self, class: usize) -> Result<NonNull<u8>, AllocError> {
        let row = self.heap.mixed_row()?;
        let near = *self.near(row.id());
        let cache = if near.id == row.id() {
            near
        } else {
            self.cache_of(row, row.tag())?
        };
        match self.pick(cache.cells, class) {
            Some(object) => Ok(object),
            None => self.refill(cache, row.tag(), class),
        }
    }
}
