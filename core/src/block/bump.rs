//! A block: its metadata, what its owner does, and what is found by an address.

use super::count::Count;
use super::kind::Kind;
use super::mark::{Length, MAX_SIZE, Mark, UNIT};
use crate::error::FreeError;
use crate::slab::{Key, Slab};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use core::alloc::Layout;
use core::ptr;

/// The metadata of a block; its marks follow it, a byte for each unit. Orderings: see the head of the module.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct BumpBlock {
    slab: Slab,
    /// What was laid since it began: `[63:32] objects | [31:0] units`, so that an allocation changes one word.
    laid: AtomicU64,
    /// Where the block begins, and how many units it has: these are the same whenever the metadata is of a block, so that no look-up goes
    /// beyond its marks.
    base: AtomicUsize,
    units: AtomicU32,
    /// Of the objects those that the owner freed.
    freed: AtomicU32,
    era: AtomicU64,
    /// The epoch.
    index: AtomicU32,
    is_known: AtomicBool,
    /// It is counted in the epoch's record. Of the blocks that a local owns in an epoch the first is, of those that were left
    /// each.
    pub(crate) pins: AtomicBool,
    /// The next block of the list that it is in.
    pub(crate) sibling: AtomicPtr<BumpBlock>,
    /// The block whose metadata was made before this one's. Constant once it is known.
    pub(crate) older: AtomicPtr<BumpBlock>,
    others: Others,
}

/// What others write, and all that they read to free an object of an unchecked heap: one line. Orderings: see the head of the module.
#[derive(Debug)]
#[repr(align(64))]
struct Others {
    count: Count,
    /// The magazines of the local that lays objects here, which name it.
    owner: AtomicPtr<()>,
    is_watched: AtomicBool,
}

/// What a free did to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the caller has the block if it was emptied"]
pub(crate) enum Freed {
    /// Others live, or the block is owned.
    InUse,
    /// The caller has the block: nothing lives in it, and nobody owns it.
    Emptied,
}

impl Kind {
    /// The layout of a block's metadata.
    pub(crate) const fn layout(self) -> Layout {
        let bytes = size_of::<BumpBlock>() + self.bytes() / UNIT;
        match Layout::from_size_align(bytes, 64) {
            Ok(layout) => layout,
            Err(_) => panic!("a block's metadata is some thousand bytes"),
        }
    }
}

impl BumpBlock {
    /// What is added to the owner's name in a watched block, which makes it nobody's.
    const WATCHED: usize = 1;
    /// What an object adds to `laid`, beside its units.
    const OBJECT: u64 = 1 << 32;

    /// # Safety
    /// The slab begins a block's metadata, which lives as long as `'b`.
    #[inline(always)]
    pub(crate) unsafe fn of<'b>(slab: *const Slab) -> &'b Self {
        // The slab's pointer may be good for the slab alone.
        // SAFETY: the caller's promise; the memory of metadata is exposed.
        unsafe {
            core::hint::assert_unchecked(!slab.is_null());
            &*ptr::with_exposed_provenance(slab.addr())
        }
    }

    pub(crate) const fn slab(&self) -> &Slab {
        &self.slab
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        let bytes = self.units() * UNIT;
        if bytes == Kind::Small.bytes() {
            Kind::Small
        } else if bytes == Kind::Medium.bytes() {
            Kind::Medium
        } else {
            Kind::Large
        }
    }

    #[inline(always)]
    pub(crate) fn base(&self) -> usize {
        self.base.load(Relaxed)
    }

    /// The block lies at an address from now on. The caller has it, and it is empty: no mark says that an object lives.
    pub(crate) fn place(&self, base: usize, kind: Kind) {
        self.base.store(base, Relaxed);
        self.units.store((kind.bytes() / UNIT) as u32, Relaxed);
    }

    /// Whether somebody noted the block's metadata before; it is noted now.
    pub(crate) fn note_known(&self) -> bool {
        self.is_known.swap(true, Relaxed)
    }

    #[inline(always)]
    fn units(&self) -> usize {
        self.units.load(Relaxed) as usize
    }

    /// The mark of a unit.
    ///
    /// # Safety
    /// It is one of the block's.
    #[inline(always)]
    unsafe fn mark(&self, unit: usize) -> &AtomicU8 {
        let first = ptr::from_ref(self).addr() + size_of::<Self>();
        // SAFETY: a block's metadata, whose memory is exposed, is followed by a mark for each unit.
        unsafe { &*ptr::with_exposed_provenance(first + unit) }
    }

