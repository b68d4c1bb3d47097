//! A paused heap keeps everybody out of each of its locks, and goes on afterwards.

mod common;

use common::host::HostProvider;
use common::{layout, steps, walk};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use core::time::Duration;
use temporal_slab::config::Checked;
use temporal_slab::{DefaultLock, Heap};

type TestHeap = Heap<HostProvider<{ 1 << 18 }>, DefaultLock, Checked>;

/// One who takes each lock in turn: of a bin, of the pages, of the ring, of the locals. Catches a lock that a pause does not
/// take, under which a copy of the process would be in the middle of something; and one that it does not give up.
#[test]
fn nobody_is_inside_a_paused_heap() {
    let heap = TestHeap::new(HostProvider::default());
    let epoch = heap.open_epoch().unwrap();
    // A slab that is full: its next take, and its first free, are under the bin's lock.
    let full: Vec<_> = (0..64)
        .map(|_| heap.alloc_in(epoch, layout(512)).unwrap())
        .collect();
    let first = AtomicPtr::new(full[0].as_ptr());
    let tasks: [(&str, &(dyn Fn() + Sync)); 5] = [
        ("pages", &|| {
            let large = heap.alloc(layout(30_000)).unwrap();
            // SAFETY: it was just allocated.
            unsafe { heap.free(large, layout(30_000)) }.unwrap();
        }),
        ("ring", &|| {
            let other = heap.open_epoch().unwrap();
            heap.close(other).unwrap();
        }),
        ("locals", &|| drop(heap.local().unwrap())),
        ("a bin, to take", &|| {
            let mut taken = Vec::new();
            for _ in 0..65 {
                taken.push(heap.alloc_in(epoch, layout(512)).unwrap());
            }
            for object in taken {
                // SAFETY: it was just allocated.
                unsafe { heap.free(object, layout(512)) }.unwrap();
            }
        }),
        ("a bin, to give", &|| {
            let first = NonNull::new(first.load(Ordering::Relaxed)).unwrap();
            // SAFETY: it is live and freed once.
            unsafe { heap.free(first, layout(512)) }.unwrap();
        }),
    ];
    let done: [AtomicUsize; 5] = Default::default();
    // SAFETY: nothing else is done with the heap here until `go_on`, which is called once.
    unsafe { heap.pause() };
    std::thread::scope(|scope| {
        let threads: Vec<_> = tasks
            .iter()
            .zip(&done)
            .map(|((_, task), done)| {
                scope.spawn(move || {
                    task();
                    done.store(1, Ordering::Relaxed);
                })
            })
            .collect();
        for _ in 0..steps(20, 3) {
            std::thread::sleep(Duration::from_millis(5));
            for ((name, _), done) in tasks.iter().zip(&done) {
                assert_eq!(done.load(Ordering::Relaxed), 0, "{name}");
            }
        }
        // SAFETY: the pause is this thread's.
        unsafe { heap.go_on() };
        for thread in threads {
            thread.join().unwrap();
        }
    });
    for object in &full[1..] {
        // SAFETY: it is live and freed once.
        unsafe { heap.free(*object, layout(512)) }.unwrap();
    }
    heap.close(epoch).unwrap();
    assert_eq!(walk(&heap).live_slots, 0);
}
