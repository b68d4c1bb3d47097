//! Ids: 22-bit numbers that lead to tagged slabs, through a table that does not know addresses.
//!
//! Ids are given out in order, from a first one that differs between heaps, and never taken back: an
//! id leads to one tagged slab for as long as the heap lives, also when the slab has got another id
//! since; then the tag says so.
//!
//! # Two heaps
//!
//! Within a program the first ids of its heaps are spread over the space as evenly as they can be:
//! each lies a golden section behind the one before. So the handles of one heap are all unknown to
//! another until one of them has more slabs than the gap between two first ids, which is 1.6 million
//! for two heaps. Between programs the first ids are as random as the place of a `static` is; where it
//! is not, give one with `Heap::set_first_handle_id`.
//!
//! # Orderings
//!
//! `start` says at once which of the program's heaps this is and where its ids begin; it is set once, by
//! one compare-and-swap, before anything else here. It is a number that leads to nothing, so it is `Relaxed`: whoever
//! makes the root has read it before, and of two reads of one atomic, one after the other, the later sees nothing older.
//! `root`, the leaves and the entries are stored with `Release`, when what they point to is written, and loaded with
//! `Acquire`: `start` happens before a load that finds the root, and an entry that is found leads to an initialised slab. `next` is changed by
//! compare-and-swap alone, so each number goes out once: `Relaxed`.

use super::{RawHandle, TaggedSlab};
use crate::config::Config;
use crate::error::AllocError;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

/// `Release` in `assign`, when the slab has its id; `Acquire` in `find`.
type Entry = AtomicPtr<TaggedSlab>;
/// `Release` where it is made, in `ensure`; `Acquire` there and in `find`.
type Leaf = AtomicPtr<Entry>;

/// Ids that a handle has room for.
const SPACE: u32 = 1 << 22;

/// Heaps of this program that have made handles. `Relaxed`: it gives out numbers, each once.
static HEAPS: AtomicU64 = AtomicU64::new(0);

/// As many of them as `start` has room for. No two have the same number, or a typed handle of one could be another's.
const MOST_HEAPS: u64 = u64::MAX / SPACE as u64;

/// The next heap's number, if there is one left.
fn number_heap(heaps: &AtomicU64) -> Option<u64> {
    let next = |given| (given < MOST_HEAPS).then_some(given + 1);
    let given = heaps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    given.ok().map(|given| given + 1)
}

/// What `Ids::start` is for a heap.
const fn start_of(heap: u64, first: u32) -> u64 {
    heap * SPACE as u64 + (first % SPACE) as u64
}

/// The table of ids of one heap.
pub(crate) struct Ids<C> {
    /// `Release` where it is made, in `ensure`; `Acquire` there and in `find`.
    root: AtomicPtr<Leaf>,
    /// The next number to give out: an id less the first id. `Relaxed`: see the head.
    next: AtomicU32,
    /// `heap << 22 | first id`: which of the program's heaps this is, from 1, and its first id. 0 while
    /// neither is decided. `Relaxed`: see the head.
    start: AtomicU64,
    config: PhantomData<C>,
}

impl<C: Config> Ids<C> {
    const IDS: u32 = {
        let log2 = C::HANDLE_IDS_LOG2;
        assert!(log2 >= 2 && log2 <= 22, "there are 2^2 to 2^22 handle ids");
        1 << log2
    };
    /// Numbers in a leaf, which is as long as the root or twice that.
    const LEAF_LOG2: u32 = C::HANDLE_IDS_LOG2.div_ceil(2);
    const LEAVES: usize = (Self::IDS >> Self::LEAF_LOG2) as usize;

    /// The last generation of a slot.
    pub(crate) const LAST: u32 = {
        let bits = C::HANDLE_GENERATION_BITS;
        assert!(
            bits >= 1 && bits <= 24,
            "generations have from 1 to 24 bits"
        );
        u32::MAX >> (32 - bits)
    };

    /// The memory that a table needs, of whichever level.
    pub(crate) const TABLE: Layout = {
        let entries = 1usize << Self::LEAF_LOG2;
        match Layout::from_size_align(entries * size_of::<Entry>(), align_of::<Entry>()) {
            Ok(layout) => layout,
            Err(_) => panic!("a table is a few pages"),
        }
    };

