//! What memory costs, and that it falls, on real pages and by the system's own reading where it has
//! one. The tests take turns, because the resident set is the whole process's.
#![cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]

mod common;

use common::Rng;
use core::alloc::Layout;
use core::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use temporal_slab::config::Unchecked;
use temporal_slab::{Heap, Local, Policy};
use temporal_slab_hosted::MmapProvider;

type TestHeap = Heap<Unchecked<MmapProvider>>;
type TestLocal<'h> = Local<'h, Unchecked<MmapProvider>>;

static TURN: Mutex<()> = Mutex::new(());

const OBJECTS: usize = 1_000_000;

fn layout() -> Layout {
    Layout::from_size_align(128, 8).unwrap()
}

fn fill(local: &mut TestLocal<'_>, count: usize) -> Vec<NonNull<u8>> {
    let mut objects = Vec::with_capacity(count);
    for _ in 0..count {
        let object = local.alloc(layout()).unwrap();
        // SAFETY: the object is ours and this long.
        unsafe { object.write_bytes(7, 128) };
        objects.push(object);
    }
    objects
}

fn free_all(local: &mut TestLocal<'_>, objects: impl IntoIterator<Item = NonNull<u8>>) {
    for object in objects {
        // SAFETY: it is live and used no more.
        unsafe { local.free(object, layout()).unwrap() };
    }
}

/// The process's resident set, where the system tells.
fn resident_set() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    text.split(' ')
        .nth(1)?
        .parse::<usize>()
        .ok()
        .map(|pages| pages * 4096)
}

/// 1,000,000 live objects of 128 bytes: all that the heap touched, metadata included, is at most 2 %
/// over the payload, as accounted and as the system sees it.
#[test]
fn a_million_objects_cost_two_percent() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut objects = Vec::with_capacity(OBJECTS);
    objects.resize(OBJECTS, NonNull::<u8>::dangling());
    let before = resident_set();
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    for place in &mut objects {
        *place = local.alloc(layout()).unwrap();
        // SAFETY: the object is ours and this long.
        unsafe { place.write_bytes(7, 128) };
    }
    let payload = OBJECTS * 128;
    let bytes = heap.bytes();
    let over = |cost: usize| (cost as f64 / payload as f64 - 1.0) * 100.0;
    println!(
        "taken {:.2} % over, touched {:.2} % over",
        over(bytes.taken),
        over(bytes.resident)
    );
    assert!(over(bytes.resident) <= 2.0, "{bytes:?}");
    if let (Some(before), Some(after)) = (before, resident_set()) {
        println!("resident set {:.2} % over", over(after - before));
        assert!(over(after - before) <= 2.0, "{before} to {after}");
    }
    free_all(&mut local, objects);
}

/// Everything freed, in any order, and reclaimed: what is left is metadata.
#[test]
fn memory_falls_after_reclaim() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    let mut objects = fill(&mut local, OBJECTS);
    let peak = heap.bytes().resident;
    let mut rng = Rng(3);
    for last in (1..objects.len()).rev() {
        objects.swap(last, rng.below(last + 1));
    }
    free_all(&mut local, objects);
    local.flush();
    heap.reclaim();
    let bytes = heap.bytes();
    assert_eq!(bytes.reclaimable, 0);
    assert!(bytes.resident * 50 < peak, "{peak} to {bytes:?}");
    // SAFETY: the only local is at rest.
    let census = unsafe { heap.walk() }.unwrap();
    assert_eq!((census.slabs, census.live_slots), (0, 0));
}

