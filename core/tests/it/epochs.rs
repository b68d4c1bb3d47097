//! Epochs: tokens that cannot lie, lifetimes that do not mix. What a close does to memory is in `closes`.

use crate::common::host::HostProvider;
use crate::common::{Rng, ShortRing, free, layout, steps, walk};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::BTreeMap;
use std::sync::mpsc;
use temporal_slab::config::Checked;
use temporal_slab::{AllocError, Epoch, EpochError, EpochState, Heap, Local, Policy, RawHandle};

const CHUNK: usize = 1 << 18;
type Host = HostProvider<CHUNK>;
type TestHeap<C = Checked<Host>> = Heap<C>;

/// After a close every way to allocate with the token is refused by name, at once and for ever, while
/// live objects stay as they are and can be freed.
#[test]
fn a_closed_epoch_is_closed() {
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    let mut live = Vec::new();
    for size in [16, 100, 700, 9000, 100_000, 400_000] {
        live.push((local.alloc_in(epoch, layout(size)).unwrap(), size));
        live.push((heap.alloc_in(epoch, layout(size)).unwrap(), size));
    }
    for (object, size) in &live {
        // SAFETY: it is live and this long.
        unsafe { object.write_bytes(*size as u8, *size) };
    }
    assert_eq!(
        heap.epoch_stats(epoch).unwrap().live_objects(),
        live.len() as u64
    );
    assert_eq!(heap.state(epoch), Ok(EpochState::Active));
    heap.close(epoch).unwrap();
    assert_eq!(heap.state(epoch), Ok(EpochState::Closing));
    for size in [16, 100, 700, 9000, 100_000, 400_000] {
        assert_eq!(
            local.alloc_in(epoch, layout(size)),
            Err(AllocError::EpochClosed),
            "{size}"
        );
        assert_eq!(
            heap.alloc_in(epoch, layout(size)),
            Err(AllocError::EpochClosed),
            "{size}"
        );
    }
    assert_eq!(
        heap.epoch_stats(epoch).unwrap().live_objects(),
        live.len() as u64
    );
    for (number, (object, size)) in live.into_iter().enumerate() {
        // SAFETY: it is live and this long; it is freed once.
        unsafe {
            let bytes = core::slice::from_raw_parts(object.as_ptr(), size);
            assert!(bytes.iter().step_by(97).all(|byte| *byte == size as u8));
            if number % 2 == 0 {
                local.free(object, layout(size)).unwrap();
            } else {
                heap.free(object, layout(size)).unwrap();
            }
        }
    }
    assert_eq!(heap.epoch_stats(epoch).unwrap().live_objects(), 0);
    assert!(heap.close(epoch).is_ok(), "closing again changes nothing");
    drop(local);
    assert_eq!(walk(&heap).live_slots, 0);
}

/// The root epoch is current at first, cannot be closed, and is left open by `advance`.
#[test]
fn the_root_epoch_is_immortal() {
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    let root = heap.current().unwrap();
    assert_eq!((root.index(), root.era()), (0, 1));
    assert_eq!(heap.close(root), Err(EpochError::Immortal));
    let one = heap.advance().unwrap();
    assert_eq!(heap.current(), Ok(one));
    let two = heap.advance().unwrap();
    assert_eq!(heap.state(root), Ok(EpochState::Active));
    assert_eq!(heap.state(one), Ok(EpochState::Closing));
    assert_eq!(heap.state(two), Ok(EpochState::Active));
    assert_eq!(heap.alloc_in(one, layout(64)), Err(AllocError::EpochClosed));
    free(&heap, heap.alloc_in(root, layout(64)).unwrap(), 64);
    free(&heap, heap.alloc_in(two, layout(64)).unwrap(), 64);
}

/// A search for a position begins behind the one that was found last, so a ring that advances uses each as often as the others.
#[test]
fn positions_go_round() {
    let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
    for round in 0..20 {
        let epoch = heap.advance().unwrap();
        assert_eq!(epoch.index(), 1 + round % 5);
    }
}

temporal_slab_actions::configs! {
    /// As [`ShortRing`], of one CPU.
    struct OneCpu {
        const RING: usize = 6;
        const EPOCHS: usize = Self::RING;
        const CHECKED: bool = true;
        fn cpu() -> u32 {
            0
        }
    }
}

