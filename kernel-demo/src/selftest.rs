//! The self-test: the core's promises, checked where a kernel would rely on them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;

use temporal_slab::{
    AllocError, Domain, EpochState, FreeError, HandleError, Heap, Local, Policy, RawHandle, Scope,
};

use crate::heap::{HEAP, KernelConfig};
use crate::interrupts;
use crate::memory;
use crate::serial::say;
use crate::vmem::VirtualProvider;

type KernelLocal = Local<'static, KernelConfig>;

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
    let tests: [NamedTest; 11] = [
        ("collections", collections),
        ("sizes and alignments", sizes),
        ("checked frees", checked_frees),
        ("handles", handles),
        ("epochs", epochs),
        ("scopes", scopes),
        ("domains", domains),
        ("objects hold no metadata", no_metadata),
        ("pages behind addresses", virtual_memory),
        ("interrupts", interrupts),
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
        let Ok(handle) = local.alloc_raw(layout(64 + round % 300, 8)) else {
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
        test.demand(HEAP.remove(live) == Ok(17), "taken");
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
    let mut scope: Scope<'_, KernelConfig> = Scope::new(&HEAP);
    for _ in 0..3 {
        let squares = scope.alloc_slice_fill_with(1000, |n| n * n).map(|s| s[999]);
        let text = scope.alloc_str("a request").map(|t| t.len());
        test.demand(squares == Ok(998_001) && text == Ok(9), "values in a scope");
        let handle = scope.alloc_raw(layout(100, 8));
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
    let domain: Result<Domain<'_, KernelConfig>, _> = Domain::open(&HEAP);
    let Ok(domain) = domain.map(Domain::close_on_exit) else {
        return test.demand(false, "a domain opens");
    };
    let (Ok(outer), Ok(inner)) = (domain.enter(), domain.enter()) else {
        return test.demand(false, "it is entered twice");
    };
    let inside = HEAP
        .epoch_stats(domain.epoch())
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
                object.write_bytes(0xff, HEAP.good_size(layout));
                local.free(object, layout)
            };
            test.demand(freed.is_ok(), "freed");
        }
        if step % 1000 == 0 {
            for (object, layout) in &live {
                // SAFETY: as above.
                unsafe { object.write_bytes(0xff, HEAP.good_size(*layout)) };
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

/// The same on both providers: objects of two pages, of which every other one is freed. Where frames are
/// behind addresses they come back, and may be used by the other heap; where they are mapped as they are
/// each chunk still has something in it.
fn virtual_memory(test: &mut Test) {
    static BY_TABLES: Heap<KernelConfig<VirtualProvider>> = Heap::new(VirtualProvider);
    BY_TABLES.set_policy(Policy::ON_CLOSE);
    let layout = layout(8192, 4096);
    let mut returned = [0; 2];
    for by_tables in [false, true] {
        let alloc = || {
            if by_tables {
                BY_TABLES.alloc(layout)
            } else {
                HEAP.alloc(layout)
            }
        };
        // SAFETY: each object is freed once, into the heap that it came from.
        let free = |object| unsafe {
            if by_tables {
                BY_TABLES.free(object, layout)
            } else {
                HEAP.free(object, layout)
            }
        };
        let reclaim = || {
            if by_tables {
                BY_TABLES.reclaim();
            } else {
                HEAP.reclaim();
            }
        };
        let objects: Vec<NonNull<u8>> = (0..1000).map_while(|_| alloc().ok()).collect();
        test.demand(objects.len() == 1000, "there is memory");
        for (n, object) in objects.iter().enumerate() {
            // SAFETY: the object is ours and this long.
            unsafe { object.write_bytes(n as u8, 8192) };
        }
        reclaim();
        let full = memory::frames().0;
        // Slabs of four, so that every other slab is empty.
        for quad in objects.chunks(4).step_by(2) {
            for object in quad {
                test.demand(free(*object).is_ok(), "freed");
            }
        }
        reclaim();
        returned[usize::from(by_tables)] = memory::frames().0 - full;
        // Addresses stay: what is live is intact, and what comes anew may have frames again.
        for (n, object) in objects.iter().enumerate().filter(|(n, _)| n / 4 % 2 == 1) {
            // SAFETY: as above.
            let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), 8192) };
            test.demand(
                bytes.iter().all(|b| *b == n as u8),
                "what is live is intact",
            );
        }
        let again: Vec<NonNull<u8>> = (0..500).map_while(|_| alloc().ok()).collect();
        test.demand(again.len() == 500, "there is memory again");
        for object in &again {
            // SAFETY: as above.
            unsafe { object.write_bytes(0xee, 8192) };
        }
        let rest = objects.chunks(4).skip(1).step_by(2).flatten();
        for object in rest.chain(&again) {
            test.demand(free(*object).is_ok(), "freed");
        }
        reclaim();
    }
    say!(
        "       half of 1000 objects of two pages freed: {} frames came back by tables, {} without",
        returned[1],
        returned[0]
    );
    test.demand(returned[1] >= 900, "frames come back page by page");
    // SAFETY: nothing is in the middle of anything.
    test.demand(
        unsafe { BY_TABLES.walk() }.is_ok(),
        "the walker found a violation",
    );
}

fn out_of_memory(test: &mut Test) {
    // On a large machine a limit stands for its end.
    let limit = HEAP.bytes().taken + (128 << 20);
    // The first time the heap's own metadata grows, and stays; the second time it is as it was.
    for is_second in [false, true] {
        HEAP.reclaim();
        let before = memory::frames().0;
        HEAP.set_limit(limit);
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

/// The timer's handler allocates and frees on the shared path while the main line does so through its local
/// and without: nobody waits for ever, nothing is lost. Ten thousand entries, of which a tenth and more came
/// while the main line was inside the allocator.
fn interrupts(test: &mut Test) {
    let Some(mut local) = local(test) else { return };
    interrupts::start();
    let mut live: [Option<(NonNull<u8>, Layout)>; 64] = [None; 64];
    let (mut steps, mut wrong) = (0usize, 0);
    while interrupts::counts()[0] < 10_000 {
        steps += 1;
        let layout = layout(16 + steps * 53 % 1500, 8);
        let Some(place) = live.get_mut(steps * 7 % 64) else {
            break;
        };
        let done = interrupts::inside(|| {
            let freed = match place.take() {
                // SAFETY: the object is live, of this layout, and gone from its place.
                Some((object, layout)) if steps % 2 == 0 => unsafe { local.free(object, layout) },
                Some((object, layout)) => free(object, layout),
                None => Ok(()),
            };
            let object = if steps % 3 == 0 {
                HEAP.alloc(layout)
            } else {
                local.alloc(layout)
            };
            *place = object.ok().map(|object| (object, layout));
            freed.is_ok() && object.is_ok()
        });
        wrong += usize::from(!done);
        if steps % 4096 == 0 {
            interrupts::inside(|| HEAP.reclaim());
        }
    }
    interrupts::stop();
    let [entries, inside, failures] = interrupts::counts();
    say!(
        "       {entries} handler entries, {inside} inside the allocator, {steps} steps of the main line"
    );
    test.demand(wrong == 0 && failures == 0, "nobody was refused");
    test.demand(inside >= 1000, "a tenth came inside");
    for (object, layout) in live.into_iter().flatten() {
        test.demand(free(object, layout).is_ok(), "freed");
    }
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
