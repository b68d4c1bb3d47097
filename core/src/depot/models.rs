//! Loom models of the protocols in this layer's head. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p temporal-slab --lib --release`.
//!
//! Each model was seen to fail once with the mutation named above it, and passes without.

use super::{After, Bin, Keep, Owned, SlotTake};
use crate::class::Class;
use crate::epoch::{Serves, Tag};
use crate::slab::{Body, Key, Slab};
use crate::sync::Cell;
use core::ptr;
use loom::sync::Arc;
use loom::thread;

type TestBin = Bin<spin::Mutex<()>>;

const HERE: Key = Key::new(0, 1);
const THERE: Key = Key::new(7, 2);

/// A slab, the bin that it begins in, and one that it may be recycled into.
struct World {
    slab: Slab,
    here: TestBin,
    there: TestBin,
    class: Class,
    /// What stands for the objects in the slots. Only a slot's holder may touch its own, and loom
    /// fails the model if two holders do so without one being ordered before the other.
    objects: [Cell<u32>; 3],
}

// SAFETY: the slab and the bins are made to be shared.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

impl World {
    /// The slab is of `HERE` with `slots` slots; `free` of them are free and the slab is listed, the
    /// others are held by whoever the model says.
    fn new(slots: u8, free: u64) -> Arc<Self> {
        let world = Arc::new(Self {
            slab: Slab::new(),
            here: TestBin::new(),
            there: TestBin::new(),
            class: Class::toy(slots),
            objects: core::array::from_fn(|_| Cell::new(0)),
        });
        world.adopt(HERE);
        if free != 0 {
            // SAFETY: one thread so far; `publish` leaves slot 0 with us.
            unsafe {
                let bit = world.here.publish(Owned(&world.slab), &world.class);
                assert_eq!(bit, 1);
                let held = world.class.all & !free;
                let taken = world.slab.take_all() | bit;
                assert_eq!(taken, world.class.all);
                if held != taken {
                    world.slab.publish(free);
                }
            }
        }
        world
    }

    /// Gives the owned slab a purpose.
    fn adopt(&self, key: Key) {
        let body = Body {
            base: ptr::null_mut(),
            row: ptr::null(),
            chunk: ptr::null_mut(),
            granules: u32::from(key.class()),
        };
        // SAFETY: the caller owns the slab.
        unsafe { self.slab.adopt(key, body) };
        self.touch(self.class.all);
    }

    /// Writes to the objects in these slots, as their holder may.
    fn touch(&self, word: u64) {
        for (slot, object) in self.objects.iter().enumerate() {
            if word >> slot & 1 == 1 {
                // SAFETY: loom checks what a holder relies on.
                unsafe { object.set(object.get() + 1) };
            }
        }
    }

    /// As [`World::adopt`], where the objects stand for something else.
    fn adopt_quietly(&self, key: Key) {
        let body = Body {
            base: ptr::null_mut(),
            row: ptr::null(),
            chunk: ptr::null_mut(),
            granules: 1,
        };
        // SAFETY: the caller owns the slab.
        unsafe { self.slab.adopt(key, body) };
    }

    /// As [`World::give`], where the objects stand for something else. Nothing is kept.
    fn give_quietly(&self, word: u64) -> After<'_> {
        // SAFETY: in each model the calling thread holds `word`.
        let given = unsafe {
            self.here.give_back(
                &self.slab,
                word,
                &self.class,
                || 0,
                || false,
                || Keep::Recycle,
            )
        };
        given.expect("no model frees twice")
    }

    /// Gives slots back to the bin that the slab begins in.
    fn give(&self, word: u64, keep: Keep) -> After<'_> {
        self.touch(word);
        // SAFETY: in each model the calling thread holds `word`.
        let given = unsafe {
            self.here
                .give_back(&self.slab, word, &self.class, || 0, || false, || keep)
        };
        given.expect("no model frees twice")
    }

    /// Whether the slab is in a bin's lists: (partial, cached).
    fn listed(bin: &TestBin, slab: &Slab) -> (usize, usize) {
        let mut found = (0, 0);
        bin.lists.with(|lists| {
            for (list, count) in [
                (&lists.partial, &mut found.0),
                (&lists.cached, &mut found.1),
            ] {
                let mut at = list.first();
                // SAFETY: the models are over; nobody else is about.
                while let Some(member) = unsafe { at.as_ref() } {
                    *count += usize::from(ptr::eq(member, slab));
                    assert!(*count < 10, "a list without end");
                    // SAFETY: as above.
                    at = unsafe { member.link() }.next;
                }
            }
        });
        found
    }

    /// At rest: a slab with free slots is listed once in the bin of its key, and nowhere else.
    fn check(&self) {
        let (here, there) = (
            Self::listed(&self.here, &self.slab),
            Self::listed(&self.there, &self.slab),
        );
        let key = self.slab.identity().key();
        assert!(
            here.0 + here.1 + there.0 + there.1 <= 1,
            "in one list at most"
        );
        assert!(
            key == HERE || here == (0, 0),
            "a bin lists only slabs of its key"
        );
        assert!(
            key == THERE || there == (0, 0),
            "a bin lists only slabs of its key"
        );
        let listed = if key == HERE { here.0 } else { there.0 };
        assert!(
            self.slab.free() == 0 || listed == 1,
            "a slab with free slots is stranded"
        );
        assert_ne!(
            self.slab.free(),
            self.class.all,
            "an empty slab is left unclaimed"
        );
    }
}

