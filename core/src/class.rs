//! Sizes: which class serves a request, and how a class divides its slabs. All of it is `const`.
//!
//! Principles:
//! - A request becomes a class by one table load; nothing here touches memory that is not `const`.
//! - A slab has at most 64 slots, because its state is one `u64`. If it has several it is at most half a block long.
//! - Objects are aligned to the largest power of two that divides their class's size, up to a page,
//!   so alignment is met by choosing a class and never by asking for more.
//! - A table that cannot work does not compile.

use core::alloc::Layout;

/// The unit in which a chunk is divided, in bytes.
pub const GRANULE: usize = 1024;

/// The unit in which an epoch draws memory from a chunk: 64 granules, so that a block's free
/// granules are one `u64`.
pub const BLOCK: usize = 64 * GRANULE;

/// The page size that classes align to. Providers with larger pages decommit by their own.
pub const CLASS_PAGE: usize = 4096;

/// The largest size that a class may have.
pub const MAX_CLASS_SIZE: usize = 128 * 1024;

/// The most classes that a table may have.
pub const MAX_CLASSES: usize = 48;

/// The longest slab of several slots, and the longest that is a run inside a block, in granules.
pub(crate) const MAX_RUN_GRANULES: usize = 32;

/// Whether a slab of so many granules is an extent, and no run inside a block.
pub(crate) const fn is_extent(granules: usize) -> bool {
    granules > MAX_RUN_GRANULES
}

/// Up to this size slabs are as long as a power of two, and aligned to their length: where a slot begins is known from
/// its address alone.
pub(crate) const MAX_NATURAL_SIZE: usize = 2048;

/// Above this size a slab is one slot, as long as a number of granules: its memory goes with its object.
pub(crate) const MAX_SHARED_SIZE: usize = 8192;

/// What requests are rounded to before the table load.
const QUANTUM: usize = 16;

const LOOKUP: usize = MAX_SHARED_SIZE / QUANTUM + 1;

/// And above [`MAX_SHARED_SIZE`].
const LARGE_LOOKUP: usize = MAX_CLASS_SIZE / GRANULE + 1;

/// The default classes: the eight of the seed design with smaller and larger ones about them.
pub const DEFAULT_SIZES: &[usize] = &[
    16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192,
];

/// A finer table for general use: four steps to each doubling, up to the buffers of readers and writers.
pub const FINE_SIZES: &[usize] = &[
    16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024,
    1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192, 10_240, 12_288, 14_336,
    16_384, 20_480, 24_576, 28_672, 32_768, 40_960, 49_152, 57_344, 65_536, 81_920, 98_304,
    114_688, 131_072,
];

/// One class: its size, and the shape of its slabs.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub struct Class {
    /// A bit for each slot of a slab.
    pub(crate) all: u64,
    /// Bytes of an object.
    pub(crate) size: u32,
    /// `ceil(2^32 / size)`: turns an offset in a slab into a slot by a multiplication.
    reciprocal: u32,
    /// Pointers that a local's magazine for this class may hold.
    pub(crate) magazine: u16,
    /// Words that a local's stash for this class may hold.
    pub(crate) stash: u16,
    /// Granules of a slab.
    pub(crate) granules: u8,
    /// What a slab's first granule is aligned to, in granules.
    pub(crate) align: u8,
    /// Slots of a slab.
    pub(crate) slots: u8,
    /// Its slabs have a tag for each slot: their objects are named by handles.
    pub(crate) is_tagged: bool,
}

impl Class {
    pub(crate) const NONE: Self = Self {
        all: 0,
        size: 0,
        reciprocal: 0,
        magazine: 0,
        stash: 0,
        granules: 0,
        align: 1,
        slots: 0,
        is_tagged: false,
    };