/// The four policies, by what each leaves behind when 32 MiB were freed.
#[test]
fn policies_do_what_they_say() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let after = |policy: Policy| {
        let heap = TestHeap::new(MmapProvider::new());
        heap.set_policy(policy);
        let mut local = heap.local().unwrap();
        let objects = fill(&mut local, 256 * 1024);
        free_all(&mut local, objects);
        local.flush();
        let (bytes, calls) = (heap.bytes(), heap.page_stats().decommits);
        println!(
            "{policy:?}: {} KiB reclaimable, {calls} decommits",
            bytes.reclaimable >> 10
        );
        heap.reclaim();
        assert_eq!(heap.bytes().reclaimable, 0, "{policy:?}");
        (bytes.reclaimable, calls)
    };
    let (left, calls) = after(Policy::EAGER);
    assert!(left == 0 && calls > 1000);
    let (left, calls) = after(Policy::keeping(8 << 20));
    assert!(left <= 8 << 20 && calls > 0, "{left}, {calls}");
    assert!(
        calls <= 512,
        "{calls} calls for 32 MiB: one for each 64 KiB at most"
    );
    for policy in [Policy::ON_CLOSE, Policy::NEVER] {
        assert_eq!(after(policy), (32 << 20, 0));
    }
}

/// The shared path gives back as much as a local does. Catches slabs that stay open one by one.
#[test]
fn the_shared_path_gives_memory_back() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let heap = TestHeap::new(MmapProvider::new());
    let objects: Vec<_> = (0..OBJECTS)
        .map(|_| heap.alloc(layout()).unwrap())
        .collect();
    for object in objects {
        // SAFETY: it is live and used no more.
        unsafe { heap.free(object, layout()).unwrap() };
    }
    let bytes = heap.bytes();
    assert!(
        bytes.resident < 40 << 20 && bytes.reclaimable > 10 << 20,
        "{bytes:?}"
    );
    heap.reclaim();
    let bytes = heap.bytes();
    assert!(
        bytes.resident < 2 << 20 && bytes.reclaimable == 0,
        "{bytes:?}"
    );
}

/// A change of policy applies to what is empty already.
#[test]
fn a_policy_changes_on_a_live_heap() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let heap = TestHeap::new(MmapProvider::new());
    heap.set_policy(Policy::NEVER);
    let mut local = heap.local().unwrap();
    let objects = fill(&mut local, 1000);
    free_all(&mut local, objects);
    local.flush();
    assert!(heap.bytes().reclaimable > 100_000);
    heap.set_policy(Policy::EAGER);
    assert_eq!(heap.bytes().reclaimable, 0);
    assert_eq!(heap.policy(), Policy::EAGER);
}

/// Endless churn on one local and across two: what the heap touched after the first rounds is all
/// that it ever touches.
#[test]
fn churn_is_bounded() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let heap = TestHeap::new(MmapProvider::new());
    let mut one = heap.local().unwrap();
    let mut other = heap.local().unwrap();
    let mut rng = Rng(9);
    let mut live = fill(&mut one, 5_000);
    let rounds = 2_000_000;
    let mut settled = 0;
    for round in 0..rounds {
        let place = rng.below(live.len());
        let (local, freeing) = if round % 3 == 0 {
            (&mut one, &mut other)
        } else {
            (&mut other, &mut one)
        };
        // SAFETY: it is live and replaced at once.
        unsafe { freeing.free(live[place], layout()).unwrap() };
        live[place] = local.alloc(layout()).unwrap();
        if round == rounds / 10 {
            settled = heap.bytes().resident;
        }
    }
    let bytes = heap.bytes();
    assert!(
        bytes.resident <= settled + (64 << 10),
        "{settled} to {bytes:?}"
    );
    free_all(&mut one, live);
}

/// A local holds no more than it says.
#[test]
fn a_local_holds_no_more_than_its_bound() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    let mut rng = Rng(5);
    let mut objects = fill(&mut local, 100_000);
    for last in (1..objects.len()).rev() {
        objects.swap(last, rng.below(last + 1));
    }
    free_all(&mut local, objects);
    heap.reclaim();
    // SAFETY: the only local is at rest.
    let census = unsafe { heap.walk() }.unwrap();
    assert_eq!(census.live_slots, 0);
    let held = census.slabs * 8192;
    println!("one class held {held} bytes of slabs");
    assert!(held <= 776 << 10 && held <= TestLocal::holding_bound());
}

