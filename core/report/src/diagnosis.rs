//! Diagnosis: what is wrong with a heap, by its figures alone, the worst first, each with its evidence and
//! with what to do.

use super::finding::{Culprit, Finding};
use super::labels::epochs;
use temporal_slab::config::Config;
use temporal_slab::snapshot::{EpochStats, HeapStats};
use temporal_slab::{Heap, Policy};

/// The most findings that are kept: the worst.
pub const MAX_FINDINGS: usize = 24;

/// From where on something is a finding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// An epoch is old if so many were opened after it, and, where the provider has a clock...
    pub younger: u64,
    /// ...that is at least so many nanoseconds ago;
    pub least_age_ns: u64,
    /// or if it is so old, whatever was opened since.
    pub age_ns: u64,
    /// Slots of slabs in use are fragmented if less than this share of them is live...
    pub live_share: f64,
    /// ...and so many bytes are free between them.
    pub pinned_bytes: u64,
    /// The share of takes that had to be tried again, or of visits to a lock that had to wait.
    pub contention: f64,
    /// Of how many takes or visits, at least.
    pub visits: u64,
    /// How often all that the heap ever held was given back for want of room in the cache, and made slabs again.
    pub churn: u64,
    /// The share of a limited good (the byte limit, the ring, handle ids) that is used.
    pub exhaustion: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            younger: 8,
            least_age_ns: 1_000_000_000,
            age_ns: 60_000_000_000,
            live_share: 0.25,
            pinned_bytes: 1 << 20,
            contention: 0.05,
            visits: 1000,
            churn: 8,
            exhaustion: 0.90,
        }
    }
}

/// What was found, the worst first.
#[derive(Debug, Clone, Copy)]
pub struct Diagnosis {
    findings: [Option<Finding>; MAX_FINDINGS],
    /// How many there were, those included that found no room here.
    pub found: usize,
}

impl Diagnosis {
    /// The findings.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().flatten()
    }

    /// Adds a finding, to one of its kind and label if there is one. Where there are more than there is room for, a label is told of as far
    /// as it was kept.
    fn add(&mut self, mut finding: Finding) {
        let mut found = self.findings.iter();
        if let Some(at) = found.position(|one| one.is_some_and(|one| finding.add(&one)))
            && let Some(behind) = self.findings.get_mut(at..)
        {
            // It is about more by now, and may have another place.
            behind.rotate_left(1);
            if let Some(place) = behind.last_mut() {
                *place = None;
            }
        } else {
            self.found += 1;
        }
        let is_better =
            |place: &Option<Finding>| place.is_none_or(|other| other.rank() < finding.rank());
        if let Some(at) = self.findings.iter().position(is_better)
            && let Some(behind) = self.findings.get_mut(at..)
        {
            behind.rotate_right(1);
            if let Some(place) = behind.first_mut() {
                *place = Some(finding);
            }
        }
    }
}

/// Looks at a heap's figures, and says what is wrong. Takes as long as [`Heap::stats`] and
/// [`Heap::epoch_stats`] for each epoch.
#[must_use]
pub fn diagnose<C: Config>(heap: &Heap<C>, thresholds: &Thresholds) -> Diagnosis {
    let mut diagnosis = Diagnosis {
        findings: [None; MAX_FINDINGS],
        found: 0,
    };
    let stats = heap.stats();
    for (_, epoch) in epochs(heap, 0) {
        if let Ok(epoch) = heap.epoch_stats(epoch) {
            of_epoch(&epoch, thresholds, &mut |finding| diagnosis.add(finding));
        }
    }
    of_heap(&stats, heap.policy(), thresholds, &mut |finding| {
        diagnosis.add(finding)
    });
    diagnosis
}