/// What a CPU closes it opens again, whatever is open beside it: its lines are in that CPU's caches. What something keeps, or another
/// CPU took meanwhile, it leaves. Catches a hint that is not followed, and one that is followed too far.
#[test]
fn a_position_is_opened_where_it_was_closed() {
    let heap = TestHeap::<OneCpu<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let [first, second] = [(); 2].map(|()| heap.open_epoch().unwrap());
    heap.close(second).unwrap();
    for _ in 0..20 {
        let epoch = heap.open_epoch().unwrap();
        assert_eq!(epoch.index(), second.index());
        heap.close(epoch).unwrap();
    }
    heap.close(first).unwrap();
    let kept = heap.open_epoch().unwrap();
    let object = local.alloc_in(kept, layout(64)).unwrap();
    heap.close(kept).unwrap();
    let others = [(); 4].map(|()| heap.open_epoch().unwrap());
    assert!(others.iter().all(|other| other.index() != kept.index()));
    assert_eq!(heap.open_epoch(), Err(EpochError::RingFull));
    free(&heap, object, 64);
}

/// More advances than positions, with a survivor in each epoch: positions with live objects are
/// skipped, and when all have some the answer is `RingFull`, not a mix of lifetimes. Survivors are
/// intact; a position whose survivor dies is used again, in a new era.
#[test]
fn a_full_ring_is_an_error_and_not_a_mix() {
    let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let mut survivors: Vec<(Epoch, NonNull<u8>, RawHandle)> = Vec::new();
    let error = loop {
        let epoch = match heap.advance() {
            Ok(epoch) => epoch,
            Err(error) => break error,
        };
        let object = local.alloc_in(epoch, layout(64)).unwrap();
        // SAFETY: it is live and this long.
        unsafe { object.write_bytes(epoch.era() as u8, 64) };
        let handle = local.alloc_raw_in(epoch, layout(64)).unwrap();
        survivors.push((epoch, object, handle));
        assert!(
            survivors.len() < 6,
            "a ring of 6 has 5 positions beside the root's"
        );
    };
    assert_eq!(error, EpochError::RingFull);
    assert_eq!(survivors.len(), 5);
    let mut eras: Vec<u64> = survivors.iter().map(|(epoch, ..)| epoch.era()).collect();
    let rounds = if cfg!(miri) { 10 } else { 300 };
    for round in 0..rounds {
        let (old, object, handle) = survivors.remove(round % 4);
        free(&heap, object, 64);
        // One live object, with a handle or without, keeps the position.
        assert_eq!(heap.advance(), Err(EpochError::RingFull));
        heap.free_raw(handle).unwrap();
        let epoch = heap.advance().expect("one position is free");
        assert_eq!(epoch.index(), old.index());
        assert!(!eras.contains(&epoch.era()), "an era was given out twice");
        eras.push(epoch.era());
        assert_eq!(
            local.alloc_in(old, layout(64)),
            Err(AllocError::EpochClosed)
        );
        assert_eq!(heap.alloc_in(old, layout(64)), Err(AllocError::EpochClosed));
        assert_eq!(heap.state(old), Err(EpochError::Closed));
        assert_eq!(heap.close(old), Err(EpochError::Closed));
        assert_eq!(heap.set_label(old, "late"), Err(EpochError::Closed));
        let object = local.alloc_in(epoch, layout(64)).unwrap();
        // SAFETY: it is live and this long.
        unsafe { object.write_bytes(epoch.era() as u8, 64) };
        assert_eq!(
            local.alloc_raw_in(old, layout(64)),
            Err(AllocError::EpochClosed)
        );
        assert_eq!(heap.get_raw(handle), None);
        let handle = local.alloc_raw_in(epoch, layout(64)).unwrap();
        survivors.push((epoch, object, handle));
        assert_eq!(heap.advance(), Err(EpochError::RingFull));
    }
    for (epoch, object, handle) in survivors {
        assert!(heap.get_raw(handle).is_some());
        heap.free_raw(handle).unwrap();
        // SAFETY: it is live and this long.
        let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), 64) };
        assert!(
            bytes.iter().all(|byte| *byte == epoch.era() as u8),
            "{epoch:?}"
        );
        free(&heap, object, 64);
    }
    drop(local);
    assert_eq!(walk(&heap).live_slots, 0);
}

