//! What can be wrong with a heap: each kind with its evidence, and with what to do about it.

use core::fmt::{self, Write as _};
use temporal_slab::snapshot::SizeCounts;
use temporal_slab::{Epoch, Label};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Note,
    /// It costs memory or time.
    Warning,
    /// Memory does not come back, or requests fail.
    Error,
}

impl Severity {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// An epoch that a finding is about, or all of one label. Then the token and the ages are the oldest one's, and objects and bytes are
/// those of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Culprit {
    /// Its token.
    pub epoch: Epoch,
    /// How many epochs.
    pub epochs: u64,
    /// What it was called.
    pub label: Label,
    /// How long ago it was opened, if the provider has a clock.
    pub age_ns: Option<u64>,
    /// Epochs that were opened after it.
    pub younger: u64,
    /// Its live objects.
    pub live_objects: u64,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Its live objects by size.
    pub sizes: SizeCounts,
}

impl Culprit {
    /// Takes in what is known of another epoch, or of others, of the same label.
    fn add(&mut self, other: &Self) {
        if other.younger > self.younger {
            (self.epoch, self.age_ns, self.younger) = (other.epoch, other.age_ns, other.younger);
        }
        self.epochs += other.epochs;
        self.live_objects += other.live_objects;
        self.bytes += other.bytes;
        self.sizes.add(&other.sizes);
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// A closed epoch still has live objects though many were opened since: somebody keeps them. One finding for each label.
    Leak(Culprit),
    /// An open epoch that is not current, with nobody inside, though many were opened since. One finding for each label.
    ForgottenClose(Culprit),
    /// Few live objects of an epoch keep many slabs from going back.
    Fragmentation {
        /// The epoch.
        culprit: Culprit,
        /// Its slabs that have live objects and free slots.
        slabs: u64,
        /// Bytes of these free slots.
        pinned_bytes: u64,
    },
    /// Emptied slabs go back and are made again: what the policy keeps is less than what the program uses.
    CacheTooSmall {
        /// Slabs that were made.
        made: u64,
        /// Slabs that the cache had no room for.
        overflowed: u64,
        /// Slabs that there are.
        slabs: u64,
        /// What the policy keeps.
        keeps: usize,
    },
    /// The provider does not take pages back.
    DecommitFails {
        /// Calls that failed.
        failed: u64,
        /// Calls that succeeded.
        succeeded: u64,
        /// Empty bytes that stay for that reason or another.
        empty_bytes: u64,
    },
    /// Locals hold slots of closed epochs: they were not used since the close.
    LocalsHoldClosed {
        /// How many epochs, each counted for each local.
        epoch_caches: u64,
        /// The bytes of the slots.
        bytes: u64,
        /// The number of the local that holds the most.
        local: u64,
    },
    /// CPUs take slots away from each other on the shared path.
    SharedPathContended {
        /// Takes that had to be tried again.
        retries: u64,
        /// All of them.
        takes: u64,
    },
    /// Threads wait for a lock.
    LockContended {
        /// Which.
        lock: &'static str,
        /// Visits that had to wait.
        contended: u64,
        /// All of them.
        taken: u64,
    },
    /// Allocations failed because there was no memory, or the limit did not allow it.
    OutOfMemory {
        /// For want of memory.
        memory: u64,
        /// Because of the limit.
        limit: u64,
    },
    /// Almost everything of something is used.
    NearlyExhausted {
        /// What it is.
        what: &'static str,
        /// How much of it is used.
        used: u64,
        /// How much of it there is.
        of: u64,
    },
    /// Frees and handles that were refused: bugs of the program.
    Misuse {
        /// All of them.
        errors: u64,
        /// Of these, doubled frees.
        double_frees: u64,
    },
}

impl Finding {
    /// Its kind, as a name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Leak(_) => "leak",
            Self::ForgottenClose(_) => "forgotten_close",
            Self::Fragmentation { .. } => "fragmentation",
            Self::CacheTooSmall { .. } => "cache_too_small",
            Self::DecommitFails { .. } => "decommit_fails",
            Self::LocalsHoldClosed { .. } => "locals_hold_closed",
            Self::SharedPathContended { .. } => "shared_path_contended",
            Self::LockContended { .. } => "lock_contended",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::NearlyExhausted { .. } => "nearly_exhausted",
            Self::Misuse { .. } => "misuse",
        }
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Leak(_)
            | Self::DecommitFails { .. }
            | Self::OutOfMemory { .. }
            | Self::Misuse { .. } => Severity::Error,
            // One that holds objects may be meant to live long.
            Self::ForgottenClose(culprit) if culprit.live_objects > 0 => Severity::Note,
            Self::ForgottenClose(_)
            | Self::Fragmentation { .. }
            | Self::SharedPathContended { .. }
            | Self::LockContended { .. }
            | Self::NearlyExhausted { .. } => Severity::Warning,
            Self::CacheTooSmall { .. } | Self::LocalsHoldClosed { .. } => Severity::Note,
        }
    }

    /// The bytes that it is about, if it is about memory.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Leak(culprit) | Self::ForgottenClose(culprit) => culprit.bytes,
            Self::Fragmentation { pinned_bytes, .. } => *pinned_bytes,
            Self::DecommitFails { empty_bytes, .. } => *empty_bytes,
            Self::LocalsHoldClosed { bytes, .. } => *bytes,
            _ => 0,
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Leak(_) => {
                "find who keeps objects of this epoch beyond its end, and free them or allocate them \
                 in an epoch that lives as long as they do"
            }
            Self::ForgottenClose(_) => {
                "close the epoch when its phase ends, or let a domain that closes on exit do it; if it is \
                 meant to live long, stay inside by a domain"
            }
            Self::Fragmentation { .. } => {
                "allocate what lives long in an epoch of its own, so that it does not pin slabs of \
                 what dies early"
            }
            Self::CacheTooSmall { .. } => {
                "let the policy keep more: Policy::keeping with more bytes, or Policy::ON_CLOSE"
            }
            Self::DecommitFails { .. } => {
                "see why the system refuses: locked pages, a seccomp filter, a provider without \
                 decommit"
            }
            Self::LocalsHoldClosed { .. } => {
                "have those locals call leave before the close, or flush when they become idle"
            }
            Self::SharedPathContended { .. } => "give each thread or CPU a local",
            Self::LockContended { .. } => {
                "give each thread a local, let it keep more, or give groups of threads epochs of \
                 their own"
            }
            Self::OutOfMemory { .. } => "raise the limit, give the provider more, or free more",
            Self::NearlyExhausted { .. } => {
                "close epochs, raise the limit, or use a longer ring or another heap"
            }
            Self::Misuse { .. } => {
                "run the program with a checked heap, which names each at the call"
            }
        }
    }

    /// Takes in another finding, if both are of one kind and label: whether they are.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        let (one, other) = match (self, other) {
            (Self::Leak(one), Self::Leak(other)) => (one, other),
            (Self::ForgottenClose(one), Self::ForgottenClose(other)) => (one, other),
            _ => return false,
        };
        let is_one = one.label == other.label;
        if is_one {
            one.add(other);
        }
        is_one
    }

    /// What comes first: the worst, then what is about the most bytes.
    pub(super) fn rank(&self) -> (Severity, u64) {
        (self.severity(), self.bytes())
    }
}

