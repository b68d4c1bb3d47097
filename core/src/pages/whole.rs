//! Whether long extents are used whole. Where they are, one is made present when it is handed out, which takes a fraction of
//! a fault for each page; where they are not, what must be zero is not written.
//!
//! One extent at a time is *watched*: it is left as it is, and one of its pages, of which nothing was in memory, tells
//! whether it was touched, at the latest when the extent comes back. Several in a row that were touched speak for all that
//! come after them; one that was not ends that, and for some extents nothing is watched then.
//!
//! All of it is a guess, and the atomics are `Relaxed`: two contexts that look at one page at a time count it twice.

use super::block::UNIT;
use super::{Pages, Run};
use crate::class::BLOCK;
use crate::provider::{Capabilities, PageProvider, Region};
use crate::sync::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::ptr::NonNull;
use lock_api::RawMutex;

/// The shortest extent that is long.
const LONG: usize = UNIT as usize * BLOCK;
/// Blocks of an extent of which nothing is in memory, from which on it is worth a call to the provider.
const MANY: u32 = 8;

/// The score after an extent that was not used whole.
const DOUBT: u32 = 0;
/// The score from which on extents are watched.
const WATCH: u32 = 8;
/// The score at which they are made present.
const SURE: u32 = WATCH + 4;
/// One in so many is watched all the same.
const AGAIN: u32 = 32;

/// What is known of long extents. All `Relaxed`: see the head.
#[derive(Debug)]
pub(super) struct Whole {
    /// The address of the page that is watched, or 0.
    page: AtomicUsize,
    score: AtomicU32,
    /// Long extents that were handed out.
    count: AtomicU32,
}

impl Whole {
    pub(super) const fn new() -> Self {
        Self {
            page: AtomicUsize::new(0),
            score: AtomicU32::new(WATCH),
            count: AtomicU32::new(0),
        }
    }
}

impl<P: PageProvider, R: RawMutex> Pages<P, R> {
    /// Makes an extent that was just handed out, or what it grew by, present, if such are used whole, or watches it.
    #[inline]
    pub(super) fn expect_whole(&self, run: &Run, bytes: usize) {
        if bytes >= LONG && run.fresh >= MANY {
            self.expect_long(run, bytes);
        }
    }

    #[cold]
    fn expect_long(&self, run: &Run, bytes: usize) {
        let can = self.provider.capabilities();
        if !can.contains(Capabilities::POPULATE | Capabilities::LAZY_COMMIT) || !self.can_decommit()
        {
            return;
        }
        self.look(false);
        if self.is_left() {
            let page = run.base.addr() + run.watch as usize * BLOCK;
            self.watch(if run.watch == 0 { 0 } else { page });
            return;
        }
        let page = self.provider.page_size();
        let lead = run.base.addr() % page;
        let size = (lead + bytes).next_multiple_of(page);
        if let Some(base) = NonNull::new(run.base.wrapping_sub(lead)) {
            // SAFETY: whole pages inside the extent's region: blocks are multiples of pages.
            unsafe { self.provider.populate_whole(Region { base, size }) };
        }
    }

    /// Whether the long extent that is handed out now is left as it is.
    fn is_left(&self) -> bool {
        let whole = &self.whole;
        let count = whole.count.fetch_add(1, Relaxed);
        let score = whole.score.load(Relaxed);
        if score < WATCH {
            whole.score.store(score + 1, Relaxed);
        }
        score < SURE || count.is_multiple_of(AGAIN)
    }

    /// Watches a page of which nothing is in memory, if none is watched and there is no doubt left.
    fn watch(&self, page: usize) {
        let whole = &self.whole;
        if whole.page.load(Relaxed) == 0 && whole.score.load(Relaxed) >= WATCH {
            whole.page.store(page, Relaxed);
        }
    }

    /// Looks at the page that is watched, if it is in an extent that comes back: for the last time.
    #[inline]
    pub(super) fn end_whole(&self, base: usize, bytes: usize) {
        if self.is_watched(base, bytes) {
            self.look(true);
        }
    }

    /// Makes the bytes of an object that was just handed out zero. Pages of a long one go back instead, unless such are used
    /// whole: they are zero when they are touched, and most of them may never be. Like all that is handed out they count as
    /// in memory.
    ///
    /// # Safety
    /// The object is the caller's, and so long.
    pub(crate) unsafe fn zero(&self, object: NonNull<u8>, bytes: usize) {
        let can = Capabilities::DECOMMIT_ZERO | Capabilities::LAZY_COMMIT;
        let goes_back = bytes >= LONG
            && self.can_decommit()
            && self.provider.capabilities().contains(can)
            && (self.is_watched(object.addr().get(), bytes) || self.is_left());
        let size = bytes / self.provider.page_size() * self.provider.page_size();
        let pages = Region { base: object, size };
        // SAFETY: an object so long begins a block, and so a page; whole pages of it that nobody uses yet may be decommitted.
        unsafe {
            if !goes_back || self.provider.decommit(pages).is_err() {
                object.write_bytes(0, bytes);
                return;
            }
            object.add(size).write_bytes(0, bytes - size);
        }
        self.watch(object.addr().get() + size / 2 / BLOCK * BLOCK);
    }

    /// Whether the page that is watched is in so many bytes.
    fn is_watched(&self, base: usize, bytes: usize) -> bool {
        let page = self.whole.page.load(Relaxed);
        page.wrapping_sub(base) < bytes
    }

    #[cold]
    fn look(&self, is_last: bool) {
        let whole = &self.whole;
        let page = whole.page.load(Relaxed);
        if page == 0 {
            return;
        }
        let Some(is_present) = self.provider.is_present(page) else {
            // The platform does not say, or the page is gone: then another one is watched.
            whole.page.store(0, Relaxed);
            return;
        };
        if is_present || is_last {
            whole.page.store(0, Relaxed);
            let score = whole.score.load(Relaxed);
            let score = if is_present {
                SURE.min(score + 1)
            } else {
                DOUBT
            };
            whole.score.store(score, Relaxed);
        }
    }
}
