//! What a provider is asked to do with its pages: no more and no less than what is needed, and again where it refused.

use crate::common::host::HostProvider;
use crate::common::{free, layout};
use core::cell::{Cell, RefCell};
use core::ptr::NonNull;
use std::collections::BTreeSet;
use temporal_slab::config::Unchecked;
use temporal_slab::provider::{Capabilities, PageProvider, ProviderError, Region};
use temporal_slab::{AllocError, Heap, Policy};

const CHUNK: usize = 1 << 18;
const BLOCK: usize = 1 << 16;

/// Notes what it is asked, and refuses to commit when it is told to.
#[derive(Debug, Default)]
struct Noting<const TIMES: usize = 1> {
    host: HostProvider<CHUNK, TIMES>,
    refuses: Cell<bool>,
    committed: RefCell<Vec<Region>>,
    populated: RefCell<Vec<Region>>,
    decommits: Cell<usize>,
}

// SAFETY: memory comes from the host's provider, which needs no commit.
unsafe impl<const TIMES: usize> PageProvider for Noting<TIMES> {
    const CHUNK_SIZE: usize = CHUNK;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        self.host.acquire(size, align)
    }
    unsafe fn release(&self, region: Region) {
        // SAFETY: passed on.
        unsafe { self.host.release(region) };
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        self.decommits.set(self.decommits.get() + 1);
        // SAFETY: passed on.
        unsafe { self.host.decommit(pages) }
    }
    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        self.committed.borrow_mut().push(pages);
        if self.refuses.get() {
            return Err(ProviderError);
        }
        Ok(())
    }
    unsafe fn populate(&self, pages: Region) {
        self.populated.borrow_mut().push(pages);
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::FRESH_ZERO
            | Capabilities::DECOMMIT
            | Capabilities::DECOMMIT_ZERO
            | Capabilities::POPULATE
    }
}

type TestHeap<'p> = Heap<Unchecked<&'p Noting>>;

/// Whether one of the regions holds all of an object.
fn hold(regions: &[Region], object: NonNull<u8>, size: usize) -> bool {
    let (first, end) = (object.addr().get(), object.addr().get() + size);
    regions
        .iter()
        .any(|region| region.base.addr().get() <= first && end <= region.end().unwrap())
}

/// Catches pages that are used although the provider refused to commit them, and those that count as present then.
#[test]
fn what_was_refused_is_asked_for_again() {
    let provider: Noting = Noting::default();
    let heap = TestHeap::new(&provider);
    // A run in a block, a run of blocks.
    for size in [20_000, 100_000] {
        // Keeps the chunk.
        let kept = heap.alloc(layout(20_000)).unwrap();
        let object = heap.alloc(layout(size)).unwrap();
        free(&heap, object, size);
        heap.reclaim();
        let held = heap.bytes();
        provider.refuses.set(true);
        assert_eq!(heap.alloc(layout(size)), Err(AllocError::OutOfMemory));
        assert_eq!(heap.bytes(), held);
        provider.refuses.set(false);
        provider.committed.borrow_mut().clear();
        let again = heap.alloc(layout(size)).unwrap();
        let committed = provider.committed.take();
        assert!(hold(&committed, again, size), "{size}: {committed:?}");
        assert!(heap.bytes().resident >= held.resident + size);
        free(&heap, again, size);
        free(&heap, kept, 20_000);
        heap.reclaim();
    }
}

/// A block is made present when the first run in it is taken, from there to its end; a longer run at once. Catches a fault
/// for each object, pages of others, and memory for an epoch that needs little.
#[test]
fn blocks_are_made_present_once() {
    let provider: Noting = Noting::default();
    let heap = TestHeap::new(&provider);
    // Five are in a block.
    let first = [(); 10].map(|()| heap.alloc(layout(10_000)).unwrap());
    assert_eq!(provider.populated.take(), []);
    let objects = [(); 3].map(|()| heap.alloc(layout(10_000)).unwrap());
    let block = |object: NonNull<u8>| object.addr().get() / BLOCK;
    assert_eq!(block(objects[0]), block(objects[2]));
    assert_ne!(block(objects[0]), block(first[9]));
    let populated = provider.populated.take();
    assert_eq!(populated.len(), 1, "{populated:?}");
    assert!(
        objects
            .iter()
            .all(|object| hold(&populated, *object, 10_000))
    );
    assert_eq!(populated[0].end().unwrap() % BLOCK, 0);
    assert!(populated[0].base.addr().get() <= objects[0].addr().get());
    let long = heap.alloc(layout(100_000)).unwrap();
    let populated = provider.populated.take();
    assert!(hold(&populated, long, 100_000), "{populated:?}");
    assert!(populated.iter().all(|region| region.size <= 2 * BLOCK));
    for object in first.into_iter().chain(objects) {
        free(&heap, object, 10_000);
    }
    free(&heap, long, 100_000);
}

