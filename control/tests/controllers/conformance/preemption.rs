//! sig-scheduling: pods that matter more take the place of others.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

use super::node_of;
use crate::cluster::{Cluster, create, eventually, merge};

/// A pod of that priority that takes so much of a node of four cores.
fn spec(class: &str, cpu: &str, grace: i64) -> Value {
    json!({
        "priorityClassName": class, "terminationGracePeriodSeconds": grace,
        "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}],
    })
}

fn pod(name: &str, class: &str, cpu: &str, grace: i64) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec(class, cpu, grace)})
}

async fn cluster(nodes: &[&str]) -> Cluster {
    let cluster = Cluster::start().await;
    for node in nodes {
        cluster.idle_node(node, 20).await;
    }
    let classes: Api<PriorityClass> = Api::all(cluster.client.clone());
    for (name, value) in [("low", 1), ("medium", 100), ("high", 1000)] {
        create(
            &classes,
            json!({"metadata": {"name": name}, "value": value}),
        )
        .await;
    }
    cluster
}

fn disruption(pod: &Pod) -> Option<(&str, &str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions
        .iter()
        .find(|of| of.type_ == "DisruptionTarget")?;
    Some((found.reason.as_deref()?, found.message.as_deref()?))
}

/// Conformance: [sig-scheduling] SchedulerPreemption validates basic preemption works [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn the_least_important_makes_room() {
    let cluster = cluster(&["n1", "n2"]).await;
    let pods = cluster.api::<Pod>();
    for (name, class) in [("low", "low"), ("medium", "medium")] {
        create(&pods, pod(name, class, "3", 0)).await;
        eventually(&pods, |all| node_of(all, name).is_some()).await;
    }
    create(&pods, pod("high", "high", "3", 0)).await;
    let all = eventually(&pods, |all| node_of(all, "high").is_some()).await;
    assert!(all.keys().eq(["high", "medium"]), "{:?}", all.keys());
    eventually(&cluster.api::<Event>(), |all| {
        all.values().any(|event| {
            let about = event.involved_object.name.as_deref();
            about == Some("low") && event.reason.as_deref() == Some("Preempted")
        })
    })
    .await;
    cluster.stop().await;
}

/// Conformance: [sig-scheduling] SchedulerPreemption validates lower priority pod preemption by critical pod [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_critical_pod_makes_its_room() {
    let cluster = cluster(&["n1"]).await;
    cluster.account("kube-system").await;
    let pods = cluster.api::<Pod>();
    create(&pods, pod("low", "low", "3", 0)).await;
    eventually(&pods, |all| node_of(all, "low").is_some()).await;
    let system: Api<Pod> = Api::namespaced(cluster.client.clone(), "kube-system");
    let critical = pod("critical", "system-cluster-critical", "3", 0);
    create(&system, critical).await;
    eventually(&system, |all| node_of(all, "critical").is_some()).await;
    eventually(&pods, BTreeMap::is_empty).await;
    cluster.stop().await;
}

/// Conformance: [sig-scheduling] SchedulerPreemption validates pod disruption condition is added to the preempted pod [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn who_has_to_go_is_told_why_and_the_room_is_kept() {
    let cluster = cluster(&["n1"]).await;
    let pods = cluster.api::<Pod>();
    create(&pods, pod("low", "low", "3", 30)).await;
    eventually(&pods, |all| node_of(all, "low").is_some()).await;
    create(&pods, pod("high", "high", "3", 0)).await;
    let nominated = |pod: &Pod| pod.status.as_ref()?.nominated_node_name.clone();
    let all = eventually(&pods, |all| {
        nominated(&all["high"]).as_deref() == Some("n1") && disruption(&all["low"]).is_some()
    })
    .await;
    let text = "default-scheduler: preempting to accommodate a higher priority pod";
    assert_eq!(
        disruption(&all["low"]),
        Some(("PreemptionByScheduler", text))
    );
    // What leaves does not leave for just anybody.
    create(&pods, pod("medium", "medium", "2", 0)).await;
    let params = DeleteParams::default().grace_period(0);
    pods.delete("low", &params).await.unwrap();
    let all = eventually(&pods, |all| node_of(all, "high").is_some()).await;
    assert_eq!(node_of(&all, "medium"), None);
    assert_eq!(nominated(&all["high"]), None, "the promise is kept");
    cluster.stop().await;
}

/// Conformance: [sig-scheduling] SchedulerPreemption PreemptionExecutionPath runs ReplicaSets to verify preemption running path [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn replica_sets_give_way_in_the_order_of_their_priority() {
    let cluster = cluster(&["n1"]).await;
    let (pods, sets) = (cluster.api::<Pod>(), cluster.api::<ReplicaSet>());
    let set = |name: &str, class: &str, replicas: i32| {
        let labels = json!({ "app": name });
        json!({"metadata": {"name": name}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec(class, "1", 0)},
        }})
    };
    let placed = |all: &BTreeMap<String, Pod>, app: &str| {
        let of = all.keys().filter(|name| name.starts_with(app));
        of.filter(|name| node_of(all, name).is_some()).count()
    };
    create(&sets, set("one", "low", 1)).await;
    create(&sets, set("two", "medium", 3)).await;
    eventually(&pods, |all| {
        placed(all, "one") == 1 && placed(all, "two") == 3
    })
    .await;
    create(&sets, set("three", "high", 2)).await;
    // The low one goes first, then one of the medium ones; their sets' new pods wait.
    eventually(&pods, |all| {
        placed(all, "three") == 2 && placed(all, "two") == 2 && placed(all, "one") == 0
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_sends_another_pod_away() {
    let cluster = cluster(&["n1", "n2"]).await;
    let pods = cluster.api::<Pod>();
    let budgets = cluster.api::<PodDisruptionBudget>();
    let selector = json!({"matchLabels": {"app": "kept"}});
    create(
        &budgets,
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": selector}}),
    )
    .await;
    eventually(&budgets, |all| {
        let status = all["b"].status.as_ref();
        status.is_some_and(|status| status.observed_generation.is_some())
    })
    .await;
    // The scheduler places pods after the budget came, so it has the budget when it needs it.
    for name in ["kept", "free"] {
        create(&pods, pod(name, "low", "3", 0)).await;
        eventually(&pods, |all| node_of(all, name).is_some()).await;
    }
    create(&pods, pod("high", "high", "3", 0)).await;
    let all = eventually(&pods, |all| node_of(all, "high").is_some()).await;
    assert!(all.keys().eq(["high", "kept"]), "{:?}", all.keys());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_hold_a_pod_back_until_the_last_is_gone() {
    let cluster = cluster(&["n1"]).await;
    let pods = cluster.api::<Pod>();
    let mut gated = pod("gated", "low", "1", 0);
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/a"}]);
    create(&pods, gated).await;
    create(&pods, pod("open", "low", "1", 0)).await;
    let all = eventually(&pods, |all| node_of(all, "open").is_some()).await;
    let conditions = all["gated"].status.as_ref().unwrap().conditions.as_ref();
    assert_eq!(
        conditions.unwrap()[0].reason.as_deref(),
        Some("SchedulingGated")
    );
    merge(&pods, "gated", json!({"spec": {"schedulingGates": null}})).await;
    eventually(&pods, |all| node_of(all, "gated").is_some()).await;
    cluster.stop().await;
}
