//! Follows the objects of one kind into a table.
//!
//! A watch that breaks is started again by the watcher, with a back-off; its new list replaces what
//! the table held, so that nothing deleted in between stays. Until that list is whole the old
//! entries serve on. A [`Feed`] keeps what it reads of an object, never the object.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

/// Namespace and name of an object; the namespace of a cluster-scoped one is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ObjectKey {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectKey {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(super) fn of<K: kube::Resource>(object: &K) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

/// Takes the objects of one kind into a table.
pub(super) trait Feed<K> {
    /// The object is there, or is as told now.
    fn apply(&self, object: &K);

    /// The object is gone.
    fn delete(&self, key: &ObjectKey);

    /// Every object was listed; what is not in `present` is gone.
    fn retain(&self, present: &HashSet<ObjectKey>);
}

/// Keeps a table in step until dropped.
pub(super) async fn follow<K>(api: Api<K>, feed: impl Feed<K>)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let url = api.resource_url().to_owned();
    let mut present = HashSet::new();
    let mut events = watcher(api, watcher::Config::default())
        .default_backoff()
        .boxed();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Apply(object))) => feed.apply(&object),
            Ok(Some(watcher::Event::Delete(object))) => feed.delete(&ObjectKey::of(&object)),
            Ok(Some(watcher::Event::Init)) => present.clear(),
            Ok(Some(watcher::Event::InitApply(object))) => {
                present.insert(ObjectKey::of(&object));
                feed.apply(&object);
            }
            Ok(Some(watcher::Event::InitDone)) => feed.retain(&std::mem::take(&mut present)),
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, url, "a watch is interrupted and will resume"),
        }
    }
}
