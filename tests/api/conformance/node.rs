//! sig-node and sig-architecture: what containers are configured with, and nodes, as objects.

use http::StatusCode;
use serde_json::{Value, json};
use windlass_tests::Cluster;

use super::collection::{Collection, PatchType, SELECTOR, expect, merged, named, names_of};
use super::matrix::{Matrix, assert_contains, with_namespace};

/// Conformance: [sig-node] ConfigMap should run through a ConfigMap lifecycle [Conformance]
#[tokio::test]
async fn config_maps_live_and_die() {
    let data = |value: &str| json!({"data": {"key": value}});
    Matrix::new("v1", "ConfigMap", "configmaps", data("value"))
        .namespaced()
        .change(data("patched"))
        .walk()
        .await;
}

/// Conformance: [sig-node] ConfigMap should update ConfigMap successfully [Conformance] [NodeConformance]
#[tokio::test]
async fn a_config_map_is_updated() {
    let cluster = Cluster::control_plane().await.unwrap();
    let config_maps = Collection::new(&cluster, "v1", "configmaps", Some("default"));
    config_maps.create(&named("c", &json!({}))).await;
    let data = json!({"data": {"data": "value"}});
    config_maps.update("c", &data).await;
    assert_contains(&config_maps.get("c").await, &data);
}

/// Conformance: [sig-node] ConfigMap should fail to create ConfigMap with empty key [Conformance]
/// Conformance: [sig-node] Secrets should fail to create secret due to empty secret key [Conformance]
#[tokio::test]
async fn an_empty_key_is_refused() {
    let cluster = Cluster::control_plane().await.unwrap();
    for (kind, plural) in [("ConfigMap", "configmaps"), ("Secret", "secrets")] {
        let collection = Collection::new(&cluster, "v1", plural, Some("default"));
        let object = named("empty", &json!({"data": {"": "dmFsdWUK"}}));
        let refused = collection.refused(&object, 422).await;
        let message = refused["message"].as_str().unwrap();
        let expected = format!(r#"{kind} "empty" is invalid: data[]: Invalid value: """#);
        assert!(message.starts_with(&expected), "{message}");
    }
}

/// Conformance: [sig-node] Secrets should patch a secret [Conformance]
#[tokio::test]
async fn secrets_live_and_die() {
    let cluster = with_namespace().await;
    let secret = json!({"data": {"key": "dmFsdWU="}, "type": "Opaque"});
    let matrix = Matrix::new("v1", "Secret", "secrets", secret.clone())
        .namespaced()
        .change(json!({"data": {"key": "dmFsdWUx"}}));
    matrix.walk_in(&cluster).await;
    let secrets = matrix.collection(&cluster);
    secrets.create(&named("secret", &secret)).await;
    let patch = json!({"stringData": {"other": "value1"}});
    let patched = secrets.patch(PatchType::Strategic, "secret", &patch).await;
    let data = json!({"key": "dmFsdWU=", "other": "dmFsdWUx"});
    assert_eq!(patched["data"], data);
}

/// Conformance: [sig-node] Lease lease API should be available [Conformance]
#[tokio::test]
async fn leases_can_be_operated_on() {
    let time = "2026-01-01T00:00:00.000000Z";
    let lease = json!({"spec": {
        "holderIdentity": "holder", "leaseDurationSeconds": 30, "acquireTime": time,
        "renewTime": time, "leaseTransitions": 0,
    }});
    let change = json!({"spec": {
        "holderIdentity": "other", "leaseDurationSeconds": 60, "leaseTransitions": 1,
    }});
    Matrix::new("coordination.k8s.io/v1", "Lease", "leases", lease)
        .namespaced()
        .change(change)
        .walk()
        .await;
}

/// Conformance: [sig-node] Node Lifecycle should run through the lifecycle of a node [Conformance]
#[tokio::test]
async fn nodes_live_and_die() {
    let node = json!({"spec": {"unschedulable": true}});
    Matrix::new("v1", "Node", "nodes", node).walk().await;
}

/// Conformance: [sig-architecture] Conformance Tests should have at least two untainted nodes [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_take_pods() {
    let mut cluster = Cluster::with_node().await.unwrap();
    cluster.add_node("node-2").await.unwrap();
    let nodes = Collection::new(&cluster, "v1", "nodes", None);
    let mut untainted = 0;
    let mut watch = nodes.watch("").await;
    let takes_pods = |node: &Value| {
        let tainted = node["spec"]["taints"]
            .as_array()
            .is_some_and(|taints| !taints.is_empty());
        !tainted && node["spec"]["unschedulable"] != true
    };
    let mut seen = std::collections::BTreeMap::new();
    watch
        .until(|event| {
            let object = &event["object"];
            seen.insert(object["metadata"]["name"].to_string(), takes_pods(object));
            untainted = seen.values().filter(|takes_pods| **takes_pods).count();
            untainted == 2
        })
        .await;
    drop(watch);
    cluster.shutdown().await;
}

/// A template of pods whose container has a name.
fn template(image: &str) -> Value {
    json!({"template": {
        "metadata": {"labels": {"app": "test"}},
        "spec": {"containers": [{"name": "test", "image": image}]},
    }})
}

