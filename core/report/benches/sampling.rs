//! What it costs to time one in so many allocations: a pair through a local as it is, and behind a sampler.
//!
//! `cargo bench -p temporal-slab-report --bench sampling`.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn main() {
    println!("this benchmark is for 64-bit Linux");
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod run {
    use core::alloc::Layout;
    use core::hint::black_box;
    use core::num::NonZeroU32;
    use criterion::Criterion;
    use temporal_slab::Heap;
    use temporal_slab::config::Unchecked;
    use temporal_slab_hosted::MmapProvider;
    use temporal_slab_report::{Latency, Report, Sampler};

    static LATENCY: Latency = Latency::new();

    pub(super) fn all(criterion: &mut Criterion) {
        let heap = Heap::<Unchecked<_>>::new(MmapProvider::new());
        let mut local = heap.local().expect("there is memory");
        let layout = Layout::new::<[u64; 16]>();
        let mut group = criterion.benchmark_group("pair");
        group.bench_function("not sampled", |bencher| {
            bencher.iter(|| {
                let object = local.alloc(black_box(layout)).expect("there is memory");
                // SAFETY: it was just allocated.
                unsafe { local.free(black_box(object), layout) }
            });
        });
        for every in [4096, 1024, 64, 1] {
            let every = NonZeroU32::new(every).expect("it is not zero");
            let mut sampler = Sampler::new(&LATENCY, every);
            group.bench_function(format!("one in {every} sampled"), |bencher| {
                bencher.iter(|| {
                    let object = sampler.alloc(&mut local, black_box(layout));
                    // SAFETY: it was just allocated.
                    unsafe { local.free(black_box(object.expect("there is memory")), layout) }
                });
            });
        }
        group.finish();
        let mut group = criterion.benchmark_group("reading");
        group.bench_function("stats", |bencher| bencher.iter(|| heap.stats()));
        group.bench_function("json", |bencher| {
            let mut text = String::new();
            bencher.iter(|| {
                text.clear();
                Report::new(&heap).json(&mut text)
            });
        });
        group.finish();
    }
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
criterion::criterion_group!(benches, run::all);
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
criterion::criterion_main!(benches);
