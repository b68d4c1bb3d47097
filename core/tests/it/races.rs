//! Threads that learn of each other's work through nothing but the heap's own atomics: what one of them did must be whole
//! to the other. For Miri, which sees accesses that no ordering keeps apart, and lets a load see an older value wherever
//! the orderings allow it. `cargo xtask weaken` weakens each ordering in turn; most of them are noticed here or in a model.
//!
//! The flags are `Relaxed`: they say that something happened, and make nothing of it visible. What a weaker ordering
//! would let through is then not a matter of luck with the schedule, and of little luck with what a load sees.

use crate::common::hooked::{Hooked, hooked};
use crate::common::host::HostProvider;
use crate::common::{free, layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};
use std::thread;
use temporal_slab::adapter::{Global, LockedLocal};
use temporal_slab::config::{Config, Standard};
use temporal_slab::provider::StaticProvider;
use temporal_slab::{Epoch, EpochState, Heap, RawHandle};

type TestHeap<C = Few<HostProvider>> = Heap<C>;

temporal_slab_actions::configs! {
    /// Few positions and ids: less to make where each step takes long.
    struct Few {
        const RING: usize = 4;
        const EPOCHS: usize = Self::RING;
        const CHECKED: bool = false;
        const HANDLE_IDS_LOG2: u32 = 2;
        const SIZES: &'static [usize] = &[64, 128, 256];
    }
}

fn new_heap() -> TestHeap {
    TestHeap::new(HostProvider::default())
}

/// Something that one thread tells another, without an order.
#[derive(Debug, Default)]
struct Told(AtomicU64);

impl Told {
    /// Anything but 0.
    fn tell(&self, what: u64) {
        self.0.store(what, Relaxed);
    }

    fn wait(&self) -> u64 {
        loop {
            match self.0.load(Relaxed) {
                0 => thread::yield_now(),
                what => return what,
            }
        }
    }
}

/// `first` in a thread, and `then` in one that is told of it without an order. Both are there before.
fn one_after_the_other(first: impl FnOnce() -> u64 + Send, then: impl FnOnce(u64) + Send) {
    let told = &Told::default();
    thread::scope(|scope| {
        scope.spawn(move || then(told.wait()));
        scope.spawn(move || told.tell(first()));
    });
}

/// The first allocation makes the root epoch's depot; the next thread finds a whole one. Its class is another one, so that
/// it is not the list's lock which makes it whole.
#[test]
fn the_root_is_whole() {
    let heap = new_heap();
    let alloc = |size| {
        heap.alloc(layout(size)).unwrap();
    };
    one_after_the_other(
        || {
            alloc(64);
            1
        },
        |_| alloc(256),
    );
}

/// As above, for a thread that asks for a position first.
#[test]
fn the_ring_is_whole() {
    let heap = new_heap();
    one_after_the_other(
        || {
            heap.alloc(layout(64)).unwrap();
            1
        },
        |_| {
            let forged = Epoch::from_parts(1, 7).unwrap();
            assert!(heap.alloc_in(forged, layout(64)).is_err());
        },
    );
}

/// As above, for a thread that looks at all depots first.
#[test]
fn depots_are_whole() {
    let heap = new_heap();
    one_after_the_other(
        || {
            heap.alloc(layout(64)).unwrap();
            1
        },
        |_| heap.reclaim(),
    );
}

/// An epoch is opened with a new depot; who has its token finds a whole one.
#[test]
fn the_depot_of_a_position_is_whole() {
    let heap = new_heap();
    heap.current().unwrap();
    one_after_the_other(
        || {
            let epoch = heap.open_epoch().unwrap();
            // With its first object it gets a depot.
            heap.alloc_in(epoch, layout(64)).unwrap();
            epoch.era() << 8 | epoch.index() as u64
        },
        |parts| {
            let epoch = Epoch::from_parts(parts as u32 & 0xff, parts >> 8).unwrap();
            // It may see the position as it was.
            let _or_closed = heap.alloc_in(epoch, layout(64));
        },
    );
}

