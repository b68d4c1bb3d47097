//! Bump blocks: what a young epoch lies in.

use crate::common::host::HostProvider;
use crate::common::{Bumping, Rng, layout, steps, walk};
use core::ptr::NonNull;
use temporal_slab::{AllocError, FreeError, Heap, Local, Policy};

type Host = HostProvider<{ 1 << 18 }>;
type TestHeap = Heap<Bumping<Host>>;
type TestLocal<'h> = Local<'h, Bumping<Host>>;

fn filled(object: NonNull<u8>, size: usize) -> NonNull<u8> {
    // SAFETY: the object is the test's and so long.
    unsafe { object.write_bytes(size as u8, size) };
    object
}

fn free(local: &mut TestLocal<'_>, object: NonNull<u8>, size: usize) {
    // SAFETY: the test's objects are live and freed once.
    unsafe { local.free(object, layout(size)) }.unwrap();
}

/// Serves an epoch of so many objects of a size, and says how many bytes of blocks it had in the end.
fn blocks_for(heap: &TestHeap, local: &mut TestLocal<'_>, count: usize, size: usize) -> u64 {
    let epoch = heap.open_epoch().unwrap();
    let objects: Vec<_> = (0..count)
        .map(|_| local.alloc_in(epoch, layout(size)).unwrap())
        .collect();
    let bytes = heap.epoch_stats(epoch).unwrap().blocks.bytes;
    for object in objects {
        free(local, object, size);
    }
    local.leave(epoch);
    heap.close(epoch).unwrap();
    bytes
}

/// An epoch has blocks by what those before it needed: one where one does, a small one for little, and fewer bytes by and by.
/// Catches epochs of a few objects that take 64 KiB, and one of 60 KiB that takes many blocks again and again.
#[test]
fn blocks_are_as_long_as_epochs_before_needed() {
    const KIB: u64 = 1024;
    let heap = TestHeap::new(Host::default());
    let mut local = heap.local().unwrap();
    assert_eq!(blocks_for(&heap, &mut local, 4, 100), 8 * KIB);
    assert_eq!(blocks_for(&heap, &mut local, 15, 4000), (8 + 16 + 64) * KIB);
    assert_eq!(blocks_for(&heap, &mut local, 15, 4000), 64 * KIB);
    assert_eq!(blocks_for(&heap, &mut local, 15, 4000), 64 * KIB);
    // Less is expected by and by.
    let shrinking: Vec<_> = (0..10)
        .map(|_| blocks_for(&heap, &mut local, 4, 100) / KIB)
        .collect();
    assert!(
        shrinking.is_sorted_by(|one, next| one >= next),
        "{shrinking:?}"
    );
    assert_eq!((shrinking[0], shrinking[9]), (64, 8));

    // Also where epochs stay open.
    blocks_for(&heap, &mut local, 15, 4000);
    let open: Vec<_> = (0..100)
        .map(|_| {
            let epoch = heap.open_epoch().unwrap();
            (local.alloc_in(epoch, layout(100)).unwrap(), epoch)
        })
        .collect();
    let bytes = heap.stats().blocks.bytes;
    assert!(bytes <= (100 * 8 + 4 * 64 + 8 * 16) * KIB, "{bytes}");
    for (object, epoch) in open {
        free(&mut local, object, 100);
        local.leave(epoch);
        heap.close(epoch).unwrap();
    }
}

/// Where there is no memory for the block that is expected a shorter one does. Catches an allocation that is refused then. (Where chunks are
/// short, what is given back here leaves room for a long one.)
#[test]
#[cfg(target_pointer_width = "64")]
fn a_shorter_block_does_where_memory_is_short() {
    const KIB: u64 = 1024;
    let heap = TestHeap::new(Host::default());
    let mut local = heap.local().unwrap();
    assert_eq!(blocks_for(&heap, &mut local, 15, 4000), (8 + 16 + 64) * KIB);
    let epoch = heap.open_epoch().unwrap();
    let kept: Vec<_> = (0..15)
        .map(|_| local.alloc_in(epoch, layout(4000)).unwrap())
        .collect();
    local.flush();
    heap.reclaim();
    let epoch = heap.open_epoch().unwrap();
    // As little more as does.
    let committed = heap.stats().pages.committed as usize;
    let mut limits = (committed..).step_by(4096);
    let object = limits.find_map(|limit| {
        heap.set_limit(limit);
        local.alloc_in(epoch, layout(4000)).ok()
    });
    assert!(heap.epoch_stats(epoch).unwrap().blocks.bytes < 64 * KIB);
    free(&mut local, object.unwrap(), 4000);
    for object in kept {
        free(&mut local, object, 4000);
    }
}

