//! Gives memory back to the provider: warm pages, empty chunks, and the pages of unused entries of the page map.

use super::entry::EntryWord;
use super::state::State;
use super::{Chunk, Pages};
use crate::provider::{Capabilities, PageProvider};
use crate::sync::Ordering;
use lock_api::RawMutex;

impl<P: PageProvider, R: RawMutex> Pages<P, R> {
    /// Decommits warm pages until at most `keep` bytes of them are left, or none can be had; without
    /// decommit, releases empty chunks. How many bytes went back.
    pub(crate) fn cool(&self, keep: usize) -> u64 {
        if !self.can_decommit() {
            return self.release_empty_chunks();
        }
        let mut returned = 0;
        loop {
            let transit = self.state.with(|state| {
                let most = state.warm.saturating_sub(keep);
                (most > 0).then(|| state.begin_decommit(most)).flatten()
            });
            let Some(transit) = transit else {
                return returned;
            };
            // SAFETY: pages in transit are whole, inside a chunk, and nobody uses them.
            let done = unsafe { self.provider.decommit(transit.region) }.is_ok();
            let count = if done {
                &self.decommits
            } else {
                &self.failed_decommits
            };
            count.fetch_add(1, Ordering::Relaxed);
            self.returned
                .fetch_add(usize::from(done), Ordering::Relaxed);
            self.state.with(|state| {
                let resident = state.resident;
                state.end_decommit(&transit, done);
                // Pages among them that were never touched gave nothing back.
                let bytes = resident.saturating_sub(state.resident) as u64;
                self.decommitted_bytes.fetch_add(bytes, Ordering::Relaxed);
                returned += bytes;
                self.note(state);
            });
        }
    }

    /// Gives every chunk that is not in use back. How many bytes they are.
    pub(crate) fn release_empty_chunks(&self) -> u64 {
        self.release_chunks(false)
    }

    /// As [`Self::release_empty_chunks`], but for chunks that hold warm pages.
    pub(crate) fn release_cold_chunks(&self) {
        self.release_chunks(true);
    }

    fn release_chunks(&self, only_cold: bool) -> u64 {
        let mut returned = 0;
        while let Some((region, mut chunk)) = self.state.with(|state| {
            let popped = state.pop_empty_region(&self.map, only_cold);
            self.note(state);
            popped
        }) {
            returned += region.size as u64;
            self.release(region);
            while !chunk.is_null() {
                self.released_chunks.fetch_add(1, Ordering::Relaxed);
                let cooled = self.purge_entries(chunk);
                // SAFETY: the description was just popped, with those behind it.
                self.state.with(|state| unsafe {
                    let next = (*chunk).next;
                    state.put_chunk(chunk, cooled);
                    chunk = next;
                });
            }
        }
        returned
    }

    /// Gives the pages of an unused description's entries back, where they read as zero all the same, as the entries of
    /// nothing do. Returns how many bytes.
    fn purge_entries(&self, chunk: *mut Chunk) -> usize {
        let needed =
            Capabilities::DECOMMIT | Capabilities::DECOMMIT_ZERO | Capabilities::LAZY_COMMIT;
        if !self.provider.capabilities().contains(needed) {
            return 0;
        }
        // SAFETY: the description is the caller's.
        let pages = unsafe { State::<P>::entry_pages(chunk, self.provider.page_size()) };
        let Some(pages) = pages else { return 0 };
        // SAFETY: whole pages of a metadata region. They are zero before and after, so a reader sees the same.
        if unsafe { self.provider.decommit(pages) }.is_ok() {
            return pages.size;
        }
        // Their content may be lost.
        for entry in 0..pages.size / size_of::<EntryWord>() {
            // SAFETY: entries in the description's memory, accessed atomically.
            unsafe { pages.base.cast::<EntryWord>().add(entry).as_ref() }.clear();
        }
        0
    }
}