/// An epoch is opened for which there was no position; who has its token finds a whole one.
#[test]
fn a_position_that_is_new_is_whole() {
    temporal_slab_actions::configs! {
        /// Two positions at first.
        struct Growing {
            const RING: usize = 2;
            const CHECKED: bool = false;
            const SIZES: &'static [usize] = &[64];
        }
    }
    let heap = TestHeap::<Growing<HostProvider>>::new(HostProvider::default());
    heap.open_epoch().unwrap();
    one_after_the_other(
        || {
            let epoch = heap.open_epoch().unwrap();
            assert_eq!(epoch.index(), 2);
            epoch.era() << 8 | epoch.index() as u64
        },
        |parts| {
            let epoch = Epoch::from_parts(parts as u32 & 0xff, parts >> 8).unwrap();
            let _or_closed = heap.alloc_in(epoch, layout(64));
        },
    );
}

temporal_slab_actions::configs! {
    /// Young epochs bump.
    struct Bumping {
        const RING: usize = 4;
        const CHECKED: bool = false;
        const BUMPS: bool = true;
        const SIZES: &'static [usize] = &[48, 64];
    }
}

/// A block is made while another thread counts all blocks: it finds it whole, or not at all.
#[test]
fn a_block_that_is_found_is_whole() {
    let heap = TestHeap::<Bumping<HostProvider>>::new(HostProvider::default());
    let epoch = heap.open_epoch().unwrap();
    one_after_the_other(
        || {
            let mut local = heap.local().unwrap();
            local.alloc_in(epoch, layout(48)).unwrap();
            1
        },
        // By the ring's lock alone, which the other thread does not take meanwhile.
        |_| assert!(heap.epoch_stats(epoch).unwrap().blocks.blocks <= 1),
    );
}

temporal_slab_actions::configs! {
    /// As [`Bumping`], and a local sees what survives.
    struct Seeing {
        const RING: usize = 5;
        const EPOCHS: usize = Self::RING;
        const CHECKED: bool = true;
        const BUMPS: bool = true;
        const SIZES: &'static [usize] = &[48, 64];
    }
}

/// The depot of the slabs that epochs share is made by one thread, and another comes for it.
#[test]
fn the_depot_of_mixed_slabs_is_whole() {
    let heap = TestHeap::<Seeing<HostProvider>>::new(HostProvider::default());
    let taught = || {
        let mut local = heap.local().unwrap();
        let epoch = heap.open_epoch().unwrap();
        // It looks at a block again when it left sixteen more.
        let survivors = [(); 18].map(|()| {
            let survivor = local.alloc_in(epoch, layout(48)).unwrap();
            local.leave(epoch);
            survivor
        });
        for survivor in survivors {
            free(&heap, survivor, 48);
        }
        heap.close(epoch).unwrap();
        (local, heap.open_epoch().unwrap())
    };
    let ((mut first, its), (mut then, other)) = (taught(), taught());
    one_after_the_other(
        || {
            first.alloc_in(its, layout(48)).unwrap();
            1
        },
        |_| {
            then.alloc_in(other, layout(48)).unwrap();
        },
    );
    let objects = |epoch| heap.epoch_stats(epoch).unwrap().mixed_objects;
    assert_eq!((objects(its), objects(other)), (1, 1));
}

temporal_slab_actions::configs! {
    /// As [`Bumping`], and there is one epoch beside the root's.
    struct One {
        const RING: usize = 2;
        const EPOCHS: usize = 2;
        const CHECKED: bool = false;
        const BUMPS: bool = true;
        const SIZES: &'static [usize] = &[48, 64];
    }
}

/// A local takes a block for an epoch while another thread closes that and opens the next one in its place: the block keeps the
/// epoch's record, or there is none. Catches an object of an epoch whose record is another's by then.
#[test]
fn a_block_keeps_the_record_of_its_epoch() {
    let heap = &TestHeap::<One<HostProvider>>::new(HostProvider::default());
    let mut local = heap.local().unwrap();
    for turn in 0..if cfg!(miri) { 24 } else { 2000 } {
        let epoch = heap.open_epoch().unwrap();
        let (ready, closed) = (&Told::default(), &Told::default());
        let (object, next) = thread::scope(|scope| {
            let local = &mut local;
            let allocating = scope.spawn(move || {
                ready.tell(1);
                local.alloc_in(epoch, layout(48)).ok().map(|at| at.addr())
            });
            ready.wait();
            // Without the ring's lock or with it, by the thread that opens the next one or by another.
            let close = move || {
                if turn % 4 < 2 {
                    heap.close(epoch).unwrap();
                } else {
                    heap.enter(epoch).unwrap();
                    assert!(heap.exit_and_close(epoch));
                }
                closed.tell(1);
            };
            if turn % 2 == 0 {
                close();
            } else {
                scope.spawn(close);
            }
            closed.wait();
            let next = heap.open_epoch();
            (allocating.join().unwrap(), next)
        });
        assert!(object.is_none() || next.is_err(), "both have the record");
        if let Some(object) = object {
            assert_eq!(heap.state(epoch), Ok(EpochState::Closing));
            let object = core::ptr::with_exposed_provenance_mut(object.get());
            free(heap, NonNull::new(object).unwrap(), 48);
        }
        local.leave(epoch);
        if let Ok(next) = next {
            heap.close(next).unwrap();
        }
    }
}

