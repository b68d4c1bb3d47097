//! The tail: 1,000,000 allocations of 128 bytes and then their frees, each timed by itself.
//!
//! ```text
//! cargo bench -p temporal-slab-hosted --bench tail
//! ```
//!
//! Cold is a heap that was never used, populated one whose pages come in batches of 64 KiB, warm one that
//! did the same before and kept its memory. `touch` times the first write to the object as well. Times are
//! of the clock that is read around each call; what reading it costs is shown first and is in every figure.
//!
//! Every sample over ten times the median is put under a cause that was counted: of the local's counters,
//! of the provider's, of the system's. A cause that brings others (a new slab that needed a new chunk) is
//! named by the rarest. What no counter explains is compared with a control, the same loop around
//! nothing: what it sees are interrupts and a host that runs something else.

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("this benchmark reads the clock of x86_64");
}

#[cfg(target_arch = "x86_64")]
fn main() {
    run::main();
}

#[cfg(target_arch = "x86_64")]
mod run {
    use core::alloc::Layout;
    use core::arch::x86_64::{_mm_lfence, _rdtsc};
    use core::hint::black_box;
    use core::ptr::NonNull;
    use std::time::Instant;
    use temporal_slab::config::Unchecked;
    use temporal_slab::snapshot::SlowPathStats;
    use temporal_slab::{DefaultLock, Heap, Local};
    use temporal_slab_hosted::MmapProvider;

    type TheHeap = Heap<MmapProvider, DefaultLock, Unchecked>;
    type TheLocal<'h> = Local<'h, MmapProvider, DefaultLock, Unchecked>;

    const COUNT: usize = 1_000_000;
    const LAYOUT: Layout = match Layout::from_size_align(128, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("a small size"),
    };
    const CAUSES: [&str; 8] = [
        "descheduled",
        "new chunk",
        "decommit",
        "page fault",
        "new slab",
        "depot visit",
        "refill or spill",
        "no counter",
    ];
    const DESCHEDULED: usize = 0;
    const NEW_CHUNK: usize = 1;
    const DECOMMIT: usize = 2;
    const FAULT: usize = 3;
    const NEW_SLAB: usize = 4;
    const DEPOT: usize = 5;
    const REFILL: usize = 6;
    const NONE: usize = 7;

    fn now() -> u64 {
        // SAFETY: every CPU of this architecture has both; the fences keep the call between the readings.
        unsafe {
            _mm_lfence();
            let time = _rdtsc();
            _mm_lfence();
            time
        }
    }

    /// Nanoseconds for each tick of the clock.
    fn scale() -> f64 {
        let (start, first) = (Instant::now(), now());
        while start.elapsed().as_millis() < 200 {
            core::hint::spin_loop();
        }
        start.elapsed().as_nanos() as f64 / (now() - first) as f64
    }

    /// Page faults of this thread, and times that it was taken off its CPU.
    fn system() -> [i64; 2] {
        // SAFETY: the structure is ours, and zero bytes are one.
        unsafe {
            let mut usage: libc::rusage = core::mem::zeroed();
            libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
            [
                usage.ru_minflt + usage.ru_majflt,
                usage.ru_nivcsw + usage.ru_nvcsw,
            ]
        }
    }

    /// All that is counted, as of a moment.
    #[derive(Clone, Copy)]
    struct Counted {
        local: SlowPathStats,
        mapped: usize,
        decommits: u64,
    }

    fn counted(heap: &TheHeap, local: &TheLocal<'_>) -> Counted {
        Counted {
            local: local.slow_paths(),
            mapped: heap.provider().mapped_bytes(),
            decommits: heap.page_stats().decommits,
        }
    }

    /// Times of one kind of call, and the causes of the long ones.
    struct Samples {
        ticks: Vec<u64>,
        long: Vec<(u64, usize)>,
        /// What counts as long enough to look for a cause, in ticks. Below ten medians, so that none of
        /// those is missed.
        look: u64,
        seen: [i64; 2],
    }

    impl Samples {
        fn new(look: u64) -> Self {
            let mut ticks = vec![1; COUNT];
            ticks.clear();
            Self {
                ticks,
                long: Vec::with_capacity(COUNT / 4),
                look,
                seen: system(),
            }
        }

        fn add(&mut self, ticks: u64, before: Counted, after: impl FnOnce() -> Counted) {
            self.ticks.push(ticks);
            if ticks <= self.look {
                return;
            }
            let after = after();
            // A fault or a switch takes longer than `look`, so it is of this call or of this bookkeeping
            // since the last long one.
            let system = system();
            let [faults, switches] = [system[0] - self.seen[0], system[1] - self.seen[1]];
            let cause = if switches > 0 {
                DESCHEDULED
            } else if after.mapped != before.mapped {
                NEW_CHUNK
            } else if after.decommits != before.decommits {
                DECOMMIT
            } else if faults > 0 {
                FAULT
            } else if after.local.new_slabs != before.local.new_slabs {
                NEW_SLAB
            } else if after.local.depot_visits != before.local.depot_visits
                || after.local.words_given != before.local.words_given
            {
                DEPOT
            } else if after.local != before.local {
                REFILL
            } else {
                NONE
            };
            self.long.push((ticks, cause));
            self.seen = self::system();
        }

