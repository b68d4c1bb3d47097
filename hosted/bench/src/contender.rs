//! The allocators that are compared, behind one trait.
//!
//! Each is called as a program would call it that knows which allocator it uses: a value, not the process's global
//! allocator, so all of them run in one process and nothing else uses them but glibc's.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use serde::{Deserialize, Serialize};
use std::alloc::System;
use temporal_slab::config::DefaultLock;
use temporal_slab::config::{Checked, Config, Unchecked};
use temporal_slab::provider::PageProvider;
use temporal_slab::snapshot::{HeapStats, SlowPathStats};
use temporal_slab::{Heap, Local, Policy};
use temporal_slab_hosted::MmapProvider;

/// An allocator to compare with, as its authors ship it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    Mimalloc,
    Jemalloc,
    Snmalloc,
    Glibc,
}

impl Peer {
    pub(super) const ALL: [Self; 4] = [Self::Mimalloc, Self::Jemalloc, Self::Snmalloc, Self::Glibc];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Mimalloc => "mimalloc",
            Self::Jemalloc => "jemalloc",
            Self::Snmalloc => "snmalloc",
            Self::Glibc => "glibc",
        }
    }
}

/// Which of ours, or which other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ours as it is meant to be used: through a local.
    Ours,
    /// Ours with a policy that gives nothing back meanwhile.
    OursOnClose,
    /// The same, and huge pages are asked for.
    OursHuge,
    /// Ours with every free checked.
    OursChecked,
    /// Ours with every free checked, what is freed overwritten, and slots in an order that is hard to foresee.
    OursHardened,
    /// Ours without a local.
    Shared,
    /// Another allocator.
    Peer(Peer),
}

/// What is done with a contender whose type is known.
pub(super) trait Visitor {
    type Out;

    /// `make` makes the contender for the thread that calls it.
    fn visit<C: Contender>(self, make: fn() -> C) -> Self::Out;
}

impl Kind {
    pub(super) const OURS: [Self; 6] = [
        Self::Ours,
        Self::OursOnClose,
        Self::OursHuge,
        Self::OursChecked,
        Self::OursHardened,
        Self::Shared,
    ];

    /// All of ours, and the peers that are asked for.
    pub(super) fn all(peers: &[Peer]) -> Vec<Self> {
        let peers = peers.iter().copied().map(Self::Peer);
        Self::OURS.into_iter().chain(peers).collect()
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursOnClose => "ours-on-close",
            Self::OursHuge => "ours-huge",
            Self::OursChecked => "ours-checked",
            Self::OursHardened => "ours-hardened",
            Self::Shared => "ours-shared",
            Self::Peer(peer) => peer.name(),
        }
    }

    pub(super) const fn is_ours(self) -> bool {
        !matches!(self, Self::Peer(_))
    }

    /// The one of a name: how a child process is told.
    pub(super) fn named(name: &str) -> Option<Self> {
        let all = Self::all(&Peer::ALL);
        all.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn visit<V: Visitor>(self, visitor: V) -> V::Out {
        match self {
            Self::Ours => visitor.visit(|| OursLocal::of(&WITH_LOCALS)),
            Self::OursOnClose => {
                ON_CLOSE.set_policy(Policy::ON_CLOSE);
                visitor.visit(|| OursLocal::of(&ON_CLOSE))
            }
            Self::OursHuge => {
                HUGE.set_policy(Policy::ON_CLOSE);
                visitor.visit(|| OursLocal::of(&HUGE))
            }
            Self::OursChecked => visitor.visit(|| OursLocal::of(&CHECKED)),
            Self::OursHardened => visitor.visit(|| OursLocal::of(&HARDENED)),
            Self::Shared => visitor.visit(|| OursShared(&WITHOUT_LOCALS)),
            Self::Peer(Peer::Mimalloc) => visitor.visit(|| Raw(&mimalloc::MiMalloc)),
            Self::Peer(Peer::Jemalloc) => visitor.visit(|| Raw(&tikv_jemallocator::Jemalloc)),
            Self::Peer(Peer::Snmalloc) => visitor.visit(|| Raw(&snmalloc_rs::SnMalloc)),
            Self::Peer(Peer::Glibc) => visitor.visit(|| Raw(&System)),
        }
    }

    /// The heap, where it is one of ours.
    pub(super) fn stats(self) -> Option<HeapStats> {
        match self {
            Self::Ours => Some(WITH_LOCALS.stats()),
            Self::OursOnClose => Some(ON_CLOSE.stats()),
            Self::OursHuge => Some(HUGE.stats()),
            Self::OursChecked => Some(CHECKED.stats()),
            Self::OursHardened => Some(HARDENED.stats()),
            Self::Shared => Some(WITHOUT_LOCALS.stats()),
            Self::Peer(_) => None,
        }
    }
}

