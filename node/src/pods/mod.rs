//! The pods of this node: one watch, one worker per pod.
//!
//! 1. [`run`] watches pods with `spec.nodeName` of this node and keeps a worker per uid.
//! 2. A changed object is handed to its worker; a worker always sees the newest, never a queue.
//!    Pods of files have workers too, and their mirrors none (`from_files.rs`).
//! 3. A pod that vanished from the watch (or from a new list after a broken one) is told to its worker,
//!    which ends once everything is given back.
//!
//! Invariant: work per event does not depend on the number of pods. A pod deleted and created again under
//! its name has another uid and so another worker; both may run while the old one ends.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::events::EventRecorder;
use crate::images::Images;
use crate::leftovers::Leftovers;
use crate::logs::Logs;
use crate::network::Network;
use crate::objects::ObjectWatches;
use crate::pressure::{Eviction, Pressure};
use crate::registration::Machine;
use crate::runtime::{PodIdentity, RunningContainer, Runtimes, Survivor};
use crate::static_pods::{forget_source, is_mirror, is_static};
use crate::status::phase::HostFacts;
use crate::tasks::OwnedTask;
use crate::volumes::HostPaths;

mod env;
pub(crate) mod facts;
mod from_files;
mod hooks;
pub(crate) mod plan;
pub(crate) mod room;
mod start;
mod worker;

pub(crate) use from_files::Files;
use from_files::FromFiles;
use room::{Refusal, Room};
pub(crate) use worker::storage::DiskUse;
use worker::{Desired, PodWorker};

/// Longest wait for pods to end when the agent stops; what is left is cut off.
const SHUTDOWN: Duration = Duration::from_secs(45);

/// What all pod workers of a node share.
pub(crate) struct NodeContext {
    pub(crate) client: kube::Client,
    pub(crate) node_name: String,
    pub(crate) host: HostFacts,
    pub(crate) machine: Machine,
    pub(crate) images: Arc<Images>,
    pub(crate) logs: Logs,
    pub(crate) events: EventRecorder,
    pub(crate) runtimes: Runtimes,
    pub(crate) containers: RunningContainers,
    pub(crate) room: Room,
    /// What the node is low on.
    pub(crate) pressure: watch::Receiver<Pressure>,
    pub(crate) network: Network,
    pub(crate) objects: Arc<ObjectWatches>,
    pub(crate) host_paths: HostPaths,
    pub(crate) data_dir: PathBuf,
    pub(crate) clock: Clock,
}

/// The pods a node knows, for its daemon endpoint; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownPods(Arc<RwLock<HashMap<String, Arc<Pod>>>>);

impl KnownPods {
    /// Finds a pod by namespace and name; of several, the one that is not being deleted.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_name = pods.values().filter(|pod| {
            let metadata = &pod.metadata;
            metadata.name.as_deref() == Some(name)
                && metadata.namespace.as_deref() == Some(namespace)
        });
        of_name
            .min_by_key(|pod| pod.metadata.deletion_timestamp.is_some())
            .cloned()
    }

    /// All pods.
    pub(crate) fn all(&self) -> Vec<Arc<Pod>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn insert(&self, uid: &str, pod: Arc<Pod>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.to_owned(), pod);
    }

    fn remove(&self, uid: &str) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }
}

/// The containers that run, for those who attach to them or look at what they use; cheap to clone.
///
/// Invariant: it keeps no container alive; that is its worker's alone.
#[derive(Clone, Default)]
pub(crate) struct RunningContainers(Arc<RwLock<HashMap<ContainerKey, Started>>>);

/// A container and when it was started.
type Started = (Weak<dyn RunningContainer>, Instant);

/// A pod's uid and the name of a container.
type ContainerKey = (String, String);

impl RunningContainers {
    /// The container of that name, if it runs.
    pub(crate) fn find(&self, uid: &str, name: &str) -> Option<Arc<dyn RunningContainer>> {
        self.find_with_start(uid, name).map(|(found, _)| found)
    }

    /// The same, and when it was started.
    pub(crate) fn find_with_start(
        &self,
        uid: &str,
        name: &str,
    ) -> Option<(Arc<dyn RunningContainer>, Instant)> {
        let containers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (container, started) = containers.get(&(uid.to_owned(), name.to_owned()))?;
        Some((container.upgrade()?, *started))
    }

