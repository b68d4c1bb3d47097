//! One epoch's depot: a bin for each class, and the blocks that the epoch draws slabs from.
//!
//! A row lies in metadata memory and is never freed while the heap lives, so a pointer to one stays
//! valid. Its bins follow it in memory.

use super::Bin;
use crate::chunk::RowBlocks;
use core::alloc::{Layout, LayoutError};
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use lock_api::RawMutex;

/// The bins and blocks of one epoch.
#[derive(Debug)]
pub(crate) struct Row<R> {
    id: u16,
    bins: NonNull<Bin<R>>,
    classes: usize,
    /// Guarded by the pages' lock.
    blocks: UnsafeCell<RowBlocks>,
}

// SAFETY: bins are `Sync` by their locks and atomics; `blocks` is guarded by the pages' lock.
unsafe impl<R: Send + Sync> Sync for Row<R> {}

impl<R: RawMutex> Row<R> {
    /// The memory that a row with `classes` bins needs, and where its bins begin in it.
    pub(crate) fn layout(classes: usize) -> Result<(Layout, usize), LayoutError> {
        Layout::new::<Self>().extend(Layout::array::<Bin<R>>(classes)?)
    }

    /// Writes an empty row into `memory`.
    ///
    /// # Safety
    /// `memory` is of `layout(classes)`, with bins at `bins_at`, unused, and stays valid for as long
    /// as the row is used.
    pub(crate) unsafe fn place(
        memory: NonNull<u8>,
        bins_at: usize,
        classes: usize,
        id: u16,
    ) -> NonNull<Self> {
        // SAFETY: the memory is long enough for the row and its bins.
        unsafe {
            let bins = memory.add(bins_at).cast::<Bin<R>>();
            for class in 0..classes {
                bins.add(class).write(Bin::new());
            }
            let row = memory.cast::<Self>();
            row.write(Self {
                id,
                bins,
                classes,
                blocks: UnsafeCell::new(RowBlocks::new(id)),
            });
            row
        }
    }

    pub(crate) const fn id(&self) -> u16 {
        self.id
    }

    /// The bin of a class of the heap's table.
    #[inline]
    pub(crate) fn bin(&self, class: usize) -> &Bin<R> {
        debug_assert!(class < self.classes);
        // SAFETY: the index of a class of the table that the row was made for.
        unsafe { self.bins.add(class).as_ref() }
    }

    /// Every bin, with its class.
    pub(crate) fn bins(&self) -> impl Iterator<Item = (usize, &Bin<R>)> {
        (0..self.classes).map(|class| (class, self.bin(class)))
    }

    /// For the pages, under their lock.
    pub(crate) const fn blocks(&self) -> *mut RowBlocks {
        self.blocks.get()
    }
}