    pub(crate) const fn new() -> Self {
        Self {
            root: AtomicPtr::new(ptr::null_mut()),
            next: AtomicU32::new(0),
            start: AtomicU64::new(0),
            config: PhantomData,
        }
    }

    /// The slab that a handle's id leads to.
    #[inline]
    pub(crate) fn find(&self, handle: RawHandle) -> Option<&TaggedSlab> {
        // Pairs: the compare-and-swap in `ensure`
        let root = self.root.load(Ordering::Acquire);
        if root.is_null() {
            return None;
        }
        // The low bits are the first id, and the others fall out of the space.
        let start = self.start.load(Ordering::Relaxed) as u32;
        let number = handle.id().wrapping_sub(start) % SPACE;
        if number >= Self::IDS {
            return None;
        }
        let (leaf, index) = Self::split(number);
        // SAFETY: a root that was set has so many leaves and stays; a leaf that was set has so many
        // entries and stays; an entry that was set leads to a type-stable slab.
        unsafe {
            // Pairs: the compare-and-swap in `ensure`
            let entries = (*root.add(leaf)).load(Ordering::Acquire);
            if entries.is_null() {
                return None;
            }
            // Pairs: the store in `assign`
            (*entries.add(index)).load(Ordering::Acquire).as_ref()
        }
    }

    const fn split(number: u32) -> (usize, usize) {
        let (leaf, index) = (number >> Self::LEAF_LOG2, number % (1 << Self::LEAF_LOG2));
        (leaf as usize, index as usize)
    }

    /// Which of the program's heaps this is, for handles with a type. 0 before the first handle.
    pub(crate) fn heap(&self) -> u64 {
        self.start.load(Ordering::Relaxed) / u64::from(SPACE)
    }

    /// Sets the first id; whether there was time: none was given out yet.
    pub(crate) fn set_first(&self, id: u32) -> bool {
        self.begin(|_| id)
    }

    /// Decides which heap this is, unless that is decided; whether it was this that did.
    fn begin(&self, first: impl FnOnce(u64) -> u32) -> bool {
        if self.start.load(Ordering::Relaxed) != 0 {
            return false;
        }
        // A number that is not used is no loss.
        let Some(heap) = number_heap(&HEAPS) else {
            return false;
        };
        let start = start_of(heap, first(heap));
        let set = self
            .start
            .compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed);
        set.is_ok()
    }

    /// Gives an owned slab a fresh id. `take` gets memory of [`Self::TABLE`]'s layout, `put` takes it
    /// back.
    pub(crate) fn assign(
        &self,
        slab: &TaggedSlab,
        take: impl Fn() -> Result<NonNull<u8>, AllocError>,
        put: impl Fn(NonNull<u8>),
    ) -> Result<(), AllocError> {
        let place = (&raw const HEAPS).addr() as u64;
        self.begin(|heap| section(heap, place));
        if self.heap() == 0 {
            // The program has had 2^42 heaps: this one has no handles.
            return Err(AllocError::HandlesExhausted);
        }
        let root = Self::ensure(&self.root, &take, &put, Self::LEAVES)?;
        let mut number = self.next.load(Ordering::Relaxed);
        // Each failed turn means that somebody else got a number.
        let (leaf, index) = loop {
            if number >= Self::IDS {
                return Err(AllocError::HandlesExhausted);
            }
            let (leaf, index) = Self::split(number);
            // SAFETY: the root has so many leaves.
            let leaf = unsafe { &*root.add(leaf) };
            // Before the number is taken, so that none is lost where there is no memory.
            let entries = Self::ensure(leaf, &take, &put, 1 << Self::LEAF_LOG2)?;
            let next = self.next.compare_exchange(
                number,
                number + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match next {
                Ok(_) => break (entries, index),
                Err(now) => number = now,
            }
        };
        let first = self.start.load(Ordering::Relaxed) as u32;
        slab.begin(number.wrapping_add(first) % SPACE);
        // Pairs: the load of the entry in `find`
        // SAFETY: the leaf has so many entries.
        unsafe { (*leaf.add(index)).store(ptr::from_ref(slab).cast_mut(), Ordering::Release) };
        Ok(())
    }

    /// The table at `place`, made if there is none.
    fn ensure<T>(
        place: &AtomicPtr<AtomicPtr<T>>,
        take: impl Fn() -> Result<NonNull<u8>, AllocError>,
        put: impl Fn(NonNull<u8>),
        len: usize,
    ) -> Result<*mut AtomicPtr<T>, AllocError> {
        // Pairs: the compare-and-swap below
        let there = place.load(Ordering::Acquire);
        if !there.is_null() {
            return Ok(there);
        }
        let memory = take()?;
        let table: *mut AtomicPtr<T> = memory.as_ptr().cast();
        // SAFETY: the memory is as long as the longest table, and nobody else's yet; null pointers are zero bytes.
        unsafe { table.write_bytes(0, len) };
        // It sees null if it succeeds, behind which there is nothing to see.
        // Pairs: the loads of the root and of a leaf in `find`, and the one above
        let set =
            place.compare_exchange(ptr::null_mut(), table, Ordering::Release, Ordering::Acquire);
        set.map(|_| table).or_else(|other| {
            put(memory);
            Ok(other)
        })
    }

    /// How many ids were given out, and how many there are.
    pub(crate) fn given(&self) -> (u32, u32) {
        (self.next.load(Ordering::Relaxed), Self::IDS)
    }
}

