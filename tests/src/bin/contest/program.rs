//! One program, which knows nothing of the allocator that it runs on. It prints a line for each pattern:
//! its name and the nanoseconds that a unit took at best. With `half` as its argument it prints what is
//! resident after a random half of many objects was freed; with the name of a pattern it runs that one
//! alone, for a profiler.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

const BATCH: usize = 10_000;

/// The one pattern that is to run.
static ONLY: OnceLock<String> = OnceLock::new();

/// How long one slice of a pattern takes, and how many there are.
const SLICE: Duration = Duration::from_millis(12);
const SLICES: usize = 5;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// An object, by its address and its layout.
#[derive(Clone, Copy)]
struct Object(NonNull<u8>, Layout);

// SAFETY: an object is passed on and then used by its new holder alone.
unsafe impl Send for Object {}

fn get(size: usize) -> Object {
    let layout = Layout::from_size_align(size, 8).expect("a small size");
    // SAFETY: the size is not zero.
    let object = NonNull::new(unsafe { alloc(layout) }).expect("there is memory");
    // SAFETY: it is ours, and 8 bytes long at least.
    unsafe { object.cast::<u64>().write(1) };
    Object(black_box(object), layout)
}

fn put(Object(object, layout): Object) {
    // SAFETY: each object is put once.
    unsafe { dealloc(object.as_ptr(), layout) };
}

/// Measures `turn`, which does some units and says how many, and prints the best slice.
fn measure(name: &str, mut turn: impl FnMut() -> usize) {
    if ONLY.get().is_some_and(|only| only != name) {
        return;
    }
    turn();
    let mut best = f64::MAX;
    for _ in 0..SLICES {
        let (start, mut units) = (Instant::now(), 0);
        while start.elapsed() < SLICE {
            units += turn();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / units as f64);
    }
    println!("{name} {best:.4}");
}

fn micro() {
    measure("pair", || {
        for _ in 0..BATCH {
            put(get(64));
        }
        BATCH
    });
    let mut objects: Vec<Object> = Vec::with_capacity(BATCH);
    measure("batch", || {
        objects.extend((0..BATCH).map(|_| get(64)));
        objects.drain(..).for_each(put);
        BATCH
    });
    measure("reversed", || {
        objects.extend((0..BATCH).map(|_| get(64)));
        objects.drain(..).rev().for_each(put);
        BATCH
    });
    let mut rng = Rng(7);
    let mut replace = |name: &str, size: fn(&mut Rng) -> usize| {
        objects.extend((0..BATCH).map(|_| get(size(&mut rng))));
        measure(name, || {
            for _ in 0..BATCH {
                let place = rng.below(BATCH);
                put(objects[place]);
                objects[place] = get(size(&mut rng));
            }
            BATCH
        });
        objects.drain(..).for_each(put);
    };
    replace("random", |_| 64);
    replace("mixed", |rng| 16 + rng.below(751));
    measure("vectors", || {
        let mut numbers = Vec::new();
        for n in 0..1000u64 {
            numbers.push(black_box(n));
        }
        black_box(&numbers);
        1000
    });
}

fn threads() {
    let (give, take): (SyncSender<Vec<Object>>, Receiver<Vec<Object>>) = sync_channel(4);
    let (back, empty) = sync_channel(8);
    let freeing = thread::spawn(move || {
        for mut batch in take {
            batch.drain(..).for_each(put);
            let _kept = back.try_send(batch);
        }
    });
    measure("across", || {
        for _ in 0..10 {
            let mut batch: Vec<Object> = empty.try_recv().unwrap_or_default();
            batch.extend((0..1000).map(|_| get(64)));
            give.send(batch).expect("the other thread is there");
        }
        BATCH
    });
    drop(give);
    freeing.join().expect("it does not panic");

    let work = || {
        let mut objects = Vec::with_capacity(1000);
        for _ in 0..100 {
            objects.extend((0..1000).map(|_| get(64)));
            objects.drain(..).for_each(put);
        }
    };
    measure("two-threads", || {
        thread::scope(|scope| {
            scope.spawn(work);
            work();
        });
        200_000
    });
}

/// A document of about a megabyte: parsed, changed, written.
fn documents() {
    let mut rng = Rng(11);
    let records: Vec<String> = (0..6000)
        .map(|id| {
            let tags: Vec<String> = (0..rng.below(6)).map(|n| format!("\"tag-{n}\"")).collect();
            format!(
                "{{\"id\":{id},\"name\":\"record number {id}\",\"score\":{},\"tags\":[{}],\"more\":{{\"a\":\"{}\",\"b\":null,\"c\":[{},{}]}}}}",
                rng.below(1_000_000) as f64 / 64.0,
                tags.join(","),
                "x".repeat(rng.below(40)),
                rng.below(1000),
                rng.below(1000),
            )
        })
        .collect();
    let text = format!("[{}]", records.join(","));
    measure("documents", || {
        let mut document: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let list = document.as_array_mut().expect("a list");
        list.retain(|record| record["id"].as_u64().is_some_and(|id| id % 3 != 0));
        for record in list.iter_mut() {
            record["seen"] = serde_json::json!({ "by": "the contest", "times": [1, 2, 3] });
        }
        black_box(serde_json::to_string(&document).expect("it can be written"));
        text.len() / 1000
    });
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("the system tells");
    let pages = text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

/// A gigabyte of 128-byte objects, of which a random half is freed, and then the rest.
fn half(reclaim: fn()) {
    let count = (1 << 30) / 128;
    let mut objects: Vec<Object> = Vec::with_capacity(count);
    for _ in 0..count {
        let object = get(128);
        // SAFETY: the object is ours and this long.
        unsafe { object.0.write_bytes(1, 128) };
        objects.push(object);
    }
    let list = (count * size_of::<Object>()) as u64;
    let full = resident() - list;
    let mut rng = Rng(5);
    for end in (1..count).rev() {
        objects.swap(end, rng.below(end + 1));
    }
    objects.drain(count / 2..).for_each(put);
    reclaim();
    let half = resident() - list;
    objects.drain(..).for_each(put);
    reclaim();
    let empty = resident() - list;
    println!(
        "full {}\nhalf {}\nempty {}",
        full >> 20,
        half >> 20,
        empty >> 20
    );
}

pub(crate) fn main(reclaim: fn()) {
    match std::env::args().nth(1) {
        Some(only) if only == "half" => return half(reclaim),
        Some(only) => ONLY.get_or_init(|| only),
        None => &String::new(),
    };
    micro();
    threads();
    documents();
}
