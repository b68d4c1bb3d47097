//! Objects by their address alone: for callers that keep no layouts, as those of C do.
//!
//! What an address leads to is found in metadata: the chunk that holds it, the slab of its granule, and in a checked
//! heap the mark of its slot. Nothing at the address itself is read, so in a checked heap any bits may be asked for.
//!
//! Two things are not found out. Of two threads that free the same object at the same moment both may pass: a mark is read
//! and then written, for an exchange would double the time of each free. And an address in a chunk that another thread
//! gives back whole at the same moment is looked up in a map that may be gone: only what is live keeps its chunk.

use super::Heap;
use crate::class::Purpose;
use crate::config::{Config, Table};
use crate::error::FreeError;
use crate::provider::PageProvider;
use crate::slab::{Key, Slab};
use core::ptr::NonNull;
use lock_api::RawMutex;

/// What begins at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A slot of a class.
    Slot(usize),
    /// A single object in a chunk, of so many bytes.
    Single(usize),
    /// A region of its own, of so many bytes.
    Region(usize),
}

impl<P: PageProvider, R: RawMutex, C: Config> Heap<P, R, C> {
    /// How many bytes an object may use, by its address.
    ///
    /// # Errors
    /// If no object of this heap begins there, as far as the heap can tell: a checked one always can, any other can for
    /// what lies outside of its slabs. An object that has a handle is none of these.
    pub fn size_of(&self, object: NonNull<u8>) -> Result<usize, FreeError> {
        self.size_of_known(object, self.pages.holds_chunk(object.addr().get()))
    }

    /// As [`Heap::size_of`], where `is_ours` says truly whether the address is in a chunk of this heap.
    pub(crate) fn size_of_known(
        &self,
        object: NonNull<u8>,
        is_ours: bool,
    ) -> Result<usize, FreeError> {
        Ok(match self.find(object.addr().get(), is_ours)? {
            Found::Slot(class) => Table::<C>::TABLE.class(class).size(),
            Found::Single(bytes) | Found::Region(bytes) => bytes,
        })
    }

    /// The slab at an address and its class, if its objects are known by their addresses. `is_ours` says truly whether
    /// the address is in a chunk of this heap.
    #[inline]
    pub(crate) fn plain_slab_at(&self, address: usize, is_ours: bool) -> Option<(&Slab, usize)> {
        if !is_ours {
            return None;
        }
        // SAFETY: the chunk is ours; entries are null or type-stable slabs.
        let slab = unsafe { self.map_of(address).slab_checked(address).as_ref() }?;
        let class = usize::from(slab.identity().key().class());
        (class < Table::<C>::TABLE.len()).then_some((slab, class))
    }

    /// Frees an object by its address. Freeing with a layout is cheaper.
    ///
    /// # Errors
    /// As for [`Heap::size_of`]; nothing has changed then.
    ///
    /// # Safety
    /// As for [`Heap::free`], but for the layout: the object is of this heap, and nobody uses it any more. In a checked
    /// heap it need not be; see there.
    pub unsafe fn free_any(&self, object: NonNull<u8>) -> Result<(), FreeError> {
        let address = object.addr().get();
        let is_ours = self.pages.holds_chunk(address);
        // SAFETY: the caller's promise; `is_ours` was looked up for this very address.
        unsafe { self.try_free_any(object, is_ours) }.map_err(|error| self.refused_free(error))
    }

    /// # Safety
    /// As for [`Heap::free_any`], and `is_ours` says truly whether the address is in a chunk of this heap.
    pub(crate) unsafe fn try_free_any(
        &self,
        object: NonNull<u8>,
        is_ours: bool,
    ) -> Result<(), FreeError> {
        // SAFETY: the caller's promise, and the object is what was found.
        unsafe {
            match self.find(object.addr().get(), is_ours)? {
                Found::Slot(class) => {
                    if C::CHECKED {
                        self.check_free(object, class, true)?;
                    }
                    self.wipe_slot(object, class);
                    self.free_slot(object, class)
                }
                Found::Single(_) => self.free_single(object, |_, _| true),
                Found::Region(bytes) => self.free_region(object, bytes),
            }
        }
    }

    /// What begins at an address. `is_ours` says truly whether it is in a chunk of this heap.
    pub(crate) fn find(&self, address: usize, is_ours: bool) -> Result<Found, FreeError> {
        if !is_ours {
            return self.pages.region_at(address).map(Found::Region);
        }
        // SAFETY: the chunk is ours; entries are null or type-stable slabs.
        let slab = unsafe { self.map_of(address).slab_checked(address).as_ref() };
        let slab = slab.ok_or(FreeError::Foreign)?;
        let key = slab.identity().key();
        match key.class() {
            _ if key.is_dead() => Err(FreeError::DoubleFree),
            class @ (Key::RUN | Key::LONG) => {
                // SAFETY: of a live single object the body is stable; what is read is only compared.
                let body = unsafe { slab.body() };
                if body.base.addr() != address {
                    return Err(FreeError::Interior);
                }
                Ok(Found::Single(
                    self.route_of(class).1 * body.granules as usize,
                ))
            }
            class => self
                .find_slot(slab, usize::from(class), address)
                .map(Found::Slot),
        }
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
