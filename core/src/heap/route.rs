//! Which of the four ways serves a layout. One function decides, so every path agrees.

use crate::class::{BLOCK, CLASS_PAGE, GRANULE, MAX_RUN_GRANULES};
use crate::config::{Config, Table};
use crate::pages::Geometry;
use crate::provider::{Capabilities, PageProvider};
use core::alloc::Layout;

/// The longest run inside one block.
const MAX_RUN: usize = MAX_RUN_GRANULES * GRANULE;

/// The longest extent.
pub(crate) const MAX_EXTENT: usize = 64 << 20;

/// How a layout is served. Two layouts with the same route are served by the same object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// By a slot of this class.
    Class(usize),
    /// By a run of granules in a block, aligned to so many granules.
    Run { granules: u32, align: u32 },
    /// By an extent of so many granules, which begins a block and is longer than a run.
    Extent { granules: u32 },
    /// By a region of its own, of so many bytes, aligned to a chunk or more.
    Region { bytes: usize, align: usize },
    /// By nothing: rounded to pages it does not fit the address space.
    TooLarge,
}

impl Route {
    /// How `provider`'s heap serves a layout.
    pub(crate) fn of<C: Config>(layout: Layout, provider: &C::Provider) -> Self {
        if let Some(class) = Table::<C>::TABLE.index_for(layout) {
            return Self::Class(class);
        }
        let (size, align) = (layout.size().max(1), layout.align());
        if size <= MAX_RUN && align <= MAX_RUN {
            return Self::Run {
                granules: size.div_ceil(GRANULE) as u32,
                align: (align.max(CLASS_PAGE) / GRANULE) as u32,
            };
        }
        // Where memory is there only once it is touched, chunks in a row cost no more than what is used of them.
        let longest = if provider.capabilities().contains(Capabilities::LAZY_COMMIT) {
            MAX_EXTENT
        } else if Geometry::<C::Provider>::BLOCKS > 1 {
            Geometry::<C::Provider>::CHUNK / 2
        } else {
            0
        };
        if align <= BLOCK && size <= longest {
            // Longer than a run, which is how the pages tell them apart. The rest of its block would be nobody's anyway.
            return Self::Extent {
                granules: size.div_ceil(GRANULE).max(MAX_RUN_GRANULES + 1) as u32,
            };
        }
        match size.checked_next_multiple_of(provider.page_size().max(GRANULE)) {
            Some(bytes) if bytes <= isize::MAX as usize => Self::Region {
                bytes,
                align: align.max(Geometry::<C::Provider>::CHUNK),
            },
            _ => Self::TooLarge,
        }
    }

    pub(crate) fn usable_size<C: Config>(self) -> usize {
        match self {
            Self::Class(class) => Table::<C>::TABLE.class(class).size(),
            Self::Run { granules, .. } => granules as usize * GRANULE,
            Self::Extent { granules } => granules as usize * GRANULE,
            Self::Region { bytes, .. } => bytes,
            Self::TooLarge => 0,
        }
    }
}