/// A class gets its first slab; the next thread finds it at the hint, with its metadata.
#[test]
fn the_slab_at_the_hint_is_whole() {
    let heap = new_heap();
    heap.current().unwrap();
    one_after_the_other(
        || {
            heap.alloc(layout(64)).unwrap();
            1
        },
        |_| {
            heap.alloc(layout(64)).unwrap();
        },
    );
}

/// An object is allocated while its epoch closes, and given back after or before, as `closed_first` says: either the giver
/// sees the close, or the close sees the slab that emptied. Nothing lingers.
fn close_and_give(closed_first: bool) {
    let heap = new_heap();
    let epoch = heap.open_epoch().unwrap();
    let object = heap.alloc_in(epoch, layout(64)).unwrap();
    let object = &AtomicPtr::new(object.as_ptr());
    let close = || {
        heap.close(epoch).unwrap();
    };
    let give = || free(&heap, NonNull::new(object.load(Relaxed)).unwrap(), 64);
    if closed_first {
        one_after_the_other(
            || {
                close();
                1
            },
            |_| give(),
        );
    } else {
        one_after_the_other(
            || {
                give();
                1
            },
            |_| close(),
        );
    }
    assert_eq!(
        crate::common::walk(&heap).slabs,
        0,
        "a whole slab lingers in a closed epoch"
    );
}

#[test]
fn a_giver_sees_the_close() {
    close_and_give(true);
}

#[test]
fn a_close_sees_what_was_given() {
    close_and_give(false);
}

/// A local that has slots of an epoch notices that it was closed, at its next slow path or, if that is too soon, at the
/// one after. Catches a local that sees that something was closed and not what, and does not look again.
#[test]
fn a_local_notices_a_close() {
    // It has to see the newer of one and the older of another: more than one try.
    (0..3).for_each(|_| close_under_a_local(&new_heap(), [64, 128, 256]));
}

/// A local has a free slot, or a block, in an epoch that another thread closes, and allocates elsewhere.
fn close_under_a_local<C: Config<Provider: Sync, Lock: Sync>>(
    heap: &TestHeap<C>,
    sizes: [usize; 3],
) {
    let [size, first, other] = sizes.map(layout);
    let epoch = heap.open_epoch().unwrap();
    let closed = Told::default();
    let mut local = heap.local().unwrap();
    let object = local.alloc_in(epoch, size).unwrap();
    // SAFETY: it is not used.
    unsafe { local.free(object, size) }.unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            heap.close(epoch).unwrap();
            closed.tell(1);
        });
        closed.wait();
        // The first of a class takes the slow path.
        local.alloc(first).unwrap();
    });
    local.alloc(other).unwrap();
    assert_eq!(local.stats().held_in_closed_bytes, 0);
    assert_eq!(heap.stats().closing_epochs, 0);
}

/// As [`a_local_notices_a_close`], of a local that has a block of the epoch, which has no lists of slabs. Catches the same, and a block
/// that keeps the record of its epoch for good.
#[test]
fn a_local_with_a_block_notices_a_close() {
    (0..3).for_each(|_| {
        close_under_a_local(
            &TestHeap::<Bumping<HostProvider>>::new(HostProvider::default()),
            [48, 48, 64],
        );
    });
}

/// Two threads have one local, in turns.
#[test]
fn a_locked_local_is_handed_over() {
    const SIZE: usize = 1 << 20;
    static mut MEMORY: [u8; SIZE] = [0; SIZE];
    type Pages = Standard<StaticProvider<'static>>;
    // SAFETY: nothing else names the memory.
    static HEAP: Heap<Pages> =
        Heap::new(unsafe { StaticProvider::from_raw((&raw mut MEMORY).cast(), SIZE) });
    static GLOBAL: Global<Pages, LockedLocal<Pages>> = Global::new(&HEAP, LockedLocal::new());
    let alloc = || {
        GLOBAL.try_alloc(layout(64)).unwrap();
    };
    one_after_the_other(
        || {
            alloc();
            1
        },
        |_| alloc(),
    );
}

