//! What the scheduler keeps of a Pod.

use k8s_openapi::api::core::v1::{self as core, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use windlass_api::pod_resources;

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
    /// Name, namespace, uid, version, labels and owners.
    pub(super) metadata: ObjectMeta,
    /// Node it is bound to, or has to be bound to; empty if none.
    pub(super) node: String,
    pub(super) scheduler: String,
    pub(super) has_ended: bool,
    pub(super) is_gated: bool,
    pub(super) wants: Wants,
    /// Message of the condition that says that it could not be scheduled; empty if there is none.
    pub(super) unschedulable: String,
}

/// What decides where a pod may and should go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wants {
    pub(super) requests: Resources,
    pub(super) terms: NodeTerms,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) ports: Vec<HostPort>,
    pub(super) priority: i32,
}

impl PodInfo {
    /// Whether it waits for this scheduler.
    pub(super) fn is_waiting(&self) -> bool {
        let gone = self.has_ended || self.metadata.is_terminating();
        self.node.is_empty() && self.scheduler == DEFAULT && !self.is_gated && !gone
    }

    pub(super) fn owner(&self) -> Option<&str> {
        self.metadata.controller().map(|owner| &*owner.uid)
    }
}

impl Cached for PodInfo {
    type Object = core::Pod;

    fn project(pod: core::Pod) -> Self {
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let mut requests = Resources::of(&pod_resources::requests(&spec));
        requests.pods = 1;
        let mut conditions = status.conditions.into_iter().flatten();
        let failed = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False");
        let wants = Wants {
            requests,
            terms: NodeTerms::of(&spec),
            ports: host_ports(&spec),
            tolerations: spec.tolerations.unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
        };
        Self {
            metadata: cut(pod.metadata),
            node: spec.node_name.unwrap_or_default(),
            scheduler: spec.scheduler_name.unwrap_or_else(|| DEFAULT.into()),
            has_ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            is_gated: spec.scheduling_gates.is_some_and(|gates| !gates.is_empty()),
            wants,
            unschedulable: failed
                .and_then(|condition| condition.message)
                .unwrap_or_default(),
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
