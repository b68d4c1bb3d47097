//! Epochs: opening, closing and asking about them, and allocation in them.
//!
//! The root epoch is there from the beginning and is never closed: it is what everything without an
//! epoch belongs to. All others come from the ring.

use super::Heap;
use super::closing::{Before, Closed};
use super::counters::Counters;
use crate::config::{Config, Table};
use crate::depot::EpochDepot;
use crate::epoch::{AtOnce, Books, Epoch, EpochError, EpochState, Label, Position, Positions};
use crate::error::AllocError;
use crate::pages::Kind;
use crate::provider::PageProvider;
use crate::sync::Ordering;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// A new epoch, and the one that was current before and is closing now: with its depot, if it has one, and what was before the close.
type Opened<'h, R> = (Epoch, Option<(Epoch, Option<&'h EpochDepot<R>>, Before)>);

/// Positions that are looked at for a free one before there is one more, and the root's.
const LOOKS: usize = 16;

impl<C: Config> Heap<C> {
    /// The epoch that is current: the root epoch, until [`Heap::advance`].
    ///
    /// # Errors
    /// If there is no memory for the ring.
    pub fn current(&self) -> Result<Epoch, EpochError> {
        let positions = self.positions()?;
        self.books
            .with(|books| books.current(|index| positions.get(index)))
            .ok_or(EpochError::OutOfMemory)
    }

    /// Opens an epoch. The current one stays current and open. A position that is free and has no slabs is opened without a lock; only where
    /// there is none among those that are looked at first, the ring's lock is taken.
    ///
    /// # Errors
    /// If every position was open or had live objects when it was looked at, or there is no memory.
    pub fn open_epoch(&self) -> Result<Epoch, EpochError> {
        self.open_next(false)
    }

    /// Opens an epoch and makes it current. The one that was current is closing from then on, unless
    /// it is the root epoch.
    ///
    /// # Errors
    /// As for [`Heap::open_epoch`]; the current epoch is then as it was.
    pub fn advance(&self) -> Result<Epoch, EpochError> {
        self.open_next(true)
    }

    /// Closes an epoch: it accepts no more allocations. What is empty in it, and what empties later, is the next epoch's, whatever
    /// that allocates; what is more than the policy keeps goes back to the provider at once. Live objects stay valid. What locals
    /// hold in it they give up at a slow path soon, in whatever epoch; see `Local::leave`.
    ///
    /// # Errors
    /// If the epoch was over already, or is the root.
    pub fn close(&self, epoch: Epoch) -> Result<Closed, EpochError> {
        let positions = self.positions()?;
        let position = positions.get(epoch.index()).ok_or(EpochError::Closed)?;
        if epoch.index() == 0 {
            return Err(EpochError::Immortal);
        }
        // An epoch that needed no depot gives nothing back here.
        let at_once = position.close_at_once(epoch.era_id());
        if at_once == AtOnce::Closed {
            let left = self.left_in_blocks(epoch, Some(position));
            if left.survivors > 0 {
                self.closes.fetch_add(1, Ordering::Release);
            }
            return Ok(left);
        }
        let before = self.before_close();
        let depot = self.books.with(|books| {
            books.of(Some(position), epoch)?;
            self.shut(books, position, epoch)
        });
        match depot {
            Ok(depot) => Ok(self.give_back_closed(epoch, depot, before)),
            // It was closed here. A thread that opened the position since found its depot empty, and shut it.
            Err(_) if at_once == AtOnce::HasDepot => Ok(Closed::default()),
            Err(error) => Err(error),
        }
    }

    /// As [`Heap::close`], and what that empties goes back to the provider at once, whatever the policy keeps; of bump blocks all that
    /// wait.
    ///
    /// # Errors
    /// As there.
    pub fn reclaim_epoch(&self, epoch: Epoch) -> Result<Closed, EpochError> {
        let warm = self.pages.warm();
        let mut closed = self.close(epoch)?;
        self.empty_pool(0);
        closed.returned += self.pages.cool(warm);
        closed.kept = closed.emptied.saturating_sub(closed.returned);
        Ok(closed)
    }

    /// Increments the domain count of an epoch, for bindings without RAII.
    ///
    /// # Errors
    /// If the epoch is closed, or there is no memory.
    pub fn enter(&self, epoch: Epoch) -> Result<(), EpochError> {
        let positions = self.positions()?;
        self.books.with(|books| {
            let (position, record) = books.of(positions.get(epoch.index()), epoch)?;
            if !position.is_open_at(epoch.era()) {
                return Err(EpochError::Closed);
            }
            record.enter();
            Ok(())
        })
    }

