//! Values that the heap keeps, and those who read them.

use super::World;
use core::alloc::Layout;
use std::cell::RefCell;
use temporal_slab::config::Config;
use temporal_slab::{AllocError, Epoch, Handle, HandleError, RawHandle, Ref};

/// The most readers of one object.
const READERS: usize = 255;

thread_local! {
    /// The values that were dropped, in their order.
    static DROPPED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// What was dropped since this was asked last.
pub(super) fn dropped() -> Vec<u64> {
    DROPPED.take()
}

/// A value that tells when it is dropped.
#[derive(Debug, PartialEq)]
pub(super) struct Probe<const N: usize> {
    id: u64,
    fill: [u8; N],
}

pub(super) type Small = Probe<24>;
type Large = Probe<300>;
/// One that has no destructor.
type Silent = [u64; 9];

impl<const N: usize> Probe<N> {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            fill: [id as u8; N],
        }
    }

    pub(super) fn verify(&self, id: u64) {
        assert_eq!((self.id, self.fill), (id, [id as u8; N]));
    }
}

impl<const N: usize> Drop for Probe<N> {
    fn drop(&mut self) {
        DROPPED.with_borrow_mut(|dropped| dropped.push(self.id));
    }
}

/// A handle of one of the types.
#[derive(Debug, Clone, Copy)]
pub(super) enum Named {
    Small(Handle<Small>),
    Large(Handle<Large>),
    Silent(Handle<Silent>),
}

/// Does something with a handle, whatever its type.
macro_rules! with_handle {
    ($named:expr, $handle:ident => $do:expr) => {
        match $named {
            Named::Small($handle) => $do,
            Named::Large($handle) => $do,
            Named::Silent($handle) => $do,
        }
    };
}

/// Makes a value of a kind and inserts it.
macro_rules! insert_as {
    ($kind:expr, $id:expr, $value:ident => $insert:expr) => {
        $crate::world::values::inserting!($kind, $id, $value => $insert)
    };
}
macro_rules! inserting {
    ($kind:expr, $id:expr, $value:ident => $insert:expr) => {{
        use $crate::world::values::{Named, Probe};
        match $kind % 3 {
            0 => {
                let $value = Probe::<24>::new($id);
                $insert.map(Named::Small)
            }
            1 => {
                let $value = Probe::<300>::new($id);
                $insert.map(Named::Large)
            }
            _ => {
                let $value = [$id; 9];
                $insert.map(Named::Silent)
            }
        }
    }};
}
pub(super) use {insert_as, inserting};

/// Whether values of a kind have destructors.
pub(super) fn is_dropped(kind: u8) -> bool {
    kind % 3 < 2
}

fn layout_of(kind: u8) -> Layout {
    match kind % 3 {
        0 => Layout::new::<Small>(),
        1 => Layout::new::<Large>(),
        _ => Layout::new::<Silent>(),
    }
}

impl Named {
    fn raw(self) -> RawHandle {
        with_handle!(self, handle => handle.raw())
    }
}

/// A value that is there: it lives, or is gone for all but its readers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    named: Named,
    id: u64,
    kind: u8,
    epoch: Epoch,
    scope: Option<u64>,
    readers: usize,
    is_gone: bool,
    /// The last reader is to drop it.
    is_to_drop: bool,
}

impl Entry {
    pub(super) fn layout(&self) -> Layout {
        layout_of(self.kind)
    }

    /// Its epoch, if it is no scope's.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.scope.is_none().then_some(self.epoch)
    }
}

