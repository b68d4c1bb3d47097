//! The heap beside the model: what there is, and that nothing is left at the end.

use super::World;
use super::scopes::Scoped;
use super::values::dropped;
use temporal_slab::Census;
use temporal_slab::config::Config;

impl<C: Config> World<'_, C> {
    /// Compares the heap with the model.
    ///
    /// # Panics
    /// If they differ.
    pub fn check(&self) -> Census {
        let step = self.steps;
        // SAFETY: this world has the only locals, and they are at rest.
        let census = unsafe { self.heap.walk() }.unwrap_or_else(|v| panic!("step {step}: {v}"));
        let named: usize = self.scopes.iter().map(|scope| scope.named.len()).sum();
        let count = self.objects.len() + self.values.len() + self.blocks().count() + named;
        assert_eq!(
            census.live_slots + census.runs + census.regions + census.block_objects,
            count,
            "step {step}: as many objects as the model has",
        );
        let objects = self.objects.iter().map(|object| self.usable(object));
        let values = self
            .values
            .iter()
            .map(|entry| self.usable_of(entry.layout(), true));
        let blocks = self
            .blocks()
            .map(|size| self.usable_of(Scoped::<C>::block(size), false));
        let named = self.scopes.iter().flat_map(|scope| &scope.named);
        let named = named.map(|(_, filled)| self.usable_of(filled.layout, true));
        let usable: usize = objects.chain(values).chain(blocks).chain(named).sum();
        assert_eq!(
            census.live_slot_bytes
                + census.run_bytes
                + census.region_bytes
                + census.block_object_bytes,
            usable,
            "step {step}: as many bytes as the model has",
        );
        let mut end = 0;
        for (at, object) in self.objects.sorted() {
            assert!(at >= end, "step {step}: {object:?} overlaps the one before");
            end = at + self.usable(object);
            object.bytes.verify();
            if let Some(handle) = object.handle {
                assert_eq!(self.heap.get_raw(handle), Some(object.bytes.at));
            }
        }
        for handle in self.dead.iter().rev().take(50) {
            assert_eq!(self.heap.get_raw(*handle), None, "{handle:?} is dead");
        }
        self.check_values();
        self.check_scopes();
        self.check_epochs();
        let bytes = self.heap.bytes();
        assert_eq!(
            (bytes.taken, bytes.resident),
            (census.taken, census.resident)
        );
        assert!(
            bytes.reclaimable <= bytes.resident,
            "step {step}: {bytes:?}"
        );
        assert_eq!(self.heap.stats().errors.late_double_frees, 0);
        census
    }

    /// Frees everything and lets the locals go: the heap must be empty then.
    ///
    /// # Panics
    /// If it is not.
    pub fn finish(mut self) -> Census {
        while let Some(object) = self.pick(0) {
            let local = (self.objects.len() % 5) as u8;
            self.free(local, object);
        }
        while !self.readings.is_empty() {
            self.unread(0);
        }
        while !self.values.is_empty() {
            self.remove(self.values.len() as u8 % 5, 0);
        }
        while !self.scopes.is_empty() {
            self.end_scope(0, true);
        }
        while !self.guards.is_empty() {
            self.exit();
        }
        assert_eq!(dropped(), self.dropped, "the end drops these");
        self.locals.clear();
        self.heap.reclaim();
        let census = self.check();
        assert_eq!(
            (census.slabs, census.blocks),
            (0, 0),
            "no slab or block is left: {census:?}"
        );
        census
    }
}
