//! What patterns allocate, and by what numbers.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::ptr::NonNull;

/// What is touched of what is touched whole, at least: a word of each page.
const PAGE: usize = 4096;

/// The alignment of every object.
const ALIGN: usize = 8;

pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// A generator for a place among several: a thread, a slot.
    pub(crate) fn nth(place: usize) -> Self {
        Self((place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Each size alike.
    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// Each doubling alike.
    pub(crate) fn log(&mut self, least: usize, most: usize) -> usize {
        let part = self.next() as f64 / u64::MAX as f64;
        let size = least as f64 * (most as f64 / least as f64).powf(part);
        (size as usize).clamp(least, most)
    }
}

/// An object, by its address and its size: two words, which functions return in registers. With a third one they go through
/// memory, and where a compiler writes words there and reads pairs of them, that takes longer than an allocation; it does so
/// for some allocators and not for others.
#[derive(Clone, Copy)]
pub(crate) struct Object(pub(crate) NonNull<u8>, pub(crate) usize);

// SAFETY: an object is passed on and then used by its new holder alone.
unsafe impl Send for Object {}

/// An object whose first word is written.
pub(crate) fn get(size: usize) -> Object {
    let layout = Layout::from_size_align(size, ALIGN).expect("a size");
    // SAFETY: the size is not zero.
    let object = NonNull::new(unsafe { alloc(layout) }).expect("there is memory");
    // SAFETY: it is ours, and 8 bytes long at least.
    unsafe { object.cast::<u64>().write(1) };
    Object(black_box(object), size)
}

/// An object of which a word in each page, and the last byte, are written.
pub(crate) fn get_touched(size: usize) -> Object {
    let object = get(size);
    for place in (PAGE..size).step_by(PAGE).chain([size - 1]) {
        // SAFETY: it is ours, and longer than this.
        unsafe { object.0.add(place).write(1) };
    }
    object
}

/// An object that is written from end to end.
pub(crate) fn get_filled(size: usize) -> Object {
    let object = get(size);
    // SAFETY: it is ours, and this long.
    unsafe { object.0.write_bytes(1, size) };
    object
}

/// An object of which the first and the last page are written.
pub(crate) fn get_ends(size: usize) -> Object {
    let object = get(size);
    // SAFETY: it is ours, and this long.
    unsafe { object.0.add(size - 1).write(1) };
    object
}

/// Frees an object.
pub(crate) fn put(Object(object, size): Object) {
    // SAFETY: each object is put once; its size had a layout when it was got.
    unsafe {
        dealloc(
            object.as_ptr(),
            Layout::from_size_align_unchecked(size, ALIGN),
        )
    };
}

/// Frees an object after a look at it.
pub(crate) fn read_and_put(object: Object) {
    // SAFETY: it is ours, and its first word was written.
    black_box(unsafe { object.0.cast::<u64>().read() });
    put(object);
}

/// Has so many slots filled, then so many times one at random replaced, then all freed: how many were made.
pub(crate) fn replace(
    slots: usize,
    times: usize,
    rng: &mut Rng,
    mut make: impl FnMut(&mut Rng) -> Object,
) -> usize {
    let mut objects: Vec<Object> = (0..slots).map(|_| make(rng)).collect();
    for _ in 0..times {
        let place = rng.below(slots);
        put(objects[place]);
        objects[place] = make(rng);
    }
    objects.drain(..).for_each(put);
    slots + times
}
