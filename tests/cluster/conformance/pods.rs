//! sig-node: pods from their creation to their end.

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use windlass_tests::{Cluster, PATIENCE, eventually};

use super::{begin, condition, container, create, pod, pods, until_gone, until_phase};

async fn merge(cluster: &Cluster, name: &str, patch: Value) -> Pod {
    let (api, params) = (pods(cluster), PatchParams::default());
    let patched = api.patch(name, &params, &Patch::Merge(&patch)).await;
    patched.unwrap()
}

/// Conformance: [sig-node] Pods should be submitted and removed [Conformance] [NodeConformance]
/// Conformance: [sig-node] Pods should run through the lifecycle of Pods and PodStatus [Conformance]
/// Conformance: [sig-node] Pods should get a host IP [Conformance] [NodeConformance]
/// Conformance: [sig-node] Pods should be updated [Conformance] [NodeConformance]
/// Conformance: [sig-node] Pods should patch a pod status [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_a_pod_from_its_creation_to_its_end() {
    let (cluster, images) = begin().await;
    let api = pods(&cluster);
    let params = WatchParams::default().labels("app=p");
    let listed = api
        .list(&ListParams::default().labels("app=p"))
        .await
        .unwrap();
    assert!(listed.items.is_empty());
    let version = listed.metadata.resource_version.unwrap();
    let mut watch = api.watch(&params, &version).await.unwrap().boxed();
    create(&api, pod("p", &images.serves, &json!({}))).await;
    let running = until_phase(&cluster, "p", "Running").await;
    assert_eq!(
        running.status.as_ref().unwrap().host_ip.as_deref(),
        Some("127.0.0.1")
    );
    let labelled = merge(
        &cluster,
        "p",
        json!({"metadata": {"labels": {"time": "later"}}}),
    )
    .await;
    assert_eq!(labelled.metadata.labels.unwrap()["time"], "later");
    let condition_of = json!({"status": {"conditions": [
        {"type": "Example", "status": "True", "reason": "Test"}]}});
    let patch = Patch::Strategic(&condition_of);
    let patched = api
        .patch_status("p", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(condition(&patched, "Example"), Some("True"));
    // The agent goes on with its own conditions and leaves this one alone.
    let ready = |pod: Option<&Pod>| pod.is_some_and(|pod| condition(pod, "Ready") == Some("True"));
    let seen = eventually(api.clone(), "p", "readiness", ready)
        .await
        .unwrap();
    assert_eq!(condition(&seen, "Example"), Some("True"));
    api.delete("p", &DeleteParams::default()).await.unwrap();
    let mut kinds: Vec<&str> = Vec::new();
    let mut was_terminating = false;
    let told = async {
        while let Some(event) = watch.next().await {
            let (kind, pod) = match event.unwrap() {
                WatchEvent::Added(pod) => ("ADDED", pod),
                WatchEvent::Modified(pod) => ("MODIFIED", pod),
                WatchEvent::Deleted(pod) => ("DELETED", pod),
                _ => continue,
            };
            was_terminating |= kind == "MODIFIED" && pod.metadata.deletion_timestamp.is_some();
            kinds.push(kind);
            if kind == "DELETED" {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!((kinds[0], kinds[1]), ("ADDED", "MODIFIED"));
    assert!(was_terminating, "{kinds:?}");
    cluster.shutdown().await;
}

/// Conformance: [sig-node] Pods should delete a collection of pods [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn running_pods_are_deleted_by_their_label() {
    let (cluster, images) = begin().await;
    let names = ["one", "two", "three"];
    for name in names {
        let mut pod = pod(name, &images.serves, &json!({}));
        pod["metadata"]["labels"]["type"] = "testing".into();
        create(&pods(&cluster), pod).await;
    }
    create(&pods(&cluster), pod("other", &images.serves, &json!({}))).await;
    for name in names {
        until_phase(&cluster, name, "Running").await;
    }
    let chosen = ListParams::default().labels("type=testing");
    let params = DeleteParams::default();
    pods(&cluster)
        .delete_collection(&params, &chosen)
        .await
        .unwrap();
    for name in names {
        until_gone(&cluster, name).await;
    }
    until_phase(&cluster, "other", "Running").await;
    cluster.shutdown().await;
}

/// Conformance: [sig-node] Pods should allow activeDeadlineSeconds to be updated [Conformance] [NodeConformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_is_set_later_ends_a_pod() {
    let (cluster, images) = begin().await;
    create(&pods(&cluster), pod("p", &images.serves, &json!({}))).await;
    until_phase(&cluster, "p", "Running").await;
    merge(&cluster, "p", json!({"spec": {"activeDeadlineSeconds": 1}})).await;
    let failed = until_phase(&cluster, "p", "Failed").await;
    let reason = failed.status.unwrap().reason;
    assert_eq!(reason.as_deref(), Some("DeadlineExceeded"));
    cluster.shutdown().await;
}

/// Conformance: [sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete [Conformance] [NodeConformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_always_fails_can_be_deleted() {
    let (cluster, images) = begin().await;
    create(&pods(&cluster), pod("p", &images.fails, &json!({}))).await;
    let restarted = |pod: Option<&Pod>| {
        let status = pod.and_then(|pod| pod.status.as_ref());
        let main = status.and_then(|of| container(of.container_statuses.as_ref()));
        main.is_some_and(|main| main.restart_count > 0)
    };
    eventually(pods(&cluster), "p", "a restart", restarted).await;
    pods(&cluster)
        .delete("p", &DeleteParams::default())
        .await
        .unwrap();
    until_gone(&cluster, "p").await;
    cluster.shutdown().await;
}

