//! Epochs of tasks on tokio's threads: each is in its own at each poll, on whatever thread, and it closes however the task ends.

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use temporal_slab::{Epoch, EpochState};
use temporal_slab_hosted::TemporalSlab;
use temporal_slab_hosted::task::{in_epoch, in_phase};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

#[global_allocator]
static GLOBAL: TemporalSlab = TemporalSlab;

/// What is counted is the process's, so one test runs at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(4).enable_time().build().unwrap()
}

fn is_open(epoch: Epoch) -> bool {
    TemporalSlab::heap().state(epoch) == Ok(EpochState::Active)
}

/// The live objects of an epoch.
fn live_in(epoch: Epoch) -> u64 {
    let stats = TemporalSlab::heap().epoch_stats(epoch).unwrap();
    stats.blocks.live_objects + stats.slabs.live_slots
}

/// Numbers that differ, by a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// Polls once, without a runtime.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Catches a thread that stays in the epoch of a task between polls, a poll outside of it, and an epoch that the end of the future
/// does not close.
#[test]
fn a_thread_is_in_the_epoch_during_polls_only() {
    let _alone = ALONE.blocking_lock();
    let mut future = Box::pin(
        in_phase(async {
            let first = Box::new([1u8; 100]);
            let epoch = TemporalSlab::current().unwrap();
            yield_now().await;
            assert_eq!(TemporalSlab::current(), Some(epoch));
            (first, Box::new([2u8; 100]), epoch)
        })
        .unwrap(),
    );
    let epoch = future.epoch().unwrap();
    future.set_label("a task");
    assert!(poll(future.as_mut()).is_pending());
    assert_eq!(TemporalSlab::current(), None);
    assert!(live_in(epoch) > 0 && is_open(epoch));
    assert_eq!(
        TemporalSlab::heap().label(epoch).unwrap().as_str(),
        "a task"
    );
    let polled = thread::scope(|scope| scope.spawn(|| poll(future.as_mut())).join().unwrap());
    let Poll::Ready((first, second, inside)) = polled else {
        panic!("it is done");
    };
    assert_eq!((inside, is_open(epoch)), (epoch, false));
    assert!(poll(future.as_mut()).is_pending(), "done is done");
    assert_eq!(live_in(epoch), 2, "the result lives on");
    assert_eq!((first[99], second[99]), (1, 2));
    drop((first, second));
    assert!(TemporalSlab::heap().state(epoch).is_err() || live_in(epoch) == 0);
}

/// Phases nest, and an epoch that is somebody else's is left open. Catches an inner future that leaves its thread in no epoch, and
/// one that closes what is not its own.
#[test]
fn futures_nest() {
    let _alone = ALONE.blocking_lock();
    let shared = TemporalSlab::heap().open_epoch().unwrap();
    let outer = in_phase(async {
        let own = TemporalSlab::current();
        let inner = in_epoch(shared, async {
            yield_now().await;
            TemporalSlab::outside(|| assert_eq!(TemporalSlab::current(), None));
            TemporalSlab::current()
        });
        let inner = inner.await;
        (own, inner, TemporalSlab::current())
    });
    let outer = outer.unwrap();
    let own = outer.epoch();
    assert_eq!(runtime().block_on(outer), (own, Some(shared), own));
    assert!(is_open(shared));
    TemporalSlab::heap().close(shared).unwrap();
}

/// Catches a poll or a drop that panics and leaves its thread in the epoch, or the epoch open.
#[test]
fn a_panic_ends_a_task_as_a_drop_does() {
    let _alone = ALONE.blocking_lock();
    struct Loud(&'static AtomicUsize);
    impl Drop for Loud {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            assert!(TemporalSlab::current().is_some(), "dropped in its epoch");
            if !thread::panicking() {
                panic!("at the drop");
            }
        }
    }
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    for is_polled in [true, false] {
        let loud = Loud(&DROPS);
        let mut future = Box::pin(
            in_phase(async move {
                let _loud = &loud;
                if is_polled {
                    panic!("at the poll");
                }
            })
            .unwrap(),
        );
        let epoch = future.epoch().unwrap();
        let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            if is_polled {
                let _never = poll(future.as_mut());
            }
            drop(future);
        }));
        assert!(ended.is_err());
        assert_eq!((TemporalSlab::current(), is_open(epoch)), (None, false));
    }
    panic::set_hook(hook);
    assert_eq!(DROPS.load(Ordering::Relaxed), 2);
}

