//! A provider that fails at every call in turn, and one that hands out what it should not.

use crate::common::figures::settled;
use crate::common::host::HostProvider;
use crate::common::{Action, World};
use crate::common::{Rng, host_keeps};
use core::alloc::Layout;
use temporal_slab::provider::{Fault, FaultyProvider, PageProvider};
use temporal_slab::{AllocError, Heap, Policy};

type Faulty = FaultyProvider<HostProvider<{ 1 << 18 }>, true, 256>;
temporal_slab_actions::configs! {
    /// Checked, and the same in each run: where a search starts is not a matter of where the stack is.
    struct Repeated {
        const CHECKED: bool = true;
        fn cpu() -> u32 {
            0
        }
    }
}

type TestHeap<'p> = Heap<Repeated<&'p Faulty>>;

const OPERATIONS: usize = if cfg!(miri) { 40 } else { 10_000 };

/// Steps that follow the last call that is broken. After one that failed once, in which an inconsistent heap is to show it; where all
/// fail from there on, in which all that needs memory is to fail.
const AFTER: usize = 1000;

/// A call of the provider: the step that makes it, and how many calls that step has made before.
type Call = (usize, u64);

fn trace(operations: usize) -> Vec<Action> {
    let mut rng = Rng(42);
    (0..operations).map(|_| Action::random(&mut rng)).collect()
}

/// Every call that the trace makes while none fails.
fn calls(trace: &[Action]) -> Vec<Call> {
    host_keeps(true);
    let provider = Faulty::new(HostProvider::default());
    let heap = TestHeap::new(&provider);
    let mut world = World::new(&heap, 3);
    let mut calls = Vec::new();
    for (number, action) in trace.iter().enumerate() {
        let before = provider.accounts().calls;
        world.step(*action).expect("nothing is broken");
        calls.extend((0..provider.accounts().calls - before).map(|call| (number, call)));
    }
    world.finish();
    drop(heap);
    settled(provider.accounts());
    let enough = trace.len() / 50;
    assert!(
        calls.len() > enough,
        "{} calls are too few to say anything",
        calls.len()
    );
    let step = if cfg!(miri) { 3 } else { 1 };
    calls.into_iter().step_by(step).collect()
}

/// As much of a trace as is to run for a call.
fn after<'t>(trace: &'t [Action], call: Option<&Call>) -> &'t [Action] {
    let end = call.map_or(0, |(step, _)| step + AFTER);
    &trace[..trace.len().min(end)]
}

/// Runs the trace with calls broken, in their order: each by itself, or all that come from the first one on. Catches a
/// failure that is not an `Err`, one that leaves the heap inconsistent or the same request failing afterwards, and lost
/// bytes. Gives the calls that were never made, and how many steps failed.
fn run(trace: &[Action], broken: &[Call], for_ever: bool) -> (Vec<Call>, usize) {
    let provider = Faulty::new(HostProvider::default());
    let heap = TestHeap::new(&provider);
    let mut world = World::new(&heap, 3);
    let mut due = broken.iter().peekable();
    let mut missed = Vec::new();
    let mut failed = 0;
    for (number, action) in trace.iter().enumerate() {
        let now = due.next_if(|(step, _)| *step == number);
        let before = provider.accounts().broken;
        if let Some((_, call)) = now {
            let count = if for_ever { u64::MAX } else { 1 };
            provider.break_calls(*call, count, Fault::Refuse);
        }
        if let Err(error) = world.step(*action) {
            assert_eq!(error, AllocError::OutOfMemory);
            failed += 1;
            if !for_ever {
                world.check();
                let again = world.step(*action);
                assert_eq!(again, Ok(()), "step {number} again, after {now:?} failed");
            } else if failed % 64 == 1 {
                world.check();
            }
        }
        if let Some(call) = now
            && !for_ever
        {
            world.check();
            if provider.accounts().broken == before {
                missed.push(*call);
                provider.mend();
            }
        }
        if number % 2500 == 0 {
            world.check();
        }
    }
    provider.mend();
    world
        .step(Action::Alloc {
            local: 3,
            epoch: 0,
            size: 5000,
            align: 0,
            zeroed: true,
            named: false,
        })
        .expect("it works again");
    world.finish();
    drop(heap);
    settled(provider.accounts());
    (missed, failed)
}

