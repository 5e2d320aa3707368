//! The Node object of this machine: registered at start, its status kept, its pod CIDR learnt.
//!
//! 1. [`run`] creates the Node (or updates the labels of the one there is) and writes its status.
//! 2. It watches its own Node: a pod CIDR given by the node IPAM reaches the network; a Node that was
//!    deleted is registered again.
//! 3. The status is written again every five minutes, so that heartbeat times move, and when there are other images
//!    than before; liveness itself is the lease's business (`lease`).
//!
//! The node lifecycle controller owns taints; this file writes none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeRuntimeHandler, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::sync::watch;

use crate::images::Images;
use crate::network::Network;
use crate::pressure::Pressure;
use crate::runtime::{RuntimeState, Runtimes};

pub mod bootstrap;

const STATUS_PERIOD: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(2);
/// Message of the condition `Ready`.
const READY: &str = "kubelet is posting ready status";
/// Condition of nodes that have a runtime for containers of Linux.
const LINUX_READY: &str = "LinuxContainersReady";
/// Conditions of a node: what is told while it has enough of a resource, and while it has not.
type PressureTexts = (
    &'static str,
    (&'static str, &'static str),
    (&'static str, &'static str),
);
const MEMORY_PRESSURE: PressureTexts = (
    "MemoryPressure",
    (
        "KubeletHasSufficientMemory",
        "kubelet has sufficient memory available",
    ),
    (
        "KubeletHasInsufficientMemory",
        "kubelet has insufficient memory available",
    ),
);
const DISK_PRESSURE: PressureTexts = (
    "DiskPressure",
    ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("KubeletHasDiskPressure", "kubelet has disk pressure"),
);
const PID_PRESSURE: PressureTexts = (
    "PIDPressure",
    (
        "KubeletHasSufficientPID",
        "kubelet has sufficient PID available",
    ),
    (
        "KubeletHasInsufficientPID",
        "kubelet has insufficient PID available",
    ),
);
/// The API version this agent implements, as `kubectl get nodes` shows it.
const KUBELET_VERSION: &str = concat!("v1.35.0+windlass-", env!("CARGO_PKG_VERSION"));

/// What the machine has.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Processor time in thousandths of a core.
    pub cpu_millis: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Pods the node takes.
    pub max_pods: u32,
    info: NodeSystemInfo,
}

impl Machine {
    /// Looks at this machine. What can't be found out is left empty or assumed small.
    #[must_use]
    pub fn inspect() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = meminfo("MemTotal").unwrap_or(1 << 30);
        Self {
            cpu_millis: i64::try_from(cores).unwrap_or(1) * 1000,
            memory_bytes: memory,
            max_pods: pods_for(memory),
            info: NodeSystemInfo {
                architecture: windlass_oci::pull::oci_architecture().to_owned(),
                boot_id: file("/proc/sys/kernel/random/boot_id"),
                kernel_version: file("/proc/sys/kernel/osrelease"),
                machine_id: file("/etc/machine-id"),
                system_uuid: file("/etc/machine-id"),
                operating_system: std::env::consts::OS.to_owned(),
                os_image: os_image(&file("/etc/os-release")),
                kubelet_version: KUBELET_VERSION.to_owned(),
                ..NodeSystemInfo::default()
            },
        }
    }
}

/// An idle wasm http pod costs at most 200 KB; half of the memory is for pods that do something.
fn pods_for(memory: i64) -> u32 {
    let pods = memory / 2 / (200 << 10);
    u32::try_from(pods).unwrap_or(u32::MAX).clamp(110, 16_000)
}

fn file(path: &str) -> String {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

pub(crate) fn meminfo(name: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

fn os_image(os_release: &str) -> String {
    let name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(
        || std::env::consts::OS.to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

/// What a Node is registered with.
#[derive(Clone)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// Where the API server reaches the node, if it does.
    pub(crate) daemon_port: Option<u16>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) machine: Machine,
    pub(crate) runtimes: Runtimes,
    pub(crate) images: Arc<Images>,
}

impl Registration {
    fn node(&self) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec::default()),
            status: None,
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let info = &self.machine.info;
        let own = [
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", info.operating_system.as_str()),
            ("kubernetes.io/arch", info.architecture.as_str()),
        ];
        let own = own
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.labels.clone().into_iter().chain(own).collect()
    }

    fn status(
        &self,
        old: Option<&NodeStatus>,
        images: Vec<ContainerImage>,
        pressure: Pressure,
        now: Timestamp,
    ) -> NodeStatus {
        let machine = &self.machine;
        let resources: BTreeMap<String, Quantity> = [
            ("cpu", format!("{}m", machine.cpu_millis)),
            ("memory", format!("{}Ki", machine.memory_bytes >> 10)),
            ("pods", machine.max_pods.to_string()),
        ]
        .into_iter()
        .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
        .collect();
        let versions = self.runtimes.iter().map(|runtime| runtime.version());
        let info = NodeSystemInfo {
            container_runtime_version: versions.collect::<Vec<_>>().join(","),
            ..machine.info.clone()
        };
        NodeStatus {
            addresses: Some(self.addresses()),
            capacity: Some(resources.clone()),
            allocatable: Some(resources),
            conditions: Some(conditions(old, pressure, self.linux_state().as_ref(), now)),
            daemon_endpoints: self.daemon_port.map(|port| NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint {
                    port: i32::from(port),
                }),
            }),
            node_info: Some(info),
            images: Some(images),
            runtime_handlers: Some(
                self.runtimes
                    .iter()
                    .flat_map(|runtime| runtime.handlers())
                    .map(|handler| NodeRuntimeHandler {
                        name: Some(handler),
                        features: None,
                    })
                    .collect(),
            ),
            ..NodeStatus::default()
        }
    }

    /// Whether containers of Linux can be started, on a node that has a runtime for them.
    fn linux_state(&self) -> Option<RuntimeState> {
        let state = self.runtimes.state()?;
        let state = state.borrow().clone();
        Some(state)
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        let address = |kind: &str, address: String| NodeAddress {
            type_: kind.to_owned(),
            address,
        };
        let ips = self
            .addresses
            .iter()
            .map(|ip| address("InternalIP", ip.to_string()));
        ips.chain([address("Hostname", self.name.clone())])
            .collect()
    }
}

