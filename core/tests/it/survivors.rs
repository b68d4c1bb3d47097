//! Objects that outlive their epochs: where they lie once a local expects them, and that they are their epochs' as before.

use crate::common::hooked::{Hooked, hooked};
use crate::common::host::HostProvider;
use crate::common::{Bumping, Rng, free, layout, steps, takes_nothing, walk};
use core::ptr::NonNull;
use std::collections::VecDeque;
use temporal_slab::config::Config;
use temporal_slab::{AllocError, Epoch, FreeError, Heap, Local, Policy};

pub(crate) type Host = HostProvider<{ 1 << 18 }>;

temporal_slab_actions::configs! {
    /// As [`Bumping`], and nothing is checked.
    pub(crate) struct Unchecked {
        const CHECKED: bool = false;
        const BUMPS: bool = true;
    }
}

pub(crate) const SURVIVOR: usize = 100;

/// Serves a request: some objects in an epoch of its own, all freed but one, which is given back with the epoch, closed.
pub(crate) fn serve<C: Config<Provider = Host>>(
    heap: &Heap<C>,
    local: &mut Local<'_, C>,
    rng: &mut Rng,
) -> (NonNull<u8>, Epoch) {
    let epoch = heap.open_epoch().unwrap();
    let mut objects: Vec<_> = (0..12)
        .map(|_| {
            let size = rng.below(700) + 1;
            (local.alloc_in(epoch, layout(size)).unwrap(), size)
        })
        .collect();
    let kept = local.alloc_in(epoch, layout(SURVIVOR)).unwrap();
    // SAFETY: it is so long, and the test's.
    unsafe { kept.write_bytes(epoch.era() as u8, SURVIVOR) };
    while !objects.is_empty() {
        let (object, size) = objects.swap_remove(rng.below(objects.len()));
        // SAFETY: live, of this layout.
        unsafe { local.free(object, layout(size)) }.unwrap();
    }
    local.leave(epoch);
    heap.close(epoch).unwrap();
    (kept, epoch)
}

/// Checks a survivor and frees it.
pub(crate) fn end<C: Config<Provider = Host>>(
    local: &mut Local<'_, C>,
    (object, epoch): (NonNull<u8>, Epoch),
) {
    // SAFETY: it is live, and so long.
    let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), SURVIVOR) };
    assert!(bytes.iter().all(|byte| *byte == epoch.era() as u8));
    // SAFETY: live, of this layout.
    unsafe { local.free(object, layout(SURVIVOR)) }.unwrap();
}

fn survivors_take_slots<C: Config<Provider = Host>>() {
    let heap = Heap::<C>::new(Host::default());
    let mut local = heap.local().unwrap();
    let mut rng = Rng(1);
    // In an unchecked heap it takes a little longer until they are known: those of the first block that was left are not.
    let few = if C::CHECKED { 42 } else { 62 };
    let (requests, entries) = (steps(20_000, few), steps(2_000, 20));
    let mut cache = VecDeque::new();
    for _ in 0..requests {
        cache.push_back(serve(&heap, &mut local, &mut rng));
        if cache.len() > entries {
            end(&mut local, cache.pop_front().unwrap());
        }
    }
    // Each is its own epoch's, which is closed and has nothing else.
    for (_, epoch) in cache.iter().step_by(steps(100, 3)) {
        let stats = heap.epoch_stats(*epoch).unwrap();
        assert_eq!(stats.live_objects(), 1, "{stats:?}");
        assert!(!stats.is_open());
        assert!(stats.live_bytes >= SURVIVOR as u64 && stats.live_bytes < 200);
        assert_eq!(heap.epoch_at(epoch.index()), Some(*epoch));
    }
    let stats = heap.stats();
    assert_eq!(stats.closing_epochs, entries as u64);
    // But for those from before it was learned, sixteen and in an unchecked heap twice as many, and the local's own, no block is left.
    assert!(stats.blocks.blocks <= 40, "{:?}", stats.blocks);
    let census = walk(&heap);
    assert!(
        census.mixed_slots + 20 >= entries,
        "{} of {entries}",
        census.mixed_slots
    );
    for kept in cache {
        end(&mut local, kept);
    }
    drop(local);
    heap.reclaim();
    let (census, stats) = (walk(&heap), heap.stats());
    assert_eq!((census.blocks, census.slabs), (0, 0));
    assert_eq!((stats.open_epochs, stats.closing_epochs), (1, 0));
}

