//! Pages from the system: their shape, what they cost in mappings, and what happens when the system says no.
#![cfg(target_os = "linux")]

mod common;

use common::{MIB, TestHeap, alone, layout, page_faults, touched};
use core::ptr::NonNull;
use temporal_slab::provider::{PageProvider, Region};
use temporal_slab::{AllocError, Policy};
use temporal_slab_hosted::rss::{Rollup, Usage, mappings};
use temporal_slab_hosted::{MmapProvider, Purge};

const CHUNK: usize = MmapProvider::CHUNK_SIZE;

/// Regions are aligned as asked, apart from each other, zero, and next to each other: a hundred chunks
/// are a few mappings and not a hundred, and leave no address space between them.
#[test]
fn regions_are_aligned_and_leave_no_holes() {
    if alone("regions_are_aligned_and_leave_no_holes") {
        return;
    }
    let provider = MmapProvider::new();
    let before = mappings().unwrap();
    let mut regions: Vec<Region> = (0..100)
        .map(|_| provider.acquire(CHUNK, CHUNK).unwrap())
        .collect();
    regions.sort_by_key(|region| region.base);
    assert!(
        regions
            .iter()
            .all(|r| r.base.addr().get().is_multiple_of(CHUNK))
    );
    assert!(
        regions
            .windows(2)
            .all(|w| w[0].end().unwrap() <= w[1].base.addr().get())
    );
    // What the process had mapped before may be in the way, once or twice.
    let pairs = regions.windows(2);
    let touching = pairs.filter(|w| w[0].end() == Some(w[1].base.addr().get()));
    assert!(touching.count() >= 95);
    assert!(mappings().unwrap() <= before + 3);
    for region in &regions {
        // SAFETY: the region is ours.
        unsafe {
            assert_eq!(region.base.read(), 0);
            region.base.write(1);
        }
    }
    assert_eq!(provider.mapped_bytes(), 100 * CHUNK);
    for align in [4096, 65536, CHUNK, 16 * CHUNK] {
        let odd = provider.acquire(12345, align).unwrap();
        assert!(odd.base.addr().get().is_multiple_of(align) && odd.size >= 12345);
        regions.push(odd);
    }
    for region in regions {
        // SAFETY: each came from this provider and is used no more.
        unsafe { provider.release(region) };
    }
    assert_eq!((provider.mapped_bytes(), provider.failed_unmaps()), (0, 0));
    assert!(mappings().unwrap() <= before + 3);
}

/// 200,000 slabs freed in checkerboard order: pages go back by advice, so the process has at most 8
/// mappings more. Catches a provider that unmaps or protects inside a chunk.
#[test]
fn a_checkerboard_splits_no_mapping() {
    if alone("a_checkerboard_splits_no_mapping") {
        return;
    }
    let heap = TestHeap::new(MmapProvider::new());
    heap.set_policy(Policy::EAGER);
    let mut local = heap.local().unwrap();
    let before = mappings().unwrap();
    // A slab of its own each: one object of 4 KiB and more is a slab.
    let objects: Vec<_> = (0..200_000).map(|_| touched(&mut local, 8193)).collect();
    let resident = Usage::read().unwrap().resident_bytes;
    for object in objects.iter().step_by(2) {
        // SAFETY: it is live and used no more.
        unsafe { local.free(*object, layout(8193)) }.unwrap();
    }
    let after = Usage::read().unwrap().resident_bytes;
    assert!(after < resident * 6 / 10, "{after} of {resident}");
    let grown = mappings().unwrap() - before;
    println!(
        "{grown} mappings more, {} decommits",
        heap.page_stats().decommits
    );
    assert!(grown <= 8, "{grown} mappings more");
    for object in objects.iter().skip(1).step_by(2) {
        // SAFETY: as above.
        unsafe { local.free(*object, layout(8193)) }.unwrap();
    }
}

