//! Memory for metadata: bump allocation from regions of its own, with a list of unused pieces for
//! each kind. (Slabs and chunks have lists elsewhere: what they are must stay readable while they are unused.)
//!
//! A piece is reused only as its own kind and goes back to the provider only when the heap is
//! dropped, so whoever holds an outdated pointer to it reads valid memory of that kind.

use super::tree::Node;
use core::alloc::Layout;
use core::mem::size_of;
use core::ptr::{self, NonNull};

/// The size of a metadata region, or what it is a multiple of where something longer is wanted, and its alignment.
pub(crate) const META_REGION: usize = 64 * 1024;

/// What is at the start of a metadata region.
pub(super) const META_HEADER: usize = size_of::<Node>().next_multiple_of(64);

/// Kinds of metadata other than slabs, which keep their own list because their content must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Description of a large object.
    Large,
    /// The depot of an epoch.
    EpochDepot,
    /// The ring of epochs.
    Ring,
    /// What a local keeps beside its home epoch cache.
    Local,
    /// A local's cells for one depot.
    CacheState,
    /// Small storage for a cell.
    SmallStore,
    /// Full storage for a cell.
    FullStore,
    /// A table of handle ids.
    IdTable,
    /// What is counted by class.
    Counters,
}

const KINDS: usize = 9;

/// What pages are counted by.
const PAGE: usize = crate::class::CLASS_PAGE;

struct Unused {
    next: *mut Unused,
}

struct Spare {
    next: *mut Spare,
    size: usize,
}

/// What is left of a region is kept if it is this long: a piece of most kinds fits.
const WORTH: usize = 256;

/// The bump region and the unused pieces. Guarded by the pages' lock.
#[derive(Debug)]
pub(super) struct Arena {
    bump: *mut u8,
    left: usize,
    /// Where the pages end that were touched of what is bumped from.
    high: usize,
    /// Bytes of pages that were touched.
    touched: usize,
    /// Parts of regions that were put aside when another came.
    spare: *mut Spare,
    unused: [*mut Unused; KINDS],
}

impl Arena {
    pub(super) const fn new() -> Self {
        Self {
            bump: ptr::null_mut(),
            left: 0,
            high: 0,
            touched: 0,
            spare: ptr::null_mut(),
            unused: [ptr::null_mut(); KINDS],
        }
    }

    /// A piece of memory for `kind`, or `None` if a metadata region is needed first. Every call for
    /// one kind passes the same layout.
    pub(super) fn take(&mut self, kind: Kind, layout: Layout) -> Option<NonNull<u8>> {
        let head = &mut self.unused[kind as usize];
        // SAFETY: unused pieces are ours and valid, and begin with a link.
        if let Some(piece) = unsafe { head.as_ref() } {
            let taken = NonNull::new((*head).cast());
            *head = piece.next;
            return taken;
        }
        self.bump(layout)
    }

    /// Fresh memory: of what is bumped from, or of the first part that was put aside and is long enough.
    pub(super) fn bump(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if let Some(piece) = self.carve(layout) {
            return Some(piece);
        }
        let mut link: *mut *mut Spare = &raw mut self.spare;
        // SAFETY: spare parts are ours and valid, and begin with their link.
        unsafe {
            while !(*link).is_null() {
                let (spare, size) = (*link, (**link).size);
                if room(spare.cast(), layout) <= size {
                    *link = (*spare).next;
                    // Fresh memory reads as it came from the provider.
                    spare.write_bytes(0, 1);
                    self.put_aside();
                    (self.bump, self.left) = (spare.cast(), size);
                    // The page that its link was in.
                    self.high = (spare.addr() + 1).next_multiple_of(PAGE);
                    return self.carve(layout);
                }
                link = &raw mut (**link).next;
            }
        }
        None
    }

    /// A piece of what is bumped from.
    fn carve(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let need = room(self.bump, layout);
        if need > self.left {
            return None;
        }
        // SAFETY: `need` bytes are left.
        unsafe {
            let piece = self.bump.add(need - layout.size());
            self.touch(piece.addr(), layout.size());
            self.bump = self.bump.add(need);
            self.left -= need;
            NonNull::new(piece)
        }
    }

    /// Puts what is left of the region that is bumped from aside, if it is worth it.
    fn put_aside(&mut self) {
        let lead = self.bump.addr().next_multiple_of(64) - self.bump.addr();
        if self.left < lead + WORTH {
            return;
        }
        let spare = Spare {
            next: self.spare,
            size: self.left - lead,
        };
        // SAFETY: the rest is ours, and long enough for the link.
        unsafe {
            self.spare = self.bump.add(lead).cast();
            self.spare.write(spare);
        }
        self.touch(self.spare.addr(), size_of::<Spare>());
    }

    /// Counts the pages of so many bytes at an address that were not touched before.
    fn touch(&mut self, at: usize, size: usize) {
        let from = (at & !(PAGE - 1)).max(self.high);
        let to = (at + size).next_multiple_of(PAGE);
        if to > from {
            self.touched += to - from;
            self.high = to;
        }
    }

    /// Bytes of metadata pages that were touched.
    pub(super) fn touched(&self) -> usize {
        self.touched
    }

    /// Puts a piece back.
    ///
    /// # Safety
    /// It came from `take` of this kind, nobody uses it, and it is at least a pointer long.
    pub(super) unsafe fn put(&mut self, kind: Kind, piece: NonNull<u8>) {
        let head = &mut self.unused[kind as usize];
        let piece: *mut Unused = piece.as_ptr().cast();
        // SAFETY: the piece is valid, ours, and long enough.
        unsafe { piece.write(Unused { next: *head }) };
        *head = piece;
    }

    /// Bumps from a new region now. What was left of the old one is put aside: two threads may have
    /// found it short at the same time, and each brought a region.
    ///
    /// # Safety
    /// The `size` bytes at `first` are ours and unused, and `first` is aligned to 64.
    pub(super) unsafe fn refill(&mut self, first: *mut u8, size: usize) {
        self.put_aside();
        self.bump = first;
        self.left = size;
        self.high = 0;
        // What describes the region is in the same page.
        self.touch(first.addr(), 1);
    }
}

/// Bytes that a piece takes from memory that begins at `at`.
fn room(at: *mut u8, layout: Layout) -> usize {
    at.addr().next_multiple_of(layout.align()) - at.addr() + layout.size()
}
