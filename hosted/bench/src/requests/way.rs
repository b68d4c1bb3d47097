//! A request, and the ways in which contenders serve it.
//!
//! A request is parsed into a map of lists of texts and answered from that; all of it is over when the answer is
//! written. The code is the same for every contender. The peers free what a request made one by one, as does ours
//! without an epoch; ours with an epoch does so too, in slabs that only requests of that epoch share; ours with a scope
//! drops all at once. With epochs, what a close empties is kept for the next epoch, up to a bound, as a server would
//! have it; once it is there without that, and each close gives its pages back to the system. The provider is not asked for readings of the process at each close, as under the global
//! allocator: that alone takes longer than a request.

use crate::contender::{Peer, Raw, failed};
use crate::epochs::Bumping;
use allocator_api2::alloc::{AllocError, Allocator};
use allocator_api2::vec::Vec as AVec;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use hashbrown::{DefaultHashBuilder, HashMap};
use std::alloc::System;
use temporal_slab::adapter::LocalAllocator;
use temporal_slab::{Epoch, Heap, Policy, Scope};
use temporal_slab_hosted::{FutexLock, MmapProvider};

type Served = Heap<Bumping<FutexLock>>;
type Allocating = LocalAllocator<'static, Bumping<FutexLock>>;

/// One for each way of use, so that none finds what another left.
static PLAIN: Served = Heap::new(MmapProvider::new().without_readings());
static COLD: Served = Heap::new(MmapProvider::new().without_readings());
static BATCHES: Served = Heap::new(MmapProvider::new().without_readings());
static EPOCHS: Served = Heap::new(MmapProvider::new().without_readings());
static SCOPES: Served = Heap::new(MmapProvider::new().without_readings());

/// Requests of an epoch, for [`Way::EpochOfMany`].
const MANY: usize = 64;

/// What is kept of what closes empty.
const WARM_BYTES: usize = 4 << 20;

/// How a contender is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Scope,
    EpochOfMany,
    /// An epoch for each.
    Epoch,
    /// The same, under the policy that a heap begins with, by which a close gives back what it empties.
    ColdEpoch,
    Plain,
    Peer(Peer),
}

impl Way {
    const OURS: [Self; 5] = [
        Self::Scope,
        Self::EpochOfMany,
        Self::Epoch,
        Self::ColdEpoch,
        Self::Plain,
    ];

    pub(super) fn all(peers: &[Peer]) -> Vec<Self> {
        let peers = peers.iter().copied().map(Self::Peer);
        Self::OURS.into_iter().chain(peers).collect()
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Scope => "ours-scope",
            Self::EpochOfMany => "ours-epoch-64",
            Self::Epoch => "ours-epoch",
            Self::ColdEpoch => "ours-epoch-cold",
            Self::Plain => "ours",
            Self::Peer(peer) => peer.name(),
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        let all = Self::all(&Peer::ALL);
        all.into_iter().find(|way| way.name() == name)
    }

    pub(super) const fn is_ours(self) -> bool {
        !matches!(self, Self::Peer(_))
    }
}

// SAFETY: what a global allocator hands out is valid until it is freed, whoever has its name.
unsafe impl<A: GlobalAlloc> Allocator for Raw<A> {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: collections ask for no size of zero.
        let object = NonNull::new(unsafe { self.0.alloc(layout) }).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(object, layout.size()))
    }

    #[inline]
    unsafe fn deallocate(&self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(object.as_ptr(), layout) };
    }

    #[inline]
    unsafe fn grow(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise; the alignment stays, as it does for vectors and tables.
        let object = unsafe { self.0.realloc(object.as_ptr(), old, new.size()) };
        let object = NonNull::new(object).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(object, new.size()))
    }
}

type Text<A> = AVec<u8, A>;

/// Requests as they come in: fields with values, some of which repeat.
pub(super) fn texts() -> Vec<String> {
    let mut seed = 1u64;
    let mut below = move |n: u64| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) % n
    };
    (0..512)
        .map(|number| {
            let fields: Vec<String> = (0..8 + below(24))
                .map(|_| {
                    let value = "v".repeat(4 + below(60) as usize);
                    format!("field-{}={value}-{number}", below(20))
                })
                .collect();
            fields.join("&")
        })
        .collect()
}

/// Adds bytes to a text, as the standard library's vector does for all that can be copied.
fn append<A: Allocator>(text: &mut Text<A>, bytes: &[u8]) {
    text.reserve(bytes.len());
    let end = text.len();
    // SAFETY: there is room for them behind the text, which is another object than the bytes; they are all written.
    unsafe {
        let room = text.as_mut_ptr().add(end);
        room.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        text.set_len(end + bytes.len());
    }
}

