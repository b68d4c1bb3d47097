//! Frames of physical memory: which are free, a bit for each.
//!
//! Principles:
//! - The map lies in memory that the caller gives, so it is as large as the machine and needs no heap.
//! - Runs of frames are aligned as asked and found from below, next to what is in use, so that large runs
//!   stay.
//! - Every give is checked: a frame that is free already, or was never the allocator's, is refused, and
//!   nothing has changed.
//!
//! Invariant: a set bit is a free frame; `free` is the number of set bits; bits of frames that do not
//! exist, or are not usable, are never set.

/// The size of a frame.
pub const FRAME: usize = 4096;

/// Why frames were not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveError {
    /// Some of them are not this allocator's.
    Foreign,
    /// Some of them are free already.
    Free,
}

/// The free frames below some limit.
#[derive(Debug)]
pub struct Frames<'m> {
    map: &'m mut [u64],
    /// Which frames are the allocator's at all: those that were ever added. The second half of the memory.
    ours: &'m mut [u64],
    free: usize,
    total: usize,
    /// All words below this one are zero.
    low: usize,
}

impl<'m> Frames<'m> {
    /// Words of memory that the maps of so many frames need.
    #[must_use]
    pub const fn words(frames: usize) -> usize {
        frames.div_ceil(64) * 2
    }

    /// No free frames yet, and room for as many as `memory` has [`Frames::words`] for.
    #[must_use]
    pub fn new(memory: &'m mut [u64]) -> Self {
        memory.fill(0);
        let middle = memory.len() / 2;
        let (map, ours) = memory.split_at_mut(middle);
        Self {
            map,
            ours,
            free: 0,
            total: 0,
            low: middle,
        }
    }

    /// Adds usable frames, by number. Those that there is no room for, or that were added before, are left
    /// out. Gives how many were added.
    pub fn add(&mut self, first: usize, count: usize) -> usize {
        let end = first.saturating_add(count).min(self.map.len() * 64);
        let mut added = 0;
        for frame in first..end {
            if !bit(self.ours, frame) {
                set(self.ours, frame);
                set(self.map, frame);
                self.low = self.low.min(frame / 64);
                added += 1;
            }
        }
        self.free += added;
        self.total += added;
        added
    }

    /// Free frames.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.free
    }

    /// All frames that were added.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total
    }

    /// The first of `count` neighbouring free frames whose number is a multiple of `align`, a power of two.
    pub fn take(&mut self, count: usize, align: usize) -> Option<usize> {
        if count == 0 || count > self.free {
            return None;
        }
        while self.low < self.map.len() && self.map.get(self.low) == Some(&0) {
            self.low += 1;
        }
        let mut first = (self.low * 64).next_multiple_of(align);
        let end = self.map.len() * 64;
        while first.checked_add(count).is_some_and(|last| last <= end) {
            match (first..first + count)
                .rev()
                .find(|frame| !bit(self.map, *frame))
            {
                // None of the starts up to the one that is in use can do.
                Some(used) => {
                    first = self.next_free(used + 1)?.next_multiple_of(align);
                }
                None => {
                    (first..first + count).for_each(|frame| clear(self.map, frame));
                    self.free -= count;
                    return Some(first);
                }
            }
        }
        None
    }

    /// The first free frame from `from` on.
    fn next_free(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.map.get(word)? & (!0 << (from % 64));
        loop {
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            word += 1;
            bits = *self.map.get(word)?;
        }
    }

    /// Takes frames back.
    ///
    /// # Errors
    /// If some of them cannot be taken back; then none is.
    pub fn give(&mut self, first: usize, count: usize) -> Result<(), GiveError> {
        let end = first
            .checked_add(count)
            .filter(|end| *end <= self.map.len() * 64);
        let end = end.ok_or(GiveError::Foreign)?;
        if !(first..end).all(|frame| bit(self.ours, frame)) {
            return Err(GiveError::Foreign);
        }
        if (first..end).any(|frame| bit(self.map, frame)) {
            return Err(GiveError::Free);
        }
        (first..end).for_each(|frame| set(self.map, frame));
        self.free += count;
        self.low = self.low.min(first / 64);
        Ok(())
    }
}

