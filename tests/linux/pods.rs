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
        "id -u; id -g; id -G; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; touch /x 2>/dev/null || echo read-only",
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

/// What a terminal shows comes as it is printed, and its size is the client's.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_terminal_is_talked_to() {
    use kube::api::AttachParams;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Some(world) = World::new().await else {
        return;
    };
    let mut pod = world.script("shell", "");
    pod["spec"]["containers"][0]["command"] = json!(["/bin/sh"]);
    pod["spec"]["containers"][0]["tty"] = json!(true);
    pod["spec"]["containers"][0]["stdin"] = json!(true);
    world.create(&pod).await;
    world.until_running("shell").await;
    let client = world.cluster.client_over_tls().await.unwrap();
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(client, "default");
    let params = AttachParams::interactive_tty();
    let mut attached = pods.attach("shell", &params).await.unwrap();
    let size = kube::api::TerminalSize {
        width: 101,
        height: 31,
    };
    let mut sizes = attached.terminal_size().unwrap();
    futures::SinkExt::send(&mut sizes, size).await.unwrap();
    let mut stdin = attached.stdin().unwrap();
    let mut stdout = attached.stdout().unwrap();
    let mut seen = String::new();
    let talk = async {
        // The prompt has no end of line, and is seen all the same.
        while !(seen.contains("31 101") && seen.contains("/work # ")) {
            // Until the size has arrived, which nothing tells.
            stdin.write_all(b"stty size\n").await.unwrap();
            let mut piece = [0; 256];
            let length = stdout.read(&mut piece).await.unwrap();
            assert_ne!(length, 0, "the connection ended after {seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        stdin.write_all(b"exit 4\n").await.unwrap();
    };
    tokio::time::timeout(windlass_tests::PATIENCE, talk)
        .await
        .unwrap_or_else(|_| panic!("no size, or no prompt: {seen}"));
    let ended = world
        .until("shell", "the end", |pod| {
            exit_code(&container(pod)).is_some()
        })
        .await;
    assert_eq!(exit_code(&container(&ended)), Some(4));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_class_names_a_handler_that_the_node_has_or_not() {
    let Some(world) = World::new().await else {
        return;
    };
    for (class, handler) in [("plain", "runc"), ("other", "nosuch")] {
        let class = json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": class }, "handler": handler });
        let path = "/apis/node.k8s.io/v1/runtimeclasses";
        world.cluster.create(path, &class).await.unwrap();
    }
    let mut pod = world.script("plain", "echo up");
    pod["spec"]["runtimeClassName"] = json!("plain");
    assert_eq!(world.run(&pod).await.1, "up\n");
    let mut pod = world.script("other", "echo up");
    pod["spec"]["runtimeClassName"] = json!("other");
    world.create(&pod).await;
    let told = |pod: &k8s_openapi::api::core::v1::Pod| {
        let waiting = container(pod)
            .state
            .and_then(|state| state.waiting?.message);
        waiting.is_some_and(|text| text.contains("RuntimeHandler \"nosuch\" not supported"))
    };
    world.until("other", "the reason", told).await;
    world.delete("other").await;
    world.end().await;
}

/// Conformance: Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu
#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_uses_is_counted_and_bounded_by_what_it_may() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut pod = world.script("busy", "while true; do :; done");
    pod["spec"]["containers"][0]["resources"] =
        json!({ "limits": { "memory": "64Mi", "cpu": "200m" } });
    world.create(&pod).await;
    world.until_running("busy").await;
    let path = format!("/api/v1/nodes/{}/proxy/stats/summary", crate::NODE);
    let used = async {
        loop {
            let answer = world
                .cluster
                .request(http::Method::GET, &path, &[], "")
                .await
                .unwrap();
            let of = &answer.body["pods"][0]["containers"][0];
            let cpu = of["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap_or(0);
            let memory = of["memory"]["workingSetBytes"].as_u64().unwrap_or(0);
            if cpu > 0 && memory > 0 {
                return memory;
            }
            tokio::task::yield_now().await;
        }
    };
    let memory = tokio::time::timeout(windlass_tests::PATIENCE, used)
        .await
        .expect("nothing is counted");
    assert!(memory < 64 << 20, "{memory}");
    let (_, quota) = world
        .exec(
            "busy",
            &[
                "sh",
                "-c",
                "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null",
            ],
            "",
        )
        .await;
    assert!(quota.starts_with("20000"), "{quota}");
    world.delete("busy").await;
    world.end().await;
}

/// A plugin of the network that gives out one address and makes nothing, for a pod that only looks at what it was told.
const PLUGIN: &str = r#"#!/bin/sh
[ "$CNI_COMMAND" = VERSION ] && echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}'
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'"$CNI_NETNS"'"}],"ips":[{"version":"4","address":"10.9.9.9/24","interface":0}]}'
exit 0
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_network_of_its_own_has_a_name_and_servers() {
    use std::os::unix::fs::PermissionsExt;
    let Some(world) = World::new().await else {
        return;
    };
    let cni = world.directory.join("containerd/cni");
    std::fs::create_dir_all(cni.join("bin")).unwrap();
    std::fs::create_dir_all(cni.join("conf")).unwrap();
    for name in ["stub", "loopback"] {
        let path = cni.join("bin").join(name);
        std::fs::write(&path, PLUGIN).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let network = json!({ "cniVersion": "0.4.0", "name": "stub", "plugins": [{ "type": "stub" }] });
    std::fs::write(cni.join("conf/10-stub.conflist"), network.to_string()).unwrap();
    let script = "hostname; cat /etc/resolv.conf; tail -n 1 /etc/hosts; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let mut pod = world.script("named", script);
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.remove("hostNetwork");
    spec.insert("hostname".to_owned(), json!("called"));
    let sysctls =
        json!({ "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "80" }] });
    spec.insert("securityContext".to_owned(), sysctls);
    let (_, logs) = world.run(&pod).await;
    assert!(logs.starts_with("called\n"), "{logs}");
    assert!(
        logs.contains("search default.svc.cluster.local svc.cluster.local cluster.local\n"),
        "{logs}"
    );
    assert!(logs.contains("options ndots:5\n"), "{logs}");
    assert!(logs.contains("\tcalled\n80\n"), "{logs}");
    world.delete("named").await;
    world.end().await;
}
