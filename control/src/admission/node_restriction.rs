//! `NodeRestriction`: a node agent writes only what is its own.
//!
//! What it may reach at all is decided by the node authorizer (`server/authz/node.rs`); here it is what it writes: no
//! labels that others rely on when they keep pods from untrusted nodes, no taints once it is there, and no pods but
//! the mirrors of its own.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use windlass_api::pod_references::api_object_reference;

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::kinds::pod::{MIRROR, is_mirror};
use crate::registry::kinds::text;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::store::ObjectKey;

pub(super) struct NodeRestriction;

/// Labels of Kubernetes' own that a node sets on itself.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// Prefixes of labels of Kubernetes' own that a node sets on itself.
const OWN_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Domains whose other labels are not the node's.
const RESERVED: [&str; 2] = ["kubernetes.io", "k8s.io"];

impl Admission for NodeRestriction {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        let Some(node) = attributes.call.options.user.node_name() else {
            return Ok(());
        };
        match attributes.kind() {
            "Node" => check_node(attributes, node, object),
            "Pod" => check_pod(attributes, node, object),
            _ => Ok(()),
        }
    }
}

fn check_node(attributes: &Attributes<'_>, node: &str, object: &Value) -> Result<(), ApiError> {
    let refuse = |what: String| {
        let reason = format!("node {node:?} is not allowed to {what}");
        Err(attributes.forbidden(object, reason))
    };
    if object.is_null() {
        return Ok(());
    }
    let name = meta::name(object);
    if name != node {
        return refuse(format!("modify node {name:?}"));
    }
    let Some(old) = attributes.old else {
        let reserved = reserved_labels(object, &Value::Null);
        if reserved.is_empty() {
            return Ok(());
        }
        return refuse(format!("set the following labels: {}", reserved.join(", ")));
    };
    if !taints(old).eq(taints(object)) {
        return refuse("modify taints".into());
    }
    let reserved = reserved_labels(object, old);
    if reserved.is_empty() {
        return Ok(());
    }
    refuse(format!("modify labels: {}", reserved.join(", ")))
}

fn taints(node: &Value) -> impl Iterator<Item = &Value> {
    let taints = node.pointer("/spec/taints").and_then(Value::as_array);
    taints.into_iter().flatten()
}

/// The labels that differ between the two and are not a node's to set, sorted.
fn reserved_labels<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let labels = |of: &'a Value| meta::get(of, "labels").and_then(Value::as_object);
    let (new, old) = (labels(new), labels(old));
    let keys = new.into_iter().chain(old).flat_map(Map::keys);
    let keys: BTreeSet<&str> = keys.map(String::as_str).collect();
    let changed = |key: &&str| new.and_then(|of| of.get(*key)) != old.and_then(|of| of.get(*key));
    keys.into_iter()
        .filter(changed)
        .filter(|key| is_reserved(key))
        .collect()
}

fn is_reserved(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else {
        return false;
    };
    let is_below = |of: &str| {
        let prefix = domain.strip_suffix(of);
        prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
    };
    RESERVED.into_iter().any(is_below)
        && !OWN_LABELS.contains(&label)
        && !OWN_PREFIXES.into_iter().any(is_below)
}

fn check_pod(attributes: &Attributes<'_>, node: &str, object: &Value) -> Result<(), ApiError> {
    // What may be deleted is up to the authorizer.
    if object.is_null() {
        return Ok(());
    }
    let Some(old) = attributes.old else {
        return check_mirror(attributes, node, object);
    };
    let on = text(old, "/spec/nodeName");
    if on != node {
        let reason = format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        );
        return Err(attributes.forbidden(object, reason));
    }
    if meta::get(old, "labels") != meta::get(object, "labels") {
        let reason = format!("node {node:?} cannot update labels through pod status");
        return Err(attributes.forbidden(object, reason));
    }
    Ok(())
}

/// A pod that an agent makes stands for one that it runs already, and reaches nothing by the API.
fn check_mirror(attributes: &Attributes<'_>, node: &str, pod: &Value) -> Result<(), ApiError> {
    let refuse = |reason: String| Err(attributes.forbidden(pod, reason));
    if !is_mirror(pod) {
        return refuse(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if text(pod, "/spec/nodeName") != node {
        return refuse(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    if let Some(reason) = wrong_owner(attributes, node, pod) {
        return refuse(reason);
    }
    if let Some(resource) = api_object_reference(pod) {
        return refuse(format!(
            "node {node:?} can not create pods that reference {resource}"
        ));
    }
    Ok(())
}

/// A mirror goes with its node, and says so.
fn wrong_owner(attributes: &Attributes<'_>, node: &str, pod: &Value) -> Option<String> {
    let owners = meta::get(pod, "ownerReferences").and_then(Value::as_array);
    let owners = owners.map(Vec::as_slice).unwrap_or_default();
    let [owner] = owners else {
        let how = if owners.is_empty() { "an" } else { "a single" };
        let reason = "can only create pods with";
        return Some(format!(
            "node {node:?} {reason} {how} owner reference set to itself"
        ));
    };
    let is = |field: &str, value: &str| owner.get(field).and_then(Value::as_str) == Some(value);
    let says = |field: &str| owner.get(field) == Some(&Value::Bool(true));
    if !is("apiVersion", "v1") || !is("kind", "Node") || !is("name", node) {
        let reason = "can only create pods with an owner reference set to itself";
        return Some(format!("node {node:?} {reason}"));
    }
    if !says("controller") {
        let reason = "can only create pods with a controller owner reference set to itself";
        return Some(format!("node {node:?} {reason}"));
    }
    if says("blockOwnerDeletion") {
        let reason = "must not set blockOwnerDeletion on an owner reference";
        return Some(format!("node {node:?} {reason}"));
    }
    let key = ObjectKey::new("", "nodes", "", node);
    let registered = attributes.snapshot.get(&key).map(|found| parse(found));
    let Some(Ok(registered)) = registered else {
        return Some(format!(
            "error looking up node {node} to verify uid: node {node:?} not found"
        ));
    };
    let expected = text(&registered, "/metadata/uid");
    let got = text(owner, "/uid");
    (expected != got).then(|| format!("node {node} UID mismatch: expected {expected} got {got}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_sets_labels_that_nobody_relies_on() {
        for label in [
            "team",
            "example.com/team",
            "kubernetes.io/hostname",
            "node.kubernetes.io/anything",
            "a.kubelet.kubernetes.io/b",
            "notkubernetes.io/a",
        ] {
            assert!(!is_reserved(label), "{label}");
        }
        for label in [
            "node-role.kubernetes.io/control-plane",
            "node-restriction.kubernetes.io/pci",
            "kubernetes.io/other",
            "x.k8s.io/a",
        ] {
            assert!(is_reserved(label), "{label}");
        }
    }
}
