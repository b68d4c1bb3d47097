//! The bit arithmetic of blocks: a block's 64 granules are the bits of a `u64`, lowest first.
//! Pure functions; nothing here touches memory.

use crate::class::GRANULE;

/// The blocks of a huge page of the common systems.
pub(crate) const UNIT: u32 = 32;

/// A mask of `len` (1 to 64) granules from `start`.
pub(crate) const fn mask(start: u32, len: u32) -> u64 {
    (u64::MAX >> (64 - len)) << start
}

/// The bits of a set, the lowest first.
#[inline(always)]
pub(crate) fn ones(set: u64) -> impl Iterator<Item = u32> {
    let mut left = set;
    core::iter::from_fn(move || {
        let index = (left != 0).then(|| left.trailing_zeros())?;
        left &= left - 1;
        Some(index)
    })
}

/// The lowest `start`, a multiple of `align` (a power of two), at which `len` granules are free.
pub(crate) const fn fit(free: u64, len: u32, align: u32) -> Option<u32> {
    let starts = runs_of(free, len) & lanes(align);
    if starts == 0 {
        return None;
    }
    Some(starts.trailing_zeros())
}

/// The positions at which a run of `len` free granules begins.
const fn runs_of(free: u64, len: u32) -> u64 {
    let mut starts = free;
    let mut have = 1;
    while have < len && starts != 0 {
        let step = if len - have < have { len - have } else { have };
        starts &= starts >> step;
        have += step;
    }
    starts
}

/// The length of the longest run of free granules.
pub(crate) const fn longest_run(free: u64) -> u32 {
    // Binary search over lengths: a run of n contains a run of every shorter length.
    let (mut low, mut high) = (0u32, 64u32);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if runs_of(free, middle) != 0 {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// A bit at every multiple of `every` (a power of two up to 64).
const fn lanes(every: u32) -> u64 {
    if every >= 64 {
        1
    } else {
        u64::MAX / ((1 << every) - 1)
    }
}

/// Granules in pages; the heap works with pages of 1 to 64 granules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageShape {
    granules: u32,
}

impl PageShape {
    /// For a page of this many bytes, or `None` if a block cannot be divided into such pages.
    pub(crate) const fn new(page_size: usize) -> Option<Self> {
        let granules = page_size / GRANULE;
        if page_size.is_power_of_two() && granules >= 1 && granules <= 64 {
            Some(Self {
                granules: granules as u32,
            })
        } else {
            None
        }
    }

    /// Whole pages, as granules, of which every granule is in `set`.
    pub(crate) const fn within(self, set: u64) -> u64 {
        self.widen(runs_of(set, self.granules) & lanes(self.granules))
    }

    /// Whole pages, as granules, of which some granule is in `set`.
    pub(crate) const fn touching(self, set: u64) -> u64 {
        !self.within(!set)
    }

    /// A bit for each first granule of a page to all of the page's granules.
    const fn widen(self, firsts: u64) -> u64 {
        let mut all = firsts;
        let mut have = 1;
        while have < self.granules {
            all |= all << have;
            have *= 2;
        }
        all
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn words() -> impl Iterator<Item = u64> {
        let mut seed = 1u64;
        let count = if cfg!(miri) { 3 } else { 3000 };
        let random = (0..count).map(move |i| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let a = seed ^ (seed >> 29);
            // Dense, sparse and even words.
            match i % 3 {
                0 => a,
                1 => a | a.rotate_left(13) | a.rotate_left(31),
                _ => a & a.rotate_left(13),
            }
        });
        [0, 1, !0, 1 << 63, !1, !(1 << 63), 0xFFFF_0000_FFFF_0000]
            .into_iter()
            .chain(random)
    }

    fn is_set(word: u64, bit: u32) -> bool {
        word >> bit & 1 == 1
    }

    /// Catches a run that is not free, misaligned, not the lowest, or missed; and a wrong maximum.
    #[test]
    fn runs_agree_with_counting() {
        for free in words() {
            let run_at = |s: u32| (s..64).take_while(|b| is_set(free, *b)).count() as u32;
            assert_eq!(longest_run(free), (0..64).map(run_at).max().unwrap());
            for len in [1, 2, 3, 4, 6, 7, 8, 12, 16, 24, 30, 32, 63, 64] {
                for align in [1, 2, 4, 8, 64] {
                    let expected = (0..64).step_by(align as usize).find(|s| run_at(*s) >= len);
                    assert_eq!(fit(free, len, align), expected);
                }
            }
        }
        assert_eq!(mask(0, 64), !0);
        assert_eq!(mask(60, 4), 0xF << 60);
    }

    /// Catches a page that is called free while a granule of it is not, and the reverse.
    #[test]
    fn pages_agree_with_counting() {
        for set in words() {
            for granules in [1, 2, 4, 8, 16, 32, 64] {
                let shape = PageShape::new(granules * GRANULE).unwrap();
                for page in (0..64).step_by(granules) {
                    let bits = mask(page, granules as u32);
                    let all = set & bits == bits;
                    assert_eq!(shape.within(set) & bits, if all { bits } else { 0 });
                    let any = set & bits != 0;
                    assert_eq!(shape.touching(set) & bits, if any { bits } else { 0 });
                }
            }
        }
        assert_eq!(PageShape::new(512), None);
        assert_eq!(PageShape::new(3000), None);
        assert_eq!(PageShape::new(2 << 20), None);
    }
}
