//! Metadata of slabs: taken from the arena once, and from a list of unused ones after that, so that a
//! piece that was a slab of some kind stays one until the heap is dropped.

use super::runs::{Short, State};
use crate::provider::PageProvider;
use crate::slab::{Link, Slab};
use core::alloc::Layout;
use core::ptr;

/// How many kinds of metadata there are.
pub(super) const META_KINDS: usize = BUMPED + MetaShape::BLOCKS;

const READY: usize = 1;
const BARE: usize = 2;
/// Of a mixed slab.
const MIXED: usize = 3;
/// Of a bump block, by its kind.
const BUMPED: usize = 4;

/// A kind of slab metadata: what lies in memory for a slab.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetaShape {
    layout: Layout,
    kind: usize,
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

impl<P: PageProvider> State<P> {
    /// A slab's metadata: an unused one, or a new one.
    pub(super) fn take_slab<'s>(&mut self, meta: MetaShape) -> Result<&'s Slab, Short> {
        let is_bare = meta.kind == READY && self.unused_slabs[READY].is_null();
        let kind = if is_bare { BARE } else { meta.kind };
        let unused = &mut self.unused_slabs[kind];
        // SAFETY: unused slabs are owned by this list and valid.
        if let Some(slab) = unsafe { unused.as_ref() } {
            // SAFETY: as above.
            *unused = unsafe { slab.link() }.next;
            // SAFETY: as above.
            unsafe { slab.set_link(Slab::UNLISTED) };
            return Ok(slab);
        }
        let piece = self
            .arena
            .bump(meta.layout)
            .ok_or(Short::Meta(meta.layout))?;
        // SAFETY: the piece is fresh memory of a layout that begins with a slab; what follows it is
        // valid as zero bytes.
        unsafe {
            piece.write_bytes(0, meta.layout.size());
            let slab: *mut Slab = piece.as_ptr().cast();
            slab.write(Slab::new());
            Ok(&*slab)
        }
    }

    /// Takes metadata back.
    ///
    /// # Safety
    /// The caller owns `slab`, which was taken as of this kind, and its life was ended.
    pub(super) unsafe fn put_slab(&mut self, slab: &Slab, meta: MetaShape) {
        let unused = &mut self.unused_slabs[meta.kind];
        let link = Link {
            next: *unused,
            prev: ptr::null(),
        };
        // SAFETY: the caller owns it.
        unsafe { slab.set_link(link) };
        *unused = slab;
    }
}
