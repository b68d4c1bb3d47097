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

pub use alone::{alone, is_alone};
pub use rng::Rng;

/// A layout of so many bytes.
pub fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}
