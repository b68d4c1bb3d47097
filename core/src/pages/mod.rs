//! Pages: what the heap holds from its provider, free runs in it, the page map, decommit.
//!
//! Principles:
//! - One lock guards all bookkeeping, and every section under it is short and bounded. The provider
//!   is called between sections, never in one: what it works on is first taken out of circulation.
//! - The provider's answers are checked before they are used. What fails the check is handed back.
//! - Everything that is taken is in the tree of regions, so everything can be given back.
//! - This layer knows runs of granules. It does not know what an object is.

mod arena;
mod block;
mod chain;
mod chunk;
mod depot_blocks;
mod entry;
mod geometry;
mod large;
mod map;
mod meta;
mod purge;
mod records;
mod regions;
mod runs;
mod state;
mod stats;
mod supply;
mod table;
mod take;
#[cfg(test)]
mod tests;
mod transit;
mod tree;
#[cfg(feature = "walker")]
mod view;
mod whole;

use crate::class::{BLOCK, GRANULE, MAX_RUN_GRANULES, is_extent};
use crate::error::AllocError;
use crate::provider::{Capabilities, PageProvider, Region};
use crate::sync::{AtomicU64, AtomicUsize, Lock, LockCounts, Ordering};
use arena::{META_HEADER, META_REGION};
use block::PageShape;
use core::alloc::Layout;
use core::ptr::NonNull;
use lock_api::RawMutex;
use state::State;
use whole::Whole;

pub(crate) use arena::Kind;
pub(crate) use chunk::Chunk;
pub(crate) use depot_blocks::DepotBlocks;
pub(crate) use entry::{Entry, EntryKind};
pub(crate) use geometry::{Geometry, NO_DEPOT};
pub(crate) use map::{PageMap, set_entries};
pub(crate) use meta::{MetaShape, Record};
pub(crate) use state::Short;
pub use stats::PageStats;
#[cfg(feature = "walker")]
pub(crate) use view::BlockView;

/// Pieces up to which an epoch is small: what is not touched of its blocks is not to be in memory.
const SMALL_DEPOT: usize = 8;

/// The longest extent that is made present whole, whether such are used whole or not.
const MAX_POPULATED: usize = 8 * BLOCK;

/// A run of granules that was handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) base: *mut u8,
    pub(crate) chunk: *mut Chunk,
    /// No granule of it was written since it was fresh.
    clean: bool,
    /// A granule of it was decommitted and may need a commit.
    gone: bool,
    /// It is the first of a block of which nothing is in memory and that is to be made present.
    opens: bool,
    /// How many of its blocks nothing is in memory of and, of an extent, one of these that is neither its first nor its last,
    /// or 0.
    fresh: u32,
    watch: u32,
}

impl Run {
    /// This run and the one behind it, as one.
    fn and(self, behind: Self) -> Self {
        Self {
            clean: self.clean && behind.clean,
            gone: self.gone || behind.gone,
            fresh: self.fresh + behind.fresh,
            ..self
        }
    }
}

/// Bytes by where they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PageBytes {
    pub(crate) taken: usize,
    pub(crate) resident: usize,
    pub(crate) warm: usize,
    /// Of the resident ones, metadata.
    pub(crate) meta: usize,
}

/// The heap's pages.
///
/// Orderings: `taken`, `most_taken`, `limit`, `warm`, `resident`, `returned` and the counts are `Relaxed`. `taken` is only compared with
/// the limit and changed by read-modify-writes, so no two requests pass the limit together; the
/// others are hints and figures. All else is under the lock.
#[derive(Debug)]
pub(crate) struct Pages<P, R> {
    provider: P,
    /// Address to slab, for anybody.
    pub(crate) map: PageMap,
    state: Lock<R, State<P>>,
    /// Bytes that are held from the provider or being asked for.
    taken: AtomicUsize,
    /// The most that `taken` was.
    most_taken: AtomicUsize,
    limit: AtomicUsize,
    /// Copies of `State::warm` and `State::resident` for those who only want to know whether to act.
    warm: AtomicUsize,
    resident: AtomicUsize,
    decommits: AtomicU64,
    decommitted_bytes: AtomicU64,
    failed_decommits: AtomicU64,
    refused_regions: AtomicU64,
    failed_acquires: AtomicU64,
    acquired_chunks: AtomicU64,
    released_chunks: AtomicU64,
    whole: Whole,
    /// Counts what came back: slabs, pages, regions.
    returned: AtomicUsize,
}

