//! Runs one operation of a heap so many times: what `cargo xtask instructions` counts.
//!
//! The difference between a long run and a short one is what the operation costs, for both begin
//! with the same preparation and end without any clearing up.

use std::alloc::Layout;
use std::env;
use std::hint::black_box;
use std::iter;
use std::process::{self, ExitCode};
use std::ptr::NonNull;

use temporal_slab::config::Unchecked;
use temporal_slab::provider::StaticProvider;
use temporal_slab::{Heap, Local};

type Provider = StaticProvider<'static>;
type TheHeap = Heap<Unchecked<Provider>>;
type TheLocal = Local<'static, Unchecked<Provider>>;

const BYTES: usize = 32 << 20;
static mut MEMORY: [u8; BYTES] = [0; BYTES];

// SAFETY: nothing else names MEMORY.
static HEAP: TheHeap =
    Heap::new(unsafe { StaticProvider::from_raw((&raw mut MEMORY).cast(), BYTES) });

/// The most objects that a batch can have.
const MOST: usize = 20_000;

/// How many layouts the mixed pairs go through before they begin anew. The number of runs that is
/// counted is a multiple of it, so every layout counts equally.
const LAYOUTS: usize = 1_000;

const USAGE: &str = "\
usage: fastpath OPERATION COUNT
operations: pair-local, pair-shared, pair-mixed, pair-malloc, batch-alloc, batch-free (COUNT at most 20000)";

// Not inlined, as they would not be in a program of any size: what is counted includes the call.

#[inline(never)]
fn local_alloc(local: &mut TheLocal, layout: Layout) -> NonNull<u8> {
    match local.alloc(layout) {
        Ok(object) => object,
        Err(error) => fail(&error.to_string()),
    }
}

/// # Safety
/// As for [`Local::free`].
#[inline(never)]
unsafe fn local_free(local: &mut TheLocal, object: NonNull<u8>, layout: Layout) {
    // SAFETY: the caller's promise.
    if let Err(error) = unsafe { local.free(object, layout) } {
        fail(&error.to_string());
    }
}

#[inline(never)]
fn shared_alloc(layout: Layout) -> NonNull<u8> {
    match HEAP.alloc(layout) {
        Ok(object) => object,
        Err(error) => fail(&error.to_string()),
    }
}

/// # Safety
/// As for [`Heap::free`].
#[inline(never)]
unsafe fn shared_free(object: NonNull<u8>, layout: Layout) {
    // SAFETY: the caller's promise.
    if let Err(error) = unsafe { HEAP.free(object, layout) } {
        fail(&error.to_string());
    }
}

#[cold]
#[inline(never)]
fn fail(error: &str) -> ! {
    eprintln!("fastpath: {error}");
    process::exit(1)
}

/// A local whose stores are of full size and whose heap has the memory that is needed.
fn warm_local(layouts: &[Layout], objects: usize) -> TheLocal {
    let mut local = match HEAP.local() {
        Ok(local) => local,
        Err(error) => fail(&error.to_string()),
    };
    // Stores grow with use: several times over.
    for _ in 0..8 {
        let batch: Vec<_> = layouts
            .iter()
            .cycle()
            .take(objects)
            .map(|&layout| (local_alloc(&mut local, layout), layout))
            .collect();
        for (object, layout) in batch {
            // SAFETY: just allocated with this layout, freed once.
            unsafe { local_free(&mut local, object, layout) };
        }
    }
    local
}

/// Layouts of sizes from 16 to 768 in no order, the same in every run.
fn mixed_layouts() -> Vec<Layout> {
    let mut state = 1u64;
    let next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let size = 16 + (state >> 32) % 753;
        Layout::from_size_align(size as usize, 8).ok()
    };
    iter::from_fn(next).take(LAYOUTS).collect()
}

fn pair_local(layout: Layout, count: usize) {
    let mut local = warm_local(&[layout], MOST);
    for _ in 0..count {
        let object = local_alloc(&mut local, black_box(layout));
        // SAFETY: just allocated with this layout.
        unsafe { local_free(&mut local, object, black_box(layout)) };
    }
    end(local);
}

fn pair_mixed(count: usize) {
    let layouts = mixed_layouts();
    let mut local = warm_local(&layouts, MOST);
    for index in 0..count {
        let layout = layouts[index % LAYOUTS];
        let object = local_alloc(&mut local, layout);
        // SAFETY: just allocated with this layout.
        unsafe { local_free(&mut local, object, layout) };
    }
    end(local);
}

fn pair_shared(layout: Layout, count: usize) {
    // More than are asked for: the heap first has to come to where every pair is like the last.
    for _ in 0..MOST + count {
        let object = shared_alloc(black_box(layout));
        // SAFETY: just allocated with this layout.
        unsafe { shared_free(object, black_box(layout)) };
    }
}

/// C's functions, of the allocator that is linked or preloaded.
fn pair_malloc(size: usize, count: usize) {
    // More than are asked for: stores first grow with use.
    for _ in 0..MOST + count {
        // SAFETY: what was just allocated is freed once.
        unsafe {
            let object = libc::malloc(black_box(size));
            libc::free(black_box(object));
        }
    }
}

fn batch_alloc(layout: Layout, count: usize) {
    let mut local = warm_local(&[layout], MOST);
    for _ in 0..count {
        black_box(local_alloc(&mut local, black_box(layout)));
    }
    end(local);
}

fn batch_free(layout: Layout, count: usize) {
    let mut local = warm_local(&[layout], MOST);
    // As many whatever the count is, so that only the frees differ.
    let objects: Vec<_> = (0..MOST).map(|_| local_alloc(&mut local, layout)).collect();
    for &object in &objects[..count.min(MOST)] {
        // SAFETY: just allocated with this layout, freed once.
        unsafe { local_free(&mut local, object, black_box(layout)) };
    }
    end(local);
}

/// Leaves everything as it is: giving it back would be counted.
fn end(local: TheLocal) {
    std::mem::forget(local);
}

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let operation = args.next().unwrap_or_default();
    let count = args.next().and_then(|count| count.parse().ok());
    let one = Layout::new::<[u64; 8]>();
    match (operation.as_str(), count) {
        ("pair-local", Some(count)) => pair_local(one, count),
        ("pair-shared", Some(count)) => pair_shared(one, count),
        ("pair-mixed", Some(count)) => pair_mixed(count),
        ("pair-malloc", Some(count)) => pair_malloc(one.size(), count),
        ("batch-alloc", Some(count)) if count <= MOST => batch_alloc(one, count),
        ("batch-free", Some(count)) if count <= MOST => batch_free(one, count),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
