//! The tables themselves.

use super::{Kind, Parts, Sink, count, gauge, share};
use crate::snapshot::{
    ClassStats, EpochStats, ErrorStats, HeapStats, LockStats, RouteStats, SharedPathStats,
    SlabStats, SlowPathStats,
};
use crate::stats::LabelStats;

fn slow_path(to: Sink<'_>, slow: &SlowPathStats) {
    count(
        to,
        "slow_path_hits",
        "Allocations that left the fast path",
        slow.hits(),
    );
    count(
        to,
        "slow_path_no_word",
        "Of these, first uses of a class by a local in an epoch",
        slow.no_word,
    );
    gauge(
        to,
        "slow_path_word_used_up",
        "The others, which found the current word used up: a difference of two counters",
        slow.word_used_up(),
    );
    Parts {
        name: "slow_path",
        label: "cause",
        help: "What was done off the fast path",
        kind: Kind::Counter,
    }
    .put(to, &slow.causes());
    count(
        to,
        "slabs_from_cache",
        "Slabs that the depot had in its cache",
        slow.from_cache,
    );
    count(
        to,
        "words_taken",
        "Words that locals took from the depot",
        slow.words_taken,
    );
    count(
        to,
        "words_given",
        "Words that locals gave back",
        slow.words_given,
    );
}

fn slabs(to: Sink<'_>, slabs: &SlabStats) {
    gauge(to, "slabs", "Slabs that there are", slabs.slabs);
    gauge(
        to,
        "slabs_listed",
        "Slabs with free slots in the depot",
        slabs.listed,
    );
    gauge(
        to,
        "slabs_empty",
        "Empty slabs, cached or open for the shared path",
        slabs.empty(),
    );
    gauge(
        to,
        "slabs_cached",
        "Empty slabs in the depot's cache",
        slabs.cached,
    );
    gauge(to, "slots", "Slots of slabs in use", slabs.slots);
    gauge(
        to,
        "slots_free",
        "Slots that nobody holds",
        slabs.free_slots,
    );
    gauge(to, "slots_held", "Slots that locals hold", slabs.held_slots);
    gauge(
        to,
        "slots_live",
        "Slots with live objects",
        slabs.live_slots,
    );
    count(to, "slabs_made", "Slabs that were made", slabs.made);
    count(
        to,
        "slabs_recycled",
        "Slabs whose memory went back to the pages",
        slabs.recycled,
    );
    count(
        to,
        "slabs_into_cache",
        "Emptied slabs that went into the cache",
        slabs.cached_so_far,
    );
    count(
        to,
        "slabs_overflowed",
        "Emptied slabs that the cache had no room for",
        slabs.overflowed,
    );
    count(
        to,
        "moves_full_to_partial",
        "Slabs that got a free slot and were listed",
        slabs.full_to_partial,
    );
    count(
        to,
        "moves_partial_to_full",
        "Slabs that left the list",
        slabs.partial_to_full,
    );
    share(
        to,
        "recycle_rate",
        "Slabs recycled for each made",
        slabs.recycle_rate(),
    );
    share(
        to,
        "fragmentation",
        "Slots of slabs in use without a live object",
        slabs.fragmentation(),
    );
}

