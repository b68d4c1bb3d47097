//! A gigabyte of 128-byte objects, of which a random half is freed, and then the rest: what is resident each time.

use super::objects::{Object, Rng, get_filled, put};

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("the system tells");
    let pages = text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

pub(crate) fn half(reclaim: fn()) {
    let count = (1 << 30) / 128;
    let mut objects: Vec<Object> = Vec::with_capacity(count);
    objects.extend((0..count).map(|_| get_filled(128)));
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