/// Several in one run, far apart, for otherwise the time grows with the square of the trace; and by itself what is not
/// called any more where another failed before.
#[test]
fn every_call_fails_once() {
    const APART: usize = 500;
    let trace = trace(OPERATIONS);
    let mut left = calls(&trace);
    let (count, mut runs, mut failed, mut alone) = (left.len(), 0, 0, Vec::new());
    while !left.is_empty() {
        let mut free_from = 0;
        let (now, later) = left.into_iter().partition(|(step, _)| {
            let is_apart = *step >= free_from;
            if is_apart {
                free_from = step + APART;
            }
            is_apart
        });
        left = later;
        let found: (Vec<Call>, usize) = run(after(&trace, now.last()), &now, false);
        alone.extend(found.0);
        failed += found.1;
        runs += 1;
    }
    for call in &alone {
        let (missed, steps) = run(after(&trace, Some(call)), &[*call], false);
        assert!(missed.is_empty(), "{call:?} is made when nothing failed");
        failed += steps;
    }
    println!(
        "{count} provider calls, each broken once, in {runs} runs and {} by themselves: {failed} steps failed",
        alone.len()
    );
    assert!(failed > 0);
}

/// Each call in turn is the last that works.
#[test]
fn every_call_is_the_last_that_works() {
    // A third of the steps: each call takes all steps before it, so the time grows with the square.
    let trace = trace(OPERATIONS / 3);
    let calls = calls(&trace);
    const THREADS: usize = 2;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (trace, calls) = (&trace, &calls);
            scope.spawn(move || {
                for call in calls.iter().skip(thread).step_by(THREADS) {
                    run(after(trace, Some(call)), &[*call], true);
                }
            });
        }
    });
}

/// Each wrong shape, at each of the calls that a fresh heap makes: it is refused and handed back,
/// nothing in it or outside is written, and the same request succeeds when the provider behaves.
#[test]
fn misshapen_regions_are_refused() {
    let rounds = if cfg!(miri) { 3 } else { 1000 };
    let requests = [(100, 8), (20_000, 16), (200_000, 8), (10, 1 << 21)];
    for round in 0..rounds {
        let odd = 1 + round % 4095;
        for fault in [
            Fault::Misaligned(odd),
            Fault::Short(odd),
            Fault::Overlapping,
            Fault::TopOfMemory,
        ] {
            // SAFETY: it serves one heap, on this thread.
            let provider = unsafe { Faulty::overlapping(HostProvider::default()) };
            let heap = TestHeap::new(&provider);
            let (size, align) = requests[round % requests.len()];
            let layout = Layout::from_size_align(size, align).unwrap();
            // Overlapping needs a region that is held: the first call gets metadata.
            let after = if fault == Fault::Overlapping {
                1
            } else {
                round as u64 % 2
            };
            provider.break_calls(after, 1, fault);
            assert_eq!(
                heap.alloc(layout),
                Err(AllocError::OutOfMemory),
                "{fault:?}, {layout:?}"
            );
            assert_eq!(provider.accounts().broken, 1);
            assert_eq!(
                provider.accounts().misshapen,
                0,
                "{fault:?} was handed back"
            );
            assert_eq!(heap.page_stats().regions_refused, 1);
            // SAFETY: there are no locals and no other threads.
            let census = unsafe { heap.walk() }.expect("the heap is whole");
            assert_eq!(census.taken, provider.accounts().bytes);
            let object = heap.alloc(layout).expect("the provider behaves again");
            // SAFETY: it was just allocated with this layout.
            unsafe {
                object.write_bytes(0xFF, size);
                heap.free(object, layout).expect("it is live");
            }
            drop(heap);
            settled(provider.accounts());
        }
    }
}

