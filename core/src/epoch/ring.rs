//! The ring's books: which position serves which era, and what is known of it.

use super::{ERAS, Epoch, EpochError, EpochState, Label};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering, load_in_order};
use core::num::NonZeroU64;
use core::ptr::{self, NonNull};

/// What the allocation path reads of a position. `T` is what serves its epoch, which this layer only
/// points to.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Position<T> {
    /// An era, 0, or [`CLAIMED`]. `Relaxed` where it is a hint, `SeqCst` where it ends and where the position is claimed, `Release` where it
    /// begins, `Acquire` in `open_era`: see the head of `epoch`.
    open: AtomicU64,
    /// `Release` in `Position::attach`, `Acquire` in `Position::depot`: who sees a depot sees a placed one.
    depot: AtomicPtr<T>,
    /// What keeps the position from another era. Orderings: see `pin`, `unpin` and `claim`. `Relaxed` elsewhere.
    pins: AtomicU64,
    /// The newest era here; 0 before the first, and while the next one begins. And when it was opened, by the provider's clock and one, or
    /// 0. Orderings: see `Position::open`.
    era: AtomicU64,
    opened_at: AtomicU64,
    /// Under the ring's lock.
    pub(super) record: core::cell::UnsafeCell<Record>,
}

/// What keeps a position from another era: `[63:32] units of the objects | [31:0] how many pins`. A pin is that of a bump block, or of an
/// object in a mixed slab, which counts its length in units of [`Pin::UNIT`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pins(u64);

impl Pins {
    /// More than any epoch has, and less than there is room for.
    const MOST: u32 = 1 << 31;

    pub(crate) const fn count(self) -> u32 {
        self.0 as u32
    }

    /// Bytes of the objects.
    #[cfg(not(loom))]
    pub(crate) const fn object_bytes(self) -> u64 {
        (self.0 >> 32) * Pin::UNIT as u64
    }
}

/// One pin, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin(u64);

impl Pin {
    /// Of a bump block.
    pub(crate) const BLOCK: Self = Self(1);
    /// What the lengths of objects are multiples of.
    pub(crate) const UNIT: usize = 16;

    /// Of an object of so many bytes in a mixed slab.
    #[cfg(not(loom))]
    pub(crate) const fn object(bytes: usize) -> Self {
        Self(((bytes / Self::UNIT) as u64) << 32 | 1)
    }
}

/// What `open` says while a thread has claimed the position: no era.
const CLAIMED: u64 = u64::MAX;

/// What is drawn and noted when an epoch is opened, without a lock.
#[derive(Debug)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct Openings {
    /// `Release` when an era is drawn, `Acquire` in `last_era`: who sees the era sees that a position is claimed for it.
    last_era: AtomicU64,
    /// The position that was looked at last: the next search begins behind it. `Relaxed`: a hint.
    last_index: AtomicU32,
    /// The position that a CPU opened last, each on a line of its own. `Relaxed`: a hint.
    near: [Near; NEAR],
}

/// CPUs that have a hint each; others share theirs.
const NEAR: usize = if cfg!(loom) { 1 } else { 16 };

/// On a line of its own. `Relaxed`: a hint.
#[derive(Debug)]
#[cfg_attr(loom, derive(Default))]
#[repr(align(64))]
struct Near(AtomicU32);

impl Openings {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            last_era: AtomicU64::new(0),
            last_index: AtomicU32::new(0),
            near: [const { Near(AtomicU32::new(0)) }; NEAR],
        }
    }

    /// Where a CPU notes the position that it opens: at its next epoch that is free again as a rule, and the CPU has its line.
    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn near(&self, cpu: u32) -> &AtomicU32 {
        &self.near[cpu as usize % NEAR].0
    }

    pub(crate) fn last_index(&self) -> usize {
        self.last_index.load(Ordering::Relaxed) as usize
    }

    /// Notes how far positions were looked at.
    pub(crate) fn looked_at(&self, index: u32) {
        self.last_index.store(index, Ordering::Relaxed);
    }

    /// The era that was drawn last.
    pub(crate) fn last_era(&self) -> u64 {
        self.last_era.load(Ordering::Acquire)
    }

    /// Opens a claimed position in a new era, unless there are no more.
    #[inline]
    pub(crate) fn open<T>(
        &self,
        position: &Position<T>,
        index: u32,
        now: Option<u64>,
    ) -> Result<Epoch, EpochError> {
        let era = self.last_era.fetch_add(1, Ordering::Release) + 1;
        let Some(era) = NonZeroU64::new(era).filter(|era| era.get() < ERAS) else {
            self.last_era.fetch_sub(1, Ordering::Relaxed);
            position.give_back();
            return Err(EpochError::RingFull);
        };
        position.open(era, now);
        Ok(Epoch::new(index, era))
    }
}

