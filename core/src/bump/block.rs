//! A block: its metadata, what its owner does, and what is found by an address.

use super::count::Count;
use crate::class::GRANULE;
use crate::error::FreeError;
use crate::slab::{Key, Slab};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use core::alloc::Layout;
use core::ptr;

/// What a bit of the marks stands for.
const UNIT: usize = 16;
/// The largest object, as large as its class makes it, and the largest alignment.
pub(crate) const MAX_SIZE: usize = 2048;
pub(crate) const MAX_ALIGN: usize = 64;

/// A block's length: the first of a local in an epoch is small, so that an epoch of a few objects takes little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Small,
    Large,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Small, Self::Large];

    pub(crate) const fn granules(self) -> usize {
        match self {
            Self::Small => 8,
            Self::Large => 16,
        }
    }

    pub(crate) const fn bytes(self) -> usize {
        self.granules() * GRANULE
    }

    /// The layout of a block's metadata: a checked heap has two sets of marks more.
    pub(crate) const fn layout(self, is_checked: bool) -> Layout {
        let sets = if is_checked { 3 } else { 1 };
        let bytes = size_of::<BumpBlock>() + sets * self.granules() * size_of::<u64>();
        match Layout::from_size_align(bytes, 64) {
            Ok(layout) => layout,
            Err(_) => panic!("a block's metadata is a few hundred bytes"),
        }
    }
}

/// The metadata of a block; its marks follow it, a word for each granule. Orderings: see the head of the module.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct BumpBlock {
    slab: Slab,
    /// Where the next object goes, and where the block begins and ends.
    next: AtomicUsize,
    base: AtomicUsize,
    end: AtomicUsize,
    /// Objects that live by the owner's count.
    own_live: AtomicU32,
    /// The local that lays objects here.
    owner: AtomicPtr<()>,
    /// The epoch.
    index: AtomicU32,
    is_known: AtomicBool,
    /// Of the block. The same whenever the metadata is of a block, so that no look-up goes beyond its marks.
    granules: AtomicU8,
    /// It is counted in the epoch's record. Of the blocks that a local owns in an epoch the first is, of those that were left
    /// each.
    pub(crate) pins: AtomicBool,
    era: AtomicU64,
    /// The next block of the list that it is in.
    pub(crate) sibling: AtomicPtr<BumpBlock>,
    /// On a line that others write.
    count: Line<Count>,
    /// The block whose metadata was made before this one's. Constant once it is known.
    pub(crate) older: AtomicPtr<BumpBlock>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Line<T>(T);

/// What a free did to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the caller has the block if it was emptied"]
pub(crate) enum Freed {
    /// Others live, or the block is owned.
    InUse,
    /// The caller has the block: nothing lives in it, and nobody owns it.
    Emptied,
}

impl BumpBlock {
    /// # Safety
    /// The slab begins a block's metadata, which lives as long as `'b`.
    #[inline(always)]
    pub(crate) unsafe fn of<'b>(slab: *const Slab) -> &'b Self {
        // The slab's pointer may be good for the slab alone.
        // SAFETY: the caller's promise; the memory of metadata is exposed.
        unsafe { &*ptr::with_exposed_provenance(slab.addr()) }
    }

    pub(crate) const fn slab(&self) -> &Slab {
        &self.slab
    }

    pub(crate) fn kind(&self) -> Kind {
        if self.granules() == Kind::Small.granules() {
            Kind::Small
        } else {
            Kind::Large
        }
    }

    #[inline]
    fn granules(&self) -> usize {
        self.granules.load(Relaxed).into()
    }

    #[inline(always)]
    fn base(&self) -> usize {
        self.base.load(Relaxed)
    }

    /// The block lies at an address from now on. The caller has it. What its metadata says of the objects of a block before is
    /// forgotten when this one begins.
    pub(crate) fn place(&self, base: usize, kind: Kind) {
        self.granules.store(kind.granules() as u8, Relaxed);
        self.base.store(base, Relaxed);
        self.end.store(base + kind.bytes(), Relaxed);
        self.next.store(base + kind.bytes(), Relaxed);
    }

    /// Whether somebody noted the block's metadata before; it is noted now.
    pub(crate) fn note_known(&self) -> bool {
        self.is_known.swap(true, Relaxed)
    }

