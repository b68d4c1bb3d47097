//! Which chunks a local knows to be the heap's.
//!
//! Whether an address is in the heap at all is in the pages' tree, under their lock. A local notes what it found there.
//! A chunk that was given back may be somebody else's by now: the notes hold while none was.

use super::Local;
use crate::config::Config;
use crate::provider::PageProvider;
use lock_api::RawMutex;

/// How many are noted. A chunk has one place, so a heap of so many in a row is known whole: 1 GiB of chunks of 4 MiB.
/// With less, two chunks that the system put as far apart as the table is long would send each look into the lock.
const PLACES: usize = 256;

/// The notes.
#[derive(Debug)]
pub(super) struct Known {
    /// Bases of chunks that were found to be the heap's...
    chunks: [usize; PLACES],
    /// ...while so many chunks had been given back.
    released: u64,
}

impl Known {
    pub(super) const NONE: Self = Self {
        chunks: [0; PLACES],
        released: 0,
    };
}

impl<P: PageProvider, R: RawMutex, C: Config> Local<'_, P, R, C> {
    /// Whether an address is in a chunk of the heap.
    #[inline]
    pub(super) fn knows(&mut self, address: usize) -> bool {
        let chunk = address & !(P::CHUNK_SIZE - 1);
        let released = self.heap.pages.released_chunks();
        let place = chunk / P::CHUNK_SIZE % PLACES;
        // SAFETY: the desk is valid and this local's alone.
        let known = unsafe { &(*self.desk).known };
        if known.chunks[place] == chunk && known.released == released && chunk != 0 {
            return true;
        }
        self.learn(chunk, place, released)
    }

    #[cold]
    #[inline(never)]
    fn learn(&mut self, chunk: usize, place: usize, released: u64) -> bool {
        // SAFETY: as in `knows`.
        let known = unsafe { &mut (*self.desk).known };
        if known.released != released {
            *known = Known {
                released,
                ..Known::NONE
            };
        }
        // A chunk is size-aligned, so all of it is ours or none of it.
        let is_ours = self.heap.pages.holds_chunk(chunk);
        if is_ours {
            known.chunks[place] = chunk;
        }
        is_ours
    }
}
