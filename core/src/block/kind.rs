//! How long blocks are.

use crate::class::GRANULE;

/// A block's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Small,
    Medium,
    Large,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    pub(crate) const fn larger(self) -> Self {
        match self {
            Self::Small => Self::Medium,
            Self::Medium | Self::Large => Self::Large,
        }
    }

    pub(crate) const fn smaller(self) -> Option<Self> {
        match self {
            Self::Small => None,
            Self::Medium => Some(Self::Small),
            Self::Large => Some(Self::Medium),
        }
    }

    /// The kind to take where so many bytes are expected: a large block if they fill three quarters of it, and a medium one if a small one is too
    /// short.
    pub(crate) const fn for_bytes(bytes: usize) -> Self {
        if 4 * bytes >= 3 * Self::Large.bytes() {
            Self::Large
        } else if bytes > Self::Small.bytes() {
            Self::Medium
        } else {
            Self::Small
        }
    }

    pub(crate) const fn granules(self) -> usize {
        match self {
            Self::Small => 8,
            Self::Medium => 16,
            Self::Large => 64,
        }
    }

    pub(crate) const fn bytes(self) -> usize {
        self.granules() * GRANULE
    }
}
