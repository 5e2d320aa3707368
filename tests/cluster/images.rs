//! Images that cannot run: each says why, in the container's reason and message.

use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::json;
use windlass_oci::digest::Digest;
use windlass_oci::reference::CLUSTER_REGISTRY;
use windlass_tests::{Cluster, eventually};

use crate::push;

/// A component that imports what no host offers.
const STRANGER: &str = r#"(component
    (import "example:weather/forecast@1.0.0" (instance (export "now" (func))))
    (core module $m (func (export "run") (result i32) i32.const 0))
    (core instance $i (instantiate $m))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $cli (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $cli)))"#;

async fn waiting(cluster: &Cluster, name: &str, image: &str, reason: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": image}]}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let state = |pod: &Pod| {
        let status = pod
            .status
            .as_ref()?
            .container_statuses
            .as_ref()?
            .first()?
            .state
            .as_ref()?;
        let waiting = status.waiting.as_ref()?;
        Some((
            waiting.reason.clone()?,
            waiting.message.clone().unwrap_or_default(),
        ))
    };
    let found = eventually(pods, name, reason, |pod| {
        pod.and_then(state)
            .is_some_and(|(found, message)| found == reason && !message.is_empty())
    });
    state(&found.await.unwrap()).unwrap().1
}

/// Pushes an image for Linux of one layer; answers its reference.
async fn push_linux(cluster: &Cluster) -> String {
    const REPOSITORY: &str = "default/linux";
    let put = async |bytes: Vec<u8>, kind: &str| {
        let digest = Digest::sha256(&bytes);
        let size = bytes.len();
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
        let pushed = cluster.request(Method::POST, &path, &[], bytes).await;
        assert_eq!(pushed.unwrap().status, StatusCode::CREATED);
        json!({"mediaType": kind, "digest": digest, "size": size})
    };
    let config = json!({"os": "linux", "architecture": "amd64", "config": {"Cmd": ["/bin/sh"]}});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(config.to_string().into(), "application/vnd.oci.image.config.v1+json").await,
        "layers": [put(b"layer".to_vec(), "application/vnd.oci.image.layer.v1.tar+gzip").await],
    });
    let path = format!("/v2/{REPOSITORY}/manifests/v1");
    let kind = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
    let pushed = cluster
        .request(Method::PUT, &path, &kind, manifest.to_string())
        .await;
    assert_eq!(pushed.unwrap().status, StatusCode::CREATED);
    format!("{CLUSTER_REGISTRY}/{REPOSITORY}:v1")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_image_is_named_with_what_is_wrong() {
    let cluster = Cluster::with_node().await.unwrap();
    let text = push(&cluster, "stranger", &wat::parse_str(STRANGER).unwrap()).await;
    let cases = [
        (
            "path",
            "./app.wasm".to_owned(),
            "InvalidImageName",
            "windlass push",
        ),
        (
            "bad",
            "UPPER/case".to_owned(),
            "InvalidImageName",
            "UPPER/case",
        ),
        (
            "elsewhere",
            "127.0.0.1:1/library/nginx:1".to_owned(),
            "ErrImagePull",
            "127.0.0.1:1/library/nginx:1: registry not reached",
        ),
        (
            "stranger",
            text,
            "CreateContainerError",
            "example:weather/forecast",
        ),
        (
            "linux",
            push_linux(&cluster).await,
            "CreateContainerError",
            "this node runs WebAssembly only: containers of Linux need root",
        ),
    ];
    for (name, image, reason, expected) in cases {
        let message = waiting(&cluster, name, &image, reason).await;
        assert!(message.contains(expected), "{name}: {message}");
    }
    cluster.shutdown().await;
}
