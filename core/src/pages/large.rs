//! Regions of their own, for objects that are larger than a chunk holds.

use super::tree::{Node, Use};
use super::{DepotBlocks, Kind, Pages};
use crate::error::{AllocError, FreeError};
use crate::provider::{Capabilities, PageProvider};
use crate::sync::Ordering;
use core::alloc::Layout;
use core::ptr::NonNull;
use lock_api::RawMutex;

impl<P: PageProvider, R: RawMutex> Pages<P, R> {
    /// A region of `size` bytes, a multiple of the page, for a large object; whether it reads as zero.
    /// `align` is the chunk size or more, so that it begins where no object of a chunk ever is. It
    /// counts as a piece of `depot`, unless `is_open` says that the depot may not grow.
    ///
    /// # Safety
    /// `depot` is a depot of this heap.
    pub(crate) unsafe fn take_region(
        &self,
        depot: *mut DepotBlocks,
        size: usize,
        align: usize,
        is_open: impl Fn() -> bool,
    ) -> Result<(NonNull<u8>, bool), AllocError> {
        let piece = self.take_meta(Kind::Large, Layout::new::<Node>())?;
        let added = self.acquire(size, align).and_then(|region| {
            let is_added = self.add(region, |state| {
                if !is_open() {
                    return false;
                }
                let node: *mut Node = piece.as_ptr().cast();
                // SAFETY: the piece is a node's memory, and the region was checked; the depot is valid.
                unsafe {
                    let purpose = Use::Large {
                        asked: size,
                        depot,
                        is_short: false,
                    };
                    node.write(Node::new(region, purpose));
                    state.tree.insert(node);
                    (*depot).took(0);
                }
                state.resident += region.size;
                true
            })?;
            if !is_added {
                self.release(region);
                return Err(AllocError::EpochClosed);
            }
            Ok(region)
        });
        match added {
            Ok(region) => {
                let zero = self
                    .provider
                    .capabilities()
                    .contains(Capabilities::FRESH_ZERO);
                let _exposed = region.base.as_ptr().expose_provenance();
                Ok((region.base, zero))
            }
            Err(error) => {
                // SAFETY: the piece was not used.
                unsafe { self.put_meta(Kind::Large, piece) };
                Err(error)
            }
        }
    }

    /// Gives the region of a large object of `size` bytes back, and tells which depot it was a piece of. `is_meant` is asked
    /// with whether it is short; `wipe` is called when the region is nobody's any more. On `Err` nothing has changed.
    ///
    /// # Safety
    /// Nobody uses the object.
    pub(crate) unsafe fn put_region(
        &self,
        address: usize,
        size: usize,
        is_meant: impl FnOnce(bool) -> bool,
        wipe: impl FnOnce(NonNull<u8>),
    ) -> Result<*mut DepotBlocks, FreeError> {
        let (region, depot) = self.state.with(|state| {
            let found = state.tree.find(address);
            // SAFETY: what the tree finds is valid under the lock.
            let node = unsafe { found.as_ref() }.ok_or(FreeError::Foreign)?;
            let region = node.region;
            let Use::Large {
                asked,
                depot,
                is_short,
            } = node.purpose
            else {
                return Err(FreeError::Foreign);
            };
            if region.base.addr().get() != address {
                return Err(FreeError::Interior);
            }
            if asked != size || !is_meant(is_short) {
                return Err(FreeError::WrongLayout);
            }
            state.resident -= region.size;
            // SAFETY: the depot is valid for as long as the heap; the node is in the tree, and its piece is of this kind.
            unsafe {
                (*depot).gave(0);
                state.tree.remove(found);
                state
                    .arena
                    .put(Kind::Large, NonNull::new_unchecked(found.cast()));
            }
            Ok((region, depot))
        })?;
        // Of two frees one gets here.
        wipe(region.base);
        self.release(region);
        Ok(depot)
    }

    /// How many bytes the large object was asked to have that begins at an address.
    pub(crate) fn region_at(&self, address: usize) -> Result<usize, FreeError> {
        self.state.with(|state| {
            // SAFETY: what the tree finds is valid under the lock.
            let node = unsafe { state.tree.find(address).as_ref() }.ok_or(FreeError::Foreign)?;
            match node.purpose {
                Use::Large { asked, .. } if node.region.base.addr().get() == address => Ok(asked),
                Use::Large { .. } => Err(FreeError::Interior),
                _ => Err(FreeError::Foreign),
            }
        })
    }

    /// Makes the region of a large object longer or shorter, wherever it then is. On `Err` nothing has
    /// changed: the limit does not allow it, or the provider cannot. Tells which depot it is a piece of.
    ///
    /// # Safety
    /// The object is the caller's, of this heap, at `address` and of `old` bytes, and nobody uses it
    /// meanwhile.
    pub(crate) unsafe fn resize_region(
        &self,
        address: usize,
        old: usize,
        (size, align, is_short): (usize, usize, bool),
    ) -> Result<(NonNull<u8>, *mut DepotBlocks), AllocError> {
        let more = size.saturating_sub(old);
        if more > 0 {
            self.reserve(more)?;
        }
        let give_up = |bytes: usize| {
            self.taken.fetch_sub(bytes, Ordering::Relaxed);
        };
        // Out of the tree while the provider works: nobody else knows the object.
        let out = self.state.with(|state| {
            let found = state.tree.find(address);
            // SAFETY: what the tree finds is valid under the lock.
            let node = unsafe { found.as_ref() }?;
            let (region, purpose) = (node.region, node.purpose);
            let Use::Large {
                asked,
                depot,
                is_short: was_short,
            } = purpose
            else {
                return None;
            };
            if asked != old || region.base.addr().get() != address {
                return None;
            }
            // SAFETY: the node is in the tree.
            unsafe { state.tree.remove(found) };
            state.resident -= region.size;
            Some((found, region, depot, was_short))
        });
        let Some((node, region, depot, was_short)) = out else {
            give_up(more);
            return Err(AllocError::OutOfMemory);
        };
        // SAFETY: the caller's promise; the region is in no bookkeeping now.
        let moved = unsafe { self.provider.remap(region, size, align) };
        debug_assert!(
            moved.is_none_or(|now| {
                now.size >= size && now.base.addr().get().is_multiple_of(align)
            })
        );
        let (now, asked, is_short) =
            moved.map_or((region, old, was_short), |now| (now, size, is_short));
        let purpose = Use::Large {
            asked,
            depot,
            is_short,
        };
        self.state.with(|state| {
            // SAFETY: the node's piece is of this kind, and in no tree.
            unsafe {
                node.write(Node::new(now, purpose));
                state.tree.insert(node);
            }
            state.resident += now.size;
        });
        let is_moved = moved.is_some();
        // `taken` has the old region and `more`; it is to have the new one.
        let counted = region.size + more;
        if now.size <= counted {
            give_up(counted - now.size);
        } else {
            self.taken.fetch_add(now.size - counted, Ordering::Relaxed);
        }
        if !is_moved {
            return Err(AllocError::OutOfMemory);
        }
        self.note_most();
        if now.size < region.size {
            self.returned.fetch_add(1, Ordering::Relaxed);
        }
        let _exposed = now.base.as_ptr().expose_provenance();
        Ok((now.base, depot))
    }
}
