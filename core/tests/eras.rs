//! What one epoch leaves for the next: under the policies that keep memory warm a row's empty slabs wait for the era
//! after, and nothing else of the era before is found there.
//!
//! Not under Miri: these are figures at each step. What is unsafe here `eras_under_contention` has, among the epochs.
#![cfg(not(miri))]

mod common;

use common::figures::agree;
use common::host::HostProvider;
use common::{Rng, free, layout, walk};
use core::ptr::NonNull;
use temporal_slab::config::Checked;
use temporal_slab::{AllocError, DefaultLock, Epoch, HandleError, Heap, Local, Policy};

const CHUNK: usize = 1 << 18;
type Host = HostProvider<CHUNK>;
type TestHeap<C = Checked> = Heap<Host, DefaultLock, C>;

/// Sizes of several classes.
const SIZES: [usize; 4] = [16, 64, 200, 700];

/// Slabs that were made so far.
fn made(heap: &TestHeap) -> u64 {
    heap.stats().slabs.made
}

/// Under `Warm` and `Never` an epoch finds the slabs that the one before it left, on a local and on the shared path;
/// under the others it finds none, and their memory is gone at the close. All figures are those of the era alone, at
/// each step. Catches slabs that are lost between two eras, counted in both, or kept where they should go; and bins that
/// do not open again.
#[test]
fn an_era_takes_over_what_waits() {
    let policies = [
        (Policy::Warm { bytes: 1 << 20 }, true),
        (Policy::Never, true),
        (Policy::DEFAULT, false),
        (Policy::OnClose, false),
    ];
    // A local takes several slabs that wait at one go: with the shared path beside it, it would make more.
    let ways = policies
        .into_iter()
        .flat_map(|of| [(of, false), (of, true)]);
    for ((policy, keeps), is_shared) in ways {
        let heap = TestHeap::<Checked>::new(Host::default());
        heap.set_policy(policy);
        let mut local = heap.local().unwrap();
        let mut first = None;
        for round in 0..12 {
            let epoch = heap.open_epoch().unwrap();
            let fresh = heap.epoch_stats(epoch).unwrap();
            assert_eq!(
                (
                    fresh.slow.new_slabs,
                    fresh.live_objects(),
                    fresh.slow.hits()
                ),
                (0, 0, 0)
            );
            let count = 90;
            let objects: Vec<_> = (0..count * SIZES.len())
                .map(|n| {
                    let size = SIZES[n % SIZES.len()];
                    let object = if is_shared {
                        heap.alloc_in(epoch, layout(size))
                    } else {
                        local.alloc_in(epoch, layout(size))
                    };
                    (object.unwrap(), size)
                })
                .collect();
            let stats = agree(&heap);
            let of_epoch = heap.epoch_stats(epoch).unwrap();
            assert_eq!(of_epoch.slabs.slabs, stats.slabs.slabs, "they are all its");
            assert_eq!(of_epoch.live_objects(), objects.len() as u64);
            let first = *first.get_or_insert(stats.slabs.made);
            if keeps {
                assert_eq!(
                    stats.slabs.made, first,
                    "round {round} made slabs under {policy:?}"
                );
                let new = if round == 0 { first } else { 0 };
                assert_eq!(
                    of_epoch.slow.new_slabs, new,
                    "what was taken over is not new"
                );
            } else {
                assert_eq!(
                    of_epoch.slow.new_slabs, first,
                    "round {round} under {policy:?}"
                );
            }
            for (object, size) in objects {
                // SAFETY: it is live and freed once.
                unsafe { local.free(object, layout(size)) }.unwrap();
            }
            local.leave(epoch);
            heap.close(epoch).unwrap();
            let stats = agree(&heap);
            assert_eq!(
                (stats.open_epochs, stats.closing_epochs),
                (1, 0),
                "nothing is left of it"
            );
            assert_eq!(stats.slabs.slabs > 0, keeps, "under {policy:?}");
            assert_eq!(
                local.alloc_in(epoch, layout(64)),
                Err(AllocError::EpochClosed)
            );
            assert_eq!(
                heap.alloc_in(epoch, layout(64)),
                Err(AllocError::EpochClosed)
            );
        }
        heap.reclaim();
        let stats = agree(&heap);
        assert_eq!((stats.slabs.slabs, stats.residency.reclaimable()), (0, 0));
    }
}