fn of_epoch(epoch: &EpochStats, thresholds: &Thresholds, found: &mut dyn FnMut(Finding)) {
    let culprit = Culprit {
        epoch: epoch.epoch,
        epochs: 1,
        label: epoch.label,
        age_ns: epoch.age_ns,
        younger: epoch.younger,
        live_objects: epoch.live_objects(),
        bytes: epoch.bytes,
        sizes: epoch.sizes,
    };
    let is_overtaken = culprit.younger >= thresholds.younger;
    let is_old = match culprit.age_ns {
        Some(age) if is_overtaken => age >= thresholds.least_age_ns.min(thresholds.age_ns),
        Some(age) => age >= thresholds.age_ns,
        None => is_overtaken,
    };
    let is_root = culprit.epoch.index() == 0;
    if is_old && !epoch.is_current && !is_root {
        // One that was opened last of all is not forgotten, however old it is.
        let is_forgotten = epoch.domains == 0 && culprit.younger > 0;
        if !epoch.is_open() && culprit.live_objects > 0 {
            found(Finding::Leak(culprit));
        } else if epoch.is_open() && is_forgotten {
            found(Finding::ForgottenClose(culprit));
        }
    }
    let live = epoch.slabs.live_slots;
    let slots = live.saturating_add(epoch.pinned_slots);
    let is_sparse = live > 0 && (live as f64) < slots as f64 * thresholds.live_share;
    if is_sparse && epoch.pinned_bytes >= thresholds.pinned_bytes {
        found(Finding::Fragmentation {
            culprit,
            slabs: epoch.slabs.listed.saturating_sub(epoch.slabs.whole),
            pinned_bytes: epoch.pinned_bytes,
        });
    }
}

fn of_heap(
    stats: &HeapStats,
    policy: Policy,
    thresholds: &Thresholds,
    found: &mut dyn FnMut(Finding),
) {
    let pages = &stats.pages;
    if pages.decommits_failed > 0 {
        found(Finding::DecommitFails {
            failed: pages.decommits_failed,
            succeeded: pages.decommits,
            empty_bytes: stats.residency.reclaimable(),
        });
    }
    let keeps = (policy.keep < usize::MAX).then_some(policy.keep);
    let slabs = &stats.slabs;
    // Each byte that the heap ever had went back so often, and was made a slab again.
    let least = thresholds.churn.saturating_mul(pages.most_committed.max(1));
    let is_churning = stats.overflowed_bytes >= least;
    if let Some(keeps) = keeps.filter(|_| is_churning) {
        found(Finding::CacheTooSmall {
            made: slabs.made,
            overflowed: slabs.overflowed,
            slabs: slabs.slabs,
            keeps,
        });
    }
    let locals = &stats.locals;
    if locals.held_in_closed_bytes > 0 {
        found(Finding::LocalsHoldClosed {
            epoch_caches: locals.closed_epoch_caches,
            bytes: locals.held_in_closed_bytes,
            local: locals.most_held_in_closed.local,
        });
    }
    let shared = &stats.shared;
    if shared.takes >= thresholds.visits && shared.retry_rate() > thresholds.contention {
        found(Finding::SharedPathContended {
            retries: shared.retries,
            takes: shared.takes,
        });
    }
    let locks = [
        ("lists", stats.locks.lists),
        ("pages", stats.locks.pages),
        ("ring", stats.locks.ring),
        ("locals", stats.locks.locals),
    ];
    for (name, lock) in locks {
        if lock.taken >= thresholds.visits && lock.contention() > thresholds.contention {
            found(Finding::LockContended {
                lock: name,
                contended: lock.contended,
                taken: lock.taken,
            });
        }
    }
    let [memory, limit, ..] = stats.errors.allocs;
    if memory + limit > 0 {
        found(Finding::OutOfMemory { memory, limit });
    }
    let goods = [
        (
            "bytes of the limit",
            pages.committed,
            pages.limit.unwrap_or(u64::MAX),
        ),
        (
            "positions of the ring",
            stats.open_epochs + stats.closing_epochs,
            stats.ring,
        ),
        ("handle ids", stats.handle_ids.given, stats.handle_ids.total),
    ];
    for (what, used, of) in goods {
        if of > 0 && used as f64 >= of as f64 * thresholds.exhaustion {
            found(Finding::NearlyExhausted { what, used, of });
        }
    }
    let errors = stats.errors.misuses();
    if errors > 0 {
        let double_frees = stats.errors.frees[0].saturating_add(stats.errors.late_double_frees);
        found(Finding::Misuse {
            errors,
            double_frees,
        });
    }
}
