//! A slab and its word: claim, give back, full, empty.
//!
//! # States
//!
//! A slab's whole shared state is `free`, the slots that nobody holds. At all times
//!
//! ```text
//! free  |  words held (locals, the depot's cache, a claimer)  |  live  =  all slots,   disjoint.
//! ```
//!
//! - *pinned*: somebody holds a bit. The slab cannot become empty, so its body (base, depot, chunk)
//!   and its identity cannot change, and the holder may read them.
//! - *claimed*: `free` went from `all` to 0 by one CAS. The winner holds every bit and is the only
//!   owner; it alone may cache the slab, recycle it and write its body.
//! - *cached*, *unused*: owned by a depot's cache or by the list of unused slabs; `free` is 0, so
//!   a thread that still has a pointer to the slab can take nothing from it.
//!
//! # Orderings
//!
//! - `give` is `Release` (and `SeqCst`, for `ClassList::set_closed`): the holder's last accesses to its slots,
//!   and an owner's writes to the body, happen before whatever takes those bits. It pairs with the
//!   `Acquire` of `take_all`, `take_bit` and `claim`. All changes of `free` are read-modify-writes, so
//!   each of them continues the release sequences of all gives before it, and every give happens
//!   before a claim or take that follows it, not only the last one.
//! - `claim` is `Acquire` although the give before it is `SeqCst`: between the two another may have
//!   taken a slot and given it back, and that must happen before the claim, too.
//! - `free_settled` is `Release`: it happens before a give that reads it or what follows it. It pairs with the `give`.
//! - `publish` is `Release`: only an owner calls it, and all that the owner did happens before a take. It is a
//!   read-modify-write, so that it and the takes that found nothing have one order.
//! - `identity` is `Relaxed` for those who hold a bit, which they got by an `Acquire` after the owner's `Release`, or
//!   the lock under which the owner wrote. A look-up, which has neither but only an address, reads it `Acquire`
//!   ([`Slab::seen`]): `adopt` stores it `Release` after the body, so that it sees this life's body or a later one.
//!   What it decides by that it decides again by a compare-and-swap on the identity, or by a mark.
//! - `body` is atomic, `Relaxed`: a context that does not pin the slab may read it, and see parts of two lives.

mod entry;
#[cfg(not(loom))]
mod mark;

#[cfg(not(loom))]
use crate::sync::{AtomicPtr, AtomicU32};
use crate::sync::{AtomicU64, Cell, Ordering};
use core::fmt;
use core::ptr;

#[cfg(not(loom))]
pub(crate) use mark::{FREE, LIVE, MARKS_AT, SlotName};

/// What a slab is for, and in which of its lives: `[63:24] incarnation | [23:8] depot | [7:0] class`.
///
/// The incarnation moves on at each claim that recycles or caches, so two lives never compare equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity(u64);

/// The depot (epoch) and class of a slab, without its incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key(u32);

impl Key {
    /// The class of the slab of what was a bump block.
    pub(crate) const NO_BLOCK: u8 = 251;
    /// The class of a bump block's slab.
    pub(crate) const BLOCK: u8 = 252;
    /// The class of a slab that is one object which no class serves, a run or an extent by its length.
    pub(crate) const SINGLE: u8 = 254;
    /// The key of a slab that was one object and is on its way back.
    const DEAD: Self = Self::new(u16::MAX, 253);

    pub(crate) fn is_dead(self) -> bool {
        self == Self::DEAD
    }

    pub(crate) const fn new(depot: u16, class: u8) -> Self {
        Self((depot as u32) << 8 | class as u32)
    }
    pub(crate) const fn depot(self) -> u16 {
        (self.0 >> 8) as u16
    }
    pub(crate) const fn class(self) -> u8 {
        self.0 as u8
    }
}

impl Identity {
    const INCARNATION: u64 = 1 << 24;
    /// A slab that reaches this incarnation is retired: nothing wraps. A few are left above it for those
    /// that are claimed on the way there.
    const LAST: u64 = u64::MAX / Self::INCARNATION - 8;

    pub(crate) const fn key(self) -> Key {
        Key((self.0 % Self::INCARNATION) as u32)
    }
    const fn incarnation(self) -> u64 {
        self.0 / Self::INCARNATION
    }
    const fn next(self) -> Self {
        Self(self.0.wrapping_add(Self::INCARNATION))
    }
    const fn with_key(self, key: Key) -> Self {
        Self(self.0 - self.0 % Self::INCARNATION + key.0 as u64)
    }
}

