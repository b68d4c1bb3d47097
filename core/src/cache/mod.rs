//! The data structures of a local: what it holds of each class in each epoch, and where others find that.
//!
//! A local has an *epoch cache* for each epoch that it serves, and in it a *cell* for each class: a magazine, the current slot
//! set, a stash of others. What lies in metadata memory for an epoch cache is in the heap's registry, so that snapshots and the
//! walker see what locals hold. How they are filled and emptied is the next layers' matter.

mod cell;
mod counts;
mod gathered;
mod owned;
mod registry;
mod stash;
mod state;

pub(crate) use cell::{Cell, Entry, FULL, Held, Room, SMALL};
pub(crate) use counts::{LocalCounters, OwnCounters, bump};
pub(crate) use gathered::Gathered;
pub(crate) use owned::Owned;
pub(crate) use registry::Registry;
pub(crate) use stash::MANY;
pub(crate) use state::CacheState;
