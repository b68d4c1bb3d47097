//! One epoch's depot: a class list for each class, and the blocks that the epoch draws slabs from.
//!
//! A depot lies in metadata memory and is never freed while the heap lives, so a pointer to one stays
//! valid. Its class lists follow it in memory. A depot serves one era; when it is *drained* (no slab, no single object and no
//! region is left of it) it may serve another. Its id stays its own.
//!
//! # Which era does an allocation land in?
//!
//! Whoever holds a slot of a depot's slab knows that the depot is not drained, so the depot's tag cannot
//! move on to another era while the slot is held. An allocation that names an epoch therefore takes
//! its slot first and then reads the tag (`Relaxed`: everything that was done to the depot when it began to
//! serve happens before the `Acquire` of the take): if the tag is not that of the epoch, open, the
//! slot goes back and the answer is `EpochClosed`. New slabs are made under the pages' lock, where
//! the tag is changed too, so none is made for an era that is over.

use super::ClassList;
use super::counts::Refusals;
use crate::epoch::{Serves, Tag};
use crate::pages::DepotBlocks;
use crate::slab::Body;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::alloc::{Layout, LayoutError};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};
use lock_api::RawMutex;

/// No position of the ring.
const NOWHERE: u32 = u32::MAX;

/// The class lists and blocks of one epoch.
#[derive(Debug)]
pub(crate) struct EpochDepot<R> {
    id: u16,
    class_lists: NonNull<ClassList<R>>,
    classes: usize,
    serves: Serves,
    /// Slots of this depot's slabs and single objects. `Relaxed`: a count, exact at rest.
    slots: AtomicUsize,
    /// Bytes of its slabs and single objects. `Relaxed`, as `slots`.
    bytes: AtomicUsize,
    /// Single objects and their bytes. `Relaxed`, as `slots`.
    large: AtomicUsize,
    large_bytes: AtomicUsize,
    /// What happened in the era that the depot serves.
    pub(crate) counters: RowCounters,
    /// The classes of which a slab may have been made in this era, a bit for each: an epoch that uses few is closed
    /// and opened by looking at few. `Relaxed`: whoever makes a slab notes its class before it takes the pages' lock,
    /// under which it finds the era open; whoever ends the era reads this after it did so under the same lock.
    used: [AtomicU64; 2],
    /// The position of the ring that has the depot, or `NOWHERE`. Under the ring's lock, so `Relaxed`.
    position: AtomicU32,
    /// The depot that was made before this one. Set before the depot is published, by
    /// `Release` of `Heap::newest`, then constant: `Relaxed`.
    pub(crate) older: AtomicPtr<EpochDepot<R>>,
    /// Guarded by the pages' lock.
    blocks: UnsafeCell<DepotBlocks>,
}

/// What happened in a depot's era that its class lists do not count. `Relaxed`: figures.
#[derive(Debug, Default)]
pub(crate) struct RowCounters {
    /// Of epoch caches that are gone.
    pub(crate) from_stash: AtomicU64,
    pub(crate) spills: AtomicU64,
    /// First uses of a class by a local.
    pub(crate) no_word: AtomicU64,
    pub(crate) refused: Refusals,
}

impl RowCounters {
    /// Begins anew, for another era.
    pub(crate) fn forget(&self) {
        for count in [&self.from_stash, &self.spills, &self.no_word] {
            count.store(0, Ordering::Relaxed);
        }
        self.refused.forget();
    }
}

// SAFETY: class lists are `Sync` by their locks and atomics; `blocks` is guarded by the pages' lock.
unsafe impl<R: Send + Sync> Sync for EpochDepot<R> {}

impl Body {
    /// The depot that the slab is of.
    ///
    /// # Safety
    /// The slab is one of a heap whose lock is `R` and which lives as long as `'h`.
    #[inline(always)]
    pub(crate) unsafe fn depot_of<'h, R>(&self) -> &'h EpochDepot<R> {
        // SAFETY: bodies name depots of their heap, which are valid for as long as it.
        unsafe { &*self.depot.cast() }
    }
}

impl<R: RawMutex> EpochDepot<R> {
    /// The memory that a depot with `classes` class lists needs, and where they begin in it.
    pub(crate) fn layout(classes: usize) -> Result<(Layout, usize), LayoutError> {
        Layout::new::<Self>().extend(Layout::array::<ClassList<R>>(classes)?)
    }

