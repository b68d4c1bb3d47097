//! Locals: what they count.

use crate::common::host::HostProvider;
use crate::common::layout;
use temporal_slab::Heap;
use temporal_slab::config::Checked;

type TestHeap = Heap<Checked<HostProvider<{ 1 << 18 }>>>;

/// Slow paths are counted under their causes, and the fast path under none.
#[test]
fn slow_paths_are_counted() {
    let heap = TestHeap::new(HostProvider::default());
    let mut local = heap.local().unwrap();
    let first = local.alloc(layout(64)).unwrap();
    let counts = local.slow_paths();
    assert_eq!(
        (counts.hits(), counts.depot_visits, counts.new_slabs),
        (1, 1, 1)
    );
    assert_eq!((counts.spills, counts.words_given), (0, 0));
    assert_eq!((counts.no_word, counts.word_used_up()), (1, 0));
    for _ in 0..1000 {
        let object = local.alloc(layout(64)).unwrap();
        // SAFETY: it was just allocated.
        unsafe { local.free(object, layout(64)) }.unwrap();
    }
    // The first free makes room in the cell, the rest is fast.
    assert!(local.slow_paths().hits() <= 2 && local.slow_paths().spills <= 1);
    let count: u64 = if cfg!(miri) { 640 } else { 10_000 };
    let many: Vec<_> = (0..count)
        .map(|_| local.alloc(layout(64)).unwrap())
        .collect();
    let before = local.slow_paths();
    assert_eq!(before.new_slabs, (count + 1).div_ceil(64));
    for object in many {
        // SAFETY: it is live and freed once.
        unsafe { local.free(object, layout(64)) }.unwrap();
    }
    let after = local.slow_paths();
    assert_eq!(after.hits(), before.hits());
    assert!(after.spills - before.spills >= count / 64);
    assert!(cfg!(miri) || after.words_given > before.words_given);
    // SAFETY: as above.
    unsafe { local.free(first, layout(64)) }.unwrap();
}