/// Objects of an epoch lie one behind the other, are told apart, and go with it. Catches objects that overlap, a count that is
/// off, and a block that is not used again.
#[test]
fn objects_of_a_young_epoch_share_blocks() {
    let heap = TestHeap::new(Host::default());
    let mut local = heap.local().unwrap();
    for round in 0..steps(1000, 3) {
        let epoch = heap.open_epoch().unwrap();
        let mut rng = Rng(round as u64 + 1);
        let objects: Vec<_> = (0..40)
            .map(|_| {
                let size = rng.below(800) + 1;
                let object = local.alloc_in(epoch, layout(size)).unwrap();
                (filled(object, size), size)
            })
            .collect();
        assert_eq!(heap.epoch_stats(epoch).unwrap().live_objects(), 40);
        if round % 64 == 0 {
            assert_eq!(walk(&heap).block_objects, 40);
        }
        for (object, size) in &objects {
            assert!(heap.usable_size(*object).unwrap() >= *size);
            // SAFETY: it is live, and so long.
            let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), *size) };
            assert!(bytes.iter().all(|byte| *byte == *size as u8));
        }
        for (object, size) in objects {
            free(&mut local, object, size);
        }
        local.leave(epoch);
        heap.close(epoch).unwrap();
    }
    let census = walk(&heap);
    assert_eq!(census.block_objects, 0);
    assert!(census.blocks <= 3, "{census:?}");
    drop(local);
    heap.reclaim();
    assert_eq!(walk(&heap).blocks, 0);
}

/// Whatever is freed that is not a live object is refused, by the owner and by others, and nothing has changed then. Catches a
/// second free, one of a neighbour's middle, of what was never laid, of another size, and of what an alignment skipped.
#[test]
fn what_is_no_live_object_is_refused() {
    let heap = TestHeap::new(Host::default());
    let (mut owner, mut other) = (heap.local().unwrap(), heap.local().unwrap());
    let epoch = heap.open_epoch().unwrap();
    let a = owner.alloc_in(epoch, layout(48)).unwrap();
    let aligned = core::alloc::Layout::from_size_align(64, 64).unwrap();
    let b = owner.alloc_in(epoch, aligned).unwrap();
    assert_eq!(b.addr().get() % 64, 0);
    let at = |object: NonNull<u8>, by: usize| object.map_addr(|at| at.checked_add(by).unwrap());
    let misuse = |local: &mut TestLocal<'_>| {
        // SAFETY: a checked heap refuses what is no live object; that it does is what is tried.
        unsafe {
            for size in [64, 32, 48 + 2048, 48 + 4096, 0] {
                let freed = local.free(a, layout(size));
                assert_eq!(freed, Err(FreeError::WrongLayout), "{size}");
            }
            assert_eq!(local.free(at(a, 16), layout(48)), Err(FreeError::Interior));
            assert_eq!(local.free(at(a, 7), layout(48)), Err(FreeError::Interior));
            assert_eq!(local.free_unsized(at(b, 64)), Err(FreeError::DoubleFree));
            assert_eq!(local.free_unsized(at(b, 4096)), Err(FreeError::DoubleFree));
            if b.addr().get() - a.addr().get() > 48 {
                assert_eq!(local.free_unsized(at(a, 48)), Err(FreeError::Interior));
            }
        }
        assert_eq!(
            (local.usable_size(a), local.usable_size(b)),
            (Ok(48), Ok(64))
        );
    };
    misuse(&mut owner);
    misuse(&mut other);
    free(&mut owner, a, 48);
    // SAFETY: as above.
    unsafe {
        assert_eq!(owner.free(a, layout(48)), Err(FreeError::DoubleFree));
        assert_eq!(other.free_unsized(a), Err(FreeError::DoubleFree));
        other.free_unsized(b).unwrap();
        assert_eq!(other.free_unsized(b), Err(FreeError::DoubleFree));
        assert_eq!(owner.free(b, aligned), Err(FreeError::DoubleFree));
        assert_eq!(heap.free_unsized(b), Err(FreeError::DoubleFree));
    }
    assert_eq!(heap.epoch_stats(epoch).unwrap().live_objects(), 0);
    assert_eq!(walk(&heap).block_objects, 0);
    owner.leave(epoch);
    heap.close(epoch).unwrap();
    assert_eq!(
        owner.alloc_in(epoch, layout(48)),
        Err(AllocError::EpochClosed)
    );
    // Of what was a block and is one of another epoch.
    let next = heap.open_epoch().unwrap();
    let c = other.alloc_in(next, layout(400)).unwrap();
    for object in [a, b] {
        if object != c {
            // SAFETY: as above.
            assert!(unsafe { owner.free_unsized(object) }.is_err());
        }
    }
    free(&mut owner, c, 400);
    drop((owner, other));
    heap.reclaim();
    assert_eq!(walk(&heap).blocks, 0);
}

