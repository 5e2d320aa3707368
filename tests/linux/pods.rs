//! What a container is given, and how it ends.

use serde_json::json;

use crate::{World, container, exit_code, is_running, reason};

/// Conformance: Pods should get a host IP
/// Conformance: Docker Containers should be able to override the image's default command (container entrypoint)
#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_with_its_environment_and_its_end_is_told() {
    let Some(world) = World::new().await else {
        return;
    };
    let script =
        "echo $FROM_IMAGE $OWN in $(pwd); echo bad >&2; printf why > /dev/termination-log; exit 3";
    let mut pod = world.script("ends", script);
    pod["spec"]["containers"][0]["env"] = json!([{ "name": "OWN", "value": "mine" }]);
    let (status, logs) = world.run(&pod).await;
    let mut lines: Vec<_> = logs.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["bad", "yes mine in /work"]);
    assert_eq!(exit_code(&status), Some(3));
    assert_eq!(reason(&status).as_deref(), Some("Error"));
    let ended = status.state.unwrap().terminated.unwrap();
    assert_eq!(ended.message.as_deref(), Some("why"));
    assert!(ended.container_id.unwrap().starts_with("containerd://"));
    assert!(status.image_id.contains("@sha256:"));
    let (status, _) = world.run(&world.script("well", "true")).await;
    assert_eq!(reason(&status).as_deref(), Some("Completed"));
    world.end().await;
}

/// Conformance: Security Context When creating a container with runAsUser should run the container with uid 65534
#[tokio::test(flavor = "multi_thread")]
async fn a_security_context_is_kept() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut pod = world.script(
        "secure",
        "id -u; id -g; id -G; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; touch /x || echo read-only",
    );
    pod["spec"]["securityContext"] =
        json!({ "runAsUser": 1234, "runAsGroup": 5678, "fsGroup": 99, "supplementalGroups": [98] });
    pod["spec"]["containers"][0]["securityContext"] = json!({
        "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
    });
    let (_, logs) = world.run(&pod).await;
    for wanted in [
        "1234\n5678\n5678 ",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "read-only",
    ] {
        assert!(logs.contains(wanted), "{wanted} is not in {logs}");
    }
    let groups = logs.lines().nth(2).unwrap_or_default();
    assert!(groups.contains("98") && groups.contains("99"), "{logs}");

    let mut pod = world.script("root", "true");
    pod["spec"]["securityContext"] = json!({ "runAsNonRoot": true });
    world.create(&pod).await;
    let waits = |pod: &k8s_openapi::api::core::v1::Pod| {
        let waiting = container(pod).state.and_then(|state| state.waiting);
        waiting.is_some_and(|waiting| {
            waiting.reason.as_deref() == Some("CreateContainerConfigError")
                && waiting
                    .message
                    .is_some_and(|text| text.contains("image will run as root"))
        })
    };
    world.until("root", "the refusal", waits).await;
    world.delete("root").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_a_container_with_input_and_exit_codes() {
    let Some(world) = World::new().await else {
        return;
    };
    world
        .create(&world.script(
            "exec",
            "trap 'exit 0' TERM; echo up; while true; do sleep 0.1; done",
        ))
        .await;
    world.until_running("exec").await;
    assert_eq!(
        world
            .exec("exec", &["sh", "-c", "echo $FROM_IMAGE; exit 7"], "")
            .await,
        (7, "yes\n".to_owned())
    );
    assert_eq!(
        world.exec("exec", &["cat"], "some input").await,
        (0, "some input".to_owned())
    );
    let (code, _) = world.exec("exec", &["nosuch"], "").await;
    assert_ne!(code, 0);
    world.delete("exec").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_uses_too_much_memory_is_killed_for_that() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut pod = world.script("greedy", "x=1234567890123456; while true; do x=$x$x; done");
    pod["spec"]["containers"][0]["resources"] =
        json!({ "limits": { "memory": "16Mi", "cpu": "500m" } });
    let (status, _) = world.run(&pod).await;
    assert_eq!(exit_code(&status), Some(137));
    assert_eq!(reason(&status).as_deref(), Some("OOMKilled"));
    world.end().await;
}

/// Conformance: Probing container should be restarted with a exec "cat /tmp/health" liveness probe
#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_about_readiness_and_restarts() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut pod = world.script(
        "probed",
        "touch /tmp/health; sleep 3; rm /tmp/health; sleep 600",
    );
    pod["spec"]["restartPolicy"] = json!("Always");
    let probe = json!({ "exec": { "command": ["cat", "/tmp/health"] }, "periodSeconds": 1, "failureThreshold": 1 });
    pod["spec"]["containers"][0]["readinessProbe"] = probe.clone();
    pod["spec"]["containers"][0]["livenessProbe"] = probe;
    world.create(&pod).await;
    world
        .until("probed", "ready", |pod| container(pod).ready)
        .await;
    let again = world
        .until("probed", "another start", |pod| {
            container(pod).restart_count > 0 && is_running(pod)
        })
        .await;
    let last = container(&again).last_state.unwrap().terminated.unwrap();
    assert!(last.container_id.is_some());
    world.delete("probed").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_told() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut pod = world.script("nothing", "");
    pod["spec"]["containers"][0]["command"] = json!(["/nosuch"]);
    world.create(&pod).await;
    let told = |pod: &k8s_openapi::api::core::v1::Pod| {
        let waiting = container(pod).state.and_then(|state| state.waiting);
        waiting.is_some_and(|waiting| {
            waiting.reason.as_deref() == Some("RunContainerError")
                && waiting
                    .message
                    .is_some_and(|text| text.contains("no such file or directory"))
        })
    };
    world.until("nothing", "the reason", told).await;
    world.delete("nothing").await;
    world.end().await;
}
