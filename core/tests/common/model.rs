//! A heap beside a model of what it should hold. Every step changes both, and [`World::check`]
//! compares them: the walker's census with the model's sums, every live object with every other, and
//! every byte of every object with what was written to it.

use super::{Rng, is_zero};
use core::alloc::Layout;
use core::ptr::NonNull;
use std::collections::BTreeMap;
use temporal_slab::config::Config;
use temporal_slab::provider::PageProvider;
use temporal_slab::{AllocError, Census, DefaultLock, Heap, Local, Policy, RawHandle};

/// One step. Numbers are reduced to what exists, so every value of every field means something.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    /// Allocates; `local` is a local's number, or the shared path beyond them.
    Alloc {
        local: u8,
        size: u32,
        align: u8,
        zeroed: bool,
        /// It is to have a handle, if a class serves it.
        named: bool,
    },
    /// Frees the `object`th live object.
    Free { local: u8, object: u16 },
    /// Resizes it.
    Resize { local: u8, object: u16, size: u32 },
    /// Flushes a local.
    Flush { local: u8 },
    /// Drops a local and makes a new one in its place.
    Renew { local: u8 },
    /// Gives back what is empty.
    Reclaim,
    /// Changes the policy.
    Policy(Policy),
}

impl Action {
    /// A random step: sizes of all classes and routes, small ones more often.
    pub fn random(rng: &mut Rng) -> Self {
        let local = rng.below(4) as u8;
        let object = rng.next() as u16;
        match rng.below(100) {
            0..46 => Self::Alloc {
                local,
                size: random_size(rng),
                align: [0, 0, 0, 3, 4, 6, 8, 12, 14, 17][rng.below(10)],
                zeroed: rng.below(4) == 0,
                named: rng.below(4) == 0,
            },
            46..88 => Self::Free { local, object },
            88..93 => Self::Resize {
                local,
                object,
                size: random_size(rng),
            },
            93..95 => Self::Flush { local },
            95..96 => Self::Renew { local },
            96..98 => Self::Reclaim,
            _ => Self::Policy(match rng.below(5) {
                0 => Policy::Eager,
                4 => Policy::Warm {
                    bytes: rng.below(200_000),
                },
                1 => Policy::Batched {
                    bytes: rng.below(200_000),
                },
                2 => Policy::OnClose,
                _ => Policy::Never,
            }),
        }
    }
}

fn random_size(rng: &mut Rng) -> u32 {
    let size = match rng.below(20) {
        0..12 => rng.below(800),
        12..17 => rng.below(9000),
        17..19 => rng.below(40_000),
        _ => rng.below(200_000),
    };
    size as u32
}

/// An object that should be live.
#[derive(Debug, Clone, Copy)]
struct Object {
    at: NonNull<u8>,
    layout: Layout,
    pattern: u8,
    /// The distance between bytes that were written.
    grid: usize,
    handle: Option<RawHandle>,
}

/// A heap, its locals, and what should be in them.
#[derive(Debug)]
pub struct World<'h, P: PageProvider, C: Config> {
    pub heap: &'h Heap<P, DefaultLock, C>,
    pub locals: Vec<Local<'h, P, DefaultLock, C>>,
    /// In no order, so that any of them is found at once.
    objects: Vec<Object>,
    /// Their places in `objects`, by address.
    places: BTreeMap<usize, usize>,
    /// Handles whose objects were freed.
    dead: Vec<RawHandle>,
    steps: usize,
}

impl<'h, P: PageProvider, C: Config> World<'h, P, C> {
    pub fn new(heap: &'h Heap<P, DefaultLock, C>, locals: usize) -> Self {
        let locals = (0..locals).map_while(|_| heap.local().ok()).collect();
        Self {
            heap,
            locals,
            objects: Vec::new(),
            places: BTreeMap::new(),
            dead: Vec::new(),
            steps: 0,
        }
    }

    pub fn live(&self) -> usize {
        self.objects.len()
    }