    /// The containers of a pod that run, by name.
    pub(crate) fn of_pod(&self, uid: &str) -> Vec<(String, Arc<dyn RunningContainer>)> {
        let containers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_pod = containers.iter().filter(|((of, _), _)| of == uid);
        of_pod
            .filter_map(|((_, name), (container, _))| Some((name.clone(), container.upgrade()?)))
            .collect()
    }

    pub(crate) fn insert(&self, uid: &str, name: &str, container: &Arc<dyn RunningContainer>) {
        let key = (uid.to_owned(), name.to_owned());
        let mut containers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        containers.insert(key, (Arc::downgrade(container), Instant::now()));
    }

    fn remove(&self, uid: &str, name: &str) {
        let mut containers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        containers.remove(&(uid.to_owned(), name.to_owned()));
    }

    fn remove_pod(&self, uid: &str) {
        let mut containers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        containers.retain(|(of, _), _| of != uid);
    }
}

impl NodeContext {
    /// Where a pod's volumes are that are on the node's own disk.
    pub(crate) fn volumes_directory(&self, pod: &PodIdentity) -> PathBuf {
        start::pod_directory(&self.data_dir, pod).join("volumes")
    }

    /// The identity of a pod, as the logs know it.
    pub(crate) fn identity(pod: &Pod) -> PodIdentity {
        PodIdentity {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// Runs the node's pods until `stop`; then stops them with their grace and returns.
pub(crate) async fn run(
    context: Arc<NodeContext>,
    known: KnownPods,
    mut evictions: mpsc::UnboundedReceiver<Eviction>,
    files: Files,
    stop: CancellationToken,
) {
    let api: Api<Pod> = Api::all(context.client.clone());
    let selector = format!("spec.nodeName={}", context.node_name);
    let config = watcher::Config::default().fields(&selector);
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut dispatcher = Dispatcher {
        context,
        known,
        workers: HashMap::new(),
        from_files: FromFiles::new(files),
        tasks: JoinSet::new(),
        listed: None,
        leftovers: None,
        survivors: HashMap::new(),
    };
    dispatcher.take_files();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = dispatcher.tasks.join_next() => dispatcher.collect(ended),
            Some(eviction) = evictions.recv() => dispatcher.evict(eviction),
            () = dispatcher.from_files.changed() => dispatcher.take_files(),
            event = events.next() => match event {
                Some(Ok(event)) => dispatcher.take(event).await,
                Some(Err(error)) => tracing::warn!(%error, "watch of pods failed, will resume"),
                None => break,
            },
        }
    }
    dispatcher.shut_down().await;
}

struct Dispatcher {
    context: Arc<NodeContext>,
    known: KnownPods,
    /// By uid.
    workers: HashMap<String, watch::Sender<Desired>>,
    from_files: FromFiles,
    tasks: JoinSet<String>,
    /// Pods seen in a list that is not whole yet.
    listed: Option<Vec<Pod>>,
    /// Removes what earlier pods left behind; begun with the first list.
    leftovers: Option<OwnedTask>,
    /// By uid: what runs since an earlier process of the agent.
    survivors: HashMap<String, Vec<Survivor>>,
}

impl Dispatcher {
    async fn take(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed = Some(Vec::new()),
            watcher::Event::InitApply(pod) => self.listed.get_or_insert_default().push(pod),
            watcher::Event::InitDone => self.take_list().await,
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => {
                if is_mirror(&pod) {
                    self.take_mirror_gone(&pod);
                } else if let Some(uid) = &pod.metadata.uid {
                    self.vanish(uid);
                }
            }
        }
    }

