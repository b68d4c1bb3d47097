//! What an epoch costs: a few objects of several sizes, allocated in an epoch of their own, freed at random, and the epoch closed;
//! beside the same objects without an epoch, of ours and of the peers.

use super::Context;
use super::contender::{Contender, Kind, Ours, Visitor, failed};
use super::costs::{Turn, in_turns, times};
use core::alloc::Layout;
use core::hint::black_box;
use core::ptr::NonNull;
use core::time::Duration;
use temporal_slab::class::FINE_SIZES;
use temporal_slab::config::Config;
use temporal_slab::{Heap, Policy};
use temporal_slab_hosted::MmapProvider;

/// As the process's heap is, without checks.
#[derive(Debug)]
pub(super) struct Bumping;
impl Config for Bumping {
    const SIZES: &'static [usize] = FINE_SIZES;
    const CHECKED: bool = false;
    const BUMPS: bool = true;
}

/// The same, and every free is checked.
#[derive(Debug)]
struct Checked;
impl Config for Checked {
    const SIZES: &'static [usize] = FINE_SIZES;
    const CHECKED: bool = true;
    const BUMPS: bool = true;
}

const POLICY: Policy = Policy::Proportional { bytes: 32 << 20 };
static HEAP: Ours<MmapProvider, Bumping> =
    Heap::new(MmapProvider::new().without_readings()).with_policy(POLICY);
static CHECKED: Ours<MmapProvider, Checked> =
    Heap::new(MmapProvider::new().without_readings()).with_policy(POLICY);

/// Objects of an epoch.
const COUNTS: [usize; 4] = [4, 40, 400, 4000];

/// Ten sizes, which come in turns.
const SIZES: [usize; 10] = [16, 800, 48, 300, 100, 640, 24, 200, 400, 64];

pub(super) fn variants() -> Vec<(&'static str, Vec<String>)> {
    let names = COUNTS.iter().map(|count| format!("{count}-objects"));
    vec![("epochs", names.chain(["empty".to_owned()]).collect())]
}

pub(super) fn run(context: &mut Context<'_>) {
    for count in COUNTS {
        let (layouts, order) = (layouts(count), order(count));
        let mut turns: Vec<Turn<'_>> = vec![
            ("ours-epoch", true, in_epochs(&HEAP, &layouts, &order)),
            (
                "ours-epoch-checked",
                true,
                in_epochs(&CHECKED, &layouts, &order),
            ),
        ];
        let peers = context.peers.clone().into_iter().map(Kind::Peer);
        for kind in [Kind::Ours].into_iter().chain(peers) {
            let turn = kind.visit(Without(&layouts, &order));
            turns.push((kind.name(), kind == Kind::Ours, turn));
        }
        in_turns(context, "epochs", &format!("{count}-objects"), &mut turns);
    }
    let mut turns: [Turn<'_>; 1] = [("ours-epoch", true, in_epochs(&HEAP, &[], &[]))];
    in_turns(context, "epochs", "empty", &mut turns);
}

fn layouts(count: usize) -> Vec<Layout> {
    let sizes = SIZES.iter().cycle().take(count);
    let layout = |size: &usize| Layout::from_size_align(*size, 8);
    sizes.filter_map(|size| layout(size).ok()).collect()
}

/// The order of frees: any.
fn order(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut seed = 7u64;
    for last in (1..count).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(last, (seed >> 33) as usize % (last + 1));
    }
    order
}

/// An epoch for the objects.
fn in_epochs<'t, C: Config>(
    heap: &'static Ours<MmapProvider, C>,
    layouts: &'t [Layout],
    order: &'t [usize],
) -> Box<dyn FnMut(u32) -> Duration + 't> {
    let local = heap.local();
    let mut local = local.unwrap_or_else(|error| failed(&format!("no local: {error}")));
    let mut objects = vec![NonNull::<u8>::dangling(); layouts.len()];
    Box::new(move |count| {
        times(count, || {
            let epoch = heap.open_epoch();
            let epoch = epoch.unwrap_or_else(|_| failed("ours has no epoch"));
            for (object, layout) in objects.iter_mut().zip(layouts) {
                *object = match local.alloc_in(epoch, *layout) {
                    Ok(object) => black_box(object),
                    Err(_) => failed("ours has no memory"),
                };
                // SAFETY: the object is ours, and 16 bytes long at least.
                unsafe { object.cast::<u64>().write(1) };
            }
            for place in order {
                // SAFETY: each was just allocated, with this layout, and is freed once.
                if unsafe { local.free(objects[*place], layouts[*place]) }.is_err() {
                    failed("ours refused a free");
                }
            }
            local.leave(epoch);
            if heap.close(epoch).is_err() {
                failed("ours refused a close");
            }
        })
    })
}

/// The objects alone.
struct Without<'t>(&'t [Layout], &'t [usize]);

impl<'t> Visitor for Without<'t> {
    type Out = Box<dyn FnMut(u32) -> Duration + 't>;

    fn visit<C: Contender>(self, make: fn() -> C) -> Self::Out {
        let Self(layouts, order) = self;
        let mut contender = make();
        let mut objects = vec![NonNull::<u8>::dangling(); layouts.len()];
        Box::new(move |count| {
            times(count, || {
                for (object, layout) in objects.iter_mut().zip(layouts) {
                    *object = black_box(contender.alloc(*layout));
                    // SAFETY: the object is ours, and 16 bytes long at least.
                    unsafe { object.cast::<u64>().write(1) };
                }
                for place in order {
                    // SAFETY: each was just allocated, with this layout, and is freed once.
                    unsafe { contender.free(objects[*place], layouts[*place]) };
                }
            })
        })
    }
}