/// The first id of a program's `heap`th heap.
fn section(heap: u64, place: u64) -> u32 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    // The place's low bits are the same in every run; a multiplication carries the others up.
    let base = (place >> 4).wrapping_mul(GOLDEN).rotate_left(32);
    (base.wrapping_add(heap.wrapping_mul(GOLDEN)) >> (64 - SPACE.trailing_zeros())) as u32
}

impl<C> fmt::Debug for Ids<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids")
            .field("next", &self.next)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;
    use std::format;
    use std::string::ToString;
    use std::vec::Vec;

    /// Catches a number that two heaps have when a program has had as many as there are: a typed handle of the one would
    /// then be the other's, and of another type.
    #[test]
    fn heaps_have_numbers_of_their_own() {
        let heaps = AtomicU64::new(0);
        assert_eq!(
            (number_heap(&heaps), number_heap(&heaps)),
            (Some(1), Some(2))
        );
        heaps.store(MOST_HEAPS - 1, Ordering::Relaxed);
        assert_eq!(number_heap(&heaps), Some(MOST_HEAPS));
        assert_eq!((number_heap(&heaps), number_heap(&heaps)), (None, None));
        assert_eq!(MOST_HEAPS, (1 << 42) - 1);
        let last = start_of(MOST_HEAPS, u32::MAX);
        assert_eq!(last / u64::from(SPACE), MOST_HEAPS);
        assert_eq!(last as u32 % SPACE, SPACE - 1);
        assert_ne!(start_of(1, 0), start_of(MOST_HEAPS, 0));
    }

    /// Catches first ids that lie closer together than they could: two of `n` heaps have at least a part of 2.62 `n` of the
    /// space between them, which is 1.6 million ids for two.
    #[test]
    fn first_ids_are_far_apart() {
        for place in [0x1000, 0x5577_3a2b_1040] {
            for count in 2..=40 {
                let mut firsts: Vec<_> = (1..=count).map(|heap| section(heap, place)).collect();
                firsts.sort_unstable();
                assert!(firsts.iter().all(|first| *first < SPACE));
                let behind = firsts.iter().skip(1).copied();
                let behind = behind.chain([firsts[0] + SPACE]);
                let gap = firsts.iter().zip(behind).map(|(a, b)| b - a).min().unwrap();
                let least = f64::from(SPACE) / 2.62 / count as f64;
                assert!(f64::from(gap) >= least, "{gap} of {count} heaps");
            }
        }
        assert_ne!(section(1, 0x1000), section(1, 0x2000), "programs differ");
    }

    #[test]
    fn a_heap_begins_once() {
        let ids = Ids::<crate::config::Unchecked<crate::provider::StaticProvider<'_>>>::new();
        assert_eq!(ids.heap(), 0);
        assert!(ids.set_first(5) && !ids.set_first(6));
        let heap = ids.heap();
        assert!(heap > 0 && heap <= HEAPS.load(Ordering::Relaxed));
        assert_eq!(ids.start.load(Ordering::Relaxed), start_of(heap, 5));
        let text = format!("{ids:?}");
        assert!(text.contains(&start_of(heap, 5).to_string()), "{text}");
    }
}
