//! Where sampled objects were allocated, so that what a phase leaves behind leads to the code that made it.
//!
//! A thread that samples notes of each such object, if it is of an epoch, the epoch and the return addresses of the call. A report says it
//! of those that live though their epoch was closed.
//!
//! There is a fixed number of places, under one lock. Nothing is allocated while it is held, and who allocates does not wait for it: a
//! note that finds it taken is not made. A place goes to another object when the epoch of its own is over, or else if that is open: most
//! objects there die. So what outlived its epoch stays until all of that epoch is freed.

use super::{HEAP, TemporalSlab};
use core::fmt::{self, Write};
use core::ptr::NonNull;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, TryLockError};
use temporal_slab::{Epoch, EpochState};

/// How many objects are noted at a time, and in how many places one may be.
const PLACES: usize = 1024;
const WAYS: usize = 8;

/// Return addresses of each.
const FRAMES: usize = 24;

/// Of these so many are shown, those of allocators and of the standard library left out.
const SHOWN: usize = 6;

/// How functions are called that are not shown, and where they lie: in debug information a name has no path.
const HIDDEN: [&str; 7] = [
    "backtrace::",
    "temporal_slab",
    "__rust",
    "alloc::",
    "core::",
    "std::",
    "hashbrown::",
];
const HIDDEN_FILES: [&str; 6] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/global/"),
    "/backtrace-",
    "/library/alloc/src/",
    "/library/core/src/",
    "/library/std/src/",
    "/hashbrown-",
];

#[derive(Debug, Clone, Copy)]
struct Origin {
    object: usize,
    epoch: Option<Epoch>,
    frames: [usize; FRAMES],
}

impl Origin {
    const NONE: Self = Self {
        object: 0,
        epoch: None,
        frames: [0; FRAMES],
    };

    /// Whether another object may have the place, and how readily.
    fn room(&self) -> Option<u8> {
        let Some(epoch) = self.epoch else {
            return Some(0);
        };
        if HEAP.epoch_at(epoch.index()) != Some(epoch) {
            return Some(0);
        }
        (HEAP.state(epoch) == Ok(EpochState::Active)).then_some(1)
    }
}

static ORIGINS: Mutex<[Origin; PLACES]> = Mutex::new([Origin::NONE; PLACES]);

/// The places, if nobody has them.
fn origins() -> Option<MutexGuard<'static, [Origin; PLACES]>> {
    match ORIGINS.try_lock() {
        Ok(origins) => Some(origins),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Notes that the caller is allocating an object in an epoch.
pub(super) fn note(object: NonNull<u8>, epoch: Epoch) {
    let object = object.addr().get();
    // If it was closed the object is not its own.
    if HEAP.state(epoch) != Ok(EpochState::Active) {
        return;
    }
    let mut frames = [0; FRAMES];
    let mut places = frames.iter_mut();
    // SAFETY: on this system each thread unwinds its own stack by itself.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            let Some(place) = places.next() else {
                return false;
            };
            *place = frame.ip().addr();
            true
        });
    }
    let Some(mut origins) = origins() else {
        return;
    };
    let hash = (object as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let first = (hash >> (u64::BITS - PLACES.ilog2())) as usize;
    let ways = (first..first + WAYS).map(|place| place % PLACES);
    let same = ways.clone().find(|place| origins[*place].object == object);
    let place = same.or_else(|| {
        let rooms = ways.filter_map(|place| Some((origins[place].room()?, place)));
        rooms.min().map(|(_, place)| place)
    });
    if let Some(place) = place {
        origins[place] = Origin {
            object,
            epoch: Some(epoch),
            frames,
        };
    }
}

/// Those that live though their epoch was closed: objects and bytes, by the epoch's label and by return addresses. Where the epoch left
/// others, what came to the place of one that was freed may be taken for it.
fn survivors() -> BTreeMap<(String, [usize; FRAMES]), (u64, u64)> {
    let mut noted = Vec::with_capacity(PLACES);
    // For a moment, or for ever in the child of a fork that happened in it.
    for _ in 0..100 {
        if let Some(origins) = origins() {
            noted.extend_from_slice(&*origins);
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let (mut all, mut has_left) = (BTreeMap::new(), BTreeMap::new());
    for origin in noted {
        let Some(epoch) = origin.epoch else { continue };
        if HEAP.state(epoch) != Ok(EpochState::Closing) {
            continue;
        }
        // Of an epoch that left nothing the object was freed, and another may be where it was. It takes a look at each block.
        let left = || HEAP.epoch_stats(epoch).map(|stats| stats.live_objects());
        if !*has_left
            .entry(epoch.era())
            .or_insert_with(|| left() != Ok(0))
        {
            continue;
        }
        let object = NonNull::new(core::ptr::with_exposed_provenance_mut(origin.object));
        let size = object.and_then(|object| HEAP.usable_size(object).ok());
        if let Some(size) = size
            && let Ok(label) = HEAP.label(epoch)
        {
            let key = (label.as_str().to_owned(), origin.frames);
            let (objects, bytes) = all.entry(key).or_insert((0, 0));
            (*objects, *bytes) = (*objects + 1, *bytes + size as u64);
        }
    }
    all
}

/// Writes the functions that called, the innermost first.
fn write_frames(frames: &[usize], to: &mut dyn Write) -> fmt::Result {
    let (mut shown, mut is_over) = (0, false);
    let mut written = Ok(());
    for frame in frames.iter().take_while(|frame| **frame != 0) {
        // A return address is that of the instruction behind the call.
        let call = core::ptr::with_exposed_provenance_mut(frame - 1);
        backtrace::resolve(call, |symbol| {
            let name = symbol.name().map(|name| format!("{name:#}"));
            let name = name.as_deref().unwrap_or("(unknown)");
            // Of `<Type as Trait>::function` the type's path, or the trait's where the type has none.
            let mut paths = name.split(" as ");
            let path = paths.find(|path| path.contains("::")).unwrap_or(name);
            let path = path.trim_start_matches(['<', '&']);
            let file = symbol.filename().map(|file| file.display().to_string());
            let file = file.unwrap_or_default();
            is_over |= name.contains("__rust_begin_short_backtrace");
            let is_hidden = HIDDEN.iter().any(|prefix| path.starts_with(prefix))
                || HIDDEN_FILES.iter().any(|part| file.contains(part));
            if is_hidden || is_over || shown == SHOWN || written.is_err() {
                return;
            }
            shown += 1;
            // Without its types, which may be longer than the rest of the report.
            let name = name
                .find('<')
                .filter(|at| *at > 0)
                .map_or(name, |at| &name[..at]);
            written = match symbol.lineno() {
                Some(line) => writeln!(to, "    {name} ({file}:{line})"),
                None => writeln!(to, "    {name}"),
            };
        });
    }
    if shown == 0 {
        writeln!(to, "    (outside of what has names)")?;
    }
    written
}

impl TemporalSlab {
    /// Writes where sampled objects were allocated that live though their epochs were closed, by the label of these, those that
    /// have the most bytes first; nothing if there are none. In a heap that is not checked some of them may have been freed meanwhile.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write_origins(to: &mut dyn Write) -> fmt::Result {
        let mut all: Vec<_> = survivors().into_iter().collect();
        all.sort_by_key(|((label, _), (_, bytes))| (core::cmp::Reverse(*bytes), label.clone()));
        for ((label, frames), (objects, bytes)) in all {
            writeln!(
                to,
                "{label:?}: {objects} sampled survivors, {bytes} B, allocated by"
            )?;
            write_frames(&frames, to)?;
        }
        Ok(())
    }
}
