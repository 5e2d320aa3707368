//! sig-storage: volumes that hold what other objects say.

use k8s_openapi::api::core::v1::{ConfigMap, ReplicationController, Secret};
use kube::api::Api;
use serde_json::json;
use windlass_tests::eventually;

use super::{begin, create, pod, pods, until_phase};

/// Conformance: [sig-storage] EmptyDir wrapper volumes should not conflict [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_and_a_config_map_are_mounted_together() {
    let (cluster, images) = begin().await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    create(
        &secrets,
        json!({"metadata": {"name": "s"}, "stringData": {"a": "1"}}),
    )
    .await;
    create(
        &maps,
        json!({"metadata": {"name": "m"}, "data": {"a": "1"}}),
    )
    .await;
    let mut both = pod(
        "p",
        &images.serves,
        &json!({"volumes": [
        {"name": "s", "secret": {"secretName": "s"}}, {"name": "m", "configMap": {"name": "m"}}]}),
    );
    both["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "s", "mountPath": "/etc/secret"}, {"name": "m", "mountPath": "/etc/config"}]);
    create(&pods(&cluster), both).await;
    until_phase(&cluster, "p", "Running").await;
    cluster.shutdown().await;
}

/// Conformance: [sig-storage] EmptyDir wrapper volumes should not cause race condition when used for configmaps [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn fifty_config_maps_are_mounted_by_five_pods_at_once() {
    let (cluster, images) = begin().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    for number in 0..50 {
        let name = format!("racey-{number}");
        create(
            &maps,
            json!({"metadata": {"name": name}, "data": {"a": "1"}}),
        )
        .await;
        volumes.push(json!({"name": name, "configMap": {"name": name}}));
        mounts.push(json!({"name": name, "mountPath": format!("/etc/config-{number}")}));
    }
    let mut template = pod("racey", &images.serves, &json!({ "volumes": volumes }));
    template["spec"]["containers"][0]["volumeMounts"] = mounts.into();
    template["metadata"] = json!({"labels": {"app": "racey"}});
    let controllers: Api<ReplicationController> = Api::namespaced(cluster.client(), "default");
    let controller = json!({"metadata": {"name": "racey"}, "spec": {"replicas": 5,
        "selector": {"app": "racey"}, "template": template}});
    create(&controllers, controller).await;
    let ready = |of: Option<&ReplicationController>| {
        let status = of.and_then(|of| of.status.as_ref());
        status.is_some_and(|status| status.ready_replicas == Some(5))
    };
    eventually(controllers, "racey", "five ready pods", ready).await;
    cluster.shutdown().await;
}
