//! A memory allocator for programs whose objects die in groups.
//!
//! Objects of one epoch share slabs, so memory comes back whole when a phase ends. The crate needs
//! neither `std` nor `alloc`: all memory, its own metadata included, comes from one trait,
//! [`provider::PageProvider`].
//!
//! The layers, each of which uses only those above it; a test reads every `use`:
//!
//! | layer | knows |
//! |---|---|
//! | `sync`, `error` | atomics, cells, locks; what can go wrong |
//! | [`provider`] | the contract with the outside |
//! | [`class`], [`config`] | sizes, alignment, slots per slab: all `const`; what an embedder chooses |
//! | `pages` | chunks, the page map, runs and extents, purging, records |
//! | `slab` | a slot set's life: claim, give back, full, empty |
//! | `block` | bump blocks |
//! | [`handle`](RawHandle) | the 64-bit format and the slot tags |
//! | [`epoch`](Epoch) | records, eras, states, labels |
//! | [`snapshot`] | what can be seen, as plain data |
//! | `depot` | the lists of slabs for each epoch and class |
//! | `cache` | what a local holds, as data |
//! | [`heap`](Heap) | the state, the shared path, large sizes, closing, reclaim |
//! | [`local`](Local) | the fast path's public face |
//! | [`scope`](Scope), [`domain`](Domain), [`adapter`] | on the public face only |
//!
//! Reports and a diagnosis are a crate of their own, `temporal-slab-report`, on [`snapshot`] and the public face. The nouns are
//! in the repository's `docs/glossary.md`.
#![no_std]
// A model uses a part of the crate, and makes nothing public.
#![cfg_attr(loom, allow(dead_code, unreachable_pub, unused_imports))]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod sync;

#[cfg(not(loom))]
mod error;

#[cfg(not(loom))]
pub mod provider;

pub mod class;

#[cfg(not(loom))]
pub mod config;

#[cfg(not(loom))]
mod pages;
/// The page map's table and entries: the rest of this layer works under one lock, or looks up in these.
#[cfg(loom)]
mod pages {
    mod entry;
    #[cfg(test)]
    mod models;
    mod table;

    pub(crate) use entry::{Entry, EntryKind};
}

mod slab;

mod block;

mod handle;

mod epoch;

#[cfg(not(loom))]
pub mod snapshot;

mod depot;

#[cfg(not(loom))]
mod cache;

#[cfg(not(loom))]
mod heap;
#[cfg(not(loom))]
mod local;

#[cfg(not(loom))]
mod scope;

#[cfg(not(loom))]
mod domain;

#[cfg(not(loom))]
pub mod adapter;

#[cfg(not(loom))]
pub use domain::{Domain, DomainGuard};
#[cfg(not(loom))]
pub use epoch::{Epoch, EpochError, EpochState, Label};
#[cfg(not(loom))]
pub use error::{AllocError, FreeError};
#[cfg(not(loom))]
pub use handle::{HandleError, RawHandle};
#[cfg(all(not(loom), feature = "walker"))]
pub use heap::{Census, SlabCensus, Violation};
#[cfg(not(loom))]
pub use heap::{Closed, Emptied, Handle, Heap, HeapBytes, Policy, Ref};
#[cfg(not(loom))]
pub use local::{Local, Magazines, NO_MAGAZINES, NoMagazines};
#[cfg(not(loom))]
pub use scope::Scope;

#[cfg(not(loom))]
#[doc = include_str!("../docs/embedding.md")]
pub mod embedding {}

#[cfg(not(loom))]
#[doc = include_str!("../docs/threats.md")]
pub mod threats {}

/// The crate whose `RawMutex` a heap's lock implements.
#[cfg(not(loom))]
pub use lock_api;

// The example in the README is a test like any other.
#[cfg(all(doctest, not(loom)))]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct ReadmeExample;
