//! The heap under other people's interfaces: `GlobalAlloc`, and `allocator-api2`'s `Allocator`.
//! Built on the public face only.

#[cfg(feature = "allocator-api2")]
mod allocator;
mod global;

#[cfg(feature = "allocator-api2")]
pub use allocator::{EpochAllocator, LocalAllocator};
pub use global::{FindLocal, Global, LockedLocal, SharedOnly};