    /// What the mark of a unit says; of none that is the block's it is nothing.
    #[inline]
    fn says(&self, unit: usize) -> Mark {
        if unit >= self.units() {
            return Mark(0);
        }
        // SAFETY: it is below their number.
        Mark(unsafe { self.mark(unit) }.load(Relaxed))
    }

    /// The unit that begins at an address, for any address: `None` if none of the block does.
    #[inline(always)]
    fn unit_at(&self, at: usize) -> Option<usize> {
        // What is no multiple of a unit becomes more than there are.
        let unit = at.wrapping_sub(self.base()).rotate_right(UNIT.ilog2());
        (unit < self.units()).then_some(unit)
    }

    /// How long the live object is that begins at a unit.
    #[inline]
    fn length_at(&self, unit: usize) -> Option<Length> {
        match self.says(unit) {
            Mark::LONG => Some(Length::of_digits(
                [1, 2].map(|more| self.says(unit + more).0),
            )),
            mark if mark.is_live() => Some(Length(usize::from(mark.0 - Mark::LIVE.0))),
            _ => None,
        }
    }

    /// Marks a live object. For the owner.
    ///
    /// # Safety
    /// It is within the block.
    #[inline(always)]
    unsafe fn set_live(&self, unit: usize, length: Length) {
        // SAFETY: the caller's promise; a long one has many units.
        unsafe {
            if length.is_long() {
                let [high, low] = length.digits();
                self.mark(unit + 1).store(high, Relaxed);
                self.mark(unit + 2).store(low, Relaxed);
            }
            self.mark(unit).store(Mark::live(length).0, Relaxed);
        }
    }

    /// Begins to serve the epoch of an era, whose record is at an index, for the owner. The caller has the block, which is empty.
    ///
    /// Of a watched one the marks tell what lives, in an unchecked heap too: no free in it is the owner's, and others mark what they free.
    #[inline]
    pub(crate) fn begin<M>(&self, owner: *mut M, index: u32, era: u64, is_watched: bool) {
        self.index.store(index, Relaxed);
        self.era.store(era, Relaxed);
        let owner: *mut () = owner.cast();
        if is_watched {
            for unit in 0..self.units() {
                // SAFETY: it is below their number.
                unsafe { self.mark(unit) }.store(Mark::DEAD.0, Relaxed);
            }
        }
        let owner = owner.wrapping_byte_add(if is_watched { Self::WATCHED } else { 0 });
        self.others.owner.store(owner, Relaxed);
        self.others.is_watched.store(is_watched, Relaxed);
        self.start_over();
    }