/// What [`Position::close_at_once`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtOnce {
    NotClosed,
    Closed,
    /// It is closed, and has a depot by now that is to be shut.
    HasDepot,
}

/// What else is known of a position's epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    /// Of which era it is. When it is asked for in another one it begins anew.
    era: u64,
    pub(crate) label: Label,
    pub(crate) domains: u32,
    pub(crate) last_close: Option<(u64, u64)>,
}

impl Record {
    const EMPTY: Self = Self {
        era: 0,
        label: Label::new(""),
        domains: 0,
        last_close: None,
    };

    /// One more is inside.
    pub(crate) const fn enter(&mut self) {
        self.domains = self.domains.saturating_add(1);
    }

    /// One less is inside; how many are left, or `None` if nobody was. A count that is full stays so: nobody knows how many
    /// went uncounted, and an epoch that stays open is better than one that closes under them.
    pub(crate) const fn leave(&mut self) -> Option<u32> {
        if self.domains == u32::MAX {
            return Some(u32::MAX);
        }
        let Some(left) = self.domains.checked_sub(1) else {
            return None;
        };
        self.domains = left;
        Some(left)
    }
}

impl<T> Position<T> {
    pub(crate) fn new() -> Self {
        Self {
            open: AtomicU64::new(0),
            depot: AtomicPtr::new(ptr::null_mut()),
            pins: AtomicU64::new(0),
            era: AtomicU64::new(0),
            opened_at: AtomicU64::new(0),
            record: core::cell::UnsafeCell::new(Record::EMPTY),
        }
    }

    /// One that the caller has claimed.
    #[cfg(not(loom))]
    pub(crate) fn claimed() -> Self {
        Self {
            open: AtomicU64::new(CLAIMED),
            ..Self::new()
        }
    }

    /// Whether the position accepts allocations in this era.
    #[inline]
    pub(crate) fn is_open_in(&self, era: NonZeroU64) -> bool {
        self.is_open_at(era.get())
    }

    /// As [`Position::is_open_in`], of an era's number: of none it is not.
    #[inline]
    pub(crate) fn is_open_at(&self, era: u64) -> bool {
        self.open.load(Ordering::Relaxed) == era
    }

    /// The word that says in which era the position accepts allocations, for one who asks again and again: see [`Position::is_open_at`].
    #[cfg(not(loom))]
    pub(crate) const fn open_word(&self) -> &AtomicU64 {
        &self.open
    }

    /// The depot, if the position accepts allocations in this era.
    #[inline]
    pub(crate) fn open_depot(&self, era: NonZeroU64) -> Option<&T> {
        if self.is_open_in(era) {
            self.depot()
        } else {
            None
        }
    }

    #[inline]
    pub(crate) fn depot(&self) -> Option<&T> {
        // SAFETY: depots stay valid for as long as the heap.
        unsafe { self.depot.load(Ordering::Acquire).as_ref() }
    }

