//! Records: taken from the arena once, and from a list of unused ones after that.

use super::meta::{BARE, MetaShape, READY, Record};
use super::state::{Short, State};
use crate::provider::PageProvider;
use core::ptr;

impl<P: PageProvider> State<P> {
    /// A record: an unused one, or a new one. All records of a heap are of one type.
    pub(super) fn take_record<'s, T: Record>(&mut self, meta: MetaShape) -> Result<&'s T, Short> {
        let is_bare = meta.kind == READY && self.unused_records[READY].is_null();
        let kind = if is_bare { BARE } else { meta.kind };
        let unused = &mut self.unused_records[kind];
        // SAFETY: unused records are of this type, valid, and owned by this list.
        if let Some(record) = unsafe { unused.cast::<T>().as_ref() } {
            // SAFETY: as above, under the lock.
            unsafe {
                *unused = record.next_unused().cast();
                record.set_unlisted();
            }
            return Ok(record);
        }
        let piece = self
            .arena
            .bump(meta.layout)
            .ok_or(Short::Meta(meta.layout))?;
        // SAFETY: the piece is fresh memory of a layout that begins with a record; what follows it is valid as zero
        // bytes.
        unsafe {
            piece.write_bytes(0, meta.layout.size());
            let record: *mut T = piece.as_ptr().cast();
            record.write(T::new());
            Ok(&*record)
        }
    }

    /// Takes a record back.
    ///
    /// # Safety
    /// The caller owns `record`, which was taken as of this kind, and its life was ended.
    pub(super) unsafe fn put_record<T: Record>(&mut self, record: &T, meta: MetaShape) {
        let unused = &mut self.unused_records[meta.kind];
        // SAFETY: the caller owns it.
        unsafe { record.set_unused(unused.cast()) };
        *unused = ptr::from_ref(record).cast();
    }
}
