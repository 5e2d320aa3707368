//! How often things are there. What is there no more takes no room.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// A number per key, never zero.
#[derive(Clone, Debug)]
pub(super) struct Counts<K>(BTreeMap<K, usize>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Counts<K> {
    /// One more.
    pub(super) fn add<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Ord + ToOwned<Owned = K> + ?Sized,
    {
        match self.0.get_mut(key) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(key.to_owned(), 1);
            }
        }
    }

    /// One less; nothing happens where there is none.
    pub(super) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn get<Q>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// The least key.
    pub(super) fn least(&self) -> Option<&K> {
        self.0.first_key_value().map(|(key, _)| key)
    }
}