    const fn of(size: usize) -> Self {
        let natural = 1 << size.trailing_zeros();
        let align = if natural > CLASS_PAGE {
            CLASS_PAGE
        } else {
            natural
        };
        let slots = best_slots(size);
        let granules = if size <= MAX_NATURAL_SIZE {
            natural_bytes(size) / GRANULE
        } else {
            (slots * size).div_ceil(GRANULE)
        };
        Self {
            all: if slots == 64 { !0 } else { (1 << slots) - 1 },
            size: size as u32,
            reciprocal: ((1u64 << 32).div_ceil(size as u64)) as u32,
            magazine: magazine(size),
            stash: clamp(magazine(size) as usize / 2, 1, 32) as u16,
            granules: granules as u8,
            align: if size <= MAX_NATURAL_SIZE {
                granules as u8
            } else if align > GRANULE {
                (align / GRANULE) as u8
            } else {
                1
            },
            slots: slots as u8,
            is_tagged: false,
        }
    }

    const fn tagged(self) -> Self {
        Self {
            is_tagged: true,
            ..self
        }
    }

    /// A class with so many slots, for models.
    #[cfg(all(test, loom))]
    pub(crate) const fn toy(slots: u8) -> Self {
        Self {
            all: (1 << slots) - 1,
            slots,
            ..Self::NONE
        }
    }

    /// Bytes of an object of this class.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size as usize
    }

    /// Objects in a slab of this class.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.slots as usize
    }

    /// Bytes of a slab of this class.
    #[must_use]
    pub const fn slab_bytes(&self) -> usize {
        self.granules as usize * GRANULE
    }

    /// The first granules of a slab of which the page map says whose they are. Of one that is an extent nothing begins in the
    /// others.
    pub(crate) const fn named_granules(&self) -> usize {
        if is_extent(self.granules as usize) {
            1
        } else {
            self.granules as usize
        }
    }

    /// What of an address is its offset in a slab of this class, and the factor by which that becomes a slot; both are 0
    /// where an address does not tell.
    ///
    /// With `m = ceil(2^32 / size)` an offset below 2^15 begins a slot exactly if `offset * m mod 2^32 < m`, and the slot
    /// is `offset * m / 2^32`: for `offset = q * size + r` the product is `q * 2^32 + q * e + r * m`, where
    /// `e = m * size - 2^32 < size` and so `q * e < 2^15`, less than `m >= 2^21` and than what `r * m` lacks to `2^32`.
    pub(crate) const fn by_address(&self) -> (u16, u32) {
        if self.size as usize > MAX_NATURAL_SIZE || self.size == 0 {
            return (0, 0);
        }
        ((self.slab_bytes() - 1) as u16, self.reciprocal)
    }

    /// The slot that the byte at `offset` in a slab belongs to. Exact for offsets below a block,
    /// since `offset * (reciprocal * size - 2^32) < 2^16 * 2^13 < 2^32`; where a slab is one slot, at its beginning. For any other, which
    /// a wild pointer may have, it is some number, and its caller looks whether that is so.
    #[inline]
    pub(crate) const fn slot_of(&self, offset: usize) -> u32 {
        ((offset as u64).wrapping_mul(self.reciprocal as u64) >> 32) as u32
    }
}

/// How many entries a magazine has: about 32 KiB, at least 8 and at most 64; above 8 KiB as many as are 128 KiB.
const fn magazine(size: usize) -> u16 {
    if size <= MAX_SHARED_SIZE {
        clamp(32 * 1024 / size, 8, 64) as u16
    } else {
        (128 * 1024 / size) as u16
    }
}

const fn clamp(value: usize, low: usize, high: usize) -> usize {
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}

/// Bytes of a slab whose length is a power of two: 64 slots of the largest power of two that is not above the size, or
/// [`MAX_RUN_GRANULES`].
const fn natural_bytes(size: usize) -> usize {
    clamp(64 << size.ilog2(), GRANULE, MAX_RUN_GRANULES * GRANULE)
}

