//! Components that fail: trap, exit, loop, eat memory.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Event, Pod};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use windlass_tests::{Cluster, eventually};

use crate::push;
use crate::static_pods::until_event;

/// A command with this body.
pub(crate) fn command(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $m
                (memory (export "memory") 1)
                (func (export "run") (result i32) {body}))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $cli (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $cli)))"#
    );
    wat::parse_str(text).unwrap()
}

async fn run(cluster: &Cluster, name: &str, body: &str, extra: Value) -> ContainerStateTerminated {
    let image = push(cluster, name, &command(body)).await;
    let mut container = json!({"name": "c", "image": image});
    container
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    });
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let pod: Pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let ended = |pod: &Pod| {
        let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
        status.state.as_ref()?.terminated.clone()
    };
    let pod = eventually(pods, name, "the end", |pod| pod.and_then(ended).is_some()).await;
    ended(&pod.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_ends_with_its_reason() {
    let cluster = Cluster::with_node().await.unwrap();
    let ok = run(&cluster, "ok", "i32.const 0", json!({})).await;
    assert_eq!((ok.exit_code, ok.reason.as_deref()), (0, Some("Completed")));
    let fails = run(&cluster, "fails", "i32.const 1", json!({})).await;
    assert_eq!(
        (fails.exit_code, fails.reason.as_deref()),
        (1, Some("Error"))
    );
    let traps = run(&cluster, "traps", "unreachable", json!({})).await;
    assert_eq!(
        (traps.exit_code, traps.reason.as_deref()),
        (134, Some("Error"))
    );
    let events: Api<Event> = Api::default_namespaced(cluster.client());
    let text = until_event(&events, "Trapped").await;
    assert!(text.starts_with("wasm trap: "), "{text}");
    assert!(text.contains("wasm backtrace"), "{text}");
    let eats = "(loop (br_if 0 (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable";
    let limit = json!({"resources": {"limits": {"memory": "4Mi"}}});
    let eater = run(&cluster, "eater", eats, limit).await;
    assert_eq!(
        (eater.exit_code, eater.reason.as_deref()),
        (137, Some("OOMKilled"))
    );
    cluster.shutdown().await;
}