fn generations(pod: &Pod) -> (i64, i64) {
    let observed = pod
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    (pod.metadata.generation.unwrap_or(0), observed.unwrap_or(0))
}

/// Conformance: [sig-node] Pods Extended (pod generation) Pod Generation custom-set generation on new pods and graceful delete [Conformance]
/// Conformance: [sig-node] Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update [MinimumKubeletVersion:1.34] [Conformance]
/// Conformance: [sig-node] Pods Extended (pod generation) Pod Generation issue 500 podspec updates and verify generation and observedGeneration eventually converge [MinimumKubeletVersion:1.34] [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn generations_count_changes_of_the_spec_and_are_observed() {
    let (cluster, images) = begin().await;
    let mut own = pod("p", &images.serves, &json!({"tolerations": []}));
    own["metadata"]["generation"] = 100.into();
    let made = create(&pods(&cluster), own).await;
    assert_eq!(generations(&made).0, 1);
    until_phase(&cluster, "p", "Running").await;
    let seen = merge(&cluster, "p", json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(generations(&seen).0, 1, "a label is not of the spec");
    let mut tolerations = seen.spec.unwrap().tolerations.unwrap_or_default();
    for number in 0..500 {
        let added: k8s_openapi::api::core::v1::Toleration =
            serde_json::from_value(json!({"key": format!("k{number}"), "operator": "Exists"}))
                .unwrap();
        tolerations.push(added);
        let changed = merge(&cluster, "p", json!({"spec": {"tolerations": tolerations}})).await;
        assert_eq!(generations(&changed).0, number + 2);
    }
    let converged = |pod: Option<&Pod>| pod.is_some_and(|pod| generations(pod) == (501, 501));
    eventually(pods(&cluster), "p", "generation 501", converged).await;
    let params = DeleteParams::default().grace_period(30);
    // So that its end can be looked at.
    let finalizers = json!({"metadata": {"finalizers": ["example.com/keep"]}});
    merge(&cluster, "p", finalizers).await;
    pods(&cluster).delete("p", &params).await.unwrap();
    let deleted = pods(&cluster).get("p").await.unwrap();
    assert_eq!(generations(&deleted).0, 502, "its end is a change");
    merge(&cluster, "p", json!({"metadata": {"finalizers": null}})).await;
    until_gone(&cluster, "p").await;
    cluster.shutdown().await;
}