/// An allocator as one thread sees it.
///
/// What uses it is generic over it and methods are `#[inline(always)]`, so that what is timed is a direct call. Whether
/// what they call is inlined in turn is that allocator's matter.
pub(super) trait Contender: Send + 'static {
    /// An object. Panics when there is no memory: no figure would mean anything then.
    fn alloc(&mut self, layout: Layout) -> NonNull<u8>;

    /// Takes an object back.
    ///
    /// # Safety
    /// `object` came from [`alloc`](Self::alloc) of this contender, on whichever thread, with this layout; it was not
    /// freed since and nobody uses it.
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout);

    /// What it has counted so far; nothing, if it does not count.
    fn counted(&self) -> Counted {
        Counted::default()
    }
}

/// What explains a long call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) slow: SlowPathStats,
    pub(super) committed: u64,
    pub(super) decommits: u64,
}

#[cold]
#[inline(never)]
pub(super) fn failed(what: &str) -> ! {
    panic!("{what}")
}

/// The heap under test: never checked, as the peers do not check either, unless it is said.
pub(super) type Ours<P> = Heap<Unchecked<P>>;

/// Hard on whoever reads or foresees what is not theirs.
#[derive(Debug)]
pub(super) struct Hardened;

impl Config for Hardened {
    type Provider = MmapProvider;
    type Lock = DefaultLock;
    const CHECKED: bool = true;
    const ZERO_ON_FREE: bool = true;
    const SHUFFLED: bool = true;
}

// One for each way of use, so that none finds what another left.
static WITH_LOCALS: Ours<MmapProvider> = Heap::new(MmapProvider::new());
static WITHOUT_LOCALS: Ours<MmapProvider> = Heap::new(MmapProvider::new());
static ON_CLOSE: Ours<MmapProvider> = Heap::new(MmapProvider::new());

static CHECKED: Heap<Checked<MmapProvider>> = Heap::new(MmapProvider::new());
static HARDENED: Heap<Hardened> = Heap::new(MmapProvider::new());
static HUGE: Ours<MmapProvider> = Heap::new(MmapProvider::new().with_huge_pages());

/// A heap through a local of the calling thread.
pub(super) struct OursLocal<C: Config + 'static>(Local<'static, C>);

impl<C: Config> OursLocal<C> {
    pub(super) fn of(heap: &'static Heap<C>) -> Self {
        match heap.local() {
            Ok(local) => Self(local),
            Err(error) => failed(&format!("no local for the heap: {error}")),
        }
    }
}

impl<C: Config<Provider: Send + Sync, Lock: Sync>> Contender for OursLocal<C> {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> NonNull<u8> {
        match self.0.alloc(layout) {
            Ok(object) => object,
            Err(_) => failed("ours has no memory"),
        }
    }

    #[inline(always)]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        if unsafe { self.0.free(object, layout) }.is_err() {
            failed("ours refused a free");
        }
    }

    fn counted(&self) -> Counted {
        let pages = self.0.heap().page_stats();
        Counted {
            slow: self.0.slow_paths(),
            committed: pages.committed,
            decommits: pages.decommits,
        }
    }
}

/// A heap through its shared path.
pub(super) struct OursShared<P: PageProvider + 'static>(pub(super) &'static Ours<P>);

impl<P: PageProvider + Send + Sync> Contender for OursShared<P> {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> NonNull<u8> {
        match self.0.alloc(layout) {
            Ok(object) => object,
            Err(_) => failed("ours, shared, has no memory"),
        }
    }

    #[inline(always)]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        if unsafe { self.0.free(object, layout) }.is_err() {
            failed("ours, shared, refused a free");
        }
    }
}

/// An allocator that comes with an implementation of `GlobalAlloc`.
#[derive(Debug)]
pub(super) struct Raw<A: 'static>(pub(super) &'static A);

impl<A> Clone for Raw<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Raw<A> {}

impl<A: GlobalAlloc + Sync> Contender for Raw<A> {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> NonNull<u8> {
        debug_assert!(layout.size() > 0);
        // SAFETY: nobody here asks for a size of zero.
        match NonNull::new(unsafe { self.0.alloc(layout) }) {
            Some(object) => object,
            None => failed("a peer has no memory"),
        }
    }

    #[inline(always)]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(object.as_ptr(), layout) };
    }
}