/// Two gives that together empty the slab: exactly one claims it, and it is behind the other's last
/// accesses.
///
/// Mutation: `Slab::give` made `Relaxed` (the models of takes see it). Mutation: `Slab::end_life` does not move
/// the incarnation, and `Bin::list` does not look at the word.
#[test]
fn give_back_against_give_back_empties_once() {
    loom::model(|| {
        let world = World::new(2, 0);
        let other = Arc::clone(&world);
        let claims = |world: &World, word| {
            usize::from(matches!(world.give(word, Keep::Recycle), After::Recycle(_)))
        };
        let thread = thread::spawn(move || claims(&other, 0b10));
        let mine = claims(&world, 0b01);
        assert_eq!(mine + thread.join().unwrap(), 1);
        world.check();
        assert_eq!(world.slab.free(), 0);
        assert_eq!(World::listed(&world.here, &world.slab), (0, 0));
    });
}

/// Two gives to a full slab that stays in use: it is listed, once.
///
/// Mutation: `Bin::list` does not look whether the slab is listed (with `Slab::give` made to answer
/// `WasFull` to both). Mutation: `Slab::give` answers `More` to a give that found the word 0.
#[test]
fn give_back_against_give_back_lists_once() {
    loom::model(|| {
        let world = World::new(3, 0);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            let _in_use = other.give(0b010, Keep::Recycle);
        });
        let _in_use = world.give(0b001, Keep::Recycle);
        thread.join().unwrap();
        world.check();
        assert_eq!(world.slab.free(), 0b011);
    });
}

/// A take and a give meet: what is given is taken or listed, never stranded.
///
/// Mutation: `Slab::give` answers `More` to a give that found the word 0. Mutation: `take_all` made
/// `Relaxed`. (Taking the word before the slab is unlisted is no breach: both are under the lock, and
/// a giver that found 0 lists the slab when it gets the lock.)
#[test]
fn give_back_against_take_strands_nothing() {
    loom::model(|| {
        let world = World::new(3, 0b001);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            let mut taken = 0;
            other.here.take(&other.class, 2, |_, word| taken |= word);
            other.touch(taken);
            taken
        });
        let _in_use = world.give(0b010, Keep::Recycle);
        let taken = thread.join().unwrap();
        world.check();
        assert_eq!(taken | world.slab.free(), 0b011);
        assert_eq!(taken & world.slab.free(), 0);
    });
}

/// A giver that is about to list the slab, while another empties it, recycles it into another bin and
/// uses it there: the first leaves it alone.
///
/// Mutation: `Bin::list` does not compare identities.
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
/// Mutation: `Bin::take_slot` answers `Taken` without comparing keys. Mutation: `Slab::claim` loads,
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
        match world.here.take_slot(HERE, || 0) {
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
                // SAFETY: the bit is held here, and the slab is of the other bin.
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

/// Two shared takes of a slab with two free slots get one each.
///
/// Mutation: `Slab::take_bit` loads and stores instead of one read-modify-write.
#[test]
fn shared_take_against_shared_take() {
    loom::model(|| {
        let world = World::new(3, 0b011);
        let take = |world: &World| match world.here.take_slot(HERE, || 0) {
            SlotTake::Taken(_, bit) => {
                world.touch(bit);
                bit
            }
            other => panic!("{other:?} although two slots are free"),
        };
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || take(&other));
        let mine = take(&world);
        assert_eq!(mine ^ thread.join().unwrap(), 0b011);
        world.check();
    });
}

/// Reclaim empties the cache while an allocation wants the slab in it: one of them gets it.
///
/// Mutation: `Bin::uncache` leaves the slab in the cache (`first` instead of `pop`).
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
        let got = match world.here.take_slot(HERE, || 0) {
            SlotTake::Taken(..) | SlotTake::Strayed(..) => panic!("a cached slab has no free slot"),
            SlotTake::Empty => usize::from(world.here.take_slot_locked(&world.class).is_some()),
        };
        assert_eq!(got + thread.join().unwrap(), 1);
        world.check();
    });
}

