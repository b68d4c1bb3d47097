//! A tag's changes one by one, from each state: what they leave behind, and what they say.

use super::bits::{Class, Generation, Id, Slot, Version};
use super::tag::{Abandoned, Ended, Finished, SlotTag, Unpinned};
use super::{HandleError, RawHandle};

const ID: u32 = 7;
const SLOT: usize = 5;
/// With none of the bits that stand in its place in a word that is not live.
const CLASS: usize = 4;
/// A last generation that is far away.
const LAST: u32 = 1000;

const OVER: Finished = Finished {
    is_exhausted: false,
    is_orphaned: false,
};

fn handle(id: u32, generation: u32, slot: usize, class: usize) -> RawHandle {
    let bits = Id::put(u64::from(id))
        | Generation::put(u64::from(generation))
        | Slot::put(slot as u64)
        | Class::put(class as u64)
        | Version::V1;
    RawHandle::from_bits(bits)
}

/// The tag of a slot with an object, and its handle.
fn live() -> (SlotTag, RawHandle) {
    let tag = SlotTag::new();
    tag.begin(ID, SLOT);
    let handle = tag.free_word().with_class(CLASS);
    tag.name(handle);
    (tag, handle)
}

/// The slot is free, and its next handle is of this generation.
fn is_free(tag: &SlotTag, generation: u32) {
    assert_eq!(
        tag.free_word().with_class(CLASS),
        handle(ID, generation, SLOT, CLASS)
    );
}

#[test]
fn an_object_is_named_by_its_handle_alone() {
    let (tag, own) = live();
    assert_eq!(own, handle(ID, 0, SLOT, CLASS));
    for other in [
        handle(ID + 1, 0, SLOT, CLASS),
        handle(ID, 1, SLOT, CLASS),
        handle(ID, 0, SLOT, CLASS + 1),
    ] {
        assert!(
            !tag.is_named(other) && !tag.is_still_named(other),
            "{other:?}"
        );
        assert!(!tag.end_at_once(other), "{other:?}");
        assert!(tag.end(other, LAST).is_err() && tag.pin(other).is_err());
        assert!(tag.leave(other).is_err() && tag.leave_unread(other).is_err());
    }
    assert!(tag.is_named(own) && tag.is_still_named(own));
}

#[test]
fn an_end_makes_the_next_generation() {
    let (tag, own) = live();
    assert!(tag.end_at_once(own));
    is_free(&tag, 1);
    assert!(!tag.end_at_once(own) && !tag.is_named(own) && !tag.is_still_named(own));

    let (tag, own) = live();
    assert_eq!(tag.end(own, LAST), Ok(Ended::Now(OVER)));
    is_free(&tag, 1);
    assert_eq!(tag.end(own, LAST), Err(HandleError::Stale));

    let (tag, own) = live();
    assert_eq!(tag.leave(own), Ok(true));
    assert!(!tag.is_named(own));
    assert_eq!(tag.finish(SLOT, LAST), OVER);
    is_free(&tag, 1);
}

#[test]
fn the_last_reader_ends_what_was_freed() {
    let (tag, own) = live();
    tag.pin(own).unwrap();
    tag.pin(own).unwrap();
    assert!(!tag.end_at_once(own), "it is read");
    assert_eq!(tag.leave_unread(own), Err(HandleError::InUse));
    assert_eq!(tag.unpin(), Unpinned::InUse);
    assert_eq!(tag.end(own, LAST), Ok(Ended::Later));
    assert_eq!(tag.pin(own), Err(HandleError::Stale), "nobody new gets in");
    assert_eq!(tag.unpin(), Unpinned::Last { forget: true });
    assert_eq!(tag.finish(SLOT, LAST), OVER);
    is_free(&tag, 1);

    let (tag, own) = live();
    tag.pin(own).unwrap();
    assert_eq!(tag.leave(own), Ok(false));
    assert_eq!(tag.unpin(), Unpinned::Last { forget: false });
    tag.finish(SLOT, LAST);

    let (tag, own) = live();
    tag.pin(own).unwrap();
    assert_eq!(tag.unpin(), Unpinned::InUse, "it lives");
    assert_eq!(tag.leave_unread(own), Ok(()));
}