    /// Writes an empty depot into `memory`.
    ///
    /// # Safety
    /// `memory` is of `layout(classes)`, with class lists at `class_lists_at`, unused, and stays valid for as long
    /// as the depot is used.
    pub(crate) unsafe fn place(
        memory: NonNull<u8>,
        class_lists_at: usize,
        classes: usize,
        id: u16,
    ) -> NonNull<Self> {
        // SAFETY: the memory is long enough for the depot and its class lists.
        unsafe {
            let class_lists = memory.add(class_lists_at).cast::<ClassList<R>>();
            for class in 0..classes {
                class_lists.add(class).write(ClassList::new());
            }
            let depot = memory.cast::<Self>();
            depot.write(Self {
                id,
                class_lists,
                classes,
                serves: Serves::nothing(),
                slots: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
                large: AtomicUsize::new(0),
                large_bytes: AtomicUsize::new(0),
                counters: RowCounters::default(),
                used: [const { AtomicU64::new(0) }; 2],
                position: AtomicU32::new(NOWHERE),
                older: AtomicPtr::new(ptr::null_mut()),
                blocks: UnsafeCell::new(DepotBlocks::new(id)),
            });
            depot
        }
    }

    pub(crate) const fn id(&self) -> u16 {
        self.id
    }

    /// What the depot serves. Stable, but for a close, while the caller holds a slot of the depot.
    #[inline]
    pub(crate) fn tag(&self) -> Tag {
        self.serves.get()
    }

    /// Under the pages' lock and the ring's.
    pub(crate) fn set_tag(&self, tag: Tag) {
        self.serves.set(tag);
    }

    /// A position of the ring has the depot from now on, or none.
    pub(crate) fn attach(&self, position: Option<u32>) {
        self.position
            .store(position.unwrap_or(NOWHERE), Ordering::Relaxed);
    }

    pub(crate) fn position(&self) -> Option<u32> {
        Some(self.position.load(Ordering::Relaxed)).filter(|position| *position != NOWHERE)
    }

    /// Counts slots that were added or, if negative, taken away.
    pub(crate) fn count_slots(&self, change: isize) {
        self.slots.fetch_add(change as usize, Ordering::Relaxed);
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }

    /// Counts bytes of slabs that were added or, if negative, taken away.
    pub(crate) fn count_bytes(&self, change: isize) {
        self.bytes.fetch_add(change as usize, Ordering::Relaxed);
    }

    /// Counts a single object.
    pub(crate) fn add_large(&self, bytes: usize) {
        self.count_slots(1);
        self.count_bytes(bytes as isize);
        self.large.fetch_add(1, Ordering::Relaxed);
        self.large_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts that a single object went.
    pub(crate) fn remove_large(&self, bytes: usize) {
        self.count_slots(-1);
        self.count_bytes(-(bytes as isize));
        self.large.fetch_sub(1, Ordering::Relaxed);
        self.large_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts that a single object became longer or shorter.
    pub(crate) fn resize_large(&self, from: usize, to: usize) {
        let change = to.wrapping_sub(from);
        self.bytes.fetch_add(change, Ordering::Relaxed);
        self.large_bytes.fetch_add(change, Ordering::Relaxed);
    }

    /// Bytes of slabs and single objects.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Single objects, and their bytes.
    pub(crate) fn large(&self) -> (usize, usize) {
        let bytes = self.large_bytes.load(Ordering::Relaxed);
        (self.large.load(Ordering::Relaxed), bytes)
    }

    /// The class list of a class of the heap's table.
    #[inline]
    pub(crate) fn class_list(&self, class: usize) -> &ClassList<R> {
        debug_assert!(class < self.classes);
        // SAFETY: the index of a class of the table that the depot was made for.
        unsafe { self.class_lists.add(class).as_ref() }
    }

    /// Every class list, with its class.
    pub(crate) fn class_lists(&self) -> impl Iterator<Item = (usize, &ClassList<R>)> {
        (0..self.classes).map(|class| (class, self.class_list(class)))
    }

    /// Notes that a slab of a class is going to be made.
    pub(crate) fn use_class(&self, class: usize) {
        if let Some(word) = self.used.get(class / 64) {
            let bit = 1 << (class % 64);
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Whether the class is noted.
    #[cfg(feature = "walker")]
    pub(crate) fn uses_class(&self, class: usize) -> bool {
        let word = self.used.get(class / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (class % 64) & 1 == 1)
    }

    /// The class lists that may have, or had, slabs in this era, with their classes.
    pub(crate) fn used_class_lists(&self) -> impl Iterator<Item = (usize, &ClassList<R>)> {
        let words = self.used.iter().enumerate();
        words.flat_map(move |(index, word)| {
            let mut left = word.load(Ordering::Relaxed);
            core::iter::from_fn(move || {
                let bit = left.checked_ilog2()?;
                left &= !(1 << bit);
                let class = index * 64 + bit as usize;
                Some((class, self.class_list(class)))
            })
        })
    }

    /// Begins another era, in which no class was used yet.
    pub(crate) fn use_none(&self) {
        for word in &self.used {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// For the pages, under their lock.
    pub(crate) const fn blocks(&self) -> *mut DepotBlocks {
        self.blocks.get()
    }
}