/// As many slots as fit into a slab of [`natural_bytes`]. Of larger sizes the number of slots that wastes the least of its
/// last granule: at most [`MAX_RUN_GRANULES`], and not fewer than three quarters of what would fit. One above
/// [`MAX_SHARED_SIZE`].
const fn best_slots(size: usize) -> usize {
    if size <= MAX_NATURAL_SIZE {
        return clamp(natural_bytes(size) / size, 1, 64);
    }
    if size > MAX_SHARED_SIZE {
        return 1;
    }
    let most = clamp(MAX_RUN_GRANULES * GRANULE / size, 1, 64);
    let mut best = most;
    let mut candidate = most;
    while candidate * 4 > most * 3 {
        // waste(candidate) / candidate < waste(best) / best, without division.
        if tail_waste(candidate * size) * best < tail_waste(best * size) * candidate {
            best = candidate;
        }
        candidate -= 1;
    }
    best
}

const fn tail_waste(bytes: usize) -> usize {
    bytes.next_multiple_of(GRANULE) - bytes
}

/// The smallest class whose objects handles can name: tags weigh too much beside smaller ones.
pub const MIN_HANDLE_SIZE: usize = 64;

/// What a slab of a class is for, which decides where in the table its class is looked up: the table
/// has each class once for each purpose that it has; those above 8 KiB are plain ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Objects that are known by their address.
    Plain,
    /// Objects that are named by handles.
    Tagged,
    /// Objects of a scope that are named by handles: their slots go back all at once.
    Scoped,
}

/// The classes of the table, once for each purpose. A power of two.
const PLACES: usize = 256;
const _: () = assert!(MAX_CLASSES * 3 <= PLACES && MAX_CLASSES * 3 < 251);

/// A checked class table. Build it in a `const`: every mistake is then a compile error.
#[derive(Debug)]
pub struct ClassTable {
    /// By quanta, up to [`MAX_SHARED_SIZE`], and by granules above it.
    lookup: [u8; LOOKUP],
    large_lookup: [u8; LARGE_LOOKUP],
    classes: [Class; PLACES],
    len: u8,
    /// Of these, how many handles can name objects of, but for the smallest.
    named: u8,
    /// The largest class's size: what both are filled for.
    pub(crate) largest: u32,
}

impl ClassTable {
    /// Builds the table for `sizes`.
    ///
    /// # Panics
    /// In a `const`, and so at compile time: if `sizes` is empty, has more than [`MAX_CLASSES`]
    /// entries, is not strictly ascending, or has a size that is zero, not a multiple of 16 (above 8 KiB of 1024), or
    /// above [`MAX_CLASS_SIZE`].
    #[must_use]
    pub const fn build(sizes: &[usize]) -> Self {
        assert!(!sizes.is_empty(), "a class table needs at least one size");
        assert!(
            sizes.len() <= MAX_CLASSES,
            "a class table has at most 48 sizes"
        );
        let mut table = Self {
            lookup: [0; LOOKUP],
            large_lookup: [0; LARGE_LOOKUP],
            classes: [Class::NONE; PLACES],
            len: sizes.len() as u8,
            named: 0,
            largest: sizes[sizes.len() - 1] as u32,
        };
        let (mut from, mut from_large) = (0, 0);
        let mut index = 0;
        while index < sizes.len() {
            let size = sizes[index];
            assert!(size > 0, "a class of size zero holds nothing");
            assert!(
                size.is_multiple_of(QUANTUM),
                "class sizes are multiples of 16"
            );
            assert!(size <= MAX_CLASS_SIZE, "class sizes end at 131072");
            assert!(
                size <= MAX_SHARED_SIZE || size.is_multiple_of(GRANULE),
                "class sizes above 8192 are multiples of 1024"
            );
            assert!(
                index == 0 || size > sizes[index - 1],
                "class sizes are strictly ascending"
            );
            let class = Class::of(size);
            table.classes[index] = class;
            table.named += (size <= MAX_SHARED_SIZE) as u8;
            while from <= size / QUANTUM && from < LOOKUP {
                table.lookup[from] = index as u8;
                from += 1;
            }
            while from_large <= size / GRANULE {
                table.large_lookup[from_large] = index as u8;
                from_large += 1;
            }
            index += 1;
        }
        let mut index = 0;
        while index < 2 * table.named() {
            let plain = table.classes[index % table.named()];
            table.classes[sizes.len() + index] = plain.tagged();
            index += 1;
        }
        table
    }

