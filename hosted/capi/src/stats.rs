//! What is counted.

use crate::allocator::{SlabAllocator, of};
use crate::epochs::EpochId;
use crate::error::{SlabError, guarded};
use core::alloc::Layout;
use temporal_slab::snapshot::ClassStats;
use temporal_slab_hosted::rss::Usage;

/// The version of the structures here.
const VERSION: u32 = 1;

/// The sizes that [`get_perf_counters`] numbers.
const SIZES: [usize; 8] = [64, 96, 128, 192, 256, 384, 512, 768];

/// What happened in a size class, over all epochs.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PerfCounters {
    /// Allocations that did not find a slot at hand.
    pub slow_path_hits: u64,
    /// Slabs that were made.
    pub new_slab_count: u64,
    /// Slabs whose free slots were used up or taken.
    pub list_move_partial_to_full: u64,
    /// Used up slabs that got a free slot, and slabs that were opened.
    pub list_move_full_to_partial: u64,
    /// Slow allocations that found no slab begun.
    pub current_partial_null: u64,
    /// Slow allocations that found the slab that was begun used up.
    pub current_partial_full: u64,
    /// Emptied slabs whose memory went back.
    pub empty_slab_recycled: u64,
    /// Emptied slabs that the cache had no room for.
    pub empty_slab_overflowed: u64,
}

/// The whole allocator.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SlabGlobalStats {
    /// 1.
    pub version: u32,
    /// How many epochs there can be.
    pub ring: u32,
    /// Epochs that accept allocations.
    pub open_epochs: u64,
    /// Closed epochs of which something is left.
    pub closing_epochs: u64,
    /// Live objects.
    pub live_objects: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Bytes from the system.
    pub committed_bytes: u64,
    /// Of these, what was touched and not given back.
    pub resident_bytes: u64,
    /// Of these, what is empty and can be given back.
    pub reclaimable_bytes: u64,
    /// Slabs.
    pub slabs: u64,
    /// Allocations that did not find a slot at hand.
    pub slow_path_hits: u64,
    /// Allocations that were refused because their epoch was closed.
    pub refused_epoch_closed: u64,
    /// Frees and handles that were refused.
    pub misuses: u64,
    /// Epochs that were closed.
    pub closes: u64,
}

/// A size class.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SlabClassStats {
    /// 1.
    pub version: u32,
    /// Whether its objects have handles.
    pub has_handles: bool,
    /// Bytes of an object.
    pub object_bytes: u64,
    /// Bytes of a slab.
    pub slab_bytes: u64,
    /// Slabs.
    pub slabs: u64,
    /// Empty slabs that wait.
    pub cached_slabs: u64,
    /// Slots with live objects.
    pub live_slots: u64,
    /// Slots that nobody holds.
    pub free_slots: u64,
    /// What happened.
    pub counters: PerfCounters,
}

/// An epoch.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SlabEpochStats {
    /// 1.
    pub version: u32,
    /// Whether it accepts allocations.
    pub is_open: bool,
    /// What it was called; ends with a zero.
    pub label: [core::ffi::c_char; 32],
    /// Which epoch it is of all that there were.
    pub era: u64,
    /// How many are inside.
    pub refcount: u64,
    /// Live objects.
    pub live_objects: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Bytes of its slabs and large objects.
    pub bytes: u64,
    /// Slabs.
    pub slabs: u64,
    /// How long it has been open, in nanoseconds.
    pub age_ns: u64,
    /// Resident bytes before its close, if it was closed.
    pub rss_before_close: u64,
    /// And after it.
    pub rss_after_close: u64,
}

/// Checks what is written to.
///
/// # Safety
/// `out` may be written to, or is null.
unsafe fn write<T>(out: *mut T, value: T) -> Result<bool, SlabError> {
    if out.is_null() {
        return Err(SlabError::Argument);
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(value) };
    Ok(true)
}

fn counters(class: &ClassStats) -> PerfCounters {
    PerfCounters {
        slow_path_hits: class.slow.hits(),
        new_slab_count: class.slabs.made,
        list_move_partial_to_full: class.slabs.partial_to_full,
        list_move_full_to_partial: class.slabs.full_to_partial,
        current_partial_null: class.slow.no_word,
        current_partial_full: class.slow.word_used_up(),
        empty_slab_recycled: class.slabs.recycled,
        empty_slab_overflowed: class.slabs.overflowed,
    }
}

