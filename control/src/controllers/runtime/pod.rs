//! What controllers keep of a Pod: a few hundred bytes instead of its 31 KB.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use windlass_api::quantity::Quantity;

use super::clock;
use super::informer::{Cached, Index, standard_index};
use super::metadata::Metadata;

/// Annotation by which users say which pods to give up first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Annotations that are kept.
const KEPT: [&str; 3] = [
    DELETION_COST,
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-index-failure-count",
];
/// Conditions that every pod has.
const USUAL: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// Name, empty if it has none.
    pub name: String,
    /// Number.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// A Pod as controllers see it.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Metadata without managed fields, and of the annotations only [`KEPT`].
    pub metadata: ObjectMeta,
    /// Node it is bound to; empty if none.
    pub node: String,
    /// The one node that its affinity lets it run on, by name; empty if it is not so bound.
    pub pinned: String,
    /// `spec.hostname`.
    pub hostname: String,
    /// `spec.subdomain`.
    pub subdomain: String,
    /// Ports of all containers, in their order.
    pub ports: Vec<PodPort>,
    /// Tolerations that concern NoExecute taints.
    pub tolerations: Vec<Toleration>,
    /// `status.phase`.
    pub phase: String,
    /// Whether condition Ready is True, and since when it says what it says.
    pub ready: bool,
    /// When condition Ready last changed.
    pub ready_since: Option<Timestamp>,
    /// Addresses, the main one first.
    pub addresses: Vec<String>,
    /// The most often any of its containers was restarted.
    pub restarts: i32,
    /// The sum of all restarts of its containers.
    pub all_restarts: i32,
    /// Containers that have ended, with their exit codes.
    pub exits: Vec<(String, i32)>,
    /// Type and status of conditions other than those every pod has.
    pub conditions: Vec<(String, String)>,
    /// When the last of its containers ended.
    pub finished: Option<Timestamp>,
    /// When its node took it.
    pub started: Option<Timestamp>,
    /// What its containers that go on running ask for.
    pub requests: Vec<ContainerRequests>,
    /// Names of the PersistentVolumeClaims it uses, those made for it included.
    pub claims: Vec<String>,
}

/// What a container asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRequests {
    /// Name of the container.
    pub name: String,
    /// Thousandths of a core, if it says.
    pub cpu: Option<i64>,
    /// Thousandths of a byte, if it says.
    pub memory: Option<i64>,
}

impl Pod {
    /// Whether it neither has ended nor is being deleted.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.has_ended() && !self.metadata.is_terminating()
    }

    /// Whether its containers have ended for good.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(&*self.phase, "Succeeded" | "Failed")
    }

    /// Whether it has been ready for `min_ready` seconds; if it only has to wait, until when.
    ///
    /// # Errors
    /// The moment at which it will have been ready long enough, `None` if it is not ready.
    pub fn available(&self, min_ready: i32, now: Timestamp) -> Result<(), Option<Timestamp>> {
        if !self.ready {
            return Err(None);
        }
        if min_ready <= 0 {
            return Ok(());
        }
        let due = self
            .ready_since
            .map(|since| clock::after(since, min_ready.into()));
        match due {
            Some(due) if due <= now => Ok(()),
            due => Err(due),
        }
    }
}

/// A volume's own claim is called after the pod and the volume.
fn claims(metadata: &ObjectMeta, spec: &core::PodSpec) -> Vec<String> {
    let name = metadata.name.as_deref().unwrap_or_default();
    let claims = spec.volumes.iter().flatten().filter_map(|volume| {
        let own = volume.ephemeral.as_ref();
        let own = own.map(|_| format!("{name}-{}", volume.name));
        let other = volume.persistent_volume_claim.as_ref();
        own.or_else(|| other.map(|claim| claim.claim_name.clone()))
    });
    claims.collect()
}

impl Cached for Pod {
    type Object = core::Pod;

