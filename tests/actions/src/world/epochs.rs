//! Epochs, who is inside them, and the domains that say so.

use super::World;
use core::ptr::NonNull;
use temporal_slab::config::Config;
use temporal_slab::{AllocError, Domain, DomainGuard, Epoch, EpochError, EpochState, Label};

/// The most guards at a time.
const DEPTH: usize = 12;

/// Labels: too long, empty, cut inside a character.
const LABELS: [&str; 4] = [
    "",
    "phase",
    "a label of more than thirty-one bytes",
    "0123456789012345678901234567ä€🦀",
];

/// An epoch that there was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) token: Epoch,
    is_open: bool,
    /// Its position was used again.
    is_over: bool,
    label: Label,
    inside: u32,
}

/// A guard and its domain, which stay where they are until the guard goes.
#[derive(Debug)]
pub(super) struct Guard<'h, C: Config> {
    domain: NonNull<Domain<'h, C>>,
    inside: NonNull<DomainGuard<'h, C>>,
    epoch: Epoch,
    closes: bool,
    depth: usize,
}

impl Known {
    pub(super) fn new(token: Epoch, label: &str) -> Self {
        Self {
            token,
            is_open: true,
            is_over: false,
            label: Label::new(label),
            inside: 0,
        }
    }
}

impl<'h, C: Config> World<'h, C> {
    /// The root epoch.
    pub(super) fn root(&self) -> Epoch {
        self.epochs[0].token
    }

    /// The epoch that an action names, if it names one.
    pub(super) fn named(&self, number: u8) -> Option<Epoch> {
        let number = usize::from(number.checked_sub(1)?);
        Some(self.epochs[number % self.epochs.len()].token)
    }

    /// One of those that there were.
    fn some_epoch(&self, number: u8) -> usize {
        usize::from(number) % self.epochs.len()
    }

    pub(super) fn is_open(&self, token: Epoch) -> bool {
        self.epochs
            .iter()
            .any(|known| known.token == token && known.is_open)
    }

    fn is_there(&self, token: Epoch) -> bool {
        self.epochs
            .iter()
            .any(|known| known.token == token && !known.is_over)
    }

    fn known(&mut self, token: Epoch) -> Option<&mut Known> {
        self.epochs
            .iter_mut()
            .find(|known| known.token == token && !known.is_over)
    }

    /// The newest epoch of a position.
    fn newest(&self, index: usize) -> Option<&Known> {
        self.epochs
            .iter()
            .find(|known| known.token.index() == index && !known.is_over)
    }

    /// Whether a new epoch may have this position.
    fn is_free(&self, index: usize) -> bool {
        self.newest(index)
            .is_none_or(|known| !known.is_open && self.live_in(known.token) == 0)
    }

    pub(super) fn open(&mut self, make_current: bool) -> Result<(), AllocError> {
        let heap = self.heap;
        let opened = match make_current {
            true => heap.advance(),
            false if self.steps.is_multiple_of(2) => {
                Domain::open(heap).map(|domain| domain.epoch())
            }
            false => heap.open_epoch(),
        };
        let token = match opened {
            Ok(token) => token,
            Err(EpochError::RingFull) => {
                let free = (1..heap.epoch_records()).find(|index| self.is_free(*index));
                assert_eq!(free, None, "the ring is full");
                return Ok(());
            }
            Err(error) => return self.lacks(error),
        };
        let index = token.index();
        assert!(
            index > 0 && self.is_free(index),
            "{token:?} had its position"
        );
        assert!(
            self.epochs
                .iter()
                .all(|known| known.token.era() < token.era()),
            "eras grow"
        );
        if let Some(old) = self
            .epochs
            .iter_mut()
            .find(|k| k.token.index() == index && !k.is_over)
        {
            old.is_over = true;
        }
        self.epochs.push(Known::new(token, ""));
        if make_current {
            let old = self.current();
            if old.index() != 0 {
                self.shut(old);
            }
            self.current = Some(token);
        }
        Ok(())
    }

    /// The epoch that is current.
    fn current(&self) -> Epoch {
        self.current
            .filter(|token| self.is_open(*token))
            .unwrap_or_else(|| self.root())
    }

    /// The heap may open an epoch of its own, in the position of one that is over.
    pub(super) fn notice_the_heaps_own(&mut self) {
        if !C::BUMPS || self.has_own_epoch {
            return;
        }
        let heap = self.heap;
        let mut known = self.epochs.iter_mut().filter(|known| !known.is_over);
        if let Some(over) =
            known.find(|known| !known.is_open && heap.state(known.token) == Err(EpochError::Closed))
        {
            over.is_over = true;
            let token = over.token;
            assert_eq!(self.live_in(token), 0, "{token:?}");
            self.has_own_epoch = true;
        }
    }