    /// The word of marks of a set for the granule that an offset is in.
    #[inline(always)]
    fn word(&self, set: usize, granules: usize, offset: usize) -> &AtomicU64 {
        let index = set * granules + offset / GRANULE;
        let first = ptr::from_ref(self).addr() + size_of::<Self>();
        // SAFETY: a block's metadata, whose memory is exposed, is followed by as many words; a checked heap, which alone has the
        // second set and the third, asks for these.
        unsafe { &*ptr::with_exposed_provenance(first + index * size_of::<AtomicU64>()) }
    }

    /// The bit of an offset in its word.
    const fn bit(offset: usize) -> u64 {
        1 << (offset / UNIT % 64)
    }

    /// Begins to serve the epoch of an era, whose record is at an index, for the owner. The caller has the block, which is empty.
    pub(crate) fn begin(&self, owner: *mut (), index: u32, era: u64, is_checked: bool) {
        self.index.store(index, Relaxed);
        self.era.store(era, Relaxed);
        self.owner.store(owner, Relaxed);
        self.start_over(is_checked);
    }

    /// Forgets all objects, which are dead. For the owner.
    pub(crate) fn start_over(&self, is_checked: bool) {
        let (base, granules) = (self.base(), self.granules());
        let used = self.next.load(Relaxed).wrapping_sub(base);
        let sets = if is_checked { 3 } else { 1 };
        for set in 0..sets {
            for granule in 0..used.div_ceil(GRANULE).min(granules) {
                self.word(set, granules, granule * GRANULE)
                    .store(0, Relaxed);
            }
        }
        self.own_live.store(0, Relaxed);
        self.count.0.begin();
        self.next.store(base, Relaxed);
    }

    /// Lays an object of `size` bytes, a multiple of 16, aligned to `align`. For the owner.
    #[inline(always)]
    pub(crate) fn lay(&self, size: usize, align: usize, is_checked: bool) -> Option<usize> {
        let next = self.next.load(Relaxed);
        let lead = if align > UNIT {
            next.wrapping_neg() & (align - 1)
        } else {
            0
        };
        // Neither overflows: both are a few thousand at most, and so is what is left.
        if size + lead > self.end.load(Relaxed).wrapping_sub(next) {
            return None;
        }
        if lead > 0 {
            self.lay_dead(next, is_checked);
        }
        let object = next + lead;
        self.mark(0, object);
        // `Release`: who sees that there is more, sees where it begins.
        self.next.store(object + size, Release);
        let live = self.own_live.load(Relaxed);
        self.own_live.store(live + 1, Relaxed);
        Some(object)
    }

    /// Marks the gap before an object as one that is dead.
    #[cold]
    fn lay_dead(&self, at: usize, is_checked: bool) {
        self.mark(0, at);
        if is_checked {
            self.mark(1, at);
        }
    }

    /// Sets a mark of a set that the owner alone writes. For the owner.
    #[inline(always)]
    fn mark(&self, set: usize, at: usize) {
        let offset = at - self.base();
        let word = self.word(set, self.granules(), offset);
        word.store(word.load(Relaxed) | Self::bit(offset), Relaxed);
    }

    /// Whether an object of `size` bytes at `at` is the one that was laid last, and then makes it `new` bytes long, if there is
    /// room. For the owner.
    pub(crate) fn extend(&self, at: usize, size: usize, new: usize) -> bool {
        let fits = self.next.load(Relaxed) == at + size && new <= self.end.load(Relaxed) - at;
        if fits {
            self.next.store(at + new, Relaxed);
        }
        fits
    }

    /// How long the object is that begins at an address, by its marks: for any address, at any time.
    pub(crate) fn find(&self, at: usize, is_checked: bool) -> Result<usize, FreeError> {
        let (base, granules) = (self.base(), self.granules());
        let offset = at.wrapping_sub(base);
        let used = self.next.load(Acquire).wrapping_sub(base);
        if offset >= granules * GRANULE {
            return Err(FreeError::Foreign);
        }
        let bit = Self::bit(offset);
        let is_marked = |set| self.word(set, granules, offset).load(Relaxed) & bit != 0;
        if !offset.is_multiple_of(UNIT) || (offset < used && !is_marked(0)) {
            return Err(FreeError::Interior);
        }
        if offset >= used || (is_checked && (is_marked(1) || is_marked(2))) {
            return Err(FreeError::DoubleFree);
        }
        // Up to where the next one begins.
        let mut word = self.word(0, granules, offset).load(Relaxed) & !(bit | (bit - 1));
        let mut granule = offset / GRANULE;
        while word == 0 && (granule + 1) * GRANULE < used.min(granules * GRANULE) {
            granule += 1;
            word = self.word(0, granules, granule * GRANULE).load(Relaxed);
        }
        let next = if word == 0 {
            used
        } else {
            granule * GRANULE + word.trailing_zeros() as usize * UNIT
        };
        Ok(next.min(used).saturating_sub(offset))
    }

