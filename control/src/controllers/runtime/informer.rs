//! A cache of one kind, kept current by a watch and shared by everybody who reads that kind.
//!
//! 1. LIST, then WATCH from there; a lost watch resumes, one that is too old lists again (`kube`'s
//!    watcher does both), errors are retried with growing delay.
//! 2. Each object is cut down to a projection ([`Cached`]) before it is kept.
//! 3. The cache and its index change first, then every subscriber hears of the change, in order.
//!
//! Invariants: a subscriber has heard of everything the cache shows, or is about to; subscribers
//! neither block nor subscribe from within their callback; a projection never holds managed fields.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::key::Key;
use super::metadata::Metadata;

/// What of an object is kept.
pub trait Cached: Send + Sync + Sized + 'static {
    /// The object as it comes from the API.
    type Object: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static;

    /// Cuts the object down.
    fn project(object: Self::Object) -> Self;

    /// The metadata kept of it.
    fn metadata(&self) -> &ObjectMeta;

    /// Under what it is found besides its key.
    fn index(&self) -> Vec<Index> {
        standard_index(self.metadata())
    }
}

/// Something objects are found by without looking at all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// All of a namespace.
    Namespace(String),
    /// Those that the object with this uid manages.
    Controller(String),
    /// Those of a namespace that nobody manages.
    Orphan(String),
    /// Those bound to a node.
    Node(String),
    /// Those of a namespace that carry a label: namespace, key, value.
    Label(String, String, String),
    /// Those labelled as belonging to the Service: namespace, name.
    Service(String, String),
}

/// By namespace, and by controller or as an orphan.
#[must_use]
pub fn standard_index(metadata: &ObjectMeta) -> Vec<Index> {
    let namespace = metadata.namespace().to_owned();
    let owner = match metadata.controller() {
        Some(controller) => Index::Controller(controller.uid.clone()),
        None => Index::Orphan(namespace.clone()),
    };
    vec![Index::Namespace(namespace), owner]
}

/// What happened to an object: `old` is what the cache held, `new` what it holds now.
pub struct Change<'a, C> {
    /// `None` when the object is new.
    pub old: Option<&'a Arc<C>>,
    /// `None` when the object is gone.
    pub new: Option<&'a Arc<C>>,
}

impl<C> Clone for Change<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Change<'_, C> {}

impl<'a, C> Change<'a, C> {
    /// The object as it is now, or was last.
    #[must_use]
    pub fn either(&self) -> Option<&'a Arc<C>> {
        self.new.or(self.old)
    }

    /// Both states there are.
    pub fn both(&self) -> impl Iterator<Item = &'a Arc<C>> {
        self.old.into_iter().chain(self.new)
    }
}

type Subscriber<C> = Box<dyn Fn(Change<'_, C>) + Send + Sync>;

/// The cache of one kind.
pub struct Informer<C: Cached> {
    api: Api<C::Object>,
    config: watcher::Config,
    state: RwLock<State<C>>,
    subscribers: Mutex<Subscribers<C>>,
    synced: tokio::sync::watch::Sender<bool>,
}

struct State<C> {
    objects: HashMap<Key, Arc<C>>,
    index: HashMap<Index, HashMap<Key, Arc<C>>>,
}

struct Subscribers<C> {
    next: u64,
    list: Vec<(u64, Subscriber<C>)>,
}

/// A subscription; ends when dropped.
pub struct Subscription<C: Cached> {
    informer: Arc<Informer<C>>,
    id: u64,
}

impl<C: Cached> Drop for Subscription<C> {
    fn drop(&mut self) {
        let id = self.id;
        self.informer
            .subscribers()
            .list
            .retain(|(own, _)| *own != id);
    }
}

impl<C: Cached> Informer<C> {
    /// A cache of what `api` lists under `config`; it fills once it runs.
    #[must_use]
    pub fn new(api: Api<C::Object>, config: watcher::Config) -> Arc<Self> {
        Arc::new(Self {
            api,
            config,
            state: RwLock::new(State {
                objects: HashMap::new(),
                index: HashMap::new(),
            }),
            subscribers: Mutex::new(Subscribers {
                next: 0,
                list: Vec::new(),
            }),
            synced: tokio::sync::watch::Sender::new(false),
        })
    }

    /// Keeps the cache current until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let events = watcher(self.api.clone(), self.config.clone()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed = HashSet::new();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => self.accept(event, &mut listed),
                Some(Err(error)) => {
                    let path = self.api.resource_url();
                    tracing::warn!(path, %error, "watch failed; it is resumed");
                }
                None => return,
            }
        }
    }

    fn accept(&self, event: watcher::Event<C::Object>, listed: &mut HashSet<Key>) {
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => {
                let object = C::project(object);
                listed.insert(Key::of(object.metadata()));
                self.put(object);
            }
            watcher::Event::InitDone => {
                let gone: Vec<_> = {
                    let state = self.read();
                    let known = state.objects.keys();
                    known
                        .filter(|key| !listed.contains(*key))
                        .cloned()
                        .collect()
                };
                gone.iter().for_each(|key| self.remove(key));
                listed.clear();
                listed.shrink_to_fit();
                self.synced.send_replace(true);
            }
            watcher::Event::Apply(object) => self.put(C::project(object)),
            watcher::Event::Delete(object) => self.remove(&Key::of(C::project(object).metadata())),
        }
    }
}

