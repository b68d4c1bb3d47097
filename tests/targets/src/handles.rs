//! Any 64 bits as a handle, against heaps with live, freed and foreign ones.
//!
//! What is accepted is exactly what is bit-equal to a live handle, by every way of asking, and leads to the object that
//! it was made for; each refusal has the name that the model gives it and changes nothing. Seen to catch: a look that
//! does not compare the generation, one that does not compare the class, an id that is given out twice.

use crate::{Bytes, Known};
use arbitrary::Unstructured;
use core::alloc::Layout;
use core::ptr::NonNull;
use std::collections::{BTreeMap, BTreeSet};
use temporal_slab::config::{Checked, Config, Unchecked};
use temporal_slab::{AllocError, Handle, HandleError, Heap, Local, RawHandle};
use temporal_slab_actions::host::HostProvider;

type Provider = HostProvider<65536>;

/// What lies under every handle here, so that a typed one may be made of any bits.
type Value = [u64; 8];

/// The most steps of one input.
const STEPS: usize = 96;

temporal_slab_actions::configs! {
    /// Generations and ids that are used up soon.
    struct Few {
        const CHECKED: bool = false;
        const HANDLE_GENERATION_BITS: u32 = 2;
        const HANDLE_IDS_LOG2: u32 = 3;
    }
}

/// Runs one input.
pub fn handles(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let _end = match bytes.int_in_range(0..=2) {
        Ok(0) => run::<Unchecked<Provider>>(&mut bytes, false),
        Ok(1) => run::<Checked<Provider>>(&mut bytes, false),
        _ => run::<Few<Provider>>(&mut bytes, true),
    };
}

/// A heap and what should be in it.
struct World<'h, C: Config<Provider = Provider>> {
    heap: &'h Heap<C>,
    local: Local<'h, C>,
    live: Vec<(RawHandle, NonNull<u8>)>,
    /// Where each live handle leads.
    by_bits: BTreeMap<u64, NonNull<u8>>,
    /// Everything that was ever made.
    made: BTreeSet<u64>,
    /// Ids and generations run out in this heap.
    is_short: bool,
}

fn run<C: Config<Provider = Provider>>(bytes: &mut Bytes<'_>, is_short: bool) -> Known<()> {
    let heaps = [(); 2].map(|()| Heap::<C>::new(Provider::default()));
    // Alike or apart: as close as two heaps can come, or as a program may choose.
    let ids: [u16; 2] = [bytes.arbitrary()?, bytes.arbitrary()?];
    for (heap, id) in heaps.iter().zip(ids) {
        assert!(heap.set_first_handle_id(u32::from(id)));
    }
    let [mut ours, mut other] = heaps.each_ref().map(|heap| World {
        heap,
        local: heap.local().expect("the host has memory"),
        live: Vec::new(),
        by_bits: BTreeMap::new(),
        made: BTreeSet::new(),
        is_short,
    });
    let mut steps = 0;
    while !bytes.is_empty() && steps < STEPS {
        steps += 1;
        step(&mut ours, &mut other, bytes)?;
        ours.check();
    }
    for world in [&mut ours, &mut other] {
        world.finish();
    }
    Ok(())
}

