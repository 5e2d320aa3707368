//! The cluster as decisions see it: nodes, what the pods on them take, and what pods are promised.
//!
//! Changed in place by every event and by every decision: a pod that was given a node counts there from
//! that moment (assumed), until the watch shows it bound or its binding failed. So the next decision
//! never waits for the last one's write.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as core, Taint};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use windlass_api::pod_resources::amounts;

use super::classes::{ByNode, Classes};
use super::counts::Counts;
use super::pod_info::{HostPort, PodInfo};
use super::resources::Resources;
use super::storage::Storage;
use crate::controllers::runtime::informer::{Cached, Index};
use crate::controllers::runtime::key::Key;
use crate::controllers::runtime::metadata::Metadata;

/// Labels of namespaces by name.
pub(super) type Namespaces = HashMap<String, BTreeMap<String, String>>;

/// What the scheduler keeps of a Node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeFacts {
    /// Name, labels and version.
    pub(super) metadata: ObjectMeta,
    pub(super) taints: Vec<Taint>,
    pub(super) unschedulable: bool,
    pub(super) allocatable: Resources,
    /// Images it has, with their sizes in bytes.
    pub(super) images: BTreeMap<String, i64>,
}

impl NodeFacts {
    /// Whether the difference from `old` can matter to whether a pod fits.
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
        let mut images = BTreeMap::new();
        for image in status.images.into_iter().flatten() {
            for name in image.names.into_iter().flatten() {
                images.insert(name, image.size_bytes.unwrap_or(0));
            }
        }
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
            images,
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn index(&self) -> Vec<Index> {
        Vec::new()
    }
}

/// What the pods on a node take of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    pub(super) requested: Resources,
    /// Cpu and memory with something assumed for pods that ask for nothing.
    pub(super) assumed: (i64, i64),
    pub(super) ports: Vec<HostPort>,
    /// Pods by uid.
    pub(super) pods: HashMap<String, Arc<PodInfo>>,
    /// Number of pods by the uid of what manages them.
    owners: Counts<String>,
}

impl Load {
    /// How many pods of that owner there are.
    pub(super) fn pods_of(&self, owner: &str) -> usize {
        self.owners.get(owner)
    }

    pub(super) fn add(&mut self, pod: &Arc<PodInfo>) {
        let uid = pod.metadata.uid().to_owned();
        if self.pods.insert(uid, Arc::clone(pod)).is_some() {
            return;
        }
        self.requested.add(&pod.wants.requests);
        let (cpu, memory) = pod.wants.requests.or_assumed();
        self.assumed = (self.assumed.0 + cpu, self.assumed.1 + memory);
        self.ports.extend(pod.wants.ports.iter().cloned());
        if let Some(owner) = pod.owner() {
            self.owners.add(owner);
        }
    }

    pub(super) fn remove(&mut self, pod: &PodInfo) {
        if self.pods.remove(pod.metadata.uid()).is_none() {
            return;
        }
        self.requested.subtract(&pod.wants.requests);
        let (cpu, memory) = pod.wants.requests.or_assumed();
        self.assumed = (self.assumed.0 - cpu, self.assumed.1 - memory);
        for port in &pod.wants.ports {
            if let Some(at) = self.ports.iter().position(|known| known == port) {
                self.ports.swap_remove(at);
            }
        }
        if let Some(owner) = pod.owner() {
            self.owners.remove(owner);
        }
    }
}

/// A node as a decision sees it; the load may be an imagined one.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) facts: &'a NodeFacts,
    pub(super) load: &'a Load,
}

impl<'a> Node<'a> {
    pub(super) fn labels(&self) -> &'a BTreeMap<String, String> {
        self.facts.metadata.labels()
    }

    pub(super) fn label(&self, key: &str) -> Option<&'a str> {
        self.labels().get(key).map(String::as_str)
    }

    /// The same node with another load.
    pub(super) fn loaded<'b>(&self, load: &'b Load) -> Node<'b>
    where
        'a: 'b,
    {
        Node { load, ..*self }
    }
}

#[derive(Debug, Default)]
struct Entry {
    /// `None` while only pods are known of it.
    facts: Option<Arc<NodeFacts>>,
    load: Load,
}

#[derive(Debug)]
struct Placed {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    /// Whether only this scheduler knows it yet.
    assumed: bool,
}

/// Nodes, placed pods, and what else decisions ask about.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    nodes: BTreeMap<Arc<str>, Entry>,
    pods: HashMap<String, Placed>,
    count: usize,
    /// Number of placed pods by priority.
    priorities: Counts<i32>,
    /// Pods that others make room for, by node and uid.
    nominated: HashMap<String, BTreeMap<String, Arc<PodInfo>>>,
    nominations: HashMap<String, String>,
    /// How many nodes have an image.
    image_nodes: Counts<String>,
    version: u64,
    pub(super) classes: Classes,
    pub(super) namespaces: Namespaces,
    pub(super) storage: Storage,
    pub(super) budgets: HashMap<Key, Arc<PodDisruptionBudget>>,
}

