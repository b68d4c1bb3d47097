//! What lies on the heap's public face: adapters for collections, reports, figures.

use super::World;
use super::filled::{Filled, is_zero};
use crate::figures::{agree, only_grows};
use allocator_api2::alloc::Allocator;
use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ptr::NonNull;
use temporal_slab::adapter::{Global, LocalAllocator, LockedLocal, SharedOnly};
use temporal_slab::config::Config;
use temporal_slab::{AllocError, Heap};
use temporal_slab_report::Report;

/// Allocates, grows and shrinks through an allocator, and leaves nothing behind; `false` if it was refused.
fn through(allocator: &impl Allocator, size: u16, mut between: impl FnMut()) -> bool {
    let size = usize::from(size);
    let [first, more, less] = [size, size * 3 + 40, size / 2]
        .map(|size| Layout::from_size_align(size, 8).expect("it is small"));
    let mut step = |made: Result<NonNull<[u8]>, _>| {
        between();
        made.ok().map(NonNull::cast::<u8>)
    };
    let Some(zeroed) = step(allocator.allocate_zeroed(more)) else {
        return false;
    };
    is_zero(zeroed, more);
    let kept = Filled::new(zeroed, more, 7);
    let mut now = (None, first);
    // SAFETY: each is what the call before gave, with its layout, and all are given back.
    unsafe {
        if let Some(at) = step(allocator.allocate(first)) {
            let filled = Filled::new(at, first, 9);
            now = (Some(at), first);
            if let Some(at) = step(allocator.grow(at, first, more)) {
                filled.moved(at, more.size()).verify();
                let filled = Filled::new(at, more, 11);
                now = (Some(at), more);
                if let Some(at) = step(allocator.shrink(at, more, less)) {
                    filled.moved(at, less.size()).verify();
                    now = (Some(at), less);
                }
            }
        }
        if let (Some(at), layout) = now {
            allocator.deallocate(at, layout);
        }
        kept.verify();
        allocator.deallocate(zeroed, more);
    }
    now.1 == less
}

/// The same through what serves as a program's allocator; `false` if it was refused.
pub fn through_global<C: Config<Provider: Sync, Lock: Sync> + 'static>(
    heap: &Heap<C>,
    size: u16,
) -> bool {
    // SAFETY: neither of the two that get it, nor the local of one of them, is there when this ends.
    let heap: &'static Heap<C> = unsafe { &*core::ptr::from_ref(heap) };
    let (size, old) = (usize::from(size) * 2 + 9, usize::from(size) + 1);
    let layout = Layout::from_size_align(old, 16).expect("it is small");
    let work = |global: &dyn GlobalAlloc| {
        // SAFETY: each is what the call before gave, with its layout, and none is used any more.
        unsafe {
            let Some(at) = NonNull::new(global.alloc_zeroed(layout)) else {
                return false;
            };
            is_zero(at, layout);
            let filled = Filled::new(at, layout, 13);
            let (at, layout) = match NonNull::new(global.realloc(at.as_ptr(), layout, size)) {
                Some(at) => (at, Layout::from_size_align_unchecked(size, 16)),
                None => (at, layout),
            };
            filled.moved(at, size).verify();
            global.dealloc(at.as_ptr(), layout);
            layout.size() == size
        }
    };
    let with_local = work(&Global::new(heap, LockedLocal::new()));
    work(&Global::new(heap, SharedOnly)) && with_local
}

impl<C: Config> World<'_, C> {
    pub(super) fn adapt(&mut self, way: u8, epoch: u8, size: u16) -> Result<(), AllocError> {
        let (heap, named) = (self.heap, self.named(epoch));
        let mut is_closed = false;
        let is_served = match (way % 5, named) {
            (0, _) => through(&heap, size, || {}),
            (1, None) => match heap.local() {
                Ok(local) => through(&&LocalAllocator::new(local), size, || {}),
                Err(_) => false,
            },
            (1 | 2, Some(epoch)) => match heap.local() {
                Ok(local) => {
                    is_closed = !self.is_open(epoch);
                    let allocator = LocalAllocator::new(local);
                    let is_served = through(&allocator.in_epoch(epoch), size, || {});
                    allocator.leave(epoch);
                    drop(allocator.into_inner());
                    is_served
                }
                Err(_) => false,
            },
            (3, _) => self
                .with_scope(way / 5, |scope, note| through(&scope, size, note))
                .unwrap_or(true),
            _ => self
                .global
                .is_none_or(|through_global| through_global(heap, size)),
        };
        if is_served || is_closed {
            assert!(!(is_served && is_closed), "{named:?} is closed");
            return Ok(());
        }
        assert!(self.may_lack(AllocError::OutOfMemory) || self.may_lack(AllocError::Limit));
        Err(AllocError::OutOfMemory)
    }

    /// Compares all figures with the walker's and the model's.
    pub(super) fn stats(&mut self) {
        let now = agree(self.heap);
        if let Some(before) = &self.figures {
            only_grows(before, &now);
        }
        assert_eq!(now.live_objects(), self.live() as u64);
        assert_eq!(now.locals.locals, self.locals.len() as u64);
        let stats = self.locals.iter().map(|local| local.stats());
        let held: u64 = stats.map(|local| local.held_bytes).sum();
        // And blocks in which nothing lives, of locals.
        let blocks = now.residency.held - held;
        assert!(
            blocks == 0 || C::BUMPS && blocks <= now.blocks.bytes,
            "held is what the locals say"
        );
        self.check_epoch_figures();
        self.figures = Some(now);
    }

    /// Writes a report to nowhere.
    pub(super) fn report(&self, kind: u8) {
        struct Nowhere(usize);
        impl fmt::Write for Nowhere {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0 += text.len();
                Ok(())
            }
        }
        let (report, mut to) = (Report::new(self.heap), Nowhere(0));
        let written = match kind % 4 {
            0 => report.json(&mut to),
            1 => report.prometheus(&mut to),
            2 => report.text(&mut to),
            _ => report.findings(&mut to),
        };
        assert!(written.is_ok() && to.0 > 0);
    }
}
