//! What lives on when the agent or containerd does not.

use std::process::Command;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::LogParams;
use serde_json::json;
use windlass_tests::eventually;

use crate::{NODE, World, container, is_running};

fn condition(node: Option<&Node>, kind: &str) -> Option<(String, String)> {
    let status = node?.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let found = conditions.find(|condition| condition.type_ == kind)?;
    Some((
        found.status.clone(),
        found.message.clone().unwrap_or_default(),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_run_on_while_no_agent_does_and_are_taken_over() {
    let Some(mut world) = World::new().await else {
        return;
    };
    let mut pod = world.script(
        "lives",
        "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done",
    );
    pod["spec"]["restartPolicy"] = json!("Always");
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({ "exec": { "command": ["true"] }, "periodSeconds": 1 });
    world.create(&pod).await;
    let before = world
        .until("lives", "ready", |pod| container(pod).ready)
        .await;
    let pid = |world: &World| {
        let found = crate::machine::processes_of(&world.directory);
        found.len()
    };
    world.cluster.kill_node(NODE);
    assert!(pid(&world) > 0, "the container's shim went with the agent");
    world.start_node().await;
    // The agent is there again, and what it says of the pod is what was.
    let (_, text) = world
        .exec_eventually("lives", &["echo", "still here"])
        .await;
    assert_eq!(text, "still here\n");
    let after = world
        .until("lives", "ready", |pod| container(pod).ready)
        .await;
    let (before, after) = (container(&before), container(&after));
    assert_eq!(before.container_id, after.container_id);
    assert_eq!(after.restart_count, 0);
    let logs = world
        .pods()
        .logs("lives", &LogParams::default())
        .await
        .unwrap();
    let numbers: Vec<u32> = logs.lines().map(|line| line.parse().unwrap()).collect();
    let wanted: Vec<u32> = (0..u32::try_from(numbers.len()).unwrap()).collect();
    assert_eq!(numbers, wanted, "no line is lost or told twice");
    world.delete("lives").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_went_while_no_agent_ran_leaves_nothing() {
    let Some(mut world) = World::new().await else {
        return;
    };
    world.create(&world.script("orphan", "sleep 600")).await;
    world.until_running("orphan").await;
    world.cluster.kill_node(NODE);
    let now = kube::api::DeleteParams {
        grace_period_seconds: Some(0),
        ..Default::default()
    };
    world.pods().delete("orphan", &now).await.unwrap();
    eventually(world.pods(), "orphan", "the end", |pod: Option<&Pod>| {
        pod.is_none()
    })
    .await;
    world.start_node().await;
    // The other pod is there to tell that the agent has looked around.
    let (_, logs) = world.run(&world.script("next", "echo up")).await;
    assert_eq!(logs, "up\n");
    let gone = async {
        while crate::machine::processes_of(&world.directory)
            .iter()
            .any(|pid| {
                let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                command.starts_with(b"sleep\x00600") || command.ends_with(b"sleep 600\0")
            })
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(windlass_tests::PATIENCE, gone)
        .await
        .expect("the orphan runs on");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_that_dies_is_started_again_and_no_container_minds() {
    let Some(world) = World::new().await else {
        return;
    };
    world.create(&world.script("lives", "sleep 600")).await;
    let before = world.until_running("lives").await;
    let nodes: Api<Node> = Api::all(world.cluster.client());
    let kind = "LinuxContainersReady";
    let ready =
        |node: Option<&Node>| condition(node, kind).is_some_and(|(status, _)| status == "True");
    eventually(nodes.clone(), NODE, "containerd", ready).await;
    let pid = std::fs::read_to_string(world.directory.join("containerd/containerd.pid")).unwrap();
    let killed = Command::new("kill")
        .args(["-KILL", pid.trim()])
        .status()
        .unwrap();
    assert!(killed.success());
    let (_, logs) = world.run(&world.script("next", "echo up")).await;
    assert_eq!(logs, "up\n");
    eventually(nodes, NODE, "containerd again", ready).await;
    let after = world.until("lives", "running", is_running).await;
    assert_eq!(
        container(&before).container_id,
        container(&after).container_id
    );
    assert_eq!(container(&after).restart_count, 0);
    let (code, _) = world.exec("lives", &["true"], "").await;
    assert_eq!(code, 0);
    world.delete("lives").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_died_is_made_anew_for_the_next_start() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut pod = world.script(
        "sandbox",
        "while [ ! -f /tmp/go ]; do sleep 0.1; done; exit 1",
    );
    pod["spec"]["restartPolicy"] = json!("Always");
    world.create(&pod).await;
    let before = world.until_running("sandbox").await;
    let pause = crate::machine::processes_of(&world.directory)
        .into_iter()
        .find(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|command| command == b"/pause\0")
        });
    let killed = Command::new("kill")
        .args(["-KILL", &pause.unwrap().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    world.exec("sandbox", &["touch", "/tmp/go"], "").await;
    let again = |pod: &Pod| container(pod).restart_count == 1 && container(pod).ready;
    let after = world.until("sandbox", "another start", again).await;
    assert_ne!(
        container(&before).container_id,
        container(&after).container_id
    );
    world.delete("sandbox").await;
    world.end().await;
}
