//! What the tests of several crates share: providers over the host's memory, a generator, and figures beside the
//! walker's.

pub mod figures;
pub mod host;
mod rng;

pub use rng::Rng;
