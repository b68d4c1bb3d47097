//! How long objects are, and how a block's marks say it.

/// What objects are multiples of, and a mark stands for.
pub(crate) const UNIT: usize = 16;
/// The largest object, and the largest alignment.
pub(crate) const MAX_SIZE: usize = 8192;
pub(crate) const MAX_ALIGN: usize = 64;
/// The largest object whose length its first mark tells.
pub(crate) const MAX_SHORT: usize = Mark::LONG.0 as usize * UNIT - Mark::LIVE.0 as usize * UNIT;

/// How long an object is, as a block lays it and its mark tells: in whole units but one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Length(pub(super) usize);

impl Length {
    /// Of an object of so many bytes. No block has one that is longer than [`MAX_SIZE`].
    #[inline(always)]
    pub(crate) const fn of(bytes: usize) -> Self {
        Self(bytes.saturating_sub(1) / UNIT)
    }

    /// As [`Length::of`], if that is at most `limit` bytes and not empty. An empty one is laid as one of a byte, elsewhere.
    #[inline(always)]
    pub(crate) const fn up_to(limit: usize, bytes: usize) -> Option<Self> {
        let last = bytes.wrapping_sub(1);
        if last < limit {
            Some(Self(last / UNIT))
        } else {
            None
        }
    }

    #[inline(always)]
    pub(super) const fn units(self) -> usize {
        self.0 + 1
    }

    #[inline(always)]
    pub(crate) const fn bytes(self) -> usize {
        self.units() * UNIT
    }

    pub(super) const fn is_long(self) -> bool {
        self.0 >= (Mark::LONG.0 - Mark::LIVE.0) as usize
    }

    /// What the two marks behind that of a long one say: less than [`Mark::LIVE`].
    pub(super) const fn digits(self) -> [u8; 2] {
        [(self.0 >> 7) as u8 & 0x7F, self.0 as u8 & 0x7F]
    }

    pub(super) const fn of_digits([high, low]: [u8; 2]) -> Self {
        Self((high as usize) << 7 | low as usize)
    }
}

/// What is known of a unit of a block: nothing, that an object lived there which is dead, or that one lives, with its length. Within a
/// long one the next two marks tell that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(pub(super) u8);

impl Mark {
    /// An object began here that is dead: of this block, or of one that the metadata was before.
    pub(super) const DEAD: Self = Self(1);
    /// The mark of a live object of one unit. Those of longer ones follow.
    pub(super) const LIVE: Self = Self(128);
    pub(super) const LONG: Self = Self(255);

    #[inline(always)]
    pub(super) const fn live(length: Length) -> Self {
        if length.is_long() {
            Self::LONG
        } else {
            Self::short(length)
        }
    }

    /// Of one that is not long.
    #[inline(always)]
    pub(super) const fn short(length: Length) -> Self {
        Self(Self::LIVE.0 | length.0 as u8)
    }

    pub(super) const fn is_live(self) -> bool {
        self.0 >= Self::LIVE.0
    }
}