/// What is freed after the close waits for the next era, too, or goes back, by the policy; and while one object lives
/// the row serves no other era. Catches a row that is taken for drained while it is not.
#[test]
fn a_late_free_waits_for_the_next_era() {
    for policy in [Policy::Warm { bytes: 1 << 20 }, Policy::DEFAULT] {
        let heap = TestHeap::<Checked>::new(Host::default());
        heap.set_policy(policy);
        let keeps = policy != Policy::DEFAULT;
        let old = heap.open_epoch().unwrap();
        let mut objects: Vec<_> = (0..100)
            .map(|_| heap.alloc_in(old, layout(64)).unwrap())
            .collect();
        heap.close(old).unwrap();
        let last = objects.pop().unwrap();
        objects
            .into_iter()
            .for_each(|object| free(&heap, object, 64));
        let next = heap.open_epoch().unwrap();
        let other = heap.alloc_in(next, layout(64)).unwrap();
        let block = |object: NonNull<u8>| object.addr().get() >> 16;
        assert_ne!(block(last), block(other), "two eras in one block");
        assert_eq!(heap.epoch_stats(old).unwrap().live_objects(), 1);
        walk(&heap);
        free(&heap, last, 64);
        free(&heap, other, 64);
        heap.close(next).unwrap();
        let stats = agree(&heap);
        assert_eq!(stats.closing_epochs, 0);
        assert_eq!(stats.slabs.cached > 0, keeps, "{:?}", stats.slabs);
        let before = made(&heap);
        let third = heap.open_epoch().unwrap();
        let object = heap.alloc_in(third, layout(64)).unwrap();
        assert_eq!(made(&heap) == before, keeps);
        free(&heap, object, 64);
    }
}

/// A handle of an era that is over is refused, though its slab serves again, in the same row. Catches a slab that
/// begins another life with its old tags.
#[test]
fn handles_of_an_era_before_are_stale() {
    let heap = TestHeap::<Checked>::new(Host::default());
    heap.set_policy(Policy::Never);
    let mut dead = Vec::new();
    let mut slabs = None;
    for _ in 0..20 {
        let epoch = heap.open_epoch().unwrap();
        let handles: Vec<_> = (0..50)
            .map(|_| heap.alloc_handle_in(epoch, layout(48)).unwrap())
            .collect();
        for handle in &dead {
            assert_eq!(heap.check_handle(*handle), Err(HandleError::Stale));
        }
        for handle in handles {
            assert!(heap.get_raw(handle).is_some());
            heap.free_raw(handle).unwrap();
            dead.push(handle);
        }
        heap.close(epoch).unwrap();
        let now = agree(&heap).slabs.made;
        assert_eq!(*slabs.get_or_insert(now), now, "the same slabs");
    }
}

/// The bound of `Warm` is one for all rows, however their epochs come and go on locals that keep in mind what they took:
/// what waits is never more, and is counted to the byte. Catches what an epoch cache took that is told twice or not at all.
#[test]
fn what_waits_is_bounded() {
    let heap = TestHeap::<Checked>::new(Host::default());
    let bytes = 96 << 10;
    heap.set_policy(Policy::Warm { bytes });
    let mut locals: Vec<_> = (0..3).map(|_| heap.local().unwrap()).collect();
    let mut rng = Rng(5);
    for _ in 0..200 {
        let epochs: Vec<Epoch> = (0..3).map(|_| heap.open_epoch().unwrap()).collect();
        let mut objects = Vec::new();
        for _ in 0..rng.below(900) {
            let (number, size) = (rng.below(3), SIZES[rng.below(4)]);
            let object = locals[number]
                .alloc_in(epochs[number], layout(size))
                .unwrap();
            objects.push((object, size));
        }
        walk(&heap);
        for (object, size) in objects {
            // SAFETY: it is live and freed once.
            unsafe { locals[rng.below(3)].free(object, layout(size)) }.unwrap();
        }
        for (local, epoch) in locals.iter_mut().zip(&epochs) {
            if rng.below(4) > 0 {
                local.leave(*epoch);
            }
            if rng.below(8) == 0 {
                local.flush();
            }
            heap.close(*epoch).unwrap();
        }
        let stats = agree(&heap);
        assert!(
            stats.residency.cached <= bytes as u64,
            "{:?}",
            stats.residency
        );
    }
    drop(locals);
    assert!(heap.bytes().reclaimable <= bytes + CHUNK);
    heap.reclaim();
    assert_eq!(heap.bytes().reclaimable, 0);
    assert_eq!(walk(&heap).slabs, 0);
}

/// Epochs that were filled and emptied on a local, and are filled again from what waited.
fn filled_from_what_waited<'h>(
    heap: &'h TestHeap,
    local: &mut Local<'h, Host, DefaultLock, Checked>,
    epochs: usize,
    count: usize,
) -> Vec<(Epoch, Vec<NonNull<u8>>)> {
    let fill = |local: &mut Local<'h, Host, DefaultLock, Checked>| -> Vec<_> {
        let opened: Vec<_> = (0..epochs).map(|_| heap.open_epoch().unwrap()).collect();
        let fill = |epoch| {
            (0..count)
                .map(|_| local.alloc_in(epoch, layout(64)).unwrap())
                .collect()
        };
        let filled: Vec<Vec<_>> = opened.iter().copied().map(fill).collect();
        opened.into_iter().zip(filled).collect()
    };
    let filled = fill(local);
    end(heap, local, filled);
    fill(local)
}