/// A decommit that fails leaves the pages usable and counted as resident, and is counted itself.
#[test]
fn failed_decommit_is_seen() {
    let provider = Faulty::new(HostProvider::default());
    let heap = TestHeap::new(&provider);
    heap.set_policy(Policy::NEVER);
    let layout = Layout::from_size_align(1024, 8).unwrap();
    let objects: Vec<_> = (0..200).map(|_| heap.alloc(layout).unwrap()).collect();
    // One stays, so that the chunk cannot go back whole.
    for object in &objects[1..] {
        // SAFETY: it is live and used no more.
        unsafe { heap.free(*object, layout).unwrap() };
    }
    let before = heap.bytes();
    provider.break_calls(0, u64::MAX, Fault::Refuse);
    heap.reclaim();
    assert!(heap.page_stats().decommits_failed > 0);
    assert_eq!(heap.bytes().resident, before.resident);
    // SAFETY: there are no locals and no other threads.
    unsafe { heap.walk() }.expect("the heap is whole");
    provider.mend();
    let again: Vec<_> = (0..200).map(|_| heap.alloc(layout).unwrap()).collect();
    for object in again {
        // SAFETY: it is live and used no more.
        unsafe { heap.free(object, layout).unwrap() };
    }
    heap.reclaim();
    assert!(
        heap.bytes().resident < before.resident / 2,
        "{:?}",
        heap.bytes()
    );
}

/// The limit holds at every moment, its error is its own, and raising it helps at once.
#[test]
fn the_limit_is_a_limit() {
    let provider = Faulty::new(HostProvider::default());
    let heap = TestHeap::new(&provider);
    heap.set_limit(1 << 20);
    let layout = Layout::from_size_align(4096, 8).unwrap();
    let mut objects = Vec::new();
    let error = loop {
        match heap.alloc(layout) {
            Ok(object) => objects.push(object),
            Err(error) => break error,
        }
        assert!(provider.accounts().bytes <= 1 << 20);
    };
    assert_eq!(error, AllocError::Limit);
    assert!(
        objects.len() * 4096 > 600_000,
        "most of the limit serves objects"
    );
    heap.set_limit(2 << 20);
    objects.push(heap.alloc(layout).expect("there is room again"));
    for object in objects {
        // SAFETY: it is live and used no more.
        unsafe { heap.free(object, layout).unwrap() };
    }
    assert!(heap.provider().capabilities().bits() != 0);
}

/// What has no place in the ledger is refused and goes straight back, in its shape or in another. Catches a region that is
/// handed out all the same: of that one nobody knows later whose it is.
#[test]
fn what_the_ledger_cannot_hold_is_refused() {
    // SAFETY: no heap uses what it hands out.
    let provider =
        unsafe { FaultyProvider::<HostProvider, true, 2>::overlapping(HostProvider::default()) };
    let held = [(); 2].map(|()| provider.acquire(65536, 65536).unwrap());
    let mut refused = 0;
    for fault in [
        None,
        Some(Fault::Misaligned(16)),
        Some(Fault::Short(1)),
        Some(Fault::Overlapping),
        Some(Fault::TopOfMemory),
    ] {
        if let Some(fault) = fault {
            provider.break_calls(0, 1, fault);
        }
        refused += 1;
        assert_eq!(provider.acquire(65536, 65536), None, "{fault:?}");
        let accounts = provider.accounts();
        assert_eq!(accounts.unrecorded, refused, "{fault:?}");
        assert_eq!((accounts.regions, accounts.misshapen), (2, 0));
        assert_eq!(provider.inner().regions_out(), 2, "{fault:?}");
    }
    // A call that was to fail needs no place.
    provider.break_calls(0, 1, Fault::Refuse);
    assert_eq!(provider.acquire(65536, 65536), None);
    assert_eq!(provider.accounts().unrecorded, refused);
    for region in held {
        // SAFETY: it is out, and nobody uses it.
        unsafe { provider.release(region) };
    }
    assert_eq!(provider.accounts().wrong_releases, 0);
    let again = provider.acquire(65536, 65536).expect("there is room again");
    // SAFETY: as above.
    unsafe { provider.release(again) };
}

/// A heap whose provider shows it its own memory once more, when the ledger is full: what it refuses and gives back is not
/// what it holds. Catches live memory that goes back to the host.
#[test]
fn a_full_ledger_keeps_what_is_held() {
    // SAFETY: it serves one heap, on this thread.
    let provider =
        unsafe { FaultyProvider::<HostProvider, true, 2>::overlapping(HostProvider::default()) };
    keeps_what_is_held(&provider, 2);
}