/// Where a slab's objects are and whom it serves. Stable while the slab is pinned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body {
    /// The first slot.
    pub(crate) base: *mut u8,
    /// The depot that the slab belongs to.
    pub(crate) depot: *const (),
    /// The chunk that its memory came from.
    pub(crate) chunk: *mut (),
    /// How many granules it has.
    pub(crate) granules: u32,
}

/// A body in words that anybody may read. `Relaxed`: see the head.
#[cfg(not(loom))]
#[derive(Debug)]
struct BodyCell {
    base: AtomicPtr<u8>,
    depot: AtomicPtr<()>,
    chunk: AtomicPtr<()>,
    granules: AtomicU32,
}

#[cfg(not(loom))]
impl BodyCell {
    const fn new(body: Body) -> Self {
        Self {
            base: AtomicPtr::new(body.base),
            depot: AtomicPtr::new(body.depot.cast_mut()),
            chunk: AtomicPtr::new(body.chunk),
            granules: AtomicU32::new(body.granules),
        }
    }

    #[inline(always)]
    fn get(&self) -> Body {
        Body {
            base: self.base.load(Ordering::Relaxed),
            depot: self.depot.load(Ordering::Relaxed),
            chunk: self.chunk.load(Ordering::Relaxed),
            granules: self.granules.load(Ordering::Relaxed),
        }
    }

    fn set(&self, body: Body) {
        self.base.store(body.base, Ordering::Relaxed);
        self.depot.store(body.depot.cast_mut(), Ordering::Relaxed);
        self.chunk.store(body.chunk, Ordering::Relaxed);
        self.granules.store(body.granules, Ordering::Relaxed);
    }
}

/// A body that loom watches: in a model nobody reads it without a pin.
#[cfg(loom)]
#[derive(Debug)]
struct BodyCell(Cell<Body>);

#[cfg(loom)]
impl BodyCell {
    fn new(body: Body) -> Self {
        Self(Cell::new(body))
    }
    fn get(&self) -> Body {
        // SAFETY: loom fails the model if a writer is about.
        unsafe { self.0.get() }
    }
    fn set(&self, body: Body) {
        // SAFETY: loom fails the model if anyone else is about.
        unsafe { self.0.set(body) }
    }
}

/// A slab's place in a list: its class list's lock guards it, or its owner while it is in no class list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) next: *const Slab,
    /// The slab before, the slab itself for the first of a list, null when in no list.
    pub(crate) prev: *const Slab,
}

/// The metadata of one slab: one cache line, type-stable, never in object pages.
#[repr(C, align(64))]
pub(crate) struct Slab {
    /// The slots that nobody holds. Orderings, and what they pair with: see the head.
    free: AtomicU64,
    /// `Relaxed`: see the head.
    identity: AtomicU64,
    body: BodyCell,
    link: Cell<Link>,
}

#[cfg(all(not(loom), target_pointer_width = "64"))]
const _: () = assert!(size_of::<Slab>() == 64);

// SAFETY: `link` is guarded as its type states; the rest is atomic. The raw pointers
// are not dereferenced here.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

/// The bits of a word that were free already when they were given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoubleFree(pub(crate) u64);

/// What a give back did to the slab's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// The slab had free slots and still has held ones: nothing else to do.
    More,
    /// The slab had no free slot: it is to be listed, if it is still in this life.
    WasFull(Identity),
    /// The slab is empty and the caller is its owner now.
    Claimed,
    /// The slab was recycled before the caller's claim, which got these slots of its next life: the caller
    /// holds them, and gives them back to where they belong now.
    Strayed(u64),
}

/// What a claim by one who does not pin the slab came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The caller is the owner.
    Won,
    /// Somebody else is, or was, or the slab is not empty.
    Lost,
    /// It got these slots, of another life of the slab.
    Strayed(u64),
}

