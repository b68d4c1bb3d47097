//! Regions of chunks: taken in, found empty, let go. All under the pages' lock.
//!
//! A region is one chunk or several in a row; the first one's description has its node and counts those that are in use.
//! Descriptions are taken from metadata and stay descriptions: see `map`.

use super::chain::{Chain, Links};
use super::chunk::{Chunk, OPEN};
use super::depot_blocks::Block;
use super::entry::EntryWord;
use super::geometry::Geometry;
use super::map::{PageMap, number_of};
use super::state::{Short, State};
use super::tree::{Node, Use};
use crate::provider::{PageProvider, Region};
use core::alloc::Layout;
use core::mem::size_of;
use core::ptr::{self, NonNull};

impl<P: PageProvider> State<P> {
    /// The whole pages of an unused description's entries, which are all zero.
    ///
    /// # Safety
    /// `chunk` is a description that the caller has.
    pub(super) unsafe fn entry_pages(chunk: *mut Chunk, page: usize) -> Option<Region> {
        // SAFETY: the entries lie in the description's piece of memory.
        let first = unsafe { chunk.byte_add(Self::ENTRIES_AT) }.cast::<u8>();
        let end = first.addr() + Geometry::<P>::ENTRIES * size_of::<EntryWord>();
        let base = first.addr().next_multiple_of(page);
        let size = (end & !(page - 1))
            .checked_sub(base)
            .filter(|size| *size > 0)?;
        let base = NonNull::new(first.wrapping_add(base - first.addr()))?;
        Some(Region { base, size })
    }

    /// Where a description's entries begin.
    pub(super) const ENTRIES_AT: usize =
        (size_of::<Chunk>() + Geometry::<P>::BLOCKS * size_of::<Block>()).next_multiple_of(64);

    fn chunk_layout() -> Layout {
        let size = Self::ENTRIES_AT + Geometry::<P>::ENTRIES * size_of::<EntryWord>();
        let size = size.next_multiple_of(64);
        match Layout::from_size_align(size, 64) {
            Ok(layout) => layout,
            Err(_) => Layout::new::<Chunk>(),
        }
    }

    /// Memory for the descriptions of so many chunks, linked by `next`, and room for them in the page map.
    pub(super) fn take_chunks(&mut self, map: &PageMap, count: usize) -> Result<*mut Chunk, Short> {
        while !map.table.has_room_beside(self.chunks + count - 1) {
            let layout = map.table.next_layout();
            let table = self.arena.bump(layout).ok_or(Short::Meta(layout))?;
            // SAFETY: the pages' lock is held; fresh memory of that layout, which goes back with the heap.
            unsafe { map.table.grow(table.as_ptr()) };
        }
        let mut first = ptr::null_mut();
        let mut missing = count;
        while missing > 0 {
            let chunk = self.unused_chunks.first();
            if chunk.is_null() {
                break;
            }
            // SAFETY: it is the first of that chain.
            unsafe {
                self.unused_chunks.remove(chunk);
                self.cooled -= core::mem::take(&mut (*chunk).cooled);
                (*chunk).next = first;
            }
            (first, missing) = (chunk, missing - 1);
        }
        // The others in one piece.
        let size = Self::chunk_layout().size();
        let layout = Layout::from_size_align(size * missing, 64).unwrap_or(Self::chunk_layout());
        let Some(piece) = (missing == 0)
            .then(NonNull::dangling)
            .or_else(|| self.arena.bump(layout))
        else {
            // SAFETY: they were just taken, and not used.
            unsafe { self.put_chunks(first) };
            return Err(Short::Meta(layout));
        };
        for number in 0..missing {
            // SAFETY: the piece is long enough for so many chunks, each with its blocks and its entries; entries of nothing
            // are zero bytes.
            unsafe {
                let chunk: *mut Chunk = piece.as_ptr().add(number * size).cast();
                if !self.is_meta_zero {
                    chunk.cast::<u8>().write_bytes(0, size);
                }
                chunk.write(Chunk::VACANT);
                (*chunk).next = first;
                first = chunk;
            }
        }
        Ok(first)
    }

    /// Takes descriptions back that are linked by `next`.
    ///
    /// # Safety
    /// They came from [`Self::take_chunks`] and were not used.
    pub(super) unsafe fn put_chunks(&mut self, mut first: *mut Chunk) {
        while !first.is_null() {
            // SAFETY: the caller's promise.
            unsafe {
                let next = (*first).next;
                self.put_chunk(first, 0);
                first = next;
            }
        }
    }

