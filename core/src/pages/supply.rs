//! Getting regions from the provider and giving them back, always between two sections under the
//! lock. What the provider hands out is checked first; what fails the check is handed back unused.

use super::Pages;
use super::arena::{META_HEADER, META_REGION};
use super::block::PageShape;
use super::entry::can_name;
use super::geometry::Geometry;
use super::state::{Short, State};
use super::take::Effort;
use super::tree::{Node, Use};
use crate::error::AllocError;
use crate::provider::{Capabilities, PageProvider, Region};
use crate::sync::Ordering;
use core::alloc::Layout;
use lock_api::RawMutex;

/// Chunks of a region that is got for an extent that is longer than a chunk: what the longest needs where they are of 4 MiB.
const EXTENT_CHUNKS: usize = 16;

/// How often empty slabs are moved for a run before fresh memory is touched for it.
const MOVES: u32 = 4;

impl<P: PageProvider, R: RawMutex> Pages<P, R> {
    /// Runs `f` under the lock until it has all it needs, getting it from the provider between.
    pub(super) fn supplied<T>(
        &self,
        make_room: impl Fn(Short) -> bool,
        mut f: impl FnMut(&mut State<P>, Effort) -> Result<T, Short>,
    ) -> Result<T, AllocError> {
        // Each turn that ends in a shortage adds a region, which others may use up meanwhile; then
        // they have progressed, and the limit or the provider ends it for all.
        let mut turn = |effort| {
            self.state.with(|state| {
                let result = f(state, effort);
                self.note(state);
                result
            })
        };
        let (mut effort, mut moves) = (Effort::Thrifty, MOVES);
        loop {
            match turn(effort) {
                Ok(value) => return Ok(value),
                Err(Short::Closed) => return Err(AllocError::EpochClosed),
                Err(Short::Meta(layout)) => self.supply_meta(layout)?,
                // Whether what was moved is in one piece is seen in the next turn.
                Err(Short::Fresh) if moves > 0 && make_room(Short::Fresh) => moves -= 1,
                Err(Short::Fresh) => effort = Effort::Bounded,
                Err(Short::Extent(blocks)) => {
                    if let Err(refused) = self.supply_extent(blocks) {
                        return turn(Effort::Full).map_err(|_| refused);
                    }
                }
                Err(Short::Chunk) if make_room(Short::Chunk) => {}
                Err(Short::Chunk) => {
                    if let Err(refused) = self.supply_chunk() {
                        return turn(Effort::Full).map_err(|_| refused);
                    }
                }
            }
        }
    }

    #[cold]
    fn supply_meta(&self, layout: Layout) -> Result<(), AllocError> {
        let can = self.provider.capabilities();
        let mut pieces = layout.size();
        // Where memory is there only once it is touched, what would leave much of a region goes with others of its kind.
        if can.contains(Capabilities::LAZY_COMMIT) && pieces > META_REGION / 4 {
            pieces = pieces.max(4 * META_REGION - META_HEADER - layout.align());
        }
        let size = (META_HEADER + pieces + layout.align()).next_multiple_of(META_REGION);
        let region = self.acquire(size, META_REGION)?;
        let base = region.base.addr().get();
        if !can_name(base) || !can_name(base + region.size) {
            self.taken.fetch_sub(region.size, Ordering::Relaxed);
            return Err(self.refuse(region));
        }
        self.add(region, |state| {
            let node: *mut Node = region.base.as_ptr().cast();
            // Slabs, the tags of handles and the marks of a checked heap are reached through their address.
            let _exposed = node.expose_provenance();
            // SAFETY: the region is ours and longer than a node.
            unsafe {
                node.write(Node::new(region, Use::Meta));
                state.tree.insert(node);
                let first = region.base.as_ptr().add(META_HEADER);
                state.arena.refill(first, region.size - META_HEADER);
            }
            state.is_meta_zero = can.contains(Capabilities::FRESH_ZERO);
            state.is_meta_lazy = can.contains(Capabilities::LAZY_COMMIT);
            state.meta += region.size;
        })
    }

    /// Gets a chunk ahead of need, all of it present.
    pub(crate) fn reserve_chunk(&self) -> Result<(), AllocError> {
        self.supply_chunks(1, true)
    }

    #[cold]
    fn supply_chunk(&self) -> Result<(), AllocError> {
        self.supply_chunks(1, false)
    }

    /// Gets chunks in a row for an extent: where addresses alone cost nothing more than it needs, so that others find room
    /// beside it and it finds room to grow.
    #[cold]
    fn supply_extent(&self, blocks: u32) -> Result<(), AllocError> {
        let needed = (blocks as usize).div_ceil(Geometry::<P>::BLOCKS);
        let is_lazy = self
            .provider
            .capabilities()
            .contains(Capabilities::LAZY_COMMIT);
        let roomy = if is_lazy {
            needed.max(EXTENT_CHUNKS)
        } else {
            needed
        };
        if roomy > needed && self.supply_chunks(roomy, false).is_ok() {
            return Ok(());
        }
        self.supply_chunks(needed, false)
    }

