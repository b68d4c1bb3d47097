//! The whole public face of the core, in heaps of several makes over providers that fail when they are told to: the same
//! actions as in the property tests, made of the input.
//!
//! After each step the walker looks at every invariant, and the model at every object, byte, handle, value, epoch and
//! scope. At the end everything is freed and the heap must be empty, or the heap goes as it is; in both cases every region
//! must have come back, once and whole. Seen to catch: a slab's count that is not taken back, an epoch that is not closed
//! for a local that had it at hand, a limit that is not looked at.

use crate::Bytes;
use crate::moving::Moving;
use arbitrary::Unstructured;
use temporal_slab::Heap;
use temporal_slab::config::{Checked, Config, Fine, Unchecked};
use temporal_slab::provider::{Accounts, FaultyProvider, PageProvider, StaticProvider};
use temporal_slab_actions::figures::settled;
use temporal_slab_actions::host::HostProvider;
use temporal_slab_actions::{Action, Control, Family, Over, World};

/// The most steps of one input.
const STEPS: usize = 250;

/// The most objects at a time, but for a batch: more than a local keeps at hand.
const MANY: usize = 250;

type Small = HostProvider<65536>;
type Middle = HostProvider<{ 1 << 18 }>;

/// Runs one input.
pub fn api(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let (make, ends) = match (bytes.int_in_range(0..=7u8), bytes.arbitrary()) {
        (Ok(make), Ok(ends)) => (make, ends),
        _ => return,
    };
    match make {
        0 => faulty::<FaultyProvider<Small, true, 128>, ShortRing<()>>(&mut bytes, ends),
        1 => faulty::<FaultyProvider<Small, false, 128>, Unchecked<()>>(&mut bytes, ends),
        2 => faulty::<FaultyProvider<Small, true, 128>, Hard<()>>(&mut bytes, ends),
        3 => faulty::<FaultyProvider<Middle, false, 128>, Fine<()>>(&mut bytes, ends),
        4 => faulty::<FaultyProvider<Small, true, 128>, Few<()>>(&mut bytes, ends),
        5 => faulty::<Moving<Small>, ShortRing<()>>(&mut bytes, ends),
        6 => owned(&mut bytes, ends),
        _ => fixed(&mut bytes, ends),
    }
}

temporal_slab_actions::configs! {
    /// Positions are used again and again.
    struct ShortRing {
        const RING: usize = 4;
        const EPOCHS: usize = Self::RING;
        const CHECKED: bool = true;
    }
}

temporal_slab_actions::configs! {
    /// Hard on who reads or foresees.
    struct Hard {
        const RING: usize = 5;
        const EPOCHS: usize = Self::RING;
        const CHECKED: bool = true;
        const ZERO_ON_FREE: bool = true;
        const SHUFFLED: bool = true;
    }
}

temporal_slab_actions::configs! {
    /// Generations and ids are used up soon, and there are few classes.
    struct Few {
        const SIZES: &'static [usize] = &[32, 64, 384, 2048, 8192];
        const RING: usize = 2;
        const EPOCHS: usize = Self::RING;
        const CHECKED: bool = true;
        const HANDLE_GENERATION_BITS: u32 = 2;
        const HANDLE_IDS_LOG2: u32 = 4;
    }
}

/// A provider that breaks, and keeps accounts.
trait Faulty: PageProvider + Control {
    /// # Safety
    /// As for [`FaultyProvider::overlapping`].
    unsafe fn new() -> Self;
    fn accounts(&self) -> Accounts;
}

impl<P: PageProvider + Default, const DECOMMIT: bool> Faulty for FaultyProvider<P, DECOMMIT, 128> {
    unsafe fn new() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::overlapping(P::default()) }
    }
    fn accounts(&self) -> Accounts {
        Self::accounts(self)
    }
}

impl<P: PageProvider + Default> Faulty for Moving<P> {
    unsafe fn new() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::new(P::default()) }
    }
    fn accounts(&self) -> Accounts {
        self.inner().accounts()
    }
}

/// A heap over a provider that breaks.
fn faulty<P: Faulty, F: Family>(bytes: &mut Bytes<'_>, ends: bool) {
    // SAFETY: it serves one heap, on this thread.
    let provider = unsafe { P::new() };
    let heap = Heap::<Over<F, _>>::new(&provider);
    let mut world = World::new(&heap, 3).controlled(&provider).at_most(MANY);
    let _trace = run(&mut world, bytes);
    provider.mend();
    end(world, ends);
    drop(heap);
    settled(provider.accounts());
}

/// A heap that has its provider, as one under a global allocator does.
fn owned(bytes: &mut Bytes<'_>, ends: bool) {
    // SAFETY: it serves one heap, on this thread.
    let provider = unsafe { FaultyProvider::<Small, false, 128>::overlapping(Small::default()) };
    let heap = Heap::<Checked<_>>::new(provider);
    let mut world = World::new(&heap, 3)
        .controlled(heap.provider())
        .with_global()
        .at_most(MANY);
    let _trace = run(&mut world, bytes);
    heap.provider().mend();
    end(world, ends);
}

/// A heap in a small fixed memory, which runs out and cannot be decommitted.
fn fixed(bytes: &mut Bytes<'_>, ends: bool) {
    let mut memory = Box::<[u8]>::new_uninit_slice(400_000);
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
    let before = provider.free_bytes();
    let heap = Heap::<Checked<_>>::new(&provider);
    let mut world = World::new(&heap, 2).at_most(MANY);
    let _trace = run(&mut world, bytes);
    end(world, ends);
    drop(heap);
    assert_eq!(
        provider.free_bytes(),
        before,
        "all of it came back, in one piece"
    );
}

fn run<C: Config>(world: &mut World<'_, C>, bytes: &mut Bytes<'_>) -> Trace {
    let mut trace = Trace(Vec::new());
    while trace.0.len() < STEPS && !bytes.is_empty() {
        let Ok(action) = bytes.arbitrary() else { break };
        trace.0.push(action);
        // Want of memory that may be; all else the world looks at.
        let _lacked = world.step(action);
        world.check();
    }
    trace
}

/// What was done; shown if there is a panic before this goes.
struct Trace(Vec<Action>);

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (number, action) in self.0.iter().enumerate() {
                println!("{:3}: {action:?}", number + 1);
            }
        }
    }
}

/// Frees all that is there, or lets the heap go as it is.
fn end<C: Config>(mut world: World<'_, C>, ends: bool) {
    let _lacked = world.step(Action::Limit { more: None });
    let _compared = world.step(Action::Stats);
    if ends {
        world.finish();
    }
}
