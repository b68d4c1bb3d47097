//! Bump blocks: where the small objects of a young epoch lie, one behind the other, of whatever sizes come.
//!
//! # States
//!
//! *empty* (in a local's spares or the heap's pool) -> *owned* (one local lays objects of one epoch in it) -> *left* (nobody
//! does; the frees of what lives bring it to its end) -> empty. An owner whose objects are all dead starts over.
//!
//! While a block is owned or left it pins the record of its epoch (`Position::pin`). How the count of live objects is shared is
//! in [`count`].
//!
//! # Invariants
//!
//! - objects lie between the block's base and `next`, each from one set bit of *begins* to the next one (a bit for each
//!   16 bytes), or to `next`. What an alignment leaves before an object is laid as an object that is dead;
//! - in a checked heap an object is live exactly while its bit is set in *begins* and in neither of *freed by the owner* and
//!   *freed by others*;
//! - the metadata of a block is one until the heap is dropped, as that of a slab; it begins with a slab's, whose key says that
//!   it is a block's.
//!
//! # Orderings
//!
//! All but the count is `Relaxed`, and `next` where an object is laid (`Release`) and one is looked for (`Acquire`): where the next one
//! begins, or that there is none, tells how long an object is. `next`, `own_live`, *begins* and *freed by the owner* are written by the owner alone;
//! a thread that has an object of the block, which it got from the owner, sees what the owner wrote before. `owner` is compared with one's
//! own name only, and nobody else writes that. A look-up for any bits reads all of this as it may be, and decides by it no more
//! than what a caller may do with its own object. *Freed by others* is set by `fetch_or`, so that of two frees one is refused.

#[cfg(not(loom))]
mod block;
mod count;
#[cfg(all(test, loom))]
mod models;

#[cfg(not(loom))]
pub(crate) use block::{BumpBlock, Freed, Kind, MAX_ALIGN, MAX_SIZE};