/// Differs from Kubernetes: a node whose containerd is down stays Ready, since its wasm pods do not mind; the message says
/// so, and the condition `LinuxContainersReady`.
fn conditions(
    old: Option<&NodeStatus>,
    pressure: Pressure,
    linux: Option<&RuntimeState>,
    now: Timestamp,
) -> Vec<NodeCondition> {
    let down = match linux {
        Some(RuntimeState::Down { message }) => Some(message),
        _ => None,
    };
    let ready = match down {
        Some(message) => format!(
            "{READY}. [container runtime not ready: RuntimeReady=false reason:ContainerdDown message:{message}]"
        ),
        None => READY.to_owned(),
    };
    let of_linux = linux.map(|state| match state {
        RuntimeState::Idle { .. } => (
            LINUX_READY,
            "True",
            "ContainerdIdle",
            "containerd is started with the first container of Linux",
        ),
        RuntimeState::Ready { .. } => (
            LINUX_READY,
            "True",
            "ContainerdReady",
            "containers of Linux can be started",
        ),
        RuntimeState::Down { message } => {
            (LINUX_READY, "False", "ContainerdDown", message.as_str())
        }
    });
    let pressed = [
        (pressure.memory, MEMORY_PRESSURE),
        (pressure.disk, DISK_PRESSURE),
        (pressure.processes, PID_PRESSURE),
    ];
    let of_node = pressed.map(|(is_pressed, (kind, no, yes))| {
        let (reason, message) = if is_pressed { yes } else { no };
        let status = if is_pressed { "True" } else { "False" };
        (kind, status, reason, message)
    });
    let ready = ("Ready", "True", "KubeletReady", ready.as_str());
    of_node
        .into_iter()
        .chain([ready])
        .chain(of_linux)
        .map(|(kind, status, reason, message)| {
            let mut old = old.iter().flat_map(|old| old.conditions.iter().flatten());
            let same = old.find(|old| old.type_ == kind && old.status == status);
            let since = same.and_then(|old| old.last_transition_time.clone());
            let now = Time(windlass_api::time::to_seconds(now));
            NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: since.or(Some(now)),
            }
        })
        .collect()
}

/// Keeps the Node registered until dropped. `registered` is told once the status was accepted first.
pub(crate) async fn run(
    client: kube::Client,
    registration: Registration,
    network: Network,
    mut pressure: watch::Receiver<Pressure>,
    registered: impl Fn(),
) {
    let api: Api<Node> = Api::all(client);
    let now = |pressure: &watch::Receiver<Pressure>| *pressure.borrow();
    register(&api, &registration, now(&pressure)).await;
    registered();
    let config = watcher::Config::default().fields(&format!("metadata.name={}", registration.name));
    let mut events = watcher(api.clone(), config).default_backoff().boxed();
    let mut refresh = tokio::time::interval(STATUS_PERIOD);
    refresh.reset();
    let mut images = registration.images.changes();
    let mut linux = registration.runtimes.state();
    let mut listed = false;
    loop {
        tokio::select! {
            _ = refresh.tick() => register(&api, &registration, now(&pressure)).await,
            Ok(()) = images.changed() => register(&api, &registration, now(&pressure)).await,
            () = changed(&mut linux) => register(&api, &registration, now(&pressure)).await,
            Ok(()) = pressure.changed() => register(&api, &registration, now(&pressure)).await,
            event = events.next() => match event {
                Some(Ok(watcher::Event::Init)) => listed = false,
                Some(Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node))) => {
                    listed = true;
                    learn_pod_cidr(&node, &network);
                    if is_given_up(&node) {
                        register(&api, &registration, now(&pressure)).await;
                    }
                }
                Some(Ok(watcher::Event::InitDone)) if listed => {}
                Some(Ok(watcher::Event::InitDone | watcher::Event::Delete(_))) => {
                    tracing::warn!(node = registration.name, "the Node is gone; registering again");
                    register(&api, &registration, now(&pressure)).await;
                }
                Some(Err(error)) => tracing::warn!(%error, "watch of the Node failed, will resume"),
                None => return,
            },
        }
    }
}

