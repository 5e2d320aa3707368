//! sig-node: containers that come before the others.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use windlass_tests::eventually;

use super::{begin, condition, container, create, phase, pod, pods, until_phase};

/// Conformance: [sig-node] InitContainer should invoke init containers on a RestartAlways pod [Conformance] [NodeConformance]
/// Conformance: [sig-node] InitContainer should invoke init containers on a RestartNever pod [Conformance] [NodeConformance]
#[tokio::test(flavor = "multi_thread")]
async fn init_containers_end_one_after_the_other_before_the_rest_starts() {
    let (cluster, images) = begin().await;
    for (name, policy, image, end) in [
        ("always", "Always", &images.serves, "Running"),
        ("never", "Never", &images.ends, "Succeeded"),
    ] {
        let inits = ["one", "two"].map(|name| json!({"name": name, "image": images.ends}));
        let more = json!({"restartPolicy": policy, "initContainers": inits});
        create(&pods(&cluster), pod(name, image, &more)).await;
        let pod = until_phase(&cluster, name, end).await;
        assert_eq!(condition(&pod, "Initialized"), Some("True"));
        let status = pod.status.unwrap();
        let ended = status.init_container_statuses.unwrap();
        let times = ended.iter().map(|container| {
            let state = container.state.as_ref().unwrap();
            let ended = state.terminated.as_ref().unwrap();
            assert_eq!(
                (ended.exit_code, container.ready),
                (0, true),
                "{container:?}"
            );
            (
                ended.started_at.clone().unwrap(),
                ended.finished_at.clone().unwrap(),
            )
        });
        let times: Vec<_> = times.collect();
        assert!(times[0].1.0 <= times[1].0.0, "{times:?}");
    }
    cluster.shutdown().await;
}

/// Conformance: [sig-node] InitContainer should not start app containers and fail the pod if init containers fail on a RestartNever pod [Conformance] [NodeConformance]
/// Conformance: [sig-node] InitContainer should not start app containers if init containers fail on a RestartAlways pod [Conformance] [NodeConformance]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_starts_while_an_init_container_fails() {
    let (cluster, images) = begin().await;
    let inits = json!([
        {"name": "one", "image": images.fails}, {"name": "two", "image": images.ends}]);
    let waits = |pod: &Pod| {
        let status = pod.status.as_ref().unwrap();
        let main = container(status.container_statuses.as_ref()).unwrap();
        let state = main.state.as_ref().unwrap();
        state.running.is_none() && state.terminated.is_none() && main.restart_count == 0
    };
    let never = json!({"restartPolicy": "Never", "initContainers": inits});
    create(&pods(&cluster), pod("never", &images.serves, &never)).await;
    let failed = until_phase(&cluster, "never", "Failed").await;
    assert!(waits(&failed), "{failed:?}");
    assert_eq!(condition(&failed, "Initialized"), Some("False"));
    let always = json!({"restartPolicy": "Always", "initContainers": inits});
    create(&pods(&cluster), pod("always", &images.serves, &always)).await;
    let again = |pod: Option<&Pod>| {
        let status = pod.and_then(|pod| pod.status.as_ref());
        let first = status.and_then(|of| container(of.init_container_statuses.as_ref()));
        first.is_some_and(|first| first.restart_count > 0)
    };
    let pod = eventually(pods(&cluster), "always", "another attempt", again).await;
    let pod = pod.unwrap();
    assert_eq!(phase(Some(&pod)), "Pending");
    assert!(waits(&pod), "{pod:?}");
    cluster.shutdown().await;
}
