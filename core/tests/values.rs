//! Values with handles: read, removed and taken, by many at once, and dropped once.

mod common;

use common::host::HostProvider;
use common::{steps, walk};
use core::sync::atomic::{AtomicUsize, Ordering};
use temporal_slab::config::Checked;
use temporal_slab::{DefaultLock, Handle, HandleError, Heap};

type Host = HostProvider<{ 1 << 18 }>;
type TestHeap<C> = Heap<Host, DefaultLock, C>;

/// Values are dropped once, by whoever is last: `remove`, a reader that outlives it, or the taker.
/// Catches a value that is dropped under its reader, twice or never.
#[test]
fn values_are_dropped_once() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    #[derive(Debug)]
    struct Counted(#[allow(dead_code)] String);
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Ordering::Relaxed);
        }
    }
    let drops = || DROPS.load(Ordering::Relaxed);
    let heap = TestHeap::<Checked>::new(Host::default());
    let mut local = heap.local().unwrap();
    let value = || Counted("a value".to_owned());

    let removed = heap.insert(value()).unwrap();
    heap.remove(removed).unwrap();
    assert_eq!(
        (drops(), heap.remove(removed)),
        (1, Err(HandleError::Stale))
    );

    let taken = local.insert(value()).unwrap();
    let kept = local.take(taken).unwrap();
    assert_eq!((drops(), kept.0.as_str()), (1, "a value"));
    drop(kept);
    assert_eq!(drops(), 2);

    let read = local.insert(value()).unwrap();
    let first = heap.get(read).unwrap();
    let second = heap.get(read).unwrap();
    assert_eq!(heap.take(read).unwrap_err(), HandleError::InUse);
    local.remove(read).unwrap();
    assert_eq!(heap.get(read).unwrap_err(), HandleError::Stale);
    assert_eq!(
        (drops(), first.0.as_str(), second.0.as_str()),
        (2, "a value", "a value")
    );
    drop(first);
    assert_eq!(drops(), 2, "the second is still reading");
    drop(second);
    assert_eq!(drops(), 3);

    // A raw free forgets the value, and respects its readers.
    let forgotten = heap.insert(value()).unwrap();
    let reading = heap.get(forgotten).unwrap();
    heap.free_raw(forgotten.raw()).unwrap();
    assert_eq!(heap.free_raw(forgotten.raw()), Err(HandleError::Stale));
    assert_eq!(reading.0, "a value");
    // The text would be lost with the value.
    // SAFETY: the last reader of a forgotten value may take it over: nobody drops it.
    drop(unsafe { core::ptr::read(&*reading) });
    drop(reading);
    assert_eq!(drops(), 4, "by this test and not by the reader");

    // 255 readers, and not one more.
    let popular = heap.insert(value()).unwrap();
    let readers: Vec<_> = (0..255).map(|_| heap.get(popular).unwrap()).collect();
    assert_eq!(heap.get(popular).unwrap_err(), HandleError::InUse);
    heap.remove(popular).unwrap();
    drop(readers);
    assert_eq!(drops(), 5);
    drop(local);
    heap.reclaim();
    assert_eq!(walk(&heap).slabs, 0);
}

/// A destructor that panics: the slot goes back all the same, and the value is gone.
#[test]
fn a_panicking_destructor_loses_no_slot() {
    struct Bomb(#[allow(dead_code)] u64);
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let heap = TestHeap::<Checked>::new(Host::default());
    let removed = heap.insert(Bomb(1)).unwrap();
    let read = heap.insert(Bomb(2)).unwrap();
    let caught =
        |f: &mut dyn FnMut()| std::panic::catch_unwind(core::panic::AssertUnwindSafe(f)).is_err();
    assert!(caught(&mut || heap.remove(removed).unwrap()));
    let mut reading = Some(heap.get(read).unwrap());
    heap.remove(read).unwrap();
    assert!(caught(&mut || drop(reading.take())));
    assert_eq!(heap.remove(removed), Err(HandleError::Stale));
    heap.reclaim();
    assert_eq!(walk(&heap).slabs, 0);
}

/// Threads read, remove and take the same values: each is dropped or taken once, and no reader ever sees
/// one that is gone. Catches (under Miri too) a read that races the drop.
#[test]
fn readers_and_removers() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Pair(Box<u64>, u64);
    impl Drop for Pair {
        fn drop(&mut self) {
            assert_eq!(*self.0 ^ self.1, 42, "dropped twice");
            self.1 = *self.0;
            DROPS.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (rounds, batch) = (steps(200, 2), steps(200, 8));
    let heap = TestHeap::<Checked>::new(Host::default());
    let reads = AtomicUsize::new(0);
    for round in 0..rounds as u64 {
        let handles: Vec<Handle<Pair>> = (0..batch as u64)
            .map(|n| {
                heap.insert(Pair(Box::new(n + round), (n + round) ^ 42))
                    .unwrap()
            })
            .collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (heap, handles, reads) = (&heap, &handles, &reads);
                scope.spawn(move || {
                    let mut local = heap.local().unwrap();
                    for handle in handles {
                        if let Ok(pair) = heap.get(*handle) {
                            assert_eq!(*pair.0 ^ pair.1, 42, "read after the drop");
                            reads.fetch_add(1, Ordering::Relaxed);
                        }
                        let _over = match thread {
                            0 => heap.remove(*handle),
                            1 => local.remove(*handle),
                            _ => heap.take(*handle).map(drop),
                        };
                    }
                });
            }
        });
        assert!(handles.iter().all(|h| heap.get(*h).is_err()));
    }
    assert_eq!(DROPS.load(Ordering::Relaxed), rounds * batch);
    heap.reclaim();
    assert_eq!(walk(&heap).slabs, 0);
}
