//! What a record is. A piece of metadata that was a record of some kind stays one until the heap is dropped, so that an
//! outdated pointer to it leads to a record.

use core::alloc::Layout;

/// How many kinds of metadata there are.
pub(super) const META_KINDS: usize = BUMPED + MetaShape::BLOCKS;

pub(super) const READY: usize = 1;
pub(super) const BARE: usize = 2;
/// Of a mixed slab.
const MIXED: usize = 3;
/// Of a bump block, by its kind.
const BUMPED: usize = 4;

/// A kind of slab metadata: what lies in memory for a slab.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetaShape {
    pub(super) layout: Layout,
    pub(super) kind: usize,
}

impl MetaShape {
    /// How many kinds of bump blocks there are.
    pub(crate) const BLOCKS: usize = 3;

    /// A slab, and what follows it: valid as zero bytes.
    pub(crate) const fn plain(layout: Layout) -> Self {
        Self { layout, kind: 0 }
    }

    /// A mixed slab, and what follows it: valid as zero bytes.
    pub(crate) const fn mixed(layout: Layout) -> Self {
        let kind = MIXED;
        Self { layout, kind }
    }

    /// A slab that begins the metadata of a bump block, whose kind has this number: valid as zero bytes.
    pub(crate) const fn block(layout: Layout, number: usize) -> Self {
        let kind = BUMPED + number;
        Self { layout, kind }
    }

    /// A slab that begins something longer: valid as zero bytes. Of these some are ready for use
    /// (`is_ready`) and are used first; the others, and new ones, need something still.
    pub(crate) const fn tagged(layout: Layout, is_ready: bool) -> Self {
        let kind = if is_ready { READY } else { BARE };
        Self { layout, kind }
    }
}

/// What the layers above keep for memory that they took, and what the page map leads to: a slab. While it is unused, this
/// layer owns it and links it to others.
///
/// # Safety
/// It is the only type of records of a heap, and each layout of a [`MetaShape`] begins with one.
pub(crate) unsafe trait Record: Sized {
    /// A new one, unused.
    fn new() -> Self;

    /// The next unused one.
    ///
    /// # Safety
    /// It is unused, and the caller excludes others.
    unsafe fn next_unused(&self) -> *const Self;

    /// Makes it an unused one before `next`.
    ///
    /// # Safety
    /// The caller owns it.
    unsafe fn set_unused(&self, next: *const Self);

    /// Makes it one that is in no list.
    ///
    /// # Safety
    /// The caller owns it.
    unsafe fn set_unlisted(&self);
}
