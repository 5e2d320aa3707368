//! The objects of a local API: in memory, each change with a revision of its own, the last of them kept for watches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

/// Changes kept for watches that come later.
const HISTORY: usize = 1024;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Group, version and plural as in a path: `v1/pods`.
    pub(super) resource: String,
    /// Empty for what has none.
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What a watch is told.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub(super) kind: &'static str,
    pub(super) key: Key,
    pub(super) object: Arc<Value>,
}

/// The revision that a watch wants to go on from is no longer kept.
#[derive(Debug)]
pub(super) struct TooOld;

#[derive(Debug, Default)]
pub(super) struct Store {
    state: Mutex<State>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.lock().objects.get(key).cloned()
    }

    /// Everything of a resource, in all namespaces or one, and the revision that this was at.
    pub(super) fn list(&self, resource: &str, namespace: Option<&str>) -> (Vec<Arc<Value>>, u64) {
        let state = self.lock();
        let all = state.objects.iter().filter(|(key, _)| {
            key.resource == resource && namespace.is_none_or(|namespace| key.namespace == namespace)
        });
        (
            all.map(|(_, object)| object.clone()).collect(),
            state.revision,
        )
    }

    /// Changes an object, or makes it: `change` is given what there is, and answers what there is to be, or nothing to
    /// remove it.
    pub(super) fn update<E>(
        &self,
        key: &Key,
        change: impl FnOnce(Option<&Value>) -> Result<Option<Value>, E>,
    ) -> Result<Option<Arc<Value>>, E> {
        let mut state = self.lock();
        let before = state.objects.get(key).cloned();
        let after = change(before.as_deref())?;
        let kind = match (&before, &after) {
            (None, None) => return Ok(None),
            (Some(before), Some(after)) if **before == *after => return Ok(Some(before.clone())),
            (None, Some(_)) => "ADDED",
            (Some(_), Some(_)) => "MODIFIED",
            (Some(_), None) => "DELETED",
        };
        state.revision += 1;
        let revision = state.revision;
        let mut object = after
            .or_else(|| before.as_deref().cloned())
            .unwrap_or_default();
        if let Some(object) = object.as_object_mut() {
            let metadata = object.entry("metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
            }
        }
        let object = Arc::new(object);
        if kind == "DELETED" {
            state.objects.remove(key);
        } else {
            state.objects.insert(key.clone(), object.clone());
        }
        if state.history.len() == HISTORY {
            state.history.pop_front();
        }
        state.history.push_back(Change {
            revision,
            kind,
            key: key.clone(),
            object: object.clone(),
        });
        drop(state);
        self.newest.send_replace(revision);
        Ok(Some(object))
    }

    /// The changes after a revision.
    pub(super) fn since(&self, revision: u64) -> Result<Vec<Change>, TooOld> {
        let state = self.lock();
        let oldest = state
            .history
            .front()
            .map_or(state.revision + 1, |first| first.revision);
        if revision + 1 < oldest {
            return Err(TooOld);
        }
        let newer = state
            .history
            .iter()
            .filter(|change| change.revision > revision);
        Ok(newer.cloned().collect())
    }

    /// Changes with every change.
    pub(super) fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn key(name: &str) -> Key {
        Key {
            resource: "v1/pods".to_owned(),
            namespace: "a".to_owned(),
            name: name.to_owned(),
        }
    }

    fn put(store: &Store, name: &str, value: u32) {
        let object = json!({ "metadata": { "name": name }, "value": value });
        store
            .update(&key(name), |_| Ok::<_, Infallible>(Some(object)))
            .unwrap();
    }

    #[test]
    fn changes_are_told_in_order_and_only_once() {
        let store = Store::default();
        put(&store, "p", 1);
        put(&store, "p", 2);
        let again = store
            .update(&key("p"), |before| Ok::<_, Infallible>(before.cloned()))
            .unwrap();
        assert_eq!(again.unwrap()["metadata"]["resourceVersion"], "2");
        store
            .update(&key("p"), |_| Ok::<_, Infallible>(None))
            .unwrap();
        let kinds: Vec<_> = store.since(0).unwrap().iter().map(|it| it.kind).collect();
        assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED"]);
        assert_eq!(store.since(2).unwrap().len(), 1);
        assert_eq!(store.list("v1/pods", None).0.len(), 0);
    }

    #[test]
    fn history_is_bounded_and_says_so() {
        let store = Store::default();
        for value in 0..=u32::try_from(HISTORY).unwrap() {
            put(&store, "p", value);
        }
        assert!(store.since(0).is_err());
        assert_eq!(store.since(1).unwrap().len(), HISTORY);
    }
}
