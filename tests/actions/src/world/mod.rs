//! A heap beside a model of what it should hold. Every step changes both, and [`World::check`]
//! compares them: the walker's census with the model's sums, every live object with every other, and
//! every byte of every object with what was written to it.

mod adapters;
mod check;
mod epochs;
mod filled;
mod live;
mod misuse;
mod objects;
mod scopes;
mod values;

use crate::action::Action;
use core::alloc::Layout;
use core::ptr::NonNull;
use temporal_slab::config::Config;
use temporal_slab::provider::{Fault, FaultyProvider, PageProvider};
use temporal_slab::snapshot::HeapStats;
use temporal_slab::{AllocError, Epoch, Heap, Local, Policy, RawHandle};

pub use adapters::through_global;
use epochs::{Guard, Known};
use live::Live;
use scopes::Scoped;
use values::{Entry, Held};

/// What can break a provider, and knows what it did.
pub trait Control {
    /// Breaks calls, as [`FaultyProvider::break_calls`] does.
    fn break_calls(&self, after: u64, count: u64, fault: Fault);
    /// Behaves again.
    fn mend(&self);
    /// How many calls were broken so far.
    fn broken(&self) -> u64;
    /// How many regions were moved so far.
    fn moves(&self) -> u64 {
        0
    }
}

impl<P: PageProvider, const DECOMMIT: bool, const LEDGER: usize> Control
    for FaultyProvider<P, DECOMMIT, LEDGER>
{
    fn break_calls(&self, after: u64, count: u64, fault: Fault) {
        FaultyProvider::break_calls(self, after, count, fault);
    }
    fn mend(&self) {
        FaultyProvider::mend(self);
    }
    fn broken(&self) -> u64 {
        self.accounts().broken
    }
}

/// What may be wrong with an allocation.
#[derive(Debug, Default)]
struct Foreseen {
    may: Vec<AllocError>,
    must: Vec<AllocError>,
}

impl Foreseen {
    /// It fails, for this reason or another that is foreseen.
    fn must(&mut self, error: AllocError) {
        self.must.push(error);
    }

    /// It may fail for this reason.
    fn may(&mut self, error: AllocError) {
        self.may.push(error);
    }
}

/// A way through an adapter that wants more of a provider than the model does.
type ThroughGlobal<C> = fn(&Heap<C>, u16) -> bool;

/// A heap, its locals, and what should be in them.
pub struct World<'h, C: Config> {
    /// The heap.
    pub heap: &'h Heap<C>,
    /// Its locals.
    pub locals: Vec<Local<'h, C>>,
    objects: Live,
    values: Vec<Entry>,
    /// Who reads them.
    readings: Vec<(u64, Held<'h, C>)>,
    scopes: Vec<Scoped<'h, C>>,
    /// The epochs that there were, the root's first.
    epochs: Vec<Known>,
    current: Option<Epoch>,
    guards: Vec<Guard<'h, C>>,
    /// Handles whose objects were freed.
    dead: Vec<RawHandle>,
    /// Plain objects that were freed.
    gone: Vec<(NonNull<u8>, Layout)>,
    /// Values that have to have been dropped in this step.
    dropped: Vec<u64>,
    ids: u64,
    steps: usize,
    /// The heap opened an epoch of its own, for slabs that epochs share.
    has_own_epoch: bool,
    figures: Option<HeapStats>,
    control: Option<&'h dyn Control>,
    global: Option<ThroughGlobal<C>>,
    /// There is always memory, but for what is broken.
    is_endless: bool,
    is_limited: bool,
    /// The most objects at a time; a step that would make more makes none.
    most: usize,
    /// Calls that were broken before this step.
    broken: u64,
}

impl<'h, C: Config> World<'h, C> {
    /// The world of a heap that was not used yet, with so many locals. Any allocation may fail for want of memory.
    ///
    /// # Panics
    /// If there is no memory for the first epoch.
    pub fn new(heap: &'h Heap<C>, locals: usize) -> Self {
        let locals = (0..locals).map_while(|_| heap.local().ok()).collect();
        let root = heap.current().expect("memory for the first epoch");
        values::dropped();
        Self {
            heap,
            locals,
            objects: Live::default(),
            values: Vec::new(),
            readings: Vec::new(),
            scopes: Vec::new(),
            epochs: vec![Known::new(root, "root")],
            current: None,
            guards: Vec::new(),
            dead: Vec::new(),
            gone: Vec::new(),
            dropped: Vec::new(),
            ids: 0,
            steps: 0,
            has_own_epoch: false,
            figures: None,
            control: None,
            global: None,
            is_endless: false,
            is_limited: false,
            most: usize::MAX,
            broken: 0,
        }
    }

