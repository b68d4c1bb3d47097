//! The self-test: the core's promises, checked where a kernel would rely on them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;

use temporal_slab::{
    AllocError, Domain, EpochState, FreeError, HandleError, Local, RawHandle, Scope,
};

use crate::heap::{HEAP, KernelConfig};
use crate::lock::IrqLock;
use crate::memory::{self, FrameProvider};
use crate::serial::say;

type KernelLocal = Local<'static, FrameProvider, IrqLock, KernelConfig>;

type NamedTest = (&'static str, fn(&mut Test));

/// What went wrong so far.
struct Test {
    name: &'static str,
    failures: usize,
}

impl Test {
    fn demand(&mut self, holds: bool, what: &str) {
        if !holds {
            self.failures += 1;
            say!("FAILED {}: {what}", self.name);
        }
    }
}

/// Runs every test; how many checks failed.
pub(crate) fn run() -> usize {
    let tests: [NamedTest; 9] = [
        ("collections", collections),
        ("sizes and alignments", sizes),
        ("checked frees", checked_frees),
        ("handles", handles),
        ("epochs", epochs),
        ("scopes", scopes),
        ("domains", domains),
        ("objects hold no metadata", no_metadata),
        ("out of memory", out_of_memory),
    ];
    let mut failures = 0;
    for (name, test) in tests {
        let mut state = Test { name, failures: 0 };
        test(&mut state);
        // SAFETY: there is one CPU, and no test left anything in the middle.
        let walked = unsafe { HEAP.walk() };
        state.demand(walked.is_ok(), "the walker found a violation");
        if state.failures == 0 {
            say!("ok     {name}");
        }
        failures += state.failures;
    }
    failures
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap_or(Layout::new::<u64>())
}

fn local(test: &mut Test) -> Option<KernelLocal> {
    let local = HEAP.local();
    test.demand(local.is_ok(), "there is a local");
    local.ok()
}

/// Frees an object of the heap that nobody uses any more.
fn free(object: NonNull<u8>, layout: Layout) -> Result<(), FreeError> {
    // SAFETY: tests free what they allocated, or what a checked heap refuses.
    unsafe { HEAP.free(object, layout) }
}

fn collections(test: &mut Test) {
    let mut map: BTreeMap<u32, String> = BTreeMap::new();
    for n in 0..500u32 {
        map.insert(n * 7919 % 1000, alloc::format!("value {n}"));
    }
    let boxes: Vec<Box<[u64; 40]>> = (0..200).map(|n| Box::new([n; 40])).collect();
    test.demand(map.len() == 500, "the map has its entries");
    test.demand(
        boxes
            .iter()
            .enumerate()
            .all(|(n, b)| b.iter().all(|v| *v == n as u64)),
        "boxes keep their content",
    );
    let large: Vec<u8> = alloc::vec![3; 700_000];
    test.demand(
        large.iter().all(|b| *b == 3),
        "a large vector keeps its content",
    );
}

fn sizes(test: &mut Test) {
    let Some(mut local) = local(test) else { return };
    for shift in 0..13 {
        for size in [
            0, 1, 15, 16, 17, 63, 64, 100, 512, 1000, 4096, 8192, 8193, 30_000, 70_000, 300_000,
        ] {
            let layout = layout(size, 1 << shift);
            let objects = [local.alloc(layout), HEAP.alloc(layout)];
            for object in objects {
                let Ok(object) = object else {
                    test.demand(false, "there is memory for every layout");
                    continue;
                };
                test.demand(object.addr().get().is_multiple_of(1 << shift), "aligned");
                // SAFETY: the object is ours and this long.
                unsafe { object.write_bytes(0x5a, size) };
                // SAFETY: it is freed once.
                let freed = unsafe { local.free(object, layout) };
                test.demand(freed.is_ok(), "freed");
            }
        }
    }
}

fn checked_frees(test: &mut Test) {
    let layout = layout(100, 8);
    let Ok(object) = HEAP.alloc(layout) else {
        return test.demand(false, "there is memory");
    };
    // SAFETY: inside the object.
    let inside = unsafe { object.add(8) };
    test.demand(free(inside, layout) == Err(FreeError::Interior), "interior");
    test.demand(
        free(object, self::layout(400, 8)) == Err(FreeError::WrongLayout),
        "wrong size",
    );
    test.demand(
        free(NonNull::from(&layout).cast(), layout) == Err(FreeError::Foreign),
        "foreign",
    );
    test.demand(free(object, layout) == Ok(()), "freed");
    test.demand(free(object, layout) == Err(FreeError::DoubleFree), "double");
}

fn handles(test: &mut Test) {
    let Some(mut local) = local(test) else { return };
    let mut old: Vec<RawHandle> = Vec::new();
    for round in 0..2000usize {
        let Ok(handle) = local.alloc_handle(layout(64 + round % 300, 8)) else {
            return test.demand(false, "there is memory");
        };
        test.demand(HEAP.get_raw(handle).is_some(), "a live handle is accepted");
        test.demand(local.free_raw(handle) == Ok(()), "freed");
        test.demand(
            HEAP.free_raw(handle) == Err(HandleError::Stale),
            "a doubled free is refused",
        );
        old.push(handle);
    }
    test.demand(
        old.iter().all(|h| HEAP.get_raw(*h).is_none()),
        "stale handles are refused",
    );
    let live = HEAP.insert(17u64);
    if let Ok(live) = live {
        let mut accepted = 0;
        for bit in 0..64 {
            let forged = RawHandle::from_bits(live.raw().bits() ^ 1 << bit);
            accepted += usize::from(HEAP.get_raw(forged).is_some());
        }
        test.demand(accepted == 0, "forged handles are refused");
        test.demand(HEAP.get(live).is_ok_and(|value| *value == 17), "read");
        test.demand(HEAP.take(live) == Ok(17), "taken");
    } else {
        test.demand(false, "there is memory for a value");
    }
}

fn epochs(test: &mut Test) {
    // What the lists of the first epochs take stays; so one is used before frames are counted.
    for round in 0..3 {
        HEAP.reclaim();
        let before = memory::frames().0;
        let Ok(epoch) = HEAP.open_epoch() else {
            return test.demand(false, "an epoch opens");
        };
        let objects: Vec<_> = (0..3000)
            .map_while(|_| HEAP.alloc_in(epoch, layout(500, 8)).ok())
            .collect();
        test.demand(objects.len() == 3000, "there is memory");
        test.demand(memory::frames().0 < before, "frames were taken");
        for object in objects.iter().skip(1) {
            test.demand(free(*object, layout(500, 8)).is_ok(), "freed");
        }
        test.demand(HEAP.close(epoch).is_ok(), "closed");
        test.demand(
            HEAP.alloc_in(epoch, layout(500, 8)) == Err(AllocError::EpochClosed),
            "a closed epoch is an error",
        );
        test.demand(HEAP.state(epoch) == Ok(EpochState::Closing), "closing");
        test.demand(
            free(objects[0], layout(500, 8)).is_ok(),
            "what lived on is freed",
        );
        drop(objects);
        HEAP.reclaim();
        if round > 0 {
            test.demand(memory::frames().0 == before, "every frame came back");
        }
    }
}

fn scopes(test: &mut Test) {
    let mut scope: Scope<'_, FrameProvider, IrqLock, KernelConfig> = Scope::new(&HEAP);
    for _ in 0..3 {
        let squares = scope.slice_with(1000, |n| n * n).map(|s| s[999]);
        let text = scope.text("a request").map(|t| t.len());
        test.demand(squares == Ok(998_001) && text == Ok(9), "values in a scope");
        let handle = scope.alloc_handle(layout(100, 8));
        test.demand(
            handle.is_ok_and(|h| HEAP.get_raw(h).is_some()),
            "a handle in a scope",
        );
        scope.reset();
        test.demand(
            handle.is_ok_and(|h| HEAP.get_raw(h).is_none()),
            "ended with it",
        );
    }
}

fn domains(test: &mut Test) {
    let domain: Result<Domain<'_, FrameProvider, IrqLock, KernelConfig>, _> = Domain::open(&HEAP);
    let Ok(domain) = domain.map(Domain::closing) else {
        return test.demand(false, "a domain opens");
    };
    let (Ok(outer), Ok(inner)) = (domain.enter(), domain.enter()) else {
        return test.demand(false, "it is entered twice");
    };
    let inside = HEAP
        .epoch_info(domain.epoch())
        .map_or(0, |info| info.domains);
    test.demand(inside == 2, "both are counted");
    drop(inner);
    test.demand(
        HEAP.state(domain.epoch()) == Ok(EpochState::Active),
        "one is inside",
    );
    drop(outer);
    test.demand(
        HEAP.state(domain.epoch()) == Ok(EpochState::Closing),
        "the last one closed it",
    );
}

/// Every byte of every object is written over, again and again, while the heap works.
fn no_metadata(test: &mut Test) {
    let Some(mut local) = local(test) else { return };
    let mut live: Vec<(NonNull<u8>, Layout)> = Vec::new();
    let mut seed = 1u64;
    let mut random = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % n
    };
    for step in 0..20_000usize {
        if live.len() < 300 || random(2) == 0 {
            let layout = layout(1 + random(2000), 8);
            let Ok(object) = local.alloc(layout) else {
                return test.demand(false, "there is memory");
            };
            live.push((object, layout));
        } else {
            let (object, layout) = live.swap_remove(random(live.len()));
            // To the last byte of what may be used, and once more when it is on its way back.
            // SAFETY: the object is ours and this long; it is freed once.
            let freed = unsafe {
                object.write_bytes(0xff, HEAP.usable_size(layout));
                local.free(object, layout)
            };
            test.demand(freed.is_ok(), "freed");
        }
        if step % 1000 == 0 {
            for (object, layout) in &live {
                // SAFETY: as above.
                unsafe { object.write_bytes(0xff, HEAP.usable_size(*layout)) };
            }
            // SAFETY: nothing is in the middle of anything.
            let walked = unsafe { HEAP.walk() };
            test.demand(walked.is_ok(), "the walker found a violation");
        }
    }
    for (object, layout) in live {
        test.demand(free(object, layout).is_ok(), "freed");
    }
}

