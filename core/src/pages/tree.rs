//! The regions that a heap holds, by address: a treap whose nodes lie in the metadata of what they
//! describe. It answers two questions: does a new region overlap one that is held, and which
//! region begins at this address.
//!
//! Invariant: in-order the nodes' regions ascend and are disjoint; every node's priority is at
//! least that of its children. Priorities are a hash of the address, so the depth is logarithmic
//! for any order of insertion and recursion stays shallow.

use super::depot_blocks::DepotBlocks;
use crate::provider::Region;
use core::ptr;

/// What a region is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Metadata blocks.
    Meta,
    /// A chunk.
    Chunk,
    /// One large object that asked for so many bytes, of this depot. It is short if it was made so short that an extent would
    /// serve it.
    Large {
        asked: usize,
        depot: *mut DepotBlocks,
        is_short: bool,
    },
}

/// A held region. First field of whatever describes it, so that the node's address is its.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Node {
    pub(crate) region: Region,
    pub(crate) purpose: Use,
    left: *mut Node,
    right: *mut Node,
}

impl Node {
    pub(super) const fn new(region: Region, purpose: Use) -> Self {
        Self {
            region,
            purpose,
            left: ptr::null_mut(),
            right: ptr::null_mut(),
        }
    }

    fn base(&self) -> usize {
        self.region.base.addr().get()
    }

    fn priority(&self) -> usize {
        let mixed = (self.base() as u64 >> 10).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) as usize
    }
}

/// The root. All methods are called under the pages' lock.
#[derive(Debug)]
pub(super) struct Tree {
    root: *mut Node,
}

impl Tree {
    pub(super) const fn new() -> Self {
        Self {
            root: ptr::null_mut(),
        }
    }

    /// Whether `region`, which ends at `end`, shares a byte with a held one.
    pub(super) fn overlaps(&self, region: Region, end: usize) -> bool {
        let mut at = self.root;
        // SAFETY: nodes in the tree are valid until they are removed.
        while let Some(node) = unsafe { at.as_ref() } {
            if end <= node.base() {
                at = node.left;
            } else if region.base.addr().get() >= node.base() + node.region.size {
                at = node.right;
            } else {
                return true;
            }
        }
        false
    }

    /// The node whose region holds `address`, or null.
    pub(super) fn find(&self, address: usize) -> *mut Node {
        let mut at = self.root;
        // SAFETY: as in `overlaps`.
        while let Some(node) = unsafe { at.as_ref() } {
            if address < node.base() {
                at = node.left;
            } else if address - node.base() >= node.region.size {
                at = node.right;
            } else {
                return at;
            }
        }
        ptr::null_mut()
    }

    /// # Safety
    /// `node` is valid until it is removed, in no tree, and its region overlaps none here.
    pub(super) unsafe fn insert(&mut self, node: *mut Node) {
        // SAFETY: the caller's promise, and the tree's own nodes are valid.
        unsafe {
            let (left, right) = split(self.root, (*node).base());
            (*node).left = ptr::null_mut();
            (*node).right = ptr::null_mut();
            self.root = merge(merge(left, node), right);
        }
    }

    /// # Safety
    /// `node` is in this tree.
    pub(super) unsafe fn remove(&mut self, node: *mut Node) {
        // SAFETY: every node on the way is valid; the search ends at `node`, which is here.
        unsafe {
            let mut link: *mut *mut Node = &raw mut self.root;
            while !ptr::eq(*link, node) {
                let at = *link;
                link = if (*node).base() < (*at).base() {
                    &raw mut (*at).left
                } else {
                    &raw mut (*at).right
                };
            }
            *link = merge((*node).left, (*node).right);
        }
    }

    /// Removes some node, while there is one whose use `wanted` accepts.
    pub(super) fn pop(&mut self, wanted: impl Fn(Use) -> bool) -> Option<*mut Node> {
        let found = first(self.root, &wanted)?;
        // SAFETY: it was just found here.
        unsafe { self.remove(found) };
        Some(found)
    }

    /// Calls `f` for each node, by address.
    #[cfg(feature = "walker")]
    pub(super) fn for_each(&self, f: &mut impl FnMut(*mut Node)) {
        fn walk(at: *mut Node, f: &mut impl FnMut(*mut Node)) {
            if !at.is_null() {
                // SAFETY: nodes in the tree are valid.
                let (left, right) = unsafe { ((*at).left, (*at).right) };
                walk(left, f);
                f(at);
                walk(right, f);
            }
        }
        walk(self.root, f);
    }
}

