//! Models of the page map: look-ups against chunks that come and go. Run with `RUSTFLAGS="--cfg loom"`.

extern crate std;

use super::entry::{Entry, EntryWord};
use super::table::{Numbered, Places, Table, VACANT};
use crate::slab::{Body, Key, Slab};
use crate::sync::{AtomicUsize, Lock, Ordering};
use core::ptr;
use loom::sync::Arc;
use loom::thread;
use std::alloc::alloc;
use std::boxed::Box;

/// A chunk with one granule.
struct Chunk {
    number: AtomicUsize,
    place: usize,
    entry: EntryWord,
}

impl Chunk {
    fn new() -> *mut Self {
        Box::into_raw(Box::new(Self {
            number: AtomicUsize::new(VACANT),
            place: 0,
            entry: EntryWord::new(),
        }))
    }
}

loom::lazy_static! {
    static ref NOWHERE: usize = Chunk::new().expose_provenance();
}

// SAFETY: nothing of a model's memory goes back while it runs.
unsafe impl Numbered for Chunk {
    fn nowhere() -> *mut Self {
        ptr::with_exposed_provenance_mut(*NOWHERE)
    }

    unsafe fn number<'n>(this: *const Self) -> &'n AtomicUsize {
        // SAFETY: the caller's promise.
        unsafe { &(*this).number }
    }

    unsafe fn place(this: *mut Self) -> *mut usize {
        // SAFETY: the caller's promise.
        unsafe { &raw mut (*this).place }
    }
}

/// A page map of such chunks, and the lock that changes are made under.
struct Map {
    table: Table<Chunk>,
    lock: Lock<(), ()>,
}

// SAFETY: what lies behind the table's pointers is atomic, or guarded by the lock.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

/// Memory for so many places.
fn memory(places: usize) -> *mut u8 {
    // SAFETY: the layout has a size.
    unsafe { alloc(Places::<Chunk>::layout(places)) }
}

impl Map {
    /// With so many places, all unused.
    fn new(places: usize) -> Arc<Self> {
        // SAFETY: the memory is of that layout.
        let places = unsafe { Places::init(memory(places), places) };
        Arc::new(Self {
            table: Table::new(places),
            lock: Lock::new(()),
        })
    }

    /// Takes a chunk in that nobody has.
    fn insert(&self, chunk: *mut Chunk, number: usize) {
        // SAFETY: the models do what the functions ask.
        self.lock.with(|()| unsafe {
            Chunk::number(chunk).store(number, Ordering::Relaxed);
            self.table.insert(chunk);
        });
    }

    /// Lets one go, of which no granule is in use.
    fn remove(&self, chunk: *mut Chunk) {
        // SAFETY: as above.
        self.lock.with(|()| unsafe { self.table.remove(chunk) });
    }

    fn grow(&self) {
        // The least that there is.
        let memory = memory(16);
        // SAFETY: as above.
        self.lock.with(|()| unsafe { self.table.grow(memory) });
    }

    fn entry(&self, number: usize) -> Entry {
        // SAFETY: chunks stay.
        let entry = |chunk: *const Chunk| unsafe { (*chunk).entry.get() };
        self.table
            // SAFETY: the places are this table's.
            .at_once_or(number, entry, |places| unsafe {
                Table::search(places, number).map_or(Entry::NONE, entry)
            })
    }
}

/// What a chunk's granule says when it is handed out for a slab. The slab and the chunk are the caller's.
fn hand_out(chunk: *mut Chunk, slab: &'static Slab, base: usize) {
    let body = Body {
        base: ptr::without_provenance_mut(base),
        row: ptr::null(),
        chunk: chunk.cast(),
        granules: 1,
    };
    // SAFETY: the caller owns the slab and has the granule.
    unsafe {
        slab.adopt(Key::new(0, 1), body);
        (*chunk).entry.set(Entry::new(slab, 1, true));
    }
}

fn slab() -> &'static Slab {
    Box::leak(Box::new(Slab::new()))
}

/// Where the slab of an entry lies. loom fails the model if that is being written.
fn base_of(entry: Entry) -> Option<usize> {
    // SAFETY: the models' slabs stay.
    let slab = unsafe { entry.slab::<'static>() }?;
    // SAFETY: nobody begins another life of it in the model.
    Some(unsafe { slab.body() }.base.addr())
}

/// A chunk is taken in, a slab laid in it and, in a longer table, taken over, while somebody asks for its address: what is
/// found is whole. Catches a place, a table or an entry that leads to what is not there yet.
#[test]
fn what_is_found_is_whole() {
    loom::model(|| {
        let map = Map::new(2);
        let asking = {
            let map = Arc::clone(&map);
            thread::spawn(move || base_of(map.entry(5)))
        };
        let chunk = Chunk::new();
        map.insert(chunk, 5);
        hand_out(chunk, slab(), 0x5000);
        map.grow();
        assert!(matches!(asking.join().unwrap(), None | Some(0x5000)));
        assert_eq!(base_of(map.entry(5)), Some(0x5000));
    });
}

/// The free of a live object looks for its chunk while the chunk that is in its place goes, another comes, and the table
/// grows: it finds it. Catches a place that is unused again in front of something, and what a longer table has not.
#[test]
fn a_chunk_that_is_held_is_found() {
    loom::model(|| {
        let map = Map::new(8);
        let (before, held, after) = (Chunk::new(), Chunk::new(), Chunk::new());
        map.insert(before, 1);
        map.insert(held, 9);
        hand_out(held, slab(), 0x9000);
        let freeing = {
            let map = Arc::clone(&map);
            thread::spawn(move || base_of(map.entry(9)))
        };
        map.remove(before);
        map.insert(after, 17);
        map.grow();
        assert_eq!(freeing.join().unwrap(), Some(0x9000));
        assert_eq!(base_of(map.entry(9)), Some(0x9000));
        assert_eq!(base_of(map.entry(1)), None);
    });
}

/// A chunk goes, and its description is another's, in which a slab is laid, while somebody asks for the first one's address:
/// there is nothing, or what has been there, or, told too late, what is there now, and that is whole. Catches a description
/// that is read while it is made anew.
#[test]
fn a_chunk_that_went_is_nothing_or_out_of_date() {
    loom::model(|| {
        let map = Map::new(8);
        let chunk = Chunk::new();
        let (old, new) = (slab(), slab());
        map.insert(chunk, 1);
        hand_out(chunk, old, 0x1000);
        let asking = {
            let map = Arc::clone(&map);
            thread::spawn(move || base_of(map.entry(1)))
        };
        // SAFETY: the granule comes back, and the chunk is let go with none in use.
        unsafe { (*chunk).entry.set(Entry::NONE) };
        map.remove(chunk);
        map.insert(chunk, 2);
        hand_out(chunk, new, 0x2000);
        let found = asking.join().unwrap();
        assert!(matches!(found, None | Some(0x1000 | 0x2000)), "{found:?}");
        assert_eq!(base_of(map.entry(1)), None);
        assert_eq!(base_of(map.entry(2)), Some(0x2000));
    });
}