impl<C: Cached> Informer<C> {
    fn put(&self, object: C) {
        let key = Key::of(object.metadata());
        let new = Arc::new(object);
        let subscribers = self.subscribers();
        let old = {
            let mut state = self.write();
            let known = state.objects.get(&key);
            if known.is_some_and(|old| old.metadata().version() == new.metadata().version()) {
                return;
            }
            state.put(key, &new)
        };
        // Another object under the same name: the old one's end is news of its own.
        if let Some(old) = old
            .as_ref()
            .filter(|old| old.metadata().uid() != new.metadata().uid())
        {
            subscribers.tell(Change {
                old: Some(old),
                new: None,
            });
            return subscribers.tell(Change {
                old: None,
                new: Some(&new),
            });
        }
        subscribers.tell(Change {
            old: old.as_ref(),
            new: Some(&new),
        });
    }

    fn remove(&self, key: &Key) {
        let subscribers = self.subscribers();
        let old = self.write().remove(key);
        if let Some(old) = &old {
            subscribers.tell(Change {
                old: Some(old),
                new: None,
            });
        }
    }

    /// Calls `subscriber` for everything there is and for every change from then on, until the answer
    /// is dropped.
    #[must_use]
    pub fn subscribe(
        self: &Arc<Self>,
        subscriber: impl Fn(Change<'_, C>) + Send + Sync + 'static,
    ) -> Subscription<C> {
        let mut subscribers = self.subscribers();
        for object in self.all() {
            subscriber(Change {
                old: None,
                new: Some(&object),
            });
        }
        let id = subscribers.next;
        subscribers.next += 1;
        subscribers.list.push((id, Box::new(subscriber)));
        Subscription {
            informer: Arc::clone(self),
            id,
        }
    }

    /// Returns once the cache has been filled for the first time.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// The object of that key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<C>> {
        self.read().objects.get(key).cloned()
    }

    /// Everything.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<C>> {
        self.read().objects.values().cloned().collect()
    }

    /// What is found under `index`.
    #[must_use]
    pub fn by(&self, index: &Index) -> Vec<Arc<C>> {
        let state = self.read();
        let found = state.index.get(index);
        found
            .map(|found| found.values().cloned().collect())
            .unwrap_or_default()
    }

    /// How much is found under `index`.
    #[must_use]
    pub fn count(&self, index: &Index) -> usize {
        self.read().index.get(index).map_or(0, HashMap::len)
    }

    fn read(&self) -> RwLockReadGuard<'_, State<C>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<C>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribers(&self) -> MutexGuard<'_, Subscribers<C>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Subscribers<C> {
    fn tell(&self, change: Change<'_, C>) {
        for (_, subscriber) in &self.list {
            subscriber(change);
        }
    }
}

impl<C: Cached> State<C> {
    fn put(&mut self, key: Key, object: &Arc<C>) -> Option<Arc<C>> {
        let old = self.remove(&key);
        for index in object.index() {
            let found = self.index.entry(index).or_default();
            found.insert(key.clone(), Arc::clone(object));
        }
        self.objects.insert(key, Arc::clone(object));
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<C>> {
        let old = self.objects.remove(key)?;
        for index in old.index() {
            if let Some(found) = self.index.get_mut(&index) {
                found.remove(key);
                if found.is_empty() {
                    self.index.remove(&index);
                }
            }
        }
        Some(old)
    }
}

impl<C: Cached> Debug for Informer<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Informer({} objects)", self.read().objects.len())
    }
}