/// Where the kernel refuses to take pages back (they are locked) they stay counted as resident, and the
/// refusals are counted. Catches a heap that believes what it asked for.
#[test]
fn refused_advice_is_seen() {
    if alone("refused_advice_is_seen") {
        return;
    }
    let heap = TestHeap::new(MmapProvider::new());
    heap.set_policy(Policy::NEVER);
    let mut local = heap.local().unwrap();
    // One object keeps the chunk from going back whole.
    let keeper = touched(&mut local, 4096);
    let objects: Vec<_> = (0..256).map(|_| touched(&mut local, 4096)).collect();
    let chunk = keeper.addr().get() & !(CHUNK - 1);
    let at = core::ptr::with_exposed_provenance::<libc::c_void>(chunk);
    // SAFETY: the chunk is mapped; locking it changes no content.
    if unsafe { libc::mlock(at, CHUNK) } != 0 {
        println!("this process may not lock memory: nothing to see");
        return;
    }
    for object in objects {
        // SAFETY: it is live and used no more.
        unsafe { local.free(object, layout(4096)) }.unwrap();
    }
    local.flush();
    let resident = heap.bytes().resident;
    heap.reclaim();
    assert!(heap.provider().failed_advice() > 0);
    assert!(heap.page_stats().decommits_failed > 0);
    assert_eq!(heap.bytes().resident, resident, "they are still there");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::munlock(at, CHUNK) }, 0);
    // Something else becomes empty, and all of it goes.
    // SAFETY: it is live and used no more.
    unsafe { local.free(keeper, layout(4096)) }.unwrap();
    local.flush();
    heap.reclaim();
    assert!(heap.bytes().resident < resident / 2);
}

/// Without address space the answer is an error, again and again, and the heap goes on when there is some.
#[test]
fn out_of_address_space_is_an_error() {
    if alone("out_of_address_space_is_an_error") {
        return;
    }
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    let first = touched(&mut local, 100);
    let limit = |bytes: u64| {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the structure is ours.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        assert_eq!(set, 0);
    };
    let mut objects = Vec::with_capacity(100_000);
    limit(Usage::read().unwrap().virtual_bytes + (64 * MIB) as u64);
    let error = loop {
        match local.alloc(layout(3000)) {
            Ok(object) => objects.push(object),
            Err(error) => break error,
        }
    };
    let large = local.alloc(layout(100 * MIB));
    let again = local.alloc(layout(3000));
    limit(libc::RLIM_INFINITY);
    assert_eq!(error, AllocError::OutOfMemory);
    assert_eq!(
        (large, again),
        (Err(AllocError::OutOfMemory), Err(AllocError::OutOfMemory))
    );
    assert!(objects.len() > 8 * MIB / 3000, "{}", objects.len());
    objects.push(local.alloc(layout(3000)).unwrap());
    for object in objects {
        // SAFETY: it is live and used no more.
        unsafe { local.free(object, layout(3000)) }.unwrap();
    }
    // SAFETY: as above.
    unsafe { local.free(first, layout(100)) }.unwrap();
}

/// With as many mappings as the kernel allows, the answer is an error, what is held is given back all the
/// same, and nothing is lost.
#[test]
fn out_of_mappings_is_an_error() {
    if alone("out_of_mappings_is_an_error") {
        return;
    }
    let most: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    if most > 300_000 {
        println!("{most} mappings are too many to use up");
        return;
    }
    let heap = TestHeap::new(MmapProvider::new());
    let mut local = heap.local().unwrap();
    let mut objects: Vec<_> = (0..20_000).map(|_| touched(&mut local, 1000)).collect();
    // Every other page of a long mapping is protected: a mapping each.
    let size = most * 4096;
    let filler = MmapProvider::new().acquire(size, 4096).unwrap();
    let mut pages = 0;
    for page in (0..most).step_by(2) {
        // SAFETY: the page is of the filler.
        let done = unsafe {
            libc::mprotect(
                filler.base.as_ptr().add(page * 4096).cast(),
                4096,
                libc::PROT_NONE,
            )
        };
        if done != 0 {
            break;
        }
        pages += 1;
    }
    assert!(pages > most / 4, "{pages} of {most}");
    let mut failures = 0;
    for _ in 0..20_000 {
        match local.alloc(layout(1000)) {
            Ok(object) => objects.push(object),
            Err(error) => {
                assert_eq!(error, AllocError::OutOfMemory);
                failures += 1;
            }
        }
    }
    let large: Vec<_> = (0..4).map(|_| local.alloc(layout(8 * MIB))).collect();
    println!(
        "{failures} of 20000 small, {} of 4 large",
        large.iter().filter(|l| l.is_err()).count()
    );
    for object in objects {
        // SAFETY: it is live and used no more.
        unsafe { local.free(object, layout(1000)) }.unwrap();
    }
    for object in large.into_iter().flatten() {
        // SAFETY: as above.
        unsafe { local.free(object, layout(8 * MIB)) }.unwrap();
    }
    local.flush();
    heap.reclaim();
    assert!(heap.bytes().resident < MIB);
}