fn out_of_memory(test: &mut Test) {
    // The first time the heap's own metadata grows, and stays; the second time it is as it was.
    for is_second in [false, true] {
        HEAP.reclaim();
        let before = memory::frames().0;
        // On a large machine a limit stands for its end.
        HEAP.set_limit(HEAP.bytes().taken + (128 << 20));
        use_it_up(test);
        HEAP.reclaim();
        if is_second {
            test.demand(memory::frames().0 == before, "every frame came back");
        }
        HEAP.set_limit(usize::MAX);
    }
    let after = HEAP.alloc(layout(3000, 8));
    test.demand(
        after.is_ok_and(|object| free(object, layout(3000, 8)).is_ok()),
        "it goes on",
    );
}

/// Allocates until there is no more, and frees it all.
fn use_it_up(test: &mut Test) {
    // Linked through the objects themselves: the list must not need memory.
    let mut last: Option<NonNull<Option<NonNull<u8>>>> = None;
    let (mut count, layout) = (0usize, layout(3000, 8));
    let error = loop {
        match HEAP.alloc(layout) {
            Ok(object) => {
                let link: NonNull<Option<NonNull<u8>>> = object.cast();
                // SAFETY: the object is ours and longer than a link.
                unsafe { link.write(last.map(NonNull::cast)) };
                last = Some(link);
                count += 1;
            }
            Err(error) => break error,
        }
    };
    test.demand(
        matches!(error, AllocError::OutOfMemory | AllocError::Limit),
        "the end is an error by name",
    );
    test.demand(HEAP.alloc(layout).is_err(), "and again");
    test.demand(count > 4000, "most of the memory was to be had");
    say!("       {count} objects of 3000 bytes, then {error:?}");
    while let Some(object) = last {
        // SAFETY: the link was written when the object was allocated.
        last = unsafe { object.read() }.map(NonNull::cast);
        test.demand(free(object.cast(), layout).is_ok(), "freed");
    }
}
