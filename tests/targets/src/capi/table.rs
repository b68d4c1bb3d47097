//! What lives, by its key, in an order that does not depend on keys: addresses are others in each run, and an input is to do
//! the same in all of them.

/// A table of few entries.
#[derive(Debug)]
pub(super) struct Table<K, V>(Vec<(K, V)>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + PartialEq, V> Table<K, V> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter()
    }

    pub(super) fn get(&self, key: K) -> Option<&V> {
        let mut entries = self.0.iter();
        let (_, value) = entries.find(|(other, _)| *other == key)?;
        Some(value)
    }

    /// # Panics
    /// If there is one already.
    pub(super) fn insert(&mut self, key: K, value: V) {
        assert!(self.get(key).is_none(), "it is out twice");
        self.0.push((key, value));
    }

    pub(super) fn remove(&mut self, key: K) {
        let mut entries = self.0.iter();
        if let Some(place) = entries.position(|(other, _)| *other == key) {
            self.0.swap_remove(place);
        }
    }

    /// The key of some entry, whatever the number.
    pub(super) fn nth(&self, number: usize) -> Option<K> {
        self.0
            .get(number % self.0.len().max(1))
            .map(|(key, _)| *key)
    }

    /// Takes all of them out.
    pub(super) fn take(&mut self) -> impl Iterator<Item = K> {
        core::mem::take(&mut self.0).into_iter().map(|(key, _)| key)
    }
}
