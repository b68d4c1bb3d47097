//! When a local takes a class for one whose objects outlive their epochs, and when it does not.

use crate::common::{Bumping, Rng, layout, steps, walk};
use crate::survivors::{Host, SURVIVOR, Unchecked, end, serve};
use core::ptr::NonNull;
use std::collections::VecDeque;
use temporal_slab::config::Config;
use temporal_slab::{Heap, Local};

/// Frees all of them.
fn free_all<C: Config<Provider = Host>>(
    local: &mut Local<'_, C>,
    objects: impl IntoIterator<Item = (NonNull<u8>, usize)>,
) {
    for (object, size) in objects {
        // SAFETY: live, of this layout, and the test's.
        unsafe { local.free(object, layout(size)) }.unwrap();
    }
}

/// Epochs whose objects are freed some epochs later, all of them, in the order in which they came.
fn whole_epochs_stay_in_blocks<C: Config<Provider = Host>>() {
    let heap = Heap::<C>::new(Host::default());
    let mut local = heap.local().unwrap();
    let mut rng = Rng(1);
    let mut waiting = VecDeque::new();
    let mut live = 0;
    for number in 0..400 {
        let epoch = heap.open_epoch().unwrap();
        let mut objects = Vec::new();
        for _ in 0..300 {
            let size = rng.below(700) + 1;
            live += size;
            objects.push((local.alloc_in(epoch, layout(size)).unwrap(), size));
        }
        local.leave(epoch);
        heap.close(epoch).unwrap();
        waiting.push_back(objects);
        if waiting.len() > 8 {
            for (object, size) in waiting.pop_front().unwrap() {
                live -= size;
                // SAFETY: live, of this layout.
                unsafe { local.free(object, layout(size)) }.unwrap();
            }
        }
        if number % 50 != 10 {
            continue;
        }
        let stats = heap.stats();
        assert_eq!(walk(&heap).mixed_slots, 0, "of epoch {number}");
        // Blocks that are left are full, but for one of each epoch; the local has some empty ones.
        let most = live + live / 8 + (waiting.len() + 20) * (16 << 10);
        assert!(
            stats.blocks.bytes <= most as u64,
            "{live}: {:?}",
            stats.blocks
        );
    }
}

/// Epochs all of whose objects outlive them lie in blocks, which are as full as slabs would be, and end together. Catches a local that
/// takes each class for one of survivors then: it would pay for every object what one that survives alone costs.
#[test]
#[cfg_attr(miri, ignore = "many epochs")]
fn what_survives_whole_stays_in_blocks() {
    whole_epochs_stay_in_blocks::<Bumping<Host>>();
    whole_epochs_stay_in_blocks::<Unchecked<Host>>();
}

/// Requests of whose objects a tenth is freed elsewhere, some requests later. Catches a local that takes for survivors what merely goes
/// another way: each of their classes would take a slot and count in the epoch's record.
#[test]
#[cfg_attr(miri, ignore = "many epochs")]
fn what_another_thread_frees_soon_stays_in_blocks() {
    freed_elsewhere_stays_in_blocks::<Bumping<Host>>();
    freed_elsewhere_stays_in_blocks::<Unchecked<Host>>();
}

fn freed_elsewhere_stays_in_blocks<C: Config<Provider = Host>>() {
    let heap = Heap::<C>::new(Host::default());
    let (mut local, mut other) = (heap.local().unwrap(), heap.local().unwrap());
    let mut rng = Rng(1);
    let mut waiting = VecDeque::new();
    for _ in 0..2_000 {
        let epoch = heap.open_epoch().unwrap();
        for number in 0..40 {
            let size = rng.below(700) + 1;
            let object = local.alloc_in(epoch, layout(size)).unwrap();
            if number % 10 == 3 {
                waiting.push_back((object, size));
            } else {
                // SAFETY: live, of this layout.
                unsafe { local.free(object, layout(size)) }.unwrap();
            }
        }
        assert_eq!(heap.epoch_stats(epoch).unwrap().mixed_objects, 0);
        local.leave(epoch);
        heap.close(epoch).unwrap();
        while waiting.len() > 4 * 12 {
            let (object, size) = waiting.pop_front().unwrap();
            // SAFETY: live, of this layout.
            unsafe { other.free(object, layout(size)) }.unwrap();
        }
    }
}

/// Epochs that are closed while all lives, and of which all but a few objects are freed later.
fn late_survivors_take_slots<C: Config<Provider = Host>>() {
    let heap = Heap::<C>::new(Host::default());
    let mut local = heap.local().unwrap();
    let mut rng = Rng(1);
    let (epochs, size) = (600, 200);
    let (mut waiting, mut kept) = (VecDeque::new(), Vec::new());
    for _ in 0..epochs {
        let epoch = heap.open_epoch().unwrap();
        let objects: Vec<_> = (0..150)
            .map(|_| local.alloc_in(epoch, layout(size)).unwrap())
            .collect();
        local.leave(epoch);
        heap.close(epoch).unwrap();
        waiting.push_back(objects);
        if waiting.len() > 4 {
            let mut objects = waiting.pop_front().unwrap();
            for _ in 0..3 {
                kept.push(objects.swap_remove(rng.below(objects.len())));
            }
            for object in objects {
                // SAFETY: live, of this layout.
                unsafe { local.free(object, layout(size)) }.unwrap();
            }
        }
    }
    let stats = heap.stats();
    assert!(
        stats.blocks.blocks < steps(200, 100) as u64,
        "{:?}",
        stats.blocks
    );
    let left = kept.into_iter().chain(waiting.into_iter().flatten());
    free_all(&mut local, left.map(|object| (object, size)));
    drop(local);
    heap.reclaim();
    let census = walk(&heap);
    assert_eq!((census.blocks, census.slabs), (0, 0));
}

