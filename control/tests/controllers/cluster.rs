//! A control plane of the test's own, and a node agent that only pretends.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http::{Request, Response};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use windlass_control::identity::{MASTERS, UserInfo};
use windlass_control::{ComponentClients, Config, ControlPlane};

/// A bound for broken code, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    plane: Option<ControlPlane>,
    config: Config,
    agents: Vec<(String, JoinHandle<()>)>,
    _dir: TempDir,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With changes to its configuration.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("server"));
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.in_memory = true;
        // The nodes here send no heartbeats, and slow machines take their time.
        config.node_grace = Duration::from_secs(24 * 60 * 60);
        change(&mut config);
        let plane = ControlPlane::start(config.clone()).await.unwrap();
        let cluster = Self {
            client: plane.client(UserInfo::authenticated("admin", &[MASTERS])),
            plane: Some(plane),
            config,
            agents: Vec::new(),
            _dir: dir,
        };
        cluster.account("default").await;
        cluster
    }

    /// With requests of controllers and schedulers passing through `handle`, which has their client.
    pub(crate) async fn start_through<F, A>(change: impl FnOnce(&mut Config), handle: F) -> Self
    where
        F: Fn(Client, Request<Body>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Result<Response<Body>, kube::Error>> + Send + 'static,
    {
        Self::start_with(|config| {
            change(config);
            config.component_clients = ComponentClients::through(move |client| {
                let handle = handle.clone();
                let service = tower::service_fn(move |request| handle(client.clone(), request));
                Client::new(service, "default")
            });
        })
        .await
    }

    /// Waits until pods can be made in the namespace.
    pub(crate) async fn account(&self, namespace: &str) {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        eventually(&accounts, |all| all.contains_key("default")).await;
    }

    pub(crate) async fn namespace(&self, name: &str) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        create(&api, json!({"metadata": {"name": name}})).await;
        self.account(name).await;
    }

    /// A node that has room and never starts anything.
    pub(crate) async fn idle_node(&self, name: &str, pods: u32) {
        let api: Api<Node> = Api::all(self.client.clone());
        create(
            &api,
            json!({
                "metadata": {"name": name},
                "status": {
                    "allocatable": {"cpu": "4", "memory": "8Gi", "pods": pods.to_string()},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }),
        )
        .await;
    }

    /// A node whose agent says that every pod runs and is ready, and lets go of those that are deleted.
    pub(crate) async fn node(&mut self, name: &str) {
        self.idle_node(name, 110).await;
        self.agent(name);
    }

    fn agent(&mut self, node: &str) {
        let agent = tokio::spawn(pretend(self.client.clone(), node.to_owned()));
        self.agents.push((node.to_owned(), agent));
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Another control plane over the same data; the agents are back with it.
    pub(crate) async fn restart(&mut self) {
        let agents = self.halt().await;
        let plane = ControlPlane::start(self.config.clone()).await.unwrap();
        self.client = plane.client(UserInfo::authenticated("admin", &[MASTERS]));
        self.plane = Some(plane);
        agents.iter().for_each(|node| self.agent(node));
    }

    /// Also proves that everything stops when it is told to.
    pub(crate) async fn stop(mut self) {
        self.halt().await;
    }

    /// Answers which nodes had an agent.
    async fn halt(&mut self) -> Vec<String> {
        let stopped = self.agents.drain(..).map(|(node, agent)| {
            agent.abort();
            node
        });
        let nodes = stopped.collect();
        if let Some(plane) = self.plane.take() {
            tokio::time::timeout(PATIENCE, plane.shutdown())
                .await
                .expect("everything stops");
        }
        nodes
    }
}

async fn pretend(client: Client, node: String) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let events = watcher(Api::<Pod>::all(client.clone()), config)
        .default_backoff()
        .applied_objects();
    let mut events = std::pin::pin!(events);
    let mut next = 0_u32;
    while let Some(event) = events.next().await {
        let Ok(pod) = event else { continue };
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        let status = pod.status.clone().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api
                .delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
                .await;
        } else if status.pod_ip.is_none() {
            next += 1;
            let ip = format!("10.9.{}.{}", next / 250, next % 250 + 1);
            let now = windlass_api::time::format_seconds(jiff::Timestamp::now());
            let patch = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]}});
            let _ = api
                .patch_status(
                    &pod.name_any(),
                    &PatchParams::default(),
                    &Patch::Strategic(&patch),
                )
                .await;
        }
    }
}

pub(crate) async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + DeserializeOwned + Serialize + Debug,
    K::DynamicType: Default,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

pub(crate) async fn merge<K>(api: &Api<K>, name: &str, patch: Value) -> K
where
    K: Clone + DeserializeOwned + Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap()
}

/// Waits until `holds` of all the objects; answers them.
pub(crate) async fn eventually<K>(
    api: &Api<K>,
    mut holds: impl FnMut(&BTreeMap<String, K>) -> bool,
) -> BTreeMap<String, K>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default + Clone + Eq + std::hash::Hash,
{
    let mut all = BTreeMap::new();
    let wait = async {
        let mut events = std::pin::pin!(watcher(api.clone(), watcher::Config::default()));
        while let Some(event) = events.try_next().await.unwrap() {
            let mut settled = true;
            match event {
                watcher::Event::Init => {
                    all.clear();
                    settled = false;
                }
                watcher::Event::InitApply(object) => {
                    all.insert(object.name_any(), object);
                    settled = false;
                }
                watcher::Event::InitDone => {}
                watcher::Event::Apply(object) => {
                    all.insert(object.name_any(), object);
                }
                watcher::Event::Delete(object) => {
                    all.remove(&object.name_any());
                }
            }
            if settled && holds(&all) {
                return;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!(
            "still waiting at {}; last seen: {all:#?}",
            api.resource_url()
        );
    }
    all
}

/// Waits until the pod runs. Every cache has it then, and of a controller's pods it is the last to be given up.
pub(crate) async fn runs(pods: &Api<Pod>, name: &str) {
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    eventually(pods, |all| {
        all.get(name).and_then(phase).as_deref() == Some("Running")
    })
    .await;
}
