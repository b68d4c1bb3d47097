//! A provider that misbehaves on demand, for tests of heaps and of anything built on them.
//!
//! It wraps a real provider, numbers every call that can fail, and breaks the ones that a test
//! names. It keeps a ledger of every region that is out, so a test can ask at the end whether each
//! came back exactly once and whole, and whether anything was written outside.

use super::{Capabilities, PageProvider, ProviderError, Region};
use core::fmt;
use core::num::NonZeroUsize;
use core::ptr::{self, NonNull};
use spin::Mutex;

/// What a broken call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, as the contract allows.
    Refuse,
    /// `acquire` returns a region that starts this far off the alignment that was asked for.
    Misaligned(usize),
    /// `acquire` returns a region that is this much too small.
    Short(usize),
    /// `acquire` returns a region that overlaps one that is out, if the provider was made by
    /// [`FaultyProvider::overlapping`]; any other refuses.
    Overlapping,
    /// `acquire` returns a region that reaches the end of the address space.
    TopOfMemory,
}

/// What a [`FaultyProvider`] has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Calls of `acquire`, `decommit` and `commit` so far, broken ones included.
    pub calls: u64,
    /// Calls that were broken.
    pub broken: u64,
    /// Calls of `decommit` that succeeded.
    pub decommits: u64,
    /// Bytes that successful decommits gave back.
    pub decommitted_bytes: u64,
    /// Real regions that are out.
    pub regions: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Misshapen regions that were handed out and not handed back.
    pub misshapen: usize,
    /// Releases of a region that was not out, or not in that shape: each is a bug of the heap.
    pub wrong_releases: u64,
    /// Misshapen regions that came back written to.
    pub scribbled: u64,
    /// Regions that were refused, whole or misshapen, because the ledger of `LEDGER` entries was full: `acquire` was
    /// `None`, and what the inner provider had given went straight back to it.
    pub unrecorded: u64,
}

/// Wraps `P` and breaks chosen calls.
///
/// `DECOMMIT` makes it offer decommit (by overwriting the pages, which is what the heap must
/// expect) and demand `commit` before decommitted pages are used again, even where `P` does not.
///
/// At most `LEDGER` regions are out at a time; more are refused, and counted in [`Accounts::unrecorded`].
pub struct FaultyProvider<P, const DECOMMIT: bool = true, const LEDGER: usize = 1024> {
    inner: P,
    overlaps: bool,
    state: Mutex<State<LEDGER>>,
}

struct State<const LEDGER: usize> {
    accounts: Accounts,
    /// Calls with these numbers (from 0) are broken.
    broken: (u64, u64),
    fault: Fault,
    out: [Option<Entry>; LEDGER],
}

#[derive(Clone, Copy)]
struct Entry {
    /// What the heap was given.
    shown: Region,
    /// What is behind it; `None` for a region that never was real.
    real: Option<Region>,
    misshapen: bool,
}

// SAFETY: the regions in the ledger are bookkeeping; this provider never reads through them except
// to overwrite pages that their owner gives up.
unsafe impl<const LEDGER: usize> Send for State<LEDGER> {}

/// What decommitted pages and misshapen regions are overwritten with: a heap that trusts the content
/// of the first, or writes to the second, is caught.
const LOST: u8 = 0xDB;