#[test]
fn readers_are_counted_as_far_as_there_is_room() {
    let (tag, own) = live();
    for _ in 0..Slot::MAX {
        tag.pin(own).unwrap();
    }
    assert_eq!(tag.pin(own), Err(HandleError::InUse));
    assert_eq!(tag.unpin(), Unpinned::InUse);
    tag.pin(own).unwrap();
}

/// Catches a reason that is another's. A handle that nobody was given is foreign, and one whose object ended is stale.
#[test]
fn what_is_refused_has_its_reason() {
    let (tag, own) = live();
    assert!(tag.end_at_once(own));
    let next = handle(ID, 1, SLOT, CLASS);
    assert_eq!(tag.why_not(own), HandleError::Stale);
    assert_eq!(tag.why_not(next), HandleError::Foreign, "it comes next");
    tag.name(next);
    assert_eq!(tag.why_not(own), HandleError::Stale);
    let later = handle(ID, 2, SLOT, CLASS);
    assert_eq!(tag.why_not(later), HandleError::Foreign);
    let class = handle(ID, 1, SLOT, CLASS + 1);
    assert_eq!(tag.why_not(class), HandleError::WrongClass);
    for other in [ID - 1, ID + 1] {
        // Of a generation that this one has, or has not yet: the slab had another id.
        for generation in [0, 1, 2] {
            let other = handle(other, generation, SLOT, CLASS);
            assert_eq!(tag.why_not(other), HandleError::Stale, "{other:?}");
        }
    }
    assert_eq!(tag.why_not(next), HandleError::Foreign, "made meanwhile");
    tag.leave(next).unwrap();
    assert_eq!(tag.why_not(next), HandleError::Stale);
    assert_eq!(
        tag.why_not(class),
        HandleError::Stale,
        "it has no class now"
    );
}

#[test]
fn the_last_generation_is_the_last() {
    let exhausted = Finished {
        is_exhausted: true,
        ..OVER
    };
    let (tag, own) = live();
    assert_eq!(tag.end(own, 1), Ok(Ended::Now(OVER)));
    let last = tag.free_word().with_class(CLASS);
    tag.name(last);
    assert_eq!(tag.end(last, 1), Ok(Ended::Now(exhausted)));
    assert_eq!(tag.why_not(last), HandleError::Stale, "and not to come");
    assert_eq!(tag.abandon(SLOT, 1), Abandoned::Free { is_exhausted: true });

    let (tag, own) = live();
    tag.leave(own).unwrap();
    assert_eq!(tag.finish(SLOT, 0), exhausted);
    let (tag, _) = live();
    assert_eq!(tag.abandon(SLOT, 0), Abandoned::Free { is_exhausted: true });
}

#[test]
fn a_scope_that_goes_leaves_what_is_read() {
    const FREE: Abandoned = Abandoned::Free {
        is_exhausted: false,
    };
    let orphaned = Finished {
        is_orphaned: true,
        ..OVER
    };
    let (tag, own) = live();
    assert_eq!(tag.abandon(SLOT, LAST), FREE);
    assert!(!tag.is_named(own));
    is_free(&tag, 1);
    assert_eq!(tag.abandon(SLOT, LAST), FREE, "as it was");
    is_free(&tag, 1);

    let (tag, own) = live();
    tag.pin(own).unwrap();
    assert_eq!(tag.abandon(SLOT, LAST), Abandoned::Kept);
    assert_eq!(tag.pin(own), Err(HandleError::Stale));
    assert_eq!(tag.unpin(), Unpinned::Last { forget: true });
    assert_eq!(tag.finish(SLOT, LAST), orphaned);
    is_free(&tag, 1);

    // Freed before, and read still; and being dropped by whoever freed it.
    let (tag, own) = live();
    tag.pin(own).unwrap();
    assert_eq!(tag.leave(own), Ok(false));
    assert_eq!(tag.abandon(SLOT, LAST), Abandoned::Kept);
    assert_eq!(tag.unpin(), Unpinned::Last { forget: false });
    assert_eq!(tag.finish(SLOT, LAST), orphaned);
    let (tag, own) = live();
    assert_eq!(tag.leave(own), Ok(true));
    assert_eq!(tag.abandon(SLOT, LAST), Abandoned::Kept);
    assert_eq!(tag.finish(SLOT, LAST), orphaned);
    is_free(&tag, 1);
}