fn end<'h>(
    heap: &'h TestHeap,
    local: &mut Local<'h, Host, DefaultLock, Checked>,
    filled: Vec<(Epoch, Vec<NonNull<u8>>)>,
) {
    for (_, objects) in &filled {
        for object in objects {
            // SAFETY: it is live and freed once.
            unsafe { local.free(*object, layout(64)) }.unwrap();
        }
    }
    for (epoch, _) in filled {
        local.leave(epoch);
        heap.close(epoch).unwrap();
    }
}

/// A bound that is lowered while epoch caches have what they took from caches holds when they put it back. Catches what was
/// taken under one bound and is put back without a look at the next.
#[test]
fn a_lower_bound_holds_at_once() {
    let heap = TestHeap::<Checked>::new(Host::default());
    heap.set_policy(Policy::Warm { bytes: 1 << 20 });
    let mut local = heap.local().unwrap();
    let filled = filled_from_what_waited(&heap, &mut local, 3, 900);
    let bytes = 4096;
    heap.set_policy(Policy::Warm { bytes });
    for (epoch, objects) in &filled {
        for object in objects {
            // SAFETY: it is live and freed once.
            unsafe { local.free(*object, layout(64)) }.unwrap();
        }
        local.leave(*epoch);
    }
    let stats = agree(&heap);
    assert!(
        stats.residency.cached <= bytes as u64,
        "{:?}",
        stats.residency
    );
    end(
        &heap,
        &mut local,
        filled
            .into_iter()
            .map(|(epoch, _)| (epoch, Vec::new()))
            .collect(),
    );
    assert!(agree(&heap).residency.cached <= bytes as u64);
}

/// What epoch caches have in use is not idle, and takes at most a quarter of the bound from others. Catches live memory that is
/// told as empty, to whoever gives back what is not used.
#[test]
fn what_epoch_caches_use_is_not_idle() {
    let heap = TestHeap::<Checked>::new(Host::default());
    heap.set_policy(Policy::Warm { bytes: 1 << 20 });
    let mut local = heap.local().unwrap();
    let filled = filled_from_what_waited(&heap, &mut local, 1, 1000);
    heap.idle_bytes();
    assert!(heap.idle_bytes() <= heap.bytes().reclaimable);
    end(&heap, &mut local, filled);
    heap.reclaim();
    heap.set_policy(Policy::Warm { bytes: 64 << 10 });
    let filled = filled_from_what_waited(&heap, &mut local, 1, 1000);
    let mut other = heap.local().unwrap();
    let rounds = |other: &mut Local<'_, _, _, _>| {
        let epoch = heap.open_epoch().unwrap();
        let objects: Vec<_> = (0..200)
            .map(|_| other.alloc_in(epoch, layout(64)).unwrap())
            .collect();
        for object in objects {
            // SAFETY: it is live and freed once.
            unsafe { other.free(object, layout(64)) }.unwrap();
        }
        other.leave(epoch);
        heap.close(epoch).unwrap();
    };
    rounds(&mut other);
    let before = made(&heap);
    (0..20).for_each(|_| rounds(&mut other));
    assert_eq!(made(&heap), before, "the other finds what it left");
    end(&heap, &mut local, filled);
    agree(&heap);
}

/// An epoch cache that served epochs before holds no more in the next than one that did not. Catches stores that were made for
/// much use and are filled for little.
#[test]
fn a_spare_epoch_cache_holds_no_more() {
    let held = |epochs: usize| {
        let heap = TestHeap::<Checked>::new(Host::default());
        heap.set_policy(Policy::Never);
        // Slabs that wait.
        let mut filler = heap.local().unwrap();
        let filled = filled_from_what_waited(&heap, &mut filler, 1, 1500);
        end(&heap, &mut filler, filled);
        drop(filler);
        let mut local = heap.local().unwrap();
        for _ in 0..epochs {
            let epoch = heap.open_epoch().unwrap();
            let object = local.alloc_in(epoch, layout(64)).unwrap();
            end(&heap, &mut local, vec![(epoch, vec![object])]);
        }
        let epoch = heap.open_epoch().unwrap();
        let object = local.alloc_in(epoch, layout(64)).unwrap();
        let held = local.stats().held_slots;
        end(&heap, &mut local, vec![(epoch, vec![object])]);
        held
    };
    assert_eq!(held(8), held(0));
}

/// A policy that gives back on a close, set after one that does not, gives back what waits of epochs that are closed.
#[test]
fn what_waits_goes_with_its_policy() {
    for policy in [Policy::OnClose, Policy::DEFAULT, Policy::Eager] {
        let heap = TestHeap::<Checked>::new(Host::default());
        heap.set_policy(Policy::Never);
        let mut local = heap.local().unwrap();
        let filled = filled_from_what_waited(&heap, &mut local, 2, 200);
        end(&heap, &mut local, filled);
        assert!(agree(&heap).residency.cached > 0);
        heap.set_policy(policy);
        let stats = agree(&heap);
        assert_eq!(stats.residency.cached, 0, "{policy:?}");
        assert!(stats.pages.decommits > 0, "{policy:?}");
    }
}
