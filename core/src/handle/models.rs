//! Loom models of the protocols in the heads of `tag` and `tagged`.
//!
//! Each model was seen to fail once with the mutation named above it, and passes without.

use super::tag::{Finished, FreeWord};
use super::{Abandoned, Ended, HandleError, RawHandle, TaggedSlab, Unpinned};
use crate::slab::{Body, Claim, Given, Key};
use crate::sync::Cell;
use core::ptr;
use loom::sync::Arc;
use loom::thread;

const LAST: u32 = 0xff_ffff;
const CLASS: usize = 3;
const SIZE: usize = 64;

/// A slab of two slots with an object in the first, and what stands for the object's content.
struct World {
    tagged: TaggedSlab,
    value: Cell<u32>,
}

// SAFETY: the slab is made to be shared, and loom watches the value.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

/// The places where the slab lies in its lives. Never followed.
fn place(life: usize) -> *mut u8 {
    ptr::without_provenance_mut(0x10000 * life)
}

fn body(life: usize) -> Body {
    Body {
        base: place(life),
        depot: ptr::null(),
        chunk: ptr::null_mut(),
        granules: 1,
    }
}

impl World {
    /// The world and the handle of its object. The second slot, too, is held by the model.
    fn new() -> (Arc<Self>, RawHandle) {
        let world = Arc::new(Self {
            tagged: TaggedSlab::new(),
            value: Cell::new(1),
        });
        world.tagged.begin(5);
        let handle = world.begin_life(1);
        (world, handle)
    }

    /// What the owner of the slab does to use it, and an object in its first slot.
    fn begin_life(&self, life: usize) -> RawHandle {
        // SAFETY: the caller owns the slab.
        unsafe {
            self.tagged
                .slab()
                .adopt(Key::new(0, life as u8), body(life))
        };
        self.tagged.set_base(place(life));
        self.tagged.name(0, CLASS)
    }

    /// What a holder of a slot may do: loom checks that no owner writes the body meanwhile.
    fn look_as_holder(&self) {
        // SAFETY: the slot pins the slab.
        let _body = unsafe { self.tagged.slab().body() };
    }

    /// What the owner may do, if the caller is the one.
    fn use_if(&self, owns: bool) {
        if owns {
            // SAFETY: the caller owns the slab, if the model holds.
            unsafe { self.tagged.slab().adopt(Key::new(0, 2), body(2)) };
        }
    }

    fn end(&self, handle: RawHandle) -> Result<Ended, HandleError> {
        self.tagged.tag(0).end(handle, LAST)
    }

    /// Drops the value.
    fn drop_value(&self) {
        // SAFETY: loom checks that nobody reads it.
        unsafe {
            assert_eq!(self.value.get(), 1, "dropped once");
            self.value.set(0);
        }
    }

    /// Reads the value for as long as it is pinned; whether it was there. The last reader drops it.
    fn read(&self, handle: RawHandle) -> Option<Option<Finished>> {
        let tag = self.tagged.tag(0);
        tag.pin(handle).ok()?;
        // SAFETY: loom checks that nobody writes it.
        assert_eq!(unsafe { self.value.get() }, 1, "read after the drop");
        Some(match tag.unpin() {
            Unpinned::InUse => None,
            Unpinned::Last { forget } => {
                assert!(!forget);
                self.drop_value();
                Some(tag.finish(0, LAST))
            }
        })
    }
}

/// Of two frees of one handle one wins.
///
/// Mutation: `SlotTag::change` loads, compares and stores.
#[test]
fn free_against_free() {
    loom::model(|| {
        let (world, handle) = World::new();
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || other.tagged.tag(0).end_at_once(handle));
        let mine = world.end(handle).is_ok();
        assert!(mine ^ thread.join().unwrap());
    });
}

