//! Doubly linked lists through fields of their members, guarded by the pages' lock.
//!
//! Invariant: a member is in chain `N` exactly when its `N`th links say so.

use core::ptr;

/// A member's place in one chain.
#[derive(Debug)]
pub(super) struct Links<T> {
    next: *mut T,
    prev: *mut T,
    linked: bool,
}

impl<T> Links<T> {
    pub(super) const UNLINKED: Self = Self {
        next: ptr::null_mut(),
        prev: ptr::null_mut(),
        linked: false,
    };
}

/// A type with links for chain number `N`.
pub(super) trait Linked<const N: usize>: Sized {
    /// Where they are in a member. Not by reference: others may be reading what is atomic in it.
    ///
    /// # Safety
    /// The member is valid.
    unsafe fn links(member: *mut Self) -> *mut Links<Self>;
}

/// The head of a chain.
#[derive(Debug)]
pub(super) struct Chain<T, const N: usize> {
    first: *mut T,
    last: *mut T,
}

impl<T: Linked<N>, const N: usize> Chain<T, N> {
    pub(super) const fn new() -> Self {
        Self {
            first: ptr::null_mut(),
            last: ptr::null_mut(),
        }
    }

    /// The member that was inserted last.
    pub(super) fn first(&self) -> *mut T {
        self.first
    }

    /// The member that was inserted before all others.
    pub(super) fn last(&self) -> *mut T {
        self.last
    }

    /// The first of at most `most` members in which `f` finds something.
    pub(super) fn first_of<U>(
        &self,
        most: usize,
        f: impl Fn(*mut T) -> Option<U>,
    ) -> Option<(*mut T, U)> {
        let mut at = self.first;
        for _ in 0..most {
            if at.is_null() {
                return None;
            }
            if let Some(found) = f(at) {
                return Some((at, found));
            }
            // SAFETY: members are valid.
            at = unsafe { Self::after(at) };
        }
        None
    }

    /// # Safety
    /// `member` is valid, and may be linked in no chain but this one.
    pub(super) unsafe fn insert(&mut self, member: *mut T) {
        // SAFETY: the member is valid, and so are those that are linked here.
        unsafe {
            if (*T::links(member)).linked {
                return;
            }
            *T::links(member) = Links {
                next: self.first,
                prev: ptr::null_mut(),
                linked: true,
            };
            if self.first.is_null() {
                self.last = member;
            } else {
                (*T::links(self.first)).prev = member;
            }
        }
        self.first = member;
    }

    /// # Safety
    /// As for [`Chain::insert`].
    pub(super) unsafe fn remove(&mut self, member: *mut T) {
        // SAFETY: as in `insert`.
        unsafe {
            let Links { next, prev, linked } = T::links(member).replace(Links::UNLINKED);
            if !linked {
                return;
            }
            if next.is_null() {
                self.last = prev;
            } else {
                (*T::links(next)).prev = prev;
            }
            if prev.is_null() {
                self.first = next;
            } else {
                (*T::links(prev)).next = next;
            }
        }
    }

    /// The member behind `member`.
    ///
    /// # Safety
    /// `member` is linked here.
    pub(super) unsafe fn after(member: *mut T) -> *mut T {
        // SAFETY: it is valid.
        unsafe { (*T::links(member)).next }
    }
}