/// What a task does: some boxes and vectors that live over its polls, whose places say whether it is in its own epoch.
async fn work(number: u64, seed: u64) -> Vec<u64> {
    let epoch = TemporalSlab::current().unwrap();
    let mut draw = Draw(seed);
    let mut kept = Vec::new();
    for turn in 0..draw.below(20) {
        assert_eq!(TemporalSlab::current(), Some(epoch), "task {number}");
        let label = TemporalSlab::heap().label(epoch).unwrap();
        assert_eq!(label.as_str(), format!("task {number}"));
        kept.push(vec![turn; draw.below(100) as usize]);
        match draw.below(4) {
            0 => sleep(Duration::from_micros(draw.below(300))).await,
            1 => {
                let nested = in_phase(async {
                    let text = format!("{number} of a phase in it");
                    yield_now().await;
                    text.len()
                });
                assert!(nested.unwrap().await > 10);
            }
            _ => yield_now().await,
        }
        if draw.below(3) == 0 {
            kept.swap_remove(0);
        }
    }
    kept.into_iter().flatten().collect()
}

/// 1,000 tasks at a time on 4 threads, some of which are aborted, some time out, and some panic: each epoch closes, nothing leaks, and
/// labels are right. Catches an epoch that is left open, a block that nobody has, a task that allocates in the epoch of another.
#[test]
fn epochs_of_a_thousand_tasks_close() {
    let _alone = ALONE.blocking_lock();
    let heap = TemporalSlab::heap();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let before = heap.stats();
    let runtime = runtime();
    let (done, aborted) = runtime.block_on(async {
        let mut draw = Draw(3);
        let (mut done, mut aborted) = (0, 0);
        for round in 0..10 {
            let mut tasks = JoinSet::new();
            for number in 0..1000 {
                let seed = draw.below(1 << 30);
                let task = in_phase(work(number, seed)).unwrap();
                task.set_label(&format!("task {number}"));
                let handle = match draw.below(8) {
                    0 => tasks.spawn(async move {
                        let limit = Duration::from_micros(500);
                        let ended = tokio::time::timeout(limit, task).await;
                        ended.unwrap_or_default()
                    }),
                    1 => tasks.spawn(async move {
                        tokio::select! {
                            kept = task => kept,
                            () = sleep(Duration::from_micros(300)) => Vec::new(),
                        }
                    }),
                    2 => tasks.spawn(async move {
                        let kept = task.await;
                        assert!(kept.len() % 7 != round, "a task that panics");
                        kept
                    }),
                    _ => tasks.spawn(task),
                };
                if draw.below(4) == 0 {
                    handle.abort();
                }
            }
            while let Some(ended) = tasks.join_next().await {
                match ended {
                    Ok(_) => done += 1,
                    Err(_) => aborted += 1,
                }
            }
        }
        (done, aborted)
    });
    drop(runtime);
    panic::set_hook(hook);
    assert!(done > 1000 && aborted > 1000, "{done} and {aborted}");
    let after = heap.stats();
    // What a test before left behind may be gone by now.
    assert_eq!(after.open_epochs, before.open_epochs);
    assert!(after.closing_epochs <= before.closing_epochs);
    assert!(after.closes.closes >= before.closes.closes + 10_000);
    assert!(
        after.blocks.live_objects <= before.blocks.live_objects,
        "objects are left in blocks"
    );
}

/// A future that is dropped by another thread than those that polled it. Catches blocks that wait for a thread that is idle: they
/// come back when it allocates again, or ends.
#[test]
fn a_future_is_dropped_elsewhere() {
    let _alone = ALONE.blocking_lock();
    let heap = TemporalSlab::heap();
    let mut future = Box::pin(
        in_phase(async {
            let kept = vec![1u8; 1000];
            core::future::pending::<()>().await;
            drop(kept);
        })
        .unwrap(),
    );
    let epoch = future.epoch().unwrap();
    thread::scope(|scope| {
        let polled = scope.spawn(|| poll(future.as_mut()).is_pending());
        assert!(polled.join().unwrap());
    });
    assert!(live_in(epoch) > 0);
    drop(future);
    assert!(!is_open(epoch));
    assert!(heap.state(epoch).is_err() || live_in(epoch) == 0);
    let nothing = pin!(async {});
    assert!(poll(nothing).is_ready());
}