    /// Decrements the domain count of an epoch. Returns false, and does nothing, if nobody is inside: of an era that is over
    /// nobody is.
    pub fn exit(&self, epoch: Epoch) -> bool {
        self.leave_domain(epoch, false)
    }

    /// As [`Heap::exit`], and closes the epoch if nobody is inside any more: both under one lock, so that nobody goes in
    /// between.
    pub fn exit_and_close(&self, epoch: Epoch) -> bool {
        self.leave_domain(epoch, true)
    }

    fn leave_domain(&self, epoch: Epoch, closes: bool) -> bool {
        let Ok(positions) = self.positions() else {
            return false;
        };
        let before = closes.then(|| self.before_close());
        let (was_inside, closed) = self.books.with(|books| {
            let Ok((position, record)) = books.of(positions.get(epoch.index()), epoch) else {
                return (false, None);
            };
            let Some(left) = record.leave() else {
                return (false, None);
            };
            let is_last = left == 0 && epoch.index() != 0;
            let closing = before.filter(|_| is_last).and_then(|before| {
                let depot = self.shut(books, position, epoch).ok()?;
                Some((depot, before))
            });
            (true, closing)
        });
        if let Some((depot, before)) = closed {
            self.give_back_closed(epoch, depot, before);
        }
        was_inside
    }

    /// The newest epoch at a position, whatever became of it: for languages that keep positions.
    #[must_use]
    pub fn newest_epoch_at(&self, index: usize) -> Option<Epoch> {
        let position = self.positions.get(index)?;
        Epoch::from_parts(index as u32, position.newest().0)
    }

    /// What an epoch is doing.
    ///
    /// # Errors
    /// If it is over and its position was used again.
    pub fn state(&self, epoch: Epoch) -> Result<EpochState, EpochError> {
        let positions = self.positions()?;
        self.books.with(|books| {
            let (position, _) = books.of(positions.get(epoch.index()), epoch)?;
            Ok(Books::state(position, epoch))
        })
    }

    /// Calls an epoch something: the first 31 bytes of `label`, cut at a character.
    ///
    /// # Errors
    /// As for [`Heap::state`].
    pub fn set_label(&self, epoch: Epoch, label: &str) -> Result<(), EpochError> {
        let positions = self.positions()?;
        self.books.with(|books| {
            books.of(positions.get(epoch.index()), epoch)?.1.label = Label::new(label);
            Ok(())
        })
    }

    /// Allocates in an epoch, without a local; from where, see [`Heap::alloc`].
    ///
    /// # Errors
    /// As for [`Heap::alloc`], or if the epoch is closed.
    pub fn alloc_in(&self, epoch: Epoch, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let depot = self.open_depot(epoch)?;
        match Table::<C>::TABLE.index_for(layout) {
            Some(class) => self.alloc_slot(depot, epoch.tag(), class),
            None => self
                .alloc_large(depot, epoch.tag(), layout)
                .map(|(object, _)| object),
        }
    }

    /// As [`Heap::alloc_in`], and the bytes of the layout are zero.
    ///
    /// # Errors
    /// As for [`Heap::alloc_in`].
    pub fn alloc_zeroed_in(&self, epoch: Epoch, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let depot = self.open_depot(epoch)?;
        let Some(class) = Table::<C>::TABLE.index_for(layout) else {
            return self.alloc_large_zeroed(depot, epoch.tag(), layout);
        };
        let object = self.alloc_slot(depot, epoch.tag(), class)?;
        // SAFETY: the object has at least this size.
        unsafe { object.write_bytes(0, layout.size()) };
        Ok(object)
    }

    /// The position that a token names.
    #[inline]
    pub(crate) fn position(&self, epoch: Epoch) -> Option<&Position<EpochDepot<C::Lock>>> {
        self.positions.get(epoch.index())
    }

    /// The position at an index.
    pub(crate) fn position_at(&self, index: usize) -> Option<&Position<EpochDepot<C::Lock>>> {
        self.positions().ok()?.get(index)
    }

    /// The depot of an epoch, if it accepts allocations.
    #[inline]
    pub(crate) fn open_depot(&self, epoch: Epoch) -> Result<&EpochDepot<C::Lock>, AllocError> {
        let position = self.position(epoch);
        let depot = position.and_then(|position| position.open_depot(epoch.era_id()));
        match depot {
            Some(depot) => Ok(depot),
            None => self
                .attach_depot(epoch)
                .map_err(|error| self.refused(error, self.depot_of(epoch), None)),
        }
    }