    /// Takes a step. An error leaves the model as it was: the heap must be, too.
    pub fn step(&mut self, action: Action) -> Result<(), AllocError> {
        self.steps += 1;
        match action {
            Action::Alloc {
                local,
                size,
                align,
                zeroed,
                named,
            } => {
                let layout = Layout::from_size_align(size as usize, 1 << align).unwrap();
                if named && self.alloc_named(local, layout)? {
                    return Ok(());
                }
                let at = match (self.locals.get_mut(local as usize), zeroed) {
                    (Some(local), false) => local.alloc(layout),
                    (Some(local), true) => local.alloc_zeroed(layout),
                    (None, false) => self.heap.alloc(layout),
                    (None, true) => self.heap.alloc_zeroed(layout),
                }?;
                if zeroed {
                    // SAFETY: the object is ours and this long.
                    let bytes = unsafe { core::slice::from_raw_parts(at.as_ptr(), layout.size()) };
                    assert!(is_zero(bytes), "zeroed memory is zero");
                }
                self.adopt(at, layout, None);
            }
            Action::Free { local, object } => {
                let Some(object) = self.pick(object) else {
                    return Ok(());
                };
                object.verify();
                if let Some(handle) = object.handle {
                    let freed = match self.locals.get_mut(local as usize) {
                        Some(local) => local.free_raw(handle),
                        None => self.heap.free_raw(handle),
                    };
                    assert_eq!(freed, Ok(()), "{object:?}");
                    self.dead.push(handle);
                    self.forget(object.at);
                    return Ok(());
                }
                // SAFETY: the model says that it is live, with this layout.
                let freed = unsafe {
                    match self.locals.get_mut(local as usize) {
                        Some(local) => local.free(object.at, object.layout),
                        None => self.heap.free(object.at, object.layout),
                    }
                };
                assert_eq!(freed, Ok(()), "{object:?}");
                self.forget(object.at);
            }
            Action::Resize {
                local,
                object,
                size,
            } => {
                let Some(object) = self.pick(object) else {
                    return Ok(());
                };
                if object.handle.is_some() {
                    return Ok(());
                }
                object.verify();
                let new = Layout::from_size_align(size as usize, object.layout.align()).unwrap();
                // SAFETY: as above.
                let at = unsafe {
                    match self.locals.get_mut(local as usize) {
                        Some(local) => local.resize(object.at, object.layout, new),
                        None => self.heap.resize(object.at, object.layout, new),
                    }
                }?;
                let kept = new.size().min(object.layout.size());
                let moved = Object {
                    at,
                    layout: Layout::from_size_align(kept, 1).unwrap(),
                    ..object
                };
                moved.verify();
                self.forget(object.at);
                self.adopt(at, new, None);
            }
            Action::Flush { local } => {
                if let Some(local) = self.locals.get_mut(local as usize) {
                    local.flush();
                }
            }
            Action::Renew { local } => {
                if (local as usize) < self.locals.len() {
                    drop(self.locals.swap_remove(local as usize));
                    self.locals.push(self.heap.local()?);
                }
            }
            Action::Reclaim => self.heap.reclaim(),
            Action::Policy(policy) => self.heap.set_policy(policy),
        }
        Ok(())
    }

    /// Compares the heap with the model.
    pub fn check(&self) -> Census {
        // SAFETY: this world has the only locals, and they are at rest.
        let census =
            unsafe { self.heap.walk() }.unwrap_or_else(|v| panic!("step {}: {v}", self.steps));
        assert_eq!(
            census.live_slots + census.runs + census.regions,
            self.objects.len(),
            "step {}: as many objects as the model has",
            self.steps
        );
        let usable: usize = self.objects.iter().map(|o| self.usable(o)).sum();
        assert_eq!(
            census.live_slot_bytes + census.run_bytes + census.region_bytes,
            usable,
            "step {}: as many bytes as the model has",
            self.steps
        );
        let mut end = 0;
        for (at, place) in &self.places {
            let object = &self.objects[*place];
            assert!(
                *at >= end,
                "step {}: {object:?} overlaps the one before",
                self.steps
            );
            end = at + self.usable(object);
            object.verify();
            if let Some(handle) = object.handle {
                assert_eq!(self.heap.get_raw(handle), Some(object.at));
            }
        }
        for handle in self.dead.iter().rev().take(50) {
            assert_eq!(self.heap.get_raw(*handle), None, "{handle:?} is dead");
        }
        census
    }

    /// Frees everything and lets the locals go: the heap must be empty then.
    pub fn finish(mut self) -> Census {
        while !self.objects.is_empty() {
            let local = (self.objects.len() % 5) as u8;
            self.step(Action::Free { local, object: 0 })
                .expect("a free needs no memory");
        }
        self.locals.clear();
        self.heap.reclaim();
        let census = self.check();
        assert_eq!(census.slabs, 0, "no slab is left: {census:?}");
        census
    }