/// What happened in a size class: 0 to 7 are 64, 96, 128, 192, 256, 384, 512 and 768 bytes. Whether there is one.
///
/// # Safety
/// `alloc` is an allocator or null; `out` may be written to or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_perf_counters(
    alloc: *mut SlabAllocator,
    size_class: u32,
    out: *mut PerfCounters,
) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let heap = &unsafe { of(alloc) }?.heap;
        let size = SIZES.get(size_class as usize).ok_or(SlabError::Argument)?;
        let layout = Layout::from_size_align(*size, 16).map_err(|_| SlabError::Internal)?;
        let class = heap
            .class_of(layout)
            .and_then(|class| heap.class_stats(class));
        // SAFETY: the caller's promise.
        unsafe { write(out, counters(&class.ok_or(SlabError::Internal)?)) }
    })
}

/// The whole allocator. Whether there is one.
///
/// # Safety
/// `alloc` is an allocator or null; `out` may be written to or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_stats_global(
    alloc: *mut SlabAllocator,
    out: *mut SlabGlobalStats,
) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let stats = unsafe { of(alloc) }?.heap.stats();
        let value = SlabGlobalStats {
            version: VERSION,
            ring: stats.ring as u32,
            open_epochs: stats.open_epochs,
            closing_epochs: stats.closing_epochs,
            live_objects: stats.live_objects(),
            live_bytes: stats.live_bytes,
            committed_bytes: stats.pages.committed,
            resident_bytes: stats.pages.resident,
            reclaimable_bytes: stats.residency.reclaimable(),
            slabs: stats.slabs.slabs,
            slow_path_hits: stats.slow.hits(),
            refused_epoch_closed: stats.slow.epoch_closed,
            misuses: stats.errors.misuses(),
            closes: stats.closes.closes,
        };
        // SAFETY: the caller's promise.
        unsafe { write(out, value) }
    })
}

/// A size class, from 0: first those of objects that are known by pointers, then those with handles. Whether there is
/// one of this number.
///
/// # Safety
/// `alloc` is an allocator or null; `out` may be written to or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_stats_class(
    alloc: *mut SlabAllocator,
    class: u32,
    out: *mut SlabClassStats,
) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let heap = &unsafe { of(alloc) }?.heap;
        let stats = heap
            .class_stats(class as usize)
            .ok_or(SlabError::Argument)?;
        let value = SlabClassStats {
            version: VERSION,
            has_handles: stats.has_handles,
            object_bytes: stats.size as u64,
            slab_bytes: stats.slab_bytes as u64,
            slabs: stats.slabs.slabs,
            cached_slabs: stats.slabs.cached,
            live_slots: stats.slabs.live_slots,
            free_slots: stats.slabs.free_slots,
            counters: counters(&stats),
        };
        // SAFETY: the caller's promise.
        unsafe { write(out, value) }
    })
}

/// An epoch. Whether there is one at this position.
///
/// # Safety
/// `alloc` is an allocator or null; `out` may be written to or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slab_stats_epoch(
    alloc: *mut SlabAllocator,
    epoch: EpochId,
    out: *mut SlabEpochStats,
) -> bool {
    guarded(false, || {
        // SAFETY: the caller's promise.
        let shared = unsafe { of(alloc) }?;
        let stats = shared.heap.epoch_stats(shared.epoch(epoch)?)?;
        let close = stats.last_close.unwrap_or_default();
        let (before, after) = (close.resident_before, close.resident_after);
        let mut label = [0; 32];
        for (place, byte) in label.iter_mut().zip(stats.label.as_str().bytes().take(31)) {
            *place = byte as core::ffi::c_char;
        }
        let value = SlabEpochStats {
            version: VERSION,
            is_open: stats.is_open(),
            label,
            era: stats.epoch.era(),
            refcount: u64::from(stats.domains),
            live_objects: stats.live_objects(),
            live_bytes: stats.live_bytes,
            bytes: stats.bytes,
            slabs: stats.slabs.slabs,
            age_ns: stats.age_ns.unwrap_or(0),
            rss_before_close: before,
            rss_after_close: after,
        };
        // SAFETY: the caller's promise.
        unsafe { write(out, value) }
    })
}

/// What the process has resident, in bytes. 0 where the system does not tell.
#[unsafe(no_mangle)]
pub extern "C" fn read_rss_bytes_linux() -> u64 {
    guarded(0, || {
        Ok(Usage::read().map_or(0, |usage| usage.resident_bytes))
    })
}