fn first(at: *mut Node, wanted: &impl Fn(Use) -> bool) -> Option<*mut Node> {
    // SAFETY: nodes in the tree are valid.
    let node = unsafe { at.as_ref() }?;
    if wanted(node.purpose) {
        return Some(at);
    }
    first(node.left, wanted).or_else(|| first(node.right, wanted))
}

/// Splits into the nodes below `key` and the others.
///
/// # Safety
/// `at` is null or the root of valid nodes; so are the results.
unsafe fn split(at: *mut Node, key: usize) -> (*mut Node, *mut Node) {
    if at.is_null() {
        return (ptr::null_mut(), ptr::null_mut());
    }
    // SAFETY: `at` and its children are valid.
    unsafe {
        if (*at).base() < key {
            let (low, high) = split((*at).right, key);
            (*at).right = low;
            (at, high)
        } else {
            let (low, high) = split((*at).left, key);
            (*at).left = high;
            (low, at)
        }
    }
}

/// Joins two trees of which every node of `low` is below every node of `high`.
///
/// # Safety
/// Both are null or roots of valid nodes.
unsafe fn merge(low: *mut Node, high: *mut Node) -> *mut Node {
    if low.is_null() {
        return high;
    }
    if high.is_null() {
        return low;
    }
    // SAFETY: both are valid.
    unsafe {
        if (*low).priority() >= (*high).priority() {
            (*low).right = merge((*low).right, high);
            low
        } else {
            (*high).left = merge(low, (*high).left);
            high
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::ptr::NonNull;
    extern crate std;
    use std::boxed::Box;
    use std::collections::BTreeMap;

    fn region(base: usize, size: usize) -> Region {
        let base = NonNull::new(ptr::without_provenance_mut(base)).unwrap();
        Region { base, size }
    }

    /// Catches a lost node, a wrong overlap answer and a broken order, against a `BTreeMap`.
    #[test]
    fn behaves_like_a_sorted_map() {
        let mut tree = Tree::new();
        let mut model: BTreeMap<usize, (usize, *mut Node)> = BTreeMap::new();
        let mut seed = 7u64;
        let mut random = |n: usize| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) as usize % n
        };
        let steps = if cfg!(miri) { 60 } else { 20_000 };
        for _ in 0..steps {
            let wanted = region((random(500) + 1) * 1024, (random(4) + 1) * 1024);
            let base = wanted.base.addr().get();
            let end = wanted.end().unwrap();
            let held = model
                .iter()
                .find(|(b, (size, _))| **b < end && base < **b + size)
                .map(|(b, _)| *b);
            assert_eq!(tree.overlaps(wanted, end), held.is_some());
            match held {
                None => {
                    let node = Box::into_raw(Box::new(Node::new(wanted, Use::Meta)));
                    // SAFETY: a fresh node, checked for overlap.
                    unsafe { tree.insert(node) };
                    model.insert(base, (wanted.size, node));
                }
                Some(held) => {
                    let (size, node) = model.remove(&held).unwrap();
                    assert_eq!(tree.find(held + size - 1), node);
                    // SAFETY: the model says that it is in the tree, and that it is a box.
                    drop(unsafe {
                        tree.remove(node);
                        Box::from_raw(node)
                    });
                    assert!(tree.find(held).is_null());
                }
            }
        }
        while let Some(node) = tree.pop(|_| true) {
            // SAFETY: as above.
            let node = unsafe { Box::from_raw(node) };
            assert!(model.remove(&node.base()).is_some());
        }
        assert!(model.is_empty());
    }

    /// Regions as a system gives them, one beside the other: no way down is longer than a few times that of a balanced
    /// tree. Catches priorities that follow the addresses, with which the tree is a list.
    #[test]
    fn ways_down_are_short() {
        fn depth(node: *mut Node) -> usize {
            // SAFETY: what is linked is valid.
            unsafe { node.as_ref() }.map_or(0, |node| 1 + depth(node.left).max(depth(node.right)))
        }
        let many = if cfg!(miri) { 200 } else { 4096 };
        for step in [1 << 10, 1 << 12, 1 << 16, 1 << 18, 1 << 22] {
            let mut tree = Tree::new();
            // As many as there is room for.
            let count = many.min(usize::MAX / step - 1);
            for number in 1..=count {
                let node = Node::new(region(number * step, 1024), Use::Meta);
                // SAFETY: a fresh node.
                unsafe { tree.insert(Box::into_raw(Box::new(node))) };
            }
            let depth = depth(tree.root);
            assert!(depth <= 4 * count.ilog2() as usize, "{depth} for {step}");
            while let Some(node) = tree.pop(|_| true) {
                // SAFETY: it is a box.
                drop(unsafe { Box::from_raw(node) });
            }
        }
    }
}
