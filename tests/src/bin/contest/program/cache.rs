//! A cache that evicts at random, and whose objects' sizes shift over time.

use super::Pattern;
use super::objects::{Object, Rng, get_touched, put, read_and_put};

pub(super) const PATTERNS: [Pattern; 1] = [("cache", cache)];

/// What the cache may hold.
const BYTES: usize = 32 << 20;

/// The sizes of each period: what was there before is evicted by what comes.
const PERIODS: [(usize, usize); 8] = [
    (64, 256),
    (512, 2048),
    (200, 800),
    (4096, 32 << 10),
    (100, 400),
    (1024, 8192),
    (64, 64 << 10),
    (300, 500),
];

fn cache() -> usize {
    let mut rng = Rng(31);
    let mut objects: Vec<Object> = Vec::new();
    let (mut held, mut units) = (0, 0);
    for (least, most) in PERIODS {
        // As many bytes come as are held three times over, so that little of the last period stays.
        let mut come = 0;
        while come < 3 * BYTES {
            let size = rng.log(least, most);
            while held + size > BYTES {
                let object = objects.swap_remove(rng.below(objects.len()));
                held -= object.1;
                read_and_put(object);
            }
            objects.push(get_touched(size));
            held += size;
            come += size;
            units += 1;
        }
    }
    objects.drain(..).for_each(put);
    units
}
