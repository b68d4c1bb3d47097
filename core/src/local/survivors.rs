//! Survivors: a local learns of which classes objects outlive their epochs, and allocates those in mixed slabs.
//!
//! ```text
//! a block is left in which something lives ──> noted, to be looked at each time when LATER more were left
//!    ├─ half of it lives still ──> it stays noted, for LOOKS looks
//!    └─ of its epoch then, and less than half of it lives ── learn: the classes, by the marks ── a class seen in two blocks, or any
//!       after MANY ──> its objects go to mixed slabs
//!           └─ an unchecked heap has no marks of the dead: it keeps them in the blocks that the local begins next (WATCHED), and in the
//!              first ones after a block was left with something in it
//! alloc_near, lay_elsewhere ── of such a class ──> alloc_mixed: pins the epoch's record, takes a slot, says whose it is
//! VAIN looks in a row at one of such epochs, LATER epochs later, that find no such object left ──> all is forgotten
//! ```
//!
//! What lives when a block is left says little: another thread may be about to free it. A block of which more than half lives is as full
//! as slabs would be.
//!
//! What is learned is a guess. A wrong one costs an object in an epoch some ten nanoseconds, two changes of a count that threads may share,
//! or a survivor a block.

use super::Local;
use crate::block::BumpBlock;
use crate::config::{Config, Table};
use crate::depot::EpochDepot;
use crate::epoch::{Epoch, Position};
use crate::error::AllocError;
use crate::sync::Ordering::Relaxed;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// Blocks in which an unchecked heap marks what dies, after a survivor: the next ones that the local begins.
const WATCHED: u8 = 8;

/// How many blocks are left with something in them until the local looks at the first one of them again; and how many epochs it begins to
/// serve until it looks whether something is left of the first.
const LATER: usize = 16;

/// How often a block is looked at of which half lives: most of a program's objects may be freed long after their epoch. Three quarters of the
/// places are for such blocks, and no more: some may live whole for good.
const LOOKS: u8 = 16;

/// Such looks in a row that found nothing, after which no class is taken for one that survives.
const VAIN: u8 = 16;

/// Where objects of so many classes outlive their epochs, those of any class may.
const MANY: u32 = 8;

/// A block that was left while something lived in it, and how often it was looked at since.
#[derive(Debug, Clone, Copy)]
struct Left {
    block: *const BumpBlock,
    era: u64,
    looks: u8,
}

impl Left {
    const NONE: Self = Self {
        block: ptr::null(),
        era: 0,
        looks: 0,
    };
}

/// What a local knows of survivors. It alone uses it.
#[derive(Debug)]
pub(super) struct Survivors<R> {
    /// Classes of which an object outlived its epoch, and those of which one of another block did: a bit for each.
    seen: u64,
    classes: u64,
    /// The epoch in which the local allocated such an object last.
    era: u64,
    /// An earlier one, its era and its record; how many such epochs came since.
    sample: (u64, *const Position<EpochDepot<R>>),
    since: u8,
    /// Looks in a row that found nothing left of the sample.
    vain: u8,
    /// In how many blocks to come what dies is marked; whether it ever was.
    watched: u8,
    has_watched: bool,
    /// Blocks that were left, and which is to be looked at next.
    left: [Left; LATER],
    next: u8,
}

