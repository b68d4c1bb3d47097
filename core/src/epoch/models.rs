//! Loom models of the ring: what two threads that advance or close at the same time come to.
//!
//! Each model was seen to fail once with the mutation named above it, and passes without.

use super::ring::{AtOnce, Books, Openings, Pin, Position};
use super::{Epoch, EpochError, EpochState, Serves, Tag};
use crate::sync::Lock;
use core::ptr::NonNull;
use loom::sync::Arc;
use loom::thread;

/// A ring of three positions, the first of which is the root's, and what serves each.
struct Ring {
    positions: [Position<Serves>; 3],
    depots: [Serves; 3],
    openings: Openings,
    books: Lock<spin::Mutex<()>, Books>,
}

// SAFETY: positions are atomic but for what the lock guards.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    fn new() -> Arc<Self> {
        let ring = Arc::new(Self {
            positions: [(); 3].map(|()| Position::new()),
            depots: [(); 3].map(|()| Serves::nothing()),
            openings: Openings::default(),
            books: Lock::new(Books::new()),
        });
        ring.open(0).unwrap();
        ring
    }

    /// What `Heap` does under the ring's lock to open a free position, and then to give the epoch a depot.
    fn open(&self, index: u32) -> Result<Epoch, EpochError> {
        self.books.with(|_| self.open_locked(index))
    }

    fn open_locked(&self, index: u32) -> Result<Epoch, EpochError> {
        let (position, depot) = (
            &self.positions[index as usize],
            &self.depots[index as usize],
        );
        if !position.claim() {
            return Err(EpochError::RingFull);
        }
        position.detach();
        let epoch = self.openings.open(position, index, None)?;
        depot.set(epoch.tag());
        position.attach(NonNull::from(depot));
        Ok(epoch)
    }

    /// What `Heap` does without a lock to open a position.
    fn open_bare(&self, index: u32) -> Option<Epoch> {
        self.open_bare_at(index, None)
    }

    /// As [`Ring::open_bare`], at a time.
    fn open_bare_at(&self, index: u32, now: Option<u64>) -> Option<Epoch> {
        let position = &self.positions[index as usize];
        let is_claimed = position.claim_bare();
        is_claimed.then(|| self.openings.open(position, index, now).unwrap())
    }

    /// Closes an epoch that has no depot.
    fn close_bare(&self, epoch: Epoch) {
        let position = &self.positions[epoch.index()];
        assert_eq!(position.close_at_once(epoch.era_id()), AtOnce::Closed);
    }

    /// What `Heap` does under the ring's lock to open a position, and what is left of the epoch before is its depot.
    fn open_drained(&self, index: u32) -> Option<Epoch> {
        let (position, depot) = (
            &self.positions[index as usize],
            &self.depots[index as usize],
        );
        self.books.with(|_| {
            if !position.claim() {
                return None;
            }
            if position.depot().is_some() {
                position.detach();
                depot.set(depot.get().closed());
            }
            self.openings.open(position, index, None).ok()
        })
    }

    /// What `Heap` does to give an epoch that is open a depot.
    fn attach(&self, epoch: Epoch) -> bool {
        let (position, depot) = (&self.positions[epoch.index()], &self.depots[epoch.index()]);
        self.books.with(|_| {
            if !position.pin(epoch.era_id(), Pin::BLOCK) {
                return false;
            }
            depot.set(epoch.tag());
            position.attach(NonNull::from(depot));
            let is_open = position.is_open_still(epoch.era_id());
            if !is_open {
                depot.set(depot.get().closed());
            }
            position.unpin(Pin::BLOCK);
            is_open
        })
    }

    /// The next position that is not open, as the heap looks for it, made current.
    fn advance(&self) -> Result<Epoch, EpochError> {
        self.books.with(|books| {
            let last = self.openings.last_index();
            let mut next = (1..=3).map(|step| (last + step) % 3);
            let index = next
                .find(|index| self.positions[*index].open_era() == 0)
                .ok_or(EpochError::RingFull)?;
            let epoch = self.open_locked(index as u32)?;
            let old = books.current.replace(epoch);
            if let Some(old) = old
                && let Ok((position, _)) = books.of(self.positions.get(old.index()), old)
            {
                position.shut(old.era());
            }
            Ok(epoch)
        })
    }

    /// What `Heap::close` does under the ring's lock.
    fn close(&self, epoch: Epoch) -> Result<bool, EpochError> {
        self.books.with(|books| {
            let (position, _) = books.of(self.positions.get(epoch.index()), epoch)?;
            let was_open = position.open_era() != 0;
            if !position.shut(epoch.era()) {
                return Err(EpochError::Closed);
            }
            let depot = &self.depots[epoch.index()];
            depot.set(depot.get().closed());
            Ok(was_open)
        })
    }

    /// As an allocation looks at a token.
    fn accepts(&self, epoch: Epoch) -> bool {
        self.positions[epoch.index()]
            .open_depot(epoch.era_id())
            .is_some_and(|depot| depot.get() == epoch.tag())
    }
}

