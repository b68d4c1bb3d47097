//! The walker: reads a heap at rest and checks that every rule holds that binds its parts together.
//!
//! What it checks: each granule of each chunk is free or in exactly one run; each run's map entries,
//! depot and slab agree; for each slab the free slots, the words that locals hold and the live slots
//! are disjoint and together are all slots; a slab with a free slot is listed, a cached one is whole;
//! in a checked heap the marks, and for objects with handles the tags, say the same as the words; and every sum that the heap keeps is the
//! sum of its parts.

use super::{Heap, ROOT_DEPOT};
use crate::block::BumpBlock;
use crate::cache::CacheState;
use crate::class::{GRANULE, Purpose, is_extent};
use crate::config::{Config, Table};
use crate::handle::{FreeWord, RawHandle, TaggedSlab};
use crate::pages::{BlockView, NO_DEPOT};
use crate::slab::{Key, Slab};
use crate::sync::{AtomicU8, Ordering};
use core::fmt;
use core::ptr::{self, NonNull};

/// What a heap holds, counted one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Slabs of classes, cached ones included.
    pub slabs: usize,
    /// Of these, whole ones that wait in a class list's cache.
    pub cached_slabs: usize,
    /// Objects in slots.
    pub live_slots: usize,
    /// The bytes of their slots.
    pub live_slot_bytes: usize,
    /// Of the objects in slots, those in slabs that are shared by epochs.
    pub mixed_slots: usize,
    /// Slots that nobody holds.
    pub free_slots: usize,
    /// Slots that locals hold.
    pub held_slots: usize,
    /// Objects that are a run in a chunk.
    pub runs: usize,
    /// Their bytes.
    pub run_bytes: usize,
    /// Objects with a region of their own.
    pub regions: usize,
    /// Their bytes.
    pub region_bytes: usize,
    /// Bump blocks, those without objects included.
    pub blocks: usize,
    /// Objects in them.
    pub block_objects: usize,
    /// The bytes of these: in an unchecked heap about.
    pub block_object_bytes: usize,
    /// Bytes held from the provider.
    pub taken: usize,
    /// Of these, touched and not decommitted.
    pub resident: usize,
}

/// A slab of a class, as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlabCensus {
    /// The index of its class.
    pub class: usize,
    /// It waits in a class list's cache.
    pub is_cached: bool,
    /// Its slots with objects.
    pub live: usize,
    /// Its slots that nobody holds.
    pub free: usize,
    /// Its slots that locals hold.
    pub held: usize,
}

/// A rule that does not hold, and an address where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// Where: of the slab, the granule or the heap.
    pub address: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.rule, self.address)
    }
}

impl core::error::Error for Violation {}

/// Collects the first violation, and what is to be compared at the end.
#[derive(Default)]
struct Verdict {
    first: Option<Violation>,
    /// What counts in the epochs' records, and how many bytes of objects are among it.
    pins: u64,
    pinned_bytes: u64,
}

impl Verdict {
    fn demand(&mut self, holds: bool, rule: &'static str, address: usize) -> bool {
        if !holds && self.first.is_none() {
            self.first = Some(Violation { rule, address });
        }
        holds
    }
}

impl<C: Config> Heap<C> {
    /// Walks the whole heap and checks it. Takes time with the square of what is in it.
    ///
    /// # Errors
    /// The first rule that does not hold.
    ///
    /// # Safety
    /// Nobody else uses the heap, or any local of it, during the walk.
    pub unsafe fn walk(&self) -> Result<Census, Violation> {
        // SAFETY: the caller's promise.
        unsafe { self.walk_each(|_| {}) }
    }

