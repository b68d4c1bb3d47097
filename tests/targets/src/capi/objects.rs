//! Objects by pointer and by handle, and what is no object.

use super::table::Table;
use super::{Allocator, call, epochs, fits, worked};
use crate::{Bytes, Known};
use core::ffi::c_void;
use core::ptr;
use std::collections::BTreeSet;
use temporal_slab_c_linked::{
    SlabAllocator, SlabError, alloc_obj_epoch, free_obj, get_obj, slab_free, slab_malloc_epoch,
    slab_usable_size,
};

/// The largest size that there is memory for.
pub(super) const LARGE: usize = 3 << 20;

/// The largest object with a handle.
const LARGEST_CLASS: usize = 8192;

/// As many objects as there may be at a time.
const MANY: usize = 200;

/// A live object.
#[derive(Debug, Clone, Copy)]
struct Object {
    size: usize,
    epoch: u32,
    /// What its first bytes are.
    mark: u8,
}

/// What is in an allocator.
#[derive(Debug, Default)]
pub(super) struct Objects {
    plain: Table<usize, Object>,
    named: Table<u64, (usize, Object)>,
    /// Pointers and handles that were good.
    gone: Vec<usize>,
    ended: BTreeSet<u64>,
    marks: u8,
}

impl Objects {
    pub(super) fn count(&self) -> usize {
        self.plain.len() + self.named.len()
    }

    fn all(&self) -> impl Iterator<Item = (usize, &Object)> {
        let named = self.named.iter().map(|(_, (at, object))| (*at, object));
        self.plain
            .iter()
            .map(|(at, object)| (*at, object))
            .chain(named)
    }

    pub(super) fn count_in(&self, epoch: u32) -> usize {
        self.all()
            .filter(|(_, object)| object.epoch == epoch)
            .count()
    }

    pub(super) fn bytes(&self) -> usize {
        self.all().map(|(_, object)| object.size).sum()
    }

    /// Fills an object that was just allocated, which must not reach into another.
    fn adopt(&mut self, at: *mut c_void, size: usize, epoch: u32) -> Object {
        self.marks = self.marks.wrapping_add(1);
        let object = Object {
            size,
            epoch,
            mark: self.marks,
        };
        assert_eq!(at.addr() % 16, 0, "{at:?}");
        let end = at.addr() + size.max(1);
        assert!(
            self.all()
                .all(|(other, o)| end <= other || other + o.size.max(1) <= at.addr()),
            "{at:?} overlaps"
        );
        // SAFETY: the object is so long, and nobody else's.
        unsafe { at.cast::<u8>().write_bytes(object.mark, size.min(64)) };
        object
    }

    /// Looks at every object's bytes.
    pub(super) fn check(&self, alloc: *mut SlabAllocator) {
        for (at, object) in self.all() {
            for index in 0..object.size.min(64) {
                // SAFETY: it is live, and so long.
                let byte = unsafe { ptr::with_exposed_provenance::<u8>(at + index).read() };
                assert_eq!(byte, object.mark, "byte {index} of {object:?}");
            }
        }
        for (at, object) in self.plain.iter() {
            let at = ptr::with_exposed_provenance_mut(*at);
            // SAFETY: an allocator.
            let (size, error) = call(|| unsafe { slab_usable_size(alloc, at) });
            assert!(size >= object.size && error == SlabError::None);
        }
        for (handle, (at, _)) in self.named.iter() {
            // SAFETY: an allocator.
            let (found, error) = call(|| unsafe { get_obj(alloc, *handle) });
            assert_eq!((found.addr(), error), (*at, SlabError::None));
        }
    }
}

impl Allocator {
    /// Frees all that is live.
    pub(super) fn empty(&mut self) {
        for at in self.objects.plain.take() {
            // SAFETY: it is live and used no more.
            let ((), error) =
                call(|| unsafe { slab_free(self.at, ptr::with_exposed_provenance_mut(at)) });
            assert_eq!(error, SlabError::None);
        }
        for handle in self.objects.named.take() {
            // SAFETY: as above.
            assert!(worked(&[], || unsafe { free_obj(self.at, handle) }));
        }
    }
}

