//! Many threads at once: locals and the shared path, objects freed where they were not allocated,
//! reclaim and flush meanwhile. Afterwards the walker must find every slot accounted for.

use crate::common::Rng;
use crate::common::host::HostProvider;
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use temporal_slab::config::{Config, DefaultLock};
use temporal_slab::{Heap, Policy};

struct Parcel {
    object: NonNull<u8>,
    layout: Layout,
    mark: u8,
}
// SAFETY: an object may be used and freed by whichever thread has it.
unsafe impl Send for Parcel {}

const THREADS: usize = if cfg!(miri) { 3 } else { 8 };
const STEPS: usize = if cfg!(miri) { 24 } else { 60_000 };
/// Under Miri each thread has as many turns as the others, and most of them are not to be reclaims of nothing: there is one
/// for every other step as it is.
const YIELDS: usize = if cfg!(miri) { 100 } else { 1 };
/// So many objects a thread keeps, and after so many steps it frees them all.
const KEPT: (usize, usize) = if cfg!(miri) { (10, 16) } else { (300, 1000) };

/// Under Miri there are fewer positions and classes: a reclaim that goes over all of them takes longer than what the
/// others do meanwhile, and they would hardly meet.
#[derive(Debug)]
struct Plain<const CHECKED: bool>;
impl<const CHECKED: bool> Config for Plain<CHECKED> {
    type Provider = HostProvider<{ 1 << 18 }>;
    type Lock = DefaultLock;
    const CHECKED: bool = CHECKED;
    #[cfg(miri)]
    const RING: usize = 4;
    #[cfg(miri)]
    const SIZES: &'static [usize] = &[64, 128, 256, 384, 512];
}

/// What a thread does: allocates, writes a mark all over, passes on or keeps, checks and frees.
fn work<C: Config>(
    heap: &Heap<C>,
    seed: u64,
    use_local: bool,
    inbox: &Receiver<Parcel>,
    next: &Sender<Parcel>,
) {
    let mut rng = Rng(seed);
    let mut local = use_local.then(|| heap.local().unwrap());
    let mut kept: Vec<Parcel> = Vec::new();
    for step in 0..STEPS {
        let size = if rng.below(200) == 0 {
            rng.below(100_000)
        } else {
            rng.below(600)
        };
        let layout = Layout::from_size_align(size.max(1), 8).unwrap();
        let object = match &mut local {
            Some(local) => local.alloc(layout),
            None => heap.alloc(layout),
        };
        let object = object.unwrap();
        let mark = rng.next() as u8;
        // SAFETY: the object is ours and this long.
        unsafe { object.write_bytes(mark, layout.size().min(2048)) };
        let parcel = Parcel {
            object,
            layout,
            mark,
        };
        if rng.below(3) == 0 {
            next.send(parcel).unwrap();
        } else {
            kept.push(parcel);
        }
        let mut free = |parcel: Parcel| {
            let Parcel {
                object,
                layout,
                mark,
            } = parcel;
            // SAFETY: the object was passed to us live and is freed once.
            unsafe {
                let bytes = core::slice::from_raw_parts(object.as_ptr(), layout.size().min(2048));
                assert!(
                    bytes == &[mark; 2048][..bytes.len()],
                    "somebody wrote to our object"
                );
                let freed = match &mut local {
                    Some(local) => local.free(object, layout),
                    None => heap.free(object, layout),
                };
                freed.unwrap();
            }
        };
        while let Ok(parcel) = inbox.try_recv() {
            free(parcel);
        }
        while kept.len() > KEPT.0 {
            free(kept.swap_remove(rng.below(KEPT.0)));
        }
        if step % KEPT.1 == KEPT.1 - 1 {
            kept.drain(..).for_each(&mut free);
            if let Some(local) = &mut local {
                local.flush();
            }
        }
    }
    for parcel in kept {
        next.send(parcel).unwrap();
    }
}

fn storm<C: Config<Provider: Default + Sync, Lock: Sync>>(
    policy: Policy,
    locals: impl Fn(usize) -> bool + Copy + Send + Sync,
) {
    let heap = Heap::<C>::new(C::Provider::default());
    heap.set_policy(policy);
    let is_over = AtomicBool::new(false);
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel::<Parcel>()).unzip();
    let mut inboxes: Vec<_> = inboxes.into_iter().map(Some).collect();
    thread::scope(|scope| {
        let reclaimer = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                heap.reclaim();
                (0..YIELDS).for_each(|_| thread::yield_now());
            }
        });
        let workers: Vec<_> = (0..THREADS)
            .map(|number| {
                let inbox = inboxes[number].take().unwrap();
                let next = senders[(number + 1) % THREADS].clone();
                let heap = &heap;
                scope.spawn(move || {
                    work(heap, number as u64, locals(number), &inbox, &next);
                    drop(next);
                    inbox
                })
            })
            .collect();
        let left: Vec<_> = workers.into_iter().map(|w| w.join().unwrap()).collect();
        for inbox in left {
            while let Ok(Parcel { object, layout, .. }) = inbox.try_recv() {
                // SAFETY: nobody took it out of the inbox.
                unsafe { heap.free(object, layout).unwrap() };
            }
        }
        is_over.store(true, Ordering::Relaxed);
        reclaimer.join().unwrap();
    });
    heap.reclaim();
    // SAFETY: every thread has ended, and their locals with them.
    let census = unsafe { heap.walk() }.unwrap();
    assert_eq!(
        (census.live_slots, census.held_slots, census.slabs),
        (0, 0, 0),
        "{census:?}"
    );
    assert_eq!((census.runs, census.regions), (0, 0), "{census:?}");
    assert_eq!(heap.stats().errors.late_double_frees, 0);
}

#[test]
fn locals_only() {
    storm::<Plain<false>>(Policy::DEFAULT, |_| true);
}

#[test]
fn shared_path_only() {
    storm::<Plain<false>>(Policy::DEFAULT, |_| false);
}

#[test]
fn both_with_eager_reclaim() {
    storm::<Plain<true>>(Policy::EAGER, |number| number % 2 == 0);
}

#[test]
fn both_with_little_kept_warm() {
    storm::<Plain<true>>(Policy::keeping(100_000), |number| number % 2 == 0);
}