    /// As [`Heap::walk`], and calls `f` for each slab of a class, but for those of scopes.
    ///
    /// # Errors
    /// As for [`Heap::walk`].
    ///
    /// # Safety
    /// As for [`Heap::walk`].
    pub unsafe fn walk_each(&self, mut f: impl FnMut(SlabCensus)) -> Result<Census, Violation> {
        let mut verdict = Verdict::default();
        let mut census = Census::default();
        let mut sums = (0, 0, 0);
        let mut long_left = 0;
        let regions = core::cell::RefCell::new((&mut verdict, &mut census));
        self.pages.view(
            |region| {
                let (verdict, census) = &mut *regions.borrow_mut();
                sums.0 += region.size;
                sums.1 += region.resident;
                sums.2 += region.warm;
                verdict.demand(region.sums_agree, "a chunk's warm bytes are its blocks'", 0);
                if region.is_large {
                    census.regions += 1;
                    census.region_bytes += region.size;
                }
            },
            |block| {
                let (verdict, census) = &mut *regions.borrow_mut();
                self.walk_block(block, &mut long_left, verdict, census, &mut f);
            },
        );
        let bytes = self.pages.bytes();
        sums.1 += bytes.meta;
        (census.taken, census.resident) = (sums.0, sums.1);
        verdict.demand(
            sums.0 == bytes.taken,
            "bytes taken are the regions'",
            bytes.taken,
        );
        verdict.demand(
            sums.1 == bytes.resident,
            "resident bytes are the regions'",
            bytes.resident,
        );
        verdict.demand(
            sums.2 == bytes.warm,
            "warm bytes are the chunks'",
            bytes.warm,
        );
        verdict.demand(long_left == 0, "an extent ends in its region", 0);
        self.walk_class_lists(&mut verdict, &mut census);
        self.walk_records(&mut verdict);
        verdict.first.map_or(Ok(census), Err)
    }

    fn walk_block(
        &self,
        block: BlockView,
        long_left: &mut u32,
        verdict: &mut Verdict,
        census: &mut Census,
        each: &mut impl FnMut(SlabCensus),
    ) {
        let base = block.base.addr();
        let in_use = !block.free;
        let is_owned = block.depot != NO_DEPOT;
        if *long_left > 0 {
            let here = (*long_left).min(64);
            *long_left -= here;
            verdict.demand(
                in_use == u64::MAX >> (64 - here) && !block.is_free && !is_owned,
                "an extent's block is its own as far as it goes",
                base,
            );
            return;
        }
        if block.is_free {
            verdict.demand(in_use == 0 && !is_owned, "a free block is empty", base);
            return;
        }
        let mut granule = 0;
        while granule < 64 {
            let address = base + granule as usize * GRANULE;
            let entry = self.entry(address);
            // SAFETY: the heap outlives the call.
            let slab = unsafe { entry.slab() };
            if block.free >> granule & 1 == 1 {
                verdict.demand(slab.is_none(), "a free granule has no slab", address);
                granule += 1;
                continue;
            }
            let Some(slab) = slab else {
                verdict.demand(false, "a granule in use has a slab", address);
                return;
            };
            // SAFETY: at rest nobody changes it.
            let body = unsafe { slab.body() };
            if !verdict.demand(
                body.base.addr() == address && body.granules > 0,
                "a run begins where its slab says",
                address,
            ) {
                return;
            }
            let key = slab.identity().key();
            let is_home =
                key.depot() == ROOT_DEPOT && usize::from(key.class()) < Table::<C>::TABLE.len();
            verdict.demand(
                entry.class() == usize::from(key.class()) && entry.is_home() == is_home,
                "the page map knows a slab's class, and whether it is the root's",
                address,
            );
            let is_extent = is_extent(body.granules as usize);
            if is_extent {
                let here = body.granules.min(64);
                verdict.demand(
                    granule == 0 && in_use == u64::MAX >> (64 - here) && !is_owned,
                    "an extent begins a block",
                    address,
                );
                *long_left = body.granules - here;
            }
            match key.class() {
                Key::SINGLE => {
                    verdict.demand(slab.free() == 0, "a single object's word is 0", address);
                    census.runs += 1;
                    census.run_bytes += body.granules as usize * GRANULE;
                }
                Key::BLOCK => {
                    // SAFETY: it is a block's metadata, by its key.
                    let bumped = unsafe { BumpBlock::of(slab) };
                    let (live, bytes) = bumped.live(C::CHECKED);
                    census.blocks += 1;
                    census.block_object_bytes += bytes as usize;
                    census.block_objects += live as usize;
                    verdict.pins += u64::from(bumped.pins.load(Ordering::Relaxed));
                    verdict.demand(
                        body.granules as usize == bumped.kind().granules(),
                        "a bump block is as long as its kind says",
                        address,
                    );
                    verdict.demand(
                        !C::CHECKED || bumped.marked() == live,
                        "a bump block's marks are its live objects",
                        address,
                    );
                }
                class => {
                    let class = usize::from(class);
                    if let Some(slab) = self.walk_slab(slab, class, address, verdict, census) {
                        each(slab);
                    }
                }
            }
            if is_extent {
                return;
            }
            verdict.demand(
                key.depot() == block.depot,
                "a slab is of its block's depot",
                address,
            );
            for other in granule..(granule + body.granules).min(64) {
                let other_address = base + other as usize * GRANULE;
                let found = self.entry(other_address);
                let expected = found == entry || (key.class() == Key::SINGLE && found.is_none());
                verdict.demand(
                    block.free >> other & 1 == 0 && (expected || other == granule),
                    "a run's granules are its own",
                    other_address,
                );
            }
            granule += body.granules;
        }
        verdict.demand(granule == 64, "a run ends in its block", base);
    }

