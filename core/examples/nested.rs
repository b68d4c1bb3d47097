//! Nested domains: queries within transactions within a request. Each level's memory goes when its
//! level ends; the compiler sees to the order.

use core::alloc::Layout;
use core::error::Error;
use temporal_slab::config::Standard;
use temporal_slab::provider::StaticProvider;
use temporal_slab::{Domain, DomainGuard, EpochState, Heap};

fn main() -> Result<(), Box<dyn Error>> {
    let mut memory = Box::<[u8]>::new_uninit_slice(8 << 20);
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
    let heap: Heap<Standard<_>> = Heap::new(provider);
    let mut local = heap.local()?;
    let layout = Layout::new::<[u64; 16]>();
    let request = Domain::open(&heap)?.close_on_exit();
    let in_request = request.enter()?;
    let answer = in_request.alloc(&mut local, layout)?;
    for _ in 0..3 {
        let transaction = Domain::open(&heap)?.close_on_exit();
        let in_transaction = in_request.enter(&transaction)?;
        for _ in 0..5 {
            let query = Domain::open(&heap)?.close_on_exit();
            let in_query = in_transaction.enter(&query)?;
            assert_eq!(
                in_query.outer().map(DomainGuard::epoch),
                Some(transaction.epoch())
            );
            let row = in_query.alloc(&mut local, layout)?;
            // SAFETY: it is live and used no more.
            unsafe { local.free(row, layout)? };
        }
        assert_eq!(heap.epoch_stats(transaction.epoch())?.domains, 1);
        drop(in_transaction);
        assert_eq!(heap.state(transaction.epoch())?, EpochState::Closing);
    }
    assert_eq!(heap.state(request.epoch())?, EpochState::Active);
    // SAFETY: it is live and used no more.
    unsafe { local.free(answer, layout)? };
    println!("three transactions of five queries in one request");
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}