    /// Allocates an object with a handle; `false` if no class serves it.
    fn alloc_named(&mut self, local: u8, layout: Layout) -> Result<bool, AllocError> {
        let handle = match self.locals.get_mut(local as usize) {
            Some(local) => local.alloc_handle(layout),
            None => self.heap.alloc_handle(layout),
        };
        let handle = match handle {
            Err(AllocError::TooLarge) => return Ok(false),
            other => other?,
        };
        let at = self.heap.get_raw(handle).expect("it was just made");
        self.adopt(at, layout, Some(handle));
        Ok(true)
    }

    fn usable(&self, object: &Object) -> usize {
        // Tags weigh too much beside objects of less than 64 bytes.
        let least = if object.handle.is_some() { 64 } else { 0 };
        let (size, align) = (object.layout.size().max(least), object.layout.align());
        let layout = Layout::from_size_align(size, align).unwrap();
        self.heap.usable_size(layout)
    }

    fn adopt(&mut self, at: NonNull<u8>, layout: Layout, handle: Option<RawHandle>) {
        assert!(
            at.addr().get().is_multiple_of(layout.align()),
            "{layout:?} at {at:?}"
        );
        let grid = if layout.size() <= 1024 { 1 } else { 509 };
        let object = Object {
            at,
            layout,
            pattern: self.steps as u8,
            grid,
            handle,
        };
        object.fill();
        let place = self.objects.len();
        let before = self.places.insert(at.addr().get(), place);
        assert!(before.is_none(), "{at:?} is out twice");
        self.objects.push(object);
    }

    fn pick(&self, number: u16) -> Option<Object> {
        let count = self.objects.len();
        self.objects.get(number as usize % count.max(1)).copied()
    }

    /// Strikes an object out.
    fn forget(&mut self, at: NonNull<u8>) {
        let place = self.places.remove(&at.addr().get());
        let place = place.expect("only live objects are freed");
        self.objects.swap_remove(place);
        if let Some(moved) = self.objects.get(place) {
            self.places.insert(moved.at.addr().get(), place);
        }
    }
}

impl Object {
    /// Where bytes of a large object are written and looked at; of a small one it is all.
    fn probes(&self) -> impl Iterator<Item = usize> {
        (0..self.layout.size()).step_by(self.grid)
    }

    /// What is written to it, over and over.
    fn pattern(&self) -> &'static [u8; 256] {
        &PATTERNS[self.pattern as usize]
    }

    fn fill(&self) {
        if self.grid == 1 {
            let size = self.layout.size();
            for begin in (0..size).step_by(256) {
                let len = (size - begin).min(256);
                // SAFETY: inside the object, which is nobody else's.
                unsafe {
                    let piece = self.at.add(begin).as_ptr();
                    piece.copy_from_nonoverlapping(self.pattern().as_ptr(), len);
                }
            }
            return;
        }
        for index in self.probes() {
            // SAFETY: inside the object.
            unsafe { self.at.add(index).write(self.pattern()[index % 256]) };
        }
    }

    fn verify(&self) {
        if self.grid == 1 {
            // SAFETY: the object is live, this long, and was written.
            let bytes =
                unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.layout.size()) };
            for (number, piece) in bytes.chunks(256).enumerate() {
                let written = &self.pattern()[..piece.len()];
                assert_eq!(piece, written, "piece {number} of {self:?}");
            }
            return;
        }
        for index in self.probes() {
            // SAFETY: inside the object.
            let byte = unsafe { self.at.add(index).read() };
            assert_eq!(
                byte,
                self.pattern()[index % 256],
                "byte {index} of {self:?}"
            );
        }
    }
}

/// What is written to objects: no two patterns agree anywhere. As a table, because whole pieces are compared a thousand
/// times as fast as bytes under Miri.
static PATTERNS: [[u8; 256]; 256] = {
    let mut patterns = [[0; 256]; 256];
    let mut pattern = 0;
    while pattern < 256 {
        let mut index = 0;
        while index < 256 {
            patterns[pattern][index] = (pattern ^ (index * 31)) as u8;
            index += 1;
        }
        pattern += 1;
    }
    patterns
};
