//! Diagnosis: situations that are built on purpose, each named for what it is, and nothing found where nothing is
//! wrong.
//!
//! Not under Miri: what is tested here is safe code over figures, and building the situations takes it minutes. How
//! the figures are read it sees in the tests of the core.
#![cfg(not(miri))]

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use temporal_slab::config::{Config, Unchecked};
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab::{FreeError, Heap, Policy};
use temporal_slab_actions::hooked::{Hooked, interrupted};
use temporal_slab_actions::host::HostProvider;
use temporal_slab_report::{Diagnosis, Finding, Report, Thresholds, diagnose};

/// Pages of the host, a clock that the test winds, and a decommit that fails when the test says.
#[derive(Debug, Default)]
struct Moody {
    host: HostProvider<{ 1 << 18 }>,
    now: AtomicU64,
    refuses: AtomicU64,
}

// SAFETY: every call is passed on to a provider that keeps the contract, or refused with nothing done.
unsafe impl PageProvider for Moody {
    const CHUNK_SIZE: usize = 1 << 18;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        self.host.acquire(size, align)
    }
    unsafe fn release(&self, region: Region) {
        // SAFETY: the caller keeps the contract.
        unsafe { self.host.release(region) }
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        if self.refuses.load(Ordering::Relaxed) > 0 {
            return Err(ProviderError);
        }
        // SAFETY: the caller keeps the contract.
        unsafe { self.host.decommit(pages) }
    }
    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        Ok(())
    }
    fn capabilities(&self) -> Capabilities {
        self.host.capabilities()
    }
    fn now_ns(&self) -> Option<u64> {
        Some(self.now.load(Ordering::Relaxed))
    }
}

/// A layout of so many bytes.
fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Frees what a test allocated with [`layout`].
fn free<C: Config>(heap: &Heap<C>, object: NonNull<u8>, size: usize) {
    // SAFETY: tests free what they allocated, once, and use it no more.
    unsafe { heap.free(object, layout(size)) }.unwrap();
}

temporal_slab_actions::configs! {
    /// A ring that is long enough for more leaks than a diagnosis has room for.
    struct Ring32 {
        const RING: usize = 32;
        const EPOCHS: usize = Self::RING;
        const CHECKED: bool = true;
    }
}

type TestHeap = Heap<Ring32<Moody>>;

fn look(heap: &TestHeap) -> Diagnosis {
    diagnose(heap, &Thresholds::default())
}

fn names(diagnosis: &Diagnosis) -> Vec<&'static str> {
    diagnosis.findings().map(Finding::name).collect()
}

/// Lets a few phases come and go: each ends as it should.
fn healthy(heap: &TestHeap, phases: usize) {
    let mut local = heap.local().unwrap();
    for _ in 0..phases {
        let epoch = heap.advance().unwrap();
        for n in 0..500 {
            let size = 16 + n % 300;
            let object = local.alloc_in(epoch, layout(size)).unwrap();
            // SAFETY: it was just allocated.
            unsafe { local.free(object, layout(size)) }.unwrap();
        }
        local.leave(epoch);
        heap.provider()
            .now
            .fetch_add(100_000_000, Ordering::Relaxed);
    }
}

/// A heap that is used as it should be has nothing wrong with it; nor has one that is not used. Catches a
/// diagnosis that cries wolf.
#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let heap = TestHeap::new(Moody::default());
    assert_eq!(look(&heap).found, 0);
    healthy(&heap, 100);
    let kept: Vec<_> = (0..10_000)
        .map(|n| (heap.alloc(layout(16 + n % 500)).unwrap(), 16 + n % 500))
        .collect();
    let found = look(&heap);
    assert_eq!(names(&found), [""; 0], "{found:?}");
    let mut text = String::new();
    Report::new(&heap).findings(&mut text).unwrap();
    assert_eq!(text, "nothing was found that needs a remedy\n");
    for (object, size) in kept {
        free(&heap, object, size);
    }
}