    async fn take_list(&mut self) {
        let listed = self.listed.take().unwrap_or_default();
        let (mirrors, mut pods): (Vec<_>, Vec<_>) = listed.into_iter().partition(is_mirror);
        self.take_mirrors(mirrors);
        let of_files = self.from_files.pods();
        let all: Vec<&Pod> = pods
            .iter()
            .chain(of_files.iter().map(Arc::as_ref))
            .collect();
        let uids: HashSet<&str> = all
            .iter()
            .filter_map(|pod| pod.metadata.uid.as_deref())
            .collect();
        let vanished: Vec<String> = self
            .workers
            .keys()
            .filter(|uid| !uids.contains(uid.as_str()))
            .cloned()
            .collect();
        for uid in vanished {
            self.vanish(&uid);
        }
        if self.leftovers.is_none() {
            let found = Leftovers::find(&self.context, &all).await;
            self.leftovers = Some(OwnedTask::spawn(found.remove()));
            self.find_survivors(&pods).await;
        }
        // Those that run have their room before those that are new.
        pods.sort_by_key(|pod| {
            let started = pod
                .status
                .as_ref()
                .and_then(|status| status.start_time.clone());
            let created = pod.metadata.creation_timestamp.clone();
            (started.is_none(), started.or(created))
        });
        for pod in pods {
            self.apply(pod);
        }
    }

    /// Finds out what runs already, if there may be something: no pod has to wait for a runtime that is not there.
    async fn find_survivors(&mut self, pods: &[Pod]) {
        for runtime in self.context.runtimes.iter() {
            let scheme = format!("{}://", runtime.handler());
            if pods.iter().any(|pod| facts::has_container_of(pod, &scheme)) {
                for survivor in runtime.survivors().await {
                    let of_pod = self.survivors.entry(survivor.uid.clone()).or_default();
                    of_pod.push(survivor);
                }
            }
        }
    }

    fn apply(&mut self, mut pod: Pod) {
        if is_mirror(&pod) {
            self.take_mirror(pod);
            return;
        }
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        forget_source(&mut pod);
        // Nobody here reads it, and it is a third of the object.
        pod.metadata.managed_fields = None;
        let pod = Arc::new(pod);
        self.known.insert(&uid, pod.clone());
        if let Some(worker) = self.workers.get(&uid) {
            worker.send_modify(|desired| desired.pod = pod);
            return;
        }
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let ended = matches!(phase, Some("Succeeded" | "Failed"));
        if ended && pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        self.begin(uid, pod, None);
    }

    /// Begins a worker.
    fn begin(&mut self, uid: String, pod: Arc<Pod>, mirror: Option<String>) {
        let refused = self.refused(&uid, &pod);
        let desired = Desired {
            pod,
            mirror,
            evicted: None,
            gone: false,
            shutdown: false,
        };
        let (sender, receiver) = watch::channel(desired);
        let survivors = self.survivors.remove(&uid).unwrap_or_default();
        let worker = PodWorker::new(self.context.clone(), receiver, refused, &survivors);
        self.workers.insert(uid.clone(), sender);
        self.tasks.spawn(async move {
            // A bug in one worker must cost one pod: the next change of the object starts a new one.
            if std::panic::AssertUnwindSafe(worker.run())
                .catch_unwind()
                .await
                .is_err()
            {
                tracing::error!(uid, "a pod worker panicked");
            }
            uid
        });
    }

    /// Why the node does not take the pod; one that ran here before, or ends, is taken.
    fn refused(&self, uid: &str, pod: &Pod) -> Option<Refusal> {
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let known = pod
            .status
            .as_ref()
            .is_some_and(|status| status.start_time.is_some());
        let pressure = *self.context.pressure.borrow();
        let under_pressure = (!known && !is_static(pod))
            .then(|| room::refused_under(pressure, pod))
            .flatten();
        under_pressure.or_else(|| Some(self.context.room.take(uid, pod).err()?.into()))
    }

    fn evict(&self, eviction: Eviction) {
        if let Some(worker) = self.workers.get(&eviction.uid) {
            worker.send_modify(|desired| desired.evicted = Some(eviction.message));
        }
    }

    fn vanish(&mut self, uid: &str) {
        self.known.remove(uid);
        if let Some(worker) = self.workers.get(uid) {
            worker.send_modify(|desired| desired.gone = true);
        }
    }

    fn collect(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                self.context.containers.remove_pod(&uid);
                self.context.room.release(&uid);
                self.workers.remove(&uid);
                self.take_end(&uid);
            }
            Err(error) => tracing::error!(%error, "a pod worker died"),
        }
    }

    async fn shut_down(mut self) {
        for worker in self.workers.values() {
            worker.send_modify(|desired| desired.shutdown = true);
        }
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN, all_ended).await.is_err() {
            tracing::warn!(
                pods = self.tasks.len(),
                "pods did not end in time and are cut off"
            );
        }
    }
}
