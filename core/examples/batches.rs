//! Batches: transactions are allocated in the batch's epoch and committed or not; when the batch ends,
//! its epoch is closed and all that was freed in it goes back.

use core::alloc::Layout;
use core::error::Error;
use temporal_slab::config::Standard;
use temporal_slab::provider::StaticProvider;
use temporal_slab::{AllocError, Heap};

fn main() -> Result<(), Box<dyn Error>> {
    let mut memory = Box::<[u8]>::new_uninit_slice(8 << 20);
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
    let heap: Heap<Standard<_>> = Heap::new(provider);
    let mut local = heap.local()?;
    let layout = Layout::new::<[u64; 32]>();
    for _ in 0..20 {
        let batch = heap.advance()?;
        let mut transactions = Vec::new();
        for _ in 0..5000 {
            transactions.push(local.alloc_in(batch, layout)?);
        }
        let full = heap.epoch_stats(batch)?;
        assert_eq!(full.live_objects(), 5000);
        for transaction in transactions {
            // SAFETY: it is live and used no more.
            unsafe { local.free(transaction, layout)? };
        }
        local.leave(batch);
        heap.close(batch)?;
        assert_eq!(local.alloc_in(batch, layout), Err(AllocError::EpochClosed));
        assert_eq!(heap.epoch_stats(batch)?.live_objects(), 0);
    }
    println!("20 batches of 5000; {:?}", heap.bytes());
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}
