//! The bump blocks that a local owns: lists by epoch, so that a local that serves many epochs at a time finds those of one.

use crate::block::BumpBlock;
use crate::epoch::Epoch;
use crate::sync::Ordering::Relaxed;
use core::ptr;

/// Lists, each for the epochs whose indices have the same lowest bits.
const LISTS: usize = 64;

/// The blocks of a local, of whatever epochs. The newest of an epoch is before its others. The local alone reads and changes the
/// links: `Relaxed`.
#[derive(Debug)]
pub(crate) struct Owned {
    first: [*mut BumpBlock; LISTS],
    count: usize,
}

/// Blocks of a list. One that was given may have another link by then.
#[derive(Clone, Copy)]
pub(crate) struct Blocks<'b>(Option<&'b BumpBlock>);

impl<'b> Iterator for Blocks<'b> {
    type Item = &'b BumpBlock;

    #[inline]
    fn next(&mut self) -> Option<&'b BumpBlock> {
        let block = self.0?;
        // SAFETY: blocks are valid as long as the heap, and so are links.
        self.0 = unsafe { block.sibling.load(Relaxed).as_ref() };
        Some(block)
    }
}

impl Owned {
    pub(crate) const NONE: Self = Self {
        first: [ptr::null_mut(); LISTS],
        count: 0,
    };

    #[inline]
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    #[inline]
    pub(crate) fn add(&mut self, block: &BumpBlock) {
        let first = &mut self.first[block.index() as usize % LISTS];
        block.sibling.store(*first, Relaxed);
        *first = ptr::from_ref(block).cast_mut();
        self.count += 1;
    }

    /// The blocks of an epoch.
    ///
    /// # Safety
    /// The blocks are valid as long as `'b`.
    #[inline]
    pub(crate) unsafe fn of<'b>(
        &self,
        index: usize,
        era: u64,
    ) -> impl Iterator<Item = &'b BumpBlock> + use<'b> {
        // SAFETY: the caller's promise.
        let blocks = Blocks(unsafe { self.first[index % LISTS].as_ref() });
        blocks.filter(move |block| block.era() == era)
    }

    /// Takes the block of an epoch out, if it has one, which is empty and alone in its list.
    ///
    /// # Safety
    /// As for [`Owned::of`].
    #[inline]
    pub(crate) unsafe fn take_empty<'b>(&mut self, epoch: Epoch) -> Option<&'b BumpBlock> {
        let first = &mut self.first[epoch.index() % LISTS];
        // SAFETY: the caller's promise.
        let block = unsafe { first.as_ref() }?;
        let is_it =
            block.era() == epoch.era() && block.sibling.load(Relaxed).is_null() && block.is_empty();
        if is_it {
            *first = ptr::null_mut();
            self.count -= 1;
        }
        is_it.then_some(block)
    }

    /// Takes the blocks out that `is_over` says, of the list of an index or of all. Those of an epoch stay in their order.
    ///
    /// # Safety
    /// The blocks are valid as long as `'b`.
    pub(crate) unsafe fn take<'b>(
        &mut self,
        index: Option<usize>,
        is_over: impl Fn(&BumpBlock) -> bool,
    ) -> Blocks<'b> {
        let lists = match index {
            Some(index) => index % LISTS..index % LISTS + 1,
            None => 0..LISTS,
        };
        let (mut taken, mut last): (_, Option<&BumpBlock>) = (None, None);
        for first in &mut self.first[lists] {
            // The block whose link leads to the next one, or none.
            let mut before: Option<&BumpBlock> = None;
            // SAFETY: the caller's promise.
            for block in Blocks(unsafe { first.as_ref() }) {
                if !is_over(block) {
                    before = Some(block);
                    continue;
                }
                let next = block.sibling.load(Relaxed);
                match before {
                    Some(before) => before.sibling.store(next, Relaxed),
                    None => *first = next,
                }
                self.count -= 1;
                match last {
                    Some(last) => last.sibling.store(ptr::from_ref(block).cast_mut(), Relaxed),
                    None => taken = Some(block),
                }
                last = Some(block);
            }
        }
        if let Some(last) = last {
            last.sibling.store(ptr::null_mut(), Relaxed);
        }
        Blocks(taken)
    }
}
