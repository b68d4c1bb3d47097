//! Models of the page map's table and entries: look-ups against chunks that come and go. Run with `RUSTFLAGS="--cfg loom"`.

extern crate std;

use super::entry::{Entry, EntryWord};
use super::table::{Numbered, Table};
use crate::slab::{Body, Key, Slab};
use crate::sync::Lock;
use core::ptr;
use loom::sync::Arc;
use loom::thread;
use std::alloc::alloc;
use std::boxed::Box;

/// A chunk with one granule. Nothing of a model's memory goes back while it runs.
#[repr(C)]
struct Chunk {
    numbered: Numbered,
    entry: EntryWord,
}

impl Chunk {
    fn new() -> *mut Self {
        Box::into_raw(Box::new(Self {
            numbered: Numbered::new(),
            entry: EntryWord::new(),
        }))
    }
}

/// A page map of such chunks, and the lock that changes are made under.
struct Map {
    table: Table,
    lock: Lock<(), ()>,
}

impl Map {
    /// With room for eight chunks.
    fn new() -> Arc<Self> {
        let map = Arc::new(Self {
            table: Table::new(),
            lock: Lock::new(()),
        });
        map.grow();
        map
    }

    /// Takes a chunk in that nobody has.
    fn insert(&self, chunk: *mut Chunk, number: usize) {
        // SAFETY: the chunk stays.
        self.lock
            .with(|()| unsafe { self.table.insert(chunk.cast(), number) });
    }

    /// Lets one go, of which no granule is in use.
    fn remove(&self, chunk: *mut Chunk) {
        // SAFETY: the models let go what is in.
        self.lock
            .with(|()| unsafe { self.table.remove(chunk.cast()) });
    }

    fn grow(&self) {
        // SAFETY: the layout has a size, and the memory is of it.
        self.lock
            .with(|()| unsafe { self.table.grow(alloc(self.table.next_layout())) });
    }

    /// The chunk that has a number.
    fn find(&self, number: usize) -> Option<*const Chunk> {
        let found = self.table.at_once(number);
        found
            .or_else(|| self.table.search(number))
            .map(|numbered| numbered.cast())
    }

    /// Where the slab lies that a chunk's granule is of. loom fails the model if that is being written.
    fn base(&self, number: usize) -> Option<usize> {
        // SAFETY: chunks and slabs stay.
        unsafe {
            let entry = (*self.find(number)?).entry.get();
            Some(entry.slab::<'static>()?.body().base.addr())
        }
    }
}

/// What is done when a chunk's granule is handed out for a slab. Both are the caller's.
fn hand_out(chunk: *mut Chunk, slab: &'static Slab, base: usize) {
    let body = Body {
        base: ptr::without_provenance_mut(base),
        depot: ptr::null(),
        chunk: chunk.cast(),
        granules: 1,
    };
    // SAFETY: the caller owns the slab and has the granule.
    unsafe {
        slab.adopt(Key::new(0, 1), body);
        (*chunk).entry.set(Entry::of_slab(slab, 1, true));
    }
}

fn slab() -> &'static Slab {
    let slab = Box::into_raw(Box::new(Slab::new()));
    let _exposed = slab.expose_provenance();
    // SAFETY: it is never given back.
    unsafe { &*slab }
}

/// A chunk is taken in, a slab laid in it and, in a longer table, taken over, while somebody asks for its address: what is
/// found is whole. Catches a place, a table or an entry with an ordering so weak that it leads to what is not there yet.
#[test]
fn what_is_found_is_whole() {
    loom::model(|| {
        let map = Map::new();
        let asking = {
            let map = Arc::clone(&map);
            thread::spawn(move || map.base(5))
        };
        let chunk = Chunk::new();
        map.insert(chunk, 5);
        hand_out(chunk, slab(), 0x5000);
        map.grow();
        assert!(matches!(asking.join().unwrap(), None | Some(0x5000)));
        assert_eq!(map.base(5), Some(0x5000));
    });
}

/// The free of a live object looks for its chunk while the chunk that has its home place goes, another comes, and the table
/// grows: it finds it. Catches a place that is unused again in front of something, what a longer table lost, and a chunk
/// that is found when it is gone.
#[test]
fn a_chunk_that_is_held_is_found() {
    loom::model(|| {
        let map = Map::new();
        let (before, held, after) = (Chunk::new(), Chunk::new(), Chunk::new());
        map.insert(before, 1);
        map.insert(held, 17);
        hand_out(held, slab(), 0x17000);
        let freeing = {
            let map = Arc::clone(&map);
            thread::spawn(move || map.base(17))
        };
        map.remove(before);
        assert_eq!(map.find(1), None);
        map.insert(after, 33);
        map.grow();
        assert_eq!(freeing.join().unwrap(), Some(0x17000));
        assert_eq!(map.base(17), Some(0x17000));
        assert_eq!(map.find(1), None);
        assert_eq!(map.find(33), Some(after.cast_const()));
    });
}

/// Two chunks come at a time, in places of which one is the other's home. Catches changes that the lock does not order.
#[test]
fn chunks_come_at_a_time() {
    loom::model(|| {
        let map = Map::new();
        let (one, other) = (Chunk::new(), Chunk::new());
        let coming = {
            let (map, other) = (Arc::clone(&map), other.expose_provenance());
            thread::spawn(move || {
                map.insert(ptr::with_exposed_provenance_mut(other), 17);
                map.find(17).map(|chunk| chunk.addr()) == Some(other)
            })
        };
        map.insert(one, 1);
        assert_eq!(map.find(1), Some(one.cast_const()));
        assert!(coming.join().unwrap());
        map.remove(one);
        assert_eq!(map.find(17), Some(other.cast_const()));
    });
}

/// A chunk goes, and its description is another's, in which a slab is laid, while somebody asks for the first one's address:
/// there is nothing, or what has been there or, if it read the old number, what is there now, and that is whole. Catches an
/// entry that leads, under a number that is out of date, to a slab that is not written yet.
#[test]
fn a_chunk_that_went_is_nothing_or_out_of_date() {
    loom::model(|| {
        let map = Map::new();
        let chunk = Chunk::new();
        let (old, new) = (slab(), slab());
        map.insert(chunk, 1);
        hand_out(chunk, old, 0x1000);
        let asking = {
            let map = Arc::clone(&map);
            thread::spawn(move || map.base(1))
        };
        // SAFETY: the granule comes back, and the chunk is let go with none in use.
        unsafe { (*chunk).entry.set(Entry::NONE) };
        map.remove(chunk);
        map.insert(chunk, 2);
        hand_out(chunk, new, 0x2000);
        let found = asking.join().unwrap();
        assert!(matches!(found, None | Some(0x1000 | 0x2000)), "{found:?}");
        assert_eq!(map.base(1), None);
        assert_eq!(map.base(2), Some(0x2000));
    });
}
