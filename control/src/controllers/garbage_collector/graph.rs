//! Who owns whom: a graph over the metadata of all objects, keyed by uid.
//!
//! Every change of an object changes its node and the edges to its owners, and answers the uids that
//! have to be looked at because of it. An owner that no watch has shown yet is a *virtual* node: it may
//! not exist at all, or may only be late. Pure, no I/O.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::controllers::runtime::metadata::Metadata;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// Group and kind, as far as owner references say it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct GroupKind {
    pub(super) group: String,
    pub(super) kind: String,
}

impl GroupKind {
    pub(super) fn of(reference: &OwnerReference) -> Self {
        let group = reference
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        Self {
            group: group.to_owned(),
            kind: reference.kind.clone(),
        }
    }
}

/// What and where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) kind: GroupKind,
    /// Empty for objects without one.
    pub(super) namespace: String,
    pub(super) name: String,
}

/// How an object is being deleted, if it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Deletion {
    #[default]
    No,
    /// Dependents follow on their own.
    Background,
    /// It waits until the dependents that block it are gone.
    Foreground,
    /// Its dependents are to be let go first.
    Orphan,
}

impl Deletion {
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        if !metadata.is_terminating() {
            Self::No
        } else if metadata.has_finalizer(ORPHAN) {
            Self::Orphan
        } else if metadata.has_finalizer(FOREGROUND) {
            Self::Foreground
        } else {
            Self::Background
        }
    }
}

/// An object.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) dependents: HashSet<String>,
    pub(super) deletion: Deletion,
    /// Whether no watch has shown it yet.
    pub(super) is_virtual: bool,
}

