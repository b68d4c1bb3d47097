//! The close of a class list, while slots are taken and given. Each model was seen to fail once with the mutation named above it.

use super::{HERE, THERE, World};
use crate::depot::{After, Keep, Owned, SlotTake};
use crate::epoch::{Serves, Tag};
use core::num::NonZeroU64;
use loom::sync::Arc;
use loom::thread;

/// A slab is left whole where the shared path looks first, while a sweep and a take come by: it is
/// taken or swept, never both, and a sweep afterwards finds it if neither got it.
///
/// Mutation: `ClassList::sweep` does not claim. Mutation: `Slab::claim` loads, compares and stores.
#[test]
fn sweep_against_take_and_lingering_give() {
    loom::model(|| {
        let world = World::new(2, 0b01);
        let sweep = |world: &World| match world.here.sweep(&world.class, &mut 0) {
            Some(_) => {
                world.adopt(THERE);
                1
            }
            None => 0,
        };
        let other = Arc::clone(&world);
        let sweeper = thread::spawn(move || sweep(&other));
        world.touch(0b10);
        // SAFETY: this thread holds slot 1.
        let given = unsafe {
            let keep = || Keep::Recycle;
            world
                .here
                .give_back(&world.slab, 0b10, &world.class, || 0, || true, keep)
        };
        assert!(matches!(given, Ok(After::InUse)), "it lingers");
        let taken = match world.here.take_slot(HERE, false, || 0) {
            SlotTake::Taken(_, bit) => {
                world.touch(bit);
                1
            }
            SlotTake::Empty => 0,
            SlotTake::Strayed(..) => panic!("nobody opened the slab elsewhere"),
        };
        let swept = sweeper.join().unwrap();
        assert!(taken + swept <= 1);
        assert_eq!(taken + swept + sweep(&world), 1);
    });
}

/// A giver that found the slab full is on its way to list it, another lets it linger, and the class list is
/// closed and swept before the first arrives: the first ends the slab's life. Step by step, because
/// loom takes `SeqCst` accesses for weaker ones.
///
/// Mutation: `Lists::follow` only lists.
#[test]
fn a_late_listing_in_a_closed_class_list_strands_nothing() {
    loom::model(|| {
        let world = World::new(2, 0);
        world.here.set_hint(&world.slab);
        // SAFETY: this thread holds both slots.
        let given = unsafe { world.slab.give(0b01, world.class.all, || 0, |_| true) };
        let given = given.expect("no model frees twice");
        // SAFETY: as above.
        let lingers = unsafe {
            let keep = || Keep::Recycle;
            world
                .here
                .give_back(&world.slab, 0b10, &world.class, || 0, || true, keep)
        };
        assert!(matches!(lingers, Ok(After::InUse)));
        world.here.set_closed(true);
        assert!(
            world.here.sweep(&world.class, &mut 0).is_none(),
            "it is not listed yet"
        );
        let after = world
            .here
            .follow(&world.slab, given, &world.class, || Keep::Cached);
        assert!(
            matches!(after, After::Recycle(_)),
            "a whole slab is stranded in a closed class_list"
        );
        assert_eq!(World::listed(&world.here, &world.slab), (0, 0));
    });
}

/// An allocation that names an epoch, while the epoch is closed, drained and its depot serves the next:
/// the allocation is refused, or its object lies in a slab of the epoch that it named.
///
/// Mutation: the allocation looks at what the depot serves before it has its slot. Mutation:
/// `Slab::take_bit` made `Relaxed`. Mutation: `ClassList::sweep` does not claim.
#[test]
fn alloc_against_close() {
    loom::model(|| {
        let (world, depot, [old, next]) = in_an_era();
        let (other, their_depot) = (Arc::clone(&world), Arc::clone(&depot));
        let thread = thread::spawn(move || {
            // As `Heap::shut_depot` and `reclaim_closed`.
            their_depot.set(old.closed());
            other.here.set_closed(true);
            let Some(After::Recycle(Owned(slab))) = other.here.sweep(&other.class, &mut 0) else {
                return;
            };
            // Drained: the depot serves the next era, which the slab is made for anew.
            other.here.set_closed(false);
            their_depot.set(next);
            // SAFETY: the sweep left this thread the owner.
            unsafe { other.objects[2].set(3) };
            other.adopt_quietly(HERE);
            let bit = other.here.publish(Owned(slab), &other.class);
            let _after = other.give_quietly(bit, Keep::Recycle);
        });
        // As `Heap::alloc_slot`.
        if let SlotTake::Taken(_, bit) = world.here.take_slot(HERE, false, || 0) {
            if depot.get() == old {
                // SAFETY: the slot is held, so nobody writes this meanwhile; loom checks it.
                assert_eq!(
                    unsafe { world.objects[2].get() },
                    2,
                    "an object of the next era"
                );
            } else {
                let _after = world.give_quietly(bit, Keep::Recycle);
            }
        }
        thread.join().unwrap();
    });
}