        fn report(mut self, name: &str, scale: f64) {
            self.ticks.sort_unstable();
            let at = |part: f64| {
                let index = ((self.ticks.len() - 1) as f64 * part) as usize;
                self.ticks.get(index).map_or(0.0, |t| *t as f64 * scale)
            };
            let median = at(0.5);
            println!(
                "{name:<24}{median:>8.0}{:>9.0}{:>9.0}{:>11.0}",
                at(0.99),
                at(0.999),
                at(1.0)
            );
            let mut causes = [(0usize, 0f64); 8];
            for (ticks, cause) in &self.long {
                let time = *ticks as f64 * scale;
                if time > 10.0 * median {
                    causes[*cause].0 += 1;
                    causes[*cause].1 = causes[*cause].1.max(time);
                }
            }
            let named = causes
                .iter()
                .zip(CAUSES)
                .filter(|((count, _), _)| *count > 0);
            let named: Vec<String> = named
                .map(|((count, most), cause)| format!("{cause} {count} (to {most:.0} ns)"))
                .collect();
            if !named.is_empty() {
                println!("    over 10 medians: {}", named.join(", "));
            }
        }
    }

    fn round(heap: &TheHeap, local: &mut TheLocal<'_>, name: &str, touch: bool, clock: (u64, f64)) {
        let (least, scale) = clock;
        let mut objects: Vec<NonNull<u8>> = vec![NonNull::dangling(); COUNT];
        objects.clear();
        let mut allocs = Samples::new(least * 4);
        for _ in 0..COUNT {
            let before = counted(heap, local);
            let start = now();
            let object = local.alloc(LAYOUT).expect("there is memory");
            if touch {
                // SAFETY: the object is ours and this long.
                unsafe { object.cast::<u64>().write(1) };
            }
            let end = now();
            objects.push(black_box(object));
            allocs.add(end - start, before, || counted(heap, local));
        }
        let mut frees = Samples::new(least * 4);
        for object in objects {
            let before = counted(heap, local);
            let start = now();
            // SAFETY: each object is live and freed once.
            unsafe { local.free(object, LAYOUT) }.expect("it is live");
            let end = now();
            frees.add(end - start, before, || counted(heap, local));
        }
        allocs.report(&format!("{name}, alloc"), scale);
        frees.report(&format!("{name}, free"), scale);
    }

    pub(super) fn main() {
        let scale = scale();
        let empty = TheHeap::new(MmapProvider::new());
        let idle = empty.local().expect("there is memory");
        // The control also tells what reading the clock costs.
        let least = (0..10_000)
            .map(|_| {
                let start = now();
                now() - start
            })
            .min()
            .unwrap_or(1);
        println!(
            "reading the clock costs {:.0} ns at least, and is in every figure",
            least as f64 * scale
        );
        println!(
            "{:<24}{:>8}{:>9}{:>9}{:>11}   ns",
            "", "p50", "p99", "p99.9", "max"
        );
        let mut control = Samples::new(least * 4);
        for _ in 0..COUNT {
            let before = counted(&empty, &idle);
            let start = now();
            let end = now();
            control.add(end - start, before, || counted(&empty, &idle));
        }
        control.report("control: nothing", scale);
        let clock = (least, scale);
        for touch in [false, true] {
            let name = |name: &str| format!("{name}{}", if touch { " + touch" } else { "" });
            let cold = TheHeap::new(MmapProvider::new());
            round(
                &cold,
                &mut cold.local().expect("there is memory"),
                &name("cold"),
                touch,
                clock,
            );
            let populated = TheHeap::new(MmapProvider::new().populating());
            let mut local = populated.local().expect("there is memory");
            round(
                &populated,
                &mut local,
                &name("cold, populated"),
                touch,
                clock,
            );
            let reserved = TheHeap::new(MmapProvider::new());
            reserved.set_policy(temporal_slab::Policy::OnClose);
            reserved.reserve(160 << 20).expect("there is memory");
            let mut local = reserved.local().expect("there is memory");
            round(&reserved, &mut local, &name("cold, reserved"), touch, clock);
            let warm = TheHeap::new(MmapProvider::new());
            warm.set_policy(temporal_slab::Policy::Never);
            let mut local = warm.local().expect("there is memory");
            let objects: Vec<_> = (0..COUNT)
                .map(|_| {
                    let object = local.alloc(LAYOUT).expect("there is memory");
                    // SAFETY: the object is ours and this long.
                    unsafe { object.write_bytes(1, 128) };
                    object
                })
                .collect();
            for object in objects {
                // SAFETY: each object is live and freed once.
                unsafe { local.free(object, LAYOUT) }.expect("it is live");
            }
            round(&warm, &mut local, &name("warm"), touch, clock);
        }
    }
}