/// A handle is made, and looked up by one who knows its bits: in the first table, in one that is new, and at one that is
/// there.
#[test]
fn what_an_id_leads_to_is_whole() {
    for before in 0..3 {
        let heap = new_heap();
        for size in [64, 128, 256].into_iter().take(before) {
            heap.alloc_raw(layout(size)).unwrap();
        }
        one_after_the_other(
            || heap.alloc_raw(layout(200)).unwrap().bits(),
            |bits| {
                let _or_none = heap.get_raw(RawHandle::from_bits(bits));
            },
        );
    }
}

static STOOD: Told = Told(AtomicU64::new(0));
static GO_ON: Told = Told(AtomicU64::new(0));

/// Somebody asks for a class's figures and stands still before the last lock; meanwhile the heap is used for the first
/// time, and the classes get their counters.
#[test]
fn counters_are_whole() {
    let heap = Heap::<Few<HostProvider, Hooked>>::new(HostProvider::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let stands_still = |is_lock, number| {
                if (is_lock, number) == (true, 2) {
                    STOOD.tell(1);
                    GO_ON.wait();
                }
            };
            let _figures = hooked(stands_still, || heap.class_stats(0));
        });
        scope.spawn(|| {
            STOOD.wait();
            heap.alloc(layout(64)).unwrap();
            GO_ON.tell(1);
        });
    });
}

/// A thread asks for an address of which it knows by no order: in the first chunk, in one that was there, in a later one, and
/// in one that comes with a longer table of chunks. Catches a table, a chunk's description, a slab or a single object's slab that is found before
/// it is written.
#[test]
fn what_an_address_leads_to_is_whole() {
    temporal_slab_actions::configs! {
        struct Hard {
            const RING: usize = 2;
            const EPOCHS: usize = Self::RING;
            const CHECKED: bool = true;
            const SIZES: &'static [usize] = &[64, 8192];
        }
    }
    // Each of these has one object for a chunk of 64 KiB, or nearly so: the table of chunks has 16 places at first, and a
    // chunk more than half of them has it made anew.
    for (before, size_before) in [(0, 0), (1, 100), (1, 60_000), (7, 60_000), (8, 60_000)] {
        for size in [64, 8192, 20_000] {
            let heap = TestHeap::<Hard<HostProvider>>::new(HostProvider::default());
            for _ in 0..before {
                heap.alloc(layout(size_before)).unwrap();
            }
            one_after_the_other(
                || heap.alloc(layout(size)).unwrap().addr().get() as u64,
                |address| {
                    let object = NonNull::new(core::ptr::without_provenance_mut(address as usize));
                    // It may not be there yet, for all that this thread knows.
                    if let Ok(found) = heap.usable_size(object.unwrap()) {
                        assert!(found >= size);
                    }
                },
            );
        }
    }
}

/// A large object is freed, its metadata serves another elsewhere, and a thread that knows of it by no order frees the first
/// once more: refused, whatever that thread sees. Catches a slab whose new life is seen with where its old one lay.
#[test]
fn a_free_of_a_life_before_is_refused() {
    temporal_slab_actions::configs! {
        struct Hard {
            const RING: usize = 2;
            const EPOCHS: usize = Self::RING;
            const CHECKED: bool = true;
            const SIZES: &'static [usize] = &[64];
        }
    }
    let heap = TestHeap::<Hard<HostProvider>>::new(HostProvider::default());
    for _ in 0..150 {
        let at = |address: usize| {
            NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(address)).unwrap()
        };
        let address = heap.alloc(layout(9_000)).unwrap().expose_provenance().get();
        // Behind it, so that what is longer has no room where it was.
        heap.alloc(layout(9_000)).unwrap();
        let other = AtomicPtr::new(core::ptr::null_mut());
        one_after_the_other(
            || {
                free(&heap, at(address), 9_000);
                let object = heap.alloc(layout(20_000)).unwrap();
                other.store(object.as_ptr(), Relaxed);
                1
            },
            |_| {
                // SAFETY: in a checked heap what is not live is refused.
                let freed = unsafe { heap.free_unsized(at(address)) };
                assert!(freed.is_err());
            },
        );
        let object = NonNull::new(other.into_inner()).unwrap();
        assert_ne!(object.addr().get(), address);
        free(&heap, object, 20_000);
    }
}