    fn shut(&mut self, token: Epoch) {
        if let Some(known) = self.known(token) {
            known.is_open = false;
        }
    }

    /// Whether want of memory may be why an epoch could not be had.
    fn lacks(&self, error: EpochError) -> Result<(), AllocError> {
        assert_eq!(error, EpochError::OutOfMemory);
        assert!(self.may_lack(AllocError::OutOfMemory) || self.may_lack(AllocError::Limit));
        Err(AllocError::OutOfMemory)
    }

    pub(super) fn close(&mut self, number: u8) -> Result<(), AllocError> {
        let token = self.epochs[self.some_epoch(number)].token;
        let expected = match token.index() {
            0 => Err(EpochError::Immortal),
            _ if self.is_there(token) => Ok(()),
            _ => Err(EpochError::Closed),
        };
        let closed = if self.steps.is_multiple_of(3) {
            Domain::for_epoch(self.heap, token).close()
        } else {
            self.heap.close(token)
        };
        assert_eq!(closed.map(|_| ()), expected, "{token:?}");
        if let Ok(closed) = closed {
            let was_open = self.is_open(token);
            assert!(closed.kept <= closed.emptied, "{closed:?}");
            // A block counts as one, also without objects, while a local has it.
            let live = self.live_in(token) as u64;
            let is_right = match C::BUMPS {
                true => live == 0 || closed.survivors > 0,
                false => closed.survivors == live,
            };
            assert!(!was_open || is_right, "{closed:?}, {live}");
            self.shut(token);
        }
        Ok(())
    }

    pub(super) fn label(&mut self, number: u8, label: u8) {
        let (number, label) = (
            self.some_epoch(number),
            LABELS[usize::from(label) % LABELS.len()],
        );
        let known = &mut self.epochs[number];
        let expected = if known.is_over {
            Err(EpochError::Closed)
        } else {
            Ok(())
        };
        assert_eq!(self.heap.set_label(known.token, label), expected);
        known.label = Label::new(label);
    }

    /// Asks for an epoch that may never have been: it is one of those that there are, or over.
    pub(super) fn token(&mut self, index: u16, era: u64) {
        let Some(token) = Epoch::from_parts(index.into(), era) else {
            return assert!(era == 0 || era >> 63 == 1, "{era}");
        };
        assert_eq!((token.index(), token.era()), (usize::from(index), era));
        let expected = match self.known(token) {
            Some(known) if known.is_open => Ok(EpochState::Active),
            Some(_) => Ok(EpochState::Closing),
            None => Err(EpochError::Closed),
        };
        assert_eq!(self.heap.state(token), expected, "{token:?}");
        if expected.is_err() {
            let layout = core::alloc::Layout::new::<u64>();
            assert_eq!(
                self.heap.alloc_in(token, layout),
                Err(AllocError::EpochClosed)
            );
            assert_eq!(self.heap.enter(token), Err(EpochError::Closed));
            assert!(!self.heap.exit_and_close(token));
            assert!(self.heap.epoch_stats(token).is_err());
            assert!(self.heap.epoch_bytes(token).is_err());
        }
    }

    /// Counts somebody in or out.
    pub(super) fn count(&mut self, number: u8, enters: bool, closes: bool) {
        let token = self.epochs[self.some_epoch(number)].token;
        if enters {
            let entered = self.heap.enter(token);
            self.entered(token, entered);
        } else {
            let was_inside = if closes {
                self.heap.exit_and_close(token)
            } else {
                self.heap.exit(token)
            };
            assert_eq!(was_inside, self.left(token, closes), "{token:?}");
        }
    }

    fn entered(&mut self, token: Epoch, entered: Result<(), EpochError>) {
        let expected = if self.is_open(token) {
            Ok(())
        } else {
            Err(EpochError::Closed)
        };
        assert_eq!(entered, expected, "{token:?}");
        if expected.is_ok()
            && let Some(known) = self.known(token)
        {
            known.inside += 1;
        }
    }

    /// Notes one who left; whether anybody was inside.
    fn left(&mut self, token: Epoch, closes: bool) -> bool {
        let Some(known) = self.known(token).filter(|known| known.inside > 0) else {
            return false;
        };
        known.inside -= 1;
        if known.inside == 0 && closes && token.index() != 0 {
            known.is_open = false;
        }
        true
    }