    /// Notes that an epoch was asked for memory that is closed.
    #[cold]
    pub(crate) fn refused_closed(&self, epoch: Epoch) -> AllocError {
        self.refused(AllocError::EpochClosed, self.depot_of(epoch), None)
    }

    /// The depot that serves a token's era, which is closed, if there is one still.
    #[cold]
    fn depot_of(&self, epoch: Epoch) -> Option<&EpochDepot<C::Lock>> {
        let positions = self.positions().ok()?;
        self.books.with(|books| {
            books
                .of(positions.get(epoch.index()), epoch)
                .ok()?
                .0
                .depot()
        })
    }

    /// Changes whenever an epoch was closed that has a depot or blocks. `Acquire`, with the `Release` where it changes: a local that
    /// sees the new count sees the tags that changed with it, so it does not look closer in vain.
    #[inline]
    pub(crate) fn closes(&self) -> u64 {
        self.closes.load(Ordering::Acquire)
    }

    /// The ring's positions.
    pub(super) fn positions(&self) -> Result<&Positions<EpochDepot<C::Lock>>, EpochError> {
        self.root().map_err(|_| EpochError::OutOfMemory)?;
        Ok(&self.positions)
    }

    fn open_next(&self, make_current: bool) -> Result<Epoch, EpochError> {
        let positions = self.positions()?;
        let now = self.pages.provider().recent_ns();
        if !make_current && let Some(epoch) = self.open_bare(positions, now)? {
            return Ok(epoch);
        }
        let before = make_current.then(|| self.before_close());
        // Each turn but the last makes room for more.
        let (epoch, closing) = loop {
            let opened = self
                .books
                .with(|books| self.try_open(books, positions, now, before))?;
            match opened {
                Some(opened) => break opened,
                None => self.more_positions().map_err(|_| EpochError::OutOfMemory)?,
            }
        };
        if let Some((old, depot, before)) = closing {
            self.give_back_closed(old, depot, before);
        }
        Ok(epoch)
    }

    /// Opens one of the positions at hand that need no more than that, if there is one: without a lock.
    fn open_bare(
        &self,
        positions: &Positions<EpochDepot<C::Lock>>,
        now: Option<u64>,
    ) -> Result<Option<Epoch>, EpochError> {
        let near = self.openings.near(C::cpu());
        let index = near.load(Ordering::Relaxed);
        // The root's is none of them.
        let position = positions.get(index as usize);
        let found = match position.filter(|position| index > 0 && position.claim_bare()) {
            Some(position) => Some((index, position)),
            None => self.find_position(positions, LOOKS, Position::claim_bare),
        };
        let Some((index, position)) = found else {
            return Ok(None);
        };
        near.store(index, Ordering::Relaxed);
        self.openings.open(position, index, now).map(Some)
    }