/// Where much is in memory more is made present than one block, of blocks that nobody has; they are warm then, and go back like
/// any other. Catches blocks that are lost in transit, and ones that are in memory and do not count.
#[test]
fn more_is_made_present_where_there_is_much() {
    let provider: Noting = Noting::default();
    let heap = TestHeap::new(&provider);
    heap.set_policy(Policy::NEVER);
    let objects: Vec<_> = (0..600)
        .map(|_| heap.alloc(layout(50_000)).unwrap())
        .collect();
    let before = heap.bytes();
    provider.populated.take();
    let more: Vec<_> = (0..8)
        .map(|_| heap.alloc(layout(50_000)).unwrap())
        .collect();
    let populated = provider.populated.take();
    let present: usize = populated.iter().map(|region| region.size).sum();
    assert!(populated.len() <= 6, "{populated:?}");
    assert!(populated.iter().all(|region| region.size <= 3 * BLOCK));
    let after = heap.bytes();
    assert!(after.reclaimable > before.reclaimable);
    assert!(after.resident - before.resident <= present);
    for object in objects.into_iter().chain(more) {
        free(&heap, object, 50_000);
    }
    heap.reclaim();
    assert_eq!(
        (heap.bytes().reclaimable, heap.stats().pages.chunks),
        (0, 0)
    );
}

/// To keep as much as there is asks for nothing; to keep less gives back no more than it has to; and a chunk of which
/// nothing is left goes whole.
#[test]
fn what_is_to_stay_stays() {
    let provider: Noting = Noting::default();
    let heap = TestHeap::new(&provider);
    heap.set_policy(Policy::NEVER);
    let objects: Vec<_> = (0..30)
        .map(|_| heap.alloc(layout(20_000)).unwrap())
        .collect();
    assert!(heap.stats().pages.chunks >= 3);
    for object in objects {
        free(&heap, object, 20_000);
    }
    let warm = heap.bytes().reclaimable;
    assert!(warm >= 600_000);
    heap.reclaim_to(warm);
    assert_eq!(
        (provider.decommits.get(), heap.bytes().reclaimable),
        (0, warm)
    );
    heap.reclaim_to(warm / 2);
    let left = heap.bytes().reclaimable;
    assert!(provider.decommits.get() > 0);
    assert!(left <= warm / 2 && left > warm / 4, "{left} of {warm}");
    let chunks = heap.stats().pages.chunks;
    heap.set_policy(Policy::EAGER);
    assert_eq!(heap.bytes().reclaimable, 0);
    let cold = heap.stats().pages;
    heap.reclaim_to(usize::MAX);
    let pages = heap.stats().pages;
    assert_eq!(pages.chunks, 0, "of {chunks}, and then {}", cold.chunks);
    assert_eq!(pages.chunks_released, pages.chunks_acquired);
}

/// Memory that is reserved is made present: whole chunks, and nothing behind them in a region that is longer.
#[test]
fn what_is_reserved_is_present() {
    let provider = Noting::<2>::default();
    let heap = Heap::<Unchecked<&Noting<2>>>::new(&provider);
    heap.reserve(2 * CHUNK).unwrap();
    let populated = provider.populated.take();
    assert!(populated.len() >= 2, "{populated:?}");
    for region in populated {
        let base = region.base.addr().get();
        assert_eq!((base % CHUNK, region.size), (0, CHUNK));
    }
}