/// Waits until a runtime's state is another; for ever where none has one.
async fn changed(state: &mut Option<watch::Receiver<RuntimeState>>) {
    if let Some(receiver) = state
        && receiver.changed().await.is_err()
    {
        *state = None;
    }
    if state.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Whether the control plane took the agent for dead, which it is not: the status says so again.
fn is_given_up(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| condition.status != "True")
}

fn learn_pod_cidr(node: &Node, network: &Network) {
    let Some(text) = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()) else {
        return;
    };
    match text.parse() {
        Ok(cidr) => network.set_pod_cidr(cidr),
        Err(error) => tracing::error!(%error, text, "the Node's podCIDR is malformed"),
    }
}

/// Creates or updates the Node and its status, until the API server has them.
async fn register(api: &Api<Node>, registration: &Registration, pressure: Pressure) {
    while let Err(error) = try_register(api, registration, pressure).await {
        tracing::warn!(node = registration.name, %error, "not registered, will retry");
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_register(
    api: &Api<Node>,
    registration: &Registration,
    pressure: Pressure,
) -> Result<(), kube::Error> {
    let name = &registration.name;
    let node = match api.get_opt(name).await? {
        Some(node) => node,
        None => match api
            .create(&PostParams::default(), &registration.node())
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 409 => api.get(name).await?,
            created => created?,
        },
    };
    let labels = registration.labels();
    let present = node.metadata.labels.clone().unwrap_or_default();
    if labels
        .iter()
        .any(|(key, value)| present.get(key) != Some(value))
    {
        let patch = Patch::Strategic(json!({ "metadata": { "labels": labels } }));
        api.patch(name, &PatchParams::default(), &patch).await?;
    }
    let images = registration.images.list().await;
    let now = Timestamp::now();
    let status = registration.status(node.status.as_ref(), images, pressure, now);
    let patch = Patch::Strategic(json!({ "status": status }));
    api.patch_status(name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::inspect();
        assert!(machine.cpu_millis >= 1000);
        assert!(machine.memory_bytes > 0);
        assert!(!machine.info.architecture.is_empty());
    }

    #[test]
    fn only_a_condition_that_says_otherwise_means_given_up() {
        for (status, given_up) in [("True", false), ("Unknown", true), ("False", true)] {
            let node: Node = serde_json::from_value(json!({
                "metadata": {},
                "status": {"conditions": [{"type": "Ready", "status": status}]},
            }))
            .unwrap();
            assert_eq!(is_given_up(&node), given_up, "{status}");
        }
        assert!(!is_given_up(&Node::default()));
    }

    #[test]
    fn max_pods_follows_memory() {
        assert_eq!(pods_for(0), 110);
        assert!(pods_for(8 << 30) >= 10_000);
    }

    #[test]
    fn a_condition_keeps_its_transition_time_while_it_holds() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let old = NodeStatus {
            conditions: Some(conditions(None, Pressure::default(), None, at(1))),
            ..NodeStatus::default()
        };
        let scarce = Pressure {
            memory: true,
            ..Pressure::default()
        };
        let changed = conditions(Some(&old), scarce, None, at(9));
        let memory = changed.iter().find(|found| found.type_ == "MemoryPressure");
        let memory = memory.unwrap();
        assert_eq!(
            (memory.status.as_str(), &memory.last_transition_time),
            ("True", &Some(Time(at(9))))
        );
        for condition in conditions(Some(&old), Pressure::default(), None, at(9)) {
            assert_eq!(condition.last_transition_time, Some(Time(at(1))));
            assert_eq!(condition.last_heartbeat_time, Some(Time(at(9))));
        }
    }

    #[test]
    fn a_containerd_that_is_down_is_told_and_the_node_stays_ready() {
        let of = |state: &RuntimeState| {
            let all = conditions(
                None,
                Pressure::default(),
                Some(state),
                Timestamp::UNIX_EPOCH,
            );
            let text = |kind: &str| {
                let found = all.iter().find(|found| found.type_ == kind).unwrap();
                format!("{} {}", found.status, found.message.as_deref().unwrap())
            };
            (text("Ready"), text(LINUX_READY))
        };
        let message = "no socket".to_owned();
        let (ready, linux) = of(&RuntimeState::Down { message });
        assert!(
            ready.starts_with("True kubelet is posting ready status. ["),
            "{ready}"
        );
        assert!(ready.contains("RuntimeReady=false reason:ContainerdDown message:no socket"));
        assert_eq!(linux, "False no socket");
        let version = "containerd://1".to_owned();
        let (ready, linux) = of(&RuntimeState::Ready { version });
        assert_eq!(ready, "True kubelet is posting ready status");
        assert!(linux.starts_with("True "));
    }
}