    /// The first of so many positions that `claim` claims. The next search goes on behind them, also where there is none: what follows may be
    /// free though these have survivors.
    fn find_position<'h>(
        &self,
        positions: &'h Positions<EpochDepot<C::Lock>>,
        looks: usize,
        claim: impl Fn(&Position<EpochDepot<C::Lock>>) -> bool,
    ) -> Option<(u32, &'h Position<EpochDepot<C::Lock>>)> {
        let length = positions.len();
        let mut index = self.openings.last_index();
        let found = (1..looks.min(length)).find_map(|_| {
            // The root's is none of them.
            index = if index + 1 < length { index + 1 } else { 1 };
            let position = positions.get(index).filter(|position| claim(position))?;
            Some((index as u32, position))
        });
        self.openings.looked_at(index as u32);
        found
    }

    /// Opens a free position, and closes the epoch that was current if the new one becomes so: with its depot, if it has one.
    /// Under the ring's lock. `None` if room for more positions is to be got first.
    ///
    /// A few positions are looked at; where none of them is free there is one more, up to as many as the configuration allows.
    /// So there are a few times as many as epochs had something left at a time, and an open takes no longer with them.
    ///
    /// Whether a position has live objects is an estimate while they come and go: where it is too low
    /// the old epoch's token ends early, and its depot, which is left to drain, still mixes with nothing.
    fn try_open<'h>(
        &'h self,
        books: &mut Books,
        positions: &'h Positions<EpochDepot<C::Lock>>,
        now: Option<u64>,
        before: Option<Before>,
    ) -> Result<Option<Opened<'h, C::Lock>>, EpochError> {
        let claim = |position: &Position<EpochDepot<C::Lock>>| {
            let is_drained =
                |depot: &EpochDepot<C::Lock>| depot.slots() == 0 || self.live_in(depot) == 0;
            position.depot().is_none_or(is_drained) && position.claim()
        };
        let may_grow = positions.len() < Table::<C>::EPOCHS;
        let looks = if may_grow {
            LOOKS.max(Table::<C>::RING)
        } else {
            usize::MAX
        };
        let (index, position) = match self.find_position(positions, looks, claim) {
            Some(found) => found,
            None if may_grow => {
                let added = positions.push(Position::claimed());
                match added.and_then(|index| Some((index as u32, positions.get(index)?))) {
                    Some(added) => added,
                    None => return Ok(None),
                }
            }
            None => return Err(EpochError::RingFull),
        };
        // The depot of the epoch before is left to an epoch that needs one.
        if let Some(depot) = position.depot() {
            position.detach();
            depot.attach(None);
            // The epoch was closed at once while it got the depot, and who closes it has not come to the depot yet: it will not find it.
            if depot.tag().is_open() {
                self.shut_late(depot);
            }
        }
        let old = before.and_then(|_| books.current(|index| positions.get(index)));
        let epoch = self.openings.open(position, index, now)?;
        let mut closing = None;
        if let Some(before) = before {
            books.current = Some(epoch);
            if let Some(old) = old.filter(|old| old.index() != 0)
                && let Ok((position, _)) = books.of(positions.get(old.index()), old)
                && let Ok(depot) = self.shut(books, position, old)
            {
                closing = Some((old, depot, before));
            }
        }
        Ok(Some((epoch, closing)))
    }

    /// Gets memory for more positions, unless somebody else just did.
    #[cold]
    fn more_positions(&self) -> Result<(), AllocError> {
        let layout = self.positions.layout();
        let memory = self.with_reclaim(|| self.pages.take_meta(Kind::Ring, layout))?;
        let (lacked, is_used) = self.books.with(|_| {
            let lacks = self.positions.lacks();
            // SAFETY: metadata memory of this layout, which stays as long as the heap.
            (lacks, lacks && unsafe { self.positions.supply(memory) })
        });
        if is_used {
            return Ok(());
        }
        // SAFETY: it was not used.
        unsafe { self.pages.put_meta(Kind::Ring, memory) };
        if lacked {
            return Err(AllocError::Limit);
        }
        Ok(())
    }

    /// Makes the ring and the root epoch, unless somebody else just did.
    pub(super) fn make_root(&self) -> Result<&EpochDepot<C::Lock>, AllocError> {
        // Under the ring's lock: another thread may be supplying it.
        while self.books.with(|_| self.positions.lacks()) {
            self.more_positions()?;
        }
        // `Relaxed`: whether there is one at all; it is looked at under the ring's lock, where it was set.
        if self.newest.load(Ordering::Relaxed).is_null() {
            self.make_depot()?;
        }
        let counters = Counters::layout::<C>()?;
        let counters = self.with_reclaim(|| self.pages.take_meta(Kind::Counters, counters));
        let counters = counters?;
        // What is the root now, and whether it is this one.
        let (root, is_used) = self.books.with(|books| {
            // `Relaxed`: it was set under this lock.
            let there = self.root.load(Ordering::Relaxed);
            if !there.is_null() {
                return (there, false);
            }
            // EpochDepot 0 is the oldest of those that exist.
            let Some(depot) = self.depots().find(|depot| depot.id() == 0) else {
                return (there, false);
            };
            let positions = &self.positions;
            while positions.len() < Table::<C>::RING && positions.push(Position::new()).is_some() {}
            let position = positions.get(0).filter(|position| position.claim());
            let Some(Ok(root)) = position.map(|position| self.openings.open(position, 0, None))
            else {
                return (there, false);
            };
            depot.attach(Some(0));
            depot.set_tag(root.tag());
            if let Ok((position, record)) = books.of(position, root) {
                position.attach(NonNull::from(depot));
                record.label = Label::new("root");
            }
            // SAFETY: memory of this layout, which nobody else knows; there is no root yet.
            unsafe { self.counters.begin::<C>(counters.as_ptr().cast()) };
            let depot = ptr::from_ref(depot).cast_mut();
            self.root.store(depot, Ordering::Release);
            (depot, true)
        });
        if !is_used {
            // SAFETY: it was not published.
            unsafe { self.pages.put_meta(Kind::Counters, counters) };
        }
        // SAFETY: a root that was set is valid for as long as the heap.
        unsafe { root.as_ref() }.ok_or(AllocError::OutOfMemory)
    }
}
