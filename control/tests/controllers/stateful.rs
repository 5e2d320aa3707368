//! StatefulSets and DaemonSets.

use std::collections::BTreeMap;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, eventually, merge};

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": image}]}})
}

fn stateful_set(replicas: i32) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "serviceName": "web",
        "selector": {"matchLabels": {"app": "web"}}, "template": template("a"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}}}}]}})
}

fn daemon_set() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": template("a")}})
}

fn image(pod: &Pod) -> &str {
    let container = &pod.spec.as_ref().unwrap().containers[0];
    container.image.as_deref().unwrap()
}

fn images(all: &BTreeMap<String, Pod>) -> Vec<(&str, &str)> {
    all.iter()
        .map(|(name, pod)| (name.as_str(), image(pod)))
        .collect()
}

fn is_up(all: &BTreeMap<String, StatefulSet>, replicas: i32) -> bool {
    let set = &all["web"];
    set.status.as_ref().is_some_and(|status| {
        status.observed_generation == set.metadata.generation
            && (status.replicas, status.available_replicas) == (replicas, Some(replicas))
            && status.current_revision == status.update_revision
    })
}

/// Says of every claim that it has a volume, as a provisioner would.
async fn provision(claims: Api<PersistentVolumeClaim>, volumes: Api<PersistentVolume>) {
    let seen = watcher(claims.clone(), watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let mut seen = std::pin::pin!(seen);
    while let Some(claim) = seen.next().await {
        let Ok(claim) = claim else { continue };
        let name = claim.metadata.name.unwrap();
        let spec = claim.spec.unwrap();
        if spec.volume_name.is_none() {
            let capacity = spec.resources.unwrap().requests.unwrap();
            let volume = json!({"metadata": {"name": name}, "spec": {
                "capacity": capacity, "accessModes": spec.access_modes, "hostPath": {"path": "/tmp"}}});
            create(&volumes, volume).await;
            merge(&claims, &name, json!({"spec": {"volumeName": name}})).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_comes_up_in_order_is_replaced_from_the_end_and_keeps_its_claims() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let volumes = Api::all(cluster.client.clone());
    let provisioner = tokio::spawn(provision(cluster.api(), volumes));
    let (sets, pods) = (cluster.api::<StatefulSet>(), cluster.api::<Pod>());
    create(&sets, stateful_set(3)).await;
    let mut order = Vec::new();
    eventually(&pods, |all| {
        for name in all.keys() {
            if !order.contains(name) {
                order.push(name.clone());
            }
        }
        all.len() == 3
    })
    .await;
    assert_eq!(order, ["web-0", "web-1", "web-2"]);
    eventually(&sets, |all| is_up(all, 3)).await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    let names: Vec<_> = eventually(&claims, |all| all.len() == 3)
        .await
        .into_keys()
        .collect();
    assert_eq!(names, ["data-web-0", "data-web-1", "data-web-2"]);

    // Below the partition everything stays as it was.
    let partition = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}, "template": template("b")}});
    merge(&sets, "web", partition).await;
    let half = [("web-0", "a"), ("web-1", "a"), ("web-2", "b")];
    eventually(&pods, |all| images(all) == half).await;
    pods.delete("web-0", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&pods, |all| images(all) == half).await;
    merge(
        &sets,
        "web",
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}),
    )
    .await;
    eventually(&pods, |all| {
        images(all) == [("web-0", "b"), ("web-1", "b"), ("web-2", "b")]
    })
    .await;
    eventually(&sets, |all| is_up(all, 3)).await;

    merge(&sets, "web", json!({"spec": {"replicas": 1}})).await;
    eventually(&pods, |all| all.keys().eq(["web-0"])).await;
    eventually(&sets, |all| is_up(all, 1)).await;
    assert_eq!(eventually(&claims, |_| true).await.len(), 3);
    // Going back to a template goes back to its revision.
    let revisions = cluster.api::<ControllerRevision>();
    merge(&sets, "web", json!({"spec": {"template": template("a")}})).await;
    eventually(&pods, |all| images(all) == [("web-0", "a")]).await;
    let all = eventually(&revisions, |_| true).await;
    let mut numbers: Vec<_> = all.values().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
    provisioner.abort();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_go_with_whom_the_policy_says_when_it_says_so() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let volumes = Api::all(cluster.client.clone());
    let provisioner = tokio::spawn(provision(cluster.api(), volumes));
    let (sets, claims) = (
        cluster.api::<StatefulSet>(),
        cluster.api::<PersistentVolumeClaim>(),
    );
    create(&sets, stateful_set(3)).await;
    eventually(&sets, |all| is_up(all, 3)).await;
    let both = json!({"spec": {"persistentVolumeClaimRetentionPolicy":
        {"whenScaled": "Delete", "whenDeleted": "Delete"}}});
    merge(&sets, "web", both).await;
    let owned_by = |all: &BTreeMap<String, PersistentVolumeClaim>, kinds: &[&str]| {
        let mut owners = all
            .values()
            .map(|claim| claim.metadata.owner_references.as_deref().unwrap_or(&[]));
        owners.all(|of| {
            of.iter()
                .map(|of| of.kind.as_str())
                .eq(kinds.iter().copied())
        })
    };
    eventually(&claims, |all| owned_by(all, &["StatefulSet"])).await;
    merge(&sets, "web", json!({"spec": {"replicas": 2}})).await;
    eventually(&claims, |all| all.keys().eq(["data-web-0", "data-web-1"])).await;
    let kept = json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}});
    merge(&sets, "web", kept).await;
    eventually(&claims, |all| owned_by(all, &[])).await;
    merge(&sets, "web", json!({"spec": {"replicas": 1}})).await;
    eventually(&claims, |all| all.keys().eq(["data-web-0"])).await;
    sets.delete("web", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually(&sets, BTreeMap::is_empty).await;
    assert_eq!(eventually(&claims, |_| true).await.len(), 1);
    provisioner.abort();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_waits_for_a_pod_that_is_not_ready_unless_it_is_parallel() {
    let cluster = Cluster::start().await;
    // The node is there, and nobody runs anything on it.
    cluster.idle_node("n1", 10).await;
    let (sets, pods) = (cluster.api::<StatefulSet>(), cluster.api::<Pod>());
    create(&sets, stateful_set(3)).await;
    eventually(&sets, |all| {
        all["web"]
            .status
            .as_ref()
            .is_some_and(|status| status.replicas == 1)
    })
    .await;
    let mut parallel = stateful_set(3);
    parallel["metadata"]["name"] = json!("all");
    parallel["spec"]["podManagementPolicy"] = json!("Parallel");
    create(&sets, parallel).await;
    let all = eventually(&pods, |all| all.len() == 4).await;
    assert_eq!(
        all.into_keys().collect::<Vec<_>>(),
        ["all-0", "all-1", "all-2", "web-0"]
    );
    cluster.stop().await;
}

/// Conformance: [sig-apps] Daemon set should run and stop simple daemon [Conformance] [Serial]
/// Conformance: [sig-apps] Daemon set should update pod when spec was updated and update strategy is RollingUpdate [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_has_a_pod_on_every_node_that_it_fits() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (sets, pods) = (cluster.api::<DaemonSet>(), cluster.api::<Pod>());
    create(&sets, daemon_set()).await;
    let nodes = |all: &BTreeMap<String, Pod>| -> Vec<String> {
        let mut nodes: Vec<_> = all
            .values()
            .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
            .collect();
        nodes.sort();
        nodes
    };
    eventually(&pods, |all| nodes(all) == ["n1"]).await;
    cluster.node("n2").await;
    eventually(&pods, |all| nodes(all) == ["n1", "n2"]).await;
    let all: Api<Node> = Api::all(cluster.client.clone());
    let tainted = json!({
        "metadata": {"name": "n3"},
        "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    create(&all, tainted).await;
    let ready = |all: &BTreeMap<String, DaemonSet>, updated: i32| {
        all["web"].status.as_ref().is_some_and(|status| {
            status.observed_generation == all["web"].metadata.generation
                && (status.desired_number_scheduled, status.number_ready) == (2, 2)
                && status.updated_number_scheduled == Some(updated)
        })
    };
    eventually(&sets, |all| ready(all, 2)).await;
    // A new template replaces one pod after the other.
    merge(&sets, "web", json!({"spec": {"template": template("b")}})).await;
    eventually(&pods, |all| {
        let new = images(all)
            .iter()
            .filter(|(_, image)| *image == "b")
            .count();
        new == 2 && all.len() == 2
    })
    .await;
    eventually(&sets, |all| ready(all, 2)).await;
    let revisions = eventually(&cluster.api::<ControllerRevision>(), |_| true).await;
    assert_eq!(revisions.len(), 2);
    // Without the taint the node gets its pod, though nobody runs it.
    merge(&all, "n3", json!({"spec": {"taints": null}})).await;
    eventually(&sets, |all| {
        all["web"].status.as_ref().unwrap().desired_number_scheduled == 3
    })
    .await;
    // A node that no longer fits loses its pod.
    merge(
        &sets,
        "web",
        json!({"spec": {"template": {"spec": {"nodeSelector": {"no": "node"}}}}}),
    )
    .await;
    eventually(&pods, |all| all.is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] Daemon set should retry creating failed daemon pods [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_pod_that_failed_is_replaced() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (sets, pods) = (cluster.api::<DaemonSet>(), cluster.api::<Pod>());
    create(&sets, daemon_set()).await;
    let running = |all: &BTreeMap<String, Pod>| {
        all.len() == 1
            && all
                .values()
                .all(|pod| pod.status.as_ref().unwrap().pod_ip.is_some())
    };
    let first = eventually(&pods, running).await.into_keys().next().unwrap();
    let failed = kube::api::Patch::Merge(json!({"status": {"phase": "Failed"}}));
    pods.patch_status(&first, &Default::default(), &failed)
        .await
        .unwrap();
    eventually(&pods, |all| running(all) && !all.contains_key(&first)).await;
    cluster.stop().await;
}
