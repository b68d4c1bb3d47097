//! Allocators that kernels use, each with a region of its own: ours and three that are well known there.

use super::Entrant;
use crate::contender::{Ours, OursLocal, OursShared, Raw, failed};
use core::alloc::Layout;
use core::ptr::NonNull;
use std::alloc::{GlobalAlloc, System};
use std::sync::LazyLock;
use temporal_slab::Heap;
use temporal_slab::config::DefaultLock;
use temporal_slab::provider::StaticProvider;

type Talc = talc::TalcLock<DefaultLock, talc::source::Manual>;
/// Blocks of up to 2^32 bytes, as its own examples have them.
type Buddies = buddy_system_allocator::LockedHeap<32>;

/// What each has.
const REGION: usize = 64 << 20;

static WITH_LOCALS: LazyLock<Ours<StaticProvider<'static>>> = LazyLock::new(ours);
static WITHOUT_LOCALS: LazyLock<Ours<StaticProvider<'static>>> = LazyLock::new(ours);
static TALC: LazyLock<Talc> = LazyLock::new(|| {
    let heap = Talc::new(talc::source::Manual);
    // SAFETY: the region is valid for ever, and nobody else's.
    let claimed = unsafe { heap.lock().claim(region().as_ptr(), REGION) };
    claimed
        .map(|_| heap)
        .unwrap_or_else(|| failed("talc refused its region"))
});
static LIST: LazyLock<linked_list_allocator::LockedHeap> = LazyLock::new(|| {
    // SAFETY: the region is valid for ever, and nobody else's.
    unsafe { linked_list_allocator::LockedHeap::new(region().as_ptr(), REGION) }
});
static BUDDIES: LazyLock<Buddies> = LazyLock::new(|| {
    let heap = Buddies::new();
    // SAFETY: the region is valid for ever, and nobody else's.
    unsafe {
        heap.lock()
            .init(region().as_ptr().expose_provenance(), REGION)
    };
    heap
});

/// A region that is never given back.
fn region() -> NonNull<u8> {
    let layout = Layout::from_size_align(REGION, 2 << 20);
    let layout = layout.unwrap_or_else(|_| failed("a region's size is a size"));
    // SAFETY: the size is not zero.
    NonNull::new(unsafe { System.alloc(layout) })
        .unwrap_or_else(|| failed("no memory for a region"))
}

fn ours() -> Ours<StaticProvider<'static>> {
    // SAFETY: the region is valid for ever, and nobody else's.
    Heap::new(unsafe { StaticProvider::from_raw(region().as_ptr(), REGION) })
}

/// All that take part.
pub(super) fn entrants() -> Vec<Entrant> {
    vec![
        Entrant::new("ours", true, || OursLocal::of(&WITH_LOCALS)),
        Entrant::new("ours-shared", true, || OursShared(&WITHOUT_LOCALS)),
        Entrant::new("talc", false, || Raw(&*TALC)),
        Entrant::new("linked_list_allocator", false, || Raw(&*LIST)),
        Entrant::new("buddy_system_allocator", false, || Raw(&*BUDDIES)),
    ]
}