/// Threads lay, free their own and what others laid, while epochs are opened and closed under them. Catches a block that two
/// have, one that is lost, and a record that is used again while a block is of it.
#[test]
fn blocks_end_once_whoever_frees_last() {
    use std::sync::Mutex;
    let heap = TestHeap::new(Host::default());
    heap.set_policy(Policy::keeping(1 << 20));
    struct Place(Mutex<Option<(NonNull<u8>, usize)>>);
    // SAFETY: objects are passed on whole.
    unsafe impl Sync for Place {}
    let places: Vec<Place> = (0..64).map(|_| Place(Mutex::new(None))).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (heap, places) = (&heap, &places);
            scope.spawn(move || {
                let mut local = heap.local().unwrap();
                let mut rng = Rng(thread + 1);
                for round in 0..steps(3000, 3) {
                    let epoch = heap.open_epoch().unwrap();
                    let mut own = Vec::new();
                    for _ in 0..rng.below(steps(60, 8)) {
                        let size = rng.below(steps(1500, 100)) + 1;
                        match local.alloc_in(epoch, layout(size)) {
                            Ok(object) => own.push((filled(object, size), size)),
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                    // A survivor now and then, for another thread to free.
                    for _ in 0..rng.below(3) {
                        let Some(object) = own.pop() else { break };
                        let place = &places[rng.below(places.len())].0;
                        let old = place.lock().unwrap().replace(object);
                        own.extend(old);
                    }
                    while !own.is_empty() {
                        let (object, size) = own.swap_remove(rng.below(own.len()));
                        // SAFETY: it is live, and so long.
                        let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), size) };
                        assert!(bytes.iter().all(|byte| *byte == size as u8));
                        free(&mut local, object, size);
                    }
                    if round % 2 == 0 {
                        local.leave(epoch);
                    }
                    heap.close(epoch).unwrap();
                }
            });
        }
    });
    let census = walk(&heap);
    let left = census.block_objects + census.mixed_slots;
    let mut local = heap.local().unwrap();
    let mut freed = 0;
    for place in &places {
        if let Some((object, size)) = place.0.lock().unwrap().take() {
            free(&mut local, object, size);
            freed += 1;
        }
    }
    assert_eq!(left, freed);
    drop(local);
    heap.reclaim();
    let census = walk(&heap);
    assert_eq!(
        (census.blocks, census.block_objects, census.slabs),
        (0, 0, 0)
    );
}

/// The object that was laid last grows where it is in whichever block of its epoch that is. Catches vectors that are copied at each step once
/// their epoch has a second block.
#[test]
fn the_last_object_of_a_later_block_grows_where_it_is() {
    let heap = TestHeap::new(Host::default());
    let mut local = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    for block in 1..4 {
        while heap.epoch_stats(epoch).unwrap().blocks.blocks < block {
            local.alloc_in(epoch, layout(1000)).unwrap();
        }
        let object = local.alloc_in(epoch, layout(16)).unwrap();
        // SAFETY: it is live and has these layouts, one after the other.
        unsafe {
            assert!(local.resize_near(object, layout(16), layout(700)));
            assert!(local.resize_near(object, layout(700), layout(900)));
            assert!(!local.resize_near(object, layout(900), layout(9000)));
            local.free(object, layout(900)).unwrap();
        }
    }
}

