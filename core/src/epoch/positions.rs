//! The records of a heap's epochs, as many as there were at a time: found by an index without a lock, and never moved.
//!
//! Positions lie in pieces of memory, and where these are is in directories, which are pieces, too. `len` positions were written: it
//! is stored with `Release` after the position, under the ring's lock, and read with `Acquire`, so a thread that is told of an index finds
//! what is there. Pieces and directories are set before `len` goes beyond where they begin: `Relaxed`.

use super::Position;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// Directories. Of the smallest pieces they lead to a million positions, of the usual ones to 16 million.
const DIRECTORIES: usize = 64;

/// The fewest positions of a piece.
const MIN_PIECE: usize = 32;

/// Where a piece of positions is. `Relaxed`: see the head.
type Place<T> = AtomicPtr<Position<T>>;

/// All positions of a heap. Orderings: see the head.
#[derive(Debug)]
pub(crate) struct Positions<T> {
    directories: [AtomicPtr<Place<T>>; DIRECTORIES],
    len: AtomicUsize,
    /// The positions of a piece, as a power of two.
    log: u32,
}

impl<T> Positions<T> {
    /// How many places take the room of a position, as a power of two.
    const PLACES_LOG: u32 = {
        let places = size_of::<Position<T>>() / size_of::<Place<T>>();
        assert!(places.is_power_of_two(), "no place is in two positions");
        places.ilog2()
    };

    /// No positions. Of a piece there will be `piece`, or some more.
    pub(crate) const fn new(piece: usize) -> Self {
        let piece = if piece < MIN_PIECE { MIN_PIECE } else { piece };
        Self {
            directories: [const { AtomicPtr::new(ptr::null_mut()) }; DIRECTORIES],
            len: AtomicUsize::new(0),
            log: piece.next_power_of_two().ilog2(),
        }
    }

    /// The layout of a piece, and of a directory.
    pub(crate) fn layout(&self) -> Layout {
        Layout::array::<Position<T>>(1 << self.log).unwrap_or(Layout::new::<Position<T>>())
    }

    /// The directory of a piece, and the piece's place in it, if there is one.
    #[inline]
    fn directory(&self, piece: usize) -> Option<(&AtomicPtr<Place<T>>, usize)> {
        let places = 1 << (self.log + Self::PLACES_LOG);
        let directory = self
            .directories
            .get(piece >> (self.log + Self::PLACES_LOG))?;
        Some((directory, piece & (places - 1)))
    }

    /// What leads to a piece, if its directory is set.
    #[inline]
    fn place(&self, piece: usize) -> Option<&Place<T>> {
        let (directory, place) = self.directory(piece)?;
        let first = NonNull::new(directory.load(Ordering::Relaxed))?;
        // SAFETY: a directory that is set stays as long as the heap, and has so many places.
        Some(unsafe { first.add(place).as_ref() })
    }

    /// How many there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&Position<T>> {
        if index >= self.len() {
            return None;
        }
        let (piece, in_piece) = (index >> self.log, index & ((1 << self.log) - 1));
        let places = self.log + Self::PLACES_LOG;
        // SAFETY: below `len` directories and pieces are set and positions are written, in memory that stays as long as the heap.
        unsafe {
            let directory = self.directories.get_unchecked(piece >> places);
            let place = directory
                .load(Ordering::Relaxed)
                .add(piece & ((1 << places) - 1));
            Some(&*(*place).load(Ordering::Relaxed).add(in_piece))
        }
    }

    /// Whether a piece, or a directory, is to be got before there can be one position more. Under the ring's lock.
    pub(crate) fn lacks(&self) -> bool {
        let place = self.place(self.len() >> self.log);
        place.is_none_or(|place| place.load(Ordering::Relaxed).is_null())
    }

    /// Takes what it lacks. Under the ring's lock. Whether there is a place for it.
    ///
    /// # Safety
    /// The memory is of the layout that this says, nobody else's, and stays as long as the heap; something lacks.
    pub(crate) unsafe fn supply(&self, memory: NonNull<u8>) -> bool {
        let piece = self.len() >> self.log;
        if let Some(place) = self.place(piece) {
            place.store(memory.as_ptr().cast(), Ordering::Relaxed);
            return true;
        }
        let Some((directory, _)) = self.directory(piece) else {
            return false;
        };
        let places = self.layout().size() / size_of::<Place<T>>();
        let first: NonNull<Place<T>> = memory.cast();
        for place in 0..places {
            // SAFETY: the memory has room for so many.
            unsafe { first.add(place).write(AtomicPtr::new(ptr::null_mut())) };
        }
        directory.store(first.as_ptr(), Ordering::Relaxed);
        true
    }

    /// Adds a position, if nothing lacks: its index. Under the ring's lock.
    pub(crate) fn push(&self, position: Position<T>) -> Option<usize> {
        let len = self.len();
        let piece = self.place(len >> self.log)?.load(Ordering::Relaxed);
        if piece.is_null() {
            return None;
        }
        // SAFETY: the piece has room for it; nobody knows of it yet.
        unsafe { piece.add(len & ((1 << self.log) - 1)).write(position) };
        self.len.store(len + 1, Ordering::Release);
        Some(len)
    }
}
