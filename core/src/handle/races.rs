//! Threads that give out ids with nothing else between them: what one made must be whole to the other. For Miri, as
//! `tests/it/races.rs`, which says more; a heap's locks would be between them there.

extern crate std;

use super::{Ids, TaggedSlab};
use crate::config::{Config, DefaultLock};
use crate::provider::StaticProvider;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::Relaxed};
use std::alloc::{alloc, dealloc};
use std::thread;

/// Tables of two entries.
#[derive(Debug)]
struct Few;
impl Config for Few {
    type Provider = StaticProvider<'static>;
    type Lock = DefaultLock;
    const HANDLE_IDS_LOG2: u32 = 2;
}

/// Two threads give out an id each: at the same time, or one when it was told, without an order, that the other did.
fn two_ids(at_once: bool) {
    let tables = [(); 4].map(|()| {
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc(Ids::<Few>::TABLE) };
        AtomicPtr::new(memory)
    });
    let taken = AtomicUsize::new(0);
    let slabs = [TaggedSlab::new(), TaggedSlab::new()];
    let ids = Ids::<Few>::new();
    let assign = |slab| {
        let take = || {
            let table = &tables[taken.fetch_add(1, Relaxed)];
            Ok(NonNull::new(table.load(Relaxed)).unwrap())
        };
        ids.assign(slab, take, |_| {}).unwrap();
    };
    let told = AtomicBool::new(at_once);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !told.load(Relaxed) {
                thread::yield_now();
            }
            assign(&slabs[1]);
        });
        scope.spawn(|| {
            assign(&slabs[0]);
            told.store(true, Relaxed);
        });
    });
    for slab in &slabs {
        let found = ids.find(slab.name(0, 0)).unwrap();
        assert!(core::ptr::eq(found, slab));
    }
    for table in tables {
        // SAFETY: it was allocated with this layout, and the ids are not used any more.
        unsafe { dealloc(table.into_inner(), Ids::<Few>::TABLE) };
    }
}

#[test]
fn tables_that_are_there_are_whole() {
    two_ids(false);
}

#[test]
fn tables_that_another_made_meanwhile_are_whole() {
    (0..4).for_each(|_| two_ids(true));
}
