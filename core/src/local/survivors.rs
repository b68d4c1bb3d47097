//! Survivors: a local learns of which classes objects outlive their epochs, and allocates those in mixed slabs.
//!
//! ```text
//! blocks are left of which less than half lives ── learn: the classes, by the marks ── a class seen twice ──> its objects go to mixed slabs
//!    │      └─── an unchecked heap has no marks of the dead: it keeps them in the next epochs' blocks (WATCHED)
//!    └─── of which more lives: the blocks are as full as slabs would be; some of them are looked at again, LATER blocks later: if nearly
//!         all is dead in one, and it is there still, the local learns from all blocks that it leaves from then on
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
    /// Blocks that were left while much lived, and their eras; which is the oldest.
    left: [(*const BumpBlock, u64); LATER],
    oldest: u8,
    /// One of them was kept by few of its objects in the end.
    suspects: bool,
}

impl<R> Survivors<R> {
    pub(super) const NONE: Self = Self {
        seen: 0,
        classes: 0,
        era: 0,
        position: ptr::null(),
        vain: 0,
        watched: 0,
        left: [(ptr::null(), 0); LATER],
        oldest: 0,
        suspects: false,
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
        self.suspects = false;
    }

    /// Whether the block that begins now has its dead marked.
    pub(super) const fn watch(&mut self) -> bool {
        let is_watched = self.watched > 0;
        self.watched = self.watched.saturating_sub(1);
        is_watched
    }

    /// Notes a block that is about to be left, to be looked at again; and looks at the one that was noted longest ago: whether few of its
    /// objects are left.
    fn look_later(&mut self, block: &BumpBlock) {
        let oldest = &mut self.left[usize::from(self.oldest) % LATER];
        let (left, era) = core::mem::replace(oldest, (ptr::from_ref(block), block.era()));
        self.oldest = self.oldest.wrapping_add(1);
        // SAFETY: blocks are valid as long as the heap, and each is of this one.
        if let Some(left) = unsafe { left.as_ref() }
            && left.is_block()
            && left.era() == era
        {
            let live = left.live(false).0;
            self.suspects |= live > 0 && live * FEW <= left.made();
        }
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
    /// Whether the local learns from blocks that it is about to leave: if what lives keeps much more than it needs, or did so later where
    /// it had not seemed to. Some of the others it looks at again.
    pub(super) fn is_to_learn_from(&self, blocks: Blocks<'h>) -> bool {
        let (mut live, mut bytes) = (0, 0);
        for block in blocks {
            if !block.is_dead() {
                live += block.live(false).1;
            }
            bytes += block.kind().bytes() as u64;
        }
        let survivors = self.survivors();
        if live == 0 || survivors.suspects || live < bytes / 2 {
            return live > 0;
        }
        for block in blocks.filter(|block| !block.is_dead()).take(EACH) {
            survivors.look_later(block);
        }
        false
    }

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
