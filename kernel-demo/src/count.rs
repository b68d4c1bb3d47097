//! Instructions of the fast paths, counted in the kernel: booted with `-icount shift=0` the machine's clock
//! moves by one for each instruction, so two readings of it count what is between.

use core::alloc::Layout;
use core::arch::x86_64::_rdtsc;
use core::hint::black_box;
use core::ptr::NonNull;

use temporal_slab::config::Config;
use temporal_slab::{Heap, Local};

use crate::lock::IrqLock;
use crate::memory::FrameProvider;
use crate::serial::say;

/// As the hosted figure is counted: nothing is checked.
#[derive(Debug)]
struct Fast;

impl Config for Fast {
    type Provider = FrameProvider;
    type Lock = IrqLock;
    const CHECKED: bool = false;
}

type FastHeap = Heap<Fast>;
type FastLocal = Local<'static, Fast>;

static HEAP: FastHeap = Heap::new(FrameProvider);

const PAIRS: u64 = 10_000;

// Not inlined, as they would not be in a kernel of any size: what is counted includes the call.

#[inline(never)]
fn local_alloc(local: &mut FastLocal, layout: Layout) -> Option<NonNull<u8>> {
    local.alloc(layout).ok()
}

#[inline(never)]
fn local_free(local: &mut FastLocal, object: NonNull<u8>, layout: Layout) -> bool {
    // SAFETY: the pairs free what they allocated, once.
    unsafe { local.free(object, layout) }.is_ok()
}

#[inline(never)]
fn shared_alloc(layout: Layout) -> Option<NonNull<u8>> {
    HEAP.alloc(layout).ok()
}

#[inline(never)]
fn shared_free(object: NonNull<u8>, layout: Layout) -> bool {
    // SAFETY: as above.
    unsafe { HEAP.free(object, layout) }.is_ok()
}

/// What one of many turns costs.
fn each(mut turn: impl FnMut() -> bool) -> Option<u64> {
    // The first turns make slabs.
    let mut whole = (0..100).all(|_| turn());
    // SAFETY: every CPU of this architecture has it.
    let start = unsafe { _rdtsc() };
    for _ in 0..PAIRS {
        whole &= turn();
    }
    // SAFETY: as above.
    let end = unsafe { _rdtsc() };
    whole.then_some((end - start) / PAIRS)
}

/// Counts, and says what it counted; how many failed.
pub(crate) fn run() -> usize {
    let layout = black_box(Layout::new::<[u64; 8]>());
    let Ok(mut local) = HEAP.local() else {
        return 1;
    };
    let pair_local = each(|| {
        let object = local_alloc(&mut local, layout);
        object.is_some_and(|object| local_free(&mut local, black_box(object), layout))
    });
    let pair_shared = each(|| {
        let object = shared_alloc(layout);
        object.is_some_and(|object| shared_free(black_box(object), layout))
    });
    let mut failures = 0;
    for (name, figure) in [("pair-local", pair_local), ("pair-shared", pair_shared)] {
        match figure {
            Some(figure) => say!("instructions {name} = {figure}"),
            None => failures += 1,
        }
    }
    failures
}