fn bit(map: &[u64], frame: usize) -> bool {
    map.get(frame / 64)
        .is_some_and(|word| word >> (frame % 64) & 1 == 1)
}

fn set(map: &mut [u64], frame: usize) {
    if let Some(word) = map.get_mut(frame / 64) {
        *word |= 1 << (frame % 64);
    }
}

fn clear(map: &mut [u64], frame: usize) {
    if let Some(word) = map.get_mut(frame / 64) {
        *word &= !(1 << (frame % 64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec;
    use std::vec::Vec;

    fn rng(seed: u64) -> impl FnMut(usize) -> usize {
        let mut state = seed;
        move |n| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n.max(1)
        }
    }

    /// Random takes and gives against a set of free frames, over regions with holes. Catches a run that
    /// overlaps another, is misaligned or is not free; a run that exists and is not found; and a count that
    /// is not the bits'.
    #[test]
    fn takes_and_gives_against_a_set() {
        for seed in 0..40 {
            let mut random = rng(seed);
            let mut memory = vec![!0; Frames::words(1000)];
            let mut frames = Frames::new(&mut memory);
            let mut free: BTreeSet<usize> = BTreeSet::new();
            for (first, count) in [(3, 100), (150, 37), (200, 500), (690, 20), (999, 500)] {
                let added = frames.add(first, count);
                let before = free.len();
                free.extend((first..first + count).filter(|f| *f < 1024));
                assert_eq!(added, free.len() - before);
            }
            let mut out: Vec<(usize, usize)> = Vec::new();
            for _ in 0..2000 {
                if random(2) == 0 || out.is_empty() {
                    let (count, align) = (1 + random(40), 1 << random(6));
                    let fits = |first: usize| (first..first + count).all(|f| free.contains(&f));
                    let exists = free.iter().any(|f| f % align == 0 && fits(*f));
                    match frames.take(count, align) {
                        Some(first) => {
                            assert!(first % align == 0 && fits(first), "{first} {count} {align}");
                            (first..first + count).for_each(|frame| {
                                free.remove(&frame);
                            });
                            out.push((first, count));
                        }
                        None => assert!(!exists, "{count} frames, align {align}, seed {seed}"),
                    }
                } else {
                    let (first, count) = out.swap_remove(random(out.len()));
                    // Part of a run may go back before the rest.
                    let part = 1 + random(count);
                    frames.give(first, part).unwrap();
                    assert_eq!(frames.give(first, count), Err(GiveError::Free));
                    free.extend(first..first + part);
                    if part < count {
                        out.push((first + part, count - part));
                    }
                }
                assert_eq!(frames.free(), free.len());
            }
            for (first, count) in out {
                frames.give(first, count).unwrap();
            }
            assert_eq!(frames.free(), frames.total());
        }
    }

    /// Frames that are not the allocator's are refused, and so are numbers that wrap.
    #[test]
    fn foreign_frames_are_refused() {
        let mut memory = vec![0; Frames::words(128)];
        let mut frames = Frames::new(&mut memory);
        assert_eq!(frames.take(1, 1), None);
        assert_eq!(frames.add(10, 20), 20);
        assert_eq!(frames.add(0, 128), 108);
        assert_eq!(frames.give(127, 2), Err(GiveError::Foreign));
        assert_eq!(frames.give(usize::MAX, 2), Err(GiveError::Foreign));
        assert_eq!(frames.give(5, 1), Err(GiveError::Free));
        assert_eq!(frames.take(128, 128), Some(0));
        assert_eq!((frames.take(1, 1), frames.free()), (None, 0));
        assert_eq!(frames.take(0, 1), None);
    }
}