/// The object that was laid last grows where it is, and one that cannot stays in its epoch. Catches a vector that is copied at
/// each doubling, and one that leaves its epoch.
#[test]
fn the_last_object_grows_where_it_is() {
    let heap = TestHeap::new(Host::default());
    let mut local = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    let object = filled(local.alloc_in(epoch, layout(64)).unwrap(), 64);
    let mut size = 64;
    for new in [100, 128, 500, 1000, 2000, 400, 2048, 7000, 2032, 2033, 6000] {
        // SAFETY: it is live, of this layout.
        let moved = unsafe { local.resize(object, layout(size), layout(new)) }.unwrap();
        assert_eq!(moved, object, "{size} to {new}");
        size = new;
        assert!(heap.usable_size(object).unwrap() >= size);
    }
    let second = local.alloc_in(epoch, layout(32)).unwrap();
    // SAFETY: as above.
    let moved = unsafe { local.resize(object, layout(size), layout(8000)) }.unwrap();
    assert_eq!(heap.epoch_stats(epoch).unwrap().live_objects(), 2);
    // SAFETY: the first bytes came along.
    let bytes = unsafe { core::slice::from_raw_parts(moved.as_ptr(), 64) };
    assert!(bytes.iter().all(|byte| *byte == 64));
    free(&mut local, moved, 8000);
    free(&mut local, second, 32);
    drop(local);
    assert_eq!(walk(&heap).block_objects, 0);
}

/// Epochs of many blocks each that another closes, one after the other, while the local goes on: it leaves their blocks. Catches a local
/// that has more and more of them, for it takes them faster than epochs are closed.
#[test]
fn blocks_of_closed_epochs_do_not_pile_up() {
    let heap = TestHeap::new(Host::default());
    let mut local = heap.local().unwrap();
    for _ in 0..steps(200, 4) {
        let epoch = heap.open_epoch().unwrap();
        let objects: Vec<_> = (0..steps(200, 40))
            .map(|_| local.alloc_in(epoch, layout(1000)).unwrap())
            .collect();
        for object in objects {
            free(&mut local, object, 1000);
        }
        heap.close(epoch).unwrap();
    }
    let stats = heap.stats();
    assert!(stats.blocks.blocks <= 64, "{:?}", stats.blocks);
    assert!(stats.closing_epochs <= 3, "{}", stats.closing_epochs);
}

/// In a block an object is aligned to 16 bytes if no more was asked for. Catches one that stays where it is though the new layout asks
/// for more.
#[test]
fn an_object_moves_if_it_must_be_aligned() {
    let heap = TestHeap::new(Host::default());
    let mut local = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    let _before = local.alloc_in(epoch, layout(16)).unwrap();
    let aligned = core::alloc::Layout::from_size_align(64, 64).unwrap();
    for _ in 0..4 {
        let object = filled(local.alloc_in(epoch, layout(64)).unwrap(), 64);
        // SAFETY: it is live, of this layout.
        let moved = unsafe { local.resize(object, layout(64), aligned) }.unwrap();
        assert!(moved.addr().get().is_multiple_of(64));
        // SAFETY: as above.
        unsafe { local.free(moved, aligned) }.unwrap();
    }
}

/// What no class serves is no block's either, whatever the table of classes is. Catches an object that is laid in a block and freed as a
/// large one.
#[test]
fn what_no_class_serves_is_in_no_block() {
    temporal_slab_actions::configs! {
        struct Two {
            const SIZES: &'static [usize] = &[48, 96];
            const CHECKED: bool = true;
            const BUMPS: bool = true;
        }
    }
    let heap = temporal_slab::Heap::<Two<_>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    let aligned = core::alloc::Layout::from_size_align(90, 64).unwrap();
    for layout in [layout(90), layout(100), layout(1000), layout(5000), aligned] {
        for is_local in [true, false] {
            let object = local.alloc_in(epoch, layout).unwrap();
            assert!(
                heap.usable_size(object).unwrap() >= heap.good_size(layout),
                "{layout:?}"
            );
            // SAFETY: it is live, of this layout.
            let freed = unsafe {
                match is_local {
                    true => local.free(object, layout),
                    false => heap.free(object, layout),
                }
            };
            assert_eq!(freed, Ok(()), "{layout:?}");
        }
    }
    let object = local.alloc_in(epoch, layout(90)).unwrap();
    // SAFETY: it is live, of this layout and then of that.
    unsafe {
        let object = local.resize(object, layout(90), layout(1000)).unwrap();
        heap.free(object, layout(1000)).unwrap();
    }
    local.leave(epoch);
    heap.close(epoch).unwrap();
    assert_eq!(heap.stats().live_bytes, 0);
}

