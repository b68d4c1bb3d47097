//! Names of what was in a heap that is gone, or is in another: handles, tokens and pointers that come to a heap which lies
//! at the same place, in the same memory.

use crate::common::{layout, steps, walk};
use core::ptr::NonNull;
use std::collections::HashSet;
use temporal_slab::config::Checked;
use temporal_slab::provider::StaticProvider;
use temporal_slab::{AllocError, Epoch, EpochError, Handle, HandleError, Heap, RawHandle};

type TestHeap<'m> = Heap<Checked<StaticProvider<'m>>>;

/// What somebody kept.
#[derive(Default)]
struct Kept {
    handles: Vec<RawHandle>,
    values: Vec<Handle<u64>>,
    objects: Vec<NonNull<u8>>,
}

/// A heap is dropped and made again where it was, in the memory that it had: of the handles of the one before, typed or
/// not, none is accepted; and of the typed ones none even where ids are made to agree. Catches ids that begin where they
/// began before, and a heap that is told by its address.
#[test]
fn handles_of_a_heap_that_was_remade_are_refused() {
    remake(None);
    remake(Some(77));
}

fn remake(first_id: Option<u32>) {
    const MANY: usize = 50;
    let mut memory = Box::<[u8]>::new_uninit_slice(1 << 20);
    let mut place = Box::<TestHeap<'_>>::new_uninit();
    let mut kept = Kept::default();
    let mut places = HashSet::new();
    for _ in 0..steps(40, 4) {
        // SAFETY: the heap before this one is dropped, and with it all use of the memory.
        let memory = unsafe { &mut *core::ptr::from_mut(&mut memory[..]) };
        let heap: &TestHeap<'_> = place.write(Heap::new(StaticProvider::new(memory)));
        places.insert(core::ptr::from_ref(heap).addr());
        assert!(first_id.is_none_or(|id| heap.set_first_handle_id(id)));
        for n in 0..MANY as u64 {
            kept.values.push(heap.insert(n).unwrap());
            kept.handles.push(heap.alloc_raw(layout(100)).unwrap());
        }
        let (old, own) = kept.values.split_at(kept.values.len() - MANY);
        for value in old {
            assert_eq!(heap.get(*value).err(), Some(HandleError::Foreign));
            assert_eq!(heap.discard(*value), Err(HandleError::Foreign));
            assert!(first_id.is_some() || heap.get_raw(value.raw()).is_none());
        }
        assert!(
            own.iter()
                .zip(0..)
                .all(|(value, n)| *heap.get(*value).unwrap() == n)
        );
        let (old, own) = kept.handles.split_at(kept.handles.len() - MANY);
        for handle in old.iter().filter(|_| first_id.is_none()) {
            assert_eq!(heap.free_raw(*handle), Err(HandleError::Foreign));
        }
        assert!(own.iter().all(|handle| heap.get_raw(*handle).is_some()));
        walk(heap);
        // SAFETY: it was written above, and is not used any more.
        unsafe { place.assume_init_drop() };
    }
    assert_eq!(places.len(), 1, "each was where the others were");
}

/// A pointer has no more than its address: one of a heap that is gone is refused by the heap in its memory, or begins an
/// object that lives there now. Catches one that is taken for anything else.
#[test]
fn pointers_of_a_heap_that_was_remade_are_addresses() {
    let mut memory = Box::<[u8]>::new_uninit_slice(1 << 20);
    let mut kept = Kept::default();
    for round in 0..steps(12, 3) {
        // SAFETY: the heap before this one is dropped.
        let memory = unsafe { &mut *core::ptr::from_mut(&mut memory[..]) };
        let heap = TestHeap::new(StaticProvider::new(memory));
        let live: HashSet<_> = (0..60)
            .map(|n| heap.alloc(layout(40 * (n + round) + 1)).unwrap())
            .collect();
        for object in &kept.objects {
            assert_eq!(
                heap.usable_size(*object).is_ok(),
                live.contains(object),
                "{object:p}"
            );
            if !live.contains(object) {
                // SAFETY: a checked heap refuses what is no object.
                assert!(unsafe { heap.free_unsized(*object) }.is_err());
            }
        }
        walk(&heap);
        kept.objects.extend(live);
    }
}

