//! What can go wrong, each cause by its own name.

use core::fmt;

/// Why an allocation failed. The heap is as it was before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AllocError {
    /// The provider had no memory, or handed out a region that had to be refused.
    OutOfMemory,
    /// The heap's byte limit does not allow another region.
    Limit,
    /// No provider can serve this size and alignment; or the object is to have a handle, and no class
    /// is large enough.
    TooLarge,
    /// The epoch that the allocation names is closed.
    EpochClosed,
    /// The local is another heap's than the domain.
    OtherHeap,
    /// Every id that a handle has room for was used up. Objects without handles are not affected.
    HandlesExhausted,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => "the page provider has no memory left",
            Self::Limit => "the heap's byte limit is reached: raise it with set_limit, or free",
            Self::EpochClosed => "the epoch is closed: its token must not be used any more",
            Self::OtherHeap => {
                "the local is of another heap: allocate through one of the domain's heap"
            }
            Self::HandlesExhausted => "the ids of handles are used up: allocate without a handle",
            Self::TooLarge => {
                "the size, rounded to pages, is larger than the address space allows, or an object \
                 with a handle is larger than the largest class of up to 8 KiB"
            }
        })
    }
}

impl core::error::Error for AllocError {}

/// Why a free was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FreeError {
    /// The object was free already.
    DoubleFree,
    /// No object of this heap begins at the pointer.
    Foreign,
    /// The pointer lies inside an object, not at its beginning.
    Interior,
    /// The layout is not one that the object can have been allocated with.
    WrongLayout,
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DoubleFree => "the object was freed already",
            Self::Foreign => "no object of this heap begins at this pointer",
            Self::Interior => "the pointer lies inside an object, not at its beginning",
            Self::WrongLayout => "the layout is not the one that the object was allocated with",
        })
    }
}

impl core::error::Error for FreeError {}
