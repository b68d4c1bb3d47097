//! The functions for C, called in any order with what is right, null, out of range, stale or made up.
//!
//! Each call does and says what a model of epochs, objects, handles and domains expects: success, or one of the errors
//! that fit, and nothing else has changed. What the header forbids (an allocator or a domain that is gone) is not done.
//! Seen to catch: a null pointer that is followed, a number that is not compared with the ring's length, an exit that
//! closes an epoch in which somebody is still inside.

mod domains;
mod epochs;
mod objects;
mod table;

use crate::{Bytes, Known};
use arbitrary::Unstructured;
use core::ffi::{CStr, c_void};
use core::ptr;
use domains::Domain;
use epochs::Ring;
use objects::Objects;
use temporal_slab_c_linked::{
    PerfCounters, SlabAllocator, SlabClassStats, SlabEpochStats, SlabError, SlabGlobalStats,
    get_perf_counters, read_rss_bytes_linux, slab_allocator_create, slab_allocator_free,
    slab_clear_error, slab_error_text, slab_last_error, slab_reclaim, slab_set_limit,
    slab_stats_class, slab_stats_epoch, slab_stats_global,
};

/// The most steps of one input.
const STEPS: usize = 128;

/// Runs one input.
pub fn capi(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let mut program = Program {
        allocators: [Allocator::new(), Allocator::new()],
        domains: Vec::new(),
        inside: Vec::new(),
    };
    for _ in 0..STEPS {
        if bytes.is_empty() || program.step(&mut bytes).is_err() {
            break;
        }
    }
    program.finish();
}

/// A program in C.
struct Program {
    allocators: [Allocator; 2],
    domains: Vec<Domain>,
    /// The domains that this thread is inside, the innermost last: their numbers.
    inside: Vec<usize>,
}

/// An allocator and what should be in it.
struct Allocator {
    at: *mut SlabAllocator,
    is_limited: bool,
    ring: Ring,
    objects: Objects,
}

/// Calls a function and gives what it returned and why it failed, if it did.
fn call<T>(function: impl FnOnce() -> T) -> (T, SlabError) {
    slab_clear_error();
    let result = function();
    let error = slab_last_error();
    assert_ne!(error, SlabError::Internal, "a defect of the library");
    (result, error)
}

/// Calls a function that says whether it worked. It does if nothing is expected to be wrong, and else names one of the
/// causes that there are.
fn worked(expected: &[SlabError], function: impl FnOnce() -> bool) -> bool {
    let (result, error) = call(function);
    assert_eq!(result, error == SlabError::None, "{error:?}");
    fits(expected, error);
    result
}

fn fits(expected: &[SlabError], error: SlabError) {
    let is_fine = expected.is_empty() && error == SlabError::None;
    assert!(
        is_fine || expected.contains(&error),
        "{error:?} and not {expected:?}"
    );
}

impl Allocator {
    fn new() -> Self {
        let (at, error) = call(|| slab_allocator_create());
        assert_eq!((at.is_null(), error), (false, SlabError::None));
        Self {
            at,
            is_limited: false,
            ring: Ring::new(),
            objects: Objects::default(),
        }
    }

    /// What is wrong with an allocation of so many bytes, but for the epoch.
    fn shortage(&self, size: usize) -> Vec<SlabError> {
        let mut expected = Vec::new();
        if size > objects::LARGE {
            expected.extend([SlabError::Size, SlabError::OutOfMemory, SlabError::Limit]);
        }
        expected
    }

    /// Compares what the library counts with the model.
    fn check(&self) {
        let mut stats = SlabGlobalStats::default();
        // SAFETY: an allocator, and a place for the figures.
        assert!(worked(&[], || unsafe {
            slab_stats_global(self.at, &raw mut stats)
        }));
        assert_eq!((stats.version, stats.ring), (1, u32::MAX));
        assert_eq!(stats.live_objects, self.objects.count() as u64);
        assert!(stats.live_bytes >= self.objects.bytes() as u64);
        assert_eq!(stats.open_epochs, self.ring.open() as u64);
        assert!(stats.resident_bytes <= stats.committed_bytes);
        self.objects.check(self.at);
    }
}

impl Program {
    fn step(&mut self, bytes: &mut Bytes<'_>) -> Known<()> {
        let which = usize::from(bytes.arbitrary::<u8>()? & 1);
        match bytes.int_in_range(0..=31u8)? {
            0..=5 => objects::allocate(&mut self.allocators[which], bytes),
            6..=9 => objects::free(&mut self.allocators, which, bytes),
            10..=12 => objects::name(&mut self.allocators[which], bytes),
            13..=15 => objects::end(&mut self.allocators, which, bytes),
            step @ (16 | 17) => epochs::begin(&mut self.allocators[which], step == 16),
            18 | 19 => epochs::close(&mut self.allocators[which], bytes),
            20 => epochs::label(&mut self.allocators[which], bytes),
            21 => epochs::count(&mut self.allocators[which], bytes),
            22 | 23 => self.make_domain(which, bytes),
            24 => self.enter(bytes),
            25 => self.exit(bytes),
            26 => self.end_domain(bytes),
            27 => self.limit(which, bytes),
            28 => {
                self.reports(which, bytes)?;
                self.allocators[which].check();
                Ok(())
            }
            29 => nothing(bytes),
            30 => {
                self.free_allocator(which);
                Ok(())
            }
            _ => {
                // SAFETY: an allocator.
                let ((), error) = call(|| unsafe { slab_reclaim(self.allocators[which].at) });
                assert_eq!(error, SlabError::None);
                Ok(())
            }
        }
    }

