//! A cache whose entries are evicted by epoch: entries of one generation share slabs, so evicting the
//! oldest generation gives its memory back whole, however the entries were used.

use core::alloc::Layout;
use core::error::Error;
use core::ptr::NonNull;
use std::collections::VecDeque;
use temporal_slab::config::Standard;
use temporal_slab::provider::StaticProvider;
use temporal_slab::{Epoch, Heap};

const GENERATIONS: usize = 4;
const ENTRIES: usize = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut memory = Box::<[u8]>::new_uninit_slice(16 << 20);
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
    let heap: Heap<Standard<_>> = Heap::new(provider);
    let mut local = heap.local()?;
    let layout = Layout::new::<[u8; 300]>();
    let mut cache: VecDeque<(Epoch, Vec<NonNull<u8>>)> = VecDeque::new();
    let mut most = 0;
    for generation in 0..40 {
        if cache.len() == GENERATIONS
            && let Some((oldest, entries)) = cache.pop_front()
        {
            for entry in entries {
                // SAFETY: it is live and used no more.
                unsafe { local.free(entry, layout)? };
            }
            local.leave(oldest);
            heap.close(oldest)?;
        }
        let epoch = heap.open_epoch()?;
        let mut entries = Vec::new();
        for _ in 0..ENTRIES {
            entries.push(local.alloc_in(epoch, layout)?);
        }
        cache.push_back((epoch, entries));
        let taken = heap.bytes().taken;
        if generation < GENERATIONS {
            most = most.max(taken);
        }
        // One generation more than are kept is never needed, whatever the cache has seen.
        assert!(
            taken <= most + most / GENERATIONS,
            "generation {generation}: {taken}"
        );
    }
    println!("40 generations, {GENERATIONS} at a time, in {most} bytes");
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}
