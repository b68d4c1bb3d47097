//! Frees of what is no live object, or not in that way. A checked heap refuses all of them and is as it was.

use super::World;
use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::config::Config;
use temporal_slab::{FreeError, RawHandle};

/// From here on an object is freed by its address alone.
const BY_ADDRESS: u8 = 128;

impl<C: Config> World<'_, C> {
    pub(super) fn misuse(&mut self, local: u8, number: u16, how: u8) {
        if !C::CHECKED {
            return;
        }
        let object = self.pick(number);
        let nearby = usize::from(how) * 7 + 1;
        match (how % 6, object) {
            // Freed before.
            (0, _) => {
                let count = self.gone.len().max(1);
                if let Some((at, layout)) = self.gone.get(number as usize % count).copied()
                    && !self.may_be_live(at, layout, how)
                {
                    self.refused(local, at, layout, how);
                }
            }
            // In the middle.
            (1, Some(object)) if object.handle.is_none() => {
                let (at, layout) = (object.bytes.at, object.bytes.layout);
                let inside = nearby % self.usable(&object);
                if inside > 0 {
                    // SAFETY: inside the object.
                    let why = self.refused(local, unsafe { at.add(inside) }, layout, how);
                    let is_slot = self.heap.class_of(layout).is_some();
                    let fits = [FreeError::Interior, FreeError::Foreign];
                    assert!(
                        fits.contains(&why) && (!is_slot || why == FreeError::Interior),
                        "{why:?}"
                    );
                }
            }
            // As another size.
            (2, Some(object)) if object.handle.is_none() => {
                let old = object.bytes.layout;
                let other = Layout::from_size_align(old.size() / 2 + nearby * 9, old.align());
                let other = other.expect("it is small");
                if !self.heap.resize_in_place(object.bytes.at, old, other) {
                    self.refused_by_layout(local, object.bytes.at, other);
                }
            }
            // Known by a handle.
            (3, Some(object)) if object.handle.is_some() => {
                let why = self.refused(local, object.bytes.at, object.bytes.layout, how);
                assert_eq!(why, FreeError::WrongLayout);
            }
            // Not of this heap.
            (4, _) => {
                let mut elsewhere = [0u64; 8];
                let at = NonNull::from(&mut elsewhere).cast();
                let layout = Layout::from_size_align(nearby * 300, 8).expect("it is small");
                assert_eq!(self.refused(local, at, layout, how), FreeError::Foreign);
            }
            // Nowhere.
            (5, _) => {
                let places = [1, 4096, usize::MAX, usize::MAX / 2 + 1, 1 << 20];
                let at = places[nearby % places.len()];
                let at = core::ptr::without_provenance_mut(at);
                let at = NonNull::new(at).expect("none of these is null");
                let why = self.refused(local, at, Layout::new::<u64>(), how);
                assert_eq!(why, FreeError::Foreign);
            }
            _ => {}
        }
    }

    /// Has it refused by every way of freeing, and gives the reason.
    fn refused(&mut self, local: u8, at: NonNull<u8>, layout: Layout, how: u8) -> FreeError {
        if how < BY_ADDRESS {
            return self.refused_by_layout(local, at, layout);
        }
        // SAFETY: a checked heap refuses what is no object.
        let (size, freed) = unsafe {
            match self.locals.get_mut(local as usize) {
                Some(local) => (local.usable_size(at), local.free_unsized(at)),
                None => (self.heap.usable_size(at), self.heap.free_unsized(at)),
            }
        };
        let why = freed.expect_err("it is no object");
        assert_eq!(size, Err(why), "{at:?}");
        why
    }

    fn refused_by_layout(&mut self, local: u8, at: NonNull<u8>, layout: Layout) -> FreeError {
        // SAFETY: as above.
        let freed = unsafe {
            match self.locals.get_mut(local as usize) {
                Some(local) => local.free(at, layout),
                None => self.heap.free(at, layout),
            }
        };
        freed.expect_err("it is no object of this layout")
    }

    /// Whether something else may live where an object was.
    fn may_be_live(&self, at: NonNull<u8>, layout: Layout, how: u8) -> bool {
        let address = at.addr().get();
        let before = self.objects.before(address);
        let is_known = before.is_some_and(|(from, object)| address - from < self.usable(object));
        // Where the blocks of scopes lie is not known, but how large they are.
        let is_large = how >= BY_ADDRESS || self.usable_of(layout, false) >= 4096;
        is_known || (is_large && !self.scopes.is_empty())
    }

    /// Looks up bits that nearly are a known handle's, and frees what they name.
    pub(super) fn forge(&mut self, local: u8, number: u16, flips: u64) {
        let Some(near) = self.known_handle(number) else {
            return;
        };
        let handle = RawHandle::from_bits(near.bits() ^ flips);
        let object = self
            .objects
            .iter()
            .find(|object| object.handle == Some(handle));
        let object = object.copied();
        // The neighbouring id may be that of a slab of a scope.
        let in_scope = self.named_in_scope(handle);
        let at = object.map_or(in_scope, |object| Some(object.bytes.at));
        let found = self.heap.get_raw(handle);
        let is_value = self.is_value(handle);
        assert!(is_value || found == at, "{handle:?}: {found:?} for {at:?}");
        assert_eq!(self.heap.try_get_raw(handle).ok(), found, "{handle:?}");
        if let Some(object) = object {
            self.free(local, object);
        } else if found.is_none() {
            let freed = match self.locals.get_mut(local as usize) {
                Some(local) => local.free_raw(handle),
                None => self.heap.free_raw(handle),
            };
            assert_eq!(
                freed,
                Err(self.heap.try_get_raw(handle).expect_err("it is none"))
            );
        }
    }
}