/// The last slot of a closed epoch's slab is freed while the close sweeps: one of the two gets the slab,
/// and it is not left behind in a list.
///
/// Mutation: `Lists::end_life` says that a closed class list is open. Mutation: `set_closed` does nothing.
#[test]
fn free_against_close() {
    loom::model(|| {
        let world = World::new(2, 0b01);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            other.here.set_closed(true);
            let swept = matches!(
                other.here.sweep(&other.class, &mut 0),
                Some(After::Recycle(_))
            );
            usize::from(swept) + usize::from(other.here.uncache().is_some())
        });
        let freed = usize::from(matches!(world.give(0b10, Keep::Cached), After::Recycle(_)));
        assert_eq!(
            freed + thread.join().unwrap(),
            1,
            "one owner, and nothing cached"
        );
        assert_eq!(World::listed(&world.here, &world.slab), (0, 0));
    });
}

/// A local takes a slab from the cache, while its epoch is closed and the depot serves the next, which has the slab in its cache: the
/// local's object is of its own era, and then the depot was not drained; or it finds the tag changed, and gives the slab back.
///
/// Mutation: the local does not look at the tag again.
#[test]
fn take_against_the_next_era() {
    loom::model(|| {
        let (world, depot, [old, next]) = in_an_era();
        let give = |world: &World, word| {
            // SAFETY: this thread holds the word.
            let given = unsafe {
                let keep = || Keep::Cached;
                world.here.give_held(&world.slab, word, &world.class, keep)
            };
            let given = given.expect("no model frees twice");
            assert!(matches!(given, After::Cached | After::Recycle(_)));
        };
        let mut all = 0;
        world.here.take(&world.class, 1, |_, word| all = word);
        give(&world, all);
        let (other, their_depot) = (Arc::clone(&world), Arc::clone(&depot));
        let thread = thread::spawn(move || {
            // As `Heap::shut_depot`, `Heap::empty_depot`, `Heap::is_drained` and `Heap::give_depot`: there is one slab in all.
            their_depot.set(old.closed());
            other.here.set_closed(true);
            if let Some(Owned(slab)) = other.here.uncache() {
                other.here.set_closed(false);
                their_depot.set(next);
                // SAFETY: nobody has a slot of the depot.
                unsafe { other.objects[2].set(3) };
                assert!(core::ptr::eq(slab, &raw const other.slab));
                give(&other, all);
            }
        });
        // As `Local::restock`.
        if depot.get() == old {
            let mut held = 0;
            world.here.take(&world.class, 1, |_, word| held = word);
            if held != 0 && depot.get() == old {
                // SAFETY: the slots are held, so nobody writes this meanwhile; loom checks it.
                let of = unsafe { world.objects[2].get() };
                assert_eq!(of, 2, "an object of the next era");
            } else if held != 0 {
                give(&world, held);
            }
        }
        thread.join().unwrap();
    });
}

/// A slab whose slots are free, a depot that serves era 2, and the tags of that and of era 3. Slot 2, which is none, stands
/// for what is written where the depot begins to serve an era.
fn in_an_era() -> (Arc<World>, Arc<Serves>, [Tag; 2]) {
    let world = World::new(2, 0b11);
    let [old, next] = [2, 3].map(|era| Tag::open(NonZeroU64::new(era).expect("not zero")));
    let depot = Arc::new(Serves::nothing());
    depot.set(old);
    // SAFETY: one thread so far.
    unsafe { world.objects[2].set(2) };
    (world, depot, [old, next])
}