/// A leak in one epoch: objects that were not freed when their phase ended, while the others' were. Named with
/// the epoch, its label, its age and what it holds.
#[test]
fn a_leak_in_one_epoch_is_named() {
    let heap = TestHeap::new(Moody::default());
    healthy(&heap, 3);
    let leaky = heap.advance().unwrap();
    heap.set_label(leaky, "session cache").unwrap();
    let kept: Vec<_> = (0..1000)
        .map(|_| heap.alloc_in(leaky, layout(128)).unwrap())
        .collect();
    healthy(&heap, 20);
    let found = look(&heap);
    assert_eq!(names(&found), ["leak"], "{found:?}");
    let Some(Finding::Leak(culprit)) = found.findings().next() else {
        panic!("{found:?}");
    };
    assert_eq!(
        (culprit.epoch, culprit.live_objects, culprit.younger),
        (leaky, 1000, 20)
    );
    assert_eq!(culprit.age_ns, Some(2_000_000_000));
    assert!((128_000..160_000).contains(&culprit.bytes));
    let mut text = String::new();
    Report::new(&heap).findings(&mut text).unwrap();
    assert!(
        text.contains("session cache") && text.contains("1000 live objects"),
        "{text}"
    );
    assert!(text.contains("; by size 1000 to 128 B\n"), "{text}");
    for object in kept {
        free(&heap, object, 128);
    }
    assert_eq!(look(&heap).found, 0, "and it is gone when they are freed");
}

/// Many epochs of one label, as a server has one for each request, are one finding: of all that they hold, and of the oldest. Catches
/// a report in which thousands of epochs hide the others, and sums that count an epoch twice.
#[test]
fn epochs_of_a_label_are_one_finding() {
    let heap = TestHeap::new(Moody::default());
    let leak = |label: &str, objects: usize| {
        let epoch = heap.advance().unwrap();
        heap.set_label(epoch, label).unwrap();
        let made = (0..objects).map(|_| heap.alloc_in(epoch, layout(256)).unwrap());
        (epoch, made.collect::<Vec<_>>())
    };
    let leaks = [
        ("session", 10),
        ("import", 500),
        ("session", 700),
        ("session", 3),
    ];
    let leaks = leaks.map(|(label, objects)| leak(label, objects));
    healthy(&heap, 20);
    let found = look(&heap);
    let all: Vec<_> = found
        .findings()
        .map(|finding| match finding {
            Finding::Leak(c) => (
                c.label.as_str(),
                c.epoch,
                c.epochs,
                c.live_objects,
                c.younger,
            ),
            _ => panic!("{finding:?}"),
        })
        .collect();
    // The worst first, by what all of them hold.
    assert_eq!(
        all,
        [
            ("session", leaks[0].0, 3, 713, 23),
            ("import", leaks[1].0, 1, 500, 22)
        ]
    );
    assert_eq!(found.found, 2);
    let mut text = String::new();
    Report::new(&heap).findings(&mut text).unwrap();
    assert!(text.contains(": 3 epochs, the oldest epoch "), "{text}");
    for (_, objects) in leaks {
        objects
            .into_iter()
            .for_each(|object| free(&heap, object, 256));
    }
    assert_eq!(look(&heap).found, 0);
}