/// Two threads advance: each gets an epoch of its own, one of them is current, and the other is closed.
///
/// Mutation: `Openings::open` draws the same era again. Mutation: `Position::claim` says yes whatever is there.
#[test]
fn advance_against_advance() {
    loom::model(|| {
        let ring = Ring::new();
        let other = Arc::clone(&ring);
        let thread = thread::spawn(move || other.advance().unwrap());
        let mine = ring.advance().unwrap();
        let theirs = thread.join().unwrap();
        assert_ne!(mine.era(), theirs.era());
        let current = ring
            .books
            .with(|books| books.current(|index| ring.positions.get(index)));
        let current = current.unwrap();
        assert!(current == mine || current == theirs);
        let old = if current == mine { theirs } else { mine };
        assert!(ring.accepts(current) && !ring.accepts(old));
        assert_ne!(mine.index(), theirs.index(), "both positions were free");
    });
}

/// Two threads close one epoch, and who found it open uses its position again: that is one of them, and
/// the other does not shut the next era.
///
/// Mutation: `Books::of` does not compare eras.
#[test]
fn close_against_close() {
    loom::model(|| {
        let ring = Ring::new();
        let epoch = ring.open(1).unwrap();
        let close_and_open = move |ring: &Ring| {
            let won = ring.close(epoch) == Ok(true);
            won.then(|| ring.open(1).unwrap())
        };
        let other = Arc::clone(&ring);
        let thread = thread::spawn(move || close_and_open(&other));
        let mine = close_and_open(&ring);
        let theirs = thread.join().unwrap();
        assert!(mine.is_some() ^ theirs.is_some(), "closed once");
        assert!(!ring.accepts(epoch));
        let next = mine.or(theirs).unwrap();
        assert!(
            ring.accepts(next),
            "a late close shut somebody else's epoch"
        );
        assert_eq!(Books::state(&ring.positions[1], next), EpochState::Active);
    });
}

/// A local takes a block for an epoch while another thread closes the epoch and opens its position anew, if no block is counted:
/// not both. Catches a block of an epoch whose record is another's by now.
///
/// Mutation: `Position::pin` reads the era before it counts. Mutation: `Position::claim` does not read the count again.
#[test]
fn pin_against_close_and_open() {
    loom::model(|| {
        let ring = Ring::new();
        let epoch = ring.open_bare(1).unwrap();
        let other = Arc::clone(&ring);
        let closer = thread::spawn(move || other.positions[1].close_at_once(epoch.era_id()));
        let other = Arc::clone(&ring);
        let opener = thread::spawn(move || other.open_bare(1));
        let position = &ring.positions[1];
        let has_block = position.pin(epoch.era_id(), Pin::BLOCK);
        let next = opener.join().unwrap();
        assert_eq!(closer.join().unwrap(), AtOnce::Closed);
        assert!(
            !(has_block && next.is_some()),
            "a block of an era that is over"
        );
        if has_block {
            position.unpin(Pin::BLOCK);
        }
        assert_eq!(position.open_era() != 0, next.is_some());
        assert_eq!(ring.open_bare(1).is_some(), next.is_none());
    });
}

