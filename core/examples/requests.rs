//! Requests: each has an epoch of its own, which its domain closes when the request has been answered.
//! What a request leaks is seen, and what it frees comes back at once.

use core::alloc::Layout;
use core::error::Error;
use temporal_slab::config::Standard;
use temporal_slab::provider::StaticProvider;
use temporal_slab::{Domain, Heap, Policy};

fn main() -> Result<(), Box<dyn Error>> {
    let mut memory = Box::<[u8]>::new_uninit_slice(8 << 20);
    let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
    let heap: Heap<Standard<_>> = Heap::new(provider);
    heap.set_policy(Policy::EAGER);
    let mut local = heap.local()?;
    let layout = Layout::new::<[u8; 128]>();
    let mut leaky = None;
    for number in 0..1000 {
        let request = Domain::open(&heap)?.close_on_exit();
        heap.set_label(request.epoch(), "request")?;
        let inside = request.enter()?;
        let mut headers = Vec::new();
        for _ in 0..50 {
            headers.push(inside.alloc(&mut local, layout)?);
        }
        for (index, header) in headers.into_iter().enumerate() {
            if number == 500 && index == 7 {
                // One object outlives its request: it stays valid, and its epoch tells of it.
                leaky = Some((request.epoch(), header));
            } else {
                // SAFETY: it is live and used no more.
                unsafe { local.free(header, layout)? };
            }
        }
        local.leave(request.epoch());
    }
    let (epoch, object) = leaky.ok_or("request 500 leaks")?;
    let info = heap.epoch_stats(epoch)?;
    assert_eq!((info.live_objects(), info.label.as_str()), (1, "request"));
    println!(
        "{:?} still holds {} object",
        info.epoch,
        info.live_objects()
    );
    // SAFETY: it is live and used no more.
    unsafe { local.free(object, layout)? };
    assert_eq!(heap.epoch_stats(epoch)?.live_objects(), 0);
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}