    /// Whether a live object of so many bytes, or of any, begins at an address. For a checked heap.
    pub(crate) fn check(&self, at: usize, size: Option<usize>) -> Result<(), FreeError> {
        let found = self.find(at, true)?;
        match size {
            Some(size) if size != found => Err(FreeError::WrongLayout),
            _ => Ok(()),
        }
    }

    #[inline(always)]
    pub(crate) fn is_owned_by(&self, local: *mut ()) -> bool {
        self.owner.load(Relaxed) == local
    }

    /// Notes that an object was freed by the owner, which is the caller; whether none lives by its count, so none at all.
    #[inline(always)]
    pub(crate) fn free_own(&self, at: usize, is_checked: bool) -> bool {
        if is_checked {
            self.mark(1, at);
        }
        let live = self.own_live.load(Relaxed).wrapping_sub(1);
        self.own_live.store(live, Relaxed);
        live == 0
    }

    /// Notes that an object was freed by one who is not the owner.
    #[inline]
    pub(crate) fn free_other(&self, at: usize, is_checked: bool) -> Result<Freed, FreeError> {
        if is_checked {
            // By a stale pointer the block may be another since it was checked.
            let (offset, granules) = (at.wrapping_sub(self.base()), self.granules());
            if offset >= granules * GRANULE {
                return Err(FreeError::DoubleFree);
            }
            let word = self.word(2, granules, offset);
            if word.fetch_or(Self::bit(offset), Relaxed) & Self::bit(offset) != 0 {
                return Err(FreeError::DoubleFree);
            }
        }
        Ok(if self.count.0.free(1) {
            Freed::Emptied
        } else {
            Freed::InUse
        })
    }

    /// How many objects were laid since it began, gaps included.
    pub(crate) fn made(&self) -> u64 {
        let granules = self.used().div_ceil(GRANULE).min(self.granules());
        let words = (0..granules).map(|granule| self.word(0, granules, granule * GRANULE));
        words
            .map(|word| u64::from(word.load(Relaxed).count_ones()))
            .sum()
    }

    /// Whether all objects are dead. For the owner.
    pub(crate) fn is_dead(&self) -> bool {
        u64::from(self.own_live.load(Relaxed)) == self.count.0.others()
    }

    /// How many bytes were laid.
    pub(crate) fn used(&self) -> usize {
        self.next.load(Relaxed).wrapping_sub(self.base())
    }

    /// Whether nothing lives by the owner's count, and so nothing at all. For the owner.
    pub(crate) fn is_empty(&self) -> bool {
        self.own_live.load(Relaxed) == 0
    }

    /// The owner leaves the block.
    pub(crate) fn leave(&self) -> Freed {
        self.owner.store(ptr::null_mut(), Relaxed);
        // Nobody else has an object of it, so nobody else counts.
        if self.is_empty() || self.count.0.leave(self.own_live.load(Relaxed).into()) {
            Freed::Emptied
        } else {
            Freed::InUse
        }
    }

    /// The era of the epoch that it serves, or served, and where the epoch's record is.
    pub(crate) fn era(&self) -> u64 {
        self.era.load(Relaxed)
    }

    pub(crate) fn index(&self) -> u32 {
        self.index.load(Relaxed)
    }

    /// How many objects live, and about how many bytes of the block they have. Exact in objects at rest.
    pub(crate) fn live(&self) -> (u64, u64) {
        let is_owned = !self.owner.load(Relaxed).is_null();
        let live = self
            .count
            .0
            .live(is_owned, self.own_live.load(Relaxed).into());
        let made = self.made().max(1);
        let live = live.min(made);
        (live, self.used() as u64 * live / made)
    }

    /// Whether it is somebody's: of a local, or left. For an empty one it is not known that it is not.
    pub(crate) fn is_block(&self) -> bool {
        self.slab.identity().key().class() == Key::BLOCK
    }

    /// Objects that live by the marks. For the walker, in a checked heap at rest.
    #[cfg(feature = "walker")]
    pub(crate) fn marked(&self) -> u64 {
        let granules = self.granules();
        let count = |granule| {
            let word = |set| self.word(set, granules, granule * GRANULE).load(Relaxed);
            u64::from((word(0) & !word(1) & !word(2)).count_ones())
        };
        (0..granules).map(count).sum()
    }
}
