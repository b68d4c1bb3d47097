//! Domains, and the order in which a thread is inside them.

use super::{Program, call, epochs, worked};
use crate::{Bytes, Known};
use core::ptr;
use temporal_slab_c_linked::{
    EpochDomain, SlabAllocator, SlabError, epoch_domain_create, epoch_domain_current,
    epoch_domain_destroy, epoch_domain_enter, epoch_domain_exit, epoch_domain_force_close,
    epoch_domain_wrap,
};

/// A domain that is there.
#[derive(Debug)]
pub(super) struct Domain {
    at: *mut EpochDomain,
    /// Its allocator.
    pub(super) of: usize,
    epoch: u32,
    /// Which of the epochs that were at the position.
    era: u64,
    closes: bool,
}

/// How deep a thread's domains may nest.
const DEPTH: usize = 1024;

impl Domain {
    /// Ends a domain that nobody is inside.
    pub(super) fn destroy(self) {
        // SAFETY: it is there, and used no more.
        assert!(worked(&[], || unsafe { epoch_domain_destroy(self.at) }));
    }
}

impl Program {
    pub(super) fn make_domain(&mut self, which: usize, bytes: &mut Bytes<'_>) -> Known<()> {
        let allocator = &self.allocators[which];
        if self.domains.len() >= 32 {
            return Ok(());
        }
        let closes = bytes.arbitrary()?;
        let (epoch, expected, (at, error)) = if bytes.arbitrary()? {
            let epoch = epochs::any(allocator, bytes)?;
            // SAFETY: an allocator.
            let made = call(|| unsafe { epoch_domain_wrap(allocator.at, epoch, closes) });
            (epoch, allocator.ring.usable(epoch), made)
        } else {
            // SAFETY: an allocator.
            let made = call(|| unsafe { epoch_domain_create(allocator.at) });
            (allocator.ring.current(), vec![], made)
        };
        super::fits(&expected, error);
        assert_eq!(at.is_null(), error != SlabError::None);
        // SAFETY: a domain may be read.
        let Some(made) = (unsafe { at.as_ref() }) else {
            return Ok(());
        };
        assert_eq!(
            (made.alloc, made.epoch_id, made.entered),
            (allocator.at, epoch, 0)
        );
        let (era, closes) = (allocator.ring.era(epoch), made.auto_close);
        self.domains.push(Domain {
            at,
            of: which,
            epoch,
            era,
            closes,
        });
        Ok(())
    }

    /// A domain's number, if there is one.
    fn domain(&self, bytes: &mut Bytes<'_>) -> Known<Option<usize>> {
        let number = usize::from(bytes.arbitrary::<u8>()?);
        Ok((!self.domains.is_empty()).then(|| number % self.domains.len()))
    }

    /// Whether the position of a domain still has its epoch.
    fn is_there(&self, number: usize) -> bool {
        let domain = &self.domains[number];
        self.allocators[domain.of].ring.era(domain.epoch) == domain.era
    }

    pub(super) fn enter(&mut self, bytes: &mut Bytes<'_>) -> Known<()> {
        let Some(number) = self.domain(bytes)? else {
            return Ok(());
        };
        let many = if bytes.arbitrary::<u8>()? == 0 {
            DEPTH + 1
        } else {
            1
        };
        for _ in 0..many {
            let domain = &self.domains[number];
            let ring = &mut self.allocators[domain.of].ring;
            let is_open = ring.is_open(domain.epoch) && ring.era(domain.epoch) == domain.era;
            let expected: &[SlabError] = match (self.inside.len() < DEPTH, is_open) {
                (false, _) => &[SlabError::Misuse],
                (_, false) => &[SlabError::ClosedEpoch],
                _ => &[],
            };
            // SAFETY: a domain that is there.
            if worked(expected, || unsafe { epoch_domain_enter(domain.at) }) {
                ring.count(domain.epoch, 1);
                self.inside.push(number);
            }
        }
        self.check_innermost();
        Ok(())
    }

