//! Objects that are known by their pointers or by raw handles.

use super::filled::{Filled, is_zero};
use super::{Foreseen, World};
use crate::action::HUGE;
use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::config::Config;
use temporal_slab::{AllocError, Epoch, RawHandle};
use temporal_slab_report::{Latency, Sampler};

/// An object that should be live.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object {
    pub(super) bytes: Filled,
    pub(super) handle: Option<RawHandle>,
    /// Its epoch.
    pub(super) epoch: Epoch,
}

impl Object {
    pub(super) fn address(&self) -> usize {
        self.bytes.at.addr().get()
    }
}

/// The layout that an action means: alignments that a size is too large for become smaller.
pub(super) fn layout(size: u32, align: u8) -> Layout {
    if size >= HUGE {
        let size = isize::MAX as usize - ((u32::MAX - size) as usize) * 97;
        return Layout::from_size_align(size, 1).expect("as large as they come");
    }
    Layout::from_size_align(size as usize, 1 << align).expect("sizes are small")
}

impl<C: Config> World<'_, C> {
    pub(super) fn alloc(
        &mut self,
        local: u8,
        epoch: Option<Epoch>,
        layout: Layout,
        zeroed: bool,
    ) -> Result<(), AllocError> {
        let heap = self.heap;
        let made = match (self.locals.get_mut(local as usize), epoch, zeroed) {
            (Some(local), None, false) => local.alloc(layout),
            (Some(local), None, true) => local.alloc_zeroed(layout),
            (Some(local), Some(epoch), false) => local.alloc_in(epoch, layout),
            (None, None, false) => heap.alloc(layout),
            (None, None, true) => heap.alloc_zeroed(layout),
            (None, Some(epoch), false) => heap.alloc_in(epoch, layout),
            (_, Some(epoch), true) => heap.alloc_zeroed_in(epoch, layout),
        };
        let foreseen = self.foresee(epoch, layout, false);
        let Some(at) = self.settle(made, &foreseen)? else {
            return Ok(());
        };
        if zeroed {
            is_zero(at, layout);
        }
        self.adopt(at, layout, None, epoch);
        Ok(())
    }

    /// Allocates an object with a handle; `false` if no class serves it.
    pub(super) fn alloc_named(
        &mut self,
        local: u8,
        epoch: Option<Epoch>,
        layout: Layout,
    ) -> Result<bool, AllocError> {
        let heap = self.heap;
        let handle = match (self.locals.get_mut(local as usize), epoch) {
            (Some(local), None) => local.alloc_raw(layout),
            (Some(local), Some(epoch)) => local.alloc_raw_in(epoch, layout),
            (None, None) => heap.alloc_raw(layout),
            (None, Some(epoch)) => heap.alloc_raw_in(epoch, layout),
        };
        let foreseen = self.foresee(epoch, layout, true);
        let is_too_large = handle == Err(AllocError::TooLarge);
        let Some(handle) = self.settle(handle, &foreseen)? else {
            return Ok(!is_too_large);
        };
        let at = heap.get_raw(handle).expect("it was just made");
        self.adopt(at, layout, Some(handle), epoch);
        Ok(true)
    }

    pub(super) fn batch(
        &mut self,
        local: u8,
        epoch: Option<Epoch>,
        size: u16,
        count: u8,
    ) -> Result<(), AllocError> {
        let layout = layout(size.into(), 3);
        for _ in 0..if cfg!(miri) { count % 4 } else { count % 80 } {
            self.alloc(local, epoch, layout, false)?;
        }
        Ok(())
    }

    pub(super) fn sampled(&mut self, local: u8, size: u16) -> Result<(), AllocError> {
        let layout = layout(size.into(), 3);
        let Some(local) = self.locals.get_mut(local as usize) else {
            return Ok(());
        };
        let latency = Latency::new();
        let made = Sampler::new(&latency, core::num::NonZeroU32::MIN).alloc(local, layout);
        let foreseen = self.foresee(None, layout, false);
        if let Some(at) = self.settle(made, &foreseen)? {
            self.adopt(at, layout, None, None);
        }
        Ok(())
    }

    pub(super) fn free(&mut self, local: u8, object: Object) {
        object.bytes.verify();
        let at = object.bytes.at;
        if let Some(handle) = object.handle {
            let freed = match self.locals.get_mut(local as usize) {
                Some(local) => local.free_raw(handle),
                None => self.heap.free_raw(handle),
            };
            assert_eq!(freed, Ok(()), "{object:?}");
            self.dead.push(handle);
        } else {
            // SAFETY: the model says that it is live, with this layout.
            let freed = unsafe {
                match self.locals.get_mut(local as usize) {
                    Some(local) => local.free(at, object.bytes.layout),
                    None => self.heap.free(at, object.bytes.layout),
                }
            };
            assert_eq!(freed, Ok(()), "{object:?}");
            self.gone.push((at, object.bytes.layout));
        }
        self.objects.remove(&object);
    }

    pub(super) fn free_unsized(&mut self, local: u8, object: Object) {
        if object.handle.is_some() {
            return self.free(local, object);
        }
        object.bytes.verify();
        let at = object.bytes.at;
        let usable = self.usable(&object);
        let local = self.locals.get_mut(local as usize);
        // SAFETY: the model says that it is live.
        let (size, freed) = unsafe {
            match local {
                Some(local) => (local.usable_size(at), local.free_unsized(at)),
                None => (self.heap.usable_size(at), self.heap.free_unsized(at)),
            }
        };
        assert_eq!((size, freed), (Ok(usable), Ok(())), "{object:?}");
        self.gone.push((at, object.bytes.layout));
        self.objects.remove(&object);
    }

    pub(super) fn free_many(&mut self, local: u8, object: u16, count: u8) {
        let from = object as usize % self.objects.len().max(1);
        let many: Vec<Object> = self
            .objects
            .iter()
            .skip(from)
            .take(count.into())
            .copied()
            .collect();
        for object in many {
            self.free(local, object);
        }
    }

    pub(super) fn resize(
        &mut self,
        local: u8,
        object: Object,
        size: u32,
    ) -> Result<(), AllocError> {
        if object.handle.is_some() {
            return Ok(());
        }
        object.bytes.verify();
        let (at, old) = (object.bytes.at, object.bytes.layout);
        let new = layout(size, 0).align_to(old.align());
        let Ok(new) = new else { return Ok(()) };
        let stays = self.heap.resize_in_place(at, old, new);
        // By a local it moves within its epoch, from where it is known to be of it.
        let grows_in = self.heap.epoch_to_grow_in(at);
        assert!(
            grows_in.is_none_or(|epoch| epoch == object.epoch && self.is_open(epoch)),
            "an object of {:?} would grow in {grows_in:?}",
            object.epoch
        );
        let keeps = grows_in.is_some() && usize::from(local) < self.locals.len();
        let moves = self.control.map_or(0, |control| control.moves());
        // SAFETY: the model says that it is live, with this layout.
        let moved = unsafe {
            match self.locals.get_mut(local as usize) {
                Some(local) => local.resize(at, old, new),
                None => self.heap.resize(at, old, new),
            }
        };
        let foreseen = self.foresee(None, new, false);
        let Some(moved) = self.settle(moved, &foreseen)? else {
            return Ok(());
        };
        assert!(!stays || moved == at, "it fits where it is");
        object.bytes.moved(moved, new.size()).verify();
        self.objects.remove(&object);
        // What was moved by the provider stays in its epoch, and so does what was not moved.
        let stays = stays
            || keeps
            || moved == at
            || self.control.map_or(0, |control| control.moves()) > moves;
        let epoch = if stays { Some(object.epoch) } else { None };
        self.adopt(moved, new, None, epoch);
        Ok(())
    }

    /// What is wrong with an allocation, as far as that can be told beforehand.
    pub(super) fn foresee(&self, epoch: Option<Epoch>, layout: Layout, named: bool) -> Foreseen {
        let mut foreseen = Foreseen::default();
        if epoch.is_some_and(|epoch| !self.is_open(epoch)) {
            foreseen.must(AllocError::EpochClosed);
        }
        if layout.size() > isize::MAX as usize / 2 {
            foreseen.must(AllocError::TooLarge);
            foreseen.may(AllocError::OutOfMemory);
            foreseen.may(AllocError::Limit);
        }
        if named {
            let with_handles = C::SIZES.iter().filter(|size| **size <= 8192);
            let largest = with_handles.max().copied().unwrap_or(0);
            let is_served = layout.size().max(64) <= largest && layout.align() <= 4096;
            if !is_served {
                foreseen.must(AllocError::TooLarge);
            } else if layout.align() > 64 || self.heap.class_of(layout).is_none() {
                // No class may be aligned as well.
                foreseen.may(AllocError::TooLarge);
            }
            if C::HANDLE_IDS_LOG2 < 22 {
                foreseen.may(AllocError::HandlesExhausted);
            }
        }
        foreseen
    }

    /// Takes a new object into the model, which must not know it yet.
    pub(super) fn adopt(
        &mut self,
        at: NonNull<u8>,
        layout: Layout,
        handle: Option<RawHandle>,
        epoch: Option<Epoch>,
    ) {
        let bytes = Filled::new(at, layout, self.steps as u8);
        let epoch = epoch.unwrap_or_else(|| self.root());
        if let Some(handle) = handle {
            assert!(!self.dead.contains(&handle), "{handle:?} was another's");
        }
        let object = Object {
            bytes,
            handle,
            epoch,
        };
        self.objects.insert(object);
    }

    pub(super) fn usable(&self, object: &Object) -> usize {
        // In a block it is as long as it was asked for, in a slab as its class.
        if C::BUMPS && object.handle.is_none() {
            let usable = self.heap.usable_size(object.bytes.at);
            return usable.expect("it lives");
        }
        self.usable_of(object.bytes.layout, object.handle.is_some())
    }

    /// How many bytes an object of this layout has, in no bump block.
    pub(super) fn usable_of(&self, layout: Layout, named: bool) -> usize {
        // Tags weigh too much beside objects of less than 64 bytes.
        let least = if named { 64 } else { 0 };
        let size = layout.size().max(least);
        let layout = Layout::from_size_align(size, layout.align()).expect("it is small");
        match self.heap.class_of(layout) {
            Some(class) => C::SIZES[class],
            None => self.heap.good_size(layout),
        }
    }

    pub(super) fn pick(&self, number: u16) -> Option<Object> {
        let count = self.objects.len();
        let number = number as usize % count.max(1);
        self.objects.iter().nth(number).copied()
    }
}
