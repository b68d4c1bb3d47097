//! Rows: what an epoch that has slabs gets its memory through. An epoch has none before it needs one, and leaves it when nothing is left
//! in it; so there are as many as epochs needed one at the same time. Which epoch has which row changes under the ring's lock.

use super::Heap;
use crate::cache::LocalRow;
use crate::config::{Config, Table};
use crate::depot::Row;
use crate::epoch::{Epoch, Pin, Position, Positions};
use crate::error::AllocError;
use crate::pages::{Kind, NO_ROW};
use crate::sync::Ordering;
use core::ptr::NonNull;

impl<C: Config> Heap<C> {
    /// Gives an epoch that is open a row, of which it had no need so far.
    #[cold]
    #[inline(never)]
    pub(super) fn attach_row(&self, epoch: Epoch) -> Result<&Row<C::Lock>, AllocError> {
        let positions = self.positions().map_err(|_| AllocError::OutOfMemory)?;
        // Each turn but the last makes a row, and rows are bounded by their numbers.
        loop {
            let row = self.books.with(|_| {
                // The pin keeps the position until the row is attached: see `Position::claim_bare`.
                let position = positions.get(epoch.index());
                let position = position.filter(|position| position.pin(epoch.era_id(), Pin::BLOCK));
                let position = position.ok_or(AllocError::EpochClosed)?;
                let row = self.attach_row_to(positions, position, epoch);
                position.unpin(Pin::BLOCK);
                row
            })?;
            match row {
                Some(row) => return Ok(row),
                None => self.make_row()?,
            }
        }
    }

    /// Gives an epoch that is open and pinned a drained row, if it has none and there is one. Under the ring's lock.
    fn attach_row_to<'a>(
        &'a self,
        positions: &'a Positions<Row<C::Lock>>,
        position: &'a Position<Row<C::Lock>>,
        epoch: Epoch,
    ) -> Result<Option<&'a Row<C::Lock>>, AllocError> {
        if let Some(row) = position.row() {
            return Ok(Some(row));
        }
        let Some(row) = self.row_for(positions) else {
            return Ok(None);
        };
        self.begin_row(epoch, row);
        position.attach(NonNull::from(row));
        if position.is_open_still(epoch.era_id()) {
            return Ok(Some(row));
        }
        self.shut_late(row);
        Err(AllocError::EpochClosed)
    }

    /// Ends allocation in a row that an epoch got while it was closed at once. Under the ring's lock.
    pub(super) fn shut_late(&self, row: &Row<C::Lock>) {
        self.shut_row(row);
        // A local may have found the row meanwhile.
        self.closes.fetch_add(1, Ordering::Release);
    }

    /// A drained row begins to serve an epoch. Under the ring's lock.
    pub(super) fn begin_row(&self, epoch: Epoch, row: &Row<C::Lock>) {
        self.begin_bins(row);
        row.use_none();
        row.attach(Some(epoch.index() as u32));
        // SAFETY: the row is one of this heap.
        unsafe {
            self.pages
                .with_pieces(row.blocks(), |_| row.set_tag(epoch.tag()));
        }
    }

    /// A drained row for an epoch. A row that is not drained, because something lives in it or a local still holds words of it, is left to
    /// drain by itself. So there are as many rows as epochs needed one at the same time, not as many as positions.
    pub(super) fn row_for<'a>(
        &'a self,
        positions: &'a Positions<Row<C::Lock>>,
    ) -> Option<&'a Row<C::Lock>> {
        let mut closed = self.rows().filter(|row| !row.tag().is_open());
        let row = closed.find(|row| row.slots() == 0 && self.is_drained(row))?;
        // The position that had the row is left.
        if let Some(position) = row.position()
            && let Some(position) = positions.get(position as usize)
        {
            position.detach();
        }
        Some(row)
    }

    /// Whether nothing is left of a closed row. Under the ring's lock.
    fn is_drained(&self, row: &Row<C::Lock>) -> bool {
        // SAFETY: the row is one of this heap.
        unsafe { self.pages.with_pieces(row.blocks(), |pieces| pieces == 0) }
    }

    /// Makes a row that nobody has.
    pub(super) fn make_row(&self) -> Result<(), AllocError> {
        let classes = Table::<C>::BINS;
        let layout = Row::<C::Lock>::layout(classes);
        let (layout, bins_at) = layout.map_err(|_| AllocError::OutOfMemory)?;
        let memory = self.with_reclaim(|| self.pages.take_meta(Kind::Row, layout))?;
        self.books.with(|books| {
            let id = books
                .next_row()
                .filter(|id| *id != NO_ROW)
                .ok_or(AllocError::OutOfMemory);
            let id = id.inspect_err(|_| {
                // SAFETY: the memory was not used.
                unsafe { self.pages.put_meta(Kind::Row, memory) };
            })?;
            // SAFETY: memory of the row's own layout, which stays until the heap is dropped.
            let row = unsafe { Row::<C::Lock>::place(memory, bins_at, classes, id) };
            let older = self.newest.load(Ordering::Relaxed);
            // SAFETY: just placed, and nobody else knows it yet.
            unsafe { row.as_ref() }
                .older
                .store(older, Ordering::Relaxed);
            self.newest.store(row.as_ptr(), Ordering::Release);
            Ok(())
        })
    }

    /// Live objects of a row: all slots, without those that nobody holds and those that locals hold.
    /// Exact when nobody uses the epoch meanwhile; never negative.
    pub(super) fn live_in(&self, row: &Row<C::Lock>) -> usize {
        let table = Table::<C>::TABLE;
        let idle: usize = row
            .used_bins()
            .map(|(class, bin)| {
                let shape = table.class(class);
                // All of it at one go: what is decided by it may not be more than an estimate.
                let stock = bin.stock(shape, usize::MAX);
                stock.free_slots + stock.cached * shape.slots()
            })
            .sum();
        let mut held = 0;
        self.locals.with(|list| {
            list.for_each(|state| {
                // SAFETY: states in the list are valid while its lock is held.
                unsafe {
                    if (*state).row == row.id() {
                        held += LocalRow::held_slots(state, Table::<C>::BINS);
                    }
                }
            });
        });
        row.slots().saturating_sub(idle + held)
    }
}
