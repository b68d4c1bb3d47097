//! One thread of a soak.

use super::{EPOCHS, HEAP, LATENCY, LEFT, OPERATIONS, Object, Rng, TheLocal, lock};
use anyhow::{Context as _, Result, ensure};
use core::alloc::Layout;
use core::num::NonZeroU32;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use std::time::Instant;
use temporal_slab::{AllocError, EpochError};
use temporal_slab_report::Sampler;

/// Objects that a thread keeps, at most.
const KEPT: usize = 3_000;

/// Objects that nobody has, at about most: threads take more than they leave where there are as many.
const LEFT_MOST: usize = 10_000;

/// One allocation in so many is timed.
const SAMPLED: NonZeroU32 = NonZeroU32::new(64).expect("not zero");

struct Worker {
    rng: Rng,
    local: TheLocal,
    objects: Vec<Object>,
    sampler: Sampler<'static>,
}

/// Does something, until the time is over, with what others left.
pub(super) fn run(rng: Rng, stop: Instant) -> Result<()> {
    let local = loop {
        match HEAP.local() {
            // The next call is another one.
            Err(AllocError::OutOfMemory) => {}
            local => break local?,
        }
    };
    let objects = {
        let mut left = lock(&LEFT);
        let from = left.len().saturating_sub(KEPT);
        left.split_off(from)
    };
    let mut worker = Worker {
        rng,
        local,
        objects,
        sampler: Sampler::new(&LATENCY, SAMPLED),
    };
    let mut count = 0u64;
    while Instant::now() < stop {
        for _ in 0..200 {
            worker.step()?;
            count += 1;
        }
    }
    lock(&LEFT).append(&mut worker.objects);
    OPERATIONS.fetch_add(count, Ordering::Relaxed);
    Ok(())
}

