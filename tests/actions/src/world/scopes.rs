//! Scopes, and all that can be in them.

use super::World;
use super::filled::{Filled, is_zero};
use super::values::{Small, insert_as, is_dropped};
use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::config::Config;
use temporal_slab::{AllocError, RawHandle, Scope};

/// The most scopes at a time.
const SCOPES: usize = 4;

/// A scope and what is in it.
#[derive(Debug)]
pub(super) struct Scoped<'h, C: Config> {
    scope: Scope<'h, C>,
    /// Tells it from all others.
    number: u64,
    /// Its blocks, by their sizes.
    pub(super) blocks: Vec<usize>,
    pieces: Vec<Filled>,
    /// Values that are to be dropped with it, in the order in which they came; whether it is by no handle.
    asked: Vec<(u64, bool)>,
    /// Objects with handles that live.
    pub(super) named: Vec<(RawHandle, Filled)>,
}

impl<C: Config> Scoped<'_, C> {
    /// The layout of a block.
    pub(super) fn block(size: usize) -> Layout {
        Layout::from_size_align(size, 64).expect("it is small")
    }

    /// Notes the block that was taken, if one was: no call takes two.
    fn note_block(&mut self) {
        let before: usize = self.blocks.iter().sum();
        let more = self.scope.allocated_bytes() - before;
        self.blocks.extend((more > 0).then_some(more));
    }
}

impl<'h, C: Config> World<'h, C> {
    pub(super) fn make_scope(&mut self) {
        if self.scopes.len() < SCOPES {
            self.ids += 1;
            self.scopes.push(Scoped {
                scope: Scope::new(self.heap),
                number: self.ids,
                blocks: Vec::new(),
                pieces: Vec::new(),
                asked: Vec::new(),
                named: Vec::new(),
            });
        }
    }

    pub(super) fn in_scope(
        &mut self,
        number: u8,
        how: u8,
        size: u16,
        align: u8,
    ) -> Result<(), AllocError> {
        let index = usize::from(number) % self.scopes.len().max(1);
        let layout = super::objects::layout(size.into(), align);
        let foreseen = self.foresee(None, layout, how % 9 == 7);
        let (id, pattern) = (self.ids + 1, self.steps as u8);
        let Some(scoped) = self.scopes.get_mut(index) else {
            return Ok(());
        };
        let scope = &scoped.scope;
        let mut asked = None;
        let len = usize::from(size);
        let made: Result<(NonNull<u8>, Layout), AllocError> = match how % 9 {
            0 => scope.alloc_layout(layout).map(|at| (at, layout)),
            1 => scope.alloc_zeroed(layout).map(|bytes| {
                let at = NonNull::from(bytes).cast();
                is_zero(at, layout);
                (at, layout)
            }),
            2 => scope
                .alloc([pattern; 100])
                .map(|value| (NonNull::from(value).cast(), Layout::new::<[u8; 100]>())),
            3 => {
                asked = Some(id);
                scope.alloc_with_drop(Small::new(id)).map(|value| {
                    value.verify(id);
                    (NonNull::dangling(), Layout::new::<()>())
                })
            }
            4 => scope
                .alloc_slice_fill_with(len % 2000, |index| index as u16)
                .map(|slice| {
                    assert!(
                        slice
                            .iter()
                            .enumerate()
                            .all(|(index, at)| *at == index as u16)
                    );
                    (NonNull::from(&mut *slice).cast(), Layout::for_value(slice))
                }),
            5 => scope.alloc_slice_copy(&[pattern; 77]).map(|slice| {
                assert_eq!(slice, [pattern; 77]);
                (NonNull::from(&mut *slice).cast(), Layout::new::<[u8; 77]>())
            }),
            6 => scope.alloc_str("a request").map(|text| {
                assert_eq!(text, "a request");
                (NonNull::from(text).cast(), Layout::new::<[u8; 9]>())
            }),
            7 => {
                let made = scope.alloc_raw(layout);
                scoped.note_block();
                if let Some(handle) = self.settle(made, &foreseen)? {
                    let at = self.heap.get_raw(handle).expect("it was just made");
                    self.scopes[index]
                        .named
                        .push((handle, Filled::new(at, layout, pattern)));
                }
                return Ok(());
            }
            _ => return self.insert_in_scope(index, size),
        };
        let is_made = made.is_ok();
        scoped.note_block();
        if let (Some(id), true) = (asked, is_made) {
            scoped.asked.push((id, true));
            self.ids = id;
        } else if let Some(id) = asked {
            // What could not be taken in is dropped.
            self.dropped.push(id);
            self.ids = id;
        }
        if let Some((at, layout)) = self.settle(made, &foreseen)? {
            let is_apart = |filled: &Filled| {
                let (from, other) = (at.addr().get(), filled.at.addr().get());
                from + layout.size() <= other || other + filled.layout.size() <= from
            };
            let scoped = &mut self.scopes[index];
            assert!(
                layout.size() == 0 || scoped.pieces.iter().all(is_apart),
                "pieces overlap"
            );
            scoped.pieces.push(Filled::new(at, layout, pattern));
        }
        Ok(())
    }