fn shared_path(to: Sink<'_>, shared: &SharedPathStats) {
    count(
        to,
        "shared_takes",
        "Slots put before the shared path",
        shared.takes,
    );
    count(
        to,
        "shared_retries",
        "Takes on the shared path that found their bit gone",
        shared.retries,
    );
    share(
        to,
        "shared_retry_rate",
        "Retries for each take",
        shared.retry_rate(),
    );
    count(
        to,
        "spread_checks",
        "Windows of takes that were judged",
        shared.checks,
    );
    count(
        to,
        "spread_switches",
        "Changes between sequential and spread starts",
        shared.switches,
    );
    gauge(
        to,
        "spread_lists",
        "Lists whose starts are spread by CPU now",
        shared.spread,
    );
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
    gauge(
        to,
        "committed_bytes",
        "Bytes held from the provider",
        pages.committed,
    );
    gauge(
        to,
        "resident_bytes",
        "Of these, touched and not given back, as accounted",
        pages.resident,
    );
    gauge(
        to,
        "most_committed_bytes",
        "The most bytes that were held from the provider",
        pages.most_committed,
    );
    count(
        to,
        "overflowed_bytes",
        "Bytes of emptied slabs that the cache had no room for",
        stats.overflowed_bytes,
    );
    gauge(
        to,
        "live_bytes",
        "Bytes of live objects, as large as their classes make them",
        stats.live_bytes,
    );
    gauge(to, "live_objects", "Live objects", stats.live_objects());
    gauge(
        to,
        "reclaimable_bytes",
        "Bytes that reclaim gives back",
        stats.residency.reclaimable(),
    );
    gauge(
        to,
        "limit_bytes",
        "The byte limit, or 0",
        pages.limit.unwrap_or(0),
    );
    share(
        to,
        "waste",
        "Resident bytes that are not of live objects",
        stats.waste(),
    );
    Parts {
        name: "resident_part_bytes",
        label: "part",
        help: "Where the resident bytes are",
        kind: Kind::Gauge,
    }
    .put(to, &stats.residency.parts());
    gauge(to, "chunks", "Chunks that there are", pages.chunks);
    count(
        to,
        "chunks_acquired",
        "Chunks that were got",
        pages.chunks_acquired,
    );
    count(
        to,
        "chunks_released",
        "Chunks that went back whole",
        pages.chunks_released,
    );
    count(
        to,
        "acquires_failed",
        "Requests that the provider refused",
        pages.acquires_failed,
    );
    count(
        to,
        "regions_refused",
        "Regions of the provider's that could not be used",
        pages.regions_refused,
    );
    count(
        to,
        "decommits",
        "Decommit calls that succeeded",
        pages.decommits,
    );
    count(
        to,
        "decommitted_bytes",
        "Their bytes",
        pages.decommitted_bytes,
    );
    count(
        to,
        "decommits_failed",
        "Decommit calls that failed",
        pages.decommits_failed,
    );
    slabs(to, &stats.slabs);
    slow_path(to, &stats.slow);
    shared_path(to, &stats.shared);
    let all = [
        ("lists", stats.locks.bins),
        ("pages", stats.locks.pages),
        ("ring", stats.locks.ring),
        ("locals", stats.locks.locals),
    ];
    locks(to, &all);
    routes(to, stats);
    let closes = &stats.closes;
    count(to, "closes", "Closes of epochs", closes.closes);
    count(
        to,
        "close_slabs_scanned",
        "Slabs that closes looked at",
        closes.slabs_scanned,
    );
    count(
        to,
        "close_slabs_recycled",
        "Slabs that closes gave back",
        closes.slabs_recycled,
    );
    count(
        to,
        "close_ns",
        "Nanoseconds that closes took",
        closes.time_ns,
    );
    errors(to, &stats.errors);
    gauge(
        to,
        "epochs_open",
        "Epochs that accept allocations",
        stats.open_epochs,
    );
    gauge(
        to,
        "epochs_closing",
        "Closed epochs of which something is left",
        stats.closing_epochs,
    );
    gauge(
        to,
        "ring_positions",
        "Positions of the ring of epochs",
        stats.ring,
    );
    gauge(to, "locals", "Locals", stats.locals.locals);
    gauge(
        to,
        "local_epoch_caches",
        "Epochs that locals serve",
        stats.locals.epoch_caches,
    );
    gauge(
        to,
        "local_closed_epoch_caches",
        "Of these, closed ones",
        stats.locals.closed_epoch_caches,
    );
    let in_closed = stats.locals.held_in_closed_bytes;
    gauge(
        to,
        "held_in_closed_bytes",
        "Bytes that locals hold in closed epochs",
        in_closed,
    );
    gauge(
        to,
        "handle_ids_given",
        "Ids of slabs with handles that were given out",
        stats.handle_ids.0,
    );
    gauge(to, "handle_ids", "Ids that there are", stats.handle_ids.1);
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
    count(
        to,
        "late_double_frees",
        "Slots that turned out, when words met, to have been freed twice",
        errors.late_double_frees,
    );
}

/// The figures of a class.
pub fn of_class(stats: &ClassStats, to: Sink<'_>) {
    gauge(to, "bytes", "Bytes of the class's slabs", stats.bytes());
    gauge(
        to,
        "live_bytes",
        "Bytes of its live objects",
        stats.live_bytes(),
    );
    slabs(to, &stats.slabs);
    slow_path(to, &stats.slow);
    shared_path(to, &stats.shared);
    locks(to, &[("lists", stats.lock)]);
}

/// The figures of an epoch.
pub fn of_epoch(stats: &EpochStats, to: Sink<'_>) {
    gauge(to, "bytes", "Bytes that the epoch holds", stats.bytes);
    gauge(
        to,
        "live_bytes",
        "Bytes of its live objects",
        stats.live_bytes,
    );
    gauge(to, "live_objects", "Its live objects", stats.live_objects());
    gauge(
        to,
        "large_objects",
        "Of these, those that no class serves",
        stats.large_objects,
    );
    gauge(to, "large_bytes", "Their bytes", stats.large_bytes);
    gauge(
        to,
        "domains",
        "Domains that are inside",
        u64::from(stats.domains),
    );
    gauge(
        to,
        "younger",
        "Epochs that were opened after it",
        stats.younger,
    );
    share(
        to,
        "waste",
        "Bytes that it holds and that are not of live objects",
        stats.waste(),
    );
    slabs(to, &stats.slabs);
    slow_path(to, &stats.slow);
    shared_path(to, &stats.shared);
    locks(to, &[("lists", stats.lock)]);
}

/// The figures of a label.
pub fn of_label(stats: &LabelStats, to: Sink<'_>) {
    gauge(to, "epochs", "Epochs of the label", stats.epochs);
    gauge(to, "bytes", "Bytes that they hold", stats.bytes);
    gauge(
        to,
        "live_bytes",
        "Bytes of their live objects",
        stats.live_bytes,
    );
    gauge(to, "live_objects", "Their live objects", stats.live_objects);
    gauge(
        to,
        "slow_path_hits",
        "Allocations in them that left the fast path",
        stats.slow.hits(),
    );
    gauge(
        to,
        "new_slabs",
        "Slabs that were made in them",
        stats.slow.new_slabs,
    );
    gauge(
        to,
        "refused",
        "Allocations in them that were refused",
        stats.slow.refused(),
    );
    gauge(
        to,
        "shared_retries",
        "Takes in them that found their bit gone",
        stats.shared.retries,
    );
    gauge(
        to,
        "lock_contended",
        "Times that somebody waited for their lists",
        stats.lock.contended,
    );
}
