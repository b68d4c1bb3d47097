//! The allocators that are compared, behind one trait.
//!
//! Each is called as a program would call it that knows which allocator it uses: a value, not the
//! process's global allocator, so all of them run in one process and nothing else uses them but
//! glibc's.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use std::alloc::System;

use temporal_slab::{DefaultLock, Heap, Local, Policy, config::Unchecked};
use temporal_slab_hosted::MmapProvider;

/// An allocator as one thread sees it.
///
/// Patterns are generic over it and methods are `#[inline(always)]`, so that what is timed is a direct
/// call. Whether what they call is inlined in turn is that allocator's matter.
pub(super) trait Contender: Send + 'static {
    /// An object. Panics when there is no memory: no figure would mean anything then.
    fn alloc(&mut self, layout: Layout) -> NonNull<u8>;

    /// Takes an object back.
    ///
    /// # Safety
    /// `object` came from [`alloc`](Self::alloc) of this contender, on whichever thread, with this
    /// layout; it was not freed since and nobody uses it.
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout);
}

#[cold]
#[inline(never)]
fn failed(what: &str) -> ! {
    panic!("{what}")
}

/// The heap under test: never checked, as the peers do not check either.
type Ours = Heap<MmapProvider, DefaultLock, Unchecked>;

// One for each way of use, so that none finds what another left.
static WITH_LOCALS: Ours = Heap::new(MmapProvider::new());
static WITHOUT_LOCALS: Ours = Heap::new(MmapProvider::new());
static ON_CLOSE: Ours = Heap::new(MmapProvider::new());

/// A heap through a local of the calling thread.
pub(super) struct OursLocal(Local<'static, MmapProvider, DefaultLock, Unchecked>);

impl OursLocal {
    fn of(heap: &'static Ours) -> Self {
        match heap.local() {
            Ok(local) => Self(local),
            Err(error) => failed(&format!("no local for the heap: {error}")),
        }
    }

    /// With the default policy.
    pub(super) fn new() -> Self {
        Self::of(&WITH_LOCALS)
    }

    /// With a policy that gives nothing back while the patterns run.
    pub(super) fn on_close() -> Self {
        ON_CLOSE.set_policy(Policy::OnClose);
        Self::of(&ON_CLOSE)
    }
}

impl Contender for OursLocal {
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
}

/// A heap through its shared path.
pub(super) struct OursShared;

impl Contender for OursShared {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> NonNull<u8> {
        match WITHOUT_LOCALS.alloc(layout) {
            Ok(object) => object,
            Err(_) => failed("ours, shared, has no memory"),
        }
    }

    #[inline(always)]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        if unsafe { WITHOUT_LOCALS.free(object, layout) }.is_err() {
            failed("ours, shared, refused a free");
        }
    }
}

/// An allocator that comes with an implementation of `GlobalAlloc`.
#[derive(Clone, Copy)]
pub(super) struct Peer<A>(A);

/// mimalloc.
pub(super) const MIMALLOC: Peer<mimalloc::MiMalloc> = Peer(mimalloc::MiMalloc);
/// jemalloc.
pub(super) const JEMALLOC: Peer<tikv_jemallocator::Jemalloc> = Peer(tikv_jemallocator::Jemalloc);
/// The C library's, where that is glibc.
pub(super) const GLIBC: Peer<System> = Peer(System);

impl<A: GlobalAlloc + Send + 'static> Contender for Peer<A> {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> NonNull<u8> {
        debug_assert!(layout.size() > 0);
        // SAFETY: no pattern asks for a size of zero.
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