/// An epoch gets its first depot while it is closed without the ring's lock: the thread that comes second shuts the depot. Catches a depot that
/// stays open in an epoch that is closed.
///
/// Mutation: `Position::close_at_once` does not look for the depot again. Mutation: `Position::is_open_still` only loads.
#[test]
fn attach_against_close() {
    loom::model(|| {
        let ring = Ring::new();
        let epoch = ring.open_bare(1).unwrap();
        let other = Arc::clone(&ring);
        let attacher = thread::spawn(move || other.attach(epoch));
        if ring.positions[1].close_at_once(epoch.era_id()) != AtOnce::Closed {
            ring.close(epoch).unwrap();
        }
        let _attached = attacher.join().unwrap();
        assert_eq!(ring.positions[1].open_era(), 0);
        let is_shut = |depot: &Serves| depot.get() == epoch.tag().closed();
        assert!(
            ring.positions[1].depot().is_none_or(is_shut),
            "its depot is open"
        );
    });
}

/// Two threads open the same position, which is free, while a third reads its era. Catches a position that is opened twice, and an era that is
/// open while the position says another one, or none.
///
/// Mutation: `Position::claim` is a load and a store. Mutation: `Position::open` stores the era last.
#[test]
fn open_against_open() {
    loom::model(|| {
        let ring = Ring::new();
        let other = Arc::clone(&ring);
        let thread = thread::spawn(move || other.open_bare(1));
        let reader = Arc::clone(&ring);
        let reader = thread::spawn(move || {
            let position = &reader.positions[1];
            let open = position.open_era();
            (open, position.era())
        });
        let mine = ring.open_bare(1);
        let theirs = thread.join().unwrap();
        let (open, era) = reader.join().unwrap();
        assert!(open == 0 || open == era, "{open} is open in {era}");
        let opened = mine.or(theirs).unwrap();
        assert!(mine.is_none() || theirs.is_none(), "opened twice");
        assert_eq!(ring.positions[1].open_era(), opened.era());
    });
}

/// An epoch gets its first depot while it is closed and its position opened again, both without the ring's lock. Catches an era with a depot of
/// the one before.
///
/// Mutation: `Ring::attach` does not pin. Mutation: `Position::claim_bare` does not look for the depot again.
#[test]
fn attach_against_close_and_open() {
    loom::model(|| {
        let ring = Ring::new();
        let epoch = ring.open_bare(1).unwrap();
        let other = Arc::clone(&ring);
        let attacher = thread::spawn(move || other.attach(epoch));
        let at_once = ring.positions[1].close_at_once(epoch.era_id());
        let next = ring.open_bare(1);
        if at_once != AtOnce::Closed {
            assert_eq!(next, None, "it has a depot, or is open");
        }
        let _attached = attacher.join().unwrap();
        if next.is_some() {
            assert!(ring.positions[1].depot().is_none(), "another era's depot");
        }
    });
}

/// Two threads open different positions without the lock. Catches an era that is given out twice.
///
/// Mutation: `Openings::open` loads the last era and stores the next.
#[test]
fn open_beside_open() {
    loom::model(|| {
        let ring = Ring::new();
        let other = Arc::clone(&ring);
        let thread = thread::spawn(move || other.open_bare(1).unwrap());
        let mine = ring.open_bare(2).unwrap();
        let theirs = thread.join().unwrap();
        assert_ne!(mine.era(), theirs.era());
    });
}

