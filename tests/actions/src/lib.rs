//! What a heap can be asked to do, as values, and a model that says what has to come of it; and what else the tests of
//! several crates share.

pub mod action;
mod alone;
mod configs;
mod draw;
pub mod figures;
pub mod hooked;
pub mod host;
pub mod lookups;
mod rng;
mod world;

pub use action::Action;
pub use alone::{alone, is_alone};
pub use configs::{Family, Over};
pub use rng::Rng;
pub use world::{Control, World, through_global};
