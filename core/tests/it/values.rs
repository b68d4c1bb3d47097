//! Values with handles: read, discarded and removed, by many at once, and dropped once.

use crate::common::host::HostProvider;
use crate::common::{steps, walk};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use temporal_slab::config::Checked;
use temporal_slab::{Domain, Handle, HandleError, Heap};

type Host = HostProvider<{ 1 << 18 }>;

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
    let heap = Heap::<Checked<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let value = || Counted("a value".to_owned());

    let removed = heap.insert(value()).unwrap();
    heap.discard(removed).unwrap();
    assert_eq!(
        (drops(), heap.discard(removed)),
        (1, Err(HandleError::Stale))
    );

    let taken = local.insert(value()).unwrap();
    let kept = local.remove(taken).unwrap();
    assert_eq!((drops(), kept.0.as_str()), (1, "a value"));
    drop(kept);
    assert_eq!(drops(), 2);

    let read = local.insert(value()).unwrap();
    let first = heap.get(read).unwrap();
    let second = heap.get(read).unwrap();
    assert_eq!(heap.remove(read).unwrap_err(), HandleError::InUse);
    local.discard(read).unwrap();
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
    heap.discard(popular).unwrap();
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
    let heap = Heap::<Checked<Host>>::new(Host::default());
    let removed = heap.insert(Bomb(1)).unwrap();
    let read = heap.insert(Bomb(2)).unwrap();
    let caught =
        |f: &mut dyn FnMut()| std::panic::catch_unwind(core::panic::AssertUnwindSafe(f)).is_err();
    assert!(caught(&mut || heap.discard(removed).unwrap()));
    let mut reading = Some(heap.get(read).unwrap());
    heap.discard(read).unwrap();
    assert!(caught(&mut || drop(reading.take())));
    assert_eq!(heap.discard(removed), Err(HandleError::Stale));
    heap.reclaim();
    assert_eq!(walk(&heap).slabs, 0);
}

/// The same through a local, by a domain that is left in the middle, and by a value that is dropped because there is no
/// room for it. Catches a slot, a count or a local that is lost on the way out.
#[test]
fn a_panic_leaves_everything_as_it_was() {
    struct Bomb(#[allow(dead_code)] [u8; 300]);
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let caught =
        |f: &mut dyn FnMut()| std::panic::catch_unwind(core::panic::AssertUnwindSafe(f)).is_err();
    let heap = Heap::<Checked<Host>>::new(Host::default());
    let mut local = heap.local().unwrap();
    let domain = Domain::open(&heap).unwrap().close_on_exit();
    let bombs: Vec<_> = (0..steps(100, 4))
        .map(|_| local.insert_in(domain.epoch(), Bomb([0; 300])).unwrap())
        .collect();
    for handle in &bombs {
        assert!(caught(&mut || local.discard(*handle).unwrap()));
        assert_eq!(local.discard(*handle), Err(HandleError::Stale));
    }
    assert!(caught(&mut || {
        let _inside = domain.enter().unwrap();
        panic!("on purpose");
    }));
    let stats = heap.epoch_stats(domain.epoch()).unwrap();
    assert!(
        !stats.is_open() && stats.domains == 0,
        "it was left, and closed by that"
    );
    assert_eq!(stats.live_objects(), 0);
    assert!(caught(&mut || assert!(
        heap.insert_in(domain.epoch(), Bomb([0; 300])).is_ok()
    )));
    assert!(caught(&mut || assert!(
        local.insert_in(domain.epoch(), Bomb([0; 300])).is_ok()
    )));
    let again = local.insert(5u64).unwrap();
    assert_eq!(local.remove(again), Ok(5));
    drop(local);
    heap.reclaim();
    assert_eq!(walk(&heap).slabs, 0);
}

/// A destructor that comes back to the heap: it finds its own value gone, may remove others, insert, and close the epoch
/// that it is in. Catches a lock that is held while it runs, and a value that is dropped in its own drop.
#[test]
fn destructors_come_back_to_the_heap() {
    type Shared = Heap<Checked<Host>>;
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Chain {
        heap: &'static Shared,
        own: Mutex<Option<Handle<Chain>>>,
        next: Option<Handle<Chain>>,
    }
    impl Drop for Chain {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Ordering::Relaxed);
            let own = self.own.lock().unwrap().unwrap();
            assert_eq!(self.heap.discard(own), Err(HandleError::Stale));
            assert_eq!(self.heap.get(own).err(), Some(HandleError::Stale));
            if let Some(next) = self.next {
                self.heap.discard(next).unwrap();
            }
            let epoch = self.heap.open_epoch().unwrap();
            let other = self.heap.insert_in(epoch, 5u64).unwrap();
            self.heap.close(epoch).unwrap();
            self.heap.reclaim();
            assert_eq!(self.heap.remove(other), Ok(5));
        }
    }
    // The values refer to it, and it is dropped behind them.
    let place = Box::into_raw(Box::new(Shared::new(Host::default())));
    // SAFETY: it was just made, and stays until all use of it below is over.
    let heap: &'static Shared = unsafe { &*place };
    let mut last = None;
    for _ in 0..steps(50, 4) {
        let chain = Chain {
            heap,
            own: Mutex::new(None),
            next: last,
        };
        let handle = heap.insert(chain).unwrap();
        *heap.get(handle).unwrap().own.lock().unwrap() = Some(handle);
        last = Some(handle);
    }
    heap.discard(last.unwrap()).unwrap();
    assert_eq!(DROPS.load(Ordering::Relaxed), steps(50, 4));
    heap.reclaim();
    assert_eq!(walk(heap).slabs, 0);
    // SAFETY: nobody uses it any more.
    drop(unsafe { Box::from_raw(place) });
}

/// Threads read, discard and remove the same values: each is dropped or removed once, and no reader ever sees
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
    let heap = Heap::<Checked<Host>>::new(Host::default());
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
                            0 => heap.discard(*handle),
                            1 => local.discard(*handle),
                            _ => heap.remove(*handle).map(drop),
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