/// As above, with the ledger that there is by default.
#[test]
#[cfg_attr(miri, ignore = "a thousand chunks")]
fn a_full_ledger_of_the_usual_length_keeps_what_is_held() {
    // SAFETY: it serves one heap, on this thread.
    let provider: FaultyProvider<HostProvider> =
        unsafe { FaultyProvider::overlapping(HostProvider::default()) };
    keeps_what_is_held(&provider, 1024);
}

fn keeps_what_is_held<const LEDGER: usize>(
    provider: &FaultyProvider<HostProvider, true, LEDGER>,
    most: usize,
) {
    let heap = Heap::<Repeated<_>>::new(provider);
    let mut values = Vec::new();
    let mut insert = || {
        let number = values.len();
        heap.insert([number; 512]).map(|value| values.push(value))
    };
    while provider.accounts().regions < most && insert().is_ok() {}
    provider.break_calls(0, u64::MAX, Fault::Overlapping);
    while insert().is_ok() {}
    assert_eq!(insert(), Err(AllocError::OutOfMemory));
    assert_eq!(
        provider.inner().regions_out(),
        provider.accounts().regions,
        "all that the heap has is out"
    );
    assert!(provider.accounts().unrecorded > 0);
    for (number, value) in values.iter().enumerate() {
        assert_eq!(*heap.get(*value).unwrap(), [number; 512]);
    }
    drop(heap);
    assert_eq!(provider.inner().regions_out(), 0);
    assert_eq!(provider.accounts().wrong_releases, 0);
}

/// Two heaps of one provider, and one heap of two threads, are safe code: what one holds is not shown to another, who does
/// not know it and would take it for its own. Catches memory that has two owners.
#[test]
fn what_one_heap_holds_is_not_another_s() {
    let provider = Faulty::new(HostProvider::default());
    let first = TestHeap::new(&provider);
    let value = first.insert([7u8; 64]).unwrap();
    let second = TestHeap::new(&provider);
    for after in 0..3 {
        provider.break_calls(after, 1, Fault::Overlapping);
        for _ in 0..3 {
            let _refused_once = second.insert([8u8; 64]);
        }
        assert_eq!(*first.get(value).unwrap(), [7; 64]);
    }
    assert_eq!(second.page_stats().regions_refused, 0, "none was shown");
    assert!(provider.accounts().broken > 0);
    // SAFETY: there are no locals and no other threads.
    let (one, other) = unsafe { (first.walk().unwrap(), second.walk().unwrap()) };
    assert_eq!(one.taken + other.taken, provider.accounts().bytes);
}

/// What is written to may ask the same provider for memory. Catches text that is written with its lock taken.
#[test]
fn a_report_may_ask_for_memory() {
    struct Asks<'p>(&'p Faulty);
    impl core::fmt::Write for Asks<'_> {
        fn write_str(&mut self, _: &str) -> core::fmt::Result {
            let region = self.0.acquire(65536, 65536).ok_or(core::fmt::Error)?;
            // SAFETY: nobody uses it.
            unsafe { self.0.release(region) };
            Ok(())
        }
    }
    let provider = Faulty::new(HostProvider::default());
    core::fmt::write(&mut Asks(&provider), format_args!("{provider:?}")).unwrap();
    assert!(provider.accounts().calls > 0);
}

/// A size or an alignment that is none is refused, whatever is broken. Catches arithmetic that overflows.
#[test]
fn what_is_no_layout_is_refused() {
    // SAFETY: no heap uses what it hands out.
    let provider = unsafe { Faulty::overlapping(HostProvider::default()) };
    let held = provider.acquire(65536, 65536).unwrap();
    for fault in [
        Fault::Refuse,
        Fault::Misaligned(1),
        Fault::Short(1),
        Fault::Overlapping,
        Fault::TopOfMemory,
    ] {
        provider.break_calls(0, u64::MAX, fault);
        for (size, align) in [(0, 8), (64, 0), (64, 101)] {
            assert_eq!(provider.acquire(size, align), None, "{fault:?}");
        }
    }
    // SAFETY: it is out, and nobody uses it.
    unsafe { provider.release(held) };
}