/// An idle local that holds words of epochs long over keeps no position from being used: only live
/// objects do.
#[test]
fn an_idle_local_does_not_fill_the_ring() {
    let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
    let mut idle: Vec<_> = (0..steps(10, 7)).map(|_| heap.local().unwrap()).collect();
    for local in &mut idle {
        let epoch = heap.open_epoch().expect("nothing is live");
        let object = local.alloc_in(epoch, layout(64)).unwrap();
        free(&heap, object, 64);
        heap.close(epoch).unwrap();
    }
    walk(&heap);
    for mut local in idle {
        // Any slow path will do, in whatever epoch.
        let object = local.alloc(layout(3000)).unwrap();
        free(&heap, object, 3000);
    }
    heap.reclaim();
    assert_eq!(walk(&heap).slabs, 0, "they noticed");
}

/// Labels, times, counts and bytes are what they should be.
#[test]
fn an_epoch_can_be_asked_about() {
    let heap = TestHeap::<Checked<Host>>::new(Host::default());
    heap.set_policy(Policy::NEVER);
    let epoch = heap.open_epoch().unwrap();
    heap.set_label(epoch, "requests of the frontend, which are many")
        .unwrap();
    let mut local = heap.local().unwrap();
    let objects: Vec<_> = (0..300)
        .map(|_| local.alloc_in(epoch, layout(500)).unwrap())
        .collect();
    let large = local.alloc_in(epoch, layout(50_000)).unwrap();
    let info = heap.epoch_stats(epoch).unwrap();
    assert_eq!(info.label.as_str(), "requests of the frontend, which");
    assert_eq!(
        (info.live_objects(), info.domains, info.last_close),
        (301, 0, None)
    );
    for object in objects {
        // SAFETY: it is live and used no more.
        unsafe { local.free(object, layout(500)) }.unwrap();
    }
    assert_eq!(
        heap.epoch_stats(epoch).unwrap().live_objects(),
        1,
        "what the local holds is not live"
    );
    local.leave(epoch);
    heap.set_policy(Policy::ON_CLOSE);
    heap.close(epoch).unwrap();
    let close = heap.epoch_stats(epoch).unwrap().last_close.unwrap();
    let (before, after) = (close.resident_before, close.resident_after);
    assert!(after + 100_000 < before, "{before} to {after}");
    free(&heap, large, 50_000);
}

/// One that keeps what closes empty, or one that does not.
fn any_policy(rng: &mut Rng) -> Policy {
    [
        Policy::DEFAULT,
        Policy::EAGER,
        Policy::NEVER,
        Policy::keeping(40_000),
    ][rng.below(4)]
}