/// A limit is an error by its effect: no memory.
#[test]
fn a_limit_of_the_provider() {
    let heap = TestHeap::new(MmapProvider::new().with_limit(10 * MIB));
    let mut local = heap.local().unwrap();
    assert_eq!(local.alloc(layout(11 * MIB)), Err(AllocError::OutOfMemory));
    let object = touched(&mut local, 2 * MIB);
    assert!(heap.provider().mapped_bytes() <= 10 * MIB);
    // SAFETY: it is live and used no more.
    unsafe { local.free(object, layout(2 * MIB)) }.unwrap();
}

/// Given back lazily pages stay resident, are told apart, and do not read as zero for sure.
#[test]
fn lazy_pages_are_told_apart() {
    if alone("lazy_pages_are_told_apart") {
        return;
    }
    let freed = |purge: Purge| {
        let heap = TestHeap::new(MmapProvider::new().purging(purge));
        let mut local = heap.local().unwrap();
        let objects: Vec<_> = (0..20_000).map(|_| touched(&mut local, 2048)).collect();
        let before = Rollup::read().unwrap();
        for (number, object) in objects.into_iter().enumerate() {
            if number % 1000 != 0 {
                // SAFETY: it is live and used no more.
                unsafe { local.free(object, layout(2048)) }.unwrap();
            }
        }
        local.flush();
        heap.reclaim();
        let after = Rollup::read().unwrap();
        // Whatever the pages hold, zeroed memory is zero.
        for _ in 0..1000 {
            let zeroed = local.alloc_zeroed(layout(2048)).unwrap();
            // SAFETY: the object is ours and this long.
            let bytes = unsafe { core::slice::from_raw_parts(zeroed.as_ptr(), 2048) };
            assert!(bytes.iter().all(|b| *b == 0));
        }
        (before, after)
    };
    let (before, after) = freed(Purge::Now);
    assert!(after.resident_bytes + 30_000_000 < before.resident_bytes);
    assert_eq!(after.lazily_freed_bytes, 0);
    let (before, after) = freed(Purge::Lazy);
    assert!(after.resident_bytes + 4_000_000 > before.resident_bytes);
    assert!(after.lazily_freed_bytes > 30_000_000, "{after:?}");
}