/// A survivor of each of many epochs takes a slot, where objects of its class were seen to survive, and a record; it is its epoch's, and
/// both are used again when it ends. Catches survivors that keep a block each, that are counted twice or as nobody's, and
/// records that stay.
#[test]
fn survivors_take_slots_and_records() {
    survivors_take_slots::<Bumping<Host>>();
    survivors_take_slots::<Unchecked<Host>>();
}

/// Teaches a local that objects of a size survive: it looks at a block again when it left sixteen more. The last one is in a slot.
fn teach<'h>(
    heap: &'h Heap<Bumping<Host>>,
    kept: &mut Vec<(NonNull<u8>, Epoch)>,
) -> Local<'h, Bumping<Host>> {
    let mut local = heap.local().unwrap();
    kept.extend((0..19).map(|round| serve(heap, &mut local, &mut Rng(round + 1))));
    local
}

/// What is no live object is refused where slabs are shared as elsewhere, and counts nothing. Catches a record that is counted down for
/// a free that was refused, by each path.
#[test]
fn misuse_is_refused() {
    let heap = Heap::<Bumping<Host>>::new(Host::default());
    let mut kept = Vec::new();
    let mut local = teach(&heap, &mut kept);
    let mut other = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    let objects = [(); 4].map(|()| local.alloc_in(epoch, layout(SURVIVOR)).unwrap());
    assert_eq!(heap.epoch_stats(epoch).unwrap().mixed_objects, 4);
    assert_eq!(
        walk(&heap).mixed_slots,
        5,
        "of the last survivor, and of these"
    );
    let [a, b, c, d] = objects;
    // SAFETY: live and given up once; what comes then a checked heap refuses.
    unsafe {
        assert_eq!(
            local.free(a, layout(SURVIVOR + 200)),
            Err(FreeError::WrongLayout)
        );
        assert_eq!(
            local.free_unsized(a.map_addr(|at| at.checked_add(16).unwrap())),
            Err(FreeError::Interior)
        );
        assert_eq!(heap.epoch_stats(epoch).unwrap().mixed_objects, 4);
        local.free(a, layout(SURVIVOR)).unwrap();
        other.free_unsized(b).unwrap();
        heap.free(c, layout(SURVIVOR)).unwrap();
        heap.free_unsized(d).unwrap();
        for object in objects {
            assert_eq!(local.free_unsized(object), Err(FreeError::DoubleFree));
            assert_eq!(
                other.free(object, layout(SURVIVOR)),
                Err(FreeError::DoubleFree)
            );
            assert_eq!(heap.free_unsized(object), Err(FreeError::DoubleFree));
        }
    }
    assert_eq!(heap.epoch_stats(epoch).unwrap().live_objects(), 0);
    let last = local.alloc_in(epoch, layout(SURVIVOR)).unwrap();
    heap.close(epoch).unwrap();
    assert_eq!(
        local.alloc_in(epoch, layout(SURVIVOR)),
        Err(AllocError::EpochClosed)
    );
    assert_eq!(walk(&heap).mixed_slots, 2);
    // SAFETY: live.
    unsafe { other.free_unsized(last) }.unwrap();
    assert_eq!(heap.epoch_at(epoch.index()), None);
    for kept in kept {
        end(&mut other, kept);
    }
    assert_eq!(walk(&heap).mixed_slots, 0);
}