/// Takes the next field off a request: its name and its value. One function for all contenders: else it depends on the allocator how much
/// of the search the compiler puts where it is called, and that is as much as allocators differ by.
#[inline(never)]
fn next_field<'t>(rest: &mut &'t str) -> Option<(&'t str, &'t str)> {
    if rest.is_empty() {
        return None;
    }
    let (field, behind) = rest.split_once('&').unwrap_or((rest, ""));
    *rest = behind;
    Some(field.split_once('=').unwrap_or((field, "")))
}

/// Serves a request and hands the answer to `tell`.
fn serve<A: Allocator + Copy>(alloc: A, text: &str, tell: &mut dyn FnMut(&[u8])) {
    let mut fields: HashMap<Text<A>, AVec<Text<A>, A>, DefaultHashBuilder, A> =
        HashMap::new_in(alloc);
    let copy = |part: &str| {
        let mut text = Text::new_in(alloc);
        append(&mut text, part.as_bytes());
        text
    };
    let mut rest = text;
    while let Some((name, value)) = next_field(&mut rest) {
        fields
            .entry(copy(name))
            .or_insert_with(|| AVec::new_in(alloc))
            .push(copy(value));
    }
    let mut names: AVec<&Text<A>, A> = AVec::new_in(alloc);
    names.extend(fields.keys());
    names.sort_unstable();
    let mut answer = Text::new_in(alloc);
    for name in names {
        append(&mut answer, name);
        for value in &fields[name] {
            answer.push(b' ');
            append(&mut answer, value);
        }
        answer.push(b'\n');
    }
    tell(&answer);
}

/// Serves one request: its text, and what is done with the answer.
pub(super) type Serve<'s> = dyn FnMut(&str, &mut dyn FnMut(&[u8])) + 's;

/// Runs `work` with what serves requests in one way, on this thread.
pub(super) fn with<T>(way: Way, work: impl FnOnce(&mut Serve<'_>) -> T) -> T {
    match way {
        Way::Scope => {
            let mut scope = Scope::new(&SCOPES);
            work(&mut |text, tell| {
                serve(&scope, text, tell);
                scope.reset();
            })
        }
        Way::ColdEpoch => {
            COLD.set_policy(Policy::ON_CLOSE);
            with_epochs(&COLD, 1, work)
        }
        Way::Epoch => {
            EPOCHS.set_policy(Policy::keeping(WARM_BYTES));
            with_epochs(&EPOCHS, 1, work)
        }
        Way::EpochOfMany => {
            BATCHES.set_policy(Policy::keeping(WARM_BYTES));
            with_epochs(&BATCHES, MANY, work)
        }
        Way::Plain => {
            let local = allocating(&PLAIN);
            work(&mut |text, tell| serve(&local, text, tell))
        }
        Way::Peer(Peer::Mimalloc) => {
            work(&mut |text, tell| serve(Raw(&mimalloc::MiMalloc), text, tell))
        }
        Way::Peer(Peer::Jemalloc) => {
            work(&mut |text, tell| serve(Raw(&tikv_jemallocator::Jemalloc), text, tell))
        }
        Way::Peer(Peer::Snmalloc) => {
            work(&mut |text, tell| serve(Raw(&snmalloc_rs::SnMalloc), text, tell))
        }
        Way::Peer(Peer::Glibc) => work(&mut |text, tell| serve(Raw(&System), text, tell)),
    }
}

fn allocating(heap: &'static Served) -> Allocating {
    match heap.local() {
        Ok(local) => LocalAllocator::new(local),
        Err(error) => failed(&format!("no local for the heap: {error}")),
    }
}

fn open(heap: &'static Served) -> Epoch {
    heap.open_epoch()
        .unwrap_or_else(|error| failed(&format!("no epoch: {error}")))
}

/// An epoch for each `many` requests of this thread.
fn with_epochs<T>(heap: &'static Served, many: usize, work: impl FnOnce(&mut Serve<'_>) -> T) -> T {
    let local = allocating(heap);
    let close = |epoch| {
        local.leave(epoch);
        if heap.close(epoch).is_err() {
            failed("an open epoch was not closed");
        }
    };
    let mut now: Option<(Epoch, usize)> = None;
    let result = work(&mut |text, tell| {
        let (epoch, served) = now.take().unwrap_or_else(|| (open(heap), 0));
        // A reference, which collections keep: an epoch's token makes each of them longer.
        let here = &local.in_epoch(epoch);
        serve(here, text, tell);
        if served + 1 == many {
            close(epoch);
        } else {
            now = Some((epoch, served + 1));
        }
    });
    if let Some((epoch, _)) = now {
        close(epoch);
    }
    result
}
