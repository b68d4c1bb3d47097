//! Loom models of the ring: what two threads that advance or close at the same time come to.
//!
//! Each model was seen to fail once with the mutation named above it, and passes without.

use super::ring::{AtOnce, Books, Pin, Position};
use super::{Epoch, EpochError, EpochState, Serves, Tag};
use crate::sync::Lock;
use core::ptr::NonNull;
use loom::sync::Arc;
use loom::thread;

/// A ring of three positions, the first of which is the root's, and what serves each.
struct Ring {
    positions: [Position<Serves>; 3],
    rows: [Serves; 3],
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
            rows: [(); 3].map(|()| Serves::nothing()),
            books: Lock::new(Books::new()),
        });
        ring.open(0).unwrap();
        ring
    }

    /// What `Heap` does with its books to open a position.
    fn open(&self, index: u32) -> Result<Epoch, EpochError> {
        self.books.with(|books| self.open_in(books, index))
    }

    fn open_in(&self, books: &mut Books, index: u32) -> Result<Epoch, EpochError> {
        let row = &self.rows[index as usize];
        let epoch = books.open(&self.positions[index as usize], index, None)?;
        row.set(epoch.tag());
        self.positions[index as usize].attach(NonNull::from(row));
        Ok(epoch)
    }

    /// As [`Ring::open`], and the epoch has no row.
    fn open_bare(&self, index: u32) -> Result<Epoch, EpochError> {
        self.books
            .with(|books| books.open(&self.positions[index as usize], index, None))
    }

    /// What `Heap` does to give an epoch that is open a row.
    fn attach(&self, epoch: Epoch) -> bool {
        let (position, row) = (&self.positions[epoch.index()], &self.rows[epoch.index()]);
        self.books.with(|_| {
            if !position.is_open() {
                return false;
            }
            row.set(epoch.tag());
            position.attach(NonNull::from(row));
            let is_open = position.is_open_still();
            if !is_open {
                row.set(row.get().closed());
            }
            is_open
        })
    }

    /// The next position that is not open, as the heap looks for it, made current.
    fn advance(&self) -> Result<Epoch, EpochError> {
        self.books.with(|books| {
            let last = books.last_opened();
            let mut next = (1..=3).map(|step| (last + step) % 3);
            let index = next
                .find(|index| !self.positions[*index].is_open())
                .ok_or(EpochError::RingFull)?;
            let epoch = self.open_in(books, index as u32)?;
            let old = books.current.replace(epoch);
            if let Some(old) = old
                && let Ok((position, _)) = books.of(self.positions.get(old.index()), old)
            {
                books.shut(position);
            }
            Ok(epoch)
        })
    }

    /// What `Heap::close` does under the ring's lock.
    fn close(&self, epoch: Epoch) -> Result<bool, EpochError> {
        self.books.with(|books| {
            let (position, _) = books.of(self.positions.get(epoch.index()), epoch)?;
            let was_open = position.is_open();
            books.shut(position);
            let row = &self.rows[epoch.index()];
            row.set(row.get().closed());
            Ok(was_open)
        })
    }

    /// As an allocation looks at a token.
    fn accepts(&self, epoch: Epoch) -> bool {
        self.positions[epoch.index()]
            .open_row(epoch.era_id())
            .is_some_and(|row| row.get() == epoch.tag())
    }
}

/// Two threads advance: each gets an epoch of its own, one of them is current, and the other is closed.
///
/// Mutation: `Books::next_era` does not count. Mutation: `Books::open` does not note `last_index`, and
/// positions are not asked whether they are open.
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
        assert_eq!(Books::state(&ring.positions[1]), EpochState::Active);
    });
}

/// A local takes a block for an epoch while another thread closes the epoch and opens its position anew, if no block is counted:
/// not both. Catches a block of an epoch whose record is another's by now.
///
/// Mutation: `Position::pin` reads the era before it counts. Mutation: `Position::is_free` reads the count before the era.
#[test]
fn pin_against_close_and_open() {
    loom::model(|| {
        let ring = Ring::new();
        let epoch = ring.open_bare(1).unwrap();
        let other = Arc::clone(&ring);
        let closer = thread::spawn(move || other.positions[1].close_at_once(epoch.era_id()));
        let other = Arc::clone(&ring);
        let opener = thread::spawn(move || {
            let is_free = other.positions[1].is_free();
            is_free.then(|| other.open_bare(1).unwrap())
        });
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
        assert_eq!(position.is_free(), next.is_none());
    });
}

/// An epoch gets its first row while it is closed without the ring's lock: the thread that comes second shuts the row. Catches a row that
/// stays open in an epoch that is closed.
///
/// Mutation: `Position::close_at_once` does not look for the row again. Mutation: `Position::is_open_still` only loads.
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
        assert!(!ring.positions[1].is_open());
        let is_shut = |row: &Serves| row.get() == epoch.tag().closed();
        assert!(
            ring.positions[1].row().is_none_or(is_shut),
            "its row is open"
        );
    });
}
