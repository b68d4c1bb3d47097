//! What a close of an epoch does to its heap: nobody allocates there any more, and what is empty goes back.

use super::Heap;
use crate::config::Config;
use crate::depot::EpochDepot;
use crate::epoch::{Books, Epoch, EpochError, Position};
use crate::provider::PageProvider;
use crate::sync::Ordering;

/// Resident bytes, and the time, before a close.
pub(super) type Before = (u64, Option<u64>);

/// What a close did: see [`Heap::close`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Bytes of slabs that it found empty.
    pub emptied: u64,
    /// Bytes that went back to the provider, of these or of what else was empty for longer.
    pub returned: u64,
    /// Bytes of what it found empty, of which at least so many stay in memory, for what is allocated next.
    pub kept: u64,
    /// What is left of the epoch: live objects in slabs and large ones, blocks in which anything lives, and one for all blocks of a local
    /// that has not left them yet.
    pub survivors: u64,
}

impl<C: Config> Heap<C> {
    /// Ends allocation in an era of a position. Under the ring's lock. The era's depot, if it has one; `Closed` if the position was claimed
    /// since, or is not yet open in this era.
    pub(super) fn shut<'a>(
        &'a self,
        _: &mut Books,
        position: &'a Position<EpochDepot<C::Lock>>,
        epoch: Epoch,
    ) -> Result<Option<&'a EpochDepot<C::Lock>>, EpochError> {
        if !position.shut(epoch.era()) {
            return Err(EpochError::Closed);
        }
        let depot = position.depot().inspect(|depot| self.shut_depot(depot));
        if depot.is_some() || position.pins().count() > 0 {
            self.closes.fetch_add(1, Ordering::Release);
        }
        Ok(depot)
    }

    /// Gives back what is empty in an epoch that was just shut, which has this depot, or none.
    pub(super) fn give_back_closed(
        &self,
        epoch: Epoch,
        depot: Option<&EpochDepot<C::Lock>>,
        before: Before,
    ) -> Closed {
        match (depot, self.position(epoch)) {
            (Some(depot), _) => self.reclaim_closed(epoch, depot, before),
            (None, position) => self.left_in_blocks(epoch, position),
        }
    }

    /// What a close did to an epoch that has no slabs.
    pub(super) fn left_in_blocks(
        &self,
        epoch: Epoch,
        position: Option<&Position<EpochDepot<C::Lock>>>,
    ) -> Closed {
        let pins = position.map_or(0, |position| position.pins().count().into());
        // If nothing was left the position may be another's by now, and so may the pins.
        let is_it = position.is_some_and(|position| position.era() == epoch.era());
        Closed {
            returned: self.close_blocks(),
            survivors: if is_it { pins } else { 0 },
            ..Closed::default()
        }
    }

    /// Moves what is empty in an epoch that was just shut to the pages, and gives back what is more than the policy keeps.
    fn reclaim_closed(
        &self,
        epoch: Epoch,
        depot: &EpochDepot<C::Lock>,
        (before, began): Before,
    ) -> Closed {
        // SAFETY: the depot is of this heap.
        let left = unsafe { self.pages.end_era(depot.blocks()) };
        let policy = self.policy();
        let keep = policy.kept_by_close(self.pages.warm(), left);
        let swept = self.empty_depot(depot);
        let mut returned = 0;
        if policy.returns_on_close() {
            returned += self.pages.cool(keep) + self.close_blocks();
        }
        returned += self.settle();
        let after = self.resident();
        let ended = self.pages.provider().now_ns();
        let took = began
            .zip(ended)
            .map_or(0, |(began, ended)| ended.saturating_sub(began));
        self.counters
            .gave_back_at_close(swept.scanned, swept.moved, took);
        let mut survivors = 0;
        if let Ok(positions) = self.positions() {
            self.books.with(|books| {
                if let Ok((position, record)) = books.of(positions.get(epoch.index()), epoch) {
                    record.last_close = Some((before, after));
                    survivors = position.pins().count().into();
                    // If nothing was left it may serve another by now.
                    if depot.tag() == epoch.tag().closed() {
                        survivors += self.live_in(depot) as u64;
                    }
                }
            });
        }
        Closed {
            emptied: swept.bytes,
            returned,
            kept: swept.bytes.saturating_sub(returned),
            survivors,
        }
    }

    /// Ends allocation in a depot. Under the ring's lock.
    pub(super) fn shut_depot(&self, depot: &EpochDepot<C::Lock>) {
        // SAFETY: the depot is one of this heap.
        unsafe {
            self.pages
                .with_pieces(depot.blocks(), |_| depot.set_tag(depot.tag().closed()))
        };
        // Here and not later: once the lock is open the depot may drain and serve another era.
        depot
            .used_class_lists()
            .for_each(|(_, class_list)| class_list.set_closed(true));
    }

    /// What is to be known before a close.
    pub(super) fn before_close(&self) -> Before {
        (self.resident(), self.pages.provider().now_ns())
    }

    fn resident(&self) -> u64 {
        let accounted = self.pages.bytes().resident as u64;
        self.pages.provider().resident_bytes().unwrap_or(accounted)
    }
}
