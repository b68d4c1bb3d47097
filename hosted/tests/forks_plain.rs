//! Forks of a program that uses the heap, and has another global allocator.
#![cfg(target_os = "linux")]

use core::alloc::Layout;
use core::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use temporal_slab_hosted::TemporalSlab;

/// No child hangs on a lock of the heap, though no thread ever had a local. Catches a preparation that only
/// the global allocator asks for.
#[test]
fn forks_are_prepared_without_the_global_allocator() {
    let stop = AtomicBool::new(false);
    let layout = Layout::from_size_align(9000, 8).unwrap();
    let mut hung = 0;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let object = TemporalSlab::heap().alloc(layout).unwrap();
                    // SAFETY: it was just allocated.
                    unsafe { TemporalSlab::heap().free(object, layout) }.unwrap();
                }
            });
        }
        for _ in 0..200 {
            // SAFETY: the child uses the heap alone, and ends.
            let id = unsafe { libc::fork() };
            if id == 0 {
                let done = TemporalSlab::heap().alloc(layout).is_ok();
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(if done { 0 } else { 1 }) };
            }
            let (mut status, end) = (0, Instant::now() + Duration::from_secs(60));
            // SAFETY: the child is ours.
            while unsafe { libc::waitpid(id, &raw mut status, libc::WNOHANG) } == 0 {
                std::thread::sleep(Duration::from_micros(100));
                if Instant::now() > end {
                    hung += 1;
                    // SAFETY: as above.
                    unsafe { libc::kill(id, libc::SIGKILL) };
                }
            }
            if hung > 0 {
                break;
            }
            assert_eq!(status, 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(hung, 0);
}