    /// Checks that the objects in a mixed slab are of epochs that are there.
    fn walk_holders(&self, slab: &Slab, class: usize, live: u64, verdict: &mut Verdict) {
        let size = Table::<C>::TABLE.class(class).size();
        // SAFETY: at rest.
        let base = unsafe { slab.body() }.base;
        for slot in (0..64).filter(|slot| live >> slot & 1 == 1) {
            let object = base.wrapping_add(slot * size);
            let address = object.addr();
            // SAFETY: the slot is live, and of this class.
            let held = NonNull::new(object).and_then(|at| unsafe { self.held(slab, at, class) });
            let is_there = held.is_some_and(|(_, position)| position.pins().count() > 0);
            verdict.demand(is_there, "an object's epoch has a record", address);
            verdict.pins += 1;
            verdict.pinned_bytes += size as u64;
        }
    }

    /// Checks that the epochs' records count what there is of them.
    fn walk_records(&self, verdict: &mut Verdict) {
        let (mut pins, mut bytes) = (0, 0);
        let others = (0..self.positions.len()).filter(|index| !self.mixed.is_epoch(*index));
        for position in others.filter_map(|index| self.positions.get(index)) {
            pins += u64::from(position.pins().count());
            bytes += position.pins().object_bytes();
        }
        let is_all = (pins, bytes) == (verdict.pins, verdict.pinned_bytes);
        verdict.demand(is_all, "records count what pins them", 0);
    }

    fn walk_slab(
        &self,
        slab: &Slab,
        class: usize,
        address: usize,
        verdict: &mut Verdict,
        census: &mut Census,
    ) -> Option<SlabCensus> {
        if !verdict.demand(
            class < Table::<C>::TABLE.kinds(),
            "a slab is of a class of the table",
            address,
        ) {
            return None;
        }
        let shape = Table::<C>::TABLE.class(class);
        // SAFETY: at rest; a slab's depot is valid for as long as the heap.
        let (body, depot) = unsafe { (slab.body(), slab.body().depot_of::<C::Lock>()) };
        verdict.demand(
            body.granules == u32::from(shape.granules),
            "a slab is as long as its class says",
            address,
        );
        // SAFETY: slabs of a tagged class are tagged.
        let tagged = shape.is_tagged.then(|| unsafe { TaggedSlab::of(slab) });
        if Table::<C>::TABLE.purpose(class) == Purpose::Scoped {
            let taken = tagged.map_or(0, TaggedSlab::taken);
            census.slabs += 1;
            census.live_slots += taken.count_ones() as usize;
            census.live_slot_bytes += taken.count_ones() as usize * shape.size();
            verdict.demand(
                taken & slab.free() == 0,
                "what a scope holds is not free",
                address,
            );
            return None;
        }
        verdict.demand(
            depot.uses_class(class),
            "a slab's class is noted in its depot",
            address,
        );
        let all = shape.all & !tagged.map_or(0, TaggedSlab::retired);
        if let Some(tagged) = tagged {
            let id = |slot| RawHandle::of_word(tagged.tag(slot).free_word()).id();
            let first = tagged.tag(0).free_word();
            let leads_back = self.slab_of(first).is_some_and(|of| ptr::eq(of, tagged));
            verdict.demand(leads_back, "a slab's id leads back to it", address);
            verdict.demand(
                (1..shape.slots()).all(|slot| id(slot) == id(0)),
                "a slab's slots have one id",
                address,
            );
        }
        let mut is_cached = false;
        let mut is_listed = false;
        depot.class_list(class).for_each_listed(|listed, in_cache| {
            is_listed |= ptr::eq(listed, slab);
            is_cached |= ptr::eq(listed, slab) && in_cache;
        });
        let free = slab.free();
        let mut held = if is_cached { shape.all } else { 0 };
        self.for_each_held(depot.id(), class, |word_slab, word, slot_address| {
            let word = match slot_address {
                Some(entry) if shape.is_tagged => {
                    let word = FreeWord(entry);
                    let of = self.slab_of(word).map(TaggedSlab::slab);
                    let is_here = of.is_some_and(|of| ptr::eq(of, slab));
                    let slot = RawHandle::of_word(word).slot();
                    let now = tagged.map(|tagged| tagged.tag(slot).free_word());
                    verdict.demand(
                        !is_here || now == Some(word),
                        "a held word is its tag's",
                        address,
                    );
                    u64::from(is_here) << RawHandle::of_word(word).slot()
                }
                Some(at) if (at as usize).wrapping_sub(address) < shape.slab_bytes() => {
                    let at = at as usize;
                    let slot = shape.slot_of(at - address);
                    verdict.demand(
                        slot as usize * shape.size() == at - address,
                        "a held pointer begins a slot",
                        at,
                    );
                    1 << slot
                }
                None if ptr::eq(word_slab, slab) => word,
                _ => 0,
            };
            verdict.demand(held & word == 0, "a slot is held once", address);
            held |= word;
        });
        verdict.demand(free & held == 0, "a free slot is not held", address);
        verdict.demand((free | held) & !all == 0, "a word has only slots", address);
        verdict.demand(
            free == 0 || is_listed,
            "a slab with free slots is listed",
            address,
        );
        verdict.demand(
            free != all || (self.may_linger() && all == shape.all),
            "an empty slab is claimed",
            address,
        );
        let live = all & !free & !held;
        if self.is_mixed(slab) {
            self.walk_holders(slab, class, live, verdict);
            census.mixed_slots += live.count_ones() as usize;
        }
        if let Some(tagged) = tagged {
            verdict.demand(
                tagged.taken() == live,
                "the tags are the live slots",
                address,
            );
        } else if C::CHECKED {
            verdict.demand(marks(slab) == live, "the marks are the live slots", address);
        }
        census.slabs += 1;
        census.cached_slabs += usize::from(is_cached);
        census.live_slots += live.count_ones() as usize;
        census.live_slot_bytes += live.count_ones() as usize * shape.size();
        census.free_slots += free.count_ones() as usize;
        let held = if is_cached {
            0
        } else {
            held.count_ones() as usize
        };
        census.held_slots += held;
        Some(SlabCensus {
            class,
            is_cached,
            live: live.count_ones() as usize,
            free: free.count_ones() as usize,
            held,
        })
    }