/// Made present in batches, the pages behind the first one that is touched are there already; without, they
/// are not. Reserved memory is touched without any fault.
#[test]
fn batches_spare_faults() {
    if alone("batches_spare_faults") {
        return;
    }
    /// Pages of the object's 64 KiB that are in memory.
    fn present(object: NonNull<u8>) -> usize {
        let mut pages = [0u8; 16];
        let block = object.as_ptr().map_addr(|at| at & !0xffff);
        // SAFETY: the block is mapped, and has 16 pages.
        let told = unsafe { libc::mincore(block.cast(), 0x10000, pages.as_mut_ptr()) };
        assert_eq!(told, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }
    let after_one = |provider: MmapProvider| {
        let heap = TestHeap::new(provider);
        let mut local = heap.local().unwrap();
        // The first object of a block: not of the first, which has the chunk's map in it.
        let block = |object: NonNull<u8>| object.addr().get() >> 16;
        // Nor while the epoch has few slabs: a slab has two of these.
        for _ in 0..32 {
            touched(&mut local, 8000);
        }
        let first = block(touched(&mut local, 8000));
        loop {
            let object = touched(&mut local, 8000);
            if block(object) != first {
                return present(object);
            }
        }
    };
    let (batched, plain) = (
        after_one(MmapProvider::new()),
        after_one(MmapProvider::new().without_populating()),
    );
    println!("of 16 pages {batched} are present in batches, {plain} without");
    assert_eq!(batched, 16);
    assert!(plain <= 3);

    let faults = |reserve: bool| {
        let heap = TestHeap::new(MmapProvider::new().without_populating());
        if reserve {
            heap.reserve(24 * MIB).unwrap();
        }
        let mut local = heap.local().unwrap();
        let mut objects = Vec::with_capacity(40_000);
        objects.push(touched(&mut local, 512));
        let before = page_faults();
        for _ in 1..40_000 {
            objects.push(touched(&mut local, 512));
        }
        page_faults() - before
    };
    let (plain, reserved) = (faults(false), faults(true));
    println!("faults for 5,000 pages: {plain}, reserved {reserved}");
    // What is left are metadata and the vector of the test.
    assert!(plain >= 4900 && reserved < 100);
}

/// Regions of different sizes, too, lie next to each other, and addresses are used again.
#[test]
fn regions_of_many_sizes_leave_no_holes() {
    if alone("regions_of_many_sizes_leave_no_holes") {
        return;
    }
    let provider = MmapProvider::new();
    let mut regions: Vec<Region> = (0..60)
        .map(|n| provider.acquire(CHUNK << (n % 3), CHUNK).unwrap())
        .collect();
    regions.sort_by_key(|region| region.base);
    let pairs = regions.windows(2);
    let touching = pairs.filter(|w| w[0].end() == Some(w[1].base.addr().get()));
    assert!(touching.count() >= 55);
    let lowest = regions[0].base.addr().get();
    for _ in 0..1000 {
        let region = provider.acquire(64 * MIB, CHUNK).unwrap();
        assert!(
            region.base.addr().get().abs_diff(lowest) < 4 << 30,
            "addresses are used again"
        );
        // SAFETY: it is ours and unused.
        unsafe { provider.release(region) };
    }
    for region in regions {
        // SAFETY: as above.
        unsafe { provider.release(region) };
    }
}

/// What is reserved is there, is counted, and goes back like any other empty memory; `reclaim_to` gives whole
/// chunks back, too.
#[test]
fn reserved_memory_is_empty_memory() {
    let heap = TestHeap::new(MmapProvider::new());
    heap.set_policy(Policy::ON_CLOSE);
    heap.reserve(64 * MIB).unwrap();
    let bytes = heap.bytes();
    assert!(
        bytes.resident >= 64 * MIB && bytes.reclaimable >= 64 * MIB,
        "{bytes:?}"
    );
    heap.reclaim_to(20 * MIB);
    let bytes = heap.bytes();
    assert!(
        bytes.reclaimable <= 20 * MIB && bytes.taken <= 28 * MIB,
        "{bytes:?}"
    );
    heap.reclaim_to(0);
    assert!(heap.bytes().taken < MIB, "{:?}", heap.bytes());
    heap.set_limit(100 * MIB);
    assert_eq!(heap.reserve(200 * MIB), Err(AllocError::Limit));
}

/// A call that fails inside leaves the thread's `errno` as it was: a program may free something between
/// its own call and its look at it.
#[test]
fn errno_is_kept() {
    let provider = MmapProvider::new();
    let region = provider.acquire(CHUNK, CHUNK).unwrap();
    // SAFETY: the region is ours; its pages are not mapped any more when they are given back, which fails.
    let (refused, errno) = unsafe {
        provider.release(region);
        *libc::__errno_location() = 77;
        (provider.decommit(region), *libc::__errno_location())
    };
    assert!(refused.is_err());
    assert_eq!(errno, 77);
}

/// A size or an alignment that is none is refused. Catches arithmetic that overflows, and what is mapped and then lost.
#[test]
fn what_is_no_layout_is_refused() {
    let provider = MmapProvider::new();
    for (size, align) in [
        (0, 4096),
        (4096, 0),
        (4096, 5000),
        (1 << 20, 3 << 20),
        (usize::MAX, 8),
    ] {
        assert_eq!(provider.acquire(size, align), None, "{size}, {align}");
    }
    assert_eq!(provider.mapped_bytes(), 0);
}