impl<P: PageProvider, R: RawMutex> Pages<P, R> {
    pub(crate) const fn new(provider: P) -> Self {
        Self {
            provider,
            map: PageMap::new(),
            state: Lock::new(State::new()),
            taken: AtomicUsize::new(0),
            most_taken: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            warm: AtomicUsize::new(0),
            resident: AtomicUsize::new(0),
            decommits: AtomicU64::new(0),
            decommitted_bytes: AtomicU64::new(0),
            failed_decommits: AtomicU64::new(0),
            refused_regions: AtomicU64::new(0),
            failed_acquires: AtomicU64::new(0),
            acquired_chunks: AtomicU64::new(0),
            released_chunks: AtomicU64::new(0),
            whole: Whole::new(),
            returned: AtomicUsize::new(0),
        }
    }

    pub(crate) const fn provider(&self) -> &P {
        &self.provider
    }

    pub(crate) fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> PageBytes {
        self.state.with(|state| PageBytes {
            taken: self.taken.load(Ordering::Relaxed),
            resident: state.resident + state.resident_meta(),
            warm: state.warm,
            meta: state.resident_meta(),
        })
    }

    /// What is held from the provider, and what it was asked so far.
    pub(crate) fn stats(&self) -> PageStats {
        let (resident, chunks) = self
            .state
            .with(|state| (state.resident + state.resident_meta(), state.chunks));
        let limit = self.limit.load(Ordering::Relaxed);
        let released = self.released_chunks.load(Ordering::Relaxed);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let taken = self.taken();
        PageStats {
            committed: taken as u64,
            most_committed: self.most_taken.load(Ordering::Relaxed).max(taken) as u64,
            resident: resident as u64,
            limit: (limit != usize::MAX).then_some(limit as u64),
            chunks: chunks as u64,
            chunks_acquired: count(&self.acquired_chunks).max(released),
            chunks_released: released,
            acquires_failed: count(&self.failed_acquires),
            regions_refused: count(&self.refused_regions),
            decommits: count(&self.decommits),
            decommitted_bytes: count(&self.decommitted_bytes),
            decommits_failed: count(&self.failed_decommits),
        }
    }

    /// Bytes that are held from the provider, as of a moment ago.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Chunks that were got so far.
    pub(crate) fn acquired_chunks(&self) -> u64 {
        self.acquired_chunks.load(Ordering::Relaxed)
    }

    /// How often the pages' lock was taken.
    pub(crate) fn lock_counts(&self) -> LockCounts {
        self.state.counts()
    }

    /// Bytes in memory of what is for objects, as of a moment ago.
    pub(crate) fn resident(&self) -> usize {
        self.resident.load(Ordering::Relaxed)
    }

    /// Says what others want to know without the lock.
    fn note(&self, state: &State<P>) {
        self.warm.store(state.warm, Ordering::Relaxed);
        self.resident.store(state.resident, Ordering::Relaxed);
    }

    /// Bytes of warm pages, as of a moment ago.
    pub(crate) fn warm(&self) -> usize {
        self.warm.load(Ordering::Relaxed)
    }

    /// The fewest bytes of warm pages that there were since this was asked last.
    pub(crate) fn least_warm(&self) -> usize {
        self.state
            .with(|state| core::mem::replace(&mut state.least_warm, state.warm))
    }

    /// Whether pages can go back one by one.
    pub(crate) fn can_decommit(&self) -> bool {
        self.provider
            .capabilities()
            .contains(Capabilities::DECOMMIT)
            && PageShape::new(self.provider.page_size()).is_some()
    }

