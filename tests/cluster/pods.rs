//! Pods made by hand.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::json;
use windlass_tests::{Cluster, eventually};

use crate::{HELLO, push};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_made_as_soon_as_the_server_serves_runs() {
    let cluster = Cluster::with_node().await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let image = push(&cluster, "hello", HELLO).await;
    let pod =
        json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": image}]}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let running = |pod: Option<&Pod>| {
        let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
        phase == Some("Running")
    };
    eventually(pods, "x", "Running", running).await;
    cluster.shutdown().await;
}