/// A run of two blocks, of which one was used and the other was not, or one went back and the other did not: what holds
/// for one of them does not hold for both. Catches content of an earlier object, and pages without a commit.
#[test]
fn two_blocks_are_looked_at_both() {
    /// More than half of a block, so all of it.
    const ONE: usize = 50_000;
    const TWO: usize = 2 * BLOCK;
    let provider: Noting = Noting::default();
    let heap = TestHeap::new(&provider);
    heap.set_policy(Policy::NEVER);
    let kept = heap.alloc(layout(20_000)).unwrap();
    let fill = |object: NonNull<u8>| {
        // SAFETY: it is live, and so long.
        unsafe { object.write_bytes(0xEE, ONE) };
    };
    // Which of the two goes back before the other is free.
    for gone in [0, 1] {
        let blocks = [(); 2].map(|()| heap.alloc(layout(ONE)).unwrap());
        assert_eq!(blocks[0].addr().get() + BLOCK, blocks[1].addr().get());
        blocks.into_iter().for_each(fill);
        free(&heap, blocks[gone], ONE);
        heap.reclaim();
        free(&heap, blocks[1 - gone], ONE);
        provider.committed.borrow_mut().clear();
        let both = heap.alloc_zeroed(layout(TWO)).unwrap();
        assert_eq!(both, blocks[0]);
        let committed = provider.committed.take();
        assert!(hold(&committed, both, TWO), "{gone}: {committed:?}");
        // SAFETY: it is live, and so long.
        let bytes = unsafe { core::slice::from_raw_parts(both.as_ptr(), TWO) };
        assert!(bytes == vec![0; TWO], "{gone}");
        free(&heap, both, TWO);
        heap.reclaim();
    }
    free(&heap, kept, 20_000);
}

/// A close gives back as much as the epoch had last, also of what it freed before, and nothing if it had nothing. Catches
/// large objects whose memory stays, and a close that empties the whole heap.
#[test]
fn a_close_gives_back_what_the_epoch_had() {
    // Nothing, slabs, runs in a block, blocks; and what two of them take at least.
    for (size, takes) in [
        (0, 0),
        (2_000, 4_000),
        (20_000, 40_960),
        (50_000, 2 * 53_248),
    ] {
        let provider: Noting = Noting::default();
        let heap = TestHeap::new(&provider);
        heap.set_policy(Policy::ON_CLOSE);
        let objects = [(); 10].map(|()| heap.alloc(layout(20_000)).unwrap());
        for object in objects {
            free(&heap, object, 20_000);
        }
        let warm = heap.bytes().reclaimable;
        assert_eq!(warm, 10 * 20_480);
        let epoch = heap.open_epoch().unwrap();
        for _ in 0..if size > 0 { 30 } else { 0 } {
            // The same places again and again.
            let objects = [(); 2].map(|()| heap.alloc_in(epoch, layout(size)).unwrap());
            for object in objects {
                free(&heap, object, size);
            }
        }
        let most = heap.bytes().reclaimable;
        heap.close(epoch).unwrap();
        let left = heap.bytes().reclaimable;
        assert!(left <= most - takes, "{left} of {most} for {size}");
        assert!(size > 0 || left == warm, "{left} of {warm}");
    }
}

/// Touched pages of a provider whose chunks are long.
#[derive(Debug, Default)]
struct Touched {
    host: HostProvider<{ 4 << 20 }>,
    tells: Cell<bool>,
    asked: RefCell<Vec<usize>>,
    touched: RefCell<BTreeSet<usize>>,
    populated: RefCell<Vec<Region>>,
}

impl Touched {
    const PAGE: usize = 4096;

    fn touch(&self, address: usize) {
        self.touched.borrow_mut().insert(address / Self::PAGE);
    }

    fn touch_all(&self, object: NonNull<u8>, size: usize) {
        let first = object.addr().get();
        (first..first + size)
            .step_by(Self::PAGE)
            .for_each(|address| self.touch(address));
    }
}

// SAFETY: memory comes from the host's provider.
unsafe impl PageProvider for Touched {
    const CHUNK_SIZE: usize = 4 << 20;
    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        self.host.acquire(size, align)
    }
    unsafe fn release(&self, region: Region) {
        // SAFETY: passed on.
        unsafe { self.host.release(region) };
    }
    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        let first = pages.base.addr().get() / Self::PAGE;
        self.touched
            .borrow_mut()
            .retain(|page| !(first..first + pages.size / Self::PAGE).contains(page));
        // SAFETY: passed on.
        unsafe { self.host.decommit(pages) }
    }
    unsafe fn commit(&self, _pages: Region) -> Result<(), ProviderError> {
        Ok(())
    }
    unsafe fn populate(&self, pages: Region) {
        self.populated.borrow_mut().push(pages);
        self.touch_all(pages.base, pages.size);
    }
    fn is_present(&self, page: usize) -> Option<bool> {
        assert_eq!(page % Self::PAGE, 0);
        self.asked.borrow_mut().push(page);
        let touched = self.touched.borrow();
        self.tells
            .get()
            .then(|| touched.contains(&(page / Self::PAGE)))
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::FRESH_ZERO
            | Capabilities::DECOMMIT
            | Capabilities::DECOMMIT_ZERO
            | Capabilities::LAZY_COMMIT
            | Capabilities::POPULATE
    }
}

