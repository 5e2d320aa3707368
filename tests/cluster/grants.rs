//! What namespaces let components have, and what becomes of those that want more.

use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use windlass_tests::{Cluster, eventually};

use crate::built::guest;
use crate::{answered, apply, is_ready, node_port, push, url};

const EGRESS: &str = "wasm.windlass.dev/egress";
const INTERFACES: &str = "wasm.windlass.dev/interfaces";
const REQUESTS: &str = "wasm.windlass.dev/requests-per-instance";

fn pod(name: &str, image: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "hello"}, "annotations": annotations},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "web", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
    })
}

async fn annotate(cluster: &Cluster, annotations: &Value) {
    let api: Api<Namespace> = Api::all(cluster.client());
    let patch = json!({"metadata": {"annotations": annotations}});
    let params = PatchParams::default();
    api.patch("default", &params, &Patch::Merge(&patch))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_asks_for_no_more_than_its_namespace_grants_and_says_what_it_gets() {
    let cluster = Cluster::control_plane().await.unwrap();
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    // The controller may have been faster.
    let _made = cluster.create(accounts, &account).await;
    annotate(&cluster, &json!({EGRESS: "cluster", REQUESTS: "10"})).await;
    let json = [("content-type", "application/json")];
    let make = async |name: &str, annotations: Value| {
        let pods = "/api/v1/namespaces/default/pods";
        let body = pod(name, "i", &annotations).to_string();
        let made = cluster.request(Method::POST, pods, &json, body);
        made.await.unwrap()
    };
    let made = make("silent", json!({})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.body["metadata"]["annotations"][EGRESS], "cluster");
    let made = make("modest", json!({EGRESS: "none", REQUESTS: "10"})).await;
    assert_eq!(made.body["metadata"]["annotations"][EGRESS], "none");
    for (annotations, wanted) in [
        (
            json!({EGRESS: "all"}),
            "asks for \"all\", namespace \"default\" grants \"cluster\"",
        ),
        (
            json!({REQUESTS: "11"}),
            "asks for \"11\", namespace \"default\" grants \"10\"",
        ),
        (json!({EGRESS: "some"}), "is not one of none, cluster, all"),
    ] {
        let refused = make("greedy", annotations).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        let message = refused.body["message"].as_str().unwrap();
        assert!(message.contains(wanted), "{message}");
    }
    // What was granted stays: the node goes by it.
    let merge = [("content-type", "application/merge-patch+json")];
    let patch = |annotations: Value| json!({"metadata": {"annotations": annotations}}).to_string();
    for body in [patch(json!({EGRESS: "all"})), patch(json!({EGRESS: null}))] {
        let path = "/api/v1/namespaces/default/pods/silent";
        let refused = cluster.request(Method::PATCH, path, &merge, body).await;
        assert_eq!(refused.unwrap().status, StatusCode::FORBIDDEN);
    }
    // A namespace does not grant what nobody understands.
    let path = "/api/v1/namespaces/default";
    let body = patch(json!({INTERFACES: "sockets"}));
    let refused = cluster
        .request(Method::PATCH, path, &merge, body)
        .await
        .unwrap();
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_gets_what_was_granted_and_no_more() {
    let Some(web) = guest("web") else {
        return;
    };
    let cluster = Cluster::with_node().await.unwrap();
    let image = push(&cluster, "web", &std::fs::read(web).unwrap()).await;
    annotate(&cluster, &json!({EGRESS: "none"})).await;
    apply::<Pod>(&cluster, &pod("lonely", &image, &json!({}))).await;
    apply::<Service>(&cluster, &node_port()).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    eventually(pods.clone(), "lonely", "readiness", is_ready).await;
    let url = url(&cluster).await;
    let ask = async |path: &str| answered(&format!("{url}{path}")).await;
    let (status, text) = ask("").await;
    assert_eq!((status, text.starts_with("hello")), (200, true), "{text}");
    for target in [
        "http://10.96.0.1:443/",
        "http://kubernetes.default/",
        "http://192.0.2.1/",
    ] {
        let (status, text) = ask(&format!("get?{target}")).await;
        assert_eq!(status, 502, "{target}: {text}");
    }

    let few = json!({INTERFACES: "wasi:cli,wasi:io,wasi:clocks"});
    apply::<Pod>(&cluster, &pod("curious", &image, &few)).await;
    let waits = eventually(pods, "curious", "its refusal", |pod| {
        waiting(pod).is_some_and(|(reason, _)| reason == "CreateContainerConfigError")
    })
    .await;
    let (_, message) = waiting(waits.as_ref()).unwrap();
    assert!(message.contains("the component imports"), "{message}");
    assert!(message.contains("wasi:http/"), "{message}");
    assert!(
        message.contains("grants wasi:cli,wasi:io,wasi:clocks"),
        "{message}"
    );
    cluster.shutdown().await;
}

/// Why the first container waits.
fn waiting(pod: Option<&Pod>) -> Option<(String, String)> {
    let statuses = pod?.status.as_ref()?.container_statuses.as_ref()?;
    let waiting = statuses.first()?.state.as_ref()?.waiting.as_ref()?;
    Some((
        waiting.reason.clone()?,
        waiting.message.clone().unwrap_or_default(),
    ))
}
