//! Large objects in chunks in a row: they are disjoint, grow and shrink where they are, reuse what others left, and what is
//! empty stays within the policy's bound.

use crate::common::host::HostProvider;
use crate::common::{Rng, layout, steps, walk};
use core::ptr::NonNull;
use temporal_slab::config::Checked;
use temporal_slab::{FreeError, Heap, Policy};

type Host = HostProvider<{ 1 << 18 }>;
type TestHeap = Heap<Checked<Host>>;

const KIB: usize = 1 << 10;

/// An object, its size, and what it is filled with where it is looked at.
struct Filled(NonNull<u8>, usize, u8);

impl Filled {
    /// The first byte, the last, and one of each 64 KiB between.
    fn places(&self, size: usize) -> impl Iterator<Item = usize> {
        (0..size).step_by(64 * KIB).chain([size - 1])
    }

    fn fill(&self) {
        // SAFETY: the object is so long, and the test's.
        self.places(self.1)
            .for_each(|at| unsafe { self.0.add(at).write(self.2) });
    }

    fn check(&self, size: usize) {
        for at in self
            .places(size)
            .filter(|at| *at < size.min(self.1) && at.is_multiple_of(64 * KIB))
        {
            // SAFETY: as above, and it was written.
            let found = unsafe { self.0.add(at).read() };
            assert_eq!(found, self.2, "{at} of {}", self.1);
        }
    }
}

/// Sizes from a run to several chunks, allocated, resized, freed and reclaimed at random. Catches extents that overlap, one
/// that loses its content when it grows, pages that are given back in use, and empty memory beyond the bound, after each
/// step.
#[test]
fn extents_are_disjoint_and_bounded() {
    let heap = TestHeap::new(Host::default());
    let keep = 1 << 20;
    heap.set_policy(Policy::keeping(keep));
    let mut local = heap.local().unwrap();
    let (mut rng, mut live) = (Rng(5), Vec::<Filled>::new());
    let mut in_place = 0;
    for step in 0..steps(4000, 30) {
        let size = match rng.below(4) {
            0 => 9 * KIB + rng.below(60 * KIB),
            1 | 2 => 60 * KIB + rng.below(400 * KIB),
            _ => 200 * KIB + rng.below(1500 * KIB),
        };
        match rng.below(8) {
            0..3 if live.len() < 24 => {
                let object = Filled(local.alloc(layout(size)).unwrap(), size, step as u8 | 1);
                object.fill();
                live.push(object);
            }
            3..5 if !live.is_empty() => {
                let place = rng.below(live.len());
                let Filled(object, old, mark) = live.swap_remove(place);
                // SAFETY: it is live, of this layout.
                let moved = unsafe { local.resize(object, layout(old), layout(size)) }.unwrap();
                in_place += usize::from(moved == object && size > old);
                let object = Filled(moved, size.min(old), mark);
                object.check(size.min(old));
                let object = Filled(moved, size, mark);
                object.fill();
                live.push(object);
            }
            5..7 if !live.is_empty() => {
                let object = live.swap_remove(rng.below(live.len()));
                object.check(object.1);
                // SAFETY: it is live and used no more.
                unsafe { local.free(object.0, layout(object.1)) }.unwrap();
            }
            7 => match rng.below(12) {
                0 => heap.reclaim(),
                1 => heap.reclaim_to(keep / 2),
                _ => {}
            },
            _ => {}
        }
        live.iter().for_each(|object| object.check(object.1));
        let bytes = heap.bytes();
        let used: usize = live
            .iter()
            .map(|object| object.1.next_multiple_of(KIB) + 4 * KIB)
            .sum();
        let metadata = heap.stats().residency.metadata as usize;
        assert!(bytes.reclaimable <= keep, "step {step}: {bytes:?}");
        assert!(
            bytes.resident <= used + metadata + keep + 256 * KIB,
            "step {step}: {bytes:?}, {used} live"
        );
        if step % 16 == 0 {
            walk(&heap);
        }
    }
    assert!(in_place > 0, "none grew where it was");
    for object in live {
        // SAFETY: it is live and freed once.
        unsafe { local.free(object.0, layout(object.1)) }.unwrap();
    }
    drop(local);
    heap.reclaim();
    assert_eq!(walk(&heap).runs, 0);
}

/// An object that is made longer step by step stays where it is as long as there is room, and one that is made shorter gives
/// its end back.
#[test]
fn an_extent_grows_and_shrinks_where_it_is() {
    let heap = TestHeap::new(Host::default());
    heap.set_policy(Policy::NEVER);
    let mut local = heap.local().unwrap();
    // Longer than a chunk, so that there is room behind it.
    let mut size = 300 * KIB;
    let object = local.alloc(layout(size)).unwrap();
    for next in [
        301 * KIB,
        320 * KIB,
        900 * KIB,
        3000 * KIB,
        900 * KIB,
        300 * KIB,
        1000 * KIB,
    ] {
        // SAFETY: it is live, of this layout.
        let now = unsafe { local.resize(object, layout(size), layout(next)) }.unwrap();
        assert_eq!(now, object, "{size} to {next}");
        size = next;
        assert_eq!(heap.usable_size(object), Ok(size));
        assert_eq!(walk(&heap).run_bytes, size);
        assert_eq!(heap.stats().live_bytes, size as u64);
    }
    // SAFETY: that it has another length is what is tried.
    let wrong = unsafe { local.free(object, layout(300 * KIB)) };
    assert_eq!(wrong, Err(FreeError::WrongLayout));
    // SAFETY: it is live and freed once.
    unsafe { local.free(object, layout(size)) }.unwrap();
    assert_eq!(walk(&heap).runs, 0);
}

/// What one large object leaves the next uses, whatever their sizes. Catches a cache that asks for equal sizes.
#[test]
fn freed_extents_are_split_and_merged() {
    let heap = TestHeap::new(Host::default());
    heap.set_policy(Policy::NEVER);
    let mut local = heap.local().unwrap();
    let whole = local.alloc(layout(4 << 20)).unwrap();
    // SAFETY: it is live, so long, and freed once.
    unsafe {
        whole.write_bytes(1, 4 << 20);
        local.free(whole, layout(4 << 20)).unwrap();
    }
    let before = heap.bytes();
    for parts in [2, 4, 8, 1] {
        let size = (4 << 20) / parts;
        let objects: Vec<_> = (0..parts)
            .map(|_| local.alloc(layout(size)).unwrap())
            .collect();
        for object in objects {
            // SAFETY: it is live and freed once.
            unsafe { local.free(object, layout(size)) }.unwrap();
        }
        let after = heap.bytes();
        assert_eq!(after.taken, before.taken, "{parts} parts");
        assert!(
            after.resident <= before.resident + 64 * KIB,
            "{parts} parts: {after:?}, {before:?}"
        );
    }
}