/// What a program calls its epochs stays in its line, and does nothing to a terminal. Found by fuzzing: in a finding's
/// evidence it did.
#[test]
fn a_label_stays_in_its_line() {
    let heap = TestHeap::new(Moody::default());
    let epoch = heap.open_epoch().unwrap();
    heap.set_label(epoch, "\u{1b}[2J\nerror: \u{9b}31m\r")
        .unwrap();
    let object = heap.alloc_in(epoch, layout(64)).unwrap();
    heap.provider()
        .now
        .fetch_add(61_000_000_000, Ordering::Relaxed);
    healthy(&heap, 20);
    let mut text = String::new();
    Report::new(&heap).text(&mut text).unwrap();
    Report::new(&heap).findings(&mut text).unwrap();
    assert_eq!(text.matches("\".[2J.error: .31m.\"").count(), 2, "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    free(&heap, object, 64);
}

/// An epoch that nobody closed: open, nobody inside, and others come and go. By the number of younger ones, and by
/// the clock.
#[test]
fn a_forgotten_close_is_named() {
    let heap = TestHeap::new(Moody::default());
    let forgotten = heap.open_epoch().unwrap();
    heap.set_label(forgotten, "import").unwrap();
    let object = heap.alloc_in(forgotten, layout(64)).unwrap();
    healthy(&heap, 3);
    assert_eq!(look(&heap).found, 0, "it is young");
    heap.provider()
        .now
        .fetch_add(61_000_000_000, Ordering::Relaxed);
    assert_eq!(names(&look(&heap)), ["forgotten_close"]);
    healthy(&heap, 20);
    let found = look(&heap);
    let culprit = found.findings().find_map(|finding| match finding {
        Finding::ForgottenClose(culprit) => Some(culprit),
        _ => None,
    });
    assert_eq!(
        culprit.map(|c| (c.epoch, c.label.as_str())),
        Some((forgotten, "import"))
    );
    // Somebody is inside: it is not forgotten.
    let domain = temporal_slab::Domain::for_epoch(&heap, forgotten);
    {
        let _inside = domain.enter().unwrap();
        assert_eq!(look(&heap).found, 0);
    }
    free(&heap, object, 64);
    heap.close(forgotten).unwrap();
    assert_eq!(look(&heap).found, 0);
}

/// One object in each slab is kept: the rest cannot go back. Named with the epoch that pins.
#[test]
fn fragmentation_by_pinning_is_named() {
    let heap = TestHeap::new(Moody::default());
    let epoch = heap.open_epoch().unwrap();
    heap.set_label(epoch, "pinned by a few").unwrap();
    let objects: Vec<_> = (0..64 * 400)
        .map(|_| heap.alloc_in(epoch, layout(128)).unwrap())
        .collect();
    let (kept, dead): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .enumerate()
        .partition(|(n, _)| n % 64 == 7);
    for (_, object) in dead {
        free(&heap, object, 128);
    }
    heap.reclaim();
    let found = look(&heap);
    assert_eq!(names(&found), ["fragmentation"], "{found:?}");
    let Some(Finding::Fragmentation {
        culprit,
        slabs,
        pinned_bytes,
    }) = found.findings().next()
    else {
        panic!("{found:?}");
    };
    assert_eq!(
        (culprit.epoch, *slabs, *pinned_bytes),
        (epoch, 400, 400 * 63 * 128)
    );
    for (_, object) in kept {
        free(&heap, object, 128);
    }
    heap.reclaim();
    assert_eq!(look(&heap).found, 0);
}

/// A provider that takes nothing back.
#[test]
fn a_decommit_that_fails_is_named() {
    let heap = TestHeap::new(Moody::default());
    heap.provider().refuses.store(1, Ordering::Relaxed);
    let objects: Vec<_> = (0..20_000)
        .map(|_| heap.alloc(layout(128)).unwrap())
        .collect();
    let keep = heap.alloc(layout(128)).unwrap();
    for object in objects {
        free(&heap, object, 128);
    }
    heap.reclaim();
    let found = look(&heap);
    assert_eq!(names(&found), ["decommit_fails"], "{found:?}");
    assert!(matches!(
        found.findings().next(),
        Some(Finding::DecommitFails {
            failed: 1..,
            succeeded: 0,
            ..
        })
    ));
    free(&heap, keep, 128);
}

/// A policy that keeps less than what a phase uses: slabs go back and are made again, over and over.
#[test]
fn a_cache_that_is_too_small_is_named() {
    for (policy, is_small) in [
        (Policy::keeping(16 << 10), true),
        (Policy::EAGER, true),
        (Policy::DEFAULT, false),
    ] {
        let heap = TestHeap::new(Moody::default());
        heap.set_policy(policy);
        for _ in 0..50 {
            let objects: Vec<_> = (0..2000)
                .map(|_| heap.alloc(layout(256)).unwrap())
                .collect();
            for object in objects {
                free(&heap, object, 256);
            }
        }
        let found = look(&heap);
        let expected: &[&str] = if is_small { &["cache_too_small"] } else { &[] };
        assert_eq!(names(&found), expected, "{policy:?}: {found:?}");
    }
}

/// A local that is idle after a close keeps slots of the closed epoch.
#[test]
fn locals_that_hold_words_of_closed_epochs_are_named() {
    let heap = TestHeap::new(Moody::default());
    let (mut idle, mut busy) = (heap.local().unwrap(), heap.local().unwrap());
    let epoch = heap.open_epoch().unwrap();
    for local in [&mut idle, &mut busy] {
        let object = local.alloc_in(epoch, layout(64)).unwrap();
        // SAFETY: it was just allocated.
        unsafe { local.free(object, layout(64)) }.unwrap();
    }
    heap.close(epoch).unwrap();
    busy.flush();
    let found = look(&heap);
    assert_eq!(names(&found), ["locals_hold_closed"], "{found:?}");
    let Some(Finding::LocalsHoldClosed {
        epoch_caches: 1,
        bytes,
        local,
    }) = found.findings().next()
    else {
        panic!("{found:?}");
    };
    assert_eq!(
        (*local, *bytes),
        (idle.stats().number, idle.stats().held_in_closed_bytes)
    );
    idle.flush();
    assert_eq!(look(&heap).found, 0);
}

/// Locks are held, by somebody who was interrupted, once in four times that they are tried. Who takes each slot from the
/// slabs waits then, and who has a local does not. Catches a local that takes a lock at each turn.
#[test]
fn contention_on_the_shared_path_is_named() {
    let heap: Heap<Unchecked<Moody, Hooked>> = Heap::new(Moody::default());
    let is_contended = || {
        let diagnosis = diagnose(&heap, &Thresholds::default());
        let mut findings = diagnosis.findings();
        findings.any(|finding| {
            matches!(
                finding,
                Finding::SharedPathContended { .. } | Finding::LockContended { lock: "lists", .. }
            )
        })
    };
    interrupted(4, || {
        let mut local = heap.local().unwrap();
        for _ in 0..200_000 {
            let object = local.alloc(layout(64)).unwrap();
            // SAFETY: it was just allocated.
            unsafe { local.free(object, layout(64)) }.unwrap();
        }
        drop(local);
        assert!(!is_contended(), "{:?}", heap.stats().locks);
        for _ in 0..8000 {
            let objects: [_; 70] = core::array::from_fn(|_| heap.alloc(layout(64)).unwrap());
            for object in objects {
                // SAFETY: it was just allocated.
                unsafe { heap.free(object, layout(64)) }.unwrap();
            }
        }
        assert!(is_contended(), "{:?}", heap.stats().locks);
    });
}

/// A program that used much once and shrank, and one that asks for handles that are stale: nothing is wrong with
/// either. Catches figures of all times that are taken for figures of now.
#[test]
fn what_is_over_is_not_found() {
    let heap = TestHeap::new(Moody::default());
    heap.set_policy(Policy::keeping(1 << 20));
    let mut local = heap.local().unwrap();
    let objects: Vec<_> = (0..16_000)
        .map(|_| local.alloc(layout(1024)).unwrap())
        .collect();
    for object in objects {
        // SAFETY: it is live and freed once.
        unsafe { local.free(object, layout(1024)) }.unwrap();
    }
    local.flush();
    heap.reclaim();
    let handle = heap.alloc_raw(layout(64)).unwrap();
    heap.free_raw(handle).unwrap();
    assert!(heap.try_get_raw(handle).is_err() && heap.free_raw(handle).is_err());
    assert_eq!(names(&look(&heap)), [""; 0]);
}

/// The rest: failures, goods that run out, wrong frees. And the worst is first.
#[test]
fn failures_and_misuse_are_named_and_ranked() {
    let heap = TestHeap::new(Moody::default());
    let object = heap.alloc(layout(64)).unwrap();
    free(&heap, object, 64);
    // SAFETY: a checked heap finds out.
    let doubled = unsafe { heap.free(object, layout(64)) };
    assert_eq!(doubled, Err(FreeError::DoubleFree));
    // In use, so that it is not given back for the sake of the next.
    let _kept = heap.alloc(layout(64)).unwrap();
    heap.set_limit(heap.bytes().taken);
    assert!(heap.alloc(layout(8 << 20)).is_err());
    let found = look(&heap);
    assert_eq!(
        names(&found),
        ["out_of_memory", "misuse", "nearly_exhausted"],
        "{found:?}"
    );
    let severities: Vec<_> = found.findings().map(Finding::severity).collect();
    assert!(severities.is_sorted_by(|a, b| a >= b));
    heap.set_limit(usize::MAX);
    // Leaks by the bytes that they hold; more of them than there is room for.
    let unknown = Cell::new(0);
    for n in 0..28usize {
        let epoch = heap.advance().unwrap();
        heap.set_label(epoch, &n.to_string()).unwrap();
        for _ in 0..=n {
            let _kept = heap.alloc_in(epoch, layout(4000)).unwrap();
            unknown.set(unknown.get() + 1);
        }
    }
    healthy(&heap, 11);
    let found = look(&heap);
    let leaks: Vec<u64> = found
        .findings()
        .filter(|f| f.name() == "leak")
        .map(|f| f.bytes())
        .collect();
    assert!(
        leaks.len() > 15 && leaks.is_sorted_by(|a, b| a >= b),
        "{leaks:?}"
    );
    assert!(
        found.found > found.findings().count(),
        "those without room are counted"
    );
}
