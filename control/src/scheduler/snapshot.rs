//! The cluster as decisions see it: nodes, and what the pods on them take.
//!
//! Changed in place by every event and by every decision: a pod that was given a node counts there from
//! that moment (assumed), until the watch shows it bound or its binding failed. So the next decision
//! never waits for the last one's write.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as core, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use windlass_api::pod_resources::amounts;

use super::pod_info::{HostPort, PodInfo};
use super::resources::Resources;
use crate::controllers::runtime::informer::{Cached, Index};
use crate::controllers::runtime::metadata::Metadata;

/// What the scheduler keeps of a Node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeFacts {
    /// Name, labels and version.
    pub(super) metadata: ObjectMeta,
    pub(super) taints: Vec<Taint>,
    pub(super) unschedulable: bool,
    pub(super) allocatable: Resources,
}

impl NodeFacts {
    /// Whether the difference from `old` can matter to a pod.
    pub(super) fn differs(&self, old: &Self) -> bool {
        self.metadata.labels() != old.metadata.labels()
            || self.taints != old.taints
            || self.unschedulable != old.unschedulable
            || self.allocatable != old.allocatable
    }
}

impl Cached for NodeFacts {
    type Object = core::Node;

    fn project(node: core::Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let allocatable = status.allocatable.or(status.capacity);
        Self {
            metadata: ObjectMeta {
                name: node.metadata.name,
                labels: node.metadata.labels,
                uid: node.metadata.uid,
                resource_version: node.metadata.resource_version,
                ..ObjectMeta::default()
            },
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            allocatable: Resources::of(&amounts(allocatable.as_ref())),
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn index(&self) -> Vec<Index> {
        Vec::new()
    }
}

/// A node and what is taken of it.
#[derive(Debug, Default)]
pub(super) struct NodeInfo {
    /// `None` while only pods are known of it.
    facts: Option<Arc<NodeFacts>>,
    pub(super) requested: Resources,
    /// Cpu and memory with something assumed for pods that ask for nothing.
    pub(super) assumed: (i64, i64),
    pub(super) ports: Vec<HostPort>,
    /// Pods by the uid of what manages them.
    owners: HashMap<String, u32>,
}

impl NodeInfo {
    /// How many pods of that owner there are.
    pub(super) fn pods_of(&self, owner: &str) -> u32 {
        self.owners.get(owner).copied().unwrap_or(0)
    }

    fn add(&mut self, pod: &PodInfo) {
        self.requested.add(&pod.wants.requests);
        let (cpu, memory) = pod.wants.requests.or_assumed();
        self.assumed = (self.assumed.0 + cpu, self.assumed.1 + memory);
        self.ports.extend(pod.wants.ports.iter().cloned());
        if let Some(owner) = pod.owner() {
            *self.owners.entry(owner.to_owned()).or_default() += 1;
        }
    }

    fn remove(&mut self, pod: &PodInfo) {
        self.requested.subtract(&pod.wants.requests);
        let (cpu, memory) = pod.wants.requests.or_assumed();
        self.assumed = (self.assumed.0 - cpu, self.assumed.1 - memory);
        for port in &pod.wants.ports {
            if let Some(at) = self.ports.iter().position(|known| known == port) {
                self.ports.swap_remove(at);
            }
        }
        let Some(owner) = pod.owner() else { return };
        if let Some(count) = self.owners.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(owner);
            }
        }
    }
}

struct Placed {
    pod: Arc<PodInfo>,
    node: String,
    /// Whether only this scheduler knows it yet.
    assumed: bool,
}

/// Nodes and placed pods.
#[derive(Default)]
pub(super) struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    pods: HashMap<String, Placed>,
    count: usize,
}