impl<P: PageProvider, const DECOMMIT: bool, const LEDGER: usize>
    FaultyProvider<P, DECOMMIT, LEDGER>
{
    /// A provider that behaves until it is told otherwise.
    pub const fn new(inner: P) -> Self {
        Self::make(inner, false)
    }

    /// As [`FaultyProvider::new`], for one that may also show a region that is out once more.
    ///
    /// # Safety
    /// While [`Fault::Overlapping`] may happen, all regions go to one heap, which one thread at a time uses. The heap that
    /// holds a region refuses what overlaps it; another one, or this one when it has just given the region back, does not
    /// know it.
    pub const unsafe fn overlapping(inner: P) -> Self {
        Self::make(inner, true)
    }

    const fn make(inner: P, overlaps: bool) -> Self {
        Self {
            inner,
            overlaps,
            state: Mutex::new(State {
                accounts: Accounts {
                    calls: 0,
                    broken: 0,
                    decommits: 0,
                    decommitted_bytes: 0,
                    regions: 0,
                    bytes: 0,
                    misshapen: 0,
                    wrong_releases: 0,
                    scribbled: 0,
                    unrecorded: 0,
                },
                broken: (0, 0),
                fault: Fault::Refuse,
                out: [None; LEDGER],
            }),
        }
    }

    /// Breaks `count` calls, beginning with the one that is `after` calls from now.
    pub fn break_calls(&self, after: u64, count: u64, fault: Fault) {
        let mut state = self.state.lock();
        let from = state.accounts.calls.saturating_add(after);
        state.broken = (from, from.saturating_add(count));
        state.fault = fault;
    }

    /// Behaves again.
    pub fn mend(&self) {
        self.state.lock().broken = (0, 0);
    }

    /// What was counted so far.
    pub fn accounts(&self) -> Accounts {
        self.state.lock().accounts
    }

    /// The wrapped provider.
    pub const fn inner(&self) -> &P {
        &self.inner
    }

    /// Counts a call and says how it is to go wrong.
    fn next_call(&self) -> Option<Fault> {
        let mut state = self.state.lock();
        let number = state.accounts.calls;
        state.accounts.calls += 1;
        let (from, to) = state.broken;
        (from..to).contains(&number).then(|| {
            state.accounts.broken += 1;
            state.fault
        })
    }

    /// Hands out a region in a shape that nobody asked for.
    fn misshapen(&self, fault: Fault, size: usize, align: usize) -> Option<Region> {
        let (shown, real) = match fault {
            Fault::Refuse => return None,
            Fault::Overlapping if !self.overlaps => return None,
            Fault::Misaligned(by) => {
                let by = by.clamp(1, align.max(2) - 1);
                let real = self.inner.acquire(size.checked_add(by)?, align)?;
                // SAFETY: `by` is inside the region, which is that much longer.
                let base = unsafe { real.base.add(by) };
                (Region { base, size }, Some(real))
            }
            Fault::Short(by) => {
                let real = self.inner.acquire(size, align)?;
                let size = size.saturating_sub(by.max(1));
                (Region { size, ..real }, Some(real))
            }
            Fault::Overlapping => {
                // Aligned as asked, and long enough to reach into a region that is out.
                let state = self.state.lock();
                let held = state.out.iter().flatten().find(|e| !e.misshapen)?.shown;
                let lead = held.base.addr().get() % align;
                let base = held
                    .base
                    .map_addr(|at| NonZeroUsize::new(at.get() - lead).unwrap_or(at));
                (
                    Region {
                        base,
                        size: size.max(lead + 1),
                    },
                    None,
                )
            }
            Fault::TopOfMemory => {
                let base = NonZeroUsize::new(usize::MAX & !(align - 1))?;
                let base = NonNull::new(ptr::without_provenance_mut(base.get()))?;
                (
                    Region {
                        base,
                        size: size.max(align),
                    },
                    None,
                )
            }
        };
        if real.is_some() {
            // SAFETY: the shown part lies in the real region, which is ours.
            unsafe { shown.base.write_bytes(LOST, shown.size) };
        }
        self.hand_out(Entry {
            shown,
            real,
            misshapen: true,
        })
    }

    /// Hands out what can be recorded. Whose a region is that is in no ledger nobody could tell when it comes back, so
    /// it goes back at once.
    fn hand_out(&self, entry: Entry) -> Option<Region> {
        if self.state.lock().record(entry) {
            return Some(entry.shown);
        }
        if let Some(real) = entry.real {
            // SAFETY: the inner provider just gave it, and nobody else knows it.
            unsafe { self.inner.release(real) };
        }
        None
    }
}

impl<const LEDGER: usize> State<LEDGER> {
    /// Enters a region; `false` if there is no room, and nothing is noted but that.
    fn record(&mut self, entry: Entry) -> bool {
        let Some(place) = self.out.iter_mut().find(|e| e.is_none()) else {
            self.accounts.unrecorded += 1;
            return false;
        };
        *place = Some(entry);
        if entry.misshapen {
            self.accounts.misshapen += 1;
        } else {
            self.accounts.regions += 1;
            self.accounts.bytes += entry.shown.size;
        }
        true
    }