/// An epoch is closed under the lock, as a domain's last exit does, while another thread closes it without, and opens its position again.
/// Catches a close of the next era.
///
/// Mutation: `Position::shut` stores what it says.
#[test]
fn close_against_close_and_open() {
    loom::model(|| {
        let ring = Ring::new();
        let epoch = ring.open_bare(1).unwrap();
        let other = Arc::clone(&ring);
        let closer = thread::spawn(move || {
            let _closed = other.close(epoch);
        });
        let at_once = ring.positions[1].close_at_once(epoch.era_id());
        let next = ring.open_bare(1);
        closer.join().unwrap();
        assert_ne!(at_once, AtOnce::HasDepot);
        if let Some(next) = next {
            assert_eq!(ring.positions[1].open_era(), next.era(), "it was closed");
        }
    });
}

/// An era's time is asked for while its position is closed and opened again. Catches the time of another era.
///
/// Mutation: `Position::opened_at` does not look at the era. Mutation: it does so before it reads the time. Mutation: `Position::open` does not
/// take the number of the era before away first.
#[test]
fn a_time_is_of_its_era() {
    loom::model(|| {
        let ring = Ring::new();
        let epoch = ring.open_bare_at(1, Some(10)).unwrap();
        let other = Arc::clone(&ring);
        let thread = thread::spawn(move || {
            other.close_bare(epoch);
            other.open_bare_at(1, Some(20)).unwrap();
        });
        let opened_at = ring.positions[1].opened_at(epoch.era_id());
        assert!(opened_at.is_none_or(|time| time == 10), "{opened_at:?}");
        thread.join().unwrap();
    });
}

/// An epoch gets its first depot while it is closed without the lock, and before the closer comes to the depot the position is opened again under
/// it. Catches a depot that stays open in an epoch that is over.
///
/// Mutation: `Ring::open_drained` detaches the depot as it is.
#[test]
fn attach_against_close_and_open_under_the_lock() {
    loom::model(|| {
        let ring = Ring::new();
        let epoch = ring.open_bare(1).unwrap();
        let other = Arc::clone(&ring);
        let attacher = thread::spawn(move || other.attach(epoch));
        let other = Arc::clone(&ring);
        let opener = thread::spawn(move || other.open_drained(1));
        if ring.positions[1].close_at_once(epoch.era_id()) != AtOnce::Closed {
            let _over = ring.close(epoch);
        }
        attacher.join().unwrap();
        opener.join().unwrap();
        assert!(ring.depots[1].get() != epoch.tag(), "its depot is open");
    });
}

/// An era is found by its number while it begins, and its time is asked for. Catches the time of the era before.
///
/// Mutation: `Position::era` is `Relaxed`. Mutation: `Position::open` stores the time last.
#[test]
fn a_time_is_not_of_the_era_before() {
    loom::model(|| {
        let ring = Ring::new();
        let first = ring.open_bare_at(1, Some(10)).unwrap();
        ring.close_bare(first);
        let other = Arc::clone(&ring);
        let thread = thread::spawn(move || other.open_bare_at(1, Some(20)));
        let found = Epoch::from_parts(1, ring.positions[1].era());
        if let Some(found) = found.filter(|found| *found != first) {
            let opened_at = ring.positions[1].opened_at(found.era_id());
            assert!(opened_at.is_none_or(|time| time == 20), "{opened_at:?}");
        }
        assert!(thread.join().unwrap().is_some());
    });
}

/// An epoch is opened while the epochs that were are counted, and then those that are open. Catches one that was never closed and is taken for
/// one that was.
///
/// Mutation: `Position::is_taken` asks for an era that is open.
#[test]
fn an_era_that_is_drawn_has_a_position() {
    loom::model(|| {
        let ring = Ring::new();
        let before = ring.openings.last_era();
        let other = Arc::clone(&ring);
        let thread = thread::spawn(move || other.open_bare(1));
        if ring.openings.last_era() > before {
            assert!(ring.positions[1].is_taken(), "it is counted as closed");
        }
        thread.join().unwrap();
    });
}