/// A few objects of epochs that were whole when they were closed do not keep blocks for ever: a local looks at some of the blocks
/// again. Catches one that never does: each epoch would keep its two blocks or three.
#[test]
#[cfg_attr(miri, ignore = "many epochs")]
fn what_survives_in_the_end_takes_slots() {
    late_survivors_take_slots::<Bumping<Host>>();
    late_survivors_take_slots::<Unchecked<Host>>();
}

/// Epochs of many blocks each, of which all but a hundredth is freed when twelve more were closed.
fn old_blocks_teach<C: Config<Provider = Host>>() {
    const EPOCHS: usize = 60;
    let heap = Heap::<C>::new(Host::default());
    let mut local = heap.local().unwrap();
    let mut rng = Rng(1);
    let (mut waiting, mut kept) = (VecDeque::new(), Vec::new());
    let mut before = 0;
    for number in 0..EPOCHS {
        let epoch = heap.open_epoch().unwrap();
        let objects: Vec<_> = (0..3000)
            .map(|_| {
                let size = rng.below(400) + 1;
                (local.alloc_in(epoch, layout(size)).unwrap(), size)
            })
            .collect();
        local.leave(epoch);
        heap.close(epoch).unwrap();
        waiting.push_back(objects);
        if waiting.len() > 12 {
            for (object, size) in waiting.pop_front().unwrap() {
                if rng.below(100) == 0 {
                    kept.push((object, size));
                    continue;
                }
                // SAFETY: live, of this layout.
                unsafe { local.free(object, layout(size)) }.unwrap();
            }
        }
        if number == EPOCHS * 2 / 3 {
            before = heap.stats().blocks.bytes;
        }
    }
    let blocks = heap.stats().blocks;
    assert!(blocks.bytes <= before, "{before} and {blocks:?}");
    free_all(
        &mut local,
        kept.into_iter().chain(waiting.into_iter().flatten()),
    );
    drop(local);
    heap.reclaim();
    let census = walk(&heap);
    assert_eq!((census.blocks, census.slabs), (0, 0));
}

/// A local learns what survives, of whatever sizes, though most of a block dies when a hundred others were left since. Catches one that looks at a
/// block once, while most of it lives: each epoch's blocks would be kept for a few objects.
#[test]
#[cfg_attr(miri, ignore = "many epochs")]
fn what_dies_long_after_its_epoch_teaches() {
    old_blocks_teach::<Bumping<Host>>();
    old_blocks_teach::<Unchecked<Host>>();
}

/// A local learns what survives though blocks that it left earlier live whole for good. Catches one that has no place for others.
#[test]
#[cfg_attr(miri, ignore = "many epochs")]
fn whole_blocks_do_not_stop_learning() {
    let heap = Heap::<Unchecked<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let mut rng = Rng(1);
    let mut whole = Vec::new();
    for _ in 0..20 {
        let epoch = heap.open_epoch().unwrap();
        whole.extend((0..70).map(|_| local.alloc_in(epoch, layout(900)).unwrap()));
        local.leave(epoch);
        heap.close(epoch).unwrap();
    }
    let before = heap.stats().blocks.blocks;
    let kept: Vec<_> = (0..400)
        .map(|_| serve(&heap, &mut local, &mut rng))
        .collect();
    let blocks = heap.stats().blocks.blocks - before;
    assert!(blocks < 120, "{blocks} of {} survivors", kept.len());
    for one in kept {
        end(&mut local, one);
    }
    free_all(&mut local, whole.into_iter().map(|object| (object, 900)));
}

/// There are hardly more records than epochs that have a survivor at a time, however long a program runs, whichever of them end; the first
/// two hundred never do. Catches a search that looks at these again and again: each open would add a record.
#[test]
#[cfg_attr(miri, ignore = "many epochs")]
fn records_are_used_again_behind_survivors() {
    for is_random in [false, true] {
        let heap = Heap::<Bumping<Host>>::new(Host::default());
        let mut local = heap.local().unwrap();
        let mut rng = Rng(1);
        let (mut of_old, mut kept) = (Vec::new(), VecDeque::new());
        for _ in 0..12_000 {
            let epoch = heap.open_epoch().unwrap();
            let object = local.alloc_in(epoch, layout(SURVIVOR)).unwrap();
            local.leave(epoch);
            heap.close(epoch).unwrap();
            if of_old.len() < 200 {
                of_old.push(object);
                continue;
            }
            kept.push_back(object);
            if kept.len() > 2000 {
                if is_random {
                    let last = kept.len() - 1;
                    kept.swap(rng.below(last), last);
                }
                let object = if is_random {
                    kept.pop_back()
                } else {
                    kept.pop_front()
                };
                // SAFETY: live, of this layout.
                unsafe { local.free(object.unwrap(), layout(SURVIVOR)) }.unwrap();
            }
        }
        assert!(
            heap.epoch_records() < 2600,
            "{} records",
            heap.epoch_records()
        );
        let left = kept.into_iter().chain(of_old);
        free_all(&mut local, left.map(|object| (object, SURVIVOR)));
    }
}
