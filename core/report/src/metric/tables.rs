//! The tables themselves.

use super::{Kind, Metric, Parts, Sink, Value, count, gauge, share};
use crate::LabelStats;
use temporal_slab::snapshot::{
    ClassStats, EpochStats, ErrorStats, HeapStats, LockStats, RouteStats, SharedPathStats,
    SlabStats, SlowPathStats,
};

/// Puts figures, one for each line: its kind, its name, what it means, its value.
macro_rules! put {
    ($to:expr; $($kind:ident $name:literal, $help:literal, $value:expr;)+) => {
        $($kind($to, $name, $help, $value);)+
    };
}

fn slow_path(to: Sink<'_>, slow: &SlowPathStats) {
    put! { to;
        count "slow_path_hits", "Allocations that left the fast path", slow.hits();
        gauge "slow_path_word_used_up", "Of these, those that found the current word used up: a difference of two counters", slow.word_used_up();
    }
    for counter in slow.counters() {
        to(Metric {
            name: counter.name,
            part: counter.cause.map(|cause| ("cause", cause)),
            help: counter
                .cause
                .map_or(counter.help, |_| "What was done off the fast path"),
            kind: Kind::Counter,
            value: Value::Count(counter.value),
        });
    }
}

fn slabs(to: Sink<'_>, slabs: &SlabStats) {
    put! { to;
        gauge "slabs", "Slabs that there are", slabs.slabs;
        gauge "slabs_listed", "Slabs with free slots in the depot", slabs.listed;
        gauge "slabs_empty", "Empty slabs, cached or open for the shared path", slabs.empty();
        gauge "slabs_cached", "Empty slabs in the depot's cache", slabs.cached;
        gauge "slots", "Slots of slabs in use", slabs.slots;
        gauge "slots_free", "Slots that nobody holds", slabs.free_slots;
        gauge "slots_held", "Slots that locals hold", slabs.held_slots;
        gauge "slots_live", "Slots with live objects", slabs.live_slots;
        count "slabs_made", "Slabs that were made", slabs.made;
        count "slabs_recycled", "Slabs whose memory went back to the pages", slabs.recycled;
        count "slabs_into_cache", "Emptied slabs that went into the cache", slabs.cached_so_far;
        count "slabs_overflowed", "Emptied slabs that the cache had no room for", slabs.overflowed;
        count "moves_full_to_partial", "Slabs that got a free slot and were listed", slabs.full_to_partial;
        count "moves_partial_to_full", "Slabs that left the list", slabs.partial_to_full;
        share "recycle_rate", "Slabs recycled for each made", slabs.recycle_rate();
        share "fragmentation", "Slots of slabs in use without a live object", slabs.fragmentation();
    }
}

fn shared_path(to: Sink<'_>, shared: &SharedPathStats) {
    put! { to;
        count "shared_takes", "Slots put before the shared path", shared.takes;
        count "shared_retries", "Takes on the shared path that found their bit gone", shared.retries;
        share "shared_retry_rate", "Retries for each take", shared.retry_rate();
        count "spread_checks", "Windows of takes that were judged", shared.checks;
        count "spread_switches", "Changes between sequential and spread starts", shared.switches;
        gauge "spread_lists", "Lists whose starts are spread by CPU now", shared.spread;
    }
}

fn locks(to: Sink<'_>, locks: &[(&'static str, LockStats)]) {
    let parts = |name, help| Parts {
        name,
        label: "lock",
        help,
        kind: Kind::Counter,
    };
    for (name, lock) in locks {
        parts("lock_taken", "Times that a lock was taken").put(to, &[(*name, lock.taken)]);
    }
    for (name, lock) in locks {
        parts(
            "lock_contended",
            "Of these, times that somebody else had it at first",
        )
        .put(to, &[(*name, lock.contended)]);
    }
}

/// The figures of a heap.
pub fn of_heap(stats: &HeapStats, to: Sink<'_>) {
    let pages = &stats.pages;
    put! { to;
        gauge "committed_bytes", "Bytes held from the provider", pages.committed;
        gauge "resident_bytes", "Of these, touched and not given back, as accounted", pages.resident;
        gauge "most_committed_bytes", "The most bytes that were held from the provider", pages.most_committed;
        count "overflowed_bytes", "Bytes of emptied slabs that the cache had no room for", stats.overflowed_bytes;
        gauge "live_bytes", "Bytes of live objects, as large as their classes make them", stats.live_bytes;
        gauge "live_objects", "Live objects", stats.live_objects();
        gauge "reclaimable_bytes", "Bytes that reclaim gives back", stats.residency.reclaimable();
        gauge "limit_bytes", "The byte limit, or 0", pages.limit.unwrap_or(0);
        share "waste", "Resident bytes that are not of live objects", stats.waste();
    }
    Parts {
        name: "resident_part_bytes",
        label: "part",
        help: "Where the resident bytes are",
        kind: Kind::Gauge,
    }
    .put(to, &stats.residency.parts());
    put! { to;
        gauge "chunks", "Chunks that there are", pages.chunks;
        count "chunks_acquired", "Chunks that were got", pages.chunks_acquired;
        count "chunks_released", "Chunks that went back whole", pages.chunks_released;
        count "acquires_failed", "Requests that the provider refused", pages.acquires_failed;
        count "regions_refused", "Regions of the provider's that could not be used", pages.regions_refused;
        count "decommits", "Decommit calls that succeeded", pages.decommits;
        count "decommitted_bytes", "Their bytes", pages.decommitted_bytes;
        count "decommits_failed", "Decommit calls that failed", pages.decommits_failed;
    }
    slabs(to, &stats.slabs);
    slow_path(to, &stats.slow);
    shared_path(to, &stats.shared);
    let all = [
        ("lists", stats.locks.lists),
        ("pages", stats.locks.pages),
        ("ring", stats.locks.ring),
        ("locals", stats.locks.locals),
    ];
    locks(to, &all);
    routes(to, stats);
    let closes = &stats.closes;
    put! { to;
        count "closes", "Closes of epochs", closes.closes;
        count "close_slabs_scanned", "Slabs that closes looked at", closes.slabs_scanned;
        count "close_slabs_recycled", "Slabs that closes gave back", closes.slabs_recycled;
        count "close_ns", "Nanoseconds that closes took", closes.time_ns;
    }
    errors(to, &stats.errors);
    put! { to;
        gauge "epochs_open", "Epochs that accept allocations", stats.open_epochs;
        gauge "epochs_closing", "Closed epochs of which something is left", stats.closing_epochs;
        gauge "ring_positions", "Positions of the ring of epochs", stats.ring;
        gauge "locals", "Locals", stats.locals.locals;
        gauge "local_epoch_caches", "Epochs that locals serve", stats.locals.epoch_caches;
        gauge "local_closed_epoch_caches", "Of these, closed ones", stats.locals.closed_epoch_caches;
    }
    let in_closed = stats.locals.held_in_closed_bytes;
    put! { to;
        gauge "held_in_closed_bytes", "Bytes that locals hold in closed epochs", in_closed;
        gauge "handle_ids_given", "Ids of slabs with handles that were given out", stats.handle_ids.given;
        gauge "handle_ids", "Ids that there are", stats.handle_ids.total;
    }
}

