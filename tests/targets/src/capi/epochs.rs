//! The ring of an allocator, and what is done with its epochs.

use super::{Allocator, call, fits, worked};
use crate::{Bytes, Known};
use core::ptr;
use std::ffi::CString;
use temporal_slab::Label;
use temporal_slab_c_linked::{
    SlabAllocator, SlabError, epoch_advance, epoch_close, epoch_current, slab_epoch_dec_refcount,
    slab_epoch_get_refcount, slab_epoch_inc_refcount, slab_epoch_open, slab_epoch_set_label,
};

/// More epochs than an input opens.
pub(super) const RING: usize = 256;

/// What is at a position.
#[derive(Debug, Clone)]
struct Place {
    /// Counts the epochs that were here.
    era: u64,
    is_open: bool,
    inside: u64,
    label: Label,
}

/// The ring, as it should be.
#[derive(Debug)]
pub(super) struct Ring {
    places: Vec<Option<Place>>,
    current: u32,
}

impl Ring {
    pub(super) fn new() -> Self {
        let mut places = vec![None; RING];
        let label = Label::new("root");
        places[0] = Some(Place {
            era: 1,
            is_open: true,
            inside: 0,
            label,
        });
        Self { places, current: 0 }
    }

    fn place(&self, id: u32) -> Option<&Place> {
        self.places.get(id as usize)?.as_ref()
    }

    pub(super) fn open(&self) -> usize {
        self.places
            .iter()
            .flatten()
            .filter(|place| place.is_open)
            .count()
    }

    pub(super) fn is_open(&self, id: u32) -> bool {
        self.place(id).is_some_and(|place| place.is_open)
    }

    pub(super) fn inside(&self, id: u32) -> u64 {
        self.place(id).map_or(0, |place| place.inside)
    }

    pub(super) fn era(&self, id: u32) -> u64 {
        self.place(id).map_or(0, |place| place.era)
    }

    pub(super) fn current(&self) -> u32 {
        self.current
    }

    /// What is wrong with naming a position, and the label of its epoch.
    pub(super) fn known(&self, id: u32) -> (Vec<SlabError>, &str) {
        match self.place(id) {
            Some(place) => (vec![], place.label.as_str()),
            None => (vec![SlabError::BadEpoch], ""),
        }
    }

    /// What is wrong with naming a position whose epoch has to be open.
    pub(super) fn usable(&self, id: u32) -> Vec<SlabError> {
        match self.place(id) {
            Some(place) if place.is_open => vec![],
            Some(_) => vec![SlabError::ClosedEpoch],
            None => vec![SlabError::BadEpoch],
        }
    }

    /// Notes one who went in, or one who left.
    pub(super) fn count(&mut self, id: u32, change: i64) {
        if let Some(Some(place)) = self.places.get_mut(id as usize) {
            place.inside = place.inside.saturating_add_signed(change);
        }
    }

    pub(super) fn shut(&mut self, id: u32) {
        if let Some(Some(place)) = self.places.get_mut(id as usize) {
            place.is_open = false;
        }
        if self.current == id {
            self.current = 0;
        }
    }
}

/// A position: of those that there were, or any number.
pub(super) fn any(allocator: &Allocator, bytes: &mut Bytes<'_>) -> Known<u32> {
    let number = bytes.arbitrary::<u8>()?;
    Ok(match number {
        0..=95 => allocator.ring.current,
        96..=239 => {
            let known: Vec<u32> = (0..RING as u32)
                .filter(|id| allocator.ring.place(*id).is_some())
                .collect();
            known[usize::from(number) % known.len()]
        }
        240..=247 => RING as u32 + u32::from(number - 240),
        _ => bytes.arbitrary()?,
    })
}

