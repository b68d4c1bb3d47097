//! Objects by their address alone: for callers that keep no layouts, as those of C do.
//!
//! What an address leads to is found in metadata: the page map's entry of its granule, the slab, and in a checked
//! heap the mark of its slot. Nothing at the address itself is read, and all that is read stays readable, so any bits may
//! be asked for at any time; in a checked heap they may be freed, too.
//!
//! One thing is not found out. Of two threads that free the same object at the same moment both may pass: a mark is read
//! and then written, for an exchange would double the time of each free.

use super::Heap;
use crate::class::{GRANULE, Purpose};
use crate::config::{Config, Table};
use crate::error::FreeError;
use crate::slab::{Key, Slab};
use core::ptr::NonNull;

/// What begins at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A slot of a class.
    Slot(usize),
    /// A single object in a chunk, of so many bytes.
    Single(usize),
    /// A region of its own, of so many bytes.
    Region(usize),
    /// An object in a bump block, of so many bytes.
    Bumped(usize),
}

impl<C: Config> Heap<C> {
    /// How many bytes an object may use, by its address.
    ///
    /// # Errors
    /// If no object of this heap begins there, as far as the heap can tell: a checked one always can, any other can for
    /// what lies outside of its slabs. An object that has a handle is none of these.
    pub fn usable_size(&self, object: NonNull<u8>) -> Result<usize, FreeError> {
        Ok(match self.find(object.addr().get())? {
            Found::Slot(class) => Table::<C>::TABLE.class(class).size(),
            Found::Single(bytes) | Found::Region(bytes) | Found::Bumped(bytes) => bytes,
        })
    }

    /// Frees an object by its address. Freeing with a layout is cheaper.
    ///
    /// # Errors
    /// As for [`Heap::usable_size`]; nothing has changed then.
    ///
    /// # Safety
    /// As for [`Heap::free`], but for the layout: the object is of this heap, and nobody uses it any more. In a checked
    /// heap it need not be; see there.
    pub unsafe fn free_unsized(&self, object: NonNull<u8>) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe { self.try_free_any(object) }.map_err(|error| self.refused_free(error))
    }

    /// # Safety
    /// As for [`Heap::free_unsized`].
    pub(crate) unsafe fn try_free_any(&self, object: NonNull<u8>) -> Result<(), FreeError> {
        // SAFETY: the caller's promise, and the object is what was found.
        unsafe {
            match self.find(object.addr().get())? {
                Found::Slot(class) => {
                    if C::CHECKED {
                        self.check_free(object, class)?;
                    }
                    self.wipe_slot(object, class);
                    self.free_slot_held(object, class)
                }
                Found::Single(_) => self.free_single(object, |_| true),
                Found::Region(bytes) => self.free_region(object, bytes, |_| true),
                Found::Bumped(_) => self
                    .block_at(object.addr().get())
                    .ok_or(FreeError::DoubleFree)
                    .and_then(|block| self.free_bumped(block, object, None)),
            }
        }
    }

    /// What begins at an address.
    pub(crate) fn find(&self, address: usize) -> Result<Found, FreeError> {
        let entry = self.entry(address);
        // SAFETY: the heap outlives the call.
        let Some(slab) = (unsafe { entry.slab() }) else {
            return self.pages.region_at(address).map(Found::Region);
        };
        if let Some(block) = self.block_of(entry) {
            return block.find(address).map(Found::Bumped);
        }
        if entry.class() != usize::from(Key::SINGLE) {
            return self
                .find_slot(slab, entry.class(), address)
                .map(Found::Slot);
        }
        let (seen, body) = slab.seen();
        let class = seen.key().class();
        if class != Key::SINGLE || slab.seen().0 != seen {
            // Freed since the entry was read, and maybe something else by now.
            return Err(FreeError::DoubleFree);
        }
        if body.base.addr() != address {
            return Err(FreeError::Interior);
        }
        Ok(Found::Single(body.granules as usize * GRANULE))
    }

    /// The class of the live slot of `slab` that begins at an address.
    #[inline]
    fn find_slot(&self, slab: &Slab, class: usize, address: usize) -> Result<usize, FreeError> {
        if Table::<C>::TABLE.purpose(class) != Purpose::Plain {
            return Err(FreeError::WrongLayout);
        }
        if C::CHECKED {
            self.check_slot(slab, class, address)?;
        }
        Ok(class)
    }
}