    /// There is always memory: an allocation that fails for want of it is a defect.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.is_endless = true;
        self
    }

    /// Has at most so many objects at a time, or a batch more: looking at all of them takes its time.
    #[must_use]
    pub fn at_most(mut self, objects: usize) -> Self {
        self.most = objects;
        self
    }

    /// Has actions break the provider, and limit the heap. There is memory but for that.
    #[must_use]
    pub fn controlled(mut self, control: &'h dyn Control) -> Self {
        self.control = Some(control);
        self.endless()
    }

    /// Goes through [`through_global`], too.
    #[must_use]
    pub fn with_global(mut self) -> Self
    where
        C: Config<Provider: Sync, Lock: Sync> + 'static,
    {
        self.global = Some(through_global);
        self
    }

    /// Objects that should be live, the blocks of scopes included.
    pub fn live(&self) -> usize {
        let values = self.values.iter().filter(|entry| entry.epoch().is_some());
        self.objects.len() + values.count() + self.blocks().count()
    }

    /// Takes a step. An error is a want of memory that may be, and leaves the model as it was: the heap must be, too.
    ///
    /// # Errors
    /// Want of memory, or the heap's limit.
    ///
    /// # Panics
    /// If the heap did what the model did not expect.
    pub fn step(&mut self, action: Action) -> Result<(), AllocError> {
        self.steps += 1;
        self.broken = self.control.map_or(0, |control| control.broken());
        let done = self.act(action);
        self.notice_the_heaps_own();
        assert_eq!(
            values::dropped(),
            self.dropped,
            "step {}: {action:?} drops these",
            self.steps
        );
        self.dropped.clear();
        done
    }

    fn act(&mut self, action: Action) -> Result<(), AllocError> {
        let heap = self.heap;
        match action {
            Action::Alloc {
                local,
                epoch,
                size,
                align,
                zeroed,
                named,
            } => {
                let (layout, epoch) = (objects::layout(size, align), self.named(epoch));
                let is_done = self.objects.len() >= self.most
                    || (named && self.alloc_named(local, epoch, layout)?);
                if !is_done {
                    self.alloc(local, epoch, layout, zeroed)?;
                }
            }
            Action::Batch {
                local,
                epoch,
                size,
                count,
            } => {
                let epoch = self.named(epoch);
                if self.objects.len() < self.most {
                    self.batch(local, epoch, size, count)?;
                }
            }
            Action::Sampled { local, size } => self.sampled(local, size)?,
            Action::Free { local, object } => {
                if let Some(object) = self.pick(object) {
                    self.free(local, object);
                }
            }
            Action::FreeAny { local, object } => {
                if let Some(object) = self.pick(object) {
                    self.free_unsized(local, object);
                }
            }
            Action::FreeMany {
                local,
                object,
                count,
            } => self.free_many(local, object, count),
            Action::Resize {
                local,
                object,
                size,
            } => {
                if let Some(object) = self.pick(object) {
                    self.resize(local, object, size)?;
                }
            }
            Action::Misuse { local, object, how } => self.misuse(local, object, how),
            Action::Flush { local } => {
                if let Some(local) = self.locals.get_mut(local as usize) {
                    local.flush();
                }
            }
            Action::Leave { local, epoch } => self.leave(local, epoch),
            Action::Renew { local } => {
                if (local as usize) < self.locals.len() {
                    drop(self.locals.swap_remove(local as usize));
                    let made = heap.local();
                    let made = self.settle(made, &Foreseen::default())?;
                    self.locals.extend(made);
                }
            }
            Action::Reclaim => heap.reclaim(),
            Action::ReclaimTo { bytes } => heap.reclaim_to(bytes as usize),
            Action::Reserve { bytes } => {
                let reserved = heap.reserve(bytes as usize);
                self.settle(reserved, &Foreseen::default())?;
            }
            Action::Idle => assert!(heap.take_idle_bytes() <= heap.bytes().taken),
            // SAFETY: it goes on at once.
            Action::Pause => unsafe {
                heap.before_fork();
                heap.after_fork();
            },
            Action::Policy(policy) => {
                heap.set_policy(policy);
                let keep = heap.policy().keep;
                assert!(keep <= policy.keep && policy.keep - keep < 512);
                assert_eq!(heap.policy(), Policy { keep, ..policy });
            }
            Action::Limit { more } => {
                if self.control.is_some() {
                    self.is_limited = more.is_some();
                    let limit = more.map(|more| heap.bytes().taken + more as usize);
                    heap.set_limit(limit.unwrap_or(usize::MAX));
                }
            }
            Action::Break {
                after,
                count,
                fault,
            } => {
                if let Some(control) = self.control {
                    control.break_calls(after.into(), count.into(), fault);
                }
            }
            Action::Mend => self.control.iter().for_each(|control| control.mend()),
            Action::Open { current } => self.open(current)?,
            Action::Close { epoch } => self.close(epoch)?,
            Action::Label { epoch, label } => self.label(epoch, label),
            Action::Token { index, era } => self.token(index, era),
            Action::Count {
                epoch,
                enters,
                closes,
            } => self.count(epoch, enters, closes),
            Action::Enter {
                epoch,
                closes,
                nested,
            } => self.enter(epoch, closes, nested),
            Action::Exit => self.exit(),
            Action::AllocInside { local, size } => self.alloc_inside(local, size)?,
            Action::Insert { local, epoch, kind } => {
                let epoch = self.named(epoch);
                self.insert(local, epoch, kind)?;
            }
            Action::Read { value, times } => self.read(value, times),
            Action::Unread { reading } => self.unread(reading),
            Action::Remove { local, value } => self.remove(local, value),
            Action::Take { local, value } => self.take(local, value),
            Action::Forget { local, value } => self.forget(local, value),
            Action::Forge {
                local,
                handle,
                flips,
            } => self.forge(local, handle, flips),
            Action::Scope => self.make_scope(),
            Action::InScope {
                scope,
                how,
                size,
                align,
            } => self.in_scope(scope, how, size, align)?,
            Action::Reset { scope } => self.end_scope(scope, false),
            Action::EndScope { scope } => self.end_scope(scope, true),
            Action::Adapt {
                through,
                epoch,
                size,
            } => self.adapt(through, epoch, size)?,
            Action::Stats => self.stats(),
            Action::Report { kind } => self.report(kind),
        }
        Ok(())
    }

    /// What came of an allocation: it, or nothing if it failed as was foreseen.
    fn settle<T>(
        &self,
        made: Result<T, AllocError>,
        foreseen: &Foreseen,
    ) -> Result<Option<T>, AllocError> {
        match made {
            Ok(made) => {
                assert!(
                    foreseen.must.is_empty(),
                    "step {}: {foreseen:?}",
                    self.steps
                );
                Ok(Some(made))
            }
            Err(error) if foreseen.must.contains(&error) || foreseen.may.contains(&error) => {
                Ok(None)
            }
            Err(error) => {
                assert!(self.may_lack(error), "step {}: {error:?}", self.steps);
                Err(error)
            }
        }
    }

    /// Whether an allocation may fail for this reason.
    fn may_lack(&self, error: AllocError) -> bool {
        let is_broken = self
            .control
            .is_some_and(|control| control.broken() > self.broken);
        match error {
            AllocError::OutOfMemory => is_broken || !self.is_endless,
            AllocError::Limit => self.is_limited,
            _ => false,
        }
    }

    /// Live objects of an epoch.
    fn live_in(&self, epoch: Epoch) -> usize {
        let objects = self.objects.iter().filter(|object| object.epoch == epoch);
        let values = self
            .values
            .iter()
            .filter(|entry| entry.epoch() == Some(epoch));
        let blocks = if epoch == self.root() {
            self.blocks().count()
        } else {
            0
        };
        objects.count() + values.count() + blocks
    }

    /// The blocks of all scopes, by their sizes.
    fn blocks(&self) -> impl Iterator<Item = usize> {
        self.scopes
            .iter()
            .flat_map(|scope| scope.blocks.iter().copied())
    }

    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}

impl<C: Config> Drop for World<'_, C> {
    fn drop(&mut self) {
        // The innermost first, each before its domain.
        while !self.guards.is_empty() {
            self.exit();
        }
    }
}

impl<C: Config> core::fmt::Debug for World<'_, C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("World")
            .field("heap", self.heap)
            .field("steps", &self.steps)
            .field("objects", &self.objects.len())
            .finish_non_exhaustive()
    }
}
