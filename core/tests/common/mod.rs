//! What the tests of the core share: providers over host memory, and a model that a heap is run
//! against, step by step.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test binary uses its own part"
)]

pub mod hooked;

use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::config::Config;
use temporal_slab::lock_api::RawMutex;
use temporal_slab::provider::PageProvider;
use temporal_slab::{Census, DefaultLock, Heap};

pub use temporal_slab_actions::{Action, Rng, World, alone, figures, host, lookups};

/// A short ring, so that positions are used again and again.
#[derive(Debug)]
pub struct ShortRing;
impl Config for ShortRing {
    const RING: usize = 6;
    const EPOCHS: usize = Self::RING;
    const CHECKED: bool = true;
}

/// As [`Checked`](temporal_slab::config::Checked); where a step takes a thousand times as long the ring comes round
/// sooner.
#[derive(Debug)]
pub struct Ring;
impl Config for Ring {
    const RING: usize = if cfg!(miri) { 8 } else { 128 };
    const EPOCHS: usize = Self::RING;
    const CHECKED: bool = true;
}

/// As [`Checked`](temporal_slab::config::Checked), and young epochs bump.
#[derive(Debug)]
pub struct Bumping;
impl Config for Bumping {
    const CHECKED: bool = true;
    const BUMPS: bool = true;
}

/// As [`Checked`](temporal_slab::config::Checked), and hard on who reads what was freed or foresees what comes next.
#[derive(Debug)]
pub struct Hard;
impl Config for Hard {
    const CHECKED: bool = true;
    const ZERO_ON_FREE: bool = true;
    const SHUFFLED: bool = true;
}

/// A layout of so many bytes.
pub fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Frees what a test allocated with [`layout`].
pub fn free<P: PageProvider, R: RawMutex, C: Config>(
    heap: &Heap<P, R, C>,
    object: NonNull<u8>,
    size: usize,
) {
    // SAFETY: tests free what they allocated, once, and use it no more.
    unsafe { heap.free(object, layout(size)) }.unwrap();
}

/// Walks a heap that nobody is using.
pub fn walk<P: PageProvider, R: RawMutex, C: Config>(heap: &Heap<P, R, C>) -> Census {
    // SAFETY: tests walk when all threads have ended and all locals are at rest.
    unsafe { heap.walk() }.unwrap_or_else(|violation| panic!("{violation}"))
}

/// Fewer steps where each takes a thousand times as long.
pub const fn steps(many: usize, few: usize) -> usize {
    if cfg!(miri) { few } else { many }
}
