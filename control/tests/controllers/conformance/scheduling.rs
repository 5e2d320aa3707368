//! sig-scheduling and sig-node: which node a pod gets, and when it has to leave it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

use super::node_of;
use crate::cluster::{Cluster, create, eventually, merge};

fn pod(name: &str, more: &Value) -> Value {
    let mut spec =
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

fn container(more: &Value) -> Value {
    let mut container = json!({"name": "c", "image": "i"});
    container
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({ "containers": [container] })
}

/// Whether the pod has been told that no node can have it.
fn waits(all: &BTreeMap<String, Pod>, name: &str) -> bool {
    let status = all.get(name).and_then(|pod| pod.status.as_ref());
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|of| of.reason.as_deref() == Some("Unschedulable"))
}

/// Conformance: [sig-scheduling] SchedulerPredicates validates resource limits of pods that are allowed to run [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_gives_no_more_than_it_has() {
    let cluster = Cluster::start().await;
    cluster.idle_node("n1", 10).await;
    let pods = cluster.api::<Pod>();
    let asks = |cpu: &str| container(&json!({"resources": {"requests": {"cpu": cpu}}}));
    create(&pods, pod("most", &asks("3"))).await;
    eventually(&pods, |all| node_of(all, "most").is_some()).await;
    create(&pods, pod("more", &asks("1500m"))).await;
    eventually(&pods, |all| waits(all, "more")).await;
    create(&pods, pod("rest", &asks("1"))).await;
    eventually(&pods, |all| node_of(all, "rest").is_some()).await;
    cluster.stop().await;
}

/// Conformance: [sig-scheduling] SchedulerPredicates validates that NodeSelector is respected if matching [Conformance] [Serial]
/// Conformance: [sig-scheduling] SchedulerPredicates validates that NodeSelector is respected if not matching [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_goes_to_a_node_it_selects_or_to_none() {
    let cluster = Cluster::start().await;
    for name in ["n1", "n2", "n3"] {
        cluster.idle_node(name, 10).await;
    }
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    merge(
        &nodes,
        "n2",
        json!({"metadata": {"labels": {"disk": "fast"}}}),
    )
    .await;
    let pods = cluster.api::<Pod>();
    create(
        &pods,
        pod("fits", &json!({"nodeSelector": {"disk": "fast"}})),
    )
    .await;
    create(
        &pods,
        pod("fits-none", &json!({"nodeSelector": {"disk": "none"}})),
    )
    .await;
    eventually(&pods, |all| {
        node_of(all, "fits") == Some("n2") && waits(all, "fits-none")
    })
    .await;
    cluster.stop().await;
}

/// Conformance: [sig-scheduling] SchedulerPredicates validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_all_addresses_clashes_with_that_of_one() {
    let cluster = Cluster::start().await;
    cluster.idle_node("n1", 10).await;
    let pods = cluster.api::<Pod>();
    let listens = |port: &Value| container(&json!({ "ports": [port] }));
    let everywhere = json!({"containerPort": 80, "hostPort": 54322, "hostIP": "0.0.0.0"});
    create(&pods, pod("everywhere", &listens(&everywhere))).await;
    eventually(&pods, |all| node_of(all, "everywhere").is_some()).await;
    let here = json!({"containerPort": 80, "hostPort": 54322, "hostIP": "10.1.2.3"});
    create(&pods, pod("here", &listens(&here))).await;
    let udp =
        json!({"containerPort": 80, "hostPort": 54322, "hostIP": "10.1.2.3", "protocol": "UDP"});
    create(&pods, pod("udp", &listens(&udp))).await;
    eventually(&pods, |all| {
        waits(all, "here") && node_of(all, "udp").is_some()
    })
    .await;
    cluster.stop().await;
}

/// Conformance: [sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead [Conformance] [NodeConformance]
/// Conformance: [sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead [Conformance] [NodeConformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_a_runtime_class_carries_its_overhead() {
    let cluster = Cluster::start().await;
    cluster.idle_node("n1", 10).await;
    let classes: Api<RuntimeClass> = Api::all(cluster.client.clone());
    create(
        &classes,
        json!({"metadata": {"name": "plain"}, "handler": "h"}),
    )
    .await;
    let overhead = json!({"podFixed": {"cpu": "10m", "memory": "1Mi"}});
    create(
        &classes,
        json!({"metadata": {"name": "heavy"}, "handler": "h", "overhead": overhead}),
    )
    .await;
    let pods = cluster.api::<Pod>();
    for class in ["plain", "heavy"] {
        create(&pods, pod(class, &json!({"runtimeClassName": class}))).await;
    }
    let all = eventually(&pods, |all| {
        ["plain", "heavy"]
            .iter()
            .all(|name| node_of(all, name).is_some())
    })
    .await;
    let overhead = |name: &str| all[name].spec.as_ref().unwrap().overhead.clone();
    assert_eq!(overhead("plain"), None);
    assert_eq!(overhead("heavy").unwrap()["cpu"].0, "10m");
    cluster.stop().await;
}

/// Conformance: [sig-node] NoExecuteTaintManager Single Pod removing taint cancels eviction [Conformance] [Disruptive] [Serial]
/// Conformance: [sig-node] NoExecuteTaintManager Multiple Pods evicts pods with minTolerationSeconds [Conformance] [Disruptive] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_taint_drives_out_those_whose_time_is_up_unless_it_goes() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let pods = cluster.api::<Pod>();
    let tolerates = |seconds: Option<i64>| {
        json!({"tolerations": [{"key": "evict", "operator": "Equal", "value": "me", "effect": "NoExecute",
            "tolerationSeconds": seconds}]})
    };
    for (name, seconds) in [("soon", Some(1)), ("late", Some(3600)), ("never", None)] {
        create(&pods, pod(name, &tolerates(seconds))).await;
    }
    create(&pods, pod("at-once", &json!({}))).await;
    eventually(&pods, |all| {
        all.len() == 4 && all.keys().all(|name| node_of(all, name).is_some())
    })
    .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let taint = json!([{"key": "evict", "value": "me", "effect": "NoExecute"}]);
    merge(&nodes, "n1", json!({"spec": {"taints": taint}})).await;
    eventually(&pods, |all| all.keys().eq(["late", "never"])).await;
    merge(&nodes, "n1", json!({"spec": {"taints": null}})).await;
    // Without the taint there is room again, and nobody has to leave.
    create(&pods, pod("new", &json!({}))).await;
    let all = eventually(&pods, |all| node_of(all, "new").is_some()).await;
    assert!(all.keys().eq(["late", "never", "new"]), "{:?}", all.keys());
    pods.delete("new", &DeleteParams::default()).await.unwrap();
    cluster.stop().await;
}
