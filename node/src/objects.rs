//! ConfigMaps and Secrets that pods of this node refer to, each watched once however many use it.
//!
//! A watch begins with the first subscription and ends with the last, so that a node sees only the
//! objects its pods name.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::tasks::OwnedTask;

/// What is known of an object: nothing yet, that it does not exist, or what it is.
pub(crate) type Known<K> = Option<Option<Arc<K>>>;

/// The objects watched for pods of this node.
#[derive(Debug)]
pub(crate) struct ObjectWatches {
    pub(crate) config_maps: Watches<ConfigMap>,
    pub(crate) secrets: Watches<Secret>,
}

impl ObjectWatches {
    pub(crate) fn new(client: &kube::Client) -> Self {
        Self {
            config_maps: Watches::new(client),
            secrets: Watches::new(client),
        }
    }
}

/// By namespace and name.
type Entries<K> = HashMap<(String, String), Weak<Watch<K>>>;

/// The watches of one kind.
pub(crate) struct Watches<K> {
    client: kube::Client,
    entries: Mutex<Entries<K>>,
}

/// One object, watched as long as a subscription lives.
#[derive(Debug)]
pub(crate) struct Watch<K> {
    value: watch::Receiver<Known<K>>,
    _task: OwnedTask,
}

impl<K> Watch<K> {
    /// The object's present state and changes.
    pub(crate) fn changes(&self) -> watch::Receiver<Known<K>> {
        self.value.clone()
    }
}

impl<K> Debug for Watches<K> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watches").finish_non_exhaustive()
    }
}

impl<K> Watches<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    fn new(client: &kube::Client) -> Self {
        Self {
            client: client.clone(),
            entries: Mutex::default(),
        }
    }

    /// Watches an object until the subscription is dropped.
    pub(crate) fn subscribe(&self, namespace: &str, name: &str) -> Arc<Watch<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = entries.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        entries.retain(|_, entry| entry.strong_count() > 0);
        let (sender, value) = watch::channel(None);
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let task = OwnedTask::spawn(follow(api, name.to_owned(), sender));
        let entry = Arc::new(Watch { value, _task: task });
        entries.insert(key, Arc::downgrade(&entry));
        entry
    }
}

async fn follow<K>(api: Api<K>, name: String, sender: watch::Sender<Known<K>>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut found = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => found = None,
            Ok(watcher::Event::InitApply(object)) => found = Some(Arc::new(object)),
            Ok(watcher::Event::InitDone) => {
                sender.send_replace(Some(found.take()));
            }
            Ok(watcher::Event::Apply(object)) => {
                sender.send_replace(Some(Some(Arc::new(object))));
            }
            Ok(watcher::Event::Delete(_)) => {
                sender.send_replace(Some(None));
            }
            Err(error) => tracing::warn!(object = name, %error, "watch failed, will resume"),
        }
    }
}