    /// Calls `f` for each word and each address that a local of this depot holds in this class.
    fn for_each_held(
        &self,
        depot: u16,
        class: usize,
        mut f: impl FnMut(*const Slab, u64, Option<u64>),
    ) {
        let classes = Table::<C>::LISTED;
        self.locals.with(|list| {
            list.for_each(|state| {
                // SAFETY: states in the list are valid, and at rest.
                if unsafe { (*state).depot } != depot {
                    return;
                }
                // SAFETY: as above.
                let cell = unsafe { CacheState::cell(state, classes, class) };
                for index in 0..cell.in_magazine() {
                    f(ptr::null(), 0, Some(cell.magazine(index).name));
                }
                for held in (0..cell.stashed())
                    .map(|i| cell.stash(i))
                    .chain([cell.current()])
                {
                    f(held.slab, held.word, None);
                }
            });
        });
    }

    fn walk_class_lists(&self, verdict: &mut Verdict, census: &mut Census) {
        let (mut cached, mut cached_bytes) = (0, 0);
        for depot in self.depots() {
            for (class, class_list) in depot.class_lists() {
                let key = Key::new(depot.id(), class as u8);
                class_list.for_each_listed(|slab, in_cache| {
                    let address = ptr::from_ref(slab).addr();
                    verdict.demand(
                        slab.identity().key() == key,
                        "a listed slab is of its class_list",
                        address,
                    );
                    if in_cache {
                        verdict.demand(slab.free() == 0, "a cached slab's word is 0", address);
                        cached += 1;
                        cached_bytes += Table::<C>::TABLE.class(class).slab_bytes();
                    }
                });
            }
        }
        verdict.demand(
            cached == census.cached_slabs,
            "cached slabs are in the chunks",
            cached,
        );
        let counted = self.budget.bytes();
        verdict.demand(
            cached_bytes + self.pooled_bytes() as usize == counted,
            "cached bytes are the cached slabs'",
            counted,
        );
    }
}

/// The live slots by a checked heap's marks.
fn marks(slab: &Slab) -> u64 {
    let first = ptr::from_ref(slab).addr() + size_of::<Slab>();
    (0..64).fold(0, |word, slot| {
        // SAFETY: in a checked heap 64 marks follow each plain slab in exposed metadata memory.
        let mark: &AtomicU8 = unsafe { &*ptr::with_exposed_provenance(first + slot) };
        word | u64::from(mark.load(Ordering::Relaxed)) << slot
    })
}