impl Snapshot {
    /// The nodes that are known, by name.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.nodes.iter().filter_map(view)
    }

    /// The nodes that are known, by name, beginning after `last` and going round.
    pub(super) fn nodes_after(&self, last: &str) -> impl Iterator<Item = Node<'_>> {
        let after = (Bound::Excluded(last), Bound::Unbounded);
        let before = (Bound::Unbounded, Bound::Included(last));
        let after = self.nodes.range::<str, _>(after);
        after
            .chain(self.nodes.range::<str, _>(before))
            .filter_map(view)
    }

    pub(super) fn node(&self, name: &str) -> Option<Node<'_>> {
        self.nodes.get_key_value(name).and_then(view)
    }

    /// Those nodes of a class that are known, with the number of its pods there.
    pub(super) fn known<'a>(&'a self, nodes: &'a ByNode) -> impl Iterator<Item = (Node<'a>, i64)> {
        let nodes = nodes.iter();
        nodes.filter_map(|(name, count)| Some((self.node(name)?, *count)))
    }

    pub(super) fn node_count(&self) -> usize {
        self.count
    }

    /// Changes with everything that a decision could see.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Something that decisions see has changed.
    pub(super) fn touch(&mut self) {
        self.version += 1;
    }

    /// How many nodes have the image.
    pub(super) fn nodes_with(&self, image: &str) -> usize {
        self.image_nodes.get(image)
    }

    /// Whether any placed pod has a lower priority.
    pub(super) fn has_pods_below(&self, priority: i32) -> bool {
        let lowest = self.priorities.least();
        lowest.is_some_and(|lowest| *lowest < priority)
    }

    pub(super) fn put_node(&mut self, facts: Arc<NodeFacts>) {
        self.touch();
        for image in facts.images.keys() {
            self.image_nodes.add(image.as_str());
        }
        let name: Arc<str> = facts.metadata.name().into();
        let old = self.nodes.entry(name).or_default().facts.replace(facts);
        match old {
            Some(old) => self.forget_images(&old),
            None => self.count += 1,
        }
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        self.touch();
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let is_empty = node.load.pods.is_empty();
        if let Some(old) = node.facts.take() {
            self.count -= 1;
            self.forget_images(&old);
        }
        if is_empty {
            self.nodes.remove(name);
        }
    }

    fn forget_images(&mut self, of: &NodeFacts) {
        for image in of.images.keys() {
            self.image_nodes.remove(image.as_str());
        }
    }

    /// A pod is bound to the node it names.
    pub(super) fn place(&mut self, pod: &Arc<PodInfo>) {
        self.put_pod(pod, &pod.node, false);
    }

    /// A pod is about to be bound to `node`.
    pub(super) fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.put_pod(pod, node, true);
    }

    fn put_pod(&mut self, pod: &Arc<PodInfo>, node: &str, assumed: bool) {
        let uid = pod.metadata.uid();
        self.remove_pod(uid);
        self.touch();
        let name = match self.nodes.get_key_value(node) {
            Some((name, _)) => Arc::clone(name),
            None => node.into(),
        };
        self.nodes
            .entry(Arc::clone(&name))
            .or_default()
            .load
            .add(pod);
        self.classes.add(&pod.class, &name);
        self.storage.add_user(pod);
        self.priorities.add(&pod.wants.priority);
        let placed = Placed {
            pod: Arc::clone(pod),
            node: name,
            assumed,
        };
        self.pods.insert(uid.to_owned(), placed);
    }

    /// A pod takes nothing any more, and is promised nothing; what it was, if it took something.
    pub(super) fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.forget_nomination(uid);
        let placed = self.pods.remove(uid)?;
        self.touch();
        self.classes.remove(&placed.pod.class, &placed.node);
        self.storage.remove_user(&placed.pod);
        self.priorities.remove(&placed.pod.wants.priority);
        if let Some(node) = self.nodes.get_mut(&placed.node) {
            node.load.remove(&placed.pod);
            if node.facts.is_none() && node.load.pods.is_empty() {
                self.nodes.remove(&placed.node);
            }
        }
        Some(placed.pod)
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

    /// Room is made for the pod on the node: others of lower priority may not take it.
    pub(super) fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        let uid = pod.metadata.uid();
        self.forget_nomination(uid);
        self.touch();
        self.nominations.insert(uid.to_owned(), node.to_owned());
        let pods = self.nominated.entry(node.to_owned()).or_default();
        pods.insert(uid.to_owned(), Arc::clone(pod));
    }

    pub(super) fn forget_nomination(&mut self, uid: &str) {
        let Some(node) = self.nominations.remove(uid) else {
            return;
        };
        self.touch();
        if let Some(pods) = self.nominated.get_mut(&node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.nominated.remove(&node);
            }
        }
    }

    /// The node on which room is made for the pod.
    pub(super) fn nomination_of(&self, uid: &str) -> Option<&str> {
        self.nominations.get(uid).map(String::as_str)
    }

    /// The pods that room is made for on the node.
    pub(super) fn nominated_on(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.nominated
            .get(node)
            .into_iter()
            .flatten()
            .map(|(_, pod)| pod)
    }
}

fn view<'a>((name, entry): (&'a Arc<str>, &'a Entry)) -> Option<Node<'a>> {
    Some(Node {
        name,
        facts: entry.facts.as_deref()?,
        load: &entry.load,
    })
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
            (
                node.load.requested.cpu,
                node.load.requested.pods,
                node.load.pods_of("o")
            ),
            (1000, 2, 2)
        );
        // Seen bound: still counted once.
        snapshot.place(&pod("a", "n"));
        assert!(!snapshot.is_assumed("a"));
        snapshot.forget_assumed("a");
        assert_eq!(snapshot.nodes["n"].load.requested.pods, 2);
        for (uid, was_there) in [("a", true), ("b", true), ("b", false)] {
            assert_eq!(snapshot.remove_pod(uid).is_some(), was_there);
        }
        assert!(snapshot.nodes.is_empty() && snapshot.priorities.least().is_none());
        assert_eq!(snapshot.classes.namespaces().count(), 0);
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
            .map(|node| node.load.requested.pods)
            .collect();
        assert_eq!((requested, snapshot.node_count()), (vec![1], 1));
    }
}
