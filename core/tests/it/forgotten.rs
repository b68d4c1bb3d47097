//! What is never dropped: guards, readers, locals and scopes that are forgotten. Safe code may do so. Each costs what it
//! held for as long as the heap is there, which can be seen, and nothing else; the heap goes on, and in the end every
//! region is back at its provider, who looks.

use crate::common::host::HostProvider;
use crate::common::{Ring, free, layout, steps, walk};
use core::mem::forget;
use std::collections::BTreeSet;
use temporal_slab::config::Checked;
use temporal_slab::{Domain, EpochError, HandleError, Heap, Local, Scope};

type TestHeap = Heap<Ring<HostProvider<{ 1 << 18 }>>>;

/// A local that is forgotten keeps what it held, up to its bound, and no epoch that it had an epoch cache in is kept from others.
/// Catches a slot of it that is handed out to another, and a ring that fills up with epochs that nobody uses.
#[test]
fn a_forgotten_local_keeps_what_it_held() {
    let heap = TestHeap::new(HostProvider::default());
    let mut local = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    let objects: Vec<_> = (0..100).map(|_| local.alloc(layout(64)).unwrap()).collect();
    let inside: Vec<_> = (0..100)
        .map(|_| local.alloc_in(epoch, layout(64)).unwrap())
        .collect();
    for object in objects[..50].iter().chain(&inside[..50]) {
        // SAFETY: it is live and freed once.
        unsafe { local.free(*object, layout(64)) }.unwrap();
    }
    forget(local);
    let rest: Vec<_> = objects[50..].iter().chain(&inside[50..]).copied().collect();
    let own: BTreeSet<_> = objects.iter().chain(&inside).collect();
    let others: Vec<_> = (0..1000).map(|_| heap.alloc(layout(64)).unwrap()).collect();
    assert!(
        others.iter().all(|other| !own.contains(other)),
        "what it held is its own"
    );
    heap.close(epoch).unwrap();
    for object in rest.into_iter().chain(others) {
        free(&heap, object, 64);
    }
    heap.reclaim();
    let census = walk(&heap);
    assert_eq!(census.live_slots, 0);
    assert!(
        census.held_slots > 0
            && heap.bytes().resident
                <= (2 << 20) + Local::<Ring<HostProvider<{ 1 << 18 }>>>::holding_bound()
    );
    for _ in 0..steps(400, 20) {
        let epoch = heap.open_epoch().unwrap();
        free(&heap, heap.alloc_in(epoch, layout(64)).unwrap(), 64);
        heap.close(epoch).unwrap();
    }
}

/// A reader that is forgotten keeps its value from being dropped, for good, and nobody else from anything.
#[test]
fn a_forgotten_reader_keeps_its_value() {
    let heap = TestHeap::new(HostProvider::default());
    let handle = heap.insert(5u64).unwrap();
    forget(heap.get(handle).unwrap());
    assert_eq!(heap.remove(handle), Err(HandleError::InUse));
    assert_eq!(*heap.get(handle).unwrap(), 5);
    heap.discard(handle).unwrap();
    assert_eq!(heap.get(handle).err(), Some(HandleError::Stale));
    assert_eq!(heap.discard(handle), Err(HandleError::Stale));
    heap.reclaim();
    assert_eq!(walk(&heap).slabs, 1, "its slab stays");
    // All the readers that there can be.
    let full = heap.insert(6u64).unwrap();
    (0..255).for_each(|_| forget(heap.get(full).unwrap()));
    assert_eq!(heap.get(full).err(), Some(HandleError::InUse));
    heap.discard(full).unwrap();
}

/// A scope that is forgotten keeps its memory, and its handles stay good: nobody ended them.
#[test]
fn a_forgotten_scope_keeps_its_memory() {
    let heap = TestHeap::new(HostProvider::default());
    let scope = Scope::new(&heap);
    scope.alloc([1u64; 100]).unwrap();
    let handle = scope.insert(7u64).unwrap();
    forget(scope);
    assert_eq!(*heap.get(handle).unwrap(), 7);
    heap.discard(handle).unwrap();
    assert_eq!(heap.get(handle).err(), Some(HandleError::Stale));
    heap.reclaim();
    walk(&heap);
    assert!(heap.bytes().resident >= 4096);
}

/// Guards that are forgotten leave counts behind: the epoch is not closed by anybody's exit, and can be closed. A ring of
/// epochs that were left open is full, by name, until somebody closes them.
#[test]
fn forgotten_guards_leave_epochs_that_can_be_closed() {
    let heap = TestHeap::new(HostProvider::default());
    let mut left = Vec::new();
    let error = loop {
        match Domain::open(&heap).map(Domain::close_on_exit) {
            Ok(domain) => {
                forget(domain.enter().unwrap());
                drop(domain.enter().unwrap());
                left.push(domain.epoch());
                assert!(
                    left.len() < heap.epoch_records(),
                    "one was closed by an exit"
                );
            }
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error, left.len()),
        (EpochError::RingFull, heap.epoch_records() - 1)
    );
    for epoch in left {
        let stats = heap.epoch_stats(epoch).unwrap();
        assert!(stats.is_open() && stats.domains == 1);
        heap.close(epoch).unwrap();
    }
    let _forgotten = Domain::open(&heap).unwrap();
}

/// The heap's own clean-up needs nobody: it is dropped with all of these still out.
#[test]
fn a_heap_goes_with_all_that_is_left_in_it() {
    let provider = HostProvider::<{ 1 << 18 }>::default();
    let heap = Heap::<Checked<_>>::new(&provider);
    let mut local = heap.local().unwrap();
    for size in [16, 5000, 20_000, 100_000, 900_000] {
        local.alloc(layout(size)).unwrap();
        heap.alloc_in(heap.open_epoch().unwrap(), layout(size))
            .unwrap();
    }
    let scope = Scope::new(&heap);
    forget(heap.get(scope.insert([1u8; 500]).unwrap()).unwrap());
    forget((local, scope));
    assert!(provider.regions_out() > 0);
    drop(heap);
    assert_eq!(provider.regions_out(), 0, "every region came back");
}