/// Blocks belong to one epoch at a time: no two live objects of different epochs share one. Random
/// work over many epochs, some closed, on locals and without, checked against the walker.
#[test]
fn lifetimes_do_not_mix() {
    let runs = if cfg!(miri) { 1 } else { 20 };
    for seed in 0..runs {
        let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
        let mut locals: Vec<Local<'_, _>> = (0..3).map(|_| heap.local().unwrap()).collect();
        let mut rng = Rng(seed);
        let mut open: Vec<Epoch> = vec![heap.current().unwrap()];
        let mut live: BTreeMap<usize, (NonNull<u8>, usize, Epoch)> = BTreeMap::new();
        for step in 0..steps(3000, 80) {
            match rng.below(100) {
                0..50 => {
                    let (epoch, size) = (open[rng.below(open.len())], 1 + rng.below(900));
                    let object = match locals.get_mut(rng.below(4)) {
                        Some(local) => local.alloc_in(epoch, layout(size)),
                        None => heap.alloc_in(epoch, layout(size)),
                    };
                    let object = object.unwrap();
                    live.insert(object.addr().get(), (object, size, epoch));
                }
                50..90 if !live.is_empty() => {
                    let number = rng.below(live.len());
                    let (object, size, _) = *live.values().nth(number).unwrap();
                    live.remove(&object.addr().get());
                    // SAFETY: the model says that it is live.
                    unsafe {
                        match locals.get_mut(rng.below(4)) {
                            Some(local) => local.free(object, layout(size)).unwrap(),
                            None => heap.free(object, layout(size)).unwrap(),
                        }
                    }
                }
                90..94 => match heap.open_epoch() {
                    Ok(epoch) => open.push(epoch),
                    Err(error) => assert_eq!(error, EpochError::RingFull),
                },
                94..97 if open.len() > 1 => {
                    let epoch = open.swap_remove(1 + rng.below(open.len() - 1));
                    heap.close(epoch).unwrap();
                    assert_eq!(
                        heap.alloc_in(epoch, layout(8)),
                        Err(AllocError::EpochClosed)
                    );
                }
                97 => locals[rng.below(3)].flush(),
                98 => heap.reclaim(),
                _ => heap.set_policy(any_policy(&mut rng)),
            }
            if step % if cfg!(miri) { 30 } else { 10 } == 0 {
                let census = walk(&heap);
                assert_eq!(census.live_slots, live.len());
                let mut blocks: BTreeMap<usize, Epoch> = BTreeMap::new();
                let mut counts: BTreeMap<usize, (Epoch, u64)> = BTreeMap::new();
                for (address, (_, _, epoch)) in &live {
                    let owner = blocks.entry(address / 65536).or_insert(*epoch);
                    assert_eq!(owner, epoch, "step {step}: two epochs in one block");
                    counts.entry(epoch.index()).or_insert((*epoch, 0)).1 += 1;
                }
                for (epoch, count) in counts.into_values() {
                    assert_eq!(
                        heap.epoch_stats(epoch).unwrap().live_objects(),
                        count,
                        "step {step}"
                    );
                }
            }
        }
        for (object, size, _) in live.into_values() {
            free(&heap, object, size);
        }
        drop(locals);
        heap.reclaim();
        assert_eq!(walk(&heap).slabs, 0);
    }
}

/// Allocation, free, open, close and advance on many threads at once: what was allocated with a token
/// is never in a block with another era's objects, and everything is accounted for in the end.
#[test]
fn epochs_under_contention() {
    let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
    let (threads, rounds) = if cfg!(miri) { (3, 6) } else { (8, 2000) };
    let allocated = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (heap, allocated) = (&heap, &allocated);
            scope.spawn(move || {
                let mut rng = Rng(thread);
                let mut local = heap.local().unwrap();
                let mut live: Vec<(NonNull<u8>, Epoch)> = Vec::new();
                for _ in 0..rounds {
                    // Everybody uses whatever is current, and changes it now and then.
                    let epoch = heap.current().unwrap();
                    for _ in 0..rng.below(20) {
                        let object = if rng.below(3) == 0 {
                            heap.alloc_in(epoch, layout(64))
                        } else {
                            local.alloc_in(epoch, layout(64))
                        };
                        match object {
                            Ok(object) => {
                                // SAFETY: it is live and this long.
                                unsafe { object.cast::<u64>().write(epoch.era()) };
                                live.push((object, epoch));
                                allocated.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => assert_eq!(error, AllocError::EpochClosed),
                        }
                    }
                    match rng.below(8) {
                        0 => drop(heap.advance()),
                        1 => drop(heap.close(epoch)),
                        2 => local.leave(epoch),
                        3 => heap.set_policy(any_policy(&mut rng)),
                        _ => {}
                    }
                    while live.len() > 30 {
                        let (object, epoch) = live.swap_remove(rng.below(live.len()));
                        // SAFETY: it is live, was written, and is used no more.
                        unsafe {
                            assert_eq!(
                                object.cast::<u64>().read(),
                                epoch.era(),
                                "somebody wrote to it"
                            );
                            local.free(object, layout(64)).unwrap();
                        }
                    }
                }
                for (object, _) in live {
                    free(heap, object, 64);
                }
            });
        }
    });
    assert!(allocated.into_inner() > threads as usize);
    heap.reclaim();
    let census = walk(&heap);
    assert_eq!((census.live_slots, census.held_slots), (0, 0));
}

