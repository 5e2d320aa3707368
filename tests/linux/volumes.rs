//! Volumes as a container of Linux sees them, and pods of both kinds.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use windlass_tests::push;

use crate::{World, container, is_running, phase};

/// The component of `examples/hello`.
const HELLO: &[u8] = include_bytes!("../../examples/hello/hello.wasm");

/// Conformance: ConfigMap should be consumable from pods in volume with mappings and Item mode set
/// Conformance: EmptyDir volumes should support (root,0644,tmpfs)
#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_all_kinds_are_files() {
    let Some(world) = World::new().await else {
        return;
    };
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "data": { "k": "one", "l": "two" } });
    world
        .cluster
        .create("/api/v1/namespaces/default/configmaps", &map)
        .await
        .unwrap();
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": { "p": "hidden" } });
    world
        .cluster
        .create("/api/v1/namespaces/default/secrets", &secret)
        .await
        .unwrap();
    let script = "cat /map/a /secret/p /one; stat -L -c %a /map/a /secret/p; grep ' /memory ' /proc/mounts | cut -d' ' -f3; \
        grep ' /secret ' /proc/mounts | cut -d' ' -f3; echo x > /disk/file; ls /part; cat /labels/app; tail -n 1 /etc/hosts; \
        touch /map/x 2>/dev/null || echo refused";
    let mut pod = world.script("volumes", script);
    pod["metadata"]["labels"] = json!({ "app": "me" });
    pod["spec"]["hostAliases"] = json!([{ "ip": "1.2.3.4", "hostnames": ["alias"] }]);
    pod["spec"]["volumes"] = json!([
        { "name": "map", "configMap": { "name": "m", "items": [{ "key": "k", "path": "a", "mode": 0o440 }] } },
        { "name": "whole", "configMap": { "name": "m" } },
        { "name": "secret", "secret": { "secretName": "s", "defaultMode": 0o400 } },
        { "name": "disk", "emptyDir": {} },
        { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
        { "name": "labels", "downwardAPI": { "items": [{ "path": "app", "fieldRef": { "fieldPath": "metadata.labels['app']" } }] } },
    ]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        { "name": "map", "mountPath": "/map", "readOnly": true },
        { "name": "whole", "mountPath": "/one", "subPath": "l" },
        { "name": "secret", "mountPath": "/secret", "readOnly": true },
        { "name": "disk", "mountPath": "/disk" },
        { "name": "disk", "mountPath": "/part", "subPath": "made/here" },
        { "name": "memory", "mountPath": "/memory" },
        { "name": "labels", "mountPath": "/labels" },
    ]);
    let (_, logs) = world.run(&pod).await;
    assert_eq!(
        logs,
        "onehiddentwo440\n400\ntmpfs\ntmpfs\nme1.2.3.4\talias\nrefused\n"
    );
    world.delete("volumes").await;
    world.end().await;
}

/// Conformance: ConfigMap updates should be reflected in volume
#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_changes_is_seen_to_change() {
    let Some(world) = World::new().await else {
        return;
    };
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "data": { "k": "old" } });
    world
        .cluster
        .create("/api/v1/namespaces/default/configmaps", &map)
        .await
        .unwrap();
    let mut pod = world.script(
        "follows",
        "while [ \"$(cat /map/k)\" != new ]; do sleep 0.1; done",
    );
    pod["spec"]["volumes"] = json!([{ "name": "map", "configMap": { "name": "m" } }]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "map", "mountPath": "/map" }]);
    world.create(&pod).await;
    world.until_running("follows").await;
    let maps: Api<ConfigMap> = Api::namespaced(world.cluster.client(), "default");
    let patch = Patch::Merge(json!({ "data": { "k": "new" } }));
    maps.patch("m", &PatchParams::default(), &patch)
        .await
        .unwrap();
    world
        .until("follows", "the end", |pod| phase(pod) == "Succeeded")
        .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wasm_and_linux_share_a_pod_and_its_volumes() {
    let Some(world) = World::new().await else {
        return;
    };
    let wasm = push(&world.cluster, "hello", HELLO).await;
    let mut pod = world.script("mixed", "echo from linux > /shared/file; sleep 600");
    pod["spec"]["volumes"] = json!([{ "name": "shared", "emptyDir": {} }]);
    let mounts = json!([{ "name": "shared", "mountPath": "/shared" }]);
    pod["spec"]["containers"][0]["volumeMounts"] = mounts.clone();
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({ "name": "w", "image": wasm, "volumeMounts": mounts }));
    world.create(&pod).await;
    let both = |pod: &Pod| {
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        is_running(pod)
            && statuses.is_some_and(|all| all.len() == 2 && all.iter().all(|status| status.ready))
    };
    let found = world.until("mixed", "both containers", both).await;
    let statuses = found.status.unwrap().container_statuses.unwrap();
    let ids: Vec<_> = statuses
        .iter()
        .filter_map(|status| status.container_id.as_deref())
        .collect();
    assert!(
        ids.iter().any(|id| id.starts_with("wasm://"))
            && ids.iter().any(|id| id.starts_with("containerd://")),
        "{ids:?}"
    );
    world.delete("mixed").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_containerd_linux_waits_and_wasm_runs() {
    let cluster = windlass_tests::Cluster::control_plane().await.unwrap();
    let mut cluster = cluster;
    let why = "containers of Linux need root, containerd and runc: containerd is not installed";
    cluster
        .add_node_with("node-1", |builder| builder.without_linux(why))
        .await
        .unwrap();
    if let Some(reason) = crate::machine::missing() {
        println!("SKIPPED: no image to try: {reason}");
        cluster.shutdown().await;
        return;
    }
    let image = crate::image::push(&cluster, "busybox", &json!({})).await;
    let wasm = push(&cluster, "hello", HELLO).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    for (name, image) in [("linux", image), ("wasm", wasm)] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "containers": [{ "name": "c", "image": image }] },
        });
        cluster
            .create("/api/v1/namespaces/default/pods", &pod)
            .await
            .unwrap();
    }
    let told = |pod: Option<&Pod>| {
        let waiting = pod
            .map(container)
            .and_then(|status| status.state?.waiting?.message);
        pod.is_some_and(|pod| phase(pod) == "Pending")
            && waiting.is_some_and(|text| text.contains(why))
    };
    windlass_tests::eventually(pods.clone(), "linux", "the reason", told).await;
    windlass_tests::eventually(pods, "wasm", "running", |pod| pod.is_some_and(is_running)).await;
    cluster.shutdown().await;
}
