//! Reports of a heap: JSON, the text format of Prometheus, text for people, and a diagnosis.
//!
//! Principles:
//! - It reads the public face and nothing else, takes no memory, and writes to any [`fmt::Write`]: the same report
//!   comes out of a serial port and of a file.
//! - One table ([`metric`]) names every figure, so all encodings say the same.
//! - The number of series does not depend on what a program calls its epochs: the labels that hold the most are
//!   told apart, and the rest is one.
//!
//! ```
//! # use temporal_slab::{Heap, config::Standard, provider::StaticProvider};
//! # use temporal_slab_report::Report;
//! # let mut memory = vec![core::mem::MaybeUninit::uninit(); 1 << 20];
//! # let provider: StaticProvider<'_> = StaticProvider::new(&mut memory);
//! # let heap: Heap<Standard<StaticProvider<'_>>> = Heap::new(provider);
//! let epoch = heap.open_epoch()?;
//! heap.set_label(epoch, "requests")?;
//! let mut text = String::new();
//! Report::new(&heap).prometheus(&mut text).unwrap();
//! assert!(text.contains("temporal_slab_resident_bytes"));
//! # Ok::<(), temporal_slab::EpochError>(())
//! ```

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod diagnosis;
mod finding;
mod json;
mod labels;
mod latency;
pub mod metric;
mod prometheus;
mod text;

use core::fmt::{self, Write};
use temporal_slab::Heap;
use temporal_slab::config::Config;

pub use diagnosis::{Diagnosis, MAX_FINDINGS, Thresholds, diagnose};
pub use finding::{Culprit, Finding, Severity};
pub use labels::{LabelStats, Labels, MAX_LABELS};
pub use latency::{Cause, Histogram, Latency, Sampler};

/// A report of a heap, as of when it is written.
///
/// Writing it needs about 20 KiB of stack, and as long as [`Heap::stats`] and [`Heap::epoch_stats`] for each epoch, a
/// few times over.
pub struct Report<'h, C: Config> {
    heap: &'h Heap<C>,
    top: usize,
    thresholds: Thresholds,
    latency: Option<&'h Latency>,
}

impl<'h, C: Config> Report<'h, C> {
    /// A report that tells ten labels apart.
    #[must_use]
    pub fn new(heap: &'h Heap<C>) -> Self {
        Self {
            heap,
            top: 10,
            thresholds: Thresholds::default(),
            latency: None,
        }
    }

    /// Tells so many labels apart, at most [`MAX_LABELS`].
    #[must_use]
    pub const fn labels(mut self, top: usize) -> Self {
        self.top = top;
        self
    }

    /// Finds by these thresholds.
    #[must_use]
    pub const fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// Tells these times, too.
    #[must_use]
    pub const fn latency(mut self, latency: &'h Latency) -> Self {
        self.latency = Some(latency);
        self
    }

    /// The times of the causes that there were.
    fn sampled(&self) -> impl Iterator<Item = (Cause, &'h Histogram)> {
        let latency = self.latency;
        Cause::ALL
            .into_iter()
            .filter_map(move |cause| Some((cause, latency?.of(cause))))
            .filter(|(_, times)| times.count() > 0)
    }

    /// Writes it as JSON, in one line.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn json(&self, to: &mut dyn Write) -> fmt::Result {
        json::write(self, to)
    }

    /// Writes it in the text format of Prometheus.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn prometheus(&self, to: &mut dyn Write) -> fmt::Result {
        prometheus::write(self, to)
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn text(&self, to: &mut dyn Write) -> fmt::Result {
        text::write(self, to)
    }

    /// Writes what is wrong, and what to do about it.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn findings(&self, to: &mut dyn Write) -> fmt::Result {
        text::findings(self, to)
    }
}

impl<C: Config> fmt::Debug for Report<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("top", &self.top)
            .field("thresholds", &self.thresholds)
            .finish_non_exhaustive()
    }
}