fn size(bytes: &mut Bytes<'_>) -> Known<usize> {
    Ok(match bytes.int_in_range(0..=15u8)? {
        0..=8 => usize::from(bytes.arbitrary::<u8>()?) * 4,
        9..=12 => usize::from(bytes.arbitrary::<u16>()?),
        13 => usize::from(bytes.arbitrary::<u16>()?) * 32,
        14 => usize::MAX - usize::from(bytes.arbitrary::<u8>()?),
        // More than any machine has.
        _ => bytes.arbitrary::<usize>()? | 1 << 58,
    })
}

pub(super) fn allocate(allocator: &mut Allocator, bytes: &mut Bytes<'_>) -> Known<()> {
    let (epoch, size) = (epochs::any(allocator, bytes)?, size(bytes)?);
    for _ in 0..bytes.int_in_range(1..=20u8)? {
        if allocator.objects.count() >= MANY {
            break;
        }
        let at = allocator.at;
        // SAFETY: an allocator.
        let (object, error) = call(|| unsafe { slab_malloc_epoch(at, size, epoch) });
        assert_eq!(object.is_null(), error != SlabError::None);
        let mut expected = allocator.ring.usable(epoch);
        expected.extend(allocator.shortage(size));
        if error == SlabError::Limit && allocator.is_limited {
            break;
        }
        fits(&expected, error);
        if error != SlabError::None {
            break;
        }
        let made = allocator.objects.adopt(object, size, epoch);
        let address = object.expose_provenance();
        allocator.objects.plain.insert(address, made);
        allocator.objects.gone.retain(|gone| *gone != address);
    }
    Ok(())
}

/// Frees what lives, or what does not: freed before, in the middle, of another allocator, or made up.
pub(super) fn free(
    allocators: &mut [Allocator; 2],
    which: usize,
    bytes: &mut Bytes<'_>,
) -> Known<()> {
    let (way, number) = (
        bytes.int_in_range(0..=7u8)?,
        usize::from(bytes.arbitrary::<u8>()?),
    );
    let nth = |objects: &Objects| objects.plain.nth(number);
    let address = match way {
        0..=3 => nth(&allocators[which].objects),
        4 => allocators[which]
            .objects
            .gone
            .get(number % allocators[which].objects.gone.len().max(1))
            .copied(),
        5 => nth(&allocators[which].objects).map(|at| at + 1 + number),
        6 => nth(&allocators[1 - which].objects),
        _ => match allocators[which].objects.named.iter().nth(number) {
            Some((_, (at, _))) if number % 2 == 0 => Some(*at),
            _ => Some(bytes.arbitrary::<usize>()?),
        },
    };
    let Some(address) = address else {
        return Ok(());
    };
    let allocator = &mut allocators[which];
    let object: *mut c_void = ptr::with_exposed_provenance_mut(address);
    let is_live = allocator.objects.plain.get(address).is_some();
    // SAFETY: an allocator; any pointer may be asked for.
    let (usable, why) = call(|| unsafe { slab_usable_size(allocator.at, object) });
    assert_eq!(usable > 0, is_live, "{object:?}");
    // SAFETY: as above; if it is live nobody uses it any more.
    let ((), error) = call(|| unsafe { slab_free(allocator.at, object) });
    if is_live || address == 0 {
        assert_eq!(error, SlabError::None, "{object:?}");
        allocator.objects.plain.remove(address);
        allocator.objects.gone.push(address);
    } else {
        fits(&[SlabError::BadPointer, SlabError::DoubleFree], error);
        assert_eq!(error, why, "both look it up");
    }
    Ok(())
}