fn step<C: Config<Provider = Provider>>(
    ours: &mut World<'_, C>,
    other: &mut World<'_, C>,
    bytes: &mut Bytes<'_>,
) -> Known<()> {
    match bytes.int_in_range(0..=9u8)? {
        0 | 1 => ours.make(bytes)?,
        2 => other.make(bytes)?,
        3 => {
            if let Some((handle, _)) = ours.pick(bytes)? {
                ours.free(handle.bits(), bytes.arbitrary()?);
            }
        }
        4 => {
            if let Some((handle, _)) = other.pick(bytes)? {
                other.free(handle.bits(), bytes.arbitrary()?);
            }
        }
        5 => ours.look(bytes.arbitrary()?, bytes)?,
        // Some bits beside one that was made.
        6 => {
            let near = ours.pick_made(bytes)?;
            let flips = 1u64 << bytes.int_in_range(0..=63u32)?;
            let more = 1u64 << bytes.int_in_range(0..=63u32)?;
            ours.look(near ^ flips ^ more, bytes)?;
        }
        // One field of one that was made replaced by a small number.
        7 => {
            let near = ours.pick_made(bytes)?;
            let (at, width) =
                [(42, 22), (18, 24), (10, 8), (2, 8), (0, 2)][bytes.int_in_range(0..=4usize)?];
            let mask = ((1u64 << width) - 1) << at;
            let value = u64::from(bytes.arbitrary::<u16>()?);
            ours.look(near & !mask | value << at & mask, bytes)?;
        }
        8 => {
            let near = ours.pick_made(bytes)?;
            ours.look(near, bytes)?;
        }
        _ => {
            let theirs = other.pick_made(bytes)?;
            ours.look(theirs, bytes)?;
            ours.refuse_typed(other, theirs);
        }
    }
    Ok(())
}

impl<'h, C: Config<Provider = Provider>> World<'h, C> {
    fn make(&mut self, bytes: &mut Bytes<'_>) -> Known<()> {
        let size = [64, 72, 96, 128, 500, 1000, 8192, 9000][bytes.int_in_range(0..=7usize)?];
        let layout = Layout::from_size_align(size, 8).expect("it is small");
        let count = bytes.int_in_range(1..=40)?;
        let through_local = bytes.arbitrary()?;
        for _ in 0..count {
            let made = if through_local {
                self.local.alloc_raw(layout)
            } else {
                self.heap.alloc_raw(layout)
            };
            let handle = match made {
                Ok(handle) => handle,
                Err(AllocError::TooLarge) if size > 8192 => return Ok(()),
                Err(AllocError::HandlesExhausted) if self.is_short => return Ok(()),
                Err(error) => panic!("{error}"),
            };
            let at = self.heap.get_raw(handle).expect("it was just made");
            // SAFETY: it has more bytes than these, and nobody else uses them.
            unsafe { at.cast::<Value>().write([handle.bits(); 8]) };
            assert!(self.made.insert(handle.bits()), "{handle:?} came twice");
            self.by_bits.insert(handle.bits(), at);
            self.live.push((handle, at));
        }
        Ok(())
    }

    /// One of the live ones.
    fn pick(&self, bytes: &mut Bytes<'_>) -> Known<Option<(RawHandle, NonNull<u8>)>> {
        let index = bytes.arbitrary::<u16>()? as usize;
        Ok(self.live.get(index % self.live.len().max(1)).copied())
    }

    /// One of all that there were, or some bits.
    fn pick_made(&self, bytes: &mut Bytes<'_>) -> Known<u64> {
        let index = bytes.arbitrary::<u16>()? as usize;
        Ok(self
            .made
            .iter()
            .nth(index % self.made.len().max(1))
            .copied()
            .unwrap_or(0b01))
    }

    /// Ends one that is live, in one of the ways that there are.
    fn free(&mut self, bits: u64, way: u8) {
        let handle = RawHandle::from_bits(bits);
        // SAFETY: everything that has a handle here is a `Value`.
        let typed = unsafe { Handle::<Value>::from_raw(handle, self.heap) };
        match way % 5 {
            0 => assert_eq!(self.heap.free_raw(handle), Ok(())),
            1 => assert_eq!(self.local.free_raw(handle), Ok(())),
            2 => assert_eq!(self.heap.discard(typed), Ok(())),
            3 => assert_eq!(self.heap.remove(typed), Ok([bits; 8])),
            _ => {
                let reading = self.heap.get(typed).expect("it is live");
                assert_eq!(self.heap.remove(typed), Err(HandleError::InUse));
                assert_eq!(self.local.free_raw(handle), Ok(()));
                // It is gone for everybody else, and stays for who reads it.
                assert_eq!(self.heap.get_raw(handle), None);
                assert_eq!(*reading, [bits; 8]);
            }
        }
        self.by_bits.remove(&bits);
        self.live.retain(|(live, _)| live.bits() != bits);
    }