/// Long objects of a program that uses them whole are made present when they are handed out, all of each and nothing beside it;
/// of one that touches their ends, or whose provider does not tell, none is. One that is left as it is from time to time tells when that
/// changes. Catches memory for what nobody touches, for a change that is not seen, and for a page of which nothing is known.
#[test]
#[cfg_attr(miri, ignore = "megabytes, page by page and byte by byte")]
fn long_objects_that_are_used_whole_are_made_present() {
    const SIZE: usize = 9 << 20;
    let provider = Touched::default();
    let heap = Heap::<Unchecked<&Touched>>::new(&provider);
    heap.set_policy(Policy::EAGER);
    // One of each in turn, so that each begins in memory that went back. How many were made present.
    let round = |times: usize, touch: &dyn Fn(NonNull<u8>)| {
        let mut present = 0;
        for _ in 0..times {
            let object = heap.alloc(layout(SIZE)).unwrap();
            let populated = provider.populated.take();
            let (base, end) = (object.addr().get(), object.addr().get() + SIZE);
            for region in &populated {
                assert_eq!((region.base.addr().get(), region.size), (base, SIZE));
            }
            present += populated.len();
            touch(object);
            free(&heap, object, SIZE);
            let asked = provider.asked.take();
            assert!(asked.iter().all(|page| (base..end).contains(page)));
        }
        present
    };
    let whole = |object: NonNull<u8>| provider.touch_all(object, SIZE);
    let half = |object: NonNull<u8>| provider.touch_all(object, SIZE * 5 / 8);
    let ends = |object: NonNull<u8>| {
        provider.touch(object.addr().get());
        provider.touch(object.addr().get() + SIZE - 1);
    };
    // A provider that says nothing.
    assert_eq!(round(100, &whole), 0);
    provider.tells.set(true);
    assert_eq!(round(100, &ends), 0);
    assert_eq!(round(100, &half), 0);
    let present = round(100, &whole);
    assert!((70..100).contains(&present), "{present}");
    // It is seen within one in 32, and then nothing is made present any more.
    let present = round(100, &ends);
    assert!(present <= 32, "{present}");
    assert_eq!(round(100, &ends), 0);
    heap.reclaim();
}

/// A long object that is to be zero is not written where such are not used whole: its pages go back, and its ends, which others may have
/// written to, are zero as well. Catches a byte that is left, and memory for what nobody touches.
#[test]
#[cfg_attr(miri, ignore = "megabytes, page by page and byte by byte")]
fn long_objects_are_zero_without_being_written() {
    const SIZE: usize = (5 << 20) + 12_345;
    let provider = Touched::default();
    let heap = Heap::<Unchecked<&Touched>>::new(&provider);
    heap.set_policy(Policy::NEVER);
    let mut local = heap.local().unwrap();
    let epoch = heap.open_epoch().unwrap();
    for round in 0..9 {
        let dirty = heap.alloc(layout(SIZE)).unwrap();
        // SAFETY: it is ours, and so long.
        unsafe { dirty.write_bytes(0xEE, SIZE) };
        provider.touch_all(dirty, SIZE);
        free(&heap, dirty, SIZE);
        let object = match round % 3 {
            0 => heap.alloc_zeroed(layout(SIZE)),
            1 => local.alloc_zeroed(layout(SIZE)),
            _ => heap.alloc_zeroed_in(epoch, layout(SIZE)),
        };
        let object = object.unwrap();
        assert_eq!(object, dirty, "the memory that is warm");
        let pages = object.addr().get() / Touched::PAGE..;
        let left = provider
            .touched
            .borrow()
            .range(pages)
            .take_while(|page| **page < (object.addr().get() + SIZE) / Touched::PAGE)
            .count();
        assert_eq!(left, 0, "pages that stayed");
        // SAFETY: it is ours, and every byte of it was set.
        let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), SIZE) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        free(&heap, object, SIZE);
    }
    heap.close(epoch).unwrap();
}