/// Conformance: [sig-node] PodTemplates should run the lifecycle of PodTemplates [Conformance]
#[tokio::test]
async fn pod_templates_live_and_die() {
    Matrix::new("v1", "PodTemplate", "podtemplates", template("i:1"))
        .namespaced()
        .change(
            json!({"metadata": {"annotations": {"changed": "yes"}}, "template": {
                "metadata": {"labels": {"app": "test"}},
                "spec": {"containers": [{"name": "test", "image": "i:2"}]},
            }}),
        )
        .walk()
        .await;
}

/// Conformance: [sig-node] PodTemplates should replace a pod template [Conformance]
#[tokio::test]
async fn a_pod_template_is_replaced() {
    let cluster = Cluster::control_plane().await.unwrap();
    let templates = Collection::new(&cluster, "v1", "podtemplates", Some("default"));
    let created = templates.create(&named("t", &template("i:1"))).await;
    let change = json!({"metadata": {"annotations": {"updated": "true"}}});
    let answer = templates.put("t", &merged(&created, &change)).await;
    assert_contains(&expect(answer, StatusCode::OK), &change);
}

/// Conformance: [sig-node] PodTemplates should delete a collection of pod templates [Conformance]
#[tokio::test]
async fn pod_templates_are_deleted_as_a_collection() {
    let cluster = Cluster::control_plane().await.unwrap();
    let templates = Collection::new(&cluster, "v1", "podtemplates", Some("default"));
    for name in ["a", "b", "c"] {
        templates.create(&named(name, &template("i:1"))).await;
    }
    assert_eq!(names_of(&templates.list(SELECTOR).await), ["a", "b", "c"]);
    templates.delete_all(SELECTOR).await;
}

/// Conformance: [sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu [Conformance]
#[tokio::test]
async fn equal_requests_and_limits_are_guaranteed() {
    let cluster = Cluster::control_plane().await.unwrap();
    let pods = Collection::new(&cluster, "v1", "pods", Some("default"));
    let amounts = json!({"cpu": "100m", "memory": "100Mi"});
    let pod = json!({"spec": {"containers": [{
        "name": "c", "image": "i:1", "resources": {"requests": amounts, "limits": amounts},
    }]}});
    pods.create(&named("p", &pod)).await;
    assert_eq!(pods.get("p").await["status"]["qosClass"], "Guaranteed");
}

/// Conformance: [sig-node] Sysctls [LinuxOnly] should reject invalid sysctls [Conformance] [NodeConformance]
#[tokio::test]
async fn names_of_sysctls_are_checked() {
    let cluster = Cluster::control_plane().await.unwrap();
    let pods = Collection::new(&cluster, "v1", "pods", Some("default"));
    let names = [
        "foo-",
        "kernel.shmmax",
        "safe-and-unsafe",
        "bar..",
        "valid1",
    ];
    let sysctls = names.map(|name| json!({"name": name, "value": "100000000"}));
    let pod = json!({"spec": {
        "securityContext": {"sysctls": sysctls}, "containers": [{"name": "c", "image": "i:1"}],
    }});
    let refused = pods.refused(&named("p", &pod), 422).await;
    let message = refused["message"].as_str().unwrap();
    for (index, name) in names.iter().enumerate() {
        let complaint =
            format!("spec.securityContext.sysctls[{index}].name: Invalid value: {name:?}");
        let bad = matches!(*name, "foo-" | "bar..");
        assert_eq!(message.contains(&complaint), bad, "{name}: {message}");
    }
}

/// Conformance: [sig-node] RuntimeClass should support RuntimeClasses API operations [Conformance]
#[tokio::test]
async fn runtime_classes_can_be_operated_on() {
    Matrix::new(
        "node.k8s.io/v1",
        "RuntimeClass",
        "runtimeclasses",
        json!({"handler": "handler"}),
    )
    .walk()
    .await;
}

/// Conformance: [sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [Conformance] [NodeConformance]
/// Conformance: [sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass [Conformance] [NodeConformance]
#[tokio::test]
async fn a_pod_of_a_class_that_is_not_there_is_refused() {
    let cluster = Cluster::control_plane().await.unwrap();
    let classes = Collection::new(&cluster, "node.k8s.io/v1", "runtimeclasses", None);
    let pods = Collection::new(&cluster, "v1", "pods", Some("default"));
    let pod = named(
        "p",
        &json!({"spec": {
            "runtimeClassName": "fast", "containers": [{"name": "c", "image": "i:1"}],
        }}),
    );
    let message = r#"pods "p" is forbidden: pod rejected: RuntimeClass "fast" not found"#;
    assert_eq!(pods.refused(&pod, 403).await["message"], message);
    let class = json!({"handler": "h", "overhead": {"podFixed": {"cpu": "10m"}}});
    classes.create(&named("fast", &class)).await;
    let created = pods.create(&pod).await;
    assert_eq!(created["spec"]["overhead"], json!({"cpu": "10m"}));
    pods.delete("p").await;
    classes.delete("fast").await;
    assert_eq!(pods.refused(&pod, 403).await["message"], message);
}
