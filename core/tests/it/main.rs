//! What the core promises, as its users see it: one program of many files, because linking is most of what a test costs.
//! What measures the whole process stands beside it: `memory.rs`, `reads.rs`.

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod bounded;
mod bumps;
mod by_address;
mod checked;
mod classes;
mod closes;
mod counts;
mod domains;
mod epochs;
mod eras;
mod extents;
mod faults;
mod forged;
mod forgotten;
mod handles;
mod hardened;
mod hostile;
mod late;
mod learning;
mod locals;
mod lookups;
mod odd;
mod overflow;
mod pages;
mod pauses;
mod properties;
mod races;
mod regions;
mod remade;
mod scopes;
mod sizes;
mod stats;
mod survivors;
mod texts;
mod threads;
mod transit;
mod values;
