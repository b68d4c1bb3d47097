//! Figures that no heap ever had: what is computed from them neither overflows nor is more than a whole.

use crate::reports::fresh;
use crate::{Bytes, Known};
use temporal_slab::snapshot::{
    HeapStats, LockStats, RouteStats, SharedPathStats, SlabStats, SlowPathStats,
};
use temporal_slab_report::metric::{self, Metric, Value};

/// Sets each of these fields to a number of the input: small ones, large ones and the largest.
macro_rules! set {
    ($bytes:expr; $($place:expr),* $(,)?) => { $( $place = number($bytes)?; )* };
}

fn number(bytes: &mut Bytes<'_>) -> Known<u64> {
    Ok(match bytes.arbitrary::<u8>()? {
        0..=63 => 0,
        64..=127 => u64::MAX,
        128..=159 => 1,
        _ => bytes.arbitrary()?,
    })
}

/// Makes figures of the input and computes all that there is to compute.
pub(crate) fn check(bytes: &mut Bytes<'_>) -> Known<()> {
    let mut stats = fresh();
    let of = &mut stats;
    set!(bytes; of.ring, of.open_epochs, of.closing_epochs, of.live_bytes, of.overflowed_bytes,
        of.pages.committed, of.pages.most_committed, of.pages.resident, of.pages.chunks,
        of.pages.acquires_failed, of.pages.decommits, of.pages.decommits_failed,
        of.residency.live, of.residency.held, of.residency.pinned, of.residency.open,
        of.residency.cached, of.residency.warm, of.residency.tails, of.residency.scoped,
        of.residency.metadata, of.residency.fragments, of.closes.closes, of.closes.slabs_scanned,
        of.closes.slabs_recycled, of.closes.time_ns, of.errors.late_double_frees,
        of.handle_ids.given, of.handle_ids.total);
    for kind in of
        .errors
        .allocs
        .iter_mut()
        .chain(&mut of.errors.frees)
        .chain(&mut of.errors.handles)
    {
        *kind = number(bytes)?;
    }
    of.slabs = slabs(bytes)?;
    of.slow = slow(bytes)?;
    of.shared = shared(bytes)?;
    let locks = &mut of.locks;
    for lock in [
        &mut locks.lists,
        &mut locks.pages,
        &mut locks.ring,
        &mut locks.locals,
    ] {
        *lock = self::lock(bytes)?;
    }
    let large = &mut of.large;
    for route in [&mut large.runs, &mut large.long_runs, &mut large.regions] {
        *route = self::route(bytes)?;
    }
    compute(&stats);
    Ok(())
}

fn compute(stats: &HeapStats) {
    metric::of_heap(stats, &mut |metric: Metric| {
        if let Value::Share(share) = metric.value {
            assert!((0.0..=1.0).contains(&share), "{metric:?}");
        }
        let is_plain = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        assert!(
            is_plain(metric.name) && !metric.help.is_empty(),
            "{metric:?}"
        );
        let part = metric.part.unwrap_or(("", ""));
        assert!(is_plain(part.0) && is_plain(part.1), "{metric:?}");
    });
    let shares = [
        stats.waste(),
        stats.slabs.recycle_rate(),
        stats.slabs.fragmentation(),
        stats.shared.retry_rate(),
        stats.locks.all().contention(),
    ];
    assert!(
        shares.iter().all(|share| (0.0..=1.0).contains(share)),
        "{shares:?}"
    );
    assert!(
        stats.slow.hits()
            >= stats
                .slow
                .word_used_up()
                .max(stats.slow.from_depot())
                .min(u64::MAX / 2)
    );
    assert!(stats.live_objects() >= stats.slabs.live_slots);
    assert!(stats.slow.refused() >= stats.slow.limit);
    assert!(stats.errors.misuses() >= stats.errors.late_double_frees);
    assert!(stats.residency.reclaimable() >= stats.residency.cached);
    assert!(stats.slabs.net_slabs() <= stats.slabs.made);
}

fn slabs(bytes: &mut Bytes<'_>) -> Known<SlabStats> {
    let mut of = SlabStats::default();
    set!(bytes; of.slabs, of.listed, of.whole, of.cached, of.slots, of.free_slots, of.held_slots,
        of.live_slots, of.made, of.recycled, of.cached_so_far, of.overflowed, of.full_to_partial,
        of.partial_to_full);
    Ok(of)
}

fn slow(bytes: &mut Bytes<'_>) -> Known<SlowPathStats> {
    let mut of = SlowPathStats::default();
    set!(bytes; of.no_word, of.from_stash, of.depot_visits, of.from_cache, of.new_slabs,
        of.epoch_closed, of.limit, of.out_of_memory, of.spills, of.words_taken, of.words_given);
    Ok(of)
}

fn shared(bytes: &mut Bytes<'_>) -> Known<SharedPathStats> {
    let mut of = SharedPathStats::default();
    set!(bytes; of.takes, of.retries, of.checks, of.switches, of.spread);
    Ok(of)
}

fn lock(bytes: &mut Bytes<'_>) -> Known<LockStats> {
    let mut of = LockStats::default();
    set!(bytes; of.taken, of.contended);
    Ok(of)
}

fn route(bytes: &mut Bytes<'_>) -> Known<RouteStats> {
    let mut of = RouteStats::default();
    set!(bytes; of.allocated, of.freed, of.bytes);
    Ok(of)
}