    /// Ends the era, if it is open and has no depot. If it gets one meanwhile, one of the two that meet here shuts that, or both:
    /// the era ends and then the depot is looked for; a depot is attached and then [`Position::is_open_still`] asks, by
    /// a read-modify-write. Of the two changes of `open` the later one sees what was before the earlier one.
    #[inline]
    pub(crate) fn close_at_once(&self, era: NonZeroU64) -> AtOnce {
        let is_closed = self.depot().is_none()
            && self
                .open
                .compare_exchange(era.get(), 0, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok();
        match (is_closed, self.depot()) {
            (false, _) => AtOnce::NotClosed,
            (true, None) => AtOnce::Closed,
            (true, Some(_)) => AtOnce::HasDepot,
        }
    }

    /// Whether the position is open in an era still, after a depot was attached, while the caller has a pin: see
    /// [`Position::close_at_once`].
    pub(crate) fn is_open_still(&self, era: NonZeroU64) -> bool {
        self.open.fetch_or(0, Ordering::Release) == era.get()
    }

    /// Ends an era, which may be over already. Whether the position was neither claimed nor opened since. Under the ring's lock.
    pub(crate) fn shut(&self, era: u64) -> bool {
        let shut = self
            .open
            .compare_exchange(era, 0, Ordering::SeqCst, Ordering::Relaxed);
        matches!(shut, Ok(_) | Err(0))
    }

    /// Counts one pin more for an era, which keeps the position from another one; not if it does not accept allocations, or has more
    /// pins than can be counted.
    ///
    /// The pin is counted and then the era is read; the thread that claims the position sees that it is closed and then reads the
    /// count. These four and the close are `SeqCst`, so of the two the one that comes second sees the first: the count, or the close.
    #[inline]
    pub(crate) fn pin(&self, era: NonZeroU64, pin: Pin) -> bool {
        let before = self.pins.fetch_add(pin.0, Ordering::SeqCst);
        let is_open = self.open.load(Ordering::SeqCst) == era.get();
        let is_pinned = is_open && Pins(before).count() < Pins::MOST;
        if !is_pinned {
            self.unpin(pin);
        }
        is_pinned
    }

    /// Counts one pin more, for a local that has one of the epoch.
    #[cfg(not(loom))]
    pub(crate) fn pin_more(&self, pin: Pin) {
        self.pins.fetch_add(pin.0, Ordering::Relaxed);
    }

    /// Ends a pin. `Release`: the thread that claims the position sees the depot that was attached with the pin.
    #[inline]
    pub(crate) fn unpin(&self, pin: Pin) {
        self.pins.fetch_sub(pin.0, Ordering::Release);
    }

    /// Whether it may be claimed, for all that its pins say: a hint.
    #[inline]
    fn is_free(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0 && self.pins.load(Ordering::Relaxed) == 0
    }

    /// Claims the position for a new era, if it is neither open nor claimed, and no pin keeps it: see [`Position::pin`]. The caller
    /// opens it next, or gives it back.
    #[inline]
    pub(crate) fn claim(&self) -> bool {
        let is_claimed = self.is_free()
            && self
                .open
                .compare_exchange(0, CLAIMED, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok();
        if is_claimed && load_in_order(&self.pins) != 0 {
            self.give_back();
            return false;
        }
        is_claimed
    }

    /// As [`Position::claim`], if it has no depot. Only under the ring's lock one with a depot can be claimed: it has to leave that.
    ///
    /// No depot comes after the look: who attaches one has a pin, and sees then that the epoch is open still.
    #[inline]
    pub(crate) fn claim_bare(&self) -> bool {
        let is_bare = || self.depot().is_none();
        if !is_bare() || !self.claim() {
            return false;
        }
        if !is_bare() {
            self.give_back();
            return false;
        }
        true
    }

    /// Gives a claimed position back. `Relaxed`: nothing was done with it.
    pub(crate) fn give_back(&self) {
        self.open.store(0, Ordering::Relaxed);
    }

    /// Opens a claimed position.
    ///
    /// Each store but the first is `Release`, and read with `Acquire`: who sees the era open, or its number, sees its time; who sees its time
    /// does not see the number of the era before.
    #[inline]
    pub(crate) fn open(&self, era: NonZeroU64, now: Option<u64>) {
        self.era.store(0, Ordering::Relaxed);
        let opened_at = now.map_or(0, |now| now.saturating_add(1));
        self.opened_at.store(opened_at, Ordering::Release);
        self.era.store(era.get(), Ordering::Release);
        self.open.store(era.get(), Ordering::Release);
    }

    /// The newest era, or 0: see [`Position::open`].
    #[inline]
    pub(crate) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// The era that is open, or else the newest, or 0; and whether it is open.
    #[cfg(not(loom))]
    pub(crate) fn newest(&self) -> (u64, bool) {
        match self.open_era() {
            0 => (self.era(), false),
            era => (era, true),
        }
    }

    /// When an era was opened, which the caller saw here, if that is known and it is the position's newest still.
    pub(crate) fn opened_at(&self, era: NonZeroU64) -> Option<u64> {
        let opened_at = self.opened_at.load(Ordering::Acquire);
        let is_newest = self.era() == era.get();
        opened_at.checked_sub(1).filter(|_| is_newest)
    }

    /// The pins. One who asks after a close sees each that was: see [`Position::pin`].
    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn pins(&self) -> Pins {
        Pins(load_in_order(&self.pins))
    }

    /// A depot serves the position's epoch from now on. Under the ring's lock; the depot's tag says so already.
    pub(crate) fn attach(&self, depot: NonNull<T>) {
        self.depot.store(depot.as_ptr(), Ordering::Release);
    }

    /// Forgets the depot, which has nothing of this position's epoch any more. Under the ring's lock.
    pub(crate) fn detach(&self) {
        // Nothing is found by a null, so nothing needs to be before it.
        self.depot.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Whether it is open, or a thread has claimed it to open it.
    pub(crate) fn is_taken(&self) -> bool {
        self.open.load(Ordering::Relaxed) != 0
    }

    /// The era that is open, or 0. `Acquire`: see [`Position::open`].
    pub(crate) fn open_era(&self) -> u64 {
        match self.open.load(Ordering::Acquire) {
            CLAIMED => 0,
            era => era,
        }
    }
}

// SAFETY: a position is atomic but for its record, which the ring's lock guards.
unsafe impl<T: Sync> Sync for Position<T> {}

/// What the ring's lock guards, beside the positions' records.
#[derive(Debug)]
pub(crate) struct Books {
    /// The epoch that was made current last, if any was: the whole token, for its position may serve
    /// another by now.
    pub(crate) current: Option<Epoch>,
    depots: u16,
}

impl Books {
    pub(crate) const fn new() -> Self {
        Self {
            current: None,
            depots: 0,
        }
    }

    /// A number for a new depot.
    pub(crate) fn next_depot(&mut self) -> Option<u16> {
        let id = self.depots;
        self.depots = id.checked_add(1)?;
        Some(id)
    }

    /// The record of a position.
    ///
    /// The `&mut self` says that the ring's lock is held.
    #[expect(
        clippy::mut_from_ref,
        reason = "the ring's lock, which `self` stands for, guards it"
    )]
    fn record<'p, T>(&mut self, position: &'p Position<T>) -> &'p mut Record {
        // SAFETY: the books are behind the ring's lock, so there is one borrow of them at a time,
        // and no caller keeps a record beyond its own.
        let record = unsafe { &mut *position.record.get() };
        let era = position.era();
        if record.era != era {
            *record = Record {
                era,
                ..Record::EMPTY
            };
        }
        record
    }

    /// The record of a token, if its position, which is given, is still of the token's era.
    pub(crate) fn of<'p, T>(
        &mut self,
        position: Option<&'p Position<T>>,
        epoch: Epoch,
    ) -> Result<(&'p Position<T>, &'p mut Record), EpochError> {
        let position = position.ok_or(EpochError::Closed)?;
        let record = self.record(position);
        if record.era != epoch.era() {
            return Err(EpochError::Closed);
        }
        Ok((position, record))
    }

    /// The epoch that is current: the root epoch where the one that was made so is closed.
    /// `at` gives positions.
    pub(crate) fn current<'p, T: 'p>(
        &self,
        at: impl Fn(usize) -> Option<&'p Position<T>>,
    ) -> Option<Epoch> {
        let is_open = |epoch: Epoch| at(epoch.index())?.is_open_at(epoch.era()).then_some(epoch);
        let era = || NonZeroU64::new(at(0)?.era());
        self.current
            .and_then(is_open)
            .or_else(|| Some(Epoch::new(0, era()?)))
    }

    pub(crate) fn state<T>(position: &Position<T>, epoch: Epoch) -> EpochState {
        if position.is_open_at(epoch.era()) {
            EpochState::Active
        } else {
            EpochState::Closing
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Catches an era that is given out twice, and an error that ends after some tries.
    #[test]
    fn eras_end_with_an_error() {
        let openings = Openings::new();
        openings.last_era.store((1 << 63) - 2, Ordering::Relaxed);
        let position = Position::<()>::new();
        assert!(position.claim());
        let last = openings.open(&position, 1, None).map(Epoch::era);
        assert_eq!(last, Ok((1 << 63) - 1));
        assert!(position.shut((1 << 63) - 1));
        for _ in 0..3 {
            assert!(position.claim_bare());
            let next = openings.open(&position, 1, None);
            assert_eq!(next, Err(EpochError::RingFull));
            assert_eq!(openings.last_era(), (1 << 63) - 1);
        }
    }

    /// Catches a full count that goes down: an epoch would be closed under those who were not counted.
    #[test]
    fn a_full_count_of_domains_stays_full() {
        let mut record = Record::EMPTY;
        assert_eq!(record.leave(), None, "nobody was inside");
        record.enter();
        assert_eq!((record.leave(), record.leave()), (Some(0), None));
        record.domains = u32::MAX - 1;
        record.enter();
        record.enter();
        assert_eq!(record.leave(), Some(u32::MAX));
        assert_eq!(record.leave(), Some(u32::MAX));
        record.domains = u32::MAX - 1;
        assert_eq!(record.leave(), Some(u32::MAX - 2));
    }

    /// Catches a depot's number that is given out twice, or that means no depot.
    #[test]
    fn depots_end_with_an_error() {
        let mut books = Books::new();
        books.depots = u16::MAX - 1;
        assert_eq!(books.next_depot(), Some(u16::MAX - 1));
        assert_eq!((books.next_depot(), books.next_depot()), (None, None));
    }
}
