//! The objects that live.
//!
//! They are picked by their numbers in a list whose order does not depend on where they lie: the same actions are done to
//! the same objects wherever a provider's memory is, so what was found once is found again. (Which of a heap's chunks
//! serves next may depend on where they lie.)

use super::objects::Object;
use std::collections::BTreeMap;

/// Live objects: in a list to pick from, and by address.
#[derive(Debug, Default)]
pub(super) struct Live {
    list: Vec<Object>,
    /// Where in the list each is.
    places: BTreeMap<usize, usize>,
}

impl Live {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// In no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Object> {
        self.list.iter()
    }

    /// By their addresses.
    pub(super) fn sorted(&self) -> impl Iterator<Item = (usize, &Object)> {
        let places = self.places.iter();
        places.map(|(address, place)| (*address, &self.list[*place]))
    }

    /// The last that begins at an address or before it, and where.
    pub(super) fn before(&self, address: usize) -> Option<(usize, &Object)> {
        let (from, place) = self.places.range(..=address).next_back()?;
        Some((*from, &self.list[*place]))
    }

    /// # Panics
    /// If one is known at this address.
    pub(super) fn insert(&mut self, object: Object) {
        let known = self.places.insert(object.address(), self.list.len());
        assert!(known.is_none(), "{object:?} is out twice");
        self.list.push(object);
    }

    pub(super) fn remove(&mut self, object: &Object) {
        let place = self.places.remove(&object.address());
        let place = place.expect("it lives");
        self.list.swap_remove(place);
        if let Some(moved) = self.list.get(place) {
            self.places.insert(moved.address(), place);
        }
    }
}
