//! A provider that fails at every call in turn, and one that hands out what it should not.

mod common;

use common::Rng;
use common::host::HostProvider;
use common::{Action, World};
use core::alloc::Layout;
use temporal_slab::config::Checked;
use temporal_slab::provider::{Accounts, Fault, FaultyProvider, PageProvider};
use temporal_slab::{AllocError, DefaultLock, Heap, Policy};

type Faulty = FaultyProvider<HostProvider<{ 1 << 18 }>, true, 256>;
type TestHeap<'p> = Heap<&'p Faulty, DefaultLock, Checked>;

const OPERATIONS: usize = if cfg!(miri) { 40 } else { 5_000 };

fn trace() -> Vec<Action> {
    let mut rng = Rng(42);
    (0..OPERATIONS).map(|_| Action::random(&mut rng)).collect()
}

fn settled(accounts: Accounts) {
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

/// Runs the trace with `count` calls broken from call `first`. Catches a failure that is not an `Err`,
/// one that leaves the heap inconsistent or the same request failing afterwards, and lost bytes.
/// Gives the number of provider calls, and how many steps failed.
fn run(trace: &[Action], first: u64, count: u64) -> (u64, usize) {
    let provider = Faulty::new(HostProvider::default());
    let heap = TestHeap::new(&provider);
    let mut world = World::new(&heap, 3);
    provider.break_calls(
        first.saturating_sub(provider.accounts().calls),
        count,
        Fault::Refuse,
    );
    let mut failed = 0;
    for (number, action) in trace.iter().enumerate() {
        if let Err(error) = world.step(*action) {
            assert_eq!(error, AllocError::OutOfMemory);
            failed += 1;
            if count == 1 {
                world.check();
                let again = world.step(*action);
                assert_eq!(
                    again,
                    Ok(()),
                    "the same call after the failure of call {first}"
                );
            } else if failed % 64 == 1 {
                world.check();
            }
        }
        if number % 2500 == 0 {
            world.check();
        }
    }
    provider.mend();
    let calls = provider.accounts().calls;
    world
        .step(Action::Alloc {
            local: 3,
            epoch: 0,
            size: 5000,
            align: 0,
            zeroed: true,
            named: false,
        })
        .expect("it works again");
    world.finish();
    drop(heap);
    settled(provider.accounts());
    (calls, failed)
}

#[test]
fn every_call_fails_once() {
    let trace = trace();
    let (calls, _) = run(&trace, u64::MAX, 0);
    assert!(
        calls > if cfg!(miri) { 2 } else { 200 },
        "{calls} calls are too few to say anything"
    );
    let mut failed = 0;
    let step = if cfg!(miri) { 3 } else { 1 };
    for first in (0..calls).step_by(step) {
        failed += run(&trace, first, 1).1;
    }
    println!("{calls} provider calls, each broken once: {failed} steps failed");
    assert!(failed > 0);
}

#[test]
fn every_call_is_the_last_that_works() {
    let trace = trace();
    let (calls, _) = run(&trace, u64::MAX, 0);
    let step = if cfg!(miri) { 3 } else { 1 };
    for first in (0..calls).step_by(step) {
        run(&trace, first, u64::MAX);
    }
}

/// Each wrong shape, at each of the calls that a fresh heap makes: it is refused and handed back,
/// nothing in it or outside is written, and the same request succeeds when the provider behaves.
#[test]
fn misshapen_regions_are_refused() {
    let rounds = if cfg!(miri) { 3 } else { 1000 };
    let requests = [(100, 8), (20_000, 16), (200_000, 8), (10, 1 << 21)];
    for round in 0..rounds {
        let odd = 1 + round % 4095;
        for fault in [
            Fault::Misaligned(odd),
            Fault::Short(odd),
            Fault::Overlapping,
            Fault::TopOfMemory,
        ] {
            let provider = Faulty::new(HostProvider::default());
            let heap = TestHeap::new(&provider);
            let (size, align) = requests[round % requests.len()];
            let layout = Layout::from_size_align(size, align).unwrap();
            // Overlapping needs a region that is held: the first call gets metadata.
            let after = if fault == Fault::Overlapping {
                1
            } else {
                round as u64 % 2
            };
            provider.break_calls(after, 1, fault);
            assert_eq!(
                heap.alloc(layout),
                Err(AllocError::OutOfMemory),
                "{fault:?}, {layout:?}"
            );
            assert_eq!(provider.accounts().broken, 1);
            assert_eq!(
                provider.accounts().misshapen,
                0,
                "{fault:?} was handed back"
            );
            assert_eq!(heap.page_stats().regions_refused, 1);
            // SAFETY: there are no locals and no other threads.
            let census = unsafe { heap.walk() }.expect("the heap is whole");
            assert_eq!(census.taken, provider.accounts().bytes);
            let object = heap.alloc(layout).expect("the provider behaves again");
            // SAFETY: it was just allocated with this layout.
            unsafe {
                object.write_bytes(0xFF, size);
                heap.free(object, layout).expect("it is live");
            }
            drop(heap);
            settled(provider.accounts());
        }
    }
}

/// A decommit that fails leaves the pages usable and counted as resident, and is counted itself.
#[test]
fn failed_decommit_is_seen() {
    let provider = Faulty::new(HostProvider::default());
    let heap = TestHeap::new(&provider);
    heap.set_policy(Policy::Never);
    let layout = Layout::from_size_align(1024, 8).unwrap();
    let objects: Vec<_> = (0..200).map(|_| heap.alloc(layout).unwrap()).collect();
    // One stays, so that the chunk cannot go back whole.
    for object in &objects[1..] {
        // SAFETY: it is live and used no more.
        unsafe { heap.free(*object, layout).unwrap() };
    }
    let before = heap.bytes();
    provider.break_calls(0, u64::MAX, Fault::Refuse);
    heap.reclaim();
    assert!(heap.page_stats().decommits_failed > 0);
    assert_eq!(heap.bytes().resident, before.resident);
    // SAFETY: there are no locals and no other threads.
    unsafe { heap.walk() }.expect("the heap is whole");
    provider.mend();
    let again: Vec<_> = (0..200).map(|_| heap.alloc(layout).unwrap()).collect();
    for object in again {
        // SAFETY: it is live and used no more.
        unsafe { heap.free(object, layout).unwrap() };
    }
    heap.reclaim();
    assert!(
        heap.bytes().resident < before.resident / 2,
        "{:?}",
        heap.bytes()
    );
}

/// The limit holds at every moment, its error is its own, and raising it helps at once.
#[test]
fn the_limit_is_a_limit() {
    let provider = Faulty::new(HostProvider::default());
    let heap = TestHeap::new(&provider);
    heap.set_limit(1 << 20);
    let layout = Layout::from_size_align(4096, 8).unwrap();
    let mut objects = Vec::new();
    let error = loop {
        match heap.alloc(layout) {
            Ok(object) => objects.push(object),
            Err(error) => break error,
        }
        assert!(provider.accounts().bytes <= 1 << 20);
    };
    assert_eq!(error, AllocError::Limit);
    assert!(
        objects.len() * 4096 > 600_000,
        "most of the limit serves objects"
    );
    heap.set_limit(2 << 20);
    objects.push(heap.alloc(layout).expect("there is room again"));
    for object in objects {
        // SAFETY: it is live and used no more.
        unsafe { heap.free(object, layout).unwrap() };
    }
    assert!(heap.provider().capabilities().bits() != 0);
}