impl<R> Survivors<R> {
    pub(super) const NONE: Self = Self {
        seen: 0,
        classes: 0,
        era: 0,
        sample: (0, ptr::null()),
        since: 0,
        vain: 0,
        watched: 0,
        has_watched: false,
        left: [Left::NONE; LATER],
        next: 0,
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

    /// Notes of which classes, a bit for each, objects of a block outlived their epoch. Where there were some there may be more, of other
    /// classes, too.
    const fn note(&mut self, classes: u64) {
        if classes & !self.classes != 0 {
            self.watched = WATCHED;
        }
        self.classes |= self.seen & classes;
        self.seen |= classes;
        if self.classes.count_ones() >= MANY {
            self.classes = u64::MAX;
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

    /// The block to look at next.
    fn next_left(&self) -> Left {
        self.left[usize::from(self.next) % LATER]
    }

    /// Notes what is to be looked at in its place from now on.
    fn replace_left(&mut self, by: Left) {
        self.left[usize::from(self.next) % LATER] = by;
        self.next = self.next.wrapping_add(1);
    }

    /// Notes in which epoch such an object is allocated now, and now and then whether any was left of one that was noted before.
    fn go_on_in(&mut self, era: u64, position: &Position<EpochDepot<R>>) {
        if self.era == era {
            return;
        }
        self.era = era;
        self.since += 1;
        if usize::from(self.since) < LATER {
            return;
        }
        self.since = 0;
        let (before, its) = self.sample;
        // SAFETY: positions are valid as long as the heap.
        if unsafe { its.as_ref() }.is_some_and(|its| its.is_open_at(before)) {
            return;
        }
        let (before, its) = core::mem::replace(&mut self.sample, (era, position));
        // SAFETY: positions are valid as long as the heap.
        let is_vain = unsafe { its.as_ref() }
            .is_some_and(|its| its.era() != before || its.pins().object_bytes() == 0);
        self.vain = if is_vain { self.vain + 1 } else { 0 };
        if self.vain == VAIN {
            self.forget();
        }
    }
}

impl<'h, C: Config> Local<'h, C> {
    /// Looks at one of the blocks that were noted, and notes in its place the one that the local is about to leave while something lives
    /// there, of an epoch that is closed or is going to be.
    pub(super) fn note_left(&self, block: &BumpBlock) {
        // Of the blocks of an epoch the last one may be nearly empty: that it keeps much for little says nothing.
        let is_full = 2 * block.used() >= block.kind().bytes();
        if block.is_empty() || !(is_full || block.pins.load(Relaxed)) {
            return;
        }
        let survivors = self.survivors();
        if !survivors.has_watched {
            (survivors.has_watched, survivors.watched) = (true, LATER as u8);
        }
        let (place, left) = (survivors.next, survivors.next_left());
        // SAFETY: blocks are valid as long as the heap, and each is of this one.
        let noted = unsafe { left.block.as_ref() };
        let noted = noted.filter(|noted| noted.is_block() && noted.era() == left.era);
        let is_full_still = noted.filter(|noted| !self.look_at(noted));
        // One that tells classes is worth more than one that does not.
        let stays = is_full_still.is_some_and(|noted| noted.is_watched() || !block.is_watched())
            && left.looks < LOOKS
            && !place.is_multiple_of(4);
        let replacement = if stays {
            Left {
                looks: left.looks + 1,
                ..left
            }
        } else {
            Left {
                block,
                era: block.era(),
                looks: 0,
            }
        };
        self.survivors().replace_left(replacement);
    }

    /// Looks at a block that was left some time ago, and learns what survives there, if that can be told. Whether the look is over: if not, half
    /// of the block lives. If it ends meanwhile what is learned may be wrong.
    fn look_at(&self, block: &BumpBlock) -> bool {
        let (live, bytes) = block.live(false);
        if bytes >= block.kind().bytes() as u64 / 2 {
            return false;
        }
        let survivors = self.survivors();
        if live == 0 {
            return true;
        }
        if !C::CHECKED && !block.is_watched() {
            survivors.watched = WATCHED;
            return true;
        }
        let classes = block
            .lengths()
            .filter_map(|length| Table::<C>::TABLE.index_for_size(length.bytes()))
            .fold(0, |classes, class| classes | 1 << (class % 64));
        survivors.note(classes);
        true
    }

    /// Allocates in a mixed slab, for an epoch whose record this is, if its class is one whose objects survive. `None` if it is not, or
    /// if there is no memory for it: it is laid like others then.
    pub(super) fn alloc_survivor(
        &mut self,
        epoch: Epoch,
        position: &'h Position<EpochDepot<C::Lock>>,
        layout: Layout,
    ) -> Option<NonNull<u8>> {
        let class = Table::<C>::TABLE.index_for(layout)?;
        let survivors = self.survivors();
        if !survivors.has(class) {
            return None;
        }
        survivors.go_on_in(epoch.era(), position);
        let pin = super::Heap::<C>::pin_of(class);
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
        let depot = self.heap.mixed_depot()?;
        let near = *self.near(depot.id());
        let cache = if near.id == depot.id() {
            near
        } else {
            self.cache_of(depot, depot.tag())?
        };
        match self.pick(cache.cells, class) {
            Some(object) => Ok(object),
            None => self.refill(cache, depot.tag(), class),
        }
    }
}