/// The epoch of the slabs that are shared is the heap's own. Catches one in which a token from nowhere allocates, or whose record is
/// opened for another.
#[test]
fn the_heaps_own_epoch_is_closed_to_all() {
    let heap = Heap::<Bumping<Host>>::new(Host::default());
    let mut kept = Vec::new();
    let mut local = teach(&heap, &mut kept);
    let eras = heap.open_epoch().unwrap().era();
    let mixed = walk(&heap).mixed_slots;
    assert!(mixed > 0);
    // The heap's own was opened late.
    let first = steps(1, eras as usize - 3) as u64;
    for index in 1..heap.epoch_records() as u32 {
        for era in first..eras {
            let Some(epoch) = Epoch::from_parts(index, era) else {
                continue;
            };
            // All of them are closed: a slot of those slabs without a holder would count down another epoch's record.
            takes_nothing(&heap, &mut local, epoch);
            // To close one again does nothing, also to that one.
            let _closed = heap.close(epoch);
            assert!(heap.enter(epoch).is_err() && !heap.exit_and_close(epoch));
        }
    }
    // More epochs than there are positions at a time, so that each is tried; under Miri some.
    let open: Vec<_> = (0..steps(200, 30))
        .map(|_| heap.open_epoch().unwrap())
        .collect();
    kept.push(serve(&heap, &mut local, &mut Rng(9)));
    assert_eq!(walk(&heap).mixed_slots, mixed + 1);
    for epoch in open {
        heap.close(epoch).unwrap();
    }
}

/// An object that grows stays in its epoch while that is open. Catches one that moves to the root, as seen in the epoch's count.
#[test]
fn what_grows_stays_in_its_epoch() {
    let heap = Heap::<Bumping<Host>>::new(Host::default());
    let mut kept = Vec::new();
    let mut local = teach(&heap, &mut kept);
    let epoch = heap.open_epoch().unwrap();
    let object = local.alloc_in(epoch, layout(SURVIVOR)).unwrap();
    assert_eq!(heap.epoch_to_grow_in(object), Some(epoch));
    // SAFETY: live, of this layout; the old pointer is not used again.
    let moved = unsafe { local.resize(object, layout(SURVIVOR), layout(600)) }.unwrap();
    assert_eq!(heap.epoch_stats(epoch).unwrap().live_objects(), 1);
    assert_eq!(walk(&heap).mixed_slots, 1, "only a survivor from before");
    // In a block, in its own epoch too, until that is closed; what an older one left is in no epoch that is open.
    assert_eq!(heap.epoch_to_grow_in(moved), Some(epoch));
    assert_eq!(heap.epoch_to_grow_in(kept[1].0), None);
    heap.close(epoch).unwrap();
    assert_eq!(heap.epoch_to_grow_in(moved), None);
    // SAFETY: as above.
    unsafe { local.free(moved, layout(600)) }.unwrap();
}

/// What was learned is forgotten when nothing survives any more. Catches a program that pays for ever for two survivors.
#[test]
#[cfg_attr(miri, ignore = "hundreds of epochs")]
fn what_was_learned_is_forgotten() {
    let heap = Heap::<Bumping<Host>>::new(Host::default());
    let mut kept = Vec::new();
    let mut local = teach(&heap, &mut kept);
    let mut is_mixed = true;
    for _ in 0..300 {
        let epoch = heap.open_epoch().unwrap();
        let object = local.alloc_in(epoch, layout(SURVIVOR)).unwrap();
        is_mixed = heap.epoch_stats(epoch).unwrap().mixed_objects > 0;
        end(&mut local, (object, epoch_of(epoch, object)));
        local.leave(epoch);
        heap.close(epoch).unwrap();
    }
    assert!(!is_mixed);
}

/// Fills an object as a survivor of an epoch is.
fn epoch_of(epoch: Epoch, object: NonNull<u8>) -> Epoch {
    // SAFETY: the test's, and so long.
    unsafe { object.write_bytes(epoch.era() as u8, SURVIVOR) };
    epoch
}

/// Threads serve requests and end each other's survivors. Catches a record that is used again under an object, and one that is lost.
#[test]
fn threads_end_each_others_survivors() {
    use std::sync::Mutex;
    struct Place(Mutex<Option<(NonNull<u8>, Epoch)>>);
    // SAFETY: objects are passed on whole.
    unsafe impl Sync for Place {}
    let heap = Heap::<Bumping<Host>>::new(Host::default());
    heap.set_policy(Policy::keeping(1 << 20));
    let places: Vec<Place> = (0..steps(256, 8))
        .map(|_| Place(Mutex::new(None)))
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..steps(4, 2) {
            let (heap, places) = (&heap, &places);
            scope.spawn(move || {
                let mut local = heap.local().unwrap();
                let mut rng = Rng(thread as u64 + 1);
                for _ in 0..steps(5_000, 12) {
                    let kept = serve(heap, &mut local, &mut rng);
                    let place = &places[rng.below(places.len())].0;
                    let old = place.lock().unwrap().replace(kept);
                    if let Some(old) = old {
                        assert_eq!(heap.epoch_at(old.1.index()), Some(old.1));
                        end(&mut local, old);
                    }
                }
            });
        }
    });
    let mut local = heap.local().unwrap();
    let mut left = 0;
    for place in &places {
        if let Some(kept) = place.0.lock().unwrap().take() {
            left += 1;
            assert_eq!(heap.epoch_stats(kept.1).unwrap().live_objects(), 1);
            end(&mut local, kept);
        }
    }
    assert!(left > 0);
    drop(local);
    heap.reclaim();
    let (census, stats) = (walk(&heap), heap.stats());
    assert_eq!(
        (census.blocks, census.slabs, stats.closing_epochs),
        (0, 0, 0)
    );
}

