//! Domains: counts that are right, closes that hit only what they should, and the patterns that the
//! documentation promises. Leaving in the wrong order or on another thread does not compile: see the
//! documentation of `Domain`.

use crate::common::Ring;
use crate::common::host::HostProvider;
use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::{AllocError, Domain, DomainGuard, EpochError, EpochState, Heap};

type Host = HostProvider<{ 1 << 18 }>;
type TestHeap = Heap<Ring<Host>>;

fn layout() -> Layout {
    Layout::new::<[u64; 8]>()
}

fn domains(heap: &TestHeap, domain: &Domain<'_, Ring<Host>>) -> u32 {
    heap.epoch_stats(domain.epoch()).unwrap().domains
}

/// Request, transaction, query: each within the one before, each in its own epoch, each counted while
/// it lasts. An inner domain's end leaves the outer ones as they are.
#[test]
fn nested_domains_are_counted_and_closed_inside_out() {
    let heap = TestHeap::new(Host::default());
    let mut local = heap.local().unwrap();
    let request = Domain::open(&heap).unwrap().close_on_exit();
    let in_request = request.enter().unwrap();
    let kept = in_request.alloc(&mut local, layout()).unwrap();
    for _ in 0..3 {
        let transaction = Domain::open(&heap).unwrap().close_on_exit();
        let in_transaction = in_request.enter(&transaction).unwrap();
        let query = Domain::open(&heap).unwrap().close_on_exit();
        {
            let in_query = in_transaction.enter(&query).unwrap();
            assert_eq!(in_query.depth(), 2);
            assert_eq!(
                in_query.outer().map(DomainGuard::epoch),
                Some(transaction.epoch())
            );
            let object = in_query.alloc(&mut local, layout()).unwrap();
            // SAFETY: it is live and used no more.
            unsafe { local.free(object, layout()) }.unwrap();
            assert_eq!(domains(&heap, &query), 1);
        }
        assert_eq!(heap.state(query.epoch()), Ok(EpochState::Closing));
        assert_eq!(heap.state(transaction.epoch()), Ok(EpochState::Active));
        assert_eq!(
            (domains(&heap, &transaction), domains(&heap, &request)),
            (1, 1)
        );
    }
    // SAFETY: it is live and used no more.
    unsafe { local.free(kept, layout()) }.unwrap();
    drop(in_request);
    assert_eq!(heap.state(request.epoch()), Ok(EpochState::Closing));
    assert_eq!(request.enter().map(|_| ()), Err(EpochError::Closed));
}

/// A frame loop enters one domain again and again; nothing is closed, and memory does not grow.
#[test]
fn a_frame_is_used_again() {
    let heap = TestHeap::new(Host::default());
    let mut local = heap.local().unwrap();
    let frame = Domain::open(&heap).unwrap();
    let mut settled = 0;
    for number in 0..if cfg!(miri) { 5 } else { 1000 } {
        let inside = frame.enter().unwrap();
        let objects: Vec<NonNull<u8>> = (0..100)
            .map(|_| inside.alloc(&mut local, layout()).unwrap())
            .collect();
        for object in objects {
            // SAFETY: it is live and used no more.
            unsafe { local.free(object, layout()) }.unwrap();
        }
        if number == 3 {
            settled = heap.bytes().resident;
        }
        assert!(number < 3 || heap.bytes().resident <= settled);
    }
    assert_eq!(
        (domains(&heap, &frame), heap.state(frame.epoch())),
        (0, Ok(EpochState::Active))
    );
    frame.close().unwrap();
}

/// Two domains over one epoch: the first one out does not close under the other.
#[test]
fn only_the_last_one_out_closes() {
    let heap = TestHeap::new(Host::default());
    let one = Domain::open(&heap).unwrap().close_on_exit();
    let other = Domain::for_epoch(&heap, one.epoch()).close_on_exit();
    let (a, b) = (one.enter().unwrap(), other.enter().unwrap());
    drop(a);
    assert_eq!(heap.state(one.epoch()), Ok(EpochState::Active));
    drop(b);
    assert_eq!(heap.state(one.epoch()), Ok(EpochState::Closing));
}

/// A guard whose epoch was closed by force, and whose position serves another era by now, touches
/// neither the count nor the state of that era when it goes.
#[test]
fn a_late_guard_leaves_the_next_era_alone() {
    let heap = TestHeap::new(Host::default());
    let old = Domain::open(&heap).unwrap().close_on_exit();
    let inside = old.enter().unwrap();
    heap.close(old.epoch()).unwrap();
    // Every position is used in turn, so the old one comes round.
    let next = loop {
        let next = Domain::open(&heap).unwrap();
        if next.epoch().index() == old.epoch().index() {
            break next;
        }
        next.close().unwrap();
    };
    let in_next = next.enter().unwrap();
    drop(inside);
    assert_eq!(domains(&heap, &next), 1);
    assert_eq!(heap.state(next.epoch()), Ok(EpochState::Active));
    drop(in_next);
}

/// A forgotten guard leaves a count that can be seen, keeps the epoch open, and does no other harm.
#[test]
fn a_forgotten_guard_is_seen() {
    let heap = TestHeap::new(Host::default());
    let domain = Domain::open(&heap).unwrap().close_on_exit();
    core::mem::forget(domain.enter().unwrap());
    drop(domain.enter().unwrap());
    assert_eq!(domains(&heap, &domain), 1);
    assert_eq!(heap.state(domain.epoch()), Ok(EpochState::Active));
    domain.close().unwrap();
}

/// A local of another heap allocates nothing in a domain.
#[test]
fn a_domain_is_of_one_heap() {
    let (heap, other) = (
        TestHeap::new(Host::default()),
        TestHeap::new(Host::default()),
    );
    let domain = Domain::open(&heap).unwrap();
    let theirs = other.open_epoch().unwrap();
    let mut local = other.local().unwrap();
    let inside = domain.enter().unwrap();
    assert_eq!(
        inside.alloc(&mut local, layout()),
        Err(AllocError::OtherHeap)
    );
    assert_eq!(heap.stats().errors.allocs, [0, 0, 0, 0, 0, 1]);
    assert_eq!(other.epoch_stats(theirs).unwrap().live_objects(), 0);
}

/// The root epoch can be a domain, and no exit closes it.
#[test]
fn the_root_survives_its_domains() {
    let heap = TestHeap::new(Host::default());
    let root = Domain::for_epoch(&heap, heap.current().unwrap()).close_on_exit();
    drop(root.enter().unwrap());
    assert_eq!(heap.state(root.epoch()), Ok(EpochState::Active));
}

/// Many threads go in and out of one domain: it is closed once the last is out, never under one that
/// is inside.
#[test]
fn threads_share_a_domain() {
    let heap = TestHeap::new(Host::default());
    let (rounds, threads) = if cfg!(miri) { (3, 3) } else { (300, 4) };
    for _ in 0..rounds {
        let domain = Domain::open(&heap).unwrap().close_on_exit();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut local = heap.local().unwrap();
                    // Late ones find it closed already.
                    while let Ok(inside) = domain.enter() {
                        let object = inside.alloc(&mut local, layout());
                        let object = object.expect("nobody closes under one who is inside");
                        // SAFETY: it is live and used no more.
                        unsafe { local.free(object, layout()) }.unwrap();
                    }
                });
            }
        });
        assert_eq!(domains(&heap, &domain), 0);
        assert_eq!(heap.state(domain.epoch()), Ok(EpochState::Closing));
    }
}