/// All objects.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// An object is there, in this state. Answers what has to be looked at.
    pub(super) fn put(&mut self, identity: Identity, metadata: &ObjectMeta) -> Vec<String> {
        let uid = metadata.uid();
        let owners = metadata.owners().to_vec();
        let deletion = Deletion::of(metadata);
        let namespace = identity.namespace.clone();
        let node = self.nodes.entry(uid.to_owned()).or_insert_with(|| Node {
            identity: identity.clone(),
            owners: Vec::new(),
            dependents: HashSet::new(),
            deletion: Deletion::No,
            is_virtual: true,
        });
        // What dependents said about a virtual node may have been wrong.
        let mistaken = node.is_virtual && node.identity != identity;
        let was = std::mem::replace(&mut node.deletion, deletion);
        let old = std::mem::replace(&mut node.owners, owners.clone());
        node.identity = identity;
        node.is_virtual = false;
        let mut affected = Vec::new();
        if deletion != was && deletion != Deletion::No {
            affected.push(uid.to_owned());
        }
        if mistaken || (deletion == Deletion::Foreground && was != deletion) {
            affected.extend(node.dependents.iter().cloned());
        }
        if old != owners {
            self.unlink(uid, &old, &mut affected);
            self.link(uid, &namespace, &owners, &mut affected);
        }
        affected
    }

    /// Adds the edges to owners; one that is not known yet, or is going, has to be looked at.
    fn link(
        &mut self,
        uid: &str,
        namespace: &str,
        owners: &[OwnerReference],
        affected: &mut Vec<String>,
    ) {
        for owner in owners {
            let node = self.nodes.entry(owner.uid.clone()).or_insert_with(|| Node {
                identity: Identity {
                    kind: GroupKind::of(owner),
                    namespace: namespace.to_owned(),
                    name: owner.name.clone(),
                },
                owners: Vec::new(),
                dependents: HashSet::new(),
                deletion: Deletion::No,
                is_virtual: true,
            });
            node.dependents.insert(uid.to_owned());
            let differs = node.identity.kind != GroupKind::of(owner)
                || node.identity.name != owner.name
                || !(node.identity.namespace.is_empty() || node.identity.namespace == namespace);
            if node.is_virtual {
                affected.push(owner.uid.clone());
            }
            if differs || node.deletion == Deletion::Foreground {
                affected.push(uid.to_owned());
            }
        }
    }

    /// Removes the edges to owners; one that waits for its dependents may be free now.
    fn unlink(&mut self, uid: &str, owners: &[OwnerReference], affected: &mut Vec<String>) {
        for owner in owners {
            let Some(node) = self.nodes.get_mut(&owner.uid) else {
                continue;
            };
            node.dependents.remove(uid);
            if node.deletion != Deletion::No {
                affected.push(owner.uid.clone());
            }
            if node.is_virtual && node.dependents.is_empty() {
                self.nodes.remove(&owner.uid);
            }
        }
    }

    /// An object is gone, or a virtual one was never there. Answers what has to be looked at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        let mut affected: Vec<String> = node.dependents.into_iter().collect();
        self.unlink(uid, &node.owners, &mut affected);
        affected
    }

    /// The dependents that hold back the foreground deletion of an object.
    pub(super) fn blocking(&self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.get(uid) else {
            return Vec::new();
        };
        let blocks = |dependent: &&String| {
            let dependent = self.nodes.get(*dependent);
            dependent.is_some_and(|dependent| {
                let mut owners = dependent.owners.iter();
                owners.any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
            })
        };
        node.dependents.iter().filter(blocks).cloned().collect()
    }

    /// Whether the object waits until its dependents are gone.
    pub(super) fn is_in_foreground(&self, uid: &str) -> bool {
        let node = self.nodes.get(uid);
        node.is_some_and(|node| node.deletion == Deletion::Foreground)
    }

    /// Whether one of an object's dependents waits for its own dependents, and so perhaps for an owner of
    /// the object: they may own each other in a circle.
    pub(super) fn waits_for_its_owner(&self, uid: &str) -> bool {
        let node = self.nodes.get(uid);
        let mut dependents = node.into_iter().flat_map(|node| &node.dependents);
        dependents.any(|dependent| self.is_in_foreground(dependent))
    }

    /// What the graph knows of an owner that `dependent` names.
    pub(super) fn owner(&self, dependent: &Identity, reference: &OwnerReference) -> Known {
        let Some(node) = self
            .nodes
            .get(&reference.uid)
            .filter(|node| !node.is_virtual)
        else {
            return Known::Unseen;
        };
        let owner = &node.identity;
        let reachable = owner.namespace.is_empty() || owner.namespace == dependent.namespace;
        let named = owner.name == reference.name && owner.kind == GroupKind::of(reference);
        match node.deletion {
            _ if !reachable || !named => Known::Unseen,
            Deletion::Foreground => Known::Waiting,
            _ => Known::There,
        }
    }
}

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It exists.
    There,
    /// It exists and waits until its dependents are gone.
    Waiting,
    /// No watch shows it as the reference says; the API has to be asked.
    Unseen,
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn identity(kind: &str, namespace: &str, name: &str) -> Identity {
        Identity {
            kind: GroupKind {
                group: "apps".into(),
                kind: kind.into(),
            },
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    fn metadata(uid: &str, owner: Option<&str>, more: Value) -> ObjectMeta {
        let owners: Vec<_> = owner.iter().map(|uid| json!({
            "apiVersion": "apps/v1", "kind": "Owner", "name": uid, "uid": uid, "blockOwnerDeletion": true})).collect();
        let mut object =
            json!({"name": uid, "namespace": "a", "uid": uid, "ownerReferences": owners});
        json_patch::merge(&mut object, &more);
        serde_json::from_value(object).unwrap()
    }

    fn going(finalizer: &str) -> Value {
        json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [finalizer]})
    }

    #[test]
    fn changes_tell_what_has_to_be_looked_at() {
        let mut graph = Graph::default();
        let child = || identity("Child", "a", "c");
        let owner = || identity("Owner", "a", "o");
        assert_eq!(
            graph.put(child(), &metadata("c", Some("o"), json!({}))),
            ["o"],
            "the owner is not known"
        );
        assert_eq!(graph.put(owner(), &metadata("o", None, json!({}))), [""; 0]);
        assert_eq!(
            graph.put(
                child(),
                &metadata("c", Some("o"), json!({"labels": {"a": "b"}}))
            ),
            [""; 0]
        );
        let mut affected = graph.put(owner(), &metadata("o", None, going(FOREGROUND)));
        affected.sort();
        assert_eq!(affected, ["c", "o"]);
        assert_eq!(graph.blocking("o"), ["c"]);
        assert_eq!(
            graph.remove("c"),
            ["o"],
            "the last dependent frees its owner"
        );
        assert!(graph.blocking("o").is_empty());
        assert_eq!(graph.remove("o"), [""; 0]);
        assert!(graph.nodes.is_empty());
    }

    #[test]
    fn dependents_follow_their_owner() {
        let mut graph = Graph::default();
        graph.put(identity("Owner", "a", "o"), &metadata("o", None, json!({})));
        graph.put(
            identity("Child", "a", "c"),
            &metadata("c", Some("o"), json!({})),
        );
        assert_eq!(
            graph.put(
                identity("Owner", "a", "o"),
                &metadata("o", None, going(ORPHAN))
            ),
            ["o"]
        );
        assert_eq!(graph.remove("o"), ["c"]);
    }

    #[test]
    fn an_owner_in_another_namespace_is_none() {
        let mut graph = Graph::default();
        let object = metadata("c", Some("o"), json!({}));
        let reference = &object.owners()[0];
        let child = identity("Child", "a", "c");
        assert_eq!(graph.owner(&child, reference), Known::Unseen);
        graph.put(identity("Owner", "b", "o"), &metadata("o", None, json!({})));
        assert_eq!(graph.put(child.clone(), &object), ["c"]);
        assert_eq!(graph.owner(&child, reference), Known::Unseen);
        graph.remove("o");
        graph.put(identity("Owner", "", "o"), &metadata("o", None, json!({})));
        assert_eq!(graph.owner(&child, reference), Known::There);
        graph.put(
            identity("Owner", "", "o"),
            &metadata("o", None, going(FOREGROUND)),
        );
        assert_eq!(graph.owner(&child, reference), Known::Waiting);
    }
}
