//! Depots: what an epoch that has slabs gets its memory through. An epoch has none before it needs one, and leaves it when nothing is left
//! in it; so there are as many as epochs needed one at the same time. Which epoch has which depot changes under the ring's lock.

use super::Heap;
use crate::cache::CacheState;
use crate::config::{Config, Table};
use crate::depot::EpochDepot;
use crate::epoch::{Epoch, Pin, Position, Positions};
use crate::error::AllocError;
use crate::pages::{Kind, NO_DEPOT};
use crate::sync::Ordering;
use core::ptr::NonNull;

impl<C: Config> Heap<C> {
    /// Gives an epoch that is open a depot, of which it had no need so far.
    #[cold]
    #[inline(never)]
    pub(super) fn attach_depot(&self, epoch: Epoch) -> Result<&EpochDepot<C::Lock>, AllocError> {
        let positions = self.positions().map_err(|_| AllocError::OutOfMemory)?;
        // Each turn but the last makes a depot, and depots are bounded by their numbers.
        loop {
            let depot = self.books.with(|_| {
                // The pin keeps the position until the depot is attached: see `Position::claim_bare`.
                let position = positions.get(epoch.index());
                let position = position.filter(|position| position.pin(epoch.era_id(), Pin::BLOCK));
                let position = position.ok_or(AllocError::EpochClosed)?;
                let depot = self.attach_depot_to(positions, position, epoch);
                position.unpin(Pin::BLOCK);
                depot
            })?;
            match depot {
                Some(depot) => return Ok(depot),
                None => self.make_depot()?,
            }
        }
    }

    /// Gives an epoch that is open and pinned a drained depot, if it has none and there is one. Under the ring's lock.
    fn attach_depot_to<'a>(
        &'a self,
        positions: &'a Positions<EpochDepot<C::Lock>>,
        position: &'a Position<EpochDepot<C::Lock>>,
        epoch: Epoch,
    ) -> Result<Option<&'a EpochDepot<C::Lock>>, AllocError> {
        if let Some(depot) = position.depot() {
            return Ok(Some(depot));
        }
        let Some(depot) = self.depot_for(positions) else {
            return Ok(None);
        };
        self.begin_depot(epoch, depot);
        position.attach(NonNull::from(depot));
        if position.is_open_still(epoch.era_id()) {
            return Ok(Some(depot));
        }
        self.shut_late(depot);
        Err(AllocError::EpochClosed)
    }

    /// Ends allocation in a depot that an epoch got while it was closed at once. Under the ring's lock.
    pub(super) fn shut_late(&self, depot: &EpochDepot<C::Lock>) {
        self.shut_depot(depot);
        // A local may have found the depot meanwhile.
        self.closes.fetch_add(1, Ordering::Release);
    }

    /// A drained depot begins to serve an epoch. Under the ring's lock.
    pub(super) fn begin_depot(&self, epoch: Epoch, depot: &EpochDepot<C::Lock>) {
        self.begin_class_lists(depot);
        depot.use_none();
        depot.attach(Some(epoch.index() as u32));
        // SAFETY: the depot is one of this heap.
        unsafe {
            self.pages
                .with_pieces(depot.blocks(), |_| depot.set_tag(epoch.tag()));
        }
    }

    /// A drained depot for an epoch. A depot that is not drained, because something lives in it or a local still holds words of it, is left to
    /// drain by itself. So there are as many depots as epochs needed one at the same time, not as many as positions.
    pub(super) fn depot_for<'a>(
        &'a self,
        positions: &'a Positions<EpochDepot<C::Lock>>,
    ) -> Option<&'a EpochDepot<C::Lock>> {
        let mut closed = self.depots().filter(|depot| !depot.tag().is_open());
        let depot = closed.find(|depot| depot.slots() == 0 && self.is_drained(depot))?;
        // The position that had the depot is left.
        if let Some(position) = depot.position()
            && let Some(position) = positions.get(position as usize)
        {
            position.detach();
        }
        Some(depot)
    }

    /// Whether nothing is left of a closed depot. Under the ring's lock.
    fn is_drained(&self, depot: &EpochDepot<C::Lock>) -> bool {
        // SAFETY: the depot is one of this heap.
        unsafe { self.pages.with_pieces(depot.blocks(), |pieces| pieces == 0) }
    }

    /// Makes a depot that nobody has.
    pub(super) fn make_depot(&self) -> Result<(), AllocError> {
        let classes = Table::<C>::LISTED;
        let layout = EpochDepot::<C::Lock>::layout(classes);
        let (layout, class_lists_at) = layout.map_err(|_| AllocError::OutOfMemory)?;
        let memory = self.with_reclaim(|| self.pages.take_meta(Kind::EpochDepot, layout))?;
        self.books.with(|books| {
            let id = books
                .next_depot()
                .filter(|id| *id != NO_DEPOT)
                .ok_or(AllocError::OutOfMemory);
            let id = id.inspect_err(|_| {
                // SAFETY: the memory was not used.
                unsafe { self.pages.put_meta(Kind::EpochDepot, memory) };
            })?;
            // SAFETY: memory of the depot's own layout, which stays until the heap is dropped.
            let depot =
                unsafe { EpochDepot::<C::Lock>::place(memory, class_lists_at, classes, id) };
            let older = self.newest.load(Ordering::Relaxed);
            // SAFETY: just placed, and nobody else knows it yet.
            unsafe { depot.as_ref() }
                .older
                .store(older, Ordering::Relaxed);
            self.newest.store(depot.as_ptr(), Ordering::Release);
            Ok(())
        })
    }

    /// Live objects of a depot: all slots, without those that nobody holds and those that locals hold.
    /// Exact when nobody uses the epoch meanwhile; never negative.
    pub(super) fn live_in(&self, depot: &EpochDepot<C::Lock>) -> usize {
        let table = Table::<C>::TABLE;
        let idle: usize = depot
            .used_class_lists()
            .map(|(class, class_list)| {
                let shape = table.class(class);
                // All of it at one go: what is decided by it may not be more than an estimate.
                let stock = class_list.stock(shape, usize::MAX);
                stock.free_slots + stock.cached * shape.slots()
            })
            .sum();
        let mut held = 0;
        self.locals.with(|list| {
            list.for_each(|state| {
                // SAFETY: states in the list are valid while its lock is held.
                unsafe {
                    if (*state).depot == depot.id() {
                        held += CacheState::held_slots(state, Table::<C>::LISTED);
                    }
                }
            });
        });
        depot.slots().saturating_sub(idle + held)
    }
}