/// Begins an epoch, which is the current one from then on or stands beside it.
pub(super) fn begin(allocator: &mut Allocator, is_current: bool) -> Known<()> {
    // SAFETY: an allocator.
    let (id, error) = call(|| unsafe {
        if is_current {
            epoch_advance(allocator.at)
        } else {
            slab_epoch_open(allocator.at)
        }
    });
    if error != SlabError::None {
        assert_eq!(id, u32::MAX);
        let mut expected = vec![];
        // A record for the epoch needs memory.
        expected.extend(allocator.is_limited.then_some(SlabError::OutOfMemory));
        fits(&expected, error);
        return Ok(());
    }
    assert!(id > 0 && (id as usize) < RING, "{id}");
    assert!(!allocator.ring.is_open(id), "position {id} is open");
    assert_eq!(
        allocator.objects.count_in(id),
        0,
        "position {id} has live objects"
    );
    let old = allocator.ring.current;
    if is_current && old != 0 {
        allocator.ring.shut(old);
    }
    let era = allocator.ring.era(id) + 1;
    allocator.ring.places[id as usize] = Some(Place {
        era,
        is_open: true,
        inside: 0,
        label: Label::new(""),
    });
    if is_current {
        allocator.ring.current = id;
    }
    check_current(allocator);
    Ok(())
}

fn check_current(allocator: &Allocator) {
    // SAFETY: an allocator.
    let (id, error) = call(|| unsafe { epoch_current(allocator.at) });
    assert_eq!((id, error), (allocator.ring.current, SlabError::None));
}

pub(super) fn close(allocator: &mut Allocator, bytes: &mut Bytes<'_>) -> Known<()> {
    let id = any(allocator, bytes)?;
    let expected = if id == 0 {
        vec![SlabError::BadEpoch]
    } else {
        allocator.ring.usable(id)
    };
    // SAFETY: an allocator.
    if worked(&expected, || unsafe { epoch_close(allocator.at, id) }) {
        allocator.ring.shut(id);
    }
    check_current(allocator);
    Ok(())
}

pub(super) fn label(allocator: &mut Allocator, bytes: &mut Bytes<'_>) -> Known<()> {
    let id = any(allocator, bytes)?;
    let len = bytes.int_in_range(0..=40usize)?.min(bytes.len());
    let text: Vec<u8> = bytes
        .bytes(len)?
        .iter()
        .copied()
        .filter(|byte| *byte != 0)
        .collect();
    let text = CString::new(text).expect("there is no zero in it");
    let (expected, _) = allocator.ring.known(id);
    // SAFETY: an allocator and a text.
    if worked(&expected, || unsafe {
        slab_epoch_set_label(allocator.at, id, text.as_ptr())
    }) && let Some(Some(place)) = allocator.ring.places.get_mut(id as usize)
    {
        place.label = Label::new(&text.to_string_lossy());
    }
    Ok(())
}

pub(super) fn count(allocator: &mut Allocator, bytes: &mut Bytes<'_>) -> Known<()> {
    let id = any(allocator, bytes)?;
    let at = allocator.at;
    if bytes.arbitrary()? {
        // SAFETY: an allocator.
        if worked(&allocator.ring.usable(id), || unsafe {
            slab_epoch_inc_refcount(at, id)
        }) {
            allocator.ring.count(id, 1);
        }
    } else {
        let (mut expected, _) = allocator.ring.known(id);
        if expected.is_empty() && allocator.ring.inside(id) == 0 {
            expected.push(SlabError::Misuse);
        }
        // SAFETY: an allocator.
        if worked(&expected, || unsafe { slab_epoch_dec_refcount(at, id) }) {
            allocator.ring.count(id, -1);
        }
    }
    // SAFETY: an allocator.
    let (count, error) = call(|| unsafe { slab_epoch_get_refcount(at, id) });
    fits(&allocator.ring.known(id).0, error);
    assert_eq!(count, allocator.ring.inside(id));
    Ok(())
}

/// These functions without an allocator.
///
/// # Safety
/// `none` is null.
pub(super) unsafe fn nothing(none: *mut SlabAllocator, number: u32, argument: &[SlabError]) {
    let no_epoch = (u32::MAX, SlabError::Argument);
    // SAFETY: all of them take null.
    unsafe {
        assert_eq!(call(|| epoch_current(none)), no_epoch);
        assert_eq!(call(|| epoch_advance(none)), no_epoch);
        assert_eq!(call(|| slab_epoch_open(none)), no_epoch);
        worked(argument, || epoch_close(none, number));
        worked(argument, || slab_epoch_set_label(none, number, ptr::null()));
        worked(argument, || slab_epoch_inc_refcount(none, number));
        worked(argument, || slab_epoch_dec_refcount(none, number));
        assert_eq!(
            call(|| slab_epoch_get_refcount(none, number)),
            (0, SlabError::Argument)
        );
    }
}