/// Any parts make a token, and it is accepted exactly if they are those of an open epoch. Catches an era of which the
/// highest bit is not looked at, and a position beyond the ring.
#[test]
fn forged_tokens_are_refused() {
    let mut memory = Box::<[u8]>::new_uninit_slice(2 << 20);
    let heap = TestHeap::new(StaticProvider::new(&mut memory));
    let mut local = heap.local().unwrap();
    let open: Vec<Epoch> = (0..3).map(|_| heap.open_epoch().unwrap()).collect();
    // At hand, so that the shortest way is gone.
    let kept = local.alloc_in(open[0], layout(64)).unwrap();
    let before = walk(&heap);
    let mut eras = vec![2, 3, 4, 5, u64::MAX, u64::MAX / 2, u64::MAX / 2 + 1];
    eras.extend(open.iter().map(|epoch| epoch.era() | 1 << 63));
    eras.extend(open.iter().map(|epoch| epoch.era() | 1 << 32));
    eras.extend([1 << 63 | 1, 1]);
    assert_eq!(Epoch::from_parts(1, 0), None);
    let indices = [0, 1, 2, 3, 4, 127, 128, 255, 256, 257, u32::MAX];
    let all = indices
        .iter()
        .flat_map(|index| eras.iter().map(move |era| (*index, *era)));
    for (index, era) in all {
        let Some(token) = Epoch::from_parts(index, era) else {
            assert!(era >> 63 == 1, "{era}");
            continue;
        };
        if open.contains(&token) || heap.current() == Ok(token) {
            continue;
        }
        let closed = Some(AllocError::EpochClosed);
        for size in [64, 3000, 20_000, 200_000] {
            assert_eq!(
                heap.alloc_in(token, layout(size)).err(),
                closed,
                "{token:?}"
            );
            assert_eq!(
                local.alloc_in(token, layout(size)).err(),
                closed,
                "{token:?}"
            );
        }
        assert_eq!(heap.alloc_raw_in(token, layout(64)).err(), closed);
        assert_eq!(local.alloc_raw_in(token, layout(64)).err(), closed);
        assert_eq!(heap.state(token), Err(EpochError::Closed), "{token:?}");
        assert_eq!(heap.enter(token), Err(EpochError::Closed));
        assert_eq!(heap.set_label(token, "mine"), Err(EpochError::Closed));
        assert!(heap.epoch_stats(token).is_err());
        assert!(!heap.exit_and_close(token));
        assert!(heap.close(token).is_err());
        local.leave(token);
    }
    for epoch in &open {
        assert!(heap.epoch_stats(*epoch).unwrap().is_open());
    }
    assert_eq!(walk(&heap).live_slots, before.live_slots);
    crate::common::free(&heap, kept, 64);
}

/// A token does not say whose it is: in another heap it names the epoch with the same parts, or none. That epoch's promises
/// hold. Catches a token that is more than its parts.
#[test]
fn tokens_of_another_heap_are_read_by_their_parts() {
    let mut memories = [(); 2].map(|()| Box::<[u8]>::new_uninit_slice(1 << 20));
    let [one, other] = memories
        .each_mut()
        .map(|memory| TestHeap::new(StaticProvider::new(memory)));
    let mine = one.open_epoch().unwrap();
    assert_eq!(
        other.alloc_in(mine, layout(64)),
        Err(AllocError::EpochClosed)
    );
    let theirs = other.open_epoch().unwrap();
    assert_eq!(mine, theirs, "the first of each");
    let object = other.alloc_in(mine, layout(64)).unwrap();
    assert_eq!(other.epoch_stats(theirs).unwrap().live_objects(), 1);
    assert_eq!(one.epoch_stats(mine).unwrap().live_objects(), 0);
    other.close(mine).unwrap();
    assert_eq!(
        other.alloc_in(mine, layout(64)),
        Err(AllocError::EpochClosed)
    );
    assert!(one.epoch_stats(mine).unwrap().is_open());
    crate::common::free(&other, object, 64);
}