/// What was allocated, or nothing where the heap may say so: the epoch is closed, or there was no memory.
fn or_none<T>(result: Result<T, AllocError>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(AllocError::EpochClosed | AllocError::OutOfMemory) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Worker {
    fn step(&mut self) -> Result<()> {
        match self.rng.below(1000) {
            0..480 if self.objects.len() < KEPT => self.allocate()?,
            480..500 => self.pass(),
            500..530 if !self.objects.is_empty() => self.resize()?,
            530..534 => self.epochs()?,
            534..536 => self.local.flush(),
            _ if !self.objects.is_empty() => {
                let object = self.objects.swap_remove(self.rng.below(self.objects.len()));
                if self.rng.below(6) == 0 {
                    end(object)?;
                } else {
                    // SAFETY: it is live, and freed once.
                    finish(object, |object, layout| unsafe {
                        self.local.free(object, layout)
                    })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn allocate(&mut self) -> Result<()> {
        let align = 1 << [0, 3, 3, 4, 6, 12][self.rng.below(6)];
        let layout = Layout::from_size_align(size(&mut self.rng), align)?;
        let byte = self.rng.below(256) as u8;
        let epoch = {
            let epochs = lock(&EPOCHS);
            let is_in = !epochs.is_empty() && self.rng.below(2) == 0;
            is_in.then(|| epochs[self.rng.below(epochs.len())])
        };
        let kind = self.rng.below(8);
        let local = &mut self.local;
        let got = if kind == 0 && HEAP.class_of(layout).is_some() {
            let handle = or_none(match epoch {
                Some(epoch) => local.alloc_raw_in(epoch, layout),
                None => local.alloc_raw(layout),
            })?;
            let at = |handle| HEAP.get_raw(handle).context("a new handle is refused");
            handle
                .map(|handle| Ok::<_, anyhow::Error>((at(handle)?, Some(handle))))
                .transpose()?
        } else {
            let object = or_none(match (epoch, kind) {
                (Some(epoch), 1) => HEAP.alloc_in(epoch, layout),
                (Some(epoch), _) => local.alloc_in(epoch, layout),
                (None, 1) => HEAP.alloc(layout),
                (None, 2) => zeroed(local, layout)?,
                (None, _) if self.sampler.is_due() => self
                    .sampler
                    .timed(local, layout, |local| local.alloc(layout)),
                (None, _) => local.alloc(layout),
            })?;
            object.map(|object| (object, None))
        };
        let Some((at, handle)) = got else {
            return Ok(());
        };
        ensure!(
            at.addr().get().is_multiple_of(align),
            "an object is not aligned to {align}"
        );
        // SAFETY: the object is ours and this long.
        unsafe { at.write_bytes(byte, layout.size()) };
        self.objects.push(Object {
            at,
            layout,
            byte,
            handle,
        });
        Ok(())
    }

    /// Leaves objects to others, and takes some of theirs.
    fn pass(&mut self) {
        let mut left = lock(&LEFT);
        let most = if left.len() > LEFT_MOST { 0 } else { 60 };
        let count = self.rng.below(most + 1).min(self.objects.len());
        let from = self.objects.len() - count;
        left.extend(self.objects.drain(from..));
        let count = self.rng.below(61).min(left.len());
        // The oldest, so that objects go round.
        self.objects.extend(left.drain(..count));
    }

    fn resize(&mut self) -> Result<()> {
        let number = self.rng.below(self.objects.len());
        let object = &mut self.objects[number];
        if object.handle.is_some() {
            return Ok(());
        }
        let new = Layout::from_size_align(size(&mut self.rng), object.layout.align())?;
        // SAFETY: the object is live and of this layout, and only its new place is used from here on.
        let moved = or_none(unsafe { self.local.resize(object.at, object.layout, new) })?;
        let Some(at) = moved else {
            // It is as it was, which is looked at when it ends.
            return Ok(());
        };
        object.at = at;
        let kept = new.size().min(object.layout.size());
        ensure!(
            is_full_of(object.at, kept, object.byte),
            "a resize lost bytes"
        );
        // SAFETY: the object is ours and this long.
        unsafe { object.at.write_bytes(object.byte, new.size()) };
        object.layout = new;
        Ok(())
    }

    /// Opens one, or closes one.
    fn epochs(&mut self) -> Result<()> {
        let mut epochs = lock(&EPOCHS);
        if epochs.len() < 12 && self.rng.below(2) == 0 {
            match HEAP.open_epoch() {
                Ok(epoch) => epochs.push(epoch),
                // Objects of closed ones live on somewhere, or there was no memory.
                Err(EpochError::RingFull | EpochError::OutOfMemory) => {}
                Err(error) => return Err(error.into()),
            }
        } else if !epochs.is_empty() {
            let number = self.rng.below(epochs.len());
            let epoch = epochs.swap_remove(number);
            drop(epochs);
            if self.rng.below(2) == 0 {
                self.local.leave(epoch);
            }
            HEAP.close(epoch)?;
        }
        Ok(())
    }
}

fn size(rng: &mut Rng) -> usize {
    match rng.below(1000) {
        0..850 => 1 + rng.below(600),
        850..980 => 1 + rng.below(8_000),
        980..999 => 1 + rng.below(100_000),
        _ => 1 + rng.below(3 << 20),
    }
}

fn zeroed(local: &mut TheLocal, layout: Layout) -> Result<Result<NonNull<u8>, AllocError>> {
    let object = local.alloc_zeroed(layout);
    if let Ok(object) = object {
        ensure!(
            is_full_of(object, layout.size(), 0),
            "zeroed memory is not zero"
        );
    }
    Ok(object)
}

fn is_full_of(object: NonNull<u8>, size: usize, byte: u8) -> bool {
    // SAFETY: called with live objects of this size that were written or are zeroed.
    let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), size) };
    bytes.iter().all(|found| *found == byte)
}

/// Ends an object by the shared path.
pub(super) fn end(object: Object) -> Result<()> {
    // SAFETY: it is live, and freed once.
    finish(object, |object, layout| unsafe {
        HEAP.free(object, layout)
    })
}

/// Looks whether an object is as it was left, and ends it.
fn finish(
    object: Object,
    free: impl FnOnce(NonNull<u8>, Layout) -> Result<(), temporal_slab::FreeError>,
) -> Result<()> {
    ensure!(
        is_full_of(object.at, object.layout.size(), object.byte),
        "somebody wrote to {object:?}"
    );
    match object.handle {
        Some(handle) => {
            ensure!(
                HEAP.get_raw(handle) == Some(object.at),
                "a live handle is refused"
            );
            HEAP.free_raw(handle)?;
            ensure!(HEAP.get_raw(handle).is_none(), "a dead handle is accepted");
        }
        None => free(object.at, object.layout)?,
    }
    Ok(())
}
