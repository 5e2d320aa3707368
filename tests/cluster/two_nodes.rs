//! Pods of different nodes: the agents carry their connections.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::Api;
use serde_json::{Value, json};
use windlass_tests::{Cluster, PATIENCE, eventually};

use crate::{HELLO, apply, get, is_ready, node_port, push, url};

/// A pod of the hello component on a node.
fn pod(name: &str, node: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "hello"}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 5, "containers": [{
            "name": "hello", "image": image,
            "env": [{"name": "POD_NAME", "value": name}],
            "ports": [{"name": "http", "containerPort": 8080}],
        }]},
    })
}

/// Whichever node has the NodePort, one of the two pods is on the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_reaches_its_pods_on_every_node() {
    let mut cluster = Cluster::with_node().await.unwrap();
    cluster.add_node("node-2").await.unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    apply::<Service>(&cluster, &node_port()).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    for (name, node) in [("one", "node-1"), ("two", "node-2")] {
        apply::<Pod>(&cluster, &pod(name, node, &image)).await;
        eventually(pods.clone(), name, "readiness", is_ready).await;
    }
    let url = url(&cluster).await;
    let mut answered = HashSet::new();
    let ask = async {
        while answered.len() < 2 {
            if let Ok((200, text)) = get(&url).await {
                answered.insert(text.trim().to_owned());
            }
        }
    };
    let both = tokio::time::timeout(PATIENCE, ask).await;
    assert!(both.is_ok(), "only {answered:?} answered");
    cluster.shutdown().await;
}