/// A slab is emptied, cached and taken out whole, while an earlier giver is still on its way to list
/// it: it must not be listed, for a local holds all of it.
///
/// Mutation: `Slab::end_life` does not move the incarnation, and `Bin::list` does not look at the
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

/// A slab is left whole where the shared path looks first, while a sweep and a take come by: it is
/// taken or swept, never both, and a sweep afterwards finds it if neither got it.
///
/// Mutation: `Bin::sweep` does not claim. Mutation: `Slab::claim` loads, compares and stores.
#[test]
fn sweep_against_take_and_lingering_give() {
    loom::model(|| {
        let world = World::new(2, 0b01);
        let sweep = |world: &World| match world.here.sweep(&world.class) {
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
        let taken = match world.here.take_slot(HERE, || 0) {
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

/// A giver that found the slab full is on its way to list it, another lets it linger, and the bin is
/// closed and swept before the first arrives: the first ends the slab's life. Step by step, because
/// loom takes `SeqCst` accesses for weaker ones.
///
/// Mutation: `Lists::follow` only lists.
#[test]
fn a_late_listing_in_a_closed_bin_strands_nothing() {
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
            world.here.sweep(&world.class).is_none(),
            "it is not listed yet"
        );
        let after = world
            .here
            .follow(&world.slab, given, &world.class, || Keep::Cached);
        assert!(
            matches!(after, After::Recycle(_)),
            "a whole slab is stranded in a closed bin"
        );
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
        if let SlotTake::Taken(_, bit) = world.here.take_slot(HERE, || 0) {
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

/// An allocation that names an epoch, while the epoch is closed, drained and its row serves the next:
/// the allocation is refused, or its object lies in a slab of the epoch that it named.
///
/// Mutation: the allocation looks at what the row serves before it has its slot. Mutation:
/// `Slab::take_bit` made `Relaxed`. Mutation: `Bin::sweep` does not claim.
#[test]
fn alloc_against_close() {
    loom::model(|| {
        let world = World::new(2, 0b11);
        let (old, next) = (Tag::open(era(2)), Tag::open(era(3)));
        let row = Arc::new(Serves::nothing());
        row.set(old);
        // Slot 2 stands for what is written where the slab begins to serve an era.
        // SAFETY: one thread so far.
        unsafe { world.objects[2].set(2) };
        let (other, their_row) = (Arc::clone(&world), Arc::clone(&row));
        let thread = thread::spawn(move || {
            // As `Heap::shut_row` and `reclaim_closed`.
            their_row.set(old.closed());
            other.here.set_closed(true);
            let Some(After::Recycle(Owned(slab))) = other.here.sweep(&other.class) else {
                return;
            };
            // Drained: the row serves the next era, which the slab is made for anew.
            other.here.set_closed(false);
            their_row.set(next);
            // SAFETY: the sweep left this thread the owner.
            unsafe { other.objects[2].set(3) };
            other.adopt_quietly(HERE);
            let bit = other.here.publish(Owned(slab), &other.class);
            let _after = other.give_quietly(bit);
        });
        // As `Heap::alloc_slot`.
        if let SlotTake::Taken(_, bit) = world.here.take_slot(HERE, || 0) {
            if row.get() == old {
                // SAFETY: the slot is held, so nobody writes this meanwhile; loom checks it.
                assert_eq!(
                    unsafe { world.objects[2].get() },
                    2,
                    "an object of the next era"
                );
            } else {
                let _after = world.give_quietly(bit);
            }
        }
        thread.join().unwrap();
    });
}

/// The last slot of a closed epoch's slab is freed while the close sweeps: one of the two gets the slab,
/// and it is not left behind in a list.
///
/// Mutation: `Lists::end_life` caches in a closed bin. Mutation: `set_closed` does nothing.
#[test]
fn free_against_close() {
    loom::model(|| {
        let world = World::new(2, 0b01);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            other.here.set_closed(true);
            let swept = matches!(other.here.sweep(&other.class), Some(After::Recycle(_)));
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

fn era(number: u64) -> core::num::NonZeroU64 {
    core::num::NonZeroU64::new(number).expect("not zero")
}

/// A giver empties the slab and is late with its claim. Meanwhile another takes a slot, gives it back,
/// claims, and recycles the slab into another bin, where its slots are free again: the first must not take
/// it for its own there, but gives back what it got.
///
/// Mutation: `Slab::claim_in` does not compare identities.
#[test]
fn a_late_claim_does_not_own_the_next_life() {
    loom::model(|| {
        let world = World::new(2, 0b01);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            let SlotTake::Taken(_, bit) = other.here.take_slot(HERE, || 0) else {
                return;
            };
            let After::Recycle(Owned(slab)) = other.give_quietly(bit) else {
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
        match world.give_quietly(0b10) {
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
