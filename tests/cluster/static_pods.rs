//! Static pods: a node runs what its folder says, and the API shows it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, LogParams};
use kube::runtime::{WatchStreamExt, watcher};
use tokio_util::sync::CancellationToken;
use windlass_node::NodeAgent;
use windlass_node::runtime::wasm::{EngineConfig, WasmConfig, WasmRuntime};
use windlass_tests::{Cluster, PATIENCE, eventually};

use crate::{HELLO, is_ready, push};

const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";
const SOURCE: &str = "kubernetes.io/config.source";

/// A cluster whose node runs the pods of a folder.
async fn cluster(files: impl FnOnce(&Path)) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::control_plane().await.unwrap();
    let folder = cluster.directory().join("static");
    std::fs::create_dir(&folder).unwrap();
    files(&folder);
    let pods = folder.clone();
    cluster
        .add_node_with("node-1", |builder| builder.static_pods(pods))
        .await
        .unwrap();
    (cluster, folder)
}

/// A pod of the hello component.
fn hello(image: &str, greeting: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: hello, labels: {{app: hello}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 5\n  containers:\n  - name: hello\n    image: {image}\n    \
         env: [{{name: GREETING, value: {greeting}}}]\n    ports: [{{name: http, containerPort: 8080}}]\n"
    )
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap()
}

fn container_id(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    status.container_statuses.as_ref()?[0].container_id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_a_file_runs_and_has_a_mirror_while_the_file_is_there() {
    let (cluster, folder) = cluster(|_| {}).await;
    let image = push(&cluster, "hello", HELLO).await;
    let file = folder.join("hello.yaml");
    std::fs::write(&file, hello(&image, "one")).unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let name = "hello-node-1";
    let mirror = eventually(pods.clone(), name, "readiness", is_ready).await;
    let mirror = mirror.unwrap();
    let hash = annotation(&mirror, MIRROR).unwrap().to_owned();
    assert_eq!(annotation(&mirror, HASH), Some(hash.as_str()));
    assert_eq!(annotation(&mirror, SOURCE), Some("file"));
    assert_ne!(uid(&mirror), hash);
    let nodes: Api<Node> = Api::all(cluster.client());
    let node = nodes.get("node-1").await.unwrap();
    let owner = &mirror.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(owner.uid, node.metadata.uid.unwrap());
    let log = LogParams::default();
    pods.logs(name, &log).await.unwrap();

    // Who deletes it gets it back, and the pod has not noticed.
    let deleted = DeleteParams::default();
    pods.delete(name, &deleted).await.unwrap();
    let again = eventually(pods.clone(), name, "another mirror", |pod| {
        is_ready(pod) && pod.is_some_and(|pod| uid(pod) != uid(&mirror))
    });
    let again = again.await.unwrap();
    assert_eq!(annotation(&again, MIRROR), Some(hash.as_str()));
    assert_eq!(container_id(&again), container_id(&mirror));

    // Another content is another pod.
    std::fs::write(&file, hello(&image, "two")).unwrap();
    let changed = eventually(pods.clone(), name, "the changed pod", |pod| {
        is_ready(pod) && pod.is_some_and(|pod| annotation(pod, MIRROR) != Some(&hash))
    });
    let changed = changed.await.unwrap();
    assert_ne!(container_id(&changed), container_id(&again));

    // What is not understood is told, and ends nothing.
    std::fs::write(folder.join("bad.yaml"), "kind: [").unwrap();
    let events: Api<Event> = Api::namespaced(cluster.client(), "default");
    let told = until_event(&events, "InvalidStaticPod").await;
    assert!(told.contains("bad.yaml"), "{told}");

    std::fs::remove_file(&file).unwrap();
    eventually(pods.clone(), name, "the end", |pod| pod.is_none()).await;
    cluster.shutdown().await;
}

/// The message of the first event with this reason.
pub(crate) async fn until_event(events: &Api<Event>, reason: &str) -> String {
    let config = watcher::Config::default().fields(&format!("reason={reason}"));
    let found = async {
        let events = watcher(events.clone(), config);
        let mut events = events.default_backoff().applied_objects().boxed();
        loop {
            if let Some(Ok(event)) = events.next().await {
                return event.message.unwrap_or_default();
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("no event {reason}"))
}

/// The agent of a machine that starts before its API server runs what it ran.
#[tokio::test(flavor = "multi_thread")]
async fn static_pods_run_without_an_api_server() {
    let (mut cluster, folder) = cluster(|_| {}).await;
    let image = push(&cluster, "hello", HELLO).await;
    std::fs::write(folder.join("hello.yaml"), hello(&image, "one")).unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let name = "hello-node-1";
    eventually(pods, name, "readiness", is_ready).await;
    cluster.kill_node("node-1");

    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody is there"))
    });
    let data_dir = cluster.directory().join("node-1");
    let wasm = WasmConfig {
        cache: data_dir.join("compiled"),
        engine: EngineConfig {
            instances: 64,
            ..EngineConfig::default()
        },
        ..WasmConfig::default()
    };
    let agent = NodeAgent::builder()
        .client(kube::Client::new(service, "default"))
        .name("node-1")
        .data_dir(data_dir)
        .runtime(Arc::new(WasmRuntime::new(wasm).unwrap()))
        .static_pods(folder)
        .build()
        .await
        .unwrap();
    let handle = agent.handle();
    let stop = CancellationToken::new();
    let running = tokio::spawn(agent.run(stop.clone()));
    let runs = async {
        while !handle
            .usage("default", name)
            .is_ok_and(|usage| usage.contains_key("hello"))
        {
            tokio::task::yield_now().await;
        }
    };
    let runs = tokio::time::timeout(PATIENCE, runs).await;
    assert!(runs.is_ok(), "{:?}", handle.pods());
    stop.cancel();
    running.await.unwrap();
    cluster.shutdown().await;
}

/// A mirror that a file no longer explains goes when the agent starts, and so does one that somebody made up.
#[tokio::test(flavor = "multi_thread")]
async fn mirrors_of_nothing_go() {
    let mut cluster = Cluster::control_plane().await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let made_up = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "made-up", "annotations": {MIRROR: "x", SOURCE: "file"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "a", "image": "i"}]},
    });
    let path = "/api/v1/namespaces/default/pods";
    cluster.create(path, &made_up).await.unwrap();
    cluster.add_node("node-1").await.unwrap();
    eventually(pods.clone(), "made-up", "the end", |pod| pod.is_none()).await;
    assert!(
        pods.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    cluster.shutdown().await;
}
