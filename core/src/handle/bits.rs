//! The fields of a handle and of a tag, as types.

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: [$high:literal : $low:literal];)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        #[allow(dead_code, reason = "not every field needs each of them")]
        impl $name {
            /// The lowest bit.
            pub(super) const AT: u32 = $low;
            /// How many bits.
            pub(super) const BITS: u32 = $high - $low + 1;
            /// The bits of the field, in place.
            pub(super) const MASK: u64 = ((1 << Self::BITS) - 1) << Self::AT;
            /// One, in place.
            pub(super) const ONE: u64 = 1 << Self::AT;
            /// The largest value.
            pub(super) const MAX: u64 = Self::MASK >> Self::AT;

            #[inline]
            pub(super) const fn of(bits: u64) -> u64 {
                (bits & Self::MASK) >> Self::AT
            }
            /// A value of at most `MAX`, in place.
            #[inline]
            pub(super) const fn put(value: u64) -> u64 {
                debug_assert!(value <= Self::MAX);
                value << Self::AT
            }
        }
    )*};
}

fields! {
    /// Which slab, by its id.
    Id: [63:42];
    /// Which of the objects that the slot held under this id.
    Generation: [41:18];
    /// Which slot; in a tag, how many read the object.
    Slot: [17:10];
    /// The slot's class; in the tag of a slot that is not live, flags.
    Class: [9:2];
    /// The version of the format; in a tag, the slot's state.
    Version: [1:0];
}

impl Version {
    /// The only version.
    pub(super) const V1: u64 = 0b01;
}

#[cfg(test)]
const _: () = {
    assert!(Id::MASK | Generation::MASK | Slot::MASK | Class::MASK | Version::MASK == u64::MAX);
    assert!(Id::BITS == 22 && Generation::BITS == 24 && Slot::BITS == 8);
    assert!(Class::BITS == 8 && Version::BITS == 2);
};