    fn supply_chunks(&self, count: usize, is_present: bool) -> Result<(), AllocError> {
        let (size, chunk) = (Geometry::<P>::CHUNK * count, Geometry::<P>::CHUNK);
        let page = PageShape::new(self.provider.page_size());
        let can = self.provider.capabilities();
        // Before the descriptions: metadata never goes back.
        let region = self.acquire(size, chunk)?;
        let first = self.supplied(|_| false, |state, _| state.take_chunks(&self.map, count));
        let first = first.inspect_err(|_| self.release(region))?;
        if is_present && size.is_multiple_of(self.provider.page_size()) {
            // SAFETY: the region was just acquired; chunks are whole pages, and so is what was asked of the description.
            unsafe {
                self.provider.populate(Region { size, ..region });
                if let Some(pages) = State::<P>::entry_pages(first, self.provider.page_size()) {
                    self.provider.populate(pages);
                }
            }
        }
        // SAFETY: the region was checked, and the descriptions are for it.
        let added = self.add(region, |state| unsafe {
            state.page = page.unwrap_or(state.page);
            state.commits = !can.contains(Capabilities::LAZY_COMMIT);
            state.add_region(&self.map, region, first);
            if is_present {
                state.touch_chunk(first);
            }
            self.note(state);
            self.acquired_chunks
                .fetch_add(count as u64, Ordering::Relaxed);
        });
        added.inspect_err(|_| {
            self.state.with(|state| {
                // SAFETY: nothing was added, so the descriptions were not used.
                unsafe { state.put_chunks(first) }
            });
        })
    }

    /// A region of the asked shape, within the limit.
    pub(super) fn acquire(&self, size: usize, align: usize) -> Result<Region, AllocError> {
        self.reserve(size)?;
        let Some(region) = self.provider.acquire(size, align) else {
            self.taken.fetch_sub(size, Ordering::Relaxed);
            self.failed_acquires.fetch_add(1, Ordering::Relaxed);
            return Err(AllocError::OutOfMemory);
        };
        let in_space = region.end().is_some() && region.size <= isize::MAX as usize;
        let aligned = region.base.addr().get().is_multiple_of(align);
        if !(in_space && aligned && region.size >= size) {
            self.taken.fetch_sub(size, Ordering::Relaxed);
            return Err(self.refuse(region));
        }
        // A longer region than was asked for counts in full.
        if let Err(limit) = self.reserve(region.size - size) {
            self.taken.fetch_sub(size, Ordering::Relaxed);
            self.refuse(region);
            return Err(limit);
        }
        Ok(region)
    }

    /// Counts `size` bytes as taken if the limit allows.
    pub(super) fn reserve(&self, size: usize) -> Result<(), AllocError> {
        let limit = self.limit.load(Ordering::Relaxed);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken.checked_add(size).filter(|sum| *sum <= limit)
            })
            .map(|_| ())
            .map_err(|_| AllocError::Limit)
    }

    /// Notes how much there is, when something came. Not before: what was asked for and refused never was there.
    pub(super) fn note_most(&self) {
        self.most_taken.fetch_max(self.taken(), Ordering::Relaxed);
    }

    /// Runs `f` under the lock with an acquired region, or refuses one that overlaps a held one.
    pub(super) fn add<T>(
        &self,
        region: Region,
        f: impl FnOnce(&mut State<P>) -> T,
    ) -> Result<T, AllocError> {
        let added = self.state.with(|state| {
            region
                .end()
                .filter(|end| !state.tree.overlaps(region, *end))
                .map(|_| f(state))
        });
        if let Some(added) = added {
            self.note_most();
            return Ok(added);
        }
        self.taken.fetch_sub(region.size, Ordering::Relaxed);
        Err(self.refuse(region))
    }

    /// Hands a region that was never used back.
    #[cold]
    fn refuse(&self, region: Region) -> AllocError {
        self.refused_regions.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the provider just gave it, and nothing of it was used.
        unsafe { self.provider.release(region) };
        AllocError::OutOfMemory
    }

    pub(super) fn release(&self, region: Region) {
        // SAFETY: the region was removed from all bookkeeping, and nobody uses it.
        unsafe { self.provider.release(region) };
        self.taken.fetch_sub(region.size, Ordering::Relaxed);
        self.returned.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives every region back. The heap is being dropped: there are no other users.
    pub(crate) fn dissolve(&mut self) {
        let state = self.state.get_mut();
        // Chunks and large objects first: their descriptions lie in the metadata regions.
        for metadata_too in [false, true] {
            while let Some(node) = state.tree.pop(|use_| metadata_too || use_ != Use::Meta) {
                // SAFETY: the node is valid until its own region is released, after this read.
                let region = unsafe { (*node).region };
                // SAFETY: nothing uses the heap any more.
                unsafe { self.provider.release(region) };
            }
        }
    }
}