/// A hundred million allocations and frees, in which objects of all small sizes are replaced at random
/// among a thousand, through a local, without one and by handles. Catches a slow leak of slots, slabs,
/// metadata or ids: with everything freed, what is resident at the end is to the byte what it was after
/// the first million, and on the way it stays within a tenth.
#[test]
fn a_hundred_million_cycles_leak_nothing() {
    enum One {
        Plain(NonNull<u8>, Layout),
        Named(temporal_slab::RawHandle),
    }
    const MILLION: u64 = 1_000_000;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    let mut live: Vec<One> = Vec::new();
    let free = |local: &mut TestLocal<'_>, gone| match gone {
        // SAFETY: it is live, and gone from the list.
        One::Plain(object, layout) => unsafe { local.free(object, layout) }.unwrap(),
        One::Named(handle) => local.free_raw(handle).unwrap(),
    };
    let (mut busy, mut at_rest) = (Vec::new(), Vec::new());
    for cycle in 1..=100 * MILLION {
        // The same hundred thousand choices again and again: what is wanted does not grow.
        let mut choice = Rng(cycle % 100_000).next();
        let mut pick = |n: usize| {
            let picked = choice as usize % n;
            choice /= n as u64;
            picked
        };
        let layout = Layout::from_size_align(16 + pick(64) * 16, 8).unwrap();
        let one = match pick(16) {
            0 => One::Plain(heap.alloc(layout).unwrap(), layout),
            1 => One::Named(local.alloc_raw(layout).unwrap()),
            _ => One::Plain(local.alloc(layout).unwrap(), layout),
        };
        if live.len() < 1000 {
            live.push(one);
        } else {
            let gone = core::mem::replace(&mut live[pick(1000)], one);
            free(&mut local, gone);
        }
        if cycle % MILLION == 0 {
            busy.push(heap.bytes().resident);
        }
        if cycle == MILLION || cycle == 100 * MILLION {
            live.drain(..).for_each(|gone| free(&mut local, gone));
            local.flush();
            heap.reclaim();
            at_rest.push(heap.bytes().resident);
        }
    }
    let (low, high) = (busy.iter().min().unwrap(), busy.iter().max().unwrap());
    println!("resident at work {low} to {high}; at rest {at_rest:?}");
    assert!(high * 10 <= low * 11, "{low} to {high}");
    assert_eq!(at_rest[0], at_rest[1]);
}

/// What one class emptied is used by the others before they touch memory for the first time: 8 MiB of large objects
/// die, and as much comes in small ones and in runs of whole blocks. Catches a heap that leaves empty slabs where they
/// are while it has fresh blocks, which grows to 16 MiB; and one that takes a fresh block although a touched one is free.
#[test]
fn empty_slabs_are_used_before_fresh_memory() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    const BYTES: usize = 8 << 20;
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    let fill = |local: &mut TestLocal<'_>, layout: Layout, bytes: usize| -> Vec<NonNull<u8>> {
        let objects = 0..bytes / layout.size();
        objects.map(|_| local.alloc(layout).unwrap()).collect()
    };
    let large = Layout::from_size_align(8192, 8).unwrap();
    let objects = fill(&mut local, large, BYTES);
    let before = heap.stats().pages.resident;
    for object in objects {
        // SAFETY: it is live and used no more.
        unsafe { local.free(object, large).unwrap() };
    }
    let tables = Layout::from_size_align(256 << 10, 8).unwrap();
    let small = Layout::from_size_align(32, 8).unwrap();
    let mut kept = fill(&mut local, tables, BYTES / 2);
    let smalls = fill(&mut local, small, BYTES / 2 - BYTES / 8);
    let grown = heap.stats().pages.resident - before;
    assert!(grown <= 1 << 20, "grew by {grown}");

    for object in kept.drain(..) {
        // SAFETY: as above.
        unsafe { local.free(object, tables).unwrap() };
    }
    for object in smalls {
        // SAFETY: as above.
        unsafe { local.free(object, small).unwrap() };
    }
}
