//! Epochs by label: what the most costly ones hold, and the rest as one.

use temporal_slab::Heap;
use temporal_slab::config::Config;
use temporal_slab::snapshot::{EpochStats, LockStats, SharedPathStats, SlowPathStats};
use temporal_slab::{Epoch, Label};

/// The most labels that are told apart.
pub const MAX_LABELS: usize = 32;

/// All epochs of one label together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LabelStats {
    /// The label. Epochs that were called nothing have an empty one.
    pub label: Label,
    /// How many epochs it has.
    pub epochs: u64,
    /// Bytes that they hold.
    pub bytes: u64,
    /// Bytes of their live objects.
    pub live_bytes: u64,
    /// Their live objects.
    pub live_objects: u64,
    /// Why the fast path was left in them.
    pub slow: SlowPathStats,
    /// Collisions on the shared path in them.
    pub shared: SharedPathStats,
    /// The locks of their lists.
    pub lock: LockStats,
}

impl LabelStats {
    fn add(&mut self, epoch: &EpochStats) {
        self.epochs += 1;
        self.bytes = self.bytes.saturating_add(epoch.bytes);
        self.live_bytes = self.live_bytes.saturating_add(epoch.live_bytes);
        self.live_objects = self.live_objects.saturating_add(epoch.live_objects());
        self.slow.add(&epoch.slow);
        self.shared.add(&epoch.shared);
        self.lock.add(&epoch.lock);
    }
}

/// The labels that hold the most, in this order, and the others together.
#[derive(Debug, Clone, Copy)]
pub struct Labels {
    top: [LabelStats; MAX_LABELS],
    count: usize,
    /// Epochs of labels that are not among these.
    pub other: LabelStats,
}

impl Labels {
    /// Those with the most bytes.
    #[must_use]
    pub fn top(&self) -> &[LabelStats] {
        self.top.get(..self.count).unwrap_or(&[])
    }

    /// Reads them: the `most` labels that hold the most bytes, at most [`MAX_LABELS`]. Takes time with the
    /// square of the epochs that there are, and as long as [`Heap::epoch_stats`] for each.
    #[must_use]
    pub fn read<C: Config>(heap: &Heap<C>, most: usize) -> Self {
        let mut labels = Self {
            top: [LabelStats::default(); MAX_LABELS],
            count: 0,
            other: LabelStats {
                label: Label::new("other"),
                ..LabelStats::default()
            },
        };
        let most = most.min(MAX_LABELS);
        for (index, epoch) in epochs(heap, 0) {
            let Ok(label) = heap.label(epoch) else {
                continue;
            };
            // What was ranked is looked up here and not in the heap, where the epoch that it was ranked by may be
            // gone by now. One that found no place may find none again.
            if labels.top().iter().any(|ranked| ranked.label == label) {
                continue;
            }
            let is_same = |(_, epoch): &(usize, Epoch)| heap.label(*epoch) == Ok(label);
            let same = epochs(heap, index).filter(is_same);
            let bytes = same
                .filter_map(|(_, epoch)| heap.epoch_bytes(epoch).ok())
                .sum();
            labels.rank(label, bytes, most);
        }
        // What was summed to rank them is read anew, all of it at the same time for each epoch.
        for label in labels.top.iter_mut().take(labels.count) {
            label.bytes = 0;
        }
        for (_, epoch) in epochs(heap, 0) {
            let Ok(stats) = heap.epoch_stats(epoch) else {
                continue;
            };
            let count = labels.count;
            let found = labels
                .top
                .iter_mut()
                .take(count)
                .find(|l| l.label == stats.label);
            found.unwrap_or(&mut labels.other).add(&stats);
        }
        labels
    }

    /// Puts a label among those that hold the most, if it is one of them.
    fn rank(&mut self, label: Label, bytes: u64, most: usize) {
        let at = self.top().iter().position(|other| other.bytes < bytes);
        let at = at.unwrap_or(self.count);
        if at >= most {
            return;
        }
        self.count = (self.count + 1).min(most);
        if let Some(behind) = self.top.get_mut(at..self.count) {
            behind.rotate_right(1);
            if let Some(place) = behind.first_mut() {
                *place = LabelStats {
                    label,
                    bytes,
                    ..LabelStats::default()
                };
            }
        }
    }
}

/// The epochs that there are, from a position of the ring on.
pub(super) fn epochs<C: Config>(
    heap: &Heap<C>,
    from: usize,
) -> impl Iterator<Item = (usize, Epoch)> {
    (from..heap.epoch_records()).filter_map(|index| Some((index, heap.epoch_at(index)?)))
}