    fn insert_in_scope(&mut self, index: usize, size: u16) -> Result<(), AllocError> {
        let id = self.next_id();
        let scoped = &mut self.scopes[index];
        let scope = scoped.number;
        let kind = size as u8;
        let made = insert_as!(kind, id, value => scoped.scope.insert(value));
        scoped.note_block();
        if made.is_ok() && is_dropped(kind) {
            scoped.asked.push((id, false));
        }
        self.inserted(made, id, kind, None, Some(scope))
    }

    /// Empties a scope, or ends it.
    pub(super) fn end_scope(&mut self, number: u8, ends: bool) {
        let index = usize::from(number) % self.scopes.len().max(1);
        if index >= self.scopes.len() {
            return;
        }
        let mut scoped = self.scopes.swap_remove(index);
        scoped.pieces.drain(..).for_each(|piece| piece.verify());
        // What has a destructor is dropped in the reverse order; what is being read then, by its last reader.
        for (id, is_boxed) in scoped.asked.drain(..).rev() {
            if is_boxed {
                self.dropped.push(id);
            } else {
                self.end_in_scope(id);
            }
        }
        self.abandon(scoped.number);
        for (handle, filled) in scoped.named.drain(..) {
            filled.verify();
            self.dead.push(handle);
        }
        if ends {
            drop(scoped);
            return;
        }
        let most = scoped
            .blocks
            .iter()
            .copied()
            .filter(|size| *size <= 64 << 10)
            .max();
        scoped.scope.reset();
        assert_eq!(
            scoped.scope.allocated_bytes(),
            most.unwrap_or(0),
            "its largest small block stays"
        );
        scoped.blocks = most.into_iter().collect();
        self.scopes.push(scoped);
    }

    /// Where the object of a scope lies that has this handle, if there is one.
    pub(super) fn named_in_scope(&self, handle: RawHandle) -> Option<NonNull<u8>> {
        let mut named = self.scopes.iter().flat_map(|scoped| &scoped.named);
        let found = named.find(|(other, _)| *other == handle);
        found.map(|(_, filled)| filled.at)
    }

    pub(super) fn check_scopes(&self) {
        for scoped in &self.scopes {
            scoped.pieces.iter().for_each(Filled::verify);
            for (handle, filled) in &scoped.named {
                assert_eq!(self.heap.get_raw(*handle), Some(filled.at));
                filled.verify();
            }
        }
    }

    /// Runs `work` on a scope; it calls what it is given after each call of the scope's.
    pub(super) fn with_scope<T>(
        &mut self,
        number: u8,
        work: impl FnOnce(&Scope<'h, C>, &mut dyn FnMut()) -> T,
    ) -> Option<T> {
        let index = usize::from(number) % self.scopes.len().max(1);
        let scoped = self.scopes.get_mut(index)?;
        let (scope, mut held) = (&scoped.scope, scoped.scope.allocated_bytes());
        let mut blocks = Vec::new();
        let result = work(scope, &mut || {
            let now = scope.allocated_bytes();
            blocks.extend((now > held).then_some(now - held));
            held = now;
        });
        scoped.blocks.extend(blocks);
        Some(result)
    }
}
