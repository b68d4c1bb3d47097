//! Slots that leave a magazine in any order, gathered by their slabs: each slab's are stashed or given back once.

use super::cell::{FULL, Held};
use core::ptr;

/// As many as a magazine has entries.
const WORDS: usize = FULL.magazine;
/// Places that lead to words, half of them unused at least.
const PLACES: usize = 2 * WORDS;
const _: () = assert!(PLACES.is_power_of_two() && WORDS < u8::MAX as usize);

/// Words of slabs, one for each, in the order in which the slabs came.
pub(crate) struct Gathered {
    words: [Held; WORDS],
    count: usize,
    /// By a slab's address, with others behind it: the number of a word, from 1, or 0.
    places: [u8; PLACES],
}

impl Gathered {
    pub(crate) const fn new() -> Self {
        Self {
            words: [Held {
                slab: ptr::null(),
                word: 0,
            }; WORDS],
            count: 0,
            places: [0; PLACES],
        }
    }

    /// Adds slots: those that were there already. At most [`WORDS`] times.
    #[inline]
    pub(crate) fn add(&mut self, held: Held) -> u64 {
        // Metadata lies in steps of 64 bytes; neighbours come to places that are far apart.
        let mut place = (held.slab.addr() >> 6).wrapping_mul(0x9E37_79B9) >> 16;
        loop {
            let number = &mut self.places[place % PLACES];
            if *number == 0 {
                self.words[self.count] = held;
                self.count += 1;
                *number = self.count as u8;
                return 0;
            }
            let found = &mut self.words[usize::from(*number) - 1];
            if ptr::eq(found.slab, held.slab) {
                let both = found.word & held.word;
                found.word |= held.word;
                return both;
            }
            place = place.wrapping_add(1);
        }
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = Held> + '_ {
        self.words[..self.count].iter().copied()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Slots of up to as many slabs as there are entries, in any order: each slab has one word with all of its slots, in the order in
    /// which slabs came. Catches a slot that is lost, one of another slab, and a slot that is there twice and is not told.
    #[test]
    fn each_slab_has_one_word() {
        for slabs in [1, 2, 7, 31, WORDS] {
            let (mut gathered, mut expected) = (Gathered::new(), [0u64; WORDS]);
            let mut seed = slabs as u64;
            for number in 0..WORDS {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let drawn = (seed >> 40) as usize % slabs;
                let slab = if number < slabs { number } else { drawn };
                let held = Held {
                    slab: ptr::without_provenance(0x7000_0000 + 128 * slab),
                    word: 1 << (seed >> 58),
                };
                assert_eq!(gathered.add(held), expected[slab] & held.word);
                expected[slab] |= held.word;
            }
            assert!(
                gathered
                    .words()
                    .map(|held| held.word)
                    .eq(expected[..slabs].iter().copied())
            );
        }
    }
}
