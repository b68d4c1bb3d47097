//! Memory that was filled, to be looked at later.

use core::alloc::Layout;
use core::ptr::NonNull;

/// Bytes with a pattern in them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    pub(super) at: NonNull<u8>,
    pub(super) layout: Layout,
    pattern: u8,
}

impl Filled {
    /// Fills memory that was just allocated.
    pub(super) fn new(at: NonNull<u8>, layout: Layout, pattern: u8) -> Self {
        assert!(
            at.addr().get().is_multiple_of(layout.align()),
            "{layout:?} at {at:?}"
        );
        let filled = Self {
            at,
            layout,
            pattern,
        };
        for (from, piece) in filled.pieces() {
            // SAFETY: inside the object, which is ours.
            unsafe {
                at.add(from)
                    .copy_from_nonoverlapping(NonNull::from(piece).cast(), piece.len())
            };
        }
        filled
    }

    /// The same bytes elsewhere, as many of them as fit.
    pub(super) fn moved(&self, at: NonNull<u8>, size: usize) -> Moved {
        Moved {
            at,
            kept: size,
            from: *self,
        }
    }

    /// Looks at every byte that was written.
    pub(super) fn verify(&self) {
        self.moved(self.at, self.layout.size()).verify();
    }

    /// What is written, and where: all of a small object, pieces of each granule of a large one.
    fn pieces(&self) -> impl Iterator<Item = (usize, &'static [u8])> + use<> {
        let (size, pattern) = (self.layout.size(), usize::from(self.pattern));
        let (grid, most) = if size <= SMALL {
            (SMALL, SMALL)
        } else {
            (509, 16)
        };
        (0..size).step_by(grid).map(move |from| {
            let begin = (from + pattern) % 256;
            (from, &TABLE[begin..begin + most.min(size - from)])
        })
    }
}

/// Bytes that were filled, and may be elsewhere by now, or fewer.
#[derive(Debug)]
pub(super) struct Moved {
    at: NonNull<u8>,
    kept: usize,
    from: Filled,
}

impl Moved {
    pub(super) fn verify(&self) {
        for (from, piece) in self.from.pieces() {
            let piece = &piece[..piece.len().min(self.kept.saturating_sub(from))];
            if piece.is_empty() {
                break;
            }
            // SAFETY: inside the object, which is ours.
            let found =
                unsafe { core::slice::from_raw_parts(self.at.add(from).as_ptr(), piece.len()) };
            assert!(
                found == piece,
                "at {from} of {self:?}: {found:?} and not {piece:?}"
            );
        }
    }
}

/// As much as is compared at once.
const SMALL: usize = 1024;

/// What objects are filled with: each begins somewhere in it.
static TABLE: [u8; SMALL + 256] = {
    let mut table = [0; SMALL + 256];
    let mut index = 0;
    while index < table.len() {
        table[index] = (index * 31 + index / 256) as u8;
        index += 1;
    }
    table
};

/// Memory that was asked to be zero is.
pub(super) fn is_zero(at: NonNull<u8>, layout: Layout) {
    // SAFETY: the object is the caller's and this long.
    let bytes = unsafe { core::slice::from_raw_parts(at.as_ptr(), layout.size()) };
    let is_zero = |bytes: &[u8]| bytes == &[0; SMALL][..bytes.len()];
    assert!(bytes.chunks(SMALL).all(is_zero), "zeroed memory is zero");
}
