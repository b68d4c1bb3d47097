//! Loom models of the protocols in this layer's head. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p temporal-slab --lib --release`.
//!
//! Each model was seen to fail once with the mutation named above it, and passes without.

mod closing;
mod lives;

use super::{After, ClassList, Keep, Owned, SlotTake};
use crate::class::Class;
use crate::slab::{Body, Key, Slab};
use crate::sync::Cell;
use core::ptr;
use loom::sync::Arc;
use loom::thread;

type TestBin = ClassList<spin::Mutex<()>>;

const HERE: Key = Key::new(0, 1);
const THERE: Key = Key::new(7, 2);

/// A slab, the class list that it begins in, and one that it may be recycled into.
struct World {
    slab: Slab,
    here: TestBin,
    there: TestBin,
    class: Class,
    /// What stands for the objects in the slots. Only a slot's holder may touch its own, and loom
    /// fails the model if two holders do so without one being ordered before the other.
    objects: [Cell<u32>; 3],
}

// SAFETY: the slab and the class lists are made to be shared.
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
        self.adopt_quietly(key);
        self.touch(self.class.all);
    }

    /// As [`World::adopt`], where the objects stand for something else.
    fn adopt_quietly(&self, key: Key) {
        let body = Body {
            base: ptr::null_mut(),
            depot: ptr::null(),
            chunk: ptr::null_mut(),
            granules: u32::from(key.class()),
        };
        // SAFETY: the caller owns the slab.
        unsafe { self.slab.adopt(key, body) };
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

    /// Gives slots back to the class list that the slab begins in.
    fn give(&self, word: u64, keep: Keep) -> After<'_> {
        self.touch(word);
        self.give_quietly(word, keep)
    }

    /// As [`World::give`], where the objects stand for something else.
    fn give_quietly(&self, word: u64, keep: Keep) -> After<'_> {
        // SAFETY: in each model the calling thread holds `word`.
        let given = unsafe {
            self.here
                .give_back(&self.slab, word, &self.class, || 0, || false, || keep)
        };
        given.expect("no model frees twice")
    }

    /// Whether the slab is in a class list's lists: (partial, cached).
    fn listed(class_list: &TestBin, slab: &Slab) -> (usize, usize) {
        let mut found = (0, 0);
        class_list.lists.with(|lists| {
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

    /// At rest: a slab with free slots is listed once in the class list of its key, and nowhere else.
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
            "a class_list lists only slabs of its key"
        );
        assert!(
            key == THERE || there == (0, 0),
            "a class_list lists only slabs of its key"
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

/// Two gives that together empty the slab: exactly one claims it, and the other's last accesses happen before
/// that.
///
/// Mutation: `Slab::give` made `Relaxed` (the models of takes see it). Mutation: `Slab::end_life` does not move
/// the incarnation, and `ClassList::list` does not look at the word.
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
/// Mutation: `ClassList::list` does not look whether the slab is listed (with `Slab::give` made to answer
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

/// Two shared takes of a slab with two free slots get one each.
///
/// Mutation: `Slab::take_bit` loads and stores instead of one read-modify-write.
#[test]
fn shared_take_against_shared_take() {
    loom::model(|| {
        let world = World::new(3, 0b011);
        let take = |world: &World| match world.here.take_slot(HERE, false, || 0) {
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