    /// A record of a slab and memory for it: a run from the blocks of `depot` or, above half a block, an extent. The flag tells
    /// whether it reads as zero. Before memory is touched for the first time for it, or a chunk is got, `make_room` may make room,
    /// and says whether it did. `is_open` is asked under the lock whether the depot may still grow.
    ///
    /// # Safety
    /// `depot` is a depot of this heap.
    pub(crate) unsafe fn take_slab<'s, T: Record + 's>(
        &self,
        depot: *mut DepotBlocks,
        meta: MetaShape,
        granules: u32,
        align: u32,
        is_open: impl Fn() -> bool,
        make_room: impl Fn(Short) -> bool,
    ) -> Result<(&'s T, Run, bool), AllocError> {
        let (bytes, is_extent) = (granules as usize * GRANULE, is_extent(granules as usize));
        let (slab, run) = self.supplied(make_room, |state, effort| {
            if !is_open() {
                return Err(Short::Closed);
            }
            let slab = state.take_record(meta)?;
            // SAFETY: the caller's depot.
            unsafe {
                let is_small = (*depot).pieces < SMALL_DEPOT;
                let taken = if is_extent {
                    state.take_extent(granules, effort)
                } else {
                    state.take_run(depot, granules, align, effort)
                };
                taken.map(|run| {
                    (*depot).took(bytes);
                    let opens = run.opens && !is_small;
                    (slab, Run { opens, ..run })
                })
            }
            // SAFETY: the slab was just taken, so it is owned and has not begun a life.
            .inspect_err(|_| unsafe { state.put_record(slab, meta) })
        })?;
        match self.ready(&run, bytes) {
            Ok(zero) => {
                if is_extent {
                    self.expect_whole(&run, bytes);
                }
                Ok((slab, run, zero))
            }
            Err(error) => {
                // SAFETY: as above, and nothing of the run was used.
                unsafe {
                    self.put_slab(
                        depot,
                        Some((slab, meta)),
                        run.chunk,
                        run.base.addr(),
                        granules,
                    )
                };
                Err(error)
            }
        }
    }

    /// Takes a slab's memory back, and its metadata unless that is used up.
    ///
    /// # Safety
    /// They belong together, were taken for this depot, and are the caller's alone; the slab's life was ended.
    pub(crate) unsafe fn put_slab<T: Record>(
        &self,
        depot: *mut DepotBlocks,
        slab: Option<(&T, MetaShape)>,
        chunk: *mut Chunk,
        base: usize,
        granules: u32,
    ) {
        let bytes = granules as usize * GRANULE;
        if is_extent(granules as usize) {
            self.end_whole(base, bytes);
        }
        self.state.with(|state| {
            // SAFETY: the caller's promise.
            unsafe {
                if let Some((slab, meta)) = slab {
                    state.put_record(slab, meta);
                }
                (*depot).gave(bytes);
                if is_extent(granules as usize) {
                    state.shrink_extent(chunk, base, granules, 0);
                } else {
                    state.put_run(chunk, base, granules);
                }
            }
            self.note(state);
        });
        self.returned.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes an extent longer or shorter where it is. Whether what it has more reads as zero; `None`, and nothing changed,
    /// if there is no room.
    ///
    /// # Safety
    /// The extent is the caller's, of `old` granules, and what is given up is used no more.
    pub(crate) unsafe fn resize_extent(
        &self,
        chunk: *mut Chunk,
        base: *mut u8,
        old: u32,
        granules: u32,
    ) -> Option<bool> {
        if granules < old {
            let (kept, given) = (
                granules as usize * GRANULE,
                (old - granules) as usize * GRANULE,
            );
            self.end_whole(base.addr() + kept, given);
            // SAFETY: the caller's promise.
            self.state.with(|state| unsafe {
                state.shrink_extent(chunk, base.addr(), old, granules);
                self.note(state);
            });
            self.returned.fetch_add(1, Ordering::Relaxed);
            return Some(false);
        }
        let run = self.state.with(|state| {
            // SAFETY: the caller's promise.
            let run = unsafe { state.grow_extent(chunk, base.addr(), old, granules) };
            self.note(state);
            run
        })?;
        let bytes = (granules - old) as usize * GRANULE;
        let zero = self.ready(&run, bytes);
        zero.inspect(|_| self.expect_whole(&run, bytes))
            .inspect_err(|_| {
                // SAFETY: nothing of what it got was used.
                self.state.with(|state| unsafe {
                    state.shrink_extent(chunk, base.addr(), granules, old);
                    self.note(state);
                });
            })
            .ok()
    }

    /// Changes whenever memory comes back: what failed for lack of it may then be tried again.
    pub(crate) fn returned(&self) -> usize {
        self.returned.load(Ordering::Relaxed)
    }

    /// Makes a run usable; whether it reads as zero.
    fn ready(&self, run: &Run, bytes: usize) -> Result<bool, AllocError> {
        let can = self.provider.capabilities();
        if run.gone && !can.contains(Capabilities::LAZY_COMMIT) {
            let page = self.provider.page_size();
            let lead = run.base.addr() % page;
            // SAFETY: blocks are multiples of pages, so the page begins in the same chunk.
            let base = unsafe { NonNull::new_unchecked(run.base.sub(lead)) };
            let size = (lead + bytes).next_multiple_of(page);
            // SAFETY: whole pages inside the chunk; parts of them may be in use, as commit allows.
            let committed = unsafe { self.provider.commit(Region { base, size }) };
            if committed.is_err() {
                return Err(AllocError::OutOfMemory);
            }
            // SAFETY: the run was just handed out.
            self.state.with(|state| unsafe {
                state.mark_present(run.chunk, run.base.addr(), bytes / GRANULE);
            });
        }
        // A page that is longer than a block has others' memory in it, or what is not in the chunk.
        let fits = || PageShape::new(self.provider.page_size()).is_some();
        // A long object of which only parts are used is not to be in memory whole.
        let opens = run.opens && bytes <= MAX_POPULATED;
        if opens && can.contains(Capabilities::POPULATE) && fits() {
            self.populate_block(run, bytes);
        }
        let zero = if run.gone {
            Capabilities::DECOMMIT_ZERO | Capabilities::FRESH_ZERO
        } else {
            Capabilities::FRESH_ZERO
        };
        Ok(run.clean && can.contains(zero))
    }

    /// Has what a run begins to draw from made present at once: its block from its first page on, or all
    /// of a longer run.
    #[cold]
    fn populate_block(&self, run: &Run, bytes: usize) {
        let page = self.provider.page_size();
        let lead = run.base.addr() % page;
        // What is behind an extent in its last block is nobody's.
        let rest = if bytes > MAX_RUN_GRANULES * GRANULE {
            bytes
        } else {
            BLOCK - run.base.addr() % BLOCK
        };
        // SAFETY: blocks are multiples of pages, so the page begins in the same chunk.
        let base = unsafe { NonNull::new_unchecked(run.base.sub(lead)) };
        let size = (lead + rest.max(bytes)).next_multiple_of(page);
        // SAFETY: whole pages inside the chunk.
        unsafe { self.provider.populate(Region { base, size }) };
        if bytes > BLOCK {
            return;
        }
        let index = run.base.addr() % Geometry::<P>::CHUNK / BLOCK;
        // SAFETY: the run is out, so its chunk is valid.
        let ahead = unsafe {
            self.state
                .with(|state| state.begin_ahead(run.chunk, index as u32))
        };
        if let Some(ahead) = ahead {
            // SAFETY: whole blocks in transit, which are whole pages.
            unsafe { self.provider.populate(ahead.region) };
            self.state.with(|state| {
                state.end_ahead(&ahead);
                self.note(state);
            });
        }
    }

    /// The lock of all this, for as long as the caller says.
    pub(crate) fn hold(&self) {
        self.state.hold();
    }

    /// Ends [`Self::hold`].
    ///
    /// # Safety
    /// This context holds it, or is a copy of one that did.
    pub(crate) unsafe fn let_go(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.state.let_go() }
    }

