//! The pattern that the README begins with: a phase for each request, of which something goes into a cache that lives on.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use temporal_slab_hosted::TemporalSlab;

#[global_allocator]
static ALLOCATOR: TemporalSlab = TemporalSlab;

const THREADS: usize = 4;
/// Entries of the cache, each of which is replaced a few times. A heap that shuffles has no bump blocks, and each survivor has
/// slabs of its own.
const ENTRIES: usize = if cfg!(feature = "hardened") {
    200
} else {
    10_000
};
const REQUESTS: usize = 4 * ENTRIES;

/// What a request allocates: some texts and a map, and an answer.
fn answer(request: usize) -> String {
    let words: Vec<String> = (0..20)
        .map(|word| format!("{request}-{word}-{}", "x".repeat(word * 7)))
        .collect();
    let lengths: HashMap<&str, usize> = words
        .iter()
        .map(|word| (word.as_str(), word.len()))
        .collect();
    format!(
        "{request}: {} in {}",
        lengths.values().sum::<usize>(),
        words.len()
    )
}

/// Serves requests on some threads, each in a phase, and keeps an answer of each: resident bytes at the end, and the most epochs
/// that there were at a time.
fn serve(keep: impl Fn(&Mutex<HashMap<usize, String>>, usize, &str) + Sync) -> (u64, usize) {
    let cache = Mutex::new(HashMap::new());
    let next = AtomicUsize::new(0);
    let heap = TemporalSlab::heap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let request = next.fetch_add(1, Ordering::Relaxed);
                    if request >= REQUESTS {
                        break;
                    }
                    // Never refused, however many requests left something.
                    let phase = TemporalSlab::phase().unwrap();
                    let answer = answer(request);
                    keep(&cache, request % ENTRIES, &answer);
                    drop(answer);
                    drop(phase);
                }
            });
        }
    });
    TemporalSlab::flush_thread();
    let resident = heap.stats().pages.resident;
    let cache = cache.into_inner().unwrap();
    assert_eq!(cache.len(), ENTRIES);
    for (entry, answer) in &cache {
        let (request, _) = answer.split_once(':').unwrap();
        assert_eq!(request.parse::<usize>().unwrap() % ENTRIES, *entry);
    }
    drop(cache);
    (resident, heap.epoch_records())
}

/// Each survivor keeps a slot and a record of its epoch, and no more; one that is put into the cache outside of the phase keeps
/// neither. Catches the refusal after some hundred survivors, records that are not used again, and blocks that stay.
#[test]
fn each_request_leaves_a_survivor() {
    // The map's own memory is the cache's, not a request's.
    let (outside, _) = serve(|cache, entry, answer| {
        TemporalSlab::outside(|| cache.lock().unwrap().insert(entry, answer.to_owned()));
    });
    let (inside, ring) = serve(|cache, entry, answer| {
        let kept = answer.to_owned();
        TemporalSlab::outside(|| cache.lock().unwrap().insert(entry, kept));
    });
    println!("outside {outside}, inside {inside} bytes resident; {ring} records");
    assert!(outside < 16 << 20, "{outside}");
    // A slot and a record each, blocks of those from which it was learned, and what is kept warm. Where there are no blocks slabs.
    let (each, kept) = if cfg!(feature = "hardened") {
        (10 << 10, 48 << 20)
    } else {
        (512, 8 << 20)
    };
    assert!(inside < (ENTRIES * each) as u64 + kept, "{inside}");
    assert!(ring < 8 * ENTRIES + 128, "{ring}");
    TemporalSlab::heap().reclaim();
    let stats = TemporalSlab::heap().stats();
    assert_eq!(
        (stats.closing_epochs, stats.blocks.live_objects),
        (0, 0),
        "{:?}",
        stats.blocks
    );
}

/// Outside of a phase is outside of all, until a phase begins there; it ends when its function does, however that ends. Catches an epoch
/// that goes on where nobody is in it, or that is left for good.
#[test]
fn outside_nests_and_ends() {
    let outer = TemporalSlab::phase().unwrap();
    let epoch = outer.epoch();
    TemporalSlab::outside(|| {
        assert_eq!(TemporalSlab::current(), None);
        let inner = TemporalSlab::phase().unwrap();
        assert_eq!(TemporalSlab::current(), Some(inner.epoch()));
        TemporalSlab::outside(|| assert_eq!(TemporalSlab::current(), None));
        assert_eq!(TemporalSlab::current(), Some(inner.epoch()));
        drop(inner);
        assert_eq!(TemporalSlab::current(), None);
    });
    assert_eq!(TemporalSlab::current(), Some(epoch));
    let panicked = std::panic::catch_unwind(|| {
        TemporalSlab::outside(|| std::panic::resume_unwind(Box::new("on purpose")));
    });
    assert!(panicked.is_err());
    assert_eq!(TemporalSlab::current(), Some(epoch));
    let kept = TemporalSlab::outside(|| vec![1u8; 100]);
    let own = vec![2u8; 100];
    let live = || {
        TemporalSlab::heap()
            .epoch_stats(epoch)
            .unwrap()
            .live_objects()
    };
    let with_own = live();
    drop(kept);
    assert_eq!(live(), with_own, "it was not of the phase");
    drop(own);
    assert_eq!(live(), with_own - 1);
    drop(outer);
    assert_eq!(TemporalSlab::current(), None);
}