/// A get while the object is freed, and its slab used elsewhere: the answer is where the object was, or
/// none, never where the next one is.
///
/// Mutation: `TaggedSlab::find` looks once. Mutation: the second look's base loaded `Relaxed`.
#[test]
fn get_against_free_and_recycle() {
    loom::model(|| {
        let (world, handle) = World::new();
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            assert!(matches!(other.end(handle), Ok(Ended::Now(_))));
            let slab = other.tagged.slab();
            // SAFETY: the freed slot is held by this thread; a slab of one slot.
            let given = unsafe { slab.give(1, 1, || 0, |_| true) };
            assert_eq!(given, Ok(Given::Claimed));
            let next = other.begin_life(2);
            assert_ne!(next, handle);
            assert_eq!(
                other.tagged.find(next, SIZE).map(|p| p.as_ptr()),
                Some(place(2))
            );
        });
        let found = world.tagged.find(handle, SIZE);
        assert!(found.is_none_or(|at| at.as_ptr() == place(1)));
        thread.join().unwrap();
        assert_eq!(world.tagged.find(handle, SIZE), None);
    });
}

/// A look for an object that is being made, by a thread that knows what its handle will be: none, or where it is.
/// Nothing else orders the making before the look.
///
/// Mutation: `SlotTag::name` made `Relaxed`. Mutation: `is_named` looks `Relaxed`.
#[test]
fn get_against_make() {
    loom::model(|| {
        let (world, first) = World::new();
        let next = FreeWord::after(first).with_class(CLASS);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            // `end` would load first, and loom then takes the change for no rival of the look.
            assert!(other.tagged.tag(0).end_at_once(first));
            assert_eq!(other.begin_life(2), next);
        });
        let found = world.tagged.find(next, SIZE);
        assert!(found.is_none_or(|at| at.as_ptr() == place(2)));
        thread.join().unwrap();
    });
}

/// A value is read, and removed by another: it is dropped once, by one of the two, after the reading.
///
/// Mutation: `SlotTag::unpin` made `Relaxed`. Mutation: `SlotTag::pin` made `Relaxed`. Mutation:
/// `leave_if` answers that nobody reads.
#[test]
fn read_against_remove() {
    loom::model(|| {
        let (world, handle) = World::new();
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || other.read(handle).flatten().is_some());
        let alone = world.tagged.tag(0).leave(handle).unwrap();
        if alone {
            world.drop_value();
            let finished = world.tagged.tag(0).finish(0, LAST);
            assert!(!finished.is_orphaned);
        }
        let by_reader = thread.join().unwrap();
        assert!(alone ^ by_reader, "ended once");
        // SAFETY: the threads are done.
        assert_eq!(unsafe { world.value.get() }, 0);
        assert!(!world.tagged.tag(0).is_taken());
    });
}

/// Two readers and a remover: as above, with one last reader.
///
/// Mutation: `SlotTag::unpin` loads and stores.
#[test]
fn two_readers_against_remove() {
    loom::model(|| {
        let (world, handle) = World::new();
        let threads = [(); 2].map(|()| {
            let other = Arc::clone(&world);
            thread::spawn(move || usize::from(other.read(handle).flatten().is_some()))
        });
        let mut ends = 0;
        if world.tagged.tag(0).leave(handle).unwrap() {
            world.drop_value();
            let _finished = world.tagged.tag(0).finish(0, LAST);
            ends += 1;
        }
        let by_readers: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!(ends + by_readers, 1);
    });
}

/// A scope goes while a value of it is removed by another thread: the slot's bit is given back by one of
/// the two.
///
/// Mutation: `SlotTag::finish` stores. Mutation: `abandon` leaves a leaving word as it is. Mutation: it
/// looks at a free one `Relaxed`.
#[test]
fn a_scope_goes_against_remove() {
    loom::model(|| {
        let (world, handle) = World::new();
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || match other.tagged.tag(0).leave(handle) {
            Ok(alone) => {
                assert!(alone);
                other.drop_value();
                other.tagged.tag(0).finish(0, LAST).is_orphaned
            }
            Err(_) => false,
        });
        let abandoned = world.tagged.tag(0).abandon(0, LAST);
        let by_scope = matches!(abandoned, Abandoned::Free { .. });
        if by_scope {
            // The slot is the scope's: what was in it may be overwritten.
            // SAFETY: loom checks that nobody uses it.
            unsafe { world.value.set(2) };
        }
        assert!(by_scope ^ thread.join().unwrap(), "given back once");
        assert!(!world.tagged.tag(0).is_taken());
    });
}

