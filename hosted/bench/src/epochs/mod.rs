//! What an epoch costs: a few objects of several sizes, allocated in an epoch of their own, freed, and the epoch closed; beside the same
//! objects without an epoch, of ours and of the peers.

mod way;

use super::contender::{Contender, Kind, Peer, Visitor};
use super::context::Context;
use super::costs::{Turn, in_turns, times};
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use core::time::Duration;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread;
use temporal_slab::class::FINE_SIZES;
use temporal_slab::config::{Config, DefaultLock};
use temporal_slab::lock_api::RawMutex;
use temporal_slab::{Heap, Policy};
use temporal_slab_hosted::MmapProvider;
use way::{Alone, InArena, InEpochs, InHeap, Way};

/// As the process's heap is, without checks.
#[derive(Debug)]
pub(super) struct Bumping<L = DefaultLock>(PhantomData<L>);
impl<L: RawMutex> Config for Bumping<L> {
    type Provider = MmapProvider;
    type Lock = L;
    const SIZES: &'static [usize] = FINE_SIZES;
    const CHECKED: bool = false;
    const BUMPS: bool = true;
}

/// The same, and every free is checked.
#[derive(Debug)]
struct Checked;
impl Config for Checked {
    type Provider = MmapProvider;
    type Lock = DefaultLock;
    const SIZES: &'static [usize] = FINE_SIZES;
    const CHECKED: bool = true;
    const BUMPS: bool = true;
}

const POLICY: Policy = Policy::proportional(32 << 20);
static HEAP: Heap<Bumping> = Heap::new(MmapProvider::new().without_readings()).with_policy(POLICY);
static CHECKED: Heap<Checked> =
    Heap::new(MmapProvider::new().without_readings()).with_policy(POLICY);

/// Ten sizes, which come in turns; and ten of which the largest is the largest that a block takes.
const SIZES: [usize; 10] = [16, 800, 48, 300, 100, 640, 24, 200, 400, 64];
const LARGE: [usize; 10] = [16, 800, 4000, 300, 100, 8192, 24, 2000, 400, 64];

/// In which order objects are freed, as they were allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    First,
    Last,
    Any,
}

/// What a second thread does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// The same.
    TheSame,
    /// The same, and each frees a tenth of the other's objects.
    Exchange,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
struct Row {
    name: &'static str,
    count: usize,
    sizes: &'static [usize; 10],
    order: Order,
    beside: Beside,
}

const FEW: Row = Row {
    name: "40-objects",
    count: 40,
    sizes: &SIZES,
    order: Order::Any,
    beside: Beside::Nothing,
};

const ROWS: [Row; 9] = [
    Row {
        name: "4-objects",
        count: 4,
        ..FEW
    },
    FEW,
    Row {
        name: "400-objects",
        count: 400,
        ..FEW
    },
    Row {
        name: "4000-objects",
        count: 4000,
        ..FEW
    },
    Row {
        name: "40-objects-first-freed-first",
        order: Order::First,
        ..FEW
    },
    Row {
        name: "40-objects-last-freed-first",
        order: Order::Last,
        ..FEW
    },
    Row {
        name: "40-objects-to-8-KiB",
        sizes: &LARGE,
        ..FEW
    },
    Row {
        name: "40-objects-2-threads",
        beside: Beside::TheSame,
        ..FEW
    },
    Row {
        name: "40-objects-a-tenth-elsewhere",
        beside: Beside::Exchange,
        ..FEW
    },
];

pub(super) fn variants() -> Vec<(&'static str, Vec<String>)> {
    let names = ROWS.iter().map(|row| row.name.to_owned());
    vec![("epochs", names.chain(["empty".to_owned()]).collect())]
}

pub(super) fn run(context: &mut Context<'_>) {
    for row in ROWS {
        let plan = Plan::of(row);
        let mut turns: Vec<Turn<'_>> = vec![
            ("ours-epoch", true, turn(&plan, || InEpochs::of(&HEAP))),
            (
                "ours-epoch-checked",
                true,
                turn(&plan, || InEpochs::of(&CHECKED)),
            ),
        ];
        let peers = context.peers.clone().into_iter().map(Kind::Peer);
        for kind in [Kind::Ours].into_iter().chain(peers) {
            let alone = kind.visit(Without(&plan));
            turns.push((kind.name(), kind == Kind::Ours, alone));
        }
        // What the peers have for objects that go together.
        if row.name == FEW.name {
            if context.peers.contains(&Peer::Mimalloc) {
                turns.push(("mimalloc-heap", true, turn(&plan, || InHeap)));
            }
            if context.peers.contains(&Peer::Jemalloc) {
                turns.push(("jemalloc-arena", true, turn(&plan, || InArena)));
            }
        }
        in_turns(context, "epochs", row.name, &mut turns);
    }
    let empty = Plan::of(Row { count: 0, ..FEW });
    let mut turns: [Turn<'_>; 1] = [("ours-epoch", true, turn(&empty, || InEpochs::of(&HEAP)))];
    in_turns(context, "epochs", "empty", &mut turns);
}

