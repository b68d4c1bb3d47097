//! Forks of a threaded program: no child hangs, and each can allocate.
#![cfg(target_os = "linux")]

mod common;

use common::alone;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::HashMap;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use temporal_slab_hosted::TemporalSlab;

#[global_allocator]
static GLOBAL: TemporalSlab = TemporalSlab;

const FORKS: usize = 1000;

/// What a child does: allocates of all sizes, frees what its parent allocated, makes a thread of its own.
fn child(inherited: Vec<Vec<u8>>) -> bool {
    let mut map = HashMap::new();
    for n in 0..200usize {
        map.insert(n, vec![n as u8; n * 37]);
    }
    let whole = inherited.iter().all(|bytes| bytes.iter().all(|b| *b == 9));
    drop(inherited);
    TemporalSlab::heap().reclaim();
    let large = vec![1u8; 5 << 20];
    // With its own local, in a process that has lost the others.
    let there = std::thread::spawn(|| (0..1000).map(|n| vec![n; 10].len()).sum::<usize>());
    let sum = there.join().unwrap_or(0);
    whole && map[&199].len() == 199 * 37 && large.len() == 5 << 20 && sum == 10_000
}

/// 1,000 forks while four threads allocate, free, open and close epochs and reclaim: 0 hung children, and
/// each can allocate. Catches a lock that a thread held which is not in the child.
///
/// No thread begins or ends meanwhile, in this process: a child that makes a thread would wait for the standard
/// library's own lock if another thread had it at the fork, whatever the allocator.
#[test]
fn children_can_allocate() {
    if alone("children_can_allocate") {
        return;
    }
    let begun = Barrier::new(5);
    let stop = AtomicBool::new(false);
    let (mut hung, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (stop, begun) = (&stop, &begun);
            scope.spawn(move || {
                begun.wait();
                let mut objects: Vec<Vec<u8>> = Vec::new();
                let mut step = thread;
                while !stop.load(Ordering::Relaxed) {
                    step += 1;
                    objects.push(vec![1; (step * 7919) % 5000]);
                    if objects.len() > 300 {
                        objects.drain(..250);
                    }
                    match step % 256 {
                        0 => TemporalSlab::heap().reclaim(),
                        64 => drop(TemporalSlab::phase().map(|phase| (vec![0u8; 100], phase))),
                        128 => TemporalSlab::flush_thread(),
                        _ => {}
                    }
                }
            });
        }
        begun.wait();
        for fork in 0..FORKS {
            let inherited: Vec<Vec<u8>> = (0..20).map(|n| vec![9; n * 100]).collect();
            // SAFETY: the child only does what a program may do whose allocator can be used after a fork,
            // and ends without running anything of its parent's.
            let id = unsafe { libc::fork() };
            assert!(id >= 0, "fork {fork}");
            if id == 0 {
                let done = child(inherited);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(if done { 0 } else { 1 }) };
            }
            let end = Instant::now() + Duration::from_secs(60);
            let mut status = 0;
            loop {
                // SAFETY: the child is ours.
                let ended = unsafe { libc::waitpid(id, &raw mut status, libc::WNOHANG) };
                if ended == id {
                    break;
                }
                if Instant::now() > end {
                    hung += 1;
                    // SAFETY: as above.
                    unsafe {
                        libc::kill(id, libc::SIGKILL);
                        libc::waitpid(id, &raw mut status, 0);
                    }
                    break;
                }
                std::thread::sleep(Duration::from_micros(100));
            }
            failed += usize::from(status != 0);
            if hung > 3 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{FORKS} forks: {hung} hung, {failed} failed");
    assert_eq!((hung, failed), (0, 0));
}

/// A child that drops its parent's reclaimer, as it does when it returns from `main`: it has no such thread,
/// and goes on.
#[test]
fn a_child_drops_the_reclaimer() {
    if alone("a_child_drops_the_reclaimer") {
        return;
    }
    let reclaimer = TemporalSlab::start_reclaimer(Duration::from_millis(1)).unwrap();
    for _ in 0..20 {
        // SAFETY: as above.
        let id = unsafe { libc::fork() };
        if id == 0 {
            drop(reclaimer);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(7) };
        }
        let mut status = 0;
        // SAFETY: the child is ours.
        assert_eq!(unsafe { libc::waitpid(id, &raw mut status, 0) }, id);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7);
    }
    drop(reclaimer);
}