/// All epochs that there are are closed in the middle of an allocation for which the heap opens its own, at each moment that it holds no
/// lock. Catches one that is closed before it is known as the heap's own, and whose record is then another's.
#[test]
#[cfg_attr(miri, ignore = "heaps are leaked")]
fn the_heaps_own_epoch_is_nobody_elses() {
    for stop in 1..12 {
        let heap: &'static Heap<Bumping<Host, Hooked>> =
            Box::leak(Box::new(Heap::new(Host::default())));
        let mut local = heap.local().unwrap();
        for _ in 0..18 {
            let epoch = heap.open_epoch().unwrap();
            let _kept = local.alloc_in(epoch, layout(SURVIVOR)).unwrap();
            local.leave(epoch);
            heap.close(epoch).unwrap();
        }
        let epoch = heap.open_epoch().unwrap();
        let mut held = 0;
        let closes_all = move |is_lock: bool, number: usize| {
            held += if is_lock { 1 } else { -1 };
            if held == 0 && number == stop {
                let all = (1..heap.epoch_records()).filter_map(|index| heap.epoch_at(index));
                all.filter(|other| *other != epoch).for_each(|other| {
                    let _closed = heap.close(other);
                });
            }
        };
        let made = hooked(closes_all, || local.alloc_in(epoch, layout(SURVIVOR)));
        // Nothing is in the heap's own then, that would keep its record.
        // SAFETY: it is live, of this layout.
        unsafe { local.free(made.unwrap(), layout(SURVIVOR)) }.unwrap();
        drop(local);
        heap.reclaim();
        let others: Vec<_> = (0..300).map(|_| heap.open_epoch().unwrap()).collect();
        for other in others {
            assert_eq!(
                heap.epoch_at(other.index()),
                Some(other),
                "stopped at {stop}"
            );
            heap.close(other).unwrap();
        }
        walk(heap);
    }
}

/// What an epoch left is told by size: in blocks, in slabs, in those that epochs share, and large. Catches a kind of place that is
/// forgotten, and objects that are counted by the room that they have instead of their own.
#[test]
fn what_is_left_is_told_by_size() {
    let heap = Heap::<Bumping<Host>>::new(Host::default());
    let mut kept = Vec::new();
    let mut local = teach(&heap, &mut kept);
    let epoch = heap.open_epoch().unwrap();
    let left = [(300, 3), (5000, 2), (SURVIVOR, 4), (100_000, 1)];
    let mut objects = Vec::new();
    for (size, count) in left {
        objects.extend((0..count).map(|_| (local.alloc_in(epoch, layout(size)).unwrap(), size)));
    }
    let of_slab = heap.alloc_in(epoch, layout(20)).unwrap();
    let dead = local.alloc_in(epoch, layout(2000)).unwrap();
    free(&heap, dead, 2000);
    local.leave(epoch);
    heap.close(epoch).unwrap();
    let stats = heap.epoch_stats(epoch).unwrap();
    let sizes: Vec<_> = stats.sizes.iter().collect();
    let expected = [(32, 1), (128, 4), (512, 3), (8192, 2), (131_072, 1)];
    assert_eq!(sizes, expected);
    assert_eq!(stats.sizes.objects(), stats.live_objects());
    for (object, size) in objects {
        free(&heap, object, size);
    }
    free(&heap, of_slab, 20);
    assert_eq!(heap.epoch_at(epoch.index()), None);
}
