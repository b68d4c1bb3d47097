//! Objects by size.

/// Live objects by size: how many have at most so many bytes, and more than half of that; the sizes are powers of two. What is larger
/// than the last is counted there.
///
/// Of objects of which only the sum is known each is taken to be as long as the mean: those in slabs that epochs share, large ones, and
/// those in the bump blocks of an unchecked heap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SizeCounts([u32; Self::COUNTS]);

impl SizeCounts {
    const COUNTS: usize = 16;
    /// The smallest size, as a power of two.
    const FIRST: u32 = 4;

    /// Sizes in bytes and how many objects have them, those of which there is none left out; the small ones first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let sizes = (Self::FIRST..).map(|power| 1 << power);
        let all = sizes.zip(self.0).map(|(size, count)| (size, count.into()));
        all.filter(|(_, count)| *count > 0)
    }

    /// All of them.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }

    /// Counts objects that have so many bytes together.
    pub(crate) fn count(&mut self, objects: u64, bytes: u64) {
        let Some(mean) = bytes.checked_div(objects) else {
            return;
        };
        let power = u64::BITS - mean.saturating_sub(1).leading_zeros();
        let at = power.saturating_sub(Self::FIRST) as usize;
        let count = &mut self.0[at.min(Self::COUNTS - 1)];
        *count = count.saturating_add(objects.try_into().unwrap_or(u32::MAX));
    }

    /// Adds what another counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SizeCounts;

    #[test]
    fn sizes_are_powers_of_two() {
        let mut sizes = SizeCounts::default();
        for (objects, bytes) in [
            (0, 0),
            (1, 1),
            (2, 32),
            (1, 17),
            (3, 3 * 128),
            (1, 129),
            (1, 1 << 19),
            (2, 2 << 40),
        ] {
            sizes.count(objects, bytes);
        }
        let expected = [(16, 3), (32, 1), (128, 3), (256, 1), (1 << 19, 3)];
        assert!(sizes.iter().eq(expected), "{sizes:?}");
        assert_eq!(sizes.objects(), 11);
        sizes.count(u64::MAX, u64::MAX);
        assert_eq!(sizes.iter().next(), Some((16, u32::MAX.into())));
    }
}