    pub(super) fn enter(&mut self, number: u8, closes: bool, nested: bool) {
        if self.guards.len() >= DEPTH {
            return;
        }
        let token = self.epochs[self.some_epoch(number)].token;
        let domain = Domain::for_epoch(self.heap, token);
        let domain = if closes {
            domain.close_on_exit()
        } else {
            domain
        };
        // SAFETY: a box is not null.
        let domain = unsafe { NonNull::new_unchecked(Box::into_raw(Box::new(domain))) };
        // SAFETY: the box stays until its guard is gone, and is only read until then.
        let there: &'h Domain<'h, C> = unsafe { domain.as_ref() };
        let outer = self.guards.last().filter(|_| nested);
        let (entered, depth) = match outer {
            // SAFETY: as above; guards go in the order in which the last came first.
            Some(outer) => (
                unsafe { outer.inside.as_ref() }.enter(there),
                outer.depth + 1,
            ),
            None => (there.enter(), 0),
        };
        let epoch = token;
        match entered {
            Ok(inside) => {
                assert_eq!((inside.epoch(), inside.depth()), (epoch, depth));
                assert_eq!(inside.outer().is_some(), depth > 0);
                // SAFETY: as above.
                let inside = unsafe { NonNull::new_unchecked(Box::into_raw(Box::new(inside))) };
                self.guards.push(Guard {
                    domain,
                    inside,
                    epoch,
                    closes,
                    depth,
                });
                self.entered(epoch, Ok(()));
            }
            Err(error) => {
                self.entered(epoch, Err(error));
                // SAFETY: there is no guard of it.
                drop(unsafe { Box::from_raw(domain.as_ptr()) });
            }
        }
    }

    pub(super) fn exit(&mut self) {
        if let Some(Guard {
            domain,
            inside,
            epoch,
            closes,
            ..
        }) = self.guards.pop()
        {
            // SAFETY: the guard first, which nobody looks at any more, then its domain.
            unsafe {
                drop(Box::from_raw(inside.as_ptr()));
                drop(Box::from_raw(domain.as_ptr()));
            }
            self.left(epoch, closes);
        }
    }

    pub(super) fn alloc_inside(&mut self, local: u8, size: u16) -> Result<(), AllocError> {
        let layout = super::objects::layout(size.into(), 4);
        let (Some(guard), Some(local)) = (self.guards.last(), self.locals.get_mut(local as usize))
        else {
            return Ok(());
        };
        let epoch = guard.epoch;
        // SAFETY: the guard is there.
        let made = unsafe { guard.inside.as_ref() }.alloc(local, layout);
        let foreseen = self.foresee(Some(epoch), layout, false);
        if let Some(at) = self.settle(made, &foreseen)? {
            self.adopt(at, layout, None, Some(epoch));
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, local: u8, number: u8) {
        let token = self.epochs[self.some_epoch(number)].token;
        if let Some(local) = self.locals.get_mut(local as usize) {
            local.leave(token);
        }
    }

    /// Compares what the heap says of its epochs with what it should say.
    pub(super) fn check_epochs(&self) {
        assert_eq!(self.heap.current(), Ok(self.current()));
        for known in self.epochs.iter().rev().take(30) {
            let state = match (known.is_over, known.is_open) {
                (true, _) => Err(EpochError::Closed),
                (_, true) => Ok(EpochState::Active),
                (_, false) => Ok(EpochState::Closing),
            };
            assert_eq!(self.heap.state(known.token), state, "{known:?}");
            let label = state.map(|_| known.label);
            assert_eq!(self.heap.label(known.token), label, "{known:?}");
        }
        for index in 0..self.heap.epoch_records() {
            let newest = self.newest(index);
            let found = self.heap.epoch_at(index);
            assert!(found.is_none() || found == newest.map(|known| known.token));
            let must = newest.is_some_and(|known| known.is_open || self.live_in(known.token) > 0);
            assert!(found.is_some() || !must, "position {index}");
        }
    }

    /// Compares the figures of the epochs with the model.
    pub(super) fn check_epoch_figures(&self) {
        for known in self.epochs.iter().filter(|known| !known.is_over) {
            let stats = self.heap.epoch_stats(known.token).expect("it is not over");
            let live = self.live_in(known.token) as u64;
            assert_eq!(stats.live_objects(), live, "{known:?}");
            assert_eq!(
                (stats.domains, stats.is_open()),
                (known.inside, known.is_open)
            );
            assert_eq!(stats.is_current, self.current() == known.token);
            assert!(stats.live_bytes <= stats.bytes, "{known:?}");
        }
    }
}