/// A scope goes while a value of it is being read.
///
/// Mutation: `abandon` frees a word that has readers.
#[test]
fn a_scope_goes_against_read() {
    loom::model(|| {
        let (world, handle) = World::new();
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            let tag = other.tagged.tag(0);
            if tag.pin(handle).is_err() {
                return false;
            }
            // SAFETY: loom checks that nobody writes it.
            assert_eq!(unsafe { other.value.get() }, 1);
            match tag.unpin() {
                Unpinned::InUse => false,
                Unpinned::Last { forget } => {
                    assert!(forget, "a scope drops what it is asked to before");
                    tag.finish(0, LAST).is_orphaned
                }
            }
        });
        let abandoned = world.tagged.tag(0).abandon(0, LAST);
        let by_scope = matches!(abandoned, Abandoned::Free { .. });
        if by_scope {
            // The slot is the scope's: what was in it may be overwritten.
            // SAFETY: loom checks that nobody reads it.
            unsafe { world.value.set(2) };
        }
        assert!(by_scope ^ thread.join().unwrap(), "given back once");
    });
}

/// One slot retires while the other is given back: one of the two finds the slab empty and owns it, behind what the
/// other did as a holder.
///
/// Mutation: `free_settled` made a load. Mutation: `Slab::give` asks for `all` before it gives. Mutation:
/// `TaggedSlab::retired` looks `Relaxed`.
#[test]
fn retire_against_give() {
    loom::model(|| {
        let (world, _) = World::new();
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            other.look_as_holder();
            // SAFETY: the model says that this thread holds the slot.
            let given = unsafe {
                let tagged = &other.tagged;
                tagged
                    .slab()
                    .give(0b10, 0b11, || tagged.retired(), |_| true)
            };
            let owns = given == Ok(Given::Claimed);
            other.use_if(owns);
            owns
        });
        world.look_as_holder();
        let mine = world.tagged.retire(0b01, 0b11) == Claim::Won;
        world.use_if(mine);
        assert!(mine ^ thread.join().unwrap(), "one owner");
    });
}

/// Both slots retire: the last one to do so owns the slab, behind what the other did as a holder.
///
/// Mutation: `retire` loads and stores.
#[test]
fn retire_against_retire() {
    loom::model(|| {
        let (world, _) = World::new();
        let retire = |world: &World, bit| {
            world.look_as_holder();
            let owns = world.tagged.retire(bit, 0b11) == Claim::Won;
            world.use_if(owns);
            owns
        };
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || retire(&other, 0b10));
        let mine = retire(&world, 0b01);
        assert!(mine ^ thread.join().unwrap(), "one owner");
    });
}

/// One slot retires, another thread gives the other back, finds the slab empty, and uses it anew: with a
/// fresh id, and all but the first slot free, as a slab is opened. The retirer is late with its claim, and
/// finds just what it looks for. It must not take the slab for its own.
///
/// Mutation: `Slab::claim_in` does not compare identities.
#[test]
fn a_late_retirer_does_not_own_the_next_life() {
    loom::model(|| {
        let (world, _) = World::new();
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            let tagged = &other.tagged;
            // SAFETY: the model says that this thread holds the slot.
            let given = unsafe {
                tagged
                    .slab()
                    .give(0b10, 0b11, || tagged.retired(), |_| true)
            };
            if given != Ok(Given::Claimed) {
                return false;
            }
            // As a class list ends the life, and the next one begins.
            // SAFETY: the claim made this thread the owner.
            unsafe {
                let _reusable = tagged.slab().end_life();
                tagged.begin(6);
                let _live = other.begin_life(2);
                tagged.slab().publish(0b10);
            }
            true
        });
        match world.tagged.retire(0b01, 0b11) {
            Claim::Won => assert!(!thread.join().unwrap(), "one owner"),
            Claim::Lost => assert!(thread.join().unwrap(), "one owner"),
            Claim::Strayed(word) => {
                assert_eq!(word, 0b10);
                assert!(thread.join().unwrap());
            }
        }
    });
}
