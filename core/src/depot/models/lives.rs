//! A slab's lives: its end and what comes after, while others are still on their way. Each model was seen to fail once with the mutation named above it.

use super::{HERE, THERE, World};
use crate::depot::{After, Keep, Owned, SlotTake};
use loom::sync::Arc;
use loom::thread;

/// A giver that is about to list the slab, while another empties it, recycles it into another class list and
/// uses it there: the first leaves it alone.
///
/// Mutation: `ClassList::list` does not compare identities.
#[test]
fn recycle_against_listing_leaves_the_next_life_alone() {
    loom::model(|| {
        let world = World::new(2, 0);
        let recycle = |world: &World, after: After<'_>| {
            if let After::Recycle(_) = after {
                world.adopt(THERE);
                // A local of the new life holds every slot and gives one back.
                // SAFETY: the recycler owns the slab.
                let given = unsafe {
                    world.there.give_back(
                        &world.slab,
                        0b01,
                        &world.class,
                        || 0,
                        || false,
                        || Keep::Recycle,
                    )
                };
                assert!(matches!(given, Ok(After::InUse)));
            }
        };
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || recycle(&other, other.give(0b10, Keep::Recycle)));
        recycle(&world, world.give(0b01, Keep::Recycle));
        thread.join().unwrap();
        world.check();
        assert_eq!(world.slab.identity().key(), THERE);
    });
}

/// The shared path takes a bit of a slab that is being recycled into another class: it keeps the bit
/// only if the slab is still of the class that it asked for, and then it stays so.
///
/// Mutation: `ClassList::take_slot` answers `Taken` without comparing keys. Mutation: `Slab::claim` loads,
/// compares and stores instead of one CAS. Mutation: `take_bit` or `publish` made `Relaxed`.
#[test]
fn shared_take_against_recycle_into_another_class() {
    loom::model(|| {
        let world = World::new(2, 0b01);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            if let After::Recycle(owned) = other.give(0b10, Keep::Recycle) {
                other.adopt(THERE);
                let _kept = other.there.publish(owned, &other.class);
            }
        });
        match world.here.take_slot(HERE, false, || 0) {
            SlotTake::Taken(slab, bit) => {
                world.touch(bit);
                // SAFETY: the bit pins the slab; loom checks that nobody writes the body meanwhile.
                let body = unsafe { slab.body() };
                assert_eq!(
                    body.granules,
                    u32::from(HERE.class()),
                    "a slot of another class"
                );
                thread.join().unwrap();
                assert_eq!(slab.identity().key(), HERE);
                assert_eq!(slab.free() & bit, 0);
            }
            SlotTake::Strayed(slab, bit) => {
                // SAFETY: the bit is held here, and the slab is of the other class list.
                let given = unsafe {
                    world
                        .there
                        .give_back(slab, bit, &world.class, || 0, || false, || Keep::Recycle)
                };
                assert!(matches!(given, Ok(After::InUse)));
                thread.join().unwrap();
            }
            SlotTake::Empty => thread.join().unwrap(),
        }
        world.check();
    });
}

/// A slab is emptied, cached and taken out whole, while an earlier giver is still on its way to list
/// it: it must not be listed, for a local holds all of it.
///
/// Mutation: `Slab::end_life` does not move the incarnation, and `ClassList::list` does not look at the
/// word.
#[test]
fn cache_against_listing() {
    loom::model(|| {
        let world = World::new(2, 0);
        let other = Arc::clone(&world);
        let give = |world: &World, word| {
            let mut taken = 0;
            if let After::Cached = world.give(word, Keep::Cached) {
                world.here.take(&world.class, 1, |_, word| taken |= word);
                world.touch(taken);
            }
            taken
        };
        let thread = thread::spawn(move || give(&other, 0b10));
        let taken = give(&world, 0b01) | thread.join().unwrap();
        assert_eq!(taken, 0b11, "the claimer took it out whole");
        world.check();
        assert_eq!(World::listed(&world.here, &world.slab), (0, 0));
    });
}

/// Between a give that made the slab whole and its claim, another takes a slot and gives it back: the
/// claimer, whichever of the two, is behind what the other did to its slot.
///
/// Mutation: `Slab::claim` made `Relaxed`.
#[test]
fn a_claim_is_behind_what_came_between() {
    loom::model(|| {
        let world = World::new(2, 0b01);
        let other = Arc::clone(&world);
        let own = |world: &World, after: After<'_>| {
            if let After::Recycle(_) = after {
                world.adopt(THERE);
            }
        };
        let thread = thread::spawn(move || own(&other, other.give(0b10, Keep::Recycle)));
        if let SlotTake::Taken(_, bit) = world.here.take_slot(HERE, false, || 0) {
            own(&world, world.give(bit, Keep::Recycle));
        }
        thread.join().unwrap();
        assert_eq!(
            world.slab.identity().key(),
            THERE,
            "one of the two claimed it"
        );
    });
}

/// A giver empties the slab and is late with its claim. Meanwhile another takes a slot, gives it back,
/// claims, and recycles the slab into another class list, where its slots are free again: the first must not take
/// it for its own there, but gives back what it got.
///
/// Mutation: `Slab::claim_in` does not compare identities.
#[test]
fn a_late_claim_does_not_own_the_next_life() {
    loom::model(|| {
        let world = World::new(2, 0b01);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            let SlotTake::Taken(_, bit) = other.here.take_slot(HERE, false, || 0) else {
                return;
            };
            let After::Recycle(Owned(slab)) = other.give_quietly(bit, Keep::Recycle) else {
                return;
            };
            other.adopt_quietly(THERE);
            let bit = other.there.publish(Owned(slab), &other.class);
            // SAFETY: the slot was just taken. It lingers: all slots are free, and the slab is listed.
            let _lingers = unsafe {
                other
                    .there
                    .give_back(slab, bit, &other.class, || 0, || true, || Keep::Recycle)
            };
        });
        match world.give_quietly(0b10, Keep::Recycle) {
            After::Recycle(Owned(slab)) => assert_eq!(slab.identity().key(), HERE),
            After::Strayed(slab, word) => {
                assert_eq!((slab.identity().key(), word), (THERE, 0b11));
                // SAFETY: the claim left this thread holding the word.
                let _lingers = unsafe {
                    world
                        .there
                        .give_back(slab, word, &world.class, || 0, || true, || Keep::Recycle)
                };
            }
            _ => {}
        }
        thread.join().unwrap();
        assert_eq!(World::listed(&world.here, &world.slab), (0, 0));
    });
}
/// Reclaim empties the cache while an allocation wants the slab in it: one of them gets it.
///
/// Mutation: `ClassList::uncache` leaves the slab in the cache (`first` instead of `pop`).
#[test]
fn reclaim_against_alloc_has_one_owner() {
    loom::model(|| {
        let world = World::new(2, 0);
        assert!(matches!(world.give(0b11, Keep::Cached), After::Cached));
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || match other.here.uncache() {
            // The reclaimer gives the run away: the next life writes the body.
            Some(_) => {
                other.adopt(THERE);
                1
            }
            None => 0,
        });
        let got = match world.here.take_slot(HERE, false, || 0) {
            SlotTake::Taken(..) | SlotTake::Strayed(..) => panic!("a cached slab has no free slot"),
            SlotTake::Empty => usize::from(world.here.take_slot_locked(&world.class).is_some()),
        };
        assert_eq!(got + thread.join().unwrap(), 1);
        world.check();
    });
}
