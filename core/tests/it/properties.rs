//! Random sequences against the model, over every configuration. Each catches a broken equation, an
//! overlap, a lost or changed byte, a wrong sum, or memory that does not come back.

use crate::common::figures::settled;
use crate::common::host::HostProvider;
use crate::common::{Action, Bumping, Family, Hard, Over, Rng, World};
use temporal_slab::config::{Checked, Config, Fine, Unchecked};
use temporal_slab::provider::{FaultyProvider, StaticProvider};
use temporal_slab::{AllocError, Heap};

/// Runs of random steps, each checked after every step.
fn run<C: Config>(heap: &Heap<C>, seed: u64, steps: usize) {
    go(World::new(heap, 3).endless(), seed, steps);
}

fn go<C: Config>(mut world: World<'_, C>, seed: u64, steps: usize) {
    let mut rng = Rng(seed);
    for step in 0..steps {
        // Too large for a small provider is fine; anything else shows here or in the check.
        let _refused = world.step(Action::random(&mut rng));
        if !cfg!(miri) || step % 16 == 0 {
            world.check();
        }
    }
    world.finish();
}

const RUNS: u64 = if cfg!(miri) { 1 } else { 24 };
const STEPS: usize = if cfg!(miri) { 35 } else { 1200 };

/// Runs over a heap of a configuration, with chunks of a size.
fn runs<C: Config<Provider: Default>>() {
    for seed in 0..RUNS {
        let heap = Heap::<C>::new(C::Provider::default());
        run(&heap, seed, STEPS);
    }
}

#[test]
fn checked_heap_with_small_chunks() {
    runs::<Checked<HostProvider>>();
}

#[test]
fn hardened_heap_with_small_chunks() {
    runs::<Hard<HostProvider>>();
}

#[test]
fn unchecked_heap_with_small_chunks() {
    runs::<Unchecked<HostProvider>>();
}

#[test]
fn fine_table_with_middle_chunks() {
    runs::<Fine<HostProvider<{ 1 << 18 }>>>();
}

#[test]
fn large_chunks() {
    runs::<Checked<HostProvider<{ 4 << 20 }>>>();
}

/// A provider that loses the content of decommitted pages and wants commits.
#[test]
fn lossy_decommit() {
    lossy::<Checked<()>>();
}

/// The same with classes whose slabs are longer than its chunks.
#[test]
fn lossy_decommit_with_the_fine_table() {
    lossy::<Fine<()>>();
}

fn lossy<F: Family>() {
    for seed in 0..RUNS {
        let provider: FaultyProvider<_, true> =
            FaultyProvider::new(HostProvider::<65536>::default());
        let heap = Heap::<Over<F, _>>::new(&provider);
        run(&heap, seed, STEPS);
        drop(heap);
        settled(provider.accounts());
    }
}

/// A small fixed memory, which runs out all the time and cannot decommit.
#[test]
fn fixed_memory_that_runs_out() {
    for seed in 0..RUNS {
        let mut memory = Box::<[u8]>::new_uninit_slice(700_000);
        let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
        let before = provider.free_bytes();
        let heap = Heap::<Checked<_>>::new(&provider);
        go(World::new(&heap, 3), seed, STEPS);
        drop(heap);
        assert_eq!(
            provider.free_bytes(),
            before,
            "all of it came back, in one piece"
        );
    }
}

/// A 16 KiB page: runs smaller than a page decommit with their neighbours.
#[test]
fn sequences_that_only_grow_then_only_shrink() {
    for seed in 0..RUNS {
        let heap = Heap::<Checked<_>>::new(HostProvider::<65536>::default());
        let mut rng = Rng(seed);
        let mut world = World::new(&heap, 2);
        let count = if cfg!(miri) { 30 } else { 2000 };
        for step in 0..count {
            let (local, size) = (rng.below(3) as u8, rng.below(700) as u32);
            world
                .step(Action::Alloc {
                    local,
                    epoch: 0,
                    size,
                    align: 0,
                    zeroed: false,
                    named: false,
                })
                .unwrap();
            if step % 97 == 0 {
                world.check();
            }
        }
        while world.live() > 0 {
            let (local, object) = (rng.below(3) as u8, rng.next() as u16);
            world.step(Action::Free { local, object }).unwrap();
            if world.live().is_multiple_of(97) {
                world.check();
            }
        }
        world.finish();
    }
}

/// Young epochs bump: their objects lie in blocks, and those that outlive them in slabs that epochs share.
#[test]
fn young_epochs_bump() {
    runs::<Bumping<HostProvider>>();
}

temporal_slab_actions::configs! {
    /// As [`Bumping`], of so few classes that a local soon sees which of them survive.
    struct FewClasses {
        const SIZES: &'static [usize] = &[128, 1024, 8192];
        const CHECKED: bool = true;
        const BUMPS: bool = true;
    }
}

/// As above, and what outlives its epoch is foreseen.
#[test]
fn survivors_are_foreseen() {
    let mixed: usize = (0..RUNS)
        .map(|seed| many_steps::<FewClasses<HostProvider>>(seed, 2 * STEPS, 16).0)
        .sum();
    assert!(mixed > 0 || cfg!(miri));
}

/// A local leaves an epoch and a small object in it: what it sees of that often enough it takes for one that survives.
fn outlive<C: Config>(world: &mut World<'_, C>, rng: &mut Rng) -> Result<(), AllocError> {
    let (local, epoch) = (rng.below(3) as u8, rng.next() as u8);
    world.step(Action::Alloc {
        local,
        epoch,
        size: 100,
        align: 0,
        zeroed: false,
        named: false,
    })?;
    world.step(Action::Leave { local, epoch })
}

/// Steps, checked each so many: objects that were seen in mixed slabs, and in blocks.
fn many_steps<C: Config<Provider: Default>>(
    seed: u64,
    steps: usize,
    each: usize,
) -> (usize, usize) {
    let heap = Heap::<C>::new(C::Provider::default());
    let mut world = World::new(&heap, 3).endless();
    let mut rng = Rng(seed);
    let mut seen = (0, 0);
    for step in 0..steps {
        let _refused = world.step(Action::random(&mut rng));
        if step % 2 == 0 {
            let _refused = outlive(&mut world, &mut rng);
        }
        if step % each == 0 {
            let census = world.check();
            seen.0 += census.mixed_slots;
            seen.1 += census.block_objects;
        }
    }
    world.finish();
    seen
}

/// Ten million steps, frees of what is none among them, all of which are refused: `cargo test -p temporal-slab --all-features --test it
/// ten_million -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn ten_million_steps() {
    // Few steps with each heap: later most epochs that a step names are over.
    let mut seen = (0, 0);
    for seed in 0..2_000 {
        let few = many_steps::<FewClasses<HostProvider>>(seed, 2_500, 49);
        let many = many_steps::<Bumping<HostProvider>>(seed, 2_500, 49);
        seen = (seen.0 + few.0 + many.0, seen.1 + few.1 + many.1);
        if seed % 100 == 99 {
            println!(
                "{seed}: {} in mixed slabs and {} in blocks were seen",
                seen.0, seen.1
            );
        }
    }
}