fn routes(to: Sink<'_>, stats: &HeapStats) {
    let large = &stats.large;
    let routes = [
        ("run", large.runs),
        ("long_run", large.long_runs),
        ("region", large.regions),
    ];
    let parts = |name, help, kind| Parts {
        name,
        label: "route",
        help,
        kind,
    };
    let put = |to: Sink<'_>, parts: Parts, figure: fn(&RouteStats) -> u64| {
        for (name, route) in &routes {
            parts.put(&mut *to, &[(*name, figure(route))]);
        }
    };
    let counter = Kind::Counter;
    put(
        to,
        parts("large_allocs", "Allocations that no class serves", counter),
        |r| r.allocated,
    );
    put(
        to,
        parts("large_frees", "Frees of such objects", counter),
        |r| r.freed,
    );
    put(
        to,
        parts("large_bytes", "Bytes of such objects", Kind::Gauge),
        |r| r.bytes,
    );
}

fn errors(to: Sink<'_>, errors: &ErrorStats) {
    let parts = |name, help| Parts {
        name,
        label: "kind",
        help,
        kind: Kind::Counter,
    };
    let allocs = parts("allocs_refused", "Allocations that were refused");
    for ((kind, _), value) in ErrorStats::ALLOC.iter().zip(errors.allocs) {
        allocs.put(to, &[(*kind, value)]);
    }
    let frees = parts("frees_refused", "Frees that were refused");
    for ((kind, _), value) in ErrorStats::FREE.iter().zip(errors.frees) {
        frees.put(to, &[(*kind, value)]);
    }
    let handles = parts("handles_refused", "Handles that were refused");
    for ((kind, _), value) in ErrorStats::HANDLE.iter().zip(errors.handles) {
        handles.put(to, &[(*kind, value)]);
    }
    put! { to;
        count "late_double_frees", "Slots that turned out, when words met, to have been freed twice", errors.late_double_frees;
    }
}

/// The figures of a class.
pub fn of_class(stats: &ClassStats, to: Sink<'_>) {
    put! { to;
        gauge "bytes", "Bytes of the class's slabs", stats.bytes();
        gauge "live_bytes", "Bytes of its live objects", stats.live_bytes();
    }
    slabs(to, &stats.slabs);
    slow_path(to, &stats.slow);
    shared_path(to, &stats.shared);
    locks(to, &[("lists", stats.lock)]);
}

/// The figures of an epoch.
pub fn of_epoch(stats: &EpochStats, to: Sink<'_>) {
    put! { to;
        gauge "bytes", "Bytes that the epoch holds", stats.bytes;
        gauge "live_bytes", "Bytes of its live objects", stats.live_bytes;
        gauge "live_objects", "Its live objects", stats.live_objects();
        gauge "large_objects", "Of these, those that no class serves", stats.large_objects;
        gauge "large_bytes", "Their bytes", stats.large_bytes;
        gauge "domains", "Domains that are inside", u64::from(stats.domains);
        gauge "younger", "Epochs that were opened after it", stats.younger;
        share "waste", "Bytes that it holds and that are not of live objects", stats.waste();
    }
    slabs(to, &stats.slabs);
    slow_path(to, &stats.slow);
    shared_path(to, &stats.shared);
    locks(to, &[("lists", stats.lock)]);
}

/// The figures of a label.
pub fn of_label(stats: &LabelStats, to: Sink<'_>) {
    put! { to;
        gauge "epochs", "Epochs of the label", stats.epochs;
        gauge "bytes", "Bytes that they hold", stats.bytes;
        gauge "live_bytes", "Bytes of their live objects", stats.live_bytes;
        gauge "live_objects", "Their live objects", stats.live_objects;
        gauge "slow_path_hits", "Allocations in them that left the fast path", stats.slow.hits();
        gauge "new_slabs", "Slabs that were made in them", stats.slow.new_slabs;
        gauge "refused", "Allocations in them that were refused", stats.slow.refused();
        gauge "shared_retries", "Takes in them that found their bit gone", stats.shared.retries;
        gauge "lock_contended", "Times that somebody waited for their lists", stats.lock.contended;
    }
}
