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
//! - objects lie in the first bytes of the block, as many as `laid` says, and their lengths are multiples of a unit, 16 bytes;
//! - the mark of the unit that a live object begins in tells its length. In a checked heap no other mark says that an object lives:
//!   a free says of its own that it is dead, so a block without objects needs no clearing when it begins again;
//! - the metadata of a block is one until the heap is dropped, as that of a slab; it begins with a slab's, whose key says that
//!   it is a block's.
//!
//! # Orderings
//!
//! All but the count is `Relaxed`. `laid`, `freed` and the marks of objects that it lays or frees are written by the owner alone;
//! a thread that has an object of the block, which it got from the owner, sees what the owner wrote before. `owner` is compared with one's
//! own name, which nobody else writes, and with nobody's; in a watched block, in which an unchecked heap notes what dies, it is the
//! owner's name and one, so that no free there is the owner's. `is_watched` is the same until the block serves another epoch. A look-up
//! for any bits reads all of this as it may be, and decides by it no more than what a caller may do with its own object. In a checked heap
//! one who is not the owner marks an object dead by a compare-and-swap, so that of two frees by such one is refused; in a watched block by
//! a store. The owner reads and then writes: of two frees at the same moment, one of which is its own, both may pass.

#[cfg(not(loom))]
mod bump;
mod count;
#[cfg(not(loom))]
mod kind;
#[cfg(not(loom))]
mod mark;
#[cfg(all(test, loom))]
mod models;

#[cfg(not(loom))]
pub(crate) use bump::{BumpBlock, Freed};
#[cfg(not(loom))]
pub(crate) use kind::Kind;
#[cfg(not(loom))]
pub(crate) use mark::{Length, MAX_ALIGN, MAX_SHORT, MAX_SIZE, UNIT};
