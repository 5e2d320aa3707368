//! The in-memory index: a persistent ordered map of every object, shared by structure.
//!
//! Taking a snapshot copies one pointer; a write copies the few nodes on its path. Readers therefore
//! never lock and never see half a commit.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use super::{Entry, KeyRange, ObjectKey, Revision};

/// Every object as of one revision. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) revision: Revision,
    pub(super) objects: OrdMap<ObjectKey, Arc<Entry>>,
}

impl Snapshot {
    /// The last commit it holds.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The object under `key`.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Entry>> {
        self.objects.get(key)
    }

    /// Objects of `range` in key order, those after the key `after` if given.
    pub fn range<'a>(
        &'a self,
        range: &'a KeyRange,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
        let start = match after {
            Some(key) if key >= range.prefix() => Bound::Excluded(key),
            _ => Bound::Included(range.prefix()),
        };
        self.objects
            .range::<_, str>((start, Bound::Unbounded))
            .take_while(|(key, _)| range.contains(key))
            .map(|(_, entry)| entry)
    }
}
