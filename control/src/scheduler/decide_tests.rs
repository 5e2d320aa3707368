//! Decisions over small clusters.

use std::sync::Arc;

use serde_json::{Value, json};

use super::decide::decide;
use super::pod_info::PodInfo;
use super::queue::Wake;
use super::snapshot::{NodeFacts, Snapshot};
use crate::controllers::runtime::informer::Cached;

fn node(name: &str, spec: Value, cpu: &str) -> Arc<NodeFacts> {
    let object = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": &name[..1]}},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "3"}},
    });
    Arc::new(NodeFacts::project(serde_json::from_value(object).unwrap()))
}

fn pod(uid: &str, spec: Value) -> Arc<PodInfo> {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    let object = json!({
        "metadata": {"name": uid, "uid": uid, "ownerReferences":
            [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "o", "controller": true}]},
        "spec": spec,
    });
    Arc::new(PodInfo::project(serde_json::from_value(object).unwrap()))
}

fn asking(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

fn cluster(nodes: &[Arc<NodeFacts>]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes
        .iter()
        .for_each(|node| snapshot.put_node(Arc::clone(node)));
    snapshot
}

#[test]
fn a_pod_that_fits_nowhere_is_told_why_in_kubernetes_words() {
    let taint = json!({"taints": [{"key": "a", "effect": "NoSchedule"}]});
    let snapshot = cluster(&[
        node("a1", json!({}), "1"),
        node("b1", taint, "9"),
        node("c1", json!({"unschedulable": true}), "9"),
        node("d1", json!({}), "1"),
    ]);
    let refused = decide(&pod("p", asking("2")), &snapshot).unwrap_err();
    assert_eq!(
        refused.message,
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu."
    );
    assert_eq!(refused.helped_by, [Wake::Node, Wake::PodGone]);
    let none = decide(&pod("p", json!({})), &Snapshot::default()).unwrap_err();
    assert_eq!(none.message, "no nodes available to schedule pods");
}

#[test]
fn every_filter_lets_through_what_it_should() {
    let taint = json!({"taints": [{"key": "a", "value": "1", "effect": "NoSchedule"}]});
    let mut snapshot = cluster(&[node("a1", taint, "2"), node("b1", json!({}), "2")]);
    let taken = pod(
        "taken",
        json!({"nodeName": "b1", "containers": [{"name": "c",
        "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
    );
    snapshot.place(&taken);
    let tolerant = json!([{"key": "a", "operator": "Exists"}]);
    let affinity = |operator: &str, values: Value| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]}]}}})
    };
    let cases = [
        (json!({}), Ok("b1")),
        (
            json!({"nodeSelector": {"zone": "a"}, "tolerations": tolerant}),
            Ok("a1"),
        ),
        (
            json!({"nodeSelector": {"zone": "a"}}),
            Err(
                "1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s)",
            ),
        ),
        (json!({"affinity": affinity("In", json!(["b"]))}), Ok("b1")),
        (
            json!({"affinity": affinity("NotIn", json!(["b"])), "tolerations": tolerant}),
            Ok("a1"),
        ),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a1"]}]}]}}}, "tolerations": tolerant}),
            Ok("a1"),
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
            Err(
                "1 node(s) didn't have free ports for the requested pod ports, 1 node(s) had untolerated taint(s)",
            ),
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "protocol": "UDP"}]}]}),
            Ok("b1"),
        ),
        (
            json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}),
            Err("1 Insufficient example.com/gpu, 1 node(s) had untolerated taint(s)"),
        ),
    ];
    for (spec, expected) in cases {
        let found = decide(&pod("p", spec.clone()), &snapshot);
        match expected {
            Ok(node) => assert_eq!(found, Ok(node), "{spec}"),
            Err(reasons) => {
                let message = format!("0/2 nodes are available: {reasons}.");
                assert_eq!(found.unwrap_err().message, message, "{spec}");
            }
        }
    }
}

#[test]
fn pods_of_one_owner_spread_and_nodes_fill_up() {
    let mut snapshot = cluster(&[node("a1", json!({}), "4"), node("b1", json!({}), "4")]);
    let mut placed = Vec::new();
    for at in 0..6 {
        let pod = pod(&format!("p{at}"), json!({}));
        let node = decide(&pod, &snapshot).unwrap().to_owned();
        snapshot.assume(&pod, &node);
        placed.push(node);
    }
    assert_eq!(placed, ["a1", "b1", "a1", "b1", "a1", "b1"]);
    let refused = decide(&pod("p7", json!({})), &snapshot).unwrap_err();
    assert_eq!(refused.message, "0/2 nodes are available: 2 Too many pods.");
}

#[test]
fn preferences_outweigh_names() {
    let shy = json!({"taints": [{"key": "a", "effect": "PreferNoSchedule"}]});
    let snapshot = cluster(&[
        node("a1", shy, "4"),
        node("b1", json!({}), "4"),
        node("c1", json!({}), "4"),
    ]);
    assert_eq!(decide(&pod("p", json!({})), &snapshot), Ok("b1"));
    let preferring = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["c"]}]}}]}}});
    assert_eq!(decide(&pod("p", preferring), &snapshot), Ok("c1"));
}
