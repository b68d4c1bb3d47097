//! A paused heap keeps everybody out of its pages', its ring's and its class lists' locks, and goes on afterwards.

use crate::common::host::HostProvider;
use crate::common::{layout, steps, walk};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use core::time::Duration;
use temporal_slab::Heap;
use temporal_slab::config::Unchecked;

type TestHeap = Heap<Unchecked<HostProvider<{ 1 << 18 }>>>;

/// Three who each need one lock and no other. (Nothing needs the locals' alone for long enough to be seen.) Catches one
/// that a pause does not take, under which a copy of the process would be in the middle of something; and one that it
/// does not give up.
#[test]
fn nobody_is_inside_a_paused_heap() {
    let heap = TestHeap::new(HostProvider::default());
    let epoch = heap.open_epoch().unwrap();
    // Slabs that are full: the first free in one is under the class list's lock.
    let full: Vec<_> = (0..64)
        .map(|_| heap.alloc_in(epoch, layout(512)).unwrap())
        .collect();
    let first = AtomicPtr::new(full[0].as_ptr());
    let tasks: [(&str, &(dyn Fn() + Sync)); 3] = [
        ("pages", &|| {
            let large = heap.alloc(layout(30_000)).unwrap();
            // SAFETY: it was just allocated.
            unsafe { heap.free(large, layout(30_000)) }.unwrap();
        }),
        ("ring", &|| assert!(heap.state(epoch).is_ok())),
        ("class list", &|| {
            let first = NonNull::new(first.load(Ordering::Relaxed)).unwrap();
            // SAFETY: it is live and freed once.
            unsafe { heap.free(first, layout(512)) }.unwrap();
        }),
    ];
    let done: [AtomicUsize; 3] = Default::default();
    let begun = AtomicUsize::new(0);
    // SAFETY: nothing else is done with the heap here until `after_fork`, which is called once.
    unsafe { heap.before_fork() };
    std::thread::scope(|scope| {
        let threads: Vec<_> = tasks
            .iter()
            .zip(&done)
            .map(|((_, task), done)| {
                let begun = &begun;
                scope.spawn(move || {
                    begun.fetch_add(1, Ordering::Relaxed);
                    task();
                    done.store(1, Ordering::Relaxed);
                })
            })
            .collect();
        while begun.load(Ordering::Relaxed) < tasks.len() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(steps(100, 10) as u64));
        let early = done.iter().map(|done| done.load(Ordering::Relaxed));
        let early: Vec<_> = tasks
            .iter()
            .zip(early)
            .filter(|(_, done)| *done > 0)
            .collect();
        let early: Vec<_> = early.iter().map(|((name, _), _)| *name).collect();
        // SAFETY: the pause is this thread's.
        unsafe { heap.after_fork() };
        assert_eq!(early, [""; 0]);
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
