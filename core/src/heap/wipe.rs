//! What a heap does that is to be hard on whoever reads or foresees what is not theirs: [`Config::ZERO_ON_FREE`] and
//! [`Config::SHUFFLED`]. Of any other heap nothing of this is left in the code.

use super::Heap;
use crate::config::{Config, Table};
use crate::handle::{RawHandle, TaggedSlab};
use crate::provider::PageProvider;
use core::ptr::NonNull;

impl<C: Config> Heap<C> {
    /// Overwrites an object that ends.
    ///
    /// # Safety
    /// It has so many bytes and nobody uses it any more.
    #[inline(always)]
    pub(crate) unsafe fn wipe(&self, object: NonNull<u8>, bytes: usize) {
        if C::ZERO_ON_FREE {
            // SAFETY: the caller's promise. By the address, for the pointer may have been narrowed to its object.
            unsafe {
                let object: *mut u8 = core::ptr::with_exposed_provenance_mut(object.addr().get());
                object.write_bytes(0, bytes);
            }
        }
    }

    /// The same, of a slot of a class.
    ///
    /// # Safety
    /// The object is one of this class, and nobody uses it any more.
    #[inline(always)]
    pub(crate) unsafe fn wipe_slot(&self, object: NonNull<u8>, class: usize) {
        if C::ZERO_ON_FREE {
            // SAFETY: the caller's promise.
            unsafe { self.wipe(object, Table::<C>::TABLE.class(class).size()) };
        }
    }

    /// The same, of the slot that a handle named.
    ///
    /// # Safety
    /// The caller holds the slot, whose object was ended.
    #[inline(always)]
    pub(crate) unsafe fn wipe_tagged(&self, tagged: &TaggedSlab, handle: RawHandle) {
        if C::ZERO_ON_FREE {
            let class = usize::from(tagged.slab().identity().key().class());
            let size = Table::<C>::TABLE.class(class).size();
            // SAFETY: the slot is held, so the slab's body is stable and its slots are where it says.
            unsafe {
                let base = tagged.slab().body().base;
                let object = base.add(handle.slot() * size);
                self.wipe(NonNull::new_unchecked(object), size);
            }
        }
    }

    /// The same, of many slots of a tagged slab.
    ///
    /// # Safety
    /// The caller holds the slots, whose objects were ended.
    #[inline(always)]
    pub(crate) unsafe fn wipe_slots(&self, tagged: &TaggedSlab, mut slots: u64) {
        if C::ZERO_ON_FREE {
            let class = usize::from(tagged.slab().identity().key().class());
            let size = Table::<C>::TABLE.class(class).size();
            while slots != 0 {
                // SAFETY: the slot is held, so the slab's body is stable and its slots are where it says.
                unsafe {
                    let base = tagged.slab().body().base;
                    let object = base.add(slots.trailing_zeros() as usize * size);
                    self.wipe(NonNull::new_unchecked(object), size);
                }
                slots &= slots - 1;
            }
        }
    }

    /// A number that is hard to foresee: of where things lie, and of the time.
    pub(crate) fn seed(&self) -> u64 {
        if !C::SHUFFLED {
            return 1;
        }
        let here = 0u8;
        let places = (&raw const here).addr() as u64
            ^ (core::ptr::from_ref(self).addr() as u64).rotate_left(24);
        let time = self.pages.provider().now_ns().unwrap_or(0) ^ ticks();
        let mut seed = places ^ time.rotate_left(40) ^ self.counters.next_seed();
        // Of the generator splitmix64.
        seed = (seed ^ seed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        seed = (seed ^ seed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        seed ^ seed >> 31
    }
}

/// What the CPU's clock says, if it has one that anybody may read.
fn ticks() -> u64 {
    #[cfg(all(target_arch = "x86", not(miri)))]
    use core::arch::x86::_rdtsc;
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    use core::arch::x86_64::_rdtsc;
    #[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), not(miri)))]
    // SAFETY: every CPU of these that runs this has it.
    let ticks = unsafe { _rdtsc() };
    #[cfg(not(all(any(target_arch = "x86", target_arch = "x86_64"), not(miri))))]
    let ticks = 0;
    ticks
}