impl Snapshot {
    /// The nodes there are, with their names in order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&NodeFacts, &NodeInfo)> {
        self.nodes
            .values()
            .filter_map(|node| Some((node.facts.as_deref()?, node)))
    }

    pub(super) fn node_count(&self) -> usize {
        self.count
    }

    pub(super) fn put_node(&mut self, facts: Arc<NodeFacts>) {
        let node = self
            .nodes
            .entry(facts.metadata.name().to_owned())
            .or_default();
        if node.facts.replace(facts).is_none() {
            self.count += 1;
        }
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.facts.take().is_some() {
            self.count -= 1;
        }
        if node.requested.pods == 0 {
            self.nodes.remove(name);
        }
    }

    /// A pod is bound to the node it names.
    pub(super) fn place(&mut self, pod: &Arc<PodInfo>) {
        self.put_pod(pod, pod.node.clone(), false);
    }

    /// A pod is about to be bound to `node`.
    pub(super) fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.put_pod(pod, node.to_owned(), true);
    }

    fn put_pod(&mut self, pod: &Arc<PodInfo>, node: String, assumed: bool) {
        let uid = pod.metadata.uid();
        self.remove_pod(uid);
        self.nodes.entry(node.clone()).or_default().add(pod);
        let placed = Placed {
            pod: Arc::clone(pod),
            node,
            assumed,
        };
        self.pods.insert(uid.to_owned(), placed);
    }

    /// A pod takes nothing any more; whether it took something.
    pub(super) fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(placed) = self.pods.remove(uid) else {
            return false;
        };
        if let Some(node) = self.nodes.get_mut(&placed.node) {
            node.remove(&placed.pod);
            if node.facts.is_none() && node.requested.pods == 0 {
                self.nodes.remove(&placed.node);
            }
        }
        true
    }

    /// Takes back an assumption; one that the watch has confirmed stays.
    pub(super) fn forget_assumed(&mut self, uid: &str) {
        if self.is_assumed(uid) {
            self.remove_pod(uid);
        }
    }

    pub(super) fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|placed| placed.assumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, node: &str) -> Arc<PodInfo> {
        let object = json!({
            "metadata": {"name": uid, "uid": uid, "ownerReferences":
                [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "o", "controller": true}]},
            "spec": {"nodeName": node, "containers": [{"name": "c",
                "ports": [{"containerPort": 80, "hostPort": 80}],
                "resources": {"requests": {"cpu": "500m", "memory": "1Gi", "example.com/gpu": "1"}}}]},
        });
        Arc::new(PodInfo::project(serde_json::from_value(object).unwrap()))
    }

    #[test]
    fn what_is_added_and_removed_leaves_nothing_behind() {
        let mut snapshot = Snapshot::default();
        snapshot.assume(&pod("a", ""), "n");
        snapshot.place(&pod("b", "n"));
        let node = &snapshot.nodes["n"];
        assert_eq!(
            (node.requested.cpu, node.requested.pods, node.pods_of("o")),
            (1000, 2, 2)
        );
        // Seen bound: still counted once.
        snapshot.place(&pod("a", "n"));
        assert!(!snapshot.is_assumed("a"));
        snapshot.forget_assumed("a");
        assert_eq!(snapshot.nodes["n"].requested.pods, 2);
        assert!(snapshot.remove_pod("a") && snapshot.remove_pod("b") && !snapshot.remove_pod("b"));
        assert!(snapshot.nodes.is_empty());
    }

    #[test]
    fn pods_seen_before_their_node_count_once_it_comes() {
        let mut snapshot = Snapshot::default();
        snapshot.place(&pod("a", "n"));
        assert_eq!(snapshot.nodes().count(), 0);
        let facts = NodeFacts {
            metadata: serde_json::from_value(json!({"name": "n"})).unwrap(),
            ..NodeFacts::default()
        };
        snapshot.put_node(Arc::new(facts));
        let requested: Vec<_> = snapshot
            .nodes()
            .map(|(_, node)| node.requested.pods)
            .collect();
        assert_eq!((requested, snapshot.node_count()), (vec![1], 1));
    }
}