    /// A piece of metadata memory.
    pub(crate) fn take_meta(&self, kind: Kind, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if layout.size() + layout.align() > META_REGION - META_HEADER {
            return Err(AllocError::TooLarge);
        }
        let take =
            |state: &mut State<P>, _| state.arena.take(kind, layout).ok_or(Short::Meta(layout));
        self.supplied(|_| false, take)
    }

    /// # Safety
    /// `piece` came from [`Self::take_meta`] of this kind and nobody uses it.
    pub(crate) unsafe fn put_meta(&self, kind: Kind, piece: NonNull<u8>) {
        // SAFETY: the caller's promise.
        self.state
            .with(|state| unsafe { state.arena.put(kind, piece) });
    }

    /// Runs `f` under the lock with the number of pieces that are out of a depot.
    ///
    /// # Safety
    /// `depot` is a depot of this heap.
    pub(crate) unsafe fn with_pieces<T>(
        &self,
        depot: *mut DepotBlocks,
        f: impl FnOnce(usize) -> T,
    ) -> T {
        // SAFETY: the depot is valid, and the lock guards it.
        self.state.with(|_| f(unsafe { (*depot).pieces }))
    }

    /// Ends the era of a depot: the bytes that it gave back in it, and did not take again.
    ///
    /// # Safety
    /// `depot` is a depot of this heap.
    pub(crate) unsafe fn end_era(&self, depot: *mut DepotBlocks) -> usize {
        // SAFETY: the depot is valid, and the lock guards it.
        self.state.with(|_| unsafe { (*depot).end_era() })
    }
}