/// Allocates an object with a handle.
pub(super) fn name(allocator: &mut Allocator, bytes: &mut Bytes<'_>) -> Known<()> {
    let (epoch, size) = (epochs::any(allocator, bytes)?, size(bytes)? as u32);
    let mut handle = 1;
    let at = allocator.at;
    // SAFETY: an allocator, and a place for a handle.
    let (object, error) = call(|| unsafe { alloc_obj_epoch(at, size, epoch, &raw mut handle) });
    assert_eq!(object.is_null(), error != SlabError::None);
    assert_eq!(handle == 0, object.is_null());
    let mut expected = allocator.ring.usable(epoch);
    if size as usize > LARGEST_CLASS {
        expected.push(SlabError::Size);
    }
    if error == SlabError::Limit && allocator.is_limited {
        return Ok(());
    }
    fits(&expected, error);
    if error != SlabError::None || allocator.objects.count() >= MANY {
        if error == SlabError::None {
            // SAFETY: it is live and not used.
            assert!(worked(&[], || unsafe { free_obj(at, handle) }));
        }
        return Ok(());
    }
    let made = allocator.objects.adopt(object, size as usize, epoch);
    let address = object.expose_provenance();
    allocator.objects.gone.retain(|gone| *gone != address);
    assert!(
        !allocator.objects.ended.contains(&handle),
        "{handle:#x} was another's"
    );
    allocator.objects.named.insert(handle, (address, made));
    Ok(())
}

/// Ends the object of a handle: one that lives, or that is stale, foreign, a few bits off, or made up.
pub(super) fn end(
    allocators: &mut [Allocator; 2],
    which: usize,
    bytes: &mut Bytes<'_>,
) -> Known<()> {
    let (way, number) = (
        bytes.int_in_range(0..=7u8)?,
        usize::from(bytes.arbitrary::<u8>()?),
    );
    let nth = |objects: &Objects| objects.named.nth(number);
    let handle = match way {
        0..=3 => nth(&allocators[which].objects),
        4 => allocators[which].objects.ended.iter().nth(number).copied(),
        5 => nth(&allocators[which].objects).map(|handle| handle ^ 1 << (number % 64)),
        6 => nth(&allocators[1 - which].objects),
        _ => Some(bytes.arbitrary()?),
    };
    let Some(handle) = handle else { return Ok(()) };
    let allocator = &mut allocators[which];
    let at = allocator.at;
    let known = allocator.objects.named.get(handle).map(|(at, _)| *at);
    let expected: &[SlabError] = if known.is_some() {
        &[]
    } else {
        &[SlabError::BadHandle]
    };
    // SAFETY: an allocator; any number may be asked for.
    let (found, error) = call(|| unsafe { get_obj(at, handle) });
    assert_eq!(found.addr(), known.unwrap_or(0), "{handle:#x}");
    fits(expected, error);
    // SAFETY: as above; if it is live nobody uses it any more.
    if worked(expected, || unsafe { free_obj(at, handle) }) {
        allocator.objects.named.remove(handle);
        allocator.objects.ended.insert(handle);
    }
    Ok(())
}

/// These functions without an allocator.
///
/// # Safety
/// `none` is null.
pub(super) unsafe fn nothing(
    none: *mut SlabAllocator,
    number: u32,
    size: usize,
    refused: &dyn Fn(&dyn Fn() -> *mut c_void),
) {
    let mut handle = 1;
    let out = &raw mut handle;
    // SAFETY: all of them take null, and no object is at `none`'s.
    unsafe {
        refused(&|| slab_malloc_epoch(none, size, number));
        refused(&|| alloc_obj_epoch(none, number, number, ptr::null_mut()));
        refused(&|| alloc_obj_epoch(none, number, number, out));
        refused(&|| get_obj(none, size as u64));
        worked(&[SlabError::Argument], || free_obj(none, size as u64));
        let made_up = ptr::with_exposed_provenance_mut(size);
        assert_eq!(call(|| slab_free(none, made_up)).1, SlabError::Argument);
        assert_eq!(
            call(|| slab_usable_size(none, made_up)),
            (0, SlabError::Argument)
        );
    }
    assert_eq!(handle, 0, "what failed gives no handle");
}