/// What is allocated, and in which order it is freed.
struct Plan {
    layouts: Vec<Layout>,
    order: Vec<usize>,
    beside: Beside,
    /// How many of the objects, of those that would be freed last, the other thread frees.
    given: usize,
}

impl Plan {
    fn of(row: Row) -> Self {
        let sizes = row.sizes.iter().cycle().take(row.count);
        let layout = |size: &usize| Layout::from_size_align(*size, 8);
        let mut order: Vec<usize> = (0..row.count).collect();
        match row.order {
            Order::First => {}
            Order::Last => order.reverse(),
            Order::Any => shuffle(&mut order),
        }
        let is_exchange = row.beside == Beside::Exchange;
        let given = if is_exchange { row.count / 10 } else { 0 };
        Self {
            layouts: sizes.filter_map(|size| layout(size).ok()).collect(),
            order,
            beside: row.beside,
            given,
        }
    }
}

fn shuffle(order: &mut [usize]) {
    let mut seed = 7u64;
    for last in (1..order.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(last, (seed >> 33) as usize % (last + 1));
    }
}

/// Objects of one contender on their way to the other thread: a place for each that is given in an epoch.
struct Mail(Vec<AtomicPtr<u8>>);

impl Mail {
    fn new(places: usize) -> Arc<Self> {
        Arc::new(Self((0..places).map(|_| AtomicPtr::default()).collect()))
    }

    /// Puts an object where another may be that was not taken yet: that is the caller's.
    fn put(&self, place: usize, object: *mut u8) -> Option<NonNull<u8>> {
        NonNull::new(self.0[place].swap(object, Ordering::AcqRel))
    }
}

/// One of at most two threads that do the same.
struct Worker<'t, W> {
    way: W,
    plan: &'t Plan,
    objects: Vec<NonNull<u8>>,
    /// To the other and to this one.
    mail: [Arc<Mail>; 2],
}

// SAFETY: between two rounds the objects of the list are not live; what is on its way is anybody's.
unsafe impl<W: Way> Send for Worker<'_, W> {}

impl<'t, W: Way> Worker<'t, W> {
    fn new(way: W, plan: &'t Plan, mail: [Arc<Mail>; 2]) -> Self {
        Self {
            way,
            plan,
            objects: vec![NonNull::dangling(); plan.layouts.len()],
            mail,
        }
    }

    /// An epoch.
    #[inline(always)]
    fn round(&mut self) {
        let Plan {
            layouts,
            order,
            given,
            ..
        } = self.plan;
        let epoch = self.way.begin();
        for (object, layout) in self.objects.iter_mut().zip(layouts) {
            *object = self.way.alloc(epoch, *layout);
            // SAFETY: the object is ours, and 16 bytes long at least.
            unsafe { object.cast::<u64>().write(1) };
        }
        let (kept, rest) = order.split_at(order.len() - given);
        for place in kept {
            // SAFETY: each was just allocated, with this layout, and is freed once.
            unsafe { self.way.free(self.objects[*place], layouts[*place]) };
        }
        for (at, place) in rest.iter().enumerate() {
            let (object, layout) = (self.objects[*place], layouts[*place]);
            let left = self.mail[0].put(at, object.as_ptr());
            let came = self.mail[1].put(at, ptr::null_mut());
            for object in [left, came].into_iter().flatten() {
                // SAFETY: what is at this place has this layout, and who takes it has it.
                unsafe { self.way.free(object, layout) };
            }
        }
        self.way.end(epoch);
    }
}

fn turn<'t, W: Way + 't>(
    plan: &'t Plan,
    make: impl Fn() -> W,
) -> Box<dyn FnMut(u32) -> Duration + 't> {
    let mail = [Mail::new(plan.given), Mail::new(plan.given)];
    let back = [Arc::clone(&mail[1]), Arc::clone(&mail[0])];
    let mut own = Worker::new(make(), plan, mail);
    if plan.beside == Beside::Nothing {
        return Box::new(move |count| times(count, || own.round()));
    }
    let mut other = Worker::new(make(), plan, back);
    Box::new(move |count| {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let other = &mut other;
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    other.round();
                }
            });
            let time = times(count, || own.round());
            is_over.store(true, Ordering::Relaxed);
            time
        })
    })
}

/// The objects alone.
struct Without<'t>(&'t Plan);

impl<'t> Visitor for Without<'t> {
    type Out = Box<dyn FnMut(u32) -> Duration + 't>;

    fn visit<C: Contender>(self, make: fn() -> C) -> Self::Out {
        turn(self.0, || Alone(make()))
    }
}
