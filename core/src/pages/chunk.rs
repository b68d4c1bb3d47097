//! The description of a chunk. Under the pages' lock, but for what is numbered and the entries behind it.

use super::chain::{Linked, Links};
use super::depot_blocks::Block;
use super::table::Numbered;
use super::tree::{Node, Use};
use crate::provider::Region;
use core::ptr::{self, NonNull};

/// Chunks with a free block.
pub(super) const OPEN: usize = 0;
/// Chunks with warm pages.
pub(super) const WARM: usize = 1;
/// First chunks of regions of several.
pub(super) const LONG: usize = 2;

/// A chunk's description. `blocks` is followed in memory by as many as the geometry says, and these by the page map's
/// entries. Its memory is a description for as long as the heap lives: see `map`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Chunk {
    pub(super) node: Node,
    /// What the page map's table leads to.
    pub(super) numbered: Numbered,
    /// Where the chunk begins.
    pub(super) base: *mut u8,
    /// The first chunk of its region, whose node is the region's, and its neighbours in the region.
    pub(super) lead: *mut Chunk,
    pub(super) next: *mut Chunk,
    pub(super) prev: *mut Chunk,
    /// Of the first chunk of a region: chunks of the region that are in use.
    pub(super) in_use: usize,
    pub(super) free_blocks: u64,
    /// The blocks of which some granule is dirty.
    pub(super) touched: u64,
    pub(super) warm: usize,
    /// Bytes of its entries that went back to the provider, while it is unused.
    pub(super) cooled: usize,
    open_links: Links<Chunk>,
    warm_links: Links<Chunk>,
    pub(super) long_links: Links<Chunk>,
    blocks: [Block; 0],
}

impl Chunk {
    /// A description of no chunk.
    #[expect(
        clippy::declare_interior_mutable_const,
        reason = "it is copied into place, not used"
    )]
    pub(super) const VACANT: Self = Self {
        node: Node::new(
            Region {
                base: NonNull::dangling(),
                size: 0,
            },
            Use::Chunk,
        ),
        numbered: Numbered::new(),
        base: ptr::null_mut(),
        lead: ptr::null_mut(),
        next: ptr::null_mut(),
        prev: ptr::null_mut(),
        in_use: 0,
        free_blocks: 0,
        touched: 0,
        warm: 0,
        cooled: 0,
        open_links: Links::UNLINKED,
        warm_links: Links::UNLINKED,
        long_links: Links::UNLINKED,
        blocks: [],
    };
}

impl Linked<OPEN> for Chunk {
    unsafe fn links(member: *mut Self) -> *mut Links<Self> {
        // SAFETY: the member is valid.
        unsafe { &raw mut (*member).open_links }
    }
}
impl Linked<WARM> for Chunk {
    unsafe fn links(member: *mut Self) -> *mut Links<Self> {
        // SAFETY: the member is valid.
        unsafe { &raw mut (*member).warm_links }
    }
}
impl Linked<LONG> for Chunk {
    unsafe fn links(member: *mut Self) -> *mut Links<Self> {
        // SAFETY: the member is valid.
        unsafe { &raw mut (*member).long_links }
    }
}