    fn project(pod: core::Pod) -> Self {
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let (usual, others): (Vec<_>, Vec<_>) = conditions
            .into_iter()
            .partition(|condition| USUAL.contains(&&*condition.type_));
        let mut usual = usual.into_iter();
        let ready = usual.find(|condition| condition.type_ == "Ready");
        let init = status.init_container_statuses.iter().flatten();
        let all = init.chain(status.container_statuses.iter().flatten());
        let ended = all.clone().filter_map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            Some((container.name.clone(), ended))
        });
        let finished = ended
            .clone()
            .filter_map(|(_, ended)| ended.finished_at.as_ref());
        let finished = finished.map(|time| time.0).max();
        let restarts = status.container_statuses.iter().flatten();
        let mut addresses: Vec<_> = status
            .pod_ips
            .into_iter()
            .flatten()
            .map(|address| address.ip)
            .collect();
        if addresses.is_empty() {
            addresses.extend(status.pod_ip);
        }
        let requests = requests(&spec);
        let claims = claims(&pod.metadata, &spec);
        Self {
            requests,
            claims,
            started: status.start_time.map(|time| time.0),
            metadata: cut(pod.metadata),
            pinned: pinned(spec.affinity.as_ref()).unwrap_or_default(),
            node: spec.node_name.unwrap_or_default(),
            hostname: spec.hostname.unwrap_or_default(),
            subdomain: spec.subdomain.unwrap_or_default(),
            ports: spec.containers.into_iter().flat_map(ports).collect(),
            tolerations: spec
                .tolerations
                .into_iter()
                .flatten()
                .filter(is_no_execute)
                .collect(),
            phase: status.phase.unwrap_or_default(),
            ready: ready
                .as_ref()
                .is_some_and(|condition| condition.status == "True"),
            ready_since: ready
                .and_then(|condition| condition.last_transition_time)
                .map(|t| t.0),
            all_restarts: all.map(|status| status.restart_count).sum(),
            exits: ended.map(|(name, ended)| (name, ended.exit_code)).collect(),
            conditions: others
                .into_iter()
                .map(|condition| (condition.type_, condition.status))
                .collect(),
            finished,
            restarts: restarts
                .map(|status| status.restart_count)
                .max()
                .unwrap_or(0),
            addresses,
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn index(&self) -> Vec<Index> {
        let mut index = standard_index(&self.metadata);
        let namespace = self.metadata.namespace();
        let labels = self.metadata.labels().iter();
        index
            .extend(labels.map(|(key, value)| {
                Index::Label(namespace.to_owned(), key.clone(), value.clone())
            }));
        if !self.node.is_empty() {
            index.push(Index::Node(self.node.clone()));
        }
        index
    }
}

/// The name of the only node that every required term names.
fn pinned(affinity: Option<&core::Affinity>) -> Option<String> {
    let required = affinity?.node_affinity.as_ref()?;
    let required = required
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let [term] = required.node_selector_terms.as_slice() else {
        return None;
    };
    let fields = term.match_fields.iter().flatten();
    let by_name = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    let mut names = by_name.filter_map(|field| match field.values.as_deref() {
        Some([name]) => Some(name.clone()),
        _ => None,
    });
    names.next()
}

fn requests(spec: &core::PodSpec) -> Vec<ContainerRequests> {
    let is_sidecar =
        |container: &&core::Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let all = spec.containers.iter().chain(sidecars);
    let read = |container: &core::Container| {
        let requests = container.resources.as_ref()?.requests.as_ref()?;
        let amount = |name: &str| {
            let amount: Quantity = requests.get(name)?.0.parse().ok()?;
            Some(amount.millis())
        };
        Some((amount("cpu"), amount("memory")))
    };
    let one = |container: &core::Container| {
        let (cpu, memory) = read(container).unwrap_or_default();
        ContainerRequests {
            name: container.name.clone(),
            cpu,
            memory,
        }
    };
    all.map(one).collect()
}

fn cut(mut metadata: ObjectMeta) -> ObjectMeta {
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| KEPT.contains(&key.as_str()));
    }
    metadata.annotations = metadata.annotations.filter(|kept| !kept.is_empty());
    metadata
}

fn is_no_execute(toleration: &Toleration) -> bool {
    matches!(toleration.effect.as_deref(), None | Some("" | "NoExecute"))
}

fn ports(container: core::Container) -> impl Iterator<Item = PodPort> {
    container.ports.into_iter().flatten().map(|port| PodPort {
        name: port.name.unwrap_or_default(),
        port: port.container_port,
        protocol: port.protocol.unwrap_or_else(|| "TCP".into()),
    })
}
