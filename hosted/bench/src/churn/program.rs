//! The program that churns, in a process of its own, and what is resident meanwhile.

use super::shape::{Fate, Pattern, Shape};
use crate::contender::{Contender, Kind, Visitor, failed};
use crate::epochs::Bumping;
use crate::options::Epochs;
use anyhow::{Result, anyhow};
use core::alloc::Layout;
use core::ptr::NonNull;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Instant;
use temporal_slab::{Epoch, Heap, Local, Policy};
use temporal_slab_hosted::{MmapProvider, rss::Usage};

/// How often it is looked at what is resident.
const LOOKS: usize = 200;

/// What became of memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Account {
    /// Nanoseconds for each object, the looks left out.
    pub(super) ns: f64,
    pub(super) looks: Vec<Look>,
    /// Times that no epoch could be begun, because of what leaked.
    pub(super) refused: u64,
}

/// All in bytes, and without what the process had before.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Look {
    pub(super) resident: u64,
    /// What a program would need that had no allocator.
    pub(super) live: u64,
    /// What the heap has from its provider; of ours alone.
    pub(super) committed: u64,
}

/// What a program asks of its memory.
trait Memory {
    /// A request begins.
    fn begin(&mut self, shape: &Shape, request: usize);
    fn alloc(&mut self, layout: Layout, fate: Fate) -> NonNull<u8>;
    /// # Safety
    /// As of [`Contender::free`].
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout);
    fn committed(&self) -> u64;
    fn refused(&self) -> u64;
    /// The run ends.
    fn end(&mut self);
}

/// Without epochs.
struct Plain<C>(C);

impl<C: Contender> Memory for Plain<C> {
    fn begin(&mut self, _: &Shape, _: usize) {}

    #[inline(always)]
    fn alloc(&mut self, layout: Layout, _: Fate) -> NonNull<u8> {
        self.0.alloc(layout)
    }

    #[inline(always)]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.free(object, layout) };
    }

    fn committed(&self) -> u64 {
        self.0.counted().committed
    }

    fn refused(&self) -> u64 {
        0
    }

    fn end(&mut self) {}
}

static HEAP: Heap<Bumping> = Heap::new(MmapProvider::new().without_readings());

/// What is kept of what closes empty, with [`super::WITH_WARM_EPOCHS`].
const WARM_BYTES: usize = 8 << 20;

/// With epochs, as the shape says; what is known to live long is in the root epoch.
struct InEpochs {
    local: Local<'static, Bumping>,
    epoch: Epoch,
    refused: u64,
}

impl InEpochs {
    fn new() -> Self {
        let local = HEAP.local();
        let local =
            local.unwrap_or_else(|error| failed(&format!("no local for the heap: {error}")));
        let epoch = HEAP.open_epoch();
        Self {
            local,
            epoch: epoch.unwrap_or_else(|error| failed(&format!("no epoch: {error}"))),
            refused: 0,
        }
    }

    fn advance(&mut self) {
        // Where too much leaked the ring is full, and the epoch goes on.
        let Ok(next) = HEAP.open_epoch() else {
            self.refused += 1;
            return;
        };
        self.leave();
        self.epoch = next;
    }

    fn leave(&mut self) {
        self.local.leave(self.epoch);
        if HEAP.close(self.epoch).is_err() {
            failed("an open epoch was not closed");
        }
    }
}

impl Memory for InEpochs {
    fn begin(&mut self, shape: &Shape, request: usize) {
        let is_over = match shape.epochs {
            Epochs::Request => request > 0,
            Epochs::Batch(count) => request > 0 && request.is_multiple_of(count),
            Epochs::Manual => shape.is_turn(request),
        };
        if is_over {
            self.advance();
        }
    }

    #[inline(always)]
    fn alloc(&mut self, layout: Layout, fate: Fate) -> NonNull<u8> {
        let object = match fate {
            Fate::Pinned => self.local.alloc(layout),
            Fate::Request | Fate::Leaked | Fate::Cached => self.local.alloc_in(self.epoch, layout),
        };
        match object {
            Ok(object) => object,
            Err(_) => failed("ours has no memory"),
        }
    }

    #[inline(always)]
    unsafe fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        if unsafe { self.local.free(object, layout) }.is_err() {
            failed("ours refused a free");
        }
    }

    fn committed(&self) -> u64 {
        HEAP.page_stats().committed
    }

    fn refused(&self) -> u64 {
        self.refused
    }

    fn end(&mut self) {
        self.leave();
    }
}