/// Threads with an epoch for each of their rounds, in a short ring, whose objects are freed by others, some after the
/// close; the policy changes meanwhile. No object is written to by another era, none is lost, and at the end the sums
/// hold. Catches a depot that serves a new era while an object of the old one lives, and a taker that comes late.
#[test]
fn eras_under_contention() {
    let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
    heap.set_policy(Policy::keeping(256 << 10));
    let (threads, rounds) = if cfg!(miri) { (3, 4) } else { (5, 12_000) };
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for _ in 0..threads {
        let (sender, receiver) = mpsc::channel::<(usize, u64)>();
        senders.push(sender);
        receivers.push(receiver);
    }
    let shared = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (thread, receiver) in receivers.into_iter().enumerate() {
            let to = senders[(thread + 1) % threads].clone();
            let (heap, shared) = (&heap, &shared);
            scope.spawn(move || {
                let mut rng = Rng(thread as u64);
                let mut local = heap.local().unwrap();
                let end = |local: &mut Local<'_, _>, at: usize, era: u64| {
                    let object = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(at));
                    let object = object.unwrap();
                    // SAFETY: who sent it wrote it and gave it up; it is live and freed once.
                    unsafe {
                        assert_eq!(object.cast::<u64>().read(), era, "somebody wrote to it");
                        local.free(object, layout(64)).unwrap();
                    }
                };
                for round in 0..rounds {
                    let epoch = match heap.open_epoch() {
                        Ok(epoch) => epoch,
                        Err(error) => {
                            // Others are slow to free: nobody waits for them here.
                            assert_eq!(error, EpochError::RingFull);
                            for (at, era) in receiver.try_iter() {
                                end(&mut local, at, era);
                            }
                            std::thread::yield_now();
                            continue;
                        }
                    };
                    for _ in 0..rng.below(40) {
                        let object = if rng.below(4) == 0 {
                            heap.alloc_in(epoch, layout(64))
                        } else {
                            local.alloc_in(epoch, layout(64))
                        };
                        let object = object.unwrap();
                        // SAFETY: it is live and this long.
                        unsafe { object.cast::<u64>().write(epoch.era()) };
                        let at = object.as_ptr().expose_provenance();
                        if rng.below(3) == 0 && to.send((at, epoch.era())).is_ok() {
                            shared.fetch_add(1, Ordering::Relaxed);
                        } else {
                            end(&mut local, at, epoch.era());
                        }
                    }
                    if rng.below(3) > 0 {
                        local.leave(epoch);
                    }
                    heap.close(epoch).unwrap();
                    for (at, era) in receiver.try_iter() {
                        end(&mut local, at, era);
                    }
                    if round % 64 == thread {
                        heap.set_policy(match rng.below(4) {
                            0 => Policy::NEVER,
                            1 => Policy::DEFAULT,
                            2 => Policy::EAGER,
                            _ => Policy::keeping(64 << 10),
                        });
                    }
                }
                drop(to);
                for (at, era) in receiver {
                    end(&mut local, at, era);
                }
            });
        }
        drop(senders);
    });
    assert!(shared.into_inner() > 0);
    let census = walk(&heap);
    assert_eq!((census.live_slots, census.held_slots), (0, 0));
    heap.reclaim();
    assert_eq!(walk(&heap).slabs, 0);
}

/// What is current is an epoch and not a position: closing it makes the root current again, whoever
/// uses the position next, and `advance` closes nobody else's.
#[test]
fn current_is_nobody_elses_epoch() {
    let heap = TestHeap::<ShortRing<Host>>::new(Host::default());
    let root = heap.current().unwrap();
    let first = heap.advance().unwrap();
    heap.close(first).unwrap();
    let mut opened = Vec::new();
    let other = loop {
        let epoch = heap.open_epoch().unwrap();
        if epoch.index() == first.index() {
            break epoch;
        }
        opened.push(epoch);
    };
    for epoch in opened {
        heap.close(epoch).unwrap();
    }
    assert_eq!(heap.current(), Ok(root));
    heap.advance().unwrap();
    free(&heap, heap.alloc_in(other, layout(64)).unwrap(), 64);
}
