//! What the scheduler keeps of a Pod.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use windlass_api::pod_resources;

use super::classes::Class;
use super::pod_affinity::{PodAffinity, Spread};
use super::resources::Resources;
use crate::controllers::runtime::informer::{Cached, Index};
use crate::controllers::runtime::metadata::Metadata;
use crate::node_terms::NodeTerms;

/// The scheduler that pods name if they name none.
pub(super) const DEFAULT: &str = "default-scheduler";

/// A port of the node that a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    /// Address; empty stands for all.
    pub(super) ip: String,
    pub(super) protocol: String,
    pub(super) port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub(super) fn clashes(&self, other: &Self) -> bool {
        let same_ip = self.ip.is_empty() || other.ip.is_empty() || self.ip == other.ip;
        same_ip && self.port == other.port && self.protocol == other.protocol
    }
}

/// A Pod as the scheduler sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct PodInfo {
    /// Name, namespace, uid, version, deletion and owners.
    pub(super) metadata: ObjectMeta,
    /// Node it is bound to, or has to be bound to; empty if none.
    pub(super) node: String,
    pub(super) scheduler: String,
    pub(super) has_ended: bool,
    pub(super) is_gated: bool,
    /// When its node took it, for pods on nodes; when it was made, for the others.
    pub(super) since: Timestamp,
    pub(super) wants: Wants,
    /// What other pods' rules ask of it, its labels included.
    pub(super) class: Arc<Class>,
    /// Message of the condition that says that it could not be scheduled; empty if there is none.
    pub(super) unschedulable: String,
    /// Node on which others make room for it; empty if none.
    pub(super) nominated: String,
    /// Whether it was told already that it has to go.
    pub(super) is_disrupted: bool,
}

/// What decides where a pod may and should go, but for what its [`Class`] says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wants {
    pub(super) requests: Resources,
    pub(super) terms: NodeTerms,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) ports: Vec<HostPort>,
    pub(super) priority: i32,
    /// `preemptionPolicy: Never`.
    pub(super) never_preempts: bool,
    pub(super) spread: Vec<Spread>,
    pub(super) claims: Vec<ClaimUse>,
    /// Names of its claims to devices.
    pub(super) devices: Vec<String>,
    /// Images as nodes name them.
    pub(super) images: Vec<String>,
}

/// A PersistentVolumeClaim that a pod mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimUse {
    pub(super) name: String,
    /// Whether the claim is made for this pod alone.
    pub(super) is_ephemeral: bool,
}

impl PodInfo {
    /// Whether it waits for a node.
    pub(super) fn is_waiting(&self) -> bool {
        let gone = self.has_ended || self.metadata.is_terminating();
        self.node.is_empty() && !self.is_gated && !gone
    }

    pub(super) fn owner(&self) -> Option<&str> {
        self.metadata.controller().map(|owner| &*owner.uid)
    }

    /// Whether any decision about `other` is one about this pod.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        self.class == other.class && self.wants == other.wants && self.owner() == other.owner()
    }

    /// Whether the claim is one of its own.
    pub(super) fn mounts(&self, namespace: &str, claim: &str) -> bool {
        self.metadata.namespace() == namespace
            && self.wants.claims.iter().any(|own| own.name == claim)
    }
}

impl Cached for PodInfo {
    type Object = core::Pod;

    fn project(pod: core::Pod) -> Self {
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let mut requests = Resources::of(&pod_resources::requests(&spec));
        requests.pods = 1;
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace();
        let spread = spec.topology_spread_constraints.iter().flatten();
        let class = Class {
            namespace: namespace.to_owned(),
            affinity: PodAffinity::of(&spec, namespace, &labels),
            is_terminating: pod.metadata.is_terminating(),
            labels,
        };
        let wants = Wants {
            requests,
            terms: NodeTerms::of(&spec),
            ports: host_ports(&spec),
            spread: spread.map(|of| Spread::of(of, &class.labels)).collect(),
            claims: claims(&spec, pod.metadata.name()),
            devices: devices(&spec),
            images: images(&spec),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            tolerations: spec.tolerations.unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
        };
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let condition = |kind: &str, state: &str| {
            let mut found = conditions.iter();
            found.find(|of| of.type_ == kind && of.status == state)
        };
        let failed = condition("PodScheduled", "False").and_then(|of| of.message.clone());
        Self {
            node: spec.node_name.unwrap_or_default(),
            scheduler: spec.scheduler_name.unwrap_or_else(|| DEFAULT.into()),
            has_ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            is_gated: spec.scheduling_gates.is_some_and(|gates| !gates.is_empty()),
            since: status
                .start_time
                .map_or_else(|| pod.metadata.created(), |time| time.0),
            wants,
            class: Arc::new(class),
            unschedulable: failed.unwrap_or_default(),
            nominated: status.nominated_node_name.unwrap_or_default(),
            is_disrupted: condition("DisruptionTarget", "True").is_some(),
            metadata: cut(pod.metadata),
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    /// Nothing looks pods up here but by key.
    fn index(&self) -> Vec<Index> {
        Vec::new()
    }
}

fn claims(spec: &core::PodSpec, pod: &str) -> Vec<ClaimUse> {
    let volumes = spec.volumes.iter().flatten();
    let claims = volumes.filter_map(|volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(ClaimUse {
                name: claim.claim_name.clone(),
                is_ephemeral: false,
            });
        }
        volume.ephemeral.as_ref().map(|_| ClaimUse {
            name: format!("{pod}-{}", volume.name),
            is_ephemeral: true,
        })
    });
    claims.collect()
}

fn devices(spec: &core::PodSpec) -> Vec<String> {
    let claims = spec.resource_claims.iter().flatten();
    claims.map(|claim| claim.name.clone()).collect()
}

/// With the tag that stands for none.
fn images(spec: &core::PodSpec) -> Vec<String> {
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let images = all.filter_map(|container| container.image.as_deref());
    images.map(normalized).collect()
}

fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

fn cut(metadata: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        owner_references: metadata.owner_references,
        deletion_timestamp: metadata.deletion_timestamp,
        ..ObjectMeta::default()
    }
}

fn host_ports(spec: &core::PodSpec) -> Vec<HostPort> {
    let ports = spec
        .containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten());
    let wanted = ports.filter_map(|port| {
        let ip = port.host_ip.clone().filter(|ip| ip != "0.0.0.0");
        let number = port.host_port.filter(|number| *number != 0)?;
        Some(HostPort {
            ip: ip.unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            port: number,
        })
    });
    wanted.collect()
}