/// Somebody who reads.
#[derive(Debug)]
pub(super) enum Held<'h, C: Config> {
    Small(Ref<'h, Small, C>),
    Large(Ref<'h, Large, C>),
    Silent(Ref<'h, Silent, C>),
}

impl<C: Config> Held<'_, C> {
    fn verify(&self, id: u64) {
        match self {
            Self::Small(value) => value.verify(id),
            Self::Large(value) => value.verify(id),
            Self::Silent(value) => assert_eq!(**value, [id; 9]),
        }
    }
}

impl<'h, C: Config> World<'h, C> {
    pub(super) fn insert(
        &mut self,
        local: u8,
        epoch: Option<Epoch>,
        kind: u8,
    ) -> Result<(), AllocError> {
        let (id, heap) = (self.next_id(), self.heap);
        let made = match (self.locals.get_mut(local as usize), epoch) {
            (Some(local), None) => insert_as!(kind, id, value => local.insert(value)),
            (Some(local), Some(epoch)) => {
                insert_as!(kind, id, value => local.insert_in(epoch, value))
            }
            (None, None) => insert_as!(kind, id, value => heap.insert(value)),
            (None, Some(epoch)) => insert_as!(kind, id, value => heap.insert_in(epoch, value)),
        };
        self.inserted(made, id, kind, epoch, None)
    }

    pub(super) fn inserted(
        &mut self,
        made: Result<Named, AllocError>,
        id: u64,
        kind: u8,
        epoch: Option<Epoch>,
        scope: Option<u64>,
    ) -> Result<(), AllocError> {
        if made.is_err() && is_dropped(kind) {
            self.dropped.push(id);
        }
        let foreseen = self.foresee(epoch, layout_of(kind), true);
        let Some(named) = self.settle(made, &foreseen)? else {
            return Ok(());
        };
        assert!(!self.dead.contains(&named.raw()), "{named:?} was another's");
        let epoch = epoch.unwrap_or_else(|| self.root());
        self.values.push(Entry {
            named,
            id,
            kind,
            epoch,
            scope,
            readers: 0,
            is_gone: false,
            is_to_drop: false,
        });
        Ok(())
    }

    fn value(&self, number: u8) -> Option<usize> {
        let count = self.values.len();
        (count > 0).then(|| usize::from(number) % count)
    }

    pub(super) fn read(&mut self, number: u8, times: u8) {
        let Some(index) = self.value(number) else {
            return;
        };
        let times = if times > 250 { READERS + 1 } else { 1 };
        for _ in 0..times {
            let entry = self.values[index];
            let heap = self.heap;
            let held = match entry.named {
                Named::Small(handle) => heap.get(handle).map(Held::Small),
                Named::Large(handle) => heap.get(handle).map(Held::Large),
                Named::Silent(handle) => heap.get(handle).map(Held::Silent),
            };
            match held {
                Ok(held) => {
                    assert!(!entry.is_gone && entry.readers < READERS, "{entry:?}");
                    held.verify(entry.id);
                    self.values[index].readers += 1;
                    self.readings.push((entry.id, held));
                }
                Err(HandleError::Stale) => assert!(entry.is_gone, "{entry:?}"),
                Err(error) => {
                    assert_eq!(
                        (error, entry.readers),
                        (HandleError::InUse, READERS),
                        "{entry:?}"
                    );
                }
            }
        }
    }

    pub(super) fn unread(&mut self, number: u8) {
        let count = self.readings.len();
        if count == 0 {
            return;
        }
        let (id, held) = self.readings.swap_remove(usize::from(number) % count);
        held.verify(id);
        drop(held);
        let index = self.values.iter().position(|entry| entry.id == id);
        let index = index.expect("what is read is there");
        let entry = &mut self.values[index];
        entry.readers -= 1;
        if entry.readers == 0 && entry.is_gone {
            let entry = self.values.swap_remove(index);
            self.dead.push(entry.named.raw());
            if entry.is_to_drop && is_dropped(entry.kind) {
                self.dropped.push(id);
            }
        }
    }

    pub(super) fn remove(&mut self, local: u8, number: u8) {
        let Some(index) = self.value(number) else {
            return;
        };
        let entry = self.values[index];
        let removed = match self.locals.get_mut(local as usize) {
            Some(local) => with_handle!(entry.named, handle => local.discard(handle)),
            None => with_handle!(entry.named, handle => self.heap.discard(handle)),
        };
        let expected = if entry.is_gone {
            Err(HandleError::Stale)
        } else {
            Ok(())
        };
        assert_eq!(removed, expected, "{entry:?}");
        if removed.is_ok() {
            self.end_value(index, true);
        }
    }

    /// Frees a value by its handle without a type, so that it is not dropped.
    pub(super) fn forget(&mut self, local: u8, number: u8) {
        let Some(index) = self.value(number) else {
            return;
        };
        let entry = self.values[index];
        let freed = match self.locals.get_mut(local as usize) {
            Some(local) => local.free_raw(entry.named.raw()),
            None => self.heap.free_raw(entry.named.raw()),
        };
        let expected = if entry.is_gone {
            Err(HandleError::Stale)
        } else {
            Ok(())
        };
        assert_eq!(freed, expected, "{entry:?}");
        if freed.is_ok() {
            self.end_value(index, false);
        }
    }

    /// Notes that a value is gone: at once, or for all but its readers.
    fn end_value(&mut self, index: usize, is_to_drop: bool) {
        let entry = &mut self.values[index];
        entry.is_gone = true;
        entry.is_to_drop = is_to_drop;
        if entry.readers == 0 {
            let entry = self.values.swap_remove(index);
            self.dead.push(entry.named.raw());
            if is_to_drop && is_dropped(entry.kind) {
                self.dropped.push(entry.id);
            }
        }
    }

    pub(super) fn take(&mut self, local: u8, number: u8) {
        let Some(index) = self.value(number) else {
            return;
        };
        let entry = self.values[index];
        let taken = match self.locals.get_mut(local as usize) {
            Some(local) => with_handle!(entry.named, handle => local.remove(handle).map(drop)),
            None => with_handle!(entry.named, handle => self.heap.remove(handle).map(drop)),
        };
        let expected = match (entry.is_gone, entry.readers) {
            (true, _) => Err(HandleError::Stale),
            (_, 0) => Ok(()),
            _ => Err(HandleError::InUse),
        };
        assert_eq!(taken, expected, "{entry:?}");
        if taken.is_ok() {
            self.end_value(index, true);
        }
    }

    /// Ends a value whose scope ends, if it was not ended before.
    pub(super) fn end_in_scope(&mut self, id: u64) {
        let is_it = |entry: &Entry| entry.id == id && !entry.is_gone;
        if let Some(index) = self.values.iter().position(is_it) {
            self.end_value(index, true);
        }
    }

    /// Ends what is left of a scope: values without destructors.
    pub(super) fn abandon(&mut self, scope: u64) {
        let is_it = |entry: &Entry| entry.scope == Some(scope) && !entry.is_gone;
        while let Some(index) = self.values.iter().position(is_it) {
            self.end_value(index, false);
        }
    }

    /// Whether a value lives under this handle.
    pub(super) fn is_value(&self, handle: RawHandle) -> bool {
        self.values
            .iter()
            .any(|entry| entry.named.raw() == handle && !entry.is_gone)
    }

    /// A handle of something that is there, or was.
    pub(super) fn known_handle(&self, number: u16) -> Option<RawHandle> {
        let objects = self.objects.iter().filter_map(|object| object.handle);
        let values = self.values.iter().map(|entry| entry.named.raw());
        let all: Vec<_> = objects
            .chain(values)
            .chain(self.dead.iter().copied())
            .collect();
        all.get(usize::from(number) % all.len().max(1)).copied()
    }

    pub(super) fn check_values(&self) {
        for (id, held) in &self.readings {
            held.verify(*id);
        }
        for entry in &self.values {
            let found = self.heap.try_get_raw(entry.named.raw());
            assert_eq!(found.is_err(), entry.is_gone, "{entry:?}");
            assert!(found != Err(HandleError::Foreign), "{entry:?}");
        }
    }
}
