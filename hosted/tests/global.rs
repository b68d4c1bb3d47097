//! The allocator under this very program: threads, their ends, epochs, sizes.
#![cfg(target_os = "linux")]

mod common;

use common::{Rng, alone};
use core::alloc::{GlobalAlloc, Layout};
use core::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Barrier, mpsc};
use temporal_slab::{Domain, Epoch, EpochError, EpochState, Heap, Policy};
use temporal_slab_hosted::rss::Usage;
use temporal_slab_hosted::{GlobalHeap, MmapProvider, TemporalSlab};

#[global_allocator]
static GLOBAL: TemporalSlab = TemporalSlab;

/// 10,000 threads that each allocate, pass half of their objects to another thread and exit: after the
/// tenth round the process does not grow. Catches a local, or the words in it, that is lost when its thread
/// ends. The heap's metadata stays as large as it had to be at most, and how much is live at once is the
/// scheduler's choice: so the first ten rounds hold everything that a round can hold, all of their threads
/// alive and all of their objects untaken, and no later round can need more.
#[test]
fn threads_come_and_go() {
    if alone("threads_come_and_go") {
        return;
    }
    let resident = || {
        TemporalSlab::flush_thread();
        TemporalSlab::heap().reclaim();
        Usage::read().unwrap().resident_bytes
    };
    let mut after: Vec<(u64, usize)> = Vec::with_capacity(100);
    for round in 0..100u64 {
        let (give, take) = mpsc::channel::<Vec<Vec<u8>>>();
        let most = round < 10;
        let sent = Arc::new(Barrier::new(if most { 101 } else { 1 }));
        let all_sent = Arc::clone(&sent);
        let taker = std::thread::spawn(move || {
            if most {
                all_sent.wait();
            }
            take.iter()
                .flatten()
                .map(|object| object.len())
                .sum::<usize>()
        });
        for batch in 0..if most { 1 } else { 10 } {
            let threads: Vec<_> = (0..if most { 100 } else { 10 })
                .map(|thread| {
                    let give = give.clone();
                    let sent = Arc::clone(&sent);
                    std::thread::spawn(move || {
                        let mut rng = Rng(round * 100 + batch * 10 + thread);
                        let mut objects: Vec<Vec<u8>> =
                            (0..100).map(|_| vec![1; 1 + rng.below(2000)]).collect();
                        let half = objects.split_off(50);
                        give.send(half).unwrap();
                        if most {
                            sent.wait();
                        }
                        objects.iter().map(Vec::len).sum::<usize>()
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
        }
        drop(give);
        taker.join().unwrap();
        after.push((resident(), TemporalSlab::heap().bytes().resident));
    }
    let tenth = after[9..20].iter().copied().max().unwrap();
    let last = after[90..].iter().copied().max().unwrap();
    println!("resident after rounds 10-20 {tenth:?}, after 90-100 {last:?}");
    // Metadata is counted by pages, and how many threads are there at once differs a little.
    assert!(last.1 <= tenth.1 + (64 << 10), "by the heap's account");
    // The system counts in batches of 64 pages for each CPU.
    assert!(last.0 <= tenth.0 + (1 << 20), "by the system's");
}

/// A thread's destructors allocate and free after most of it is gone, those of the C library included.
#[test]
fn destructors_allocate() {
    struct Late(RefCell<Vec<String>>);
    impl Drop for Late {
        fn drop(&mut self) {
            let texts = self.0.borrow();
            let all: String = texts.iter().map(|text| text.to_uppercase()).collect();
            assert_eq!(all.len(), texts.len() * 4);
            let map: BTreeMap<usize, Box<str>> = (0..100)
                .map(|n| (n, format!("{n}").into_boxed_str()))
                .collect();
            assert_eq!(map[&99].as_ref(), "99");
        }
    }
    thread_local! {
        static FIRST: Late = const { Late(RefCell::new(Vec::new())) };
        static SECOND: Late = const { Late(RefCell::new(Vec::new())) };
    }
    unsafe extern "C" fn very_late(value: *mut libc::c_void) {
        // SAFETY: the value is the box that was noted.
        let boxed: Box<Vec<u64>> = unsafe { Box::from_raw(value.cast()) };
        let doubled: Vec<u64> = boxed.iter().map(|n| n * 2).collect();
        assert_eq!(doubled[9], 18);
    }
    // Before and after the allocator's own key, so that it runs on either side of it.
    let keys: Vec<libc::pthread_key_t> = (0..40)
        .map(|_| {
            let mut key = 0;
            // SAFETY: the key is ours.
            let made = unsafe { libc::pthread_key_create(&raw mut key, Some(very_late)) };
            assert_eq!(made, 0);
            key
        })
        .collect();
    for _ in 0..20 {
        let keys = keys.clone();
        std::thread::spawn(move || {
            for key in keys {
                let value: Box<Vec<u64>> = Box::new((0..10).collect());
                // SAFETY: the key is valid, and its destructor takes the box.
                unsafe { libc::pthread_setspecific(key, Box::into_raw(value).cast()) };
            }
            FIRST.with(|late| late.0.borrow_mut().push("abcd".to_owned()));
            SECOND.with(|late| {
                late.0
                    .borrow_mut()
                    .extend(["efgh".to_owned(), "ijkl".to_owned()])
            });
        })
        .join()
        .unwrap();
    }
}

/// Sizes below, at and above the largest class, grown and shrunk at random: content is kept, bytes that
/// should be zero are. Large ones move by pages.
#[test]
fn sizes_and_reallocation() {
    let mut rng = Rng(3);
    let mut objects: Vec<Vec<u8>> = Vec::new();
    for step in 0..4000usize {
        let size = match rng.below(10) {
            0..6 => rng.below(9000),
            6..8 => [8192, 32 << 10, 128 << 10][rng.below(3)] - 2 + rng.below(4),
            8 => rng.below(300_000),
            _ => rng.below(6 << 20),
        };
        match rng.below(4) {
            0 if objects.len() < 100 => objects.push(vec![0; size]),
            1 if !objects.is_empty() => {
                let gone = objects.swap_remove(rng.below(objects.len()));
                check(&gone);
            }
            _ if !objects.is_empty() => {
                let place = rng.below(objects.len());
                let object = &mut objects[place];
                check(object);
                object.resize(size, 0);
                object.shrink_to_fit();
                let tag = (step % 251) as u8;
                object.iter_mut().step_by(97).for_each(|b| *b = tag);
            }
            _ => {}
        }
    }
    fn check(object: &[u8]) {
        let tag = object.first().copied().unwrap_or(0);
        assert!(object.iter().step_by(97).all(|b| *b == tag || *b == 0));
        assert!(
            object
                .iter()
                .enumerate()
                .all(|(i, b)| i % 97 == 0 || *b == 0)
        );
    }
    for align in [1, 16, 64, 4096, 65536, 4 << 20] {
        let layout = Layout::from_size_align(100, align).unwrap();
        // SAFETY: the layout has a size; the object is freed once.
        unsafe {
            let object = GLOBAL.alloc(layout);
            assert!(object.addr().is_multiple_of(align) && !object.is_null());
            object.write_bytes(1, 100);
            GLOBAL.dealloc(object, layout);
        }
    }
}

/// What a thread allocates while it is in an epoch belongs to it: boxes, vectors, texts, maps. It outlives
/// the epoch's close and is freed from wherever; then the epoch is empty, and only then.
#[test]
fn a_thread_is_in_an_epoch() {
    let heap = TemporalSlab::heap();
    let live = |epoch| heap.epoch_stats(epoch).unwrap().live_objects();
    assert_eq!(TemporalSlab::current(), None);
    let phase = TemporalSlab::phase().unwrap();
    let epoch = phase.epoch();
    assert_eq!(TemporalSlab::current(), Some(epoch));
    let boxed = Box::new([7u8; 100]);
    let mut map: HashMap<String, Vec<u32>> = HashMap::new();
    for n in 0..100u32 {
        map.entry(format!("key {n}")).or_default().push(n);
    }
    assert!(live(epoch) >= 202, "{}", live(epoch));
    // Another thread is in no epoch.
    std::thread::spawn(|| assert_eq!(TemporalSlab::current(), None))
        .join()
        .unwrap();
    drop(phase);
    assert_eq!(TemporalSlab::current(), None);
    assert_eq!(heap.state(epoch), Ok(EpochState::Closing));
    // Everything is as it was, here and on another thread.
    assert_eq!(map["key 42"], [42]);
    let there = std::thread::spawn(move || {
        assert_eq!(boxed[99], 7);
        map.len()
    });
    assert_eq!(there.join().unwrap(), 100);
    assert_eq!(live(epoch), 0);
}

/// Guards nest: request, transaction, query. What is dropped out of order routes nothing wrongly; what is
/// closed under a thread's feet lets it go on outside.
#[test]
fn guards_nest_and_end_in_any_order() {
    let heap = TemporalSlab::heap();
    let [request, query] = [(); 2].map(|()| Domain::open(heap).unwrap().close_on_exit());
    let outer = TemporalSlab::enter(&request).unwrap();
    assert_eq!(TemporalSlab::current(), Some(request.epoch()));
    assert_eq!(heap.epoch_stats(request.epoch()).unwrap().domains, 1);
    let inner = TemporalSlab::enter(&query).unwrap();
    assert_eq!(TemporalSlab::current(), Some(query.epoch()));
    // The outer first.
    drop(outer);
    assert_eq!(TemporalSlab::current(), Some(query.epoch()));
    assert_eq!(
        heap.state(request.epoch()),
        Ok(EpochState::Closing),
        "the last one out"
    );
    drop(inner);
    assert_eq!(TemporalSlab::current(), None);
    assert_eq!(heap.state(query.epoch()), Ok(EpochState::Closing));
    assert_eq!(
        TemporalSlab::route(query.epoch()).unwrap_err(),
        EpochError::Closed
    );

    // Deeper than any table.
    let epochs: Vec<_> = (0..40).map(|_| heap.open_epoch().unwrap()).collect();
    let guards: Vec<_> = epochs
        .iter()
        .map(|e| TemporalSlab::route(*e).unwrap())
        .collect();
    assert_eq!(TemporalSlab::current(), epochs.last().copied());
    for (guard, epoch) in guards.into_iter().rev().zip(epochs.iter().rev()) {
        assert_eq!(TemporalSlab::current(), Some(*epoch));
        drop(guard);
    }
    assert_eq!(TemporalSlab::current(), None);
    for epoch in &epochs {
        heap.close(*epoch).unwrap();
    }

    let phase = TemporalSlab::phase().unwrap();
    heap.close(phase.epoch()).unwrap();
    let outside = vec![1u8; 1000];
    assert_eq!(heap.epoch_stats(phase.epoch()).unwrap().live_objects(), 0);
    drop((phase, outside));
}

/// A thread that panics inside leaves what it was inside; one that ends with a guard that it forgot, or with an epoch that
/// it routed into by a guard that nobody drops, takes nothing with it but the position, which anybody may close. Catches an
/// epoch that stays open behind a panic, a guard's place in a list that is used when its thread is gone, and a ring that
/// cannot be emptied.
#[test]
fn threads_end_inside() {
    if alone("threads_end_inside") {
        return;
    }
    let heap = TemporalSlab::heap();
    let epoch = std::sync::Mutex::new(None);
    let panicked = std::thread::scope(|scope| {
        let work = || {
            let phase = TemporalSlab::phase().unwrap();
            *epoch.lock().unwrap() = Some(phase.epoch());
            let _objects = vec![vec![1u8; 100]; 50];
            // Without the hook, which keeps what it reads of the program to name lines.
            std::panic::resume_unwind(Box::new("on purpose"));
        };
        scope.spawn(work).join().is_err()
    });
    let epoch = epoch.into_inner().unwrap().unwrap();
    assert!(panicked);
    assert_eq!(heap.state(epoch), Ok(EpochState::Closing));
    let live = || heap.epoch_stats(epoch).unwrap().live_objects();
    assert_eq!(live(), 0);

    let domain = Domain::open(heap).unwrap().close_on_exit();
    let (mut left, turns) = (Vec::new(), 3 * heap.epoch_records());
    for turn in 0..turns {
        let domain = &domain;
        let ended = std::thread::scope(|scope| {
            let work = move || -> Result<Option<(Epoch, Vec<u8>)>, EpochError> {
                match turn % 2 {
                    0 => {
                        let phase = TemporalSlab::phase()?;
                        let epoch = phase.epoch();
                        core::mem::forget(phase);
                        // In the forgotten epoch, and used after the thread is gone.
                        Ok(Some((epoch, vec![7u8; 100])))
                    }
                    _ => {
                        core::mem::forget(TemporalSlab::enter(domain).unwrap());
                        Ok(None)
                    }
                }
            };
            scope.spawn(work).join().unwrap()
        });
        match ended {
            Ok(Some(kept)) => left.push(kept),
            Ok(None) => {}
            Err(error) => panic!("{error}: there is always room for one more"),
        }
    }
    assert!(left.len() == turns / 2 && heap.epoch_records() > turns / 2);
    assert_eq!(TemporalSlab::current(), None, "of this thread");
    let inside = heap.epoch_stats(domain.epoch()).unwrap();
    assert!(inside.is_open() && inside.domains as usize == turns / 2);
    for (epoch, kept) in left {
        assert!(kept.iter().all(|byte| *byte == 7));
        heap.close(epoch).unwrap();
        drop(kept);
        assert_eq!(heap.epoch_stats(epoch).unwrap().live_objects(), 0);
    }
    drop(TemporalSlab::phase().unwrap());
}

/// A domain over another heap is refused: its epoch's token means something else here.
#[test]
fn a_domain_of_another_heap_is_refused() {
    static OTHER: GlobalHeap = Heap::new(MmapProvider::new());
    let domain = Domain::open(&OTHER).unwrap();
    assert_eq!(
        TemporalSlab::enter(&domain).unwrap_err(),
        EpochError::OtherHeap
    );
    assert_eq!(TemporalSlab::current(), None);
}

/// Large zeroed memory comes fresh and is not written, in an epoch as outside.
#[test]
fn zeroed_memory_is_not_touched() {
    if alone("zeroed_memory_is_not_touched") {
        return;
    }
    let resident = || Usage::read().unwrap().resident_bytes;
    for in_phase in [false, true] {
        let phase = in_phase.then(|| TemporalSlab::phase().unwrap());
        let before = resident();
        let zeroes = vec![0u8; 256 << 20];
        assert!(resident() - before < 8 << 20, "in a phase: {in_phase}");
        assert_eq!(zeroes[100 << 20], 0);
        drop((zeroes, phase));
    }
}

/// Many threads, each in epochs of its own over and over, and collections that move between them: every
/// object is intact, and every epoch ends empty.
#[test]
fn epochs_of_many_threads() {
    // At most a few lists are on their way, so that the epochs that they keep are fewer than the ring has.
    let (give, take) = mpsc::sync_channel::<Vec<Vec<u64>>>(16);
    let reader = std::thread::spawn(move || {
        take.iter()
            .flatten()
            .map(|numbers| {
                assert!(numbers.windows(2).all(|w| w[0] + 1 == w[1]));
                numbers.len()
            })
            .sum::<usize>()
    });
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let give = give.clone();
            std::thread::spawn(move || {
                let mut rng = Rng(thread);
                for _ in 0..300 {
                    let phase = TemporalSlab::phase().unwrap();
                    let lists: Vec<Vec<u64>> = (0..20)
                        .map(|_| (0..rng.below(300) as u64).collect())
                        .collect();
                    drop(phase);
                    give.send(lists).unwrap();
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    drop(give);
    assert!(reader.join().unwrap() > 100_000);
}

/// The policy can be changed under a running program, by any thread.
#[test]
fn policies_change_under_load() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let stop = &stop;
            scope.spawn(move || {
                let mut rng = Rng(seed);
                let mut objects: Vec<Vec<u8>> = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    objects.push(vec![5; rng.below(3000)]);
                    if objects.len() > 500 {
                        objects.truncate(rng.below(500));
                    }
                }
                assert!(objects.iter().flatten().all(|b| *b == 5));
            });
        }
        let heap = TemporalSlab::heap();
        for round in 0..200 {
            heap.set_policy(match round % 4 {
                0 => Policy::EAGER,
                1 => Policy::keeping(1 << 20),
                2 => Policy::ON_CLOSE,
                _ => Policy::NEVER,
            });
            if round % 7 == 0 {
                heap.reclaim();
            }
            std::thread::sleep(core::time::Duration::from_millis(2));
        }
        heap.set_policy(Policy::DEFAULT);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