/// Objects whose length takes more than one mark are told as exactly as others. Catches a length that is cut to the bits of a
/// mark, and a mark of the length that is taken for an object.
#[test]
fn long_objects_are_known_by_their_length() {
    let heap = TestHeap::new(Host::default());
    let (mut owner, mut other) = (heap.local().unwrap(), heap.local().unwrap());
    let epoch = heap.open_epoch().unwrap();
    let sizes = [2016, 2032, 2033, 2048, 2064, 4096, 4112, 6160, 8176, 8192];
    for (turn, size) in sizes.into_iter().cycle().take(40).enumerate() {
        let object = filled(owner.alloc_in(epoch, layout(size)).unwrap(), size);
        assert_eq!(heap.usable_size(object), Ok(size.next_multiple_of(16)));
        let at = |by: usize| object.map_addr(|at| at.checked_add(by).unwrap());
        let local = if turn % 2 == 0 {
            &mut owner
        } else {
            &mut other
        };
        // SAFETY: a checked heap refuses what is no live object.
        unsafe {
            for wrong in sizes
                .into_iter()
                .chain([16, size + 16, size - 16, size + 2048])
            {
                if wrong.next_multiple_of(16) != size.next_multiple_of(16) {
                    let freed = local.free(object, layout(wrong));
                    assert_eq!(freed, Err(FreeError::WrongLayout), "{size} as {wrong}");
                }
            }
            for unit in [1, 2, 3, 100] {
                let freed = local.free_unsized(at(16 * unit));
                assert_eq!(freed, Err(FreeError::Interior), "{size}, unit {unit}");
            }
        }
        free(local, object, size);
        // SAFETY: as above.
        let again = unsafe { local.free(object, layout(size)) };
        assert_eq!(again, Err(FreeError::DoubleFree));
    }
    assert_eq!(heap.epoch_stats(epoch).unwrap().live_objects(), 0);
    drop((owner, other));
    assert_eq!(walk(&heap).block_objects, 0);
}

/// An epoch that lives long and churns goes on with slabs, so that what is left of its objects pins little. Catches blocks that
/// pile up behind a few survivors.
#[test]
fn an_old_epoch_goes_on_with_slabs() {
    let heap = TestHeap::new(Host::default());
    let mut local = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    let mut rng = Rng(3);
    let mut live = Vec::new();
    for _ in 0..steps(200_000, 700) {
        let size = rng.below(200) + 1;
        live.push((local.alloc_in(epoch, layout(size)).unwrap(), size));
        if live.len() > 500 {
            let (object, size) = live.swap_remove(rng.below(live.len()));
            free(&mut local, object, size);
        }
    }
    let stats = heap.epoch_stats(epoch).unwrap();
    assert_eq!(stats.live_objects(), live.len() as u64);
    assert!(stats.blocks.blocks <= 16, "{:?}", stats.blocks);
    assert!(cfg!(miri) || stats.slabs.slabs > 0, "{:?}", stats.slabs);
    for (object, size) in live {
        free(&mut local, object, size);
    }
    local.leave(epoch);
    heap.close(epoch).unwrap();
    drop(local);
    heap.reclaim();
    let census = walk(&heap);
    assert_eq!((census.blocks, census.slabs), (0, 0));
}

/// Under a policy that keeps nothing the blocks of a closed epoch are gone.
#[test]
fn blocks_follow_the_policy() {
    for (policy, kept) in [
        (Policy::EAGER, false),
        (Policy::ON_CLOSE, false),
        (Policy::keeping(1 << 20), true),
        (Policy::NEVER, true),
    ] {
        let heap = TestHeap::new(Host::default());
        heap.set_policy(policy);
        let mut local = heap.local().unwrap();
        let epoch = heap.open_epoch().unwrap();
        let objects: Vec<_> = (0..steps(100, 10))
            .map(|_| local.alloc_in(epoch, layout(1000)).unwrap())
            .collect();
        objects
            .into_iter()
            .for_each(|object| free(&mut local, object, 1000));
        local.leave(epoch);
        heap.close(epoch).unwrap();
        assert_eq!(walk(&heap).blocks > 0, kept, "{policy:?}");
        drop(local);
        heap.reclaim();
        assert_eq!(walk(&heap).blocks, 0);
    }
}
