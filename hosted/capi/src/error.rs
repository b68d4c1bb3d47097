//! Why something failed, for each thread by itself.

use core::cell::Cell;
use core::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use temporal_slab::{AllocError, EpochError, FreeError, HandleError};

/// Why a call failed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlabError {
    /// Nothing failed yet.
    None = 0,
    /// A pointer is null that must not be, or a number is out of range.
    Argument = 1,
    /// The size is larger than the address space allows; or, of an object with a handle, than 8192 bytes.
    Size = 2,
    /// The epoch is closed.
    ClosedEpoch = 3,
    /// No epoch has, or had, this number, or it is the first epoch, which is never closed.
    BadEpoch = 4,
    /// The system has no memory left.
    OutOfMemory = 5,
    /// The allocator's byte limit is reached.
    Limit = 6,
    /// The handle's object is gone, or there never was one.
    BadHandle = 7,
    /// No object of this allocator begins at the pointer.
    BadPointer = 8,
    /// The object was freed already.
    DoubleFree = 9,
    /// There are as many epochs as there can be.
    RingFull = 10,
    /// A domain is left that was not entered last, or ended while somebody is inside, or a count would go below nothing.
    Misuse = 11,
    /// The ids of handles are used up.
    HandlesExhausted = 12,
    /// A defect of the library: please report it.
    Internal = 13,
}

impl From<AllocError> for SlabError {
    fn from(error: AllocError) -> Self {
        match error {
            AllocError::OutOfMemory => Self::OutOfMemory,
            AllocError::Limit => Self::Limit,
            AllocError::TooLarge => Self::Size,
            AllocError::EpochClosed => Self::ClosedEpoch,
            AllocError::HandlesExhausted => Self::HandlesExhausted,
            _ => Self::Internal,
        }
    }
}

impl From<FreeError> for SlabError {
    fn from(error: FreeError) -> Self {
        match error {
            FreeError::DoubleFree => Self::DoubleFree,
            _ => Self::BadPointer,
        }
    }
}

impl From<EpochError> for SlabError {
    fn from(error: EpochError) -> Self {
        match error {
            EpochError::Closed => Self::ClosedEpoch,
            EpochError::RingFull => Self::RingFull,
            EpochError::OutOfMemory => Self::OutOfMemory,
            _ => Self::BadEpoch,
        }
    }
}

impl From<HandleError> for SlabError {
    fn from(_: HandleError) -> Self {
        Self::BadHandle
    }
}

thread_local! {
    static LAST: Cell<SlabError> = const { Cell::new(SlabError::None) };
}

/// Why the last call of this thread that failed did. A call that succeeds leaves it alone, as it does `errno`.
#[unsafe(no_mangle)]
pub extern "C" fn slab_last_error() -> SlabError {
    LAST.get()
}

/// Forgets why.
#[unsafe(no_mangle)]
pub extern "C" fn slab_clear_error() {
    LAST.set(SlabError::None);
}

/// What an error means, for people. The text is valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn slab_error_text(error: u32) -> *const c_char {
    let text = match error {
        0 => c"nothing failed",
        1 => c"a pointer is null that must not be, or a number is out of range",
        2 => c"the size is too large",
        3 => c"the epoch is closed",
        4 => c"there is no such epoch, or it cannot be closed",
        5 => c"the system has no memory left",
        6 => c"the allocator's byte limit is reached",
        7 => c"the handle's object is gone, or there never was one",
        8 => c"no object of this allocator begins at the pointer",
        9 => c"the object was freed already",
        10 => c"there are as many epochs as there can be",
        11 => c"a domain or a count was used out of turn",
        12 => c"the ids of handles are used up",
        13 => c"a defect of the library",
        _ => c"no error has this number",
    };
    text.as_ptr()
}

/// Runs what a function does. An error is noted, and so is a panic, and `otherwise` is what the function gives then.
pub(crate) fn guarded<T>(otherwise: T, work: impl FnOnce() -> Result<T, SlabError>) -> T {
    let error = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return value,
        Ok(Err(error)) => error,
        Err(_) => SlabError::Internal,
    };
    LAST.set(error);
    otherwise
}