    /// How many classes there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a table is never empty")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// The classes, smallest first.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        self.classes.get(..self.len()).unwrap_or(&[])
    }

    /// The class with this index, for whatever purpose. Indices beyond the table name a class of size
    /// zero.
    #[inline]
    pub(crate) const fn class(&self, index: usize) -> &Class {
        &self.classes[index & (PLACES - 1)]
    }

    /// The class that a handle names by a number, which counts from the first one that is no plain class.
    #[inline]
    pub(crate) const fn handle_class(&self, number: usize) -> &Class {
        self.class(self.len() + number)
    }

    /// The index of a plain class for another purpose.
    #[inline]
    pub(crate) const fn index_of(&self, class: usize, purpose: Purpose) -> usize {
        match purpose {
            Purpose::Plain => class,
            Purpose::Tagged => self.len() + class,
            Purpose::Scoped => self.listed() + class,
        }
    }

    /// What the class with this index is for.
    #[inline]
    pub(crate) const fn purpose(&self, index: usize) -> Purpose {
        if index < self.len() {
            Purpose::Plain
        } else if index < self.listed() {
            Purpose::Tagged
        } else {
            Purpose::Scoped
        }
    }

    /// The classes below this one are those of handles, too: from the first one that is large enough.
    #[inline]
    pub(crate) const fn named(&self) -> usize {
        self.named as usize
    }

    /// How many kinds of slabs a depot lists: plain and tagged ones.
    #[inline]
    pub(crate) const fn listed(&self) -> usize {
        self.len() + self.named()
    }

    /// How many kinds of slabs there are.
    #[cfg(feature = "walker")]
    pub(crate) const fn kinds(&self) -> usize {
        self.len() + 2 * self.named()
    }

    /// The smallest class whose objects handles can name that holds `layout`.
    #[inline]
    pub(crate) const fn handle_index_for(&self, layout: Layout) -> Option<usize> {
        let size = if layout.size() < MIN_HANDLE_SIZE {
            MIN_HANDLE_SIZE
        } else {
            layout.size()
        };
        let Ok(layout) = Layout::from_size_align(size, layout.align()) else {
            return None;
        };
        match self.index_for(layout) {
            Some(class) if class < self.named() => Some(class),
            _ => None,
        }
    }

    /// The smallest class that holds `layout`, if that is known by one load: its size has a class, and its
    /// alignment is one that all classes have.
    #[inline(always)]
    pub(crate) const fn index_at_once(&self, layout: Layout) -> Option<usize> {
        if layout.align() > QUANTUM {
            return None;
        }
        self.index_for_size(layout.size())
    }

    /// The smallest class of at least so many bytes, which may be more than a layout can have.
    #[inline(always)]
    pub(crate) const fn index_for_size(&self, size: usize) -> Option<usize> {
        if size > self.largest as usize {
            return None;
        }
        if size > MAX_SHARED_SIZE {
            return Some(self.large_lookup[size.div_ceil(GRANULE)] as usize);
        }
        self.index_for_short(size)
    }

    /// As [`ClassTable::index_for_size`], where the class is known by one load: up to 8 KiB.
    #[inline(always)]
    pub(crate) const fn index_for_short(&self, size: usize) -> Option<usize> {
        if size > MAX_SHARED_SIZE || size > self.largest as usize {
            return None;
        }
        Some(self.lookup[size.div_ceil(QUANTUM)] as usize)
    }

    /// The smallest class that holds `layout`, or `None` where a class does not serve it.
    #[must_use]
    #[inline(always)]
    pub const fn index_for(&self, layout: Layout) -> Option<usize> {
        if layout.align() > QUANTUM {
            return self.index_for_aligned(layout.size(), layout.align());
        }
        self.index_for_size(layout.size())
    }

    /// The smallest class that holds `size` bytes and whose size is a multiple of `align`.
    #[inline(never)]
    const fn index_for_aligned(&self, size: usize, align: usize) -> Option<usize> {
        if align > CLASS_PAGE || size > self.largest as usize {
            return None;
        }
        // `size` is at most 131072 and `align` at most 4096, both checked: no overflow. A size of
        // zero takes a slot of `align` bytes.
        let size = if size == 0 { align } else { size };
        let rounded = (size + align - 1) & !(align - 1);
        let Some(mut index) = self.index_for_size(rounded) else {
            return None;
        };
        while index < self.len() {
            // `align` is a power of two.
            if self.class(index).size & (align as u32 - 1) == 0 {
                return Some(index);
            }
            index += 1;
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const DEFAULT: ClassTable = ClassTable::build(DEFAULT_SIZES);
    const FINE: ClassTable = ClassTable::build(FINE_SIZES);

    /// Catches a wrong rounding in the lookup or in the alignment search, over every small layout.
    #[test]
    fn every_small_layout_gets_the_smallest_class_that_fits() {
        for table in [&DEFAULT, &FINE] {
            for size in (0..=MAX_CLASS_SIZE + 64).step_by(if cfg!(miri) { 1493 } else { 1 }) {
                for shift in 0..=13 {
                    let align = 1usize << shift;
                    let layout = Layout::from_size_align(size, align).unwrap();
                    let expected = table.classes().iter().position(|c| {
                        let natural = CLASS_PAGE.min(1 << c.size().trailing_zeros());
                        c.size() >= size && c.size() >= 1 && natural >= align
                    });
                    assert_eq!(table.index_for(layout), expected, "{layout:?}");
                }
            }
        }
    }

    /// Catches a reciprocal that is off by one at any offset of any class.
    #[test]
    fn slots_are_exact_at_every_offset() {
        for table in [&DEFAULT, &FINE] {
            for class in table.classes() {
                let end = if class.slots() > 1 { BLOCK } else { 1 };
                for offset in (0..end).step_by(if cfg!(miri) { 311 } else { 1 }) {
                    assert_eq!(class.slot_of(offset) as usize, offset / class.size());
                }
            }
        }
    }

    /// Catches an address inside a slot that passes for its beginning, or the reverse.
    #[test]
    fn addresses_tell_where_slots_begin() {
        for table in [&DEFAULT, &FINE] {
            for class in table.classes() {
                let (mask, factor) = class.by_address();
                if class.size() > MAX_NATURAL_SIZE {
                    assert_eq!((mask, factor), (0, 0));
                    continue;
                }
                assert_eq!(usize::from(mask) + 1, class.slab_bytes());
                assert_eq!(class.align, class.granules);
                for offset in (0..class.slab_bytes()).step_by(if cfg!(miri) { 311 } else { 1 }) {
                    let product = offset as u64 * u64::from(factor);
                    let begins = (product as u32) < factor;
                    assert_eq!(begins, offset.is_multiple_of(class.size()), "{offset}");
                    assert_eq!((product >> 32) as usize, offset / class.size());
                    assert!(product >> 32 < 64);
                }
            }
        }
    }

    /// Catches a wild pointer's offset that ends the program where sums are checked.
    #[test]
    fn wild_offsets_have_some_slot() {
        for class in DEFAULT.classes() {
            for shift in 0..usize::BITS {
                for offset in [usize::MAX >> shift, usize::MAX << shift, 1 << shift] {
                    let slot = class.slot_of(offset);
                    let is_real =
                        (slot as usize) < class.slots() && slot as usize * class.size() == offset;
                    assert!(!is_real || offset < BLOCK, "{offset} of {class:?}");
                }
            }
        }
    }

    /// Catches a slab of several slots that is longer than half a block, and one that has no slot, or wastes over a twentieth.
    #[test]
    fn slabs_fit_and_waste_little() {
        for table in [&DEFAULT, &FINE] {
            for class in table.classes() {
                let used = class.slots() * class.size();
                assert!(class.slots() >= 1 && class.slots() <= 64);
                assert!(used <= class.slab_bytes());
                assert!(class.slots() == 1 || class.slab_bytes() <= BLOCK / 2);
                assert!(
                    (class.slab_bytes() - used) * 20 <= class.slab_bytes(),
                    "{class:?}"
                );
                assert_eq!(class.all.count_ones() as usize, class.slots());
            }
        }
    }
}