    pub(super) fn exit(&mut self, bytes: &mut Bytes<'_>) -> Known<()> {
        let number = if bytes.arbitrary()? {
            self.inside.last().copied()
        } else {
            self.domain(bytes)?
        };
        let Some(number) = number else { return Ok(()) };
        if self.inside.last() == Some(&number) {
            self.leave(number);
        } else {
            // SAFETY: a domain that is there.
            worked(&[SlabError::Misuse], || unsafe {
                epoch_domain_exit(self.domains[number].at)
            });
        }
        self.check_innermost();
        Ok(())
    }

    /// Leaves the domain that was entered last.
    pub(super) fn leave(&mut self, number: usize) {
        let is_there = self.is_there(number);
        let domain = &self.domains[number];
        // SAFETY: a domain that is there.
        assert!(worked(&[], || unsafe { epoch_domain_exit(domain.at) }));
        self.inside.pop();
        let ring = &mut self.allocators[domain.of].ring;
        // Somebody may have counted down what this domain counted up.
        if is_there && ring.inside(domain.epoch) > 0 {
            ring.count(domain.epoch, -1);
            if domain.closes && ring.inside(domain.epoch) == 0 && domain.epoch != 0 {
                ring.shut(domain.epoch);
            }
        }
    }

    fn check_innermost(&self) {
        let innermost = self
            .inside
            .last()
            .map_or(ptr::null_mut(), |number| self.domains[*number].at);
        assert_eq!(
            call(|| epoch_domain_current()),
            (innermost, SlabError::None)
        );
        for (number, domain) in self.domains.iter().enumerate() {
            let entered = self
                .inside
                .iter()
                .filter(|inside| **inside == number)
                .count();
            // SAFETY: a domain may be read.
            assert_eq!(unsafe { (*domain.at).entered } as usize, entered);
        }
    }

    /// Closes a domain's epoch, or ends the domain.
    pub(super) fn end_domain(&mut self, bytes: &mut Bytes<'_>) -> Known<()> {
        let Some(number) = self.domain(bytes)? else {
            return Ok(());
        };
        let is_inside = self.inside.contains(&number);
        if bytes.arbitrary()? {
            let is_there = self.is_there(number);
            let domain = &self.domains[number];
            let ring = &mut self.allocators[domain.of].ring;
            let expected: &[SlabError] = match () {
                () if !is_there => &[SlabError::ClosedEpoch],
                () if ring.inside(domain.epoch) > 0 => &[SlabError::Misuse],
                () if domain.epoch == 0 => &[SlabError::BadEpoch],
                () if !ring.is_open(domain.epoch) => &[SlabError::ClosedEpoch],
                () => &[],
            };
            // SAFETY: a domain that is there.
            if worked(expected, || unsafe { epoch_domain_force_close(domain.at) }) {
                ring.shut(domain.epoch);
            }
        } else if is_inside {
            // SAFETY: a domain that is there, and that stays.
            worked(&[SlabError::Misuse], || unsafe {
                epoch_domain_destroy(self.domains[number].at)
            });
        } else {
            self.domains.swap_remove(number).destroy();
            // The last one took its number.
            let last = self.domains.len();
            self.inside
                .iter_mut()
                .filter(|inside| **inside == last)
                .for_each(|inside| *inside = number);
        }
        Ok(())
    }
}

/// These functions with nothing.
///
/// # Safety
/// `none` is null.
pub(super) unsafe fn nothing(none: *mut SlabAllocator, number: u32, argument: &[SlabError]) {
    let refused = (ptr::null_mut(), SlabError::Argument);
    // SAFETY: all of them take null.
    unsafe {
        assert_eq!(call(|| epoch_domain_create(none)), refused);
        assert_eq!(call(|| epoch_domain_wrap(none, number, true)), refused);
        worked(argument, || epoch_domain_enter(ptr::null_mut()));
        worked(argument, || epoch_domain_exit(ptr::null_mut()));
        worked(argument, || epoch_domain_force_close(ptr::null_mut()));
        assert!(worked(&[], || epoch_domain_destroy(ptr::null_mut())));
    }
}