/// A label, which may hold anything, so that it stays in its line and does nothing to a terminal.
pub(super) struct InLine<'t>(pub(super) &'t str);

impl fmt::Display for InLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            f.write_char(if char.is_control() { '.' } else { char })?;
        }
        Ok(())
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epochs > 1 {
            write!(f, "{} epochs, the oldest ", self.epochs)?;
        }
        write!(f, "epoch {} (era {}", self.epoch.index(), self.epoch.era())?;
        if !self.label.as_str().is_empty() {
            write!(f, ", \"{}\"", InLine(self.label.as_str()))?;
        }
        write!(
            f,
            ") with {} live objects in {}",
            self.live_objects,
            Bytes(self.bytes)
        )?;
        write!(f, ", {} epochs old", self.younger)?;
        if let Some(age) = self.age_ns {
            write!(f, ", {:.1} s", age as f64 / 1e9)?;
        }
        let mut before = "; by size";
        for (size, objects) in self.sizes.iter() {
            write!(f, "{before} {objects} to {}", Bytes(size))?;
            before = ",";
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    /// The evidence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leak(culprit) => write!(f, "closed, and not empty: {culprit}"),
            Self::ForgottenClose(culprit) => write!(f, "open, and nobody is inside: {culprit}"),
            Self::Fragmentation {
                culprit,
                slabs,
                pinned_bytes,
            } => write!(
                f,
                "{} free between live objects, in {slabs} slabs: {culprit}",
                Bytes(*pinned_bytes)
            ),
            Self::CacheTooSmall {
                made,
                overflowed,
                slabs,
                keeps,
            } => write!(
                f,
                "{made} slabs made for the {slabs} that there are, {overflowed} emptied ones given \
                 back; the policy keeps {}",
                Bytes(*keeps as u64)
            ),
            Self::DecommitFails {
                failed,
                succeeded,
                empty_bytes,
            } => write!(
                f,
                "{failed} calls failed and {succeeded} succeeded; {} are empty and resident",
                Bytes(*empty_bytes)
            ),
            Self::LocalsHoldClosed {
                epoch_caches,
                bytes,
                local,
            } => write!(
                f,
                "{} held in {epoch_caches} closed epochs, the most by local {local}",
                Bytes(*bytes)
            ),
            Self::SharedPathContended { retries, takes } => {
                write!(f, "{retries} retries for {takes} takes")
            }
            Self::LockContended {
                lock,
                contended,
                taken,
            } => write!(
                f,
                "{contended} of {taken} visits to the lock of the {lock} waited"
            ),
            Self::OutOfMemory { memory, limit } => write!(
                f,
                "{memory} allocations failed for want of memory and {limit} by the limit"
            ),
            Self::NearlyExhausted { what, used, of } => write!(f, "{used} of {of} {what} are used"),
            Self::Misuse {
                errors,
                double_frees,
            } => write!(
                f,
                "{errors} wrong frees and handles, {double_frees} of them double frees"
            ),
        }
    }
}

/// A number of bytes as people write it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}