    fn limit(&mut self, which: usize, bytes: &mut Bytes<'_>) -> Known<()> {
        let allocator = &mut self.allocators[which];
        allocator.is_limited = bytes.arbitrary()?;
        let most = if allocator.is_limited {
            usize::from(bytes.arbitrary::<u16>()?) << 8
        } else {
            usize::MAX
        };
        // SAFETY: an allocator.
        let ((), error) = call(|| unsafe { slab_set_limit(allocator.at, most) });
        assert_eq!(error, SlabError::None);
        Ok(())
    }

    /// Ends an allocator, all that is in it and its domains, and makes another.
    fn free_allocator(&mut self, which: usize) {
        while let Some(domain) = self.inside.last().copied() {
            self.leave(domain);
        }
        let is_of = |domain: &Domain| domain.of == which;
        for domain in self.domains.extract_if(.., |domain| is_of(domain)) {
            domain.destroy();
        }
        // SAFETY: an allocator that is not used any more.
        let ((), error) = call(|| unsafe { slab_allocator_free(self.allocators[which].at) });
        assert_eq!(error, SlabError::None);
        self.allocators[which] = Allocator::new();
    }

    /// Figures, of what there is and of what there is not.
    fn reports(&self, which: usize, bytes: &mut Bytes<'_>) -> Known<()> {
        let allocator = &self.allocators[which];
        let (at, number) = (
            allocator.at,
            bytes.arbitrary::<u32>()? >> (bytes.arbitrary::<u8>()? % 32),
        );
        let (mut counters, mut class) = (PerfCounters::default(), SlabClassStats::default());
        let is_wrong = |is_right: bool| {
            if is_right {
                vec![]
            } else {
                vec![SlabError::Argument]
            }
        };
        // SAFETY: an allocator, and a place for the figures.
        worked(&is_wrong(number < 8), || unsafe {
            get_perf_counters(at, number, &raw mut counters)
        });
        assert!(counters.empty_slab_recycled <= counters.new_slab_count);
        // SAFETY: as above.
        let is_class = worked(&is_wrong(number < 80), || unsafe {
            slab_stats_class(at, number, &raw mut class)
        });
        assert_eq!(class.version, u32::from(is_class));
        let (expected, label) = allocator.ring.known(number);
        let mut epoch = core::mem::MaybeUninit::<SlabEpochStats>::uninit();
        // SAFETY: as above.
        if worked(&expected, || unsafe {
            slab_stats_epoch(at, number, epoch.as_mut_ptr())
        }) {
            // SAFETY: it was written.
            let epoch = unsafe { epoch.assume_init() };
            // SAFETY: it ends with a zero.
            let text = unsafe { CStr::from_ptr(epoch.label.as_ptr()) };
            assert_eq!(text.to_str(), Ok(label));
            assert_eq!(epoch.is_open, allocator.ring.is_open(number));
            assert_eq!(epoch.refcount, allocator.ring.inside(number));
            assert_eq!(
                epoch.live_objects,
                allocator.objects.count_in(number) as u64
            );
        }
        Ok(())
    }

    fn finish(mut self) {
        for which in 0..self.allocators.len() {
            self.allocators[which].check();
            if which == 0 {
                self.allocators[which].empty();
                self.allocators[which].check();
            }
        }
        while let Some(domain) = self.inside.last().copied() {
            self.leave(domain);
        }
        self.domains.drain(..).for_each(Domain::destroy);
        for allocator in self.allocators {
            // SAFETY: an allocator that is not used any more.
            unsafe { slab_allocator_free(allocator.at) };
        }
    }
}

/// Every function with nothing, or with numbers that mean nothing.
fn nothing(bytes: &mut Bytes<'_>) -> Known<()> {
    let none: *mut SlabAllocator = ptr::null_mut();
    let (number, size) = (bytes.arbitrary::<u32>()?, bytes.arbitrary::<usize>()?);
    let argument: &[SlabError] = &[SlabError::Argument];
    let pointer = |function: &dyn Fn() -> *mut c_void| {
        let (result, error) = call(function);
        assert_eq!((result.is_null(), error), (true, SlabError::Argument));
    };
    // SAFETY: all of them take null.
    unsafe {
        epochs::nothing(none, number, argument);
        domains::nothing(none, number, argument);
        objects::nothing(none, number, size, &pointer);
        worked(argument, || {
            get_perf_counters(none, number, ptr::null_mut())
        });
        worked(argument, || slab_stats_global(none, ptr::null_mut()));
        worked(argument, || slab_stats_class(none, number, ptr::null_mut()));
        worked(argument, || slab_stats_epoch(none, number, ptr::null_mut()));
        assert_eq!(call(|| slab_reclaim(none)).1, SlabError::Argument);
        assert_eq!(call(|| slab_set_limit(none, size)).1, SlabError::Argument);
        assert_eq!(call(|| slab_allocator_free(none)).1, SlabError::None);
        assert!(!CStr::from_ptr(slab_error_text(number)).is_empty());
    }
    assert_ne!(read_rss_bytes_linux(), 0);
    Ok(())
}
