//! What the tests of this crate share.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test binary uses its own part"
)]

#[path = "../../../tests/actions/src/alone.rs"]
mod alone;
#[path = "../../../tests/actions/src/lookups.rs"]
pub mod lookups;
#[path = "../../../tests/actions/src/rng.rs"]
mod rng;

use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::config::Unchecked;
use temporal_slab::{Heap, Local};
use temporal_slab_hosted::MmapProvider;

pub use alone::{alone, is_alone};
pub use rng::Rng;

/// A layout of so many bytes.
pub fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// A heap on the system's pages.
pub type TestHeap = Heap<Unchecked<MmapProvider>>;
pub type TestLocal<'h> = Local<'h, Unchecked<MmapProvider>>;

pub const MIB: usize = 1 << 20;

/// An object of which every byte was written.
pub fn touched(local: &mut TestLocal<'_>, size: usize) -> NonNull<u8> {
    let object = local.alloc(layout(size)).unwrap();
    // SAFETY: the object is ours and this long.
    unsafe { object.write_bytes(1, size) };
    object
}

/// The faults of this process so far that needed no disk.
pub fn page_faults() -> i64 {
    // SAFETY: the structure is ours, and zero bytes are one.
    unsafe {
        let mut usage: libc::rusage = core::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage.ru_minflt
    }
}
