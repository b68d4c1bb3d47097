//! The figures of a heap at rest beside the walker's.

use std::collections::BTreeMap;
use temporal_slab::Heap;
use temporal_slab::config::Config;
use temporal_slab::provider::Accounts;
use temporal_slab::snapshot::{ClassStats, HeapStats, SlabStats, VERSION};
use temporal_slab_report::metric::{self, Kind, Value};

/// Slabs, cached ones, and live, free and held slots.
fn counted(slabs: &SlabStats) -> [u64; 5] {
    [
        slabs.slabs,
        slabs.cached,
        slabs.live_slots,
        slabs.free_slots,
        slabs.held_slots,
    ]
}

/// Compares every number of a heap at rest with the walker's.
pub fn agree<C: Config>(heap: &Heap<C>) -> HeapStats {
    let mut found: BTreeMap<usize, [usize; 5]> = BTreeMap::new();
    // SAFETY: the tests' heaps are at rest here.
    let census = unsafe {
        heap.walk_each(|slab| {
            let class = found.entry(slab.class).or_default();
            class[0] += 1;
            class[1] += usize::from(slab.is_cached);
            class[2] += slab.live;
            class[3] += slab.free;
            class[4] += slab.held;
        })
    }
    .unwrap_or_else(|violation| panic!("{violation}"));
    let stats = heap.stats();
    assert_eq!(stats.version, VERSION);
    let (mut sum, mut of_slabs) = ([0; 5], 0);
    for index in 0..heap.class_count() {
        let class: ClassStats = heap.class_stats(index).unwrap();
        let slabs = &class.slabs;
        let ours = counted(slabs);
        let theirs = found.get(&index).copied().unwrap_or_default();
        assert_eq!(ours, theirs.map(|n| n as u64), "class {index}");
        assert_eq!(slabs.made - slabs.recycled, slabs.slabs, "class {index}");
        assert_eq!(slabs.full_to_partial - slabs.partial_to_full, slabs.listed);
        // A cached slab was emptied, and came back or left or is there still.
        assert!(slabs.cached_so_far >= class.slow.from_cache + slabs.cached);
        assert_eq!(class.slow.new_slabs, slabs.made);
        assert!(class.slow.depot_visits >= class.slow.new_slabs);
        sum.iter_mut().zip(ours).for_each(|(sum, n)| *sum += n);
        of_slabs += class.bytes();
    }
    assert_eq!(heap.class_stats(heap.class_count()), None);
    let slabs = &stats.slabs;
    let ours = counted(slabs);
    assert_eq!(ours, sum, "the heap's slabs are its classes'");
    let mut theirs = [
        census.slabs,
        census.cached_slabs,
        census.live_slots,
        census.free_slots,
        census.held_slots,
    ]
    .map(|n| n as u64);
    let large = census.run_bytes + census.region_bytes;
    let in_blocks = census.block_object_bytes;
    let mut live = (census.live_slot_bytes + large + in_blocks) as u64;
    if stats.residency.scoped > 0 {
        // Scopes' slabs are counted by the walker and not here: all of their slots, and no others.
        let of_class = |(class, n): (&usize, &[usize; 5])| {
            n[2] as u64
                * heap
                    .class_stats(*class)
                    .map_or(0, |class| class.size as u64)
        };
        let unscoped = found.iter().map(of_class).sum::<u64>() + (large + in_blocks) as u64;
        assert!(theirs[0] > sum[0] && theirs[2] >= sum[2] && live >= unscoped);
        assert!(stats.residency.scoped >= live - unscoped);
        (theirs[0], theirs[2], live) = (sum[0], sum[2], unscoped);
    }
    assert_eq!(ours, theirs, "the heap's slabs are the walker's");
    assert_eq!(stats.live_bytes, live);
    assert_eq!(stats.large.objects(), (census.runs + census.regions) as u64);
    assert_eq!(
        stats.large.bytes(),
        (census.run_bytes + census.region_bytes) as u64
    );
    assert_eq!(stats.pages.committed, census.taken as u64);
    assert_eq!(stats.pages.resident, census.resident as u64);
    let parts: u64 = stats.residency.parts().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(
        parts, stats.pages.resident,
        "the parts are the whole: {:?}",
        stats.residency
    );
    let empty = stats.residency.cached + stats.residency.warm;
    assert_eq!(empty, heap.bytes().reclaimable as u64);
    // The epochs' sums are the heap's.
    let (mut bytes, mut live, mut objects, mut made) = (0, 0, 0, 0);
    for epoch in (0..heap.epoch_records()).filter_map(|index| heap.epoch_at(index)) {
        let stats = heap.epoch_stats(epoch).unwrap();
        assert_eq!(heap.epoch_bytes(epoch), Ok(stats.bytes));
        bytes += stats.bytes;
        live += stats.live_bytes;
        objects += stats.live_objects();
        assert_eq!(stats.sizes.objects(), stats.live_objects());
        made += stats.slabs.slabs;
    }
    assert_eq!((live, objects), (stats.live_bytes, stats.live_objects()));
    // Slabs that wait for the next era are of no epoch. Nor are those that a local still holds a slot of when the position
    // of their epoch serves another.
    let mut of_none = (slabs.cached, stats.residency.cached);
    if stats.locals.closed_epoch_caches > 0 {
        let residency = &stats.residency;
        of_none.0 += slabs.held_slots;
        of_none.1 += residency.held + residency.pinned + residency.tails;
    }
    let none = slabs.slabs - made;
    let all = of_slabs + stats.large.bytes() + stats.residency.scoped + stats.blocks.bytes;
    let none_bytes = all - bytes;
    // Slabs that epochs share, and blocks that wait, are of none.
    if !C::BUMPS {
        assert!(none <= of_none.0, "{none} slabs are of no epoch");
        assert!(
            none_bytes <= of_none.1,
            "{none_bytes} bytes are of no epoch"
        );
    }
    assert_eq!(stats.locks.all().contended, 0, "one thread never waits");
    assert!(stats.slabs.fragmentation() <= 1.0 && stats.waste() <= 1.0);
    stats
}

/// What the tables call a counter never goes back.
pub fn only_grows(before: &HeapStats, now: &HeapStats) {
    let counters = |stats: &HeapStats| {
        let mut all = Vec::new();
        metric::of_heap(stats, &mut |metric| {
            if let (Kind::Counter, Value::Count(count)) = (metric.kind, metric.value) {
                all.push((metric.name, metric.part, count));
            }
        });
        all
    };
    for ((name, part, before), (_, _, now)) in counters(before).into_iter().zip(counters(now)) {
        assert!(before <= now, "{name} {part:?}: {before} and then {now}");
    }
}

/// A provider has everything back.
///
/// # Panics
/// If it has not.
pub fn settled(accounts: Accounts) {
    let Accounts {
        regions,
        bytes,
        misshapen,
        wrong_releases,
        scribbled,
        unrecorded,
        ..
    } = accounts;
    assert_eq!(
        (
            regions,
            bytes,
            misshapen,
            wrong_releases,
            scribbled,
            unrecorded
        ),
        (0, 0, 0, 0, 0, 0),
        "every byte came back, once and in its shape"
    );
}