    /// Whether the marks tell what lives though the heap is unchecked. The same as long as it serves an epoch.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.others.is_watched.load(Relaxed)
    }

    /// The lengths of what lives, by the marks.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = Length> {
        (0..self.laid_units()).filter_map(|unit| self.length_at(unit))
    }

    /// Forgets all objects, which are dead. For the owner.
    #[inline]
    pub(crate) fn start_over(&self) {
        self.laid.store(0, Relaxed);
        self.freed.store(0, Relaxed);
        self.others.count.begin();
    }

    /// Lays an object that is no longer than [`MAX_SHORT`]. For the owner.
    #[inline(always)]
    pub(crate) fn lay(&self, length: Length) -> Option<usize> {
        debug_assert!(!length.is_long());
        let (unit, at) = self.advance(self.laid.load(Relaxed), length)?;
        // SAFETY: it lies within the block.
        unsafe { self.mark(unit) }.store(Mark::short(length).0, Relaxed);
        Some(at)
    }

    /// Lays an object of any length, aligned to a power of two, at most [`MAX_ALIGN`]. For the owner.
    #[inline]
    pub(crate) fn lay_aligned(&self, length: Length, align: usize) -> Option<usize> {
        // Not by a division, which takes as long as the rest of an allocation or two. A block begins at a page.
        let beyond = (align / UNIT).max(1) as u64 - 1;
        let laid = (self.laid.load(Relaxed) + beyond) & !beyond;
        let (unit, at) = self.advance(laid, length)?;
        // SAFETY: it lies within the block.
        unsafe { self.set_live(unit, length) };
        Some(at)
    }

    /// Counts an object behind what was laid: its unit and its address, if there is room.
    #[inline(always)]
    fn advance(&self, laid: u64, length: Length) -> Option<(usize, usize)> {
        let unit = laid as u32;
        // Nothing overflows: all are some thousands.
        if unit + length.units() as u32 > self.units.load(Relaxed) {
            return None;
        }
        let laid = laid + Self::OBJECT + length.units() as u64;
        self.laid.store(laid, Relaxed);
        Some((unit as usize, self.base() + unit as usize * UNIT))
    }

    /// Whether the object at `at`, of this length, is the one that was laid last, and then makes it as long as `new`, if there is
    /// room. For the owner.
    #[inline]
    pub(crate) fn extend(&self, at: usize, length: Length, new: Length) -> bool {
        let Some(unit) = self.unit_at(at) else {
            return false;
        };
        let laid = self.laid.load(Relaxed);
        let (end, new_end) = (unit + length.units(), unit + new.units());
        // SAFETY: the unit is the block's.
        let is_it = unsafe { self.live_mark(unit, Some(length)) }.is_some();
        if end != laid as u32 as usize || !is_it || new_end > self.units() {
            return false;
        }
        // SAFETY: it goes no further than to the block's end.
        unsafe { self.set_live(unit, new) };
        self.laid.store(laid - end as u64 + new_end as u64, Relaxed);
        true
    }

    /// How many bytes the live object has that begins at an address: for any address, at any time. Only a checked heap notes all
    /// that are dead.
    pub(crate) fn find(&self, at: usize) -> Result<usize, FreeError> {
        match self.unit_at(at).and_then(|unit| self.length_at(unit)) {
            Some(length) => Ok(length.bytes()),
            None => Err(self.refusal(at)),
        }
    }

    /// Why no object that begins at an address may be freed, or not as one of the length that was asked for.
    #[cold]
    fn refusal(&self, at: usize) -> FreeError {
        let offset = at.wrapping_sub(self.base());
        if offset >= self.units() * UNIT {
            return FreeError::Foreign;
        }
        let (unit, is_at_unit) = (offset / UNIT, offset.is_multiple_of(UNIT));
        if is_at_unit && self.says(unit).is_live() {
            return FreeError::WrongLayout;
        }
        let longest = MAX_SIZE / UNIT;
        let mut before = (unit.saturating_sub(longest)..=unit).rev();
        let found = before.find_map(|unit| Some((unit, self.length_at(unit)?)));
        let is_inside = found.is_some_and(|(begin, length)| offset < begin * UNIT + length.bytes());
        let was_one = is_at_unit && self.says(unit) == Mark::DEAD;
        if !is_inside && (was_one || offset >= self.used()) {
            FreeError::DoubleFree
        } else {
            FreeError::Interior
        }
    }

    /// The mark of the live object that begins at a unit, of this length where that is known; and what it says. For a checked heap.
    ///
    /// # Safety
    /// The unit is the block's.
    #[inline(always)]
    unsafe fn live_mark(&self, unit: usize, length: Option<Length>) -> Option<(&AtomicU8, Mark)> {
        // SAFETY: the caller's promise.
        let mark = unsafe { self.mark(unit) };
        let seen = Mark(mark.load(Relaxed));
        let is_it = match length {
            Some(length) if length.is_long() => self.length_at(unit) == Some(length),
            Some(length) => seen == Mark::live(length),
            None => seen.is_live(),
        };
        is_it.then_some((mark, seen))
    }

    /// As [`BumpBlock::live_mark`], by an address.
    #[inline(always)]
    fn live_mark_at(
        &self,
        at: usize,
        length: Option<Length>,
    ) -> Result<(&AtomicU8, Mark), FreeError> {
        // SAFETY: the unit is the block's.
        let mark = self
            .unit_at(at)
            .and_then(|unit| unsafe { self.live_mark(unit, length) });
        mark.ok_or_else(|| self.refusal(at))
    }

    #[inline(always)]
    pub(crate) fn is_owned_by<M>(&self, magazines: *const M) -> bool {
        ptr::addr_eq(self.others.owner.load(Relaxed), magazines)
    }

    /// Notes that an object was freed by the owner, which is the caller. A checked heap looks at it first: see
    /// [`BumpBlock::live_mark`].
    #[inline(always)]
    pub(crate) fn free_own(
        &self,
        at: usize,
        length: Option<Length>,
        is_checked: bool,
    ) -> Result<(), FreeError> {
        if is_checked {
            let (mark, _) = self.live_mark_at(at, length)?;
            mark.store(Mark::DEAD.0, Relaxed);
        }
        self.count_own();
        Ok(())
    }

    /// As [`BumpBlock::free_own`], of an object that begins so many bytes behind the block's begin. Whether there was one: if not, nothing
    /// has changed.
    ///
    /// # Safety
    /// The block has more bytes.
    #[inline(always)]
    pub(crate) unsafe fn free_own_at(
        &self,
        offset: usize,
        length: Option<Length>,
        is_checked: bool,
    ) -> bool {
        if is_checked {
            // SAFETY: the caller's promise.
            let mark = unsafe { self.live_mark(offset / UNIT, length) };
            let Some((mark, _)) = mark.filter(|_| offset.is_multiple_of(UNIT)) else {
                return false;
            };
            mark.store(Mark::DEAD.0, Relaxed);
        }
        self.count_own();
        true
    }

    #[inline(always)]
    fn count_own(&self) {
        self.freed.store(self.freed.load(Relaxed) + 1, Relaxed);
    }

    /// As [`BumpBlock::free_own`], by one who is not the owner.
    #[inline]
    pub(crate) fn free_other(
        &self,
        at: usize,
        length: Option<Length>,
        is_checked: bool,
    ) -> Result<Freed, FreeError> {
        if is_checked {
            let (mark, seen) = self.live_mark_at(at, length)?;
            mark.compare_exchange(seen.0, Mark::DEAD.0, Relaxed, Relaxed)
                .map_err(|_| FreeError::DoubleFree)?;
        } else if self.is_watched()
            && let Some(unit) = self.unit_at(at)
        {
            // SAFETY: the unit is the block's.
            unsafe { self.mark(unit) }.store(Mark::DEAD.0, Relaxed);
        }
        Ok(if self.others.count.free(1) {
            Freed::Emptied
        } else {
            Freed::InUse
        })
    }

    /// How many objects were laid since it began.
    #[inline]
    pub(crate) fn made(&self) -> u64 {
        self.laid.load(Relaxed) >> 32
    }

    /// How many objects live by the owner's count: all but those that others freed.
    #[inline]
    fn own_live(&self) -> u64 {
        // After a second free that nobody noticed it is some number, less than a count has room for.
        let made = self.made() as u32;
        made.wrapping_sub(self.freed.load(Relaxed)).into()
    }

    /// Whether all objects are dead. For the owner.
    #[inline]
    pub(crate) fn is_dead(&self) -> bool {
        self.own_live() == self.others.count.others()
    }

    /// How many bytes were laid.
    #[inline]
    pub(crate) fn used(&self) -> usize {
        self.laid_units() * UNIT
    }

    #[inline]
    fn laid_units(&self) -> usize {
        self.laid.load(Relaxed) as u32 as usize
    }

    /// Whether nothing lives by the owner's count, and so nothing at all. For the owner.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.own_live() == 0
    }

    /// The owner leaves the block.
    #[inline]
    pub(crate) fn leave(&self) -> Freed {
        self.others.owner.store(ptr::null_mut(), Relaxed);
        // Nobody else has an object of it, so nobody else counts.
        if self.is_empty() || self.others.count.leave(self.own_live()) {
            Freed::Emptied
        } else {
            Freed::InUse
        }
    }

    /// The era of the epoch that it serves, or served, and where the epoch's record is.
    #[inline]
    pub(crate) fn era(&self) -> u64 {
        self.era.load(Relaxed)
    }

    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.index.load(Relaxed)
    }

    /// How many objects live, and how many bytes of the block they have: by the marks in a checked heap, else as many as an object has in
    /// the mean. Exact at rest, but for the mean.
    pub(crate) fn live(&self, is_checked: bool) -> (u64, u64) {
        let is_owned = !self.others.owner.load(Relaxed).is_null();
        let made = self.made();
        let by_owner = made.saturating_sub(self.freed.load(Relaxed).into());
        let live = self.others.count.live(is_owned, by_owner).min(made);
        let bytes = if is_checked && live > 0 {
            self.lengths().map(|length| length.bytes() as u64).sum()
        } else {
            self.used() as u64 * live / made.max(1)
        };
        (live, bytes)
    }

    /// Whether it is somebody's: of a local, or left. For an empty one it is not known that it is not.
    pub(crate) fn is_block(&self) -> bool {
        self.slab.identity().key().class() == Key::BLOCK
    }

    /// Objects that live by the marks. For the walker, in a checked heap at rest.
    #[cfg(feature = "walker")]
    pub(crate) fn marked(&self) -> u64 {
        (0..self.units())
            .filter(|unit| self.says(*unit).is_live())
            .count() as u64
    }
}