    /// Strikes a region out. Misshapen ones first: an overlapping region looks like the one that it
    /// was copied from, and it is the younger that comes back.
    fn strike(&mut self, shown: Region) -> Option<Entry> {
        let matches = |e: &Option<Entry>| e.is_some_and(|e| e.shown == shown);
        let is_misshapen = |e: &Option<Entry>| matches(e) && e.is_some_and(|e| e.misshapen);
        let any = self.accounts.misshapen > 0;
        let misshapen = any.then(|| self.out.iter().position(is_misshapen));
        let at = misshapen
            .flatten()
            .or_else(|| self.out.iter().position(matches))?;
        let entry = self.out.get_mut(at)?.take()?;
        if entry.misshapen {
            self.accounts.misshapen -= 1;
        } else {
            self.accounts.regions -= 1;
            self.accounts.bytes -= shown.size;
        }
        Some(entry)
    }
}

// SAFETY: well-formed regions are the inner provider's own; misshapen ones are what the trait says
// that a heap must refuse. One that overlaps another is so for the heap that holds that one: who made the provider promised
// that there is no other.
unsafe impl<P: PageProvider, const DECOMMIT: bool, const LEDGER: usize> PageProvider
    for FaultyProvider<P, DECOMMIT, LEDGER>
{
    const CHUNK_SIZE: usize = P::CHUNK_SIZE;

    fn acquire(&self, size: usize, align: usize) -> Option<Region> {
        if size == 0 || !align.is_power_of_two() {
            return None;
        }
        if let Some(fault) = self.next_call() {
            return self.misshapen(fault, size, align);
        }
        let region = self.inner.acquire(size, align)?;
        self.hand_out(Entry {
            shown: region,
            real: Some(region),
            misshapen: false,
        })
    }

    unsafe fn release(&self, region: Region) {
        let struck = self.state.lock().strike(region);
        if let Some(Entry {
            shown,
            real: Some(_),
            misshapen: true,
        }) = struck
        {
            // SAFETY: the shown part lies in the real region, which nobody uses.
            let bytes = unsafe { core::slice::from_raw_parts(shown.base.as_ptr(), shown.size) };
            // Miri takes a second for a quarter of a mebibyte.
            let step = if cfg!(miri) { 509 } else { 1 };
            if bytes.iter().step_by(step).any(|byte| *byte != LOST) {
                self.state.lock().accounts.scribbled += 1;
            }
        }
        match struck {
            Some(Entry {
                real: Some(real), ..
            }) => {
                // SAFETY: `real` is what the inner provider gave for this region.
                unsafe { self.inner.release(real) }
            }
            Some(_) => {}
            None => self.state.lock().accounts.wrong_releases += 1,
        }
    }

    unsafe fn decommit(&self, pages: Region) -> Result<(), ProviderError> {
        if self.next_call().is_some() {
            return Err(ProviderError);
        }
        if DECOMMIT {
            // SAFETY: the pages lie in one of our regions and nobody uses their content.
            unsafe { pages.base.write_bytes(LOST, pages.size) };
        } else {
            // SAFETY: the caller keeps the same contract.
            unsafe { self.inner.decommit(pages) }?;
        }
        let mut state = self.state.lock();
        state.accounts.decommits += 1;
        state.accounts.decommitted_bytes += pages.size as u64;
        Ok(())
    }

    unsafe fn commit(&self, pages: Region) -> Result<(), ProviderError> {
        if self.next_call().is_some() {
            return Err(ProviderError);
        }
        if DECOMMIT {
            return Ok(());
        }
        // SAFETY: the caller keeps the same contract.
        unsafe { self.inner.commit(pages) }
    }

    fn capabilities(&self) -> Capabilities {
        let inner = self.inner.capabilities();
        if DECOMMIT {
            let content = Capabilities::DECOMMIT_ZERO | Capabilities::LAZY_COMMIT;
            (inner - content) | Capabilities::DECOMMIT
        } else {
            inner
        }
    }

    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn now_ns(&self) -> Option<u64> {
        self.inner.now_ns()
    }

    fn is_present(&self, page: usize) -> Option<bool> {
        self.inner.is_present(page)
    }

    fn resident_bytes(&self) -> Option<u64> {
        self.inner.resident_bytes()
    }
}

impl<P, const DECOMMIT: bool, const LEDGER: usize> fmt::Debug
    for FaultyProvider<P, DECOMMIT, LEDGER>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written when the lock is open: where it goes may ask for memory here.
        let accounts = self.state.lock().accounts;
        f.debug_struct("FaultyProvider")
            .field("accounts", &accounts)
            .finish_non_exhaustive()
    }
}
