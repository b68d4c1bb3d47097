//! Memory is bounded at all times: what is resident is what lives, what lies between it in the same slabs, what locals hold, what
//! the policy keeps, and metadata; each of these has a bound of its own.

use crate::common::host::HostProvider;
use crate::common::{Bumping, Rng, layout, steps, walk};
use core::ptr::NonNull;
use temporal_slab::config::{Checked, Config};
use temporal_slab::{Emptied, Epoch, Heap, Local, Policy};

type Host = HostProvider<{ 1 << 18 }>;

const KEEP: usize = 512 << 10;

/// What a policy keeps, of so many bytes in use.
fn kept_by(policy: Policy, in_use: u64) -> u64 {
    let share = in_use.checked_div(policy.live_divisor.into()).unwrap_or(0);
    share.max(policy.keep as u64)
}

/// Holds each part to its bound, and the whole to its parts.
fn check<C: Config<Provider = Host>>(heap: &Heap<C>, policy: Policy, live: u64, step: usize) {
    let stats = heap.stats();
    let residency = &stats.residency;
    let parts: u64 = residency.parts().iter().map(|(_, bytes)| bytes).sum();
    let resident = heap.bytes().resident as u64;
    let tell = || format!("{policy:?}, step {step}, {live} live: {residency:?}");
    assert_eq!(parts, resident, "{}", tell());
    let kept = residency.cached + residency.warm;
    let most = Local::<C>::holding_bound() as u64;
    assert!(kept <= kept_by(policy, resident - kept), "{}", tell());
    assert!(residency.held <= most * 4, "{}", tell());
    // Of an object in a bump block the size is not counted: what it is not is between others.
    assert!(residency.live + residency.pinned >= live, "{}", tell());
}

/// Objects of all sizes, in the root epoch and in two more that are closed now and then with objects left. Catches memory that
/// stays beyond what the policy keeps, what a local holds beyond its bound, and bytes that are resident and in no part, after
/// each step.
#[test]
fn what_is_resident_is_bounded_after_each_step() {
    for policy in [
        Policy::EAGER,
        Policy::keeping(KEEP),
        Policy::proportional(KEEP),
        Policy {
            emptied: Emptied::Return,
            ..Policy::keeping(KEEP)
        },
    ] {
        storm::<Checked<Host>>(policy);
        storm::<Bumping<Host>>(policy);
    }
}

fn storm<C: Config<Provider = Host>>(policy: Policy) {
    let heap = Heap::<C>::new(Host::default());
    heap.set_policy(policy);
    let mut local = heap.local().unwrap();
    let mut rng = Rng(11);
    let mut live: Vec<(NonNull<u8>, usize)> = Vec::new();
    let mut epochs: [Option<Epoch>; 2] = [None; 2];
    for step in 0..steps(3000, 2) {
        // It grows and shrinks.
        let grows = step / 300 % 2 == 0;
        for _ in 0..rng.below(40) {
            if rng.below(8) < if grows { 5 } else { 3 } {
                let size = match rng.below(16) {
                    0 => 1 + rng.below(600 << 10),
                    1..4 => 1 + rng.below(40 << 10),
                    _ => 1 + rng.below(2000),
                };
                let object = match rng.below(3) {
                    0 => local.alloc(layout(size)),
                    place => match epochs[place - 1] {
                        Some(epoch) => local.alloc_in(epoch, layout(size)),
                        None => local.alloc(layout(size)),
                    },
                };
                live.push((object.unwrap(), size));
            } else if !live.is_empty() {
                let (object, size) = live.swap_remove(rng.below(live.len()));
                // SAFETY: it is live, of this layout, and freed once.
                unsafe { local.free(object, layout(size)) }.unwrap();
            }
        }
        let place = rng.below(16);
        if place < 2 {
            if let Some(epoch) = epochs[place].take() {
                heap.close(epoch).unwrap();
            }
            // A ring that is full of epochs with survivors has none: the root serves.
            epochs[place] = heap.open_epoch().ok();
        }
        let bytes = live.iter().map(|(_, size)| *size as u64).sum();
        check(&heap, policy, bytes, step);
    }
    for (object, size) in live {
        // SAFETY: as above.
        unsafe { local.free(object, layout(size)) }.unwrap();
    }
    drop(local);
    heap.reclaim();
    assert_eq!(walk(&heap).runs, 0);
}
