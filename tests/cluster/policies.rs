//! NetworkPolicies between pods of two nodes, and what the API tells of flows and components.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};
use windlass_tests::{Cluster, PATIENCE, eventually};

use crate::built::guest;
use crate::{answered, apply, is_ready, node_port, push, url};

/// A pod of the web component on a node.
fn pod(name: &str, app: &str, node: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "web", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
    })
}

/// Who may come in to the pod at the back.
fn policy(ingress: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "back"},
        "spec": {"podSelector": {"matchLabels": {"app": "back"}}, "policyTypes": ["Ingress"], "ingress": ingress},
    })
}

async fn fetch(cluster: &Cluster, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    cluster.client().request(request).await.unwrap()
}

/// Asks until the status is as wanted: a policy takes effect when the nodes have heard of it.
async fn until(url: &str, wanted: u16) {
    let asking = async { while answered(url).await.0 != wanted {} };
    let came = tokio::time::timeout(PATIENCE, asking).await;
    let last = answered(url).await;
    assert!(came.is_ok(), "wanted {wanted}, last {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_decides_who_reaches_a_pod_of_another_node() {
    let Some(web) = guest("web") else {
        return;
    };
    let mut cluster = Cluster::with_node().await.unwrap();
    cluster.add_node("node-2").await.unwrap();
    let image = push(&cluster, "web", &std::fs::read(web).unwrap()).await;
    apply::<Service>(&cluster, &node_port()).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    for (name, app, node) in [("front", "hello", "node-1"), ("back", "back", "node-2")] {
        apply::<Pod>(&cluster, &pod(name, app, node, &image)).await;
        eventually(pods.clone(), name, "readiness", is_ready).await;
    }
    let back = pods
        .get("back")
        .await
        .unwrap()
        .status
        .unwrap()
        .pod_ip
        .unwrap();
    let url = format!("{}get?http://{back}:8080/", url(&cluster).await);
    until(&url, 200).await;

    apply::<NetworkPolicy>(&cluster, &policy(&json!([]))).await;
    until(&url, 502).await;
    let from = json!([{"from": [{"podSelector": {"matchLabels": {"app": "hello"}}}],
        "ports": [{"port": "http"}]}]);
    apply::<NetworkPolicy>(&cluster, &policy(&from)).await;
    until(&url, 200).await;
    let closed = json!([{"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]}]);
    apply::<NetworkPolicy>(&cluster, &policy(&closed)).await;
    until(&url, 502).await;
    let policies: Api<NetworkPolicy> = Api::namespaced(cluster.client(), "default");
    policies
        .delete("back", &DeleteParams::default())
        .await
        .unwrap();
    until(&url, 200).await;

    let base = "/apis/node.windlass.dev/v1/namespaces/default";
    let flows = fetch(&cluster, &format!("{base}/podflows/back")).await;
    assert_eq!(flows["kind"], "PodFlows");
    let flow = flows["flows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|flow| flow["peer"]["name"] == "front");
    let flow = flow.unwrap_or_else(|| panic!("{flows}"));
    assert_eq!(
        (&flow["direction"], &flow["port"]),
        (&json!("Ingress"), &json!(8080))
    );
    for count in ["connections", "denied", "bytesSent", "bytesReceived"] {
        assert!(flow[count].as_u64().unwrap() > 0, "{count}: {flow}");
    }
    let all = fetch(&cluster, "/apis/node.windlass.dev/v1/podflows").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all}");

    let told = fetch(&cluster, &format!("{base}/podcomponents/front")).await;
    let component = &told["containers"][0];
    assert_eq!(
        (&component["name"], &component["world"]),
        (&json!("web"), &json!("wasi:http/proxy"))
    );
    let imports = component["imports"].as_array().unwrap();
    let http = imports.iter().find(|it| {
        it["interface"]
            .as_str()
            .unwrap()
            .starts_with("wasi:http/outgoing")
    });
    assert_eq!(http.unwrap()["by"], "network of the pod, egress: all");
    assert!(
        component["instances"]["started"].as_u64().unwrap() > 0,
        "{component}"
    );
    cluster.shutdown().await;
}