/// In the child.
pub(super) fn part(contender: &str, shape: &Shape) -> Result<Account> {
    if contender == super::WITH_EPOCHS {
        HEAP.set_policy(Policy::ON_CLOSE);
    }
    if contender == super::WITH_WARM_EPOCHS {
        HEAP.set_policy(Policy::keeping(WARM_BYTES));
    }
    if [super::WITH_EPOCHS, super::WITH_WARM_EPOCHS].contains(&contender) {
        return Ok(run(&mut InEpochs::new(), shape));
    }
    let kind = Kind::named(contender).ok_or_else(|| anyhow!("{contender} is nobody"))?;
    Ok(kind.visit(Shaped(*shape)))
}

struct Shaped(Shape);

impl Visitor for Shaped {
    type Out = Account;

    fn visit<C: Contender>(self, make: fn() -> C) -> Account {
        run(&mut Plain(make()), &self.0)
    }
}

type Objects = Vec<(NonNull<u8>, Layout)>;

/// Room whose pages are there before it is counted what is.
fn room(count: usize) -> Objects {
    let mut objects = vec![(NonNull::dangling(), Layout::new::<u64>()); count];
    objects.clear();
    objects
}

/// Frees all of them.
///
/// # Safety
/// They are live and of this memory.
unsafe fn drain(memory: &mut impl Memory, objects: &mut Objects, live: &mut u64) {
    for (object, layout) in objects.drain(..) {
        // SAFETY: the caller's promise; each is freed once.
        unsafe { memory.free(object, layout) };
        *live -= layout.size() as u64;
    }
}

fn run(memory: &mut impl Memory, shape: &Shape) -> Account {
    let mut waiting: VecDeque<Objects> = VecDeque::with_capacity(shape.lag + 2);
    let mut spare: Vec<Objects> = (0..shape.lag + 2).map(|_| room(Shape::MOST)).collect();
    let mut pinned = room(match shape.pattern {
        Pattern::Pinned => Shape::MOST * shape.requests / 100 + 1,
        _ => 0,
    });
    let mut cache = room(Shape::CACHE);
    let mut looks = vec![
        Look {
            live: 1,
            ..Look::default()
        };
        LOOKS + 2
    ];
    looks.clear();
    let (mut live, mut objects, mut draw) = (0u64, 0u64, 1u64);
    let before = resident();
    let look = |memory: &dyn Fn() -> u64, live| Look {
        resident: resident().saturating_sub(before),
        live,
        committed: memory(),
    };
    let (begin, mut looking) = (Instant::now(), core::time::Duration::ZERO);
    for request in 0..shape.requests {
        memory.begin(shape, request);
        let mut of_request = spare.pop().unwrap_or_default();
        for place in 0..shape.objects(request) {
            draw = draw
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (size, fate) = shape.object(request, place, draw);
            let layout = Layout::from_size_align(size, 8).unwrap_or(Layout::new::<u64>());
            let object = memory.alloc(layout, fate);
            // SAFETY: the object is ours and this long.
            unsafe { object.write_bytes(1, size) };
            match fate {
                Fate::Request => of_request.push((object, layout)),
                Fate::Pinned => pinned.push((object, layout)),
                Fate::Leaked => {}
                Fate::Cached if cache.len() < Shape::CACHE => cache.push((object, layout)),
                Fate::Cached => {
                    let place = &mut cache[(draw >> 33) as usize % Shape::CACHE];
                    let (old, its) = core::mem::replace(place, (object, layout));
                    // SAFETY: what is in the cache is live.
                    unsafe { memory.free(old, its) };
                    live -= its.size() as u64;
                }
            }
            live += size as u64;
            objects += 1;
        }
        waiting.push_back(of_request);
        if waiting.len() > shape.lag {
            let mut oldest = waiting.pop_front().unwrap_or_default();
            // SAFETY: what waits is live.
            unsafe { drain(memory, &mut oldest, &mut live) };
            spare.push(oldest);
        }
        if request * LOOKS / shape.requests != (request + 1) * LOOKS / shape.requests {
            let begin = Instant::now();
            looks.push(look(&|| memory.committed(), live));
            looking += begin.elapsed();
        }
    }
    for mut objects in waiting {
        // SAFETY: what waits is live.
        unsafe { drain(memory, &mut objects, &mut live) };
        spare.push(objects);
    }
    // SAFETY: what is pinned, or in the cache, is live until here.
    unsafe {
        drain(memory, &mut pinned, &mut live);
        drain(memory, &mut cache, &mut live);
    }
    memory.end();
    let elapsed = begin.elapsed() - looking;
    looks.push(look(&|| memory.committed(), live));
    // Until here, so that its memory is not the allocator's gain.
    drop(spare);
    Account {
        ns: elapsed.as_nanos() as f64 / objects.max(1) as f64,
        looks,
        refused: memory.refused(),
    }
}

fn resident() -> u64 {
    Usage::read().map_or(0, |usage| usage.resident_bytes)
}
