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

/// The score after an extent that was not used whole, at which watching begins, and at which extents are made present.
const DOUBT: u32 = 0;
const WATCH: u32 = 8;
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
    /// Makes an extent that was just handed out present, if such are used whole, or watches it.
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
        let whole = &self.whole;
        let count = whole.count.fetch_add(1, Relaxed);
        let score = whole.score.load(Relaxed);
        if score < WATCH {
            whole.score.store(score + 1, Relaxed);
        } else if score < SURE || count.is_multiple_of(AGAIN) {
            if whole.page.load(Relaxed) == 0 && run.watch != 0 {
                let page = run.base.addr() + run.watch as usize * BLOCK;
                whole.page.store(page, Relaxed);
            }
        } else if let Some(base) = NonNull::new(run.base) {
            let size = bytes.next_multiple_of(self.provider.page_size());
            // SAFETY: whole pages inside the extent's region: it begins with a block.
            unsafe { self.provider.populate(Region { base, size }) };
        }
    }

    /// Looks at the page that is watched, if it is in an extent that comes back: for the last time.
    #[inline]
    pub(super) fn end_whole(&self, base: usize, bytes: usize) {
        let page = self.whole.page.load(Relaxed);
        if page.wrapping_sub(base) < bytes {
            self.look(true);
        }
    }

    /// Makes the bytes of an object that was just handed out zero. Pages of a long one go back instead, unless such are used whole: they
    /// are zero when they are touched, and most of them may never be.
    ///
    /// # Safety
    /// The object is the caller's, and so long.
    pub(crate) unsafe fn zero(&self, object: NonNull<u8>, bytes: usize) {
        let can = Capabilities::DECOMMIT_ZERO | Capabilities::LAZY_COMMIT;
        let goes_back = bytes >= LONG
            && self.whole.score.load(Relaxed) < SURE
            && self.can_decommit()
            && self.provider.capabilities().contains(can);
        // From the object's first whole page on, to its last one.
        let page = self.provider.page_size();
        let lead = object.addr().get().wrapping_neg() % page;
        let size = bytes.saturating_sub(lead) / page * page;
        // SAFETY: they are inside the object; whole pages of it that nobody uses yet may be decommitted.
        unsafe {
            let base = object.add(lead.min(bytes));
            if goes_back && self.provider.decommit(Region { base, size }).is_ok() {
                object.write_bytes(0, lead);
                let behind = lead + size;
                object.add(behind).write_bytes(0, bytes - behind);
            } else {
                object.write_bytes(0, bytes);
            }
        }
    }

    #[cold]
    fn look(&self, is_last: bool) {
        let whole = &self.whole;
        let page = whole.page.load(Relaxed);
        if page == 0 {
            return;
        }
        let is_present = self.provider.is_present(page) == Some(true);
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
