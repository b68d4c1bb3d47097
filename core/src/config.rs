//! What an embedder chooses at compile time.

use crate::class::{ClassTable, DEFAULT_SIZES, FINE_SIZES};
use crate::provider::PageProvider;
use core::marker::PhantomData;
use lock_api::RawMutex;

/// The lock of a heap that names no other: a spin lock.
pub type DefaultLock = spin::Mutex<()>;

/// The compile-time parameters of a heap: where its pages come from, its lock, and its constants.
///
/// A configuration of one's own is a type that names the first two, and of the constants what differs from the defaults:
///
/// ```
/// use temporal_slab::config::{Config, DefaultLock};
/// use temporal_slab::{Heap, provider::StaticProvider};
///
/// struct Frames;
/// impl Config for Frames {
///     type Provider = StaticProvider<'static>;
///     type Lock = DefaultLock;
///     const BUMPS: bool = true;
/// }
/// # #[allow(unused)]
/// type FrameHeap = Heap<Frames>;
/// ```
///
/// What cannot work does not compile: a class of size zero, a list that does not ascend, an empty one,
/// a size that is no multiple of 16, a size that is too large, more sizes than a table may have.
///
/// ```compile_fail,E0080
/// const T: temporal_slab::class::ClassTable = temporal_slab::class::ClassTable::build(&[0, 16]);
/// ```
/// ```compile_fail,E0080
/// const T: temporal_slab::class::ClassTable = temporal_slab::class::ClassTable::build(&[32, 16]);
/// ```
/// ```compile_fail,E0080
/// const T: temporal_slab::class::ClassTable = temporal_slab::class::ClassTable::build(&[]);
/// ```
/// ```compile_fail,E0080
/// const T: temporal_slab::class::ClassTable = temporal_slab::class::ClassTable::build(&[24]);
/// ```
/// ```compile_fail,E0080
/// const T: temporal_slab::class::ClassTable = temporal_slab::class::ClassTable::build(&[262144]);
/// ```
/// ```compile_fail,E0080
/// const T: temporal_slab::class::ClassTable = temporal_slab::class::ClassTable::build(&[10000]);
/// ```
/// ```compile_fail,E0080
/// const SIZES: [usize; 49] = { let mut s = [16; 49]; let mut i = 0; while i < 49 { s[i] = 16 * (i + 1); i += 1; } s };
/// const T: temporal_slab::class::ClassTable = temporal_slab::class::ClassTable::build(&SIZES);
/// ```
pub trait Config: Sized {
    /// Where pages come from.
    type Provider: PageProvider;

    /// The heap's lock. A kernel whose interrupt handlers allocate brings one that masks interrupts.
    type Lock: RawMutex;

    /// The sizes of the classes; see [`ClassTable::build`] for what is allowed. A list that is not
    /// allowed does not compile.
    const SIZES: &'static [usize] = DEFAULT_SIZES;

    /// For how many epochs there is room from the beginning, from 2 to 256; anything else does not compile.
    const RING: usize = 128;

    /// How many epochs there can be at a time, those that are closed and have something left included: as many as memory allows,
    /// unless it is less. Each takes a record of 128 bytes. At least [`RING`](Self::RING).
    const EPOCHS: usize = u32::MAX as usize;

    /// Whether the heap keeps a mark for each slot and checks at each free that the pointer begins a
    /// live object of this heap and of the layout's class.
    const CHECKED: bool = cfg!(debug_assertions);

    /// Whether what is freed is overwritten with zeros at once, so that nobody reads there what was. An object with a
    /// handle is too, one in a scope when the scope goes.
    const ZERO_ON_FREE: bool = false;

    /// Whether the slots of a slab are handed out in an order that is hard to foresee. An object that was freed a moment
    /// ago is then not the next that is handed out, and neighbours were not allocated one after the other. It costs a
    /// fast path twice its time or so.
    const SHUFFLED: bool = false;

    /// Whether a young epoch lays its small objects one behind the other, whatever their sizes, in blocks of its own, and goes on
    /// with slabs when it grows old. For epochs of requests, frames and batches; what allocates through a local and names an
    /// epoch does so. A heap that wipes or shuffles does not.
    const BUMPS: bool = false;

    /// How many bits of a generation are used, from 1 to 24; anything else does not compile. Fewer make
    /// slots retire sooner, which a test may want.
    const HANDLE_GENERATION_BITS: u32 = 24;

    /// How many ids there are for slabs with handles, as a power of two from 2 to 22; anything else does
    /// not compile. Fewer need less memory for the table of ids: with the first handle a heap takes two
    /// tables, each of about the square root of so many words.
    const HANDLE_IDS_LOG2: u32 = 22;

    /// A number that differs between CPUs that run at the same time, as well as it can: where the
    /// shared path starts to look for a slot when CPUs collide. It is called with none of the heap's locks held, and may use the heap if it
    /// sees to it that this ends. The default uses the stack's address.
    fn cpu() -> u32 {
        let here = 0u8;
        let stack = (&raw const here).addr() as u64 >> 14;
        (stack.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as u32
    }
}

// Configurations that differ in one constant each, over any provider and lock.
macro_rules! stock {
    ($($(#[$doc:meta])* $name:ident { $($constant:item)* })+) => {$(
        $(#[$doc])*
        pub struct $name<P, L = DefaultLock>(PhantomData<fn() -> (P, L)>);
        impl<P: PageProvider, L: RawMutex> Config for $name<P, L> {
            type Provider = P;
            type Lock = L;
            $($constant)*
        }
    )+};
}

stock! {
    /// The default table; checked in debug builds.
    #[derive(Debug)]
    Standard {}
    /// The default table; always checked.
    #[derive(Debug)]
    Checked {
        const CHECKED: bool = true;
    }
    /// The default table; never checked.
    #[derive(Debug)]
    Unchecked {
        const CHECKED: bool = false;
    }
    /// The finer table for general use; checked in debug builds.
    #[derive(Debug)]
    Fine {
        const SIZES: &'static [usize] = FINE_SIZES;
    }
}

/// The class table of a configuration, made at compile time.
#[derive(Debug)]
pub(crate) struct Table<C>(PhantomData<C>);

impl<C: Config> Table<C> {
    /// The ring's length, checked.
    pub(crate) const RING: usize = {
        assert!(C::RING >= 2, "the ring has at least 2 positions");
        assert!(C::RING <= 256, "the ring has at most 256 positions");
        C::RING
    };
    /// The most epochs, checked.
    pub(crate) const EPOCHS: usize = {
        assert!(
            C::EPOCHS >= C::RING,
            "there is room for RING epochs at least"
        );
        assert!(
            C::EPOCHS <= u32::MAX as usize,
            "there are at most 2^32 - 1 epochs"
        );
        C::EPOCHS
    };
    pub(crate) const TABLE: &'static ClassTable = &ClassTable::build(C::SIZES);
    /// Whether there are bump blocks.
    pub(crate) const BUMPS: bool = C::BUMPS && !C::SHUFFLED && !C::ZERO_ON_FREE;
    /// Bins of a depot, and cells of a local's epoch cache: one for each class whose slabs are listed.
    pub(crate) const LISTED: usize = Self::TABLE.listed();
}
