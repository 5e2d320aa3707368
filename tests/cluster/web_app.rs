//! The main job: a web app from a Deployment and a Service.

use std::collections::HashSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams, LogParams, Patch, PatchParams};
use serde_json::json;
use windlass_tests::load::Load;
use windlass_tests::{Cluster, PATIENCE};

use crate::{HELLO, apply, get, hello, node_port, push, rolled_out, url};

async fn running(replicas: i32) -> (Cluster, String) {
    let cluster = Cluster::with_node().await.unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    apply::<Deployment>(&cluster, &hello(&image, replicas, "one")).await;
    apply::<Service>(&cluster, &node_port()).await;
    rolled_out(&cluster).await;
    let url = url(&cluster).await;
    (cluster, url)
}

/// Asks until as many pods have answered, and returns their names.
async fn answering(url: &str, count: usize) -> HashSet<String> {
    let mut pods = HashSet::new();
    let ask = async {
        while pods.len() < count {
            if let Ok((200, text)) = get(url).await {
                pods.insert(text.trim().to_owned());
            }
        }
    };
    let all = tokio::time::timeout(PATIENCE, ask).await;
    assert!(all.is_ok(), "only {pods:?} answered");
    pods
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_answers_behind_the_node_port() {
    let (cluster, url) = running(2).await;
    assert_eq!(answering(&url, 2).await.len(), 2);
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    for pod in pods
        .list(&ListParams::default().labels("app=hello"))
        .await
        .unwrap()
    {
        let status = pod.status.unwrap();
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert!(status.pod_ip.unwrap().starts_with("10."));
        let container = &status.container_statuses.unwrap()[0];
        assert!(
            container.ready
                && container
                    .container_id
                    .as_ref()
                    .unwrap()
                    .starts_with("wasm://")
        );
        let ready = status.conditions.unwrap();
        assert!(
            ready
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True")
        );
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_a_pod_come_through_the_api_server() {
    let (cluster, url) = running(1).await;
    answering(&url, 1).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let pod = pods
        .list(&ListParams::default().labels("app=hello"))
        .await
        .unwrap()
        .items
        .remove(0);
    let name = pod.metadata.name.unwrap();
    let logs = pods.logs(&name, &LogParams::default()).await.unwrap();
    assert!(logs.lines().any(|line| line == "/ 200"), "{logs}");
    let params = LogParams {
        tail_lines: Some(1),
        timestamps: true,
        ..LogParams::default()
    };
    let tail = pods.logs(&name, &params).await.unwrap();
    assert_eq!(tail.lines().count(), 1);
    assert!(
        tail.split(' ')
            .next()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .is_ok(),
        "{tail}"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_fails_no_request() {
    let (cluster, url) = running(2).await;
    let before = answering(&url, 2).await;
    let load = Load::on(&url, 1);
    let image = push(&cluster, "hello", HELLO).await;
    apply::<Deployment>(&cluster, &hello(&image, 2, "two")).await;
    rolled_out(&cluster).await;
    let after = answering(&url, 2).await;
    load.none_failed().await;
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_up_and_down_is_followed() {
    let (cluster, url) = running(1).await;
    let api: Api<Deployment> = Api::namespaced(cluster.client(), "default");
    for replicas in [3, 1] {
        let scale = json!({"spec": {"replicas": replicas}});
        let params = PatchParams::default();
        api.patch_scale("hello", &params, &Patch::Merge(&scale))
            .await
            .unwrap();
        rolled_out(&cluster).await;
    }
    answering(&url, 1).await;
    cluster.shutdown().await;
}