    /// Asks for any bits in every way, and frees what they name if they name anything.
    fn look(&mut self, bits: u64, bytes: &mut Bytes<'_>) -> Known<()> {
        let way = bytes.arbitrary()?;
        let handle = RawHandle::from_bits(bits);
        assert_eq!(handle.bits(), bits);
        let known = self.by_bits.get(&bits).copied();
        assert_eq!(self.heap.get_raw(handle), known, "{handle:?}");
        if known.is_some() {
            assert_eq!(self.heap.try_get_raw(handle).ok(), known);
            self.free(bits, way);
            return Ok(());
        }
        let why = self.heap.try_get_raw(handle).expect_err("it names nothing");
        self.is_named(handle, why);
        // SAFETY: everything that has a handle here is a `Value`.
        let typed = unsafe { Handle::<Value>::from_raw(handle, self.heap) };
        assert_eq!(self.heap.get(typed).err(), Some(why), "{handle:?}");
        assert_eq!(self.heap.remove(typed), Err(why), "{handle:?}");
        match way % 4 {
            0 => assert_eq!(self.heap.discard(typed), Err(why), "{handle:?}"),
            1 => assert_eq!(self.local.remove(typed), Err(why), "{handle:?}"),
            2 => assert!(self.heap.free_raw(handle).is_err(), "{handle:?}"),
            _ => assert!(self.local.free_raw(handle).is_err(), "{handle:?}"),
        }
        Ok(())
    }

    /// The name of a refusal.
    fn is_named(&self, handle: RawHandle, why: HandleError) {
        let was_made = self.made.contains(&handle.bits());
        let other_class = self.live.iter().any(|(live, _)| {
            live.bits() & !0x3fc == handle.bits() & !0x3fc && live.bits() != handle.bits()
        });
        let expected: &[HandleError] = if !handle.is_well_formed() {
            &[HandleError::Malformed]
        } else if was_made && self.is_short {
            // The id may have retired with all that was known of it.
            &[HandleError::Stale, HandleError::Foreign]
        } else if was_made {
            &[HandleError::Stale]
        } else if other_class {
            &[HandleError::WrongClass, HandleError::Malformed]
        } else {
            // That a generation was never given out is known as long as nothing of a later one was.
            &[
                HandleError::Foreign,
                HandleError::Malformed,
                HandleError::Stale,
            ]
        };
        assert!(expected.contains(&why), "{handle:?}: {why:?}");
    }

    /// A typed handle of another heap is refused whatever its bits are.
    fn refuse_typed(&mut self, other: &World<'_, C>, bits: u64) {
        if other.made.is_empty() || self.made.is_empty() {
            return;
        }
        let handle = RawHandle::from_bits(bits);
        // SAFETY: everything that has a handle there is a `Value`.
        let typed = unsafe { Handle::<Value>::from_raw(handle, other.heap) };
        assert_eq!(self.heap.get(typed).err(), Some(HandleError::Foreign));
        assert_eq!(self.heap.remove(typed), Err(HandleError::Foreign));
        assert_eq!(self.local.discard(typed), Err(HandleError::Foreign));
    }

    /// All that lives is found, and is as it was written.
    fn check(&self) {
        for (handle, at) in &self.live {
            assert_eq!(self.heap.get_raw(*handle), Some(*at), "{handle:?}");
            // SAFETY: it is live, and was written when it was made.
            let value = unsafe { at.cast::<Value>().read() };
            assert_eq!(value, [handle.bits(); 8], "{handle:?}");
        }
        // SAFETY: the only local is at rest, and there are no other threads.
        let census = unsafe { self.heap.walk() }.unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(census.live_slots, self.live.len());
    }

    fn finish(&mut self) {
        self.check();
        for (handle, _) in core::mem::take(&mut self.live) {
            assert_eq!(self.local.free_raw(handle), Ok(()));
            assert_eq!(self.heap.free_raw(handle), Err(HandleError::Stale));
        }
        self.local.flush();
        self.heap.reclaim();
        self.check();
    }
}
