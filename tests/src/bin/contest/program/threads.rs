//! Threads that each do their own work, and some that hand over to others that allocate as well.

use super::Pattern;
use super::objects::{Object, Rng, get, get_touched, put, read_and_put, replace};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

pub(super) const PATTERNS: [Pattern; 6] = [
    ("across", across),
    ("two-threads", two_threads),
    ("threads-2", || small(2)),
    ("threads-16", || small(16)),
    ("six-threads-half-meg", half_meg),
    ("threads-come-and-go", come_and_go),
];

/// Has so many threads do the same, each with a generator of its own: what they did together.
fn together(threads: usize, work: impl Fn(Rng) -> usize + Sync) -> usize {
    thread::scope(|scope| {
        let work = &work;
        let spawned: Vec<_> = (0..threads)
            .map(|place| scope.spawn(move || work(Rng::nth(place))))
            .collect();
        let done = spawned.into_iter().map(|t| t.join().expect("no panic"));
        done.sum()
    })
}

/// Lists of objects that another thread frees, which sends the empty lists back.
fn across() -> usize {
    const BATCH: usize = 1000;
    const BATCHES: usize = 8_000;
    let (give, take): (SyncSender<Vec<Object>>, Receiver<Vec<Object>>) = sync_channel(4);
    let (back, empty) = sync_channel(8);
    let freeing = thread::spawn(move || {
        for mut batch in take {
            batch.drain(..).for_each(put);
            let _kept = back.try_send(batch);
        }
    });
    for _ in 0..BATCHES {
        let mut batch: Vec<Object> = empty.try_recv().unwrap_or_default();
        batch.extend((0..BATCH).map(|_| get(64)));
        give.send(batch).expect("the other thread is there");
    }
    drop(give);
    freeing.join().expect("it does not panic");
    BATCH * BATCHES
}

fn two_threads() -> usize {
    together(2, |_| {
        let mut objects = Vec::with_capacity(1000);
        for _ in 0..20_000 {
            objects.extend((0..1000).map(|_| get(64)));
            objects.drain(..).for_each(put);
        }
        20_000_000
    })
}

/// The same for each thread, so that what 16 do in a second can be compared with what 2 do.
fn small(threads: usize) -> usize {
    together(threads, |mut rng| {
        replace(1000, 8_000_000, &mut rng, |rng| get(rng.between(8, 256)))
    })
}

fn half_meg() -> usize {
    together(6, |mut rng| {
        replace(100, 8000, &mut rng, |rng| {
            get_touched(rng.log(16, 512 << 10))
        })
    })
}

/// Generations of threads. Each thread replaces objects of its own; one in sixteen it leaves in a place that all share, for
/// another thread, perhaps of a later generation, to free.
fn come_and_go() -> usize {
    const SHARED: usize = 1024;
    let shared: Vec<Mutex<Option<Object>>> = (0..SHARED).map(|_| Mutex::new(None)).collect();
    let size = |rng: &mut Rng| match rng.below(200) {
        0 => rng.log(64 << 10, 1 << 20),
        1..20 => rng.log(1024, 64 << 10),
        _ => rng.log(8, 1024),
    };
    let mut units = 0;
    for generation in 0..60 {
        units += together(6, |rng| {
            let mut rng = Rng(rng.0 ^ (generation << 20));
            let mut own: Vec<Object> = (0..200).map(|_| get_touched(size(&mut rng))).collect();
            for turn in 0..5000 {
                let place = rng.below(own.len());
                let new = get_touched(size(&mut rng));
                let old = core::mem::replace(&mut own[place], new);
                if turn % 16 == 0 {
                    let place = &shared[rng.below(SHARED)];
                    let left = place.lock().expect("no panic").replace(old);
                    left.into_iter().for_each(read_and_put);
                } else {
                    put(old);
                }
            }
            own.drain(..).for_each(put);
            5200
        });
    }
    for place in shared {
        place
            .into_inner()
            .expect("no panic")
            .into_iter()
            .for_each(put);
    }
    units
}
