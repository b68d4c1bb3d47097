//! Models of a block's end. Run with `RUSTFLAGS="--cfg loom"`.

use super::count::Count;
use crate::sync::Cell;
use loom::sync::Arc;
use loom::thread;

/// A block with three objects, and what lies in them.
struct Block {
    count: Count,
    objects: [Cell<u32>; 3],
}

impl Block {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            count: Count::new(),
            objects: [Cell::new(0), Cell::new(0), Cell::new(0)],
        })
    }

    /// The last use of an object by the thread that frees it.
    fn end(&self, object: usize) {
        // SAFETY: loom fails the model if anybody else is about.
        unsafe { self.objects[object].set(1) };
    }

    /// What the next user of the block does.
    fn reuse(&self) {
        for object in &self.objects {
            // SAFETY: as above.
            unsafe { object.set(2) };
        }
    }
}

/// The owner, which freed one object, leaves with two while others free these: one of the three gets the block, once, and is behind
/// all uses of both objects. Catches a block that is lost, one that two have, and one that is used again too early.
#[test]
fn one_of_leave_and_the_frees_gets_the_block() {
    loom::model(|| {
        let block = Block::new();
        let freers = [0, 1].map(|object| {
            let block = Arc::clone(&block);
            thread::spawn(move || {
                block.end(object);
                let is_last = block.count.free(1);
                if is_last {
                    block.reuse();
                }
                is_last
            })
        });
        block.end(2);
        let by_leave = block.count.leave(2);
        if by_leave {
            block.reuse();
        }
        let by_free = freers.into_iter().map(|t| t.join().unwrap());
        let got = by_free.filter(|is_last| *is_last).count() + usize::from(by_leave);
        assert_eq!(got, 1);
    });
}

/// The owner frees one object, another the other, and the owner lays new objects over them when it finds all dead, and leaves
/// then. Catches an owner that starts over under a free, and one that gets a block it did not empty.
#[test]
fn the_owner_starts_over_behind_the_frees() {
    loom::model(|| {
        let block = Block::new();
        let other = {
            let block = Arc::clone(&block);
            thread::spawn(move || {
                block.end(0);
                block.count.free(1)
            })
        };
        block.end(1);
        // Two were laid, and one was freed here.
        let restarted = block.count.others() == 1;
        if restarted {
            block.count.begin();
            block.reuse();
        }
        let by_leave = block.count.leave(u64::from(!restarted));
        if by_leave && !restarted {
            block.reuse();
        }
        let by_free = other.join().unwrap();
        assert!(by_leave != by_free, "{by_leave} {by_free}");
        assert!(!restarted || by_leave);
    });
}