    /// Takes a description back, of whose entries so many bytes went back to the provider.
    ///
    /// # Safety
    /// It came from [`Self::take_chunks`] and was not used, or from [`Self::pop_empty_region`].
    pub(super) unsafe fn put_chunk(&mut self, chunk: *mut Chunk, cooled: usize) {
        // SAFETY: it is in no chain.
        unsafe {
            (*chunk).cooled = cooled;
            self.unused_chunks.insert(chunk);
        }
        self.cooled += cooled;
    }

    /// Takes a region in, which was checked, as the chunks that `first` begins.
    ///
    /// # Safety
    /// All are ours and unused; the region overlaps nothing in the tree, and is as long as so many chunks; there is room in
    /// the map.
    pub(super) unsafe fn add_region(&mut self, map: &PageMap, region: Region, first: *mut Chunk) {
        let _exposed = region.base.as_ptr().expose_provenance();
        let (mut base, mut chunk, mut prev) = (region.base.as_ptr(), first, ptr::null_mut());
        // SAFETY: the descriptions are long enough for their blocks, and the region is ours. Only the parts that others do
        // not read are written as a whole.
        unsafe {
            (*first).node = Node::new(region, Use::Chunk);
            (*first).in_use = 0;
            self.tree.insert(first.cast());
            if !(*first).next.is_null() {
                self.long_regions.insert(first);
            }
            while !chunk.is_null() {
                (*chunk).base = base;
                (*chunk).lead = first;
                (*chunk).prev = prev;
                (*chunk).free_blocks = Self::all_blocks();
                (*chunk).touched = 0;
                (*chunk).warm = 0;
                for index in 0..Geometry::<P>::BLOCKS {
                    Self::block(chunk, index as u32).write(Block {
                        free: !0,
                        dirty: 0,
                        gone: 0,
                        depot: ptr::null_mut(),
                        links: Links::UNLINKED,
                        bucket: 0,
                        index: index as u8,
                    });
                }
                let numbered = &raw mut (*chunk).numbered;
                map.table.insert(numbered, number_of::<P>(base.addr()));
                self.open.insert(chunk);
                self.chunks += 1;
                prev = chunk;
                (base, chunk) = (base.add(Geometry::<P>::CHUNK), (*chunk).next);
            }
        }
        self.empty_regions += 1;
    }

    /// Says that all pages of a chunk that was just added are in memory.
    ///
    /// # Safety
    /// `chunk` is here.
    pub(super) unsafe fn touch_chunk(&mut self, chunk: *mut Chunk) {
        // SAFETY: the chunk is valid.
        unsafe { self.change(chunk, Self::all_blocks(), |block, _| block.dirty = !0) };
    }

    /// Lets an unused region go: for the provider.
    ///
    /// # Safety
    /// `first` is the first chunk of a region that is here, every block of which is free.
    unsafe fn remove_region(&mut self, map: &PageMap, first: *mut Chunk) -> Region {
        let mut chunk = first;
        // SAFETY: the chunks are here.
        unsafe {
            while !chunk.is_null() {
                self.change(chunk, Self::all_blocks(), |block, _| block.dirty = 0);
                self.chunks -= 1;
                map.table.remove(&raw mut (*chunk).numbered);
                self.open.remove(chunk);
                self.warm_chunks.remove(chunk);
                chunk = (*chunk).next;
            }
            self.empty_regions -= 1;
            self.long_regions.remove(first);
            self.tree.remove(first.cast());
            (*first).node.region
        }
    }

    /// A region of which no byte is in use and, if `only_cold`, nothing is warm; and its descriptions.
    pub(super) fn pop_empty_region(
        &mut self,
        map: &PageMap,
        only_cold: bool,
    ) -> Option<(Region, *mut Chunk)> {
        if self.empty_regions == 0 {
            return None;
        }
        let mut at = self.open.first();
        while !at.is_null() {
            // SAFETY: linked chunks are valid, and so are those of their regions.
            unsafe {
                let is_empty = (*at).lead == at && (*at).in_use == 0;
                if is_empty && !(only_cold && Self::is_warm(at)) {
                    return Some((self.remove_region(map, at), at));
                }
                at = Chain::<Chunk, OPEN>::after(at);
            }
        }
        None
    }

    /// Whether anything is warm in a region.
    ///
    /// # Safety
    /// `chunk` is its first, and here.
    unsafe fn is_warm(mut chunk: *mut Chunk) -> bool {
        while !chunk.is_null() {
            // SAFETY: chunks of a region that is here are valid.
            unsafe {
                if (*chunk).warm > 0 {
                    return true;
                }
                chunk = (*chunk).next;
            }
        }
        false
    }
}