impl Slab {
    /// An unused slab.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            free: AtomicU64::new(0),
            identity: AtomicU64::new(0),
            body: BodyCell::new(Self::NOWHERE),
            link: Cell::new(Self::UNLISTED),
        }
    }
    /// An unused slab.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            free: AtomicU64::new(0),
            identity: AtomicU64::new(0),
            body: BodyCell::new(Self::NOWHERE),
            link: Cell::new(Self::UNLISTED),
        }
    }

    const NOWHERE: Body = Body {
        base: ptr::null_mut(),
        depot: ptr::null(),
        chunk: ptr::null_mut(),
        granules: 0,
    };
    pub(crate) const UNLISTED: Link = Link {
        next: ptr::null(),
        prev: ptr::null(),
    };

    /// The slots that nobody holds, as of some moment.
    #[inline]
    pub(crate) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// As [`Slab::free`], in one order with the gives: see `ClassList::set_closed`.
    pub(crate) fn free_in_order(&self) -> u64 {
        self.free.load(Ordering::SeqCst)
    }

    /// As [`Slab::free`], and in one order with every give: it either finds the give's bits, or the give
    /// is behind all that this context did before. See `TaggedSlab::retire`. Who finds what it looks for
    /// claims, with `Acquire`, so `Release` is enough here.
    pub(crate) fn free_settled(&self) -> u64 {
        self.free.fetch_or(0, Ordering::Release)
    }

    /// The identity. Stable while the caller pins the slab or holds its class list's lock.
    #[inline]
    pub(crate) fn identity(&self) -> Identity {
        self.identity.load(Ordering::Relaxed).into()
    }

    /// Where the slab lies and whom it serves.
    ///
    /// # Safety
    /// The caller pins the slab or owns it.
    #[inline]
    pub(crate) unsafe fn body(&self) -> Body {
        self.body.get()
    }

    /// As [`Slab::identity`] and [`Slab::body`], for one who has only an address: it may be over at once, and the body be
    /// of a later life than the identity.
    #[cfg(not(loom))]
    pub(crate) fn seen(&self) -> (Identity, Body) {
        let identity = self.identity.load(Ordering::Acquire);
        (identity.into(), self.body.get())
    }

    /// # Safety
    /// The caller holds the lock of the class list that the slab's key names, or owns the slab.
    pub(crate) unsafe fn link(&self) -> Link {
        // SAFETY: the caller excludes writers.
        unsafe { self.link.get() }
    }

    /// # Safety
    /// As for [`Slab::link`].
    pub(crate) unsafe fn set_link(&self, link: Link) {
        // SAFETY: the caller excludes everyone else.
        unsafe { self.link.set(link) }
    }

    /// Gives an owned slab a new purpose. The owner holds every slot.
    ///
    /// # Safety
    /// The caller owns the slab, and it is in no list.
    pub(crate) unsafe fn adopt(&self, key: Key, body: Body) {
        self.body.set(body);
        let identity = self.identity().with_key(key);
        self.identity.store(identity.0, Ordering::Release);
    }

    /// Says how long a single object is that was made longer or shorter where it is.
    ///
    /// # Safety
    /// The caller pins the slab, by the object that is all of it.
    #[cfg(not(loom))]
    pub(crate) unsafe fn set_granules(&self, granules: u32) {
        self.body.granules.store(granules, Ordering::Relaxed);
    }

    /// Ends this life of an owned slab: whoever remembers its identity will see that it changed.
    /// `false` if that was the last one; the slab must then never be used again.
    ///
    /// # Safety
    /// The caller owns the slab and holds the lock of its class list.
    pub(crate) unsafe fn end_life(&self) -> bool {
        let identity = self.identity().next();
        self.identity.store(identity.0, Ordering::Relaxed);
        identity.incarnation() < Identity::LAST
    }

    /// Opens an owned slab with `word` free. The caller keeps the other slots.
    ///
    /// # Safety
    /// The caller owns the slab. From here on it is only a holder of the slots not in `word`.
    pub(crate) unsafe fn publish(&self, word: u64) {
        self.free.swap(word, Ordering::Release);
    }

    /// Takes every free slot.
    #[inline]
    pub(crate) fn take_all(&self) -> u64 {
        self.free.swap(0, Ordering::Acquire)
    }

    /// Takes the slot `bit` (a single bit) if it is free.
    #[inline]
    pub(crate) fn take_bit(&self, bit: u64) -> bool {
        self.free.fetch_and(!bit, Ordering::Acquire) & bit != 0
    }

    /// Gives the slots in `word`, which the caller holds, back. `all` is the class's; `retired` tells which
    /// of them are out of use in this life, and is asked after the give: see `TaggedSlab::retire`.
    ///
    /// `may_claim` is asked, with all slots that are in use, when the slab became empty; if it says no, the
    /// slab stays listed and whole.
    ///
    /// On a double free the slots that were rightly held are given back, the others stay as they
    /// are, and the slab is left where it is.
    ///
    /// # Safety
    /// The caller holds at least one slot of `word`, so it pins the slab until this call.
    #[inline]
    pub(crate) unsafe fn give(
        &self,
        word: u64,
        all: u64,
        retired: impl FnOnce() -> u64,
        may_claim: impl FnOnce(u64) -> bool,
    ) -> Result<Given, DoubleFree> {
        // A whole word: nobody else can hold or free anything, unless somebody freed twice.
        if word == all && self.free() == 0 {
            // The slab was pinned by us alone, so there is no earlier giver to be behind except
            // those whose bits we took, with `Acquire`.
            return Ok(Given::Claimed);
        }
        let identity = self.identity();
        // `Release`, and `SeqCst` for the sake of `ClassList::set_closed`.
        let old = self.free.fetch_or(word, Ordering::SeqCst);
        if old & word != 0 {
            return Err(DoubleFree(old & word));
        }
        let all = all & !retired();
        if old | word == all {
            return Ok(if may_claim(all) {
                match self.claim_in(identity, all) {
                    Claim::Won => Given::Claimed,
                    Claim::Lost => Given::More,
                    Claim::Strayed(word) => Given::Strayed(word),
                }
            } else {
                Given::More
            });
        }
        Ok(if old == 0 {
            Given::WasFull(identity)
        } else {
            Given::More
        })
    }

    /// For a slab that is one object and that the caller saw in the life `seen`: ends that life and
    /// makes the caller, who frees the object, the owner. Of two frees that meet one wins, and `free`
    /// stays 0 throughout, so an outdated hint can take nothing from it. Gives, if it won, whether the
    /// slab may be used again.
    pub(crate) fn claim_single(&self, seen: Identity) -> Option<bool> {
        let dead = seen.next().with_key(Key::DEAD);
        // `Relaxed`: the object's holder and the freeing thread were ordered by whoever passed the
        // pointer on, and the winner needs nothing of the loser.
        self.identity
            .compare_exchange(seen.0, dead.0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
            .then(|| dead.incarnation() < Identity::LAST)
    }

    /// As [`Slab::claim`], for one who saw the slab in the life `seen` and does not pin it any more. It may
    /// have been claimed by another, recycled, and be in a life in which just these slots are free. Whoever
    /// takes them pins the slab, so the identity that is read then stays, and tells.
    pub(crate) fn claim_in(&self, seen: Identity, all: u64) -> Claim {
        if !self.claim(all) {
            Claim::Lost
        } else if self.identity() == seen {
            Claim::Won
        } else {
            Claim::Strayed(all)
        }
    }

    /// Makes the caller the owner if every slot is free, and the slab is in the life that the caller means:
    /// it is in a list whose lock the caller holds, or see [`Slab::claim_in`]. Of any number of callers one wins; a slab
    /// without slots, all of them being retired, is won by none.
    pub(crate) fn claim(&self, all: u64) -> bool {
        all != 0
            && self
                .free
                .compare_exchange(all, 0, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }
}

impl From<u64> for Identity {
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("free", &format_args!("{:#018x}", self.free()))
            .field("identity", &self.identity())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Of two frees of one object that both passed their checks, the second must not win against the
    /// next object that got the same metadata. Catches a claim that compares with an identity read
    /// anew.
    #[test]
    fn a_single_object_is_claimed_in_the_life_that_was_seen() {
        let (slab, key) = (Slab::new(), Key::new(0, Key::SINGLE));
        // SAFETY: nobody else knows the slab.
        unsafe { slab.adopt(key, Slab::NOWHERE) };
        let seen = slab.identity();
        assert_eq!(slab.claim_single(seen), Some(true));
        assert_eq!(slab.claim_single(seen), None, "the second free");
        // SAFETY: the claim made this test the owner.
        unsafe { slab.adopt(key, Slab::NOWHERE) };
        assert_eq!(slab.identity().key(), seen.key());
        assert_eq!(slab.claim_single(seen), None, "a free of the object before");
        assert_eq!(slab.claim_single(slab.identity()), Some(true));
    }

    /// Catches an incarnation that wraps: a slab at its last one is not used again.
    #[test]
    fn incarnations_do_not_wrap() {
        let slab = Slab::new();
        slab.identity.store(
            (Identity::LAST - 2) * Identity::INCARNATION,
            Ordering::Relaxed,
        );
        // SAFETY: nobody else knows the slab.
        let lives = unsafe { [slab.end_life(), slab.end_life(), slab.end_life()] };
        assert_eq!(lives, [true, false, false]);
        let last = |lives: u64| Identity((Identity::LAST - lives) * Identity::INCARNATION);
        for (left, may_go_on) in [(3, true), (2, true), (1, false)] {
            slab.identity.store(last(left).0, Ordering::Relaxed);
            let claimed = slab.claim_single(last(left));
            assert_eq!(claimed, Some(may_go_on), "{left} before the last");
        }
        // Nearly all that the bits can count, and some are left for those on the way.
        let last = core::hint::black_box(Identity::LAST);
        assert!(last > (1 << 40) - 100 && last + 8 < 1 << 40, "{last}");
    }
}
