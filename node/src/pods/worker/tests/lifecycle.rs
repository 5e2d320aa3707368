//! Hooks, exec probes and ephemeral containers of a pod.

use tokio::time::Instant;

use super::*;

/// A pod whose container has more to it.
fn with(more: &Value) -> Value {
    let mut spec = one("Always");
    let container = spec["containers"][0].as_object_mut().unwrap();
    container.extend(more.as_object().cloned().unwrap());
    spec
}

fn exec(code: &str) -> Value {
    json!({ "exec": { "command": ["exit", code] } })
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_hook_fails_is_ended_and_started_again() {
    let spec = with(&json!({ "lifecycle": { "postStart": exec("3") } }));
    let world = World::new(&spec).await;
    let status = world
        .until("restart", |status| container(status).restart_count >= 1)
        .await;
    assert!(container(&status).image_id.contains("@sha256:"));
    assert!(world.saw_event("FailedPostStartHook", "PostStartHook failed"));
    assert!(world.saw_event("Killing", "FailedPostStartHook"));
    // What a hook printed may be secret.
    assert!(!world.saw_event("FailedPostStartHook", "exit with 3"));
}

#[tokio::test(start_paused = true)]
async fn a_container_is_not_ready_before_its_hook_is_done() {
    let hook = json!({ "postStart": { "sleep": { "seconds": 20 } } });
    let begin = Instant::now();
    let world = World::new(&with(&json!({ "lifecycle": hook }))).await;
    world.until_running().await;
    assert!(begin.elapsed() >= Duration::from_secs(20));
    assert!(!world.saw_event("FailedPostStartHook", ""));
}

/// How long a pod with this hook takes to end, and whether the hook failed.
async fn ending(hook: &Value, grace: i64) -> (Duration, bool) {
    let world = World::new(&with(&json!({ "lifecycle": { "preStop": hook } }))).await;
    world.until_running().await;
    let begin = Instant::now();
    world.delete(grace);
    world.api.until("deleted", |state| state.deleted).await;
    let failed = world.saw_event("FailedPreStopHook", "PreStopHook failed");
    (begin.elapsed(), failed)
}

#[tokio::test(start_paused = true)]
async fn the_hook_before_the_end_has_the_grace_period() {
    let sleep = |seconds: i64| json!({ "sleep": { "seconds": seconds } });
    let refused = json!({ "httpGet": { "port": 9 } });
    for (hook, grace, least, most, fails) in [
        (sleep(7), 30, 7, 8, false),
        (sleep(60), 5, 5, 8, true),
        (sleep(60), 0, 0, 1, false),
        (exec("0"), 30, 0, 1, false),
        (exec("1"), 30, 0, 1, true),
        (refused, 30, 0, 1, true),
    ] {
        let (took, failed) = ending(&hook, grace).await;
        let seconds = took.as_secs_f64();
        let within = f64::from(least) <= seconds && seconds <= f64::from(most);
        assert!(within, "{hook}: {seconds}");
        assert_eq!(failed, fails, "{hook}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_decides_about_readiness() {
    let probe = |code: &str| {
        let mut probe = exec(code);
        probe["periodSeconds"] = json!(1);
        with(&json!({ "readinessProbe": probe }))
    };
    World::new(&probe("0")).await.until_running().await;
    let world = World::new(&probe("4")).await;
    world
        .until("running", |status| phase(status) == "Running")
        .await;
    world
        .api
        .until_event("Unhealthy", "Readiness probe failed: exit with 4")
        .await;
    let status = world.until("running", |_| true).await;
    assert!(!is(&status, "Ready"));
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_runs_beside_the_others() {
    let world = World::new(&one("Always")).await;
    world.until_running().await;
    world.desired.send_modify(|desired| {
        let mut pod = (*desired.pod).clone();
        let debug = json!([{ "name": "debug", "image": IMAGE, "stdin": true }]);
        let spec = pod.spec.as_mut().unwrap();
        spec.ephemeral_containers = serde_json::from_value(debug).unwrap();
        desired.pod = Arc::new(pod);
    });
    let state = |status: &PodStatus| {
        let all = status.ephemeral_container_statuses.as_ref()?;
        assert_eq!(all[0].name, "debug");
        all[0].state.clone()
    };
    world
        .until("debugging", |status| {
            state(status).is_some_and(|state| state.running.is_some())
        })
        .await;
    world.runtime.exit("debug", ExitStatus::exited(1));
    let status = world
        .until("debugged", |status| {
            state(status).is_some_and(|state| state.terminated.is_some())
        })
        .await;
    assert!(is(&status, "Ready"), "nobody waits for it");
    assert_eq!(world.runtime.starts().len(), 2);
}

/// Gives the container other resources, as `pods/NAME/resize` does.
fn resize(world: &World, cpu: &str, memory: &str) {
    world.desired.send_modify(|desired| {
        let mut pod = (*desired.pod).clone();
        let amounts = json!({ "cpu": cpu, "memory": memory });
        let resources = json!({ "requests": amounts, "limits": amounts });
        pod.spec.as_mut().unwrap().containers[0].resources =
            serde_json::from_value(resources).unwrap();
        desired.pod = Arc::new(pod);
    });
}

/// Waits until the container is said to have this much of `cpu`.
async fn until_resized(world: &World, cpu: &str) -> PodStatus {
    let has = |status: &PodStatus| {
        let resources = container(status).resources.as_ref()?;
        let requests = resources.requests.as_ref()?;
        Some(requests.get("cpu")?.0 == cpu)
    };
    world
        .until(cpu, |status| has(status).unwrap_or_default())
        .await
}

/// Reason of a condition that holds.
fn reason<'a>(status: &'a PodStatus, condition: &str) -> Option<&'a str> {
    let mut all = status.conditions.iter().flatten();
    let found = all.find(|found| found.type_ == condition && found.status == "True")?;
    found.reason.as_deref()
}

#[tokio::test(start_paused = true)]
async fn a_running_container_is_resized_where_the_node_has_room() {
    let resources = json!({ "requests": { "cpu": "10m" } });
    let world = World::new(&with(&json!({ "resources": resources }))).await;
    world.until_running().await;
    resize(&world, "20m", "2Mi");
    let status = until_resized(&world, "20m").await;
    assert_eq!(container(&status).restart_count, 0);
    assert_eq!(reason(&status, "PodResizePending"), None);

    resize(&world, "100000", "2Mi");
    let status = world
        .until("pending", |status| {
            reason(status, "PodResizePending").is_some()
        })
        .await;
    assert_eq!(reason(&status, "PodResizePending"), Some("Infeasible"));

    let all = world.context.machine.cpu_millis;
    let other = json!({ "containers": [
        { "name": "a", "resources": { "requests": { "cpu": format!("{}m", all - 20) } } }] });
    world.context.room.take("other", &pod(&other)).unwrap();
    resize(&world, "30m", "2Mi");
    world
        .until("deferred", |status| {
            reason(status, "PodResizePending") == Some("Deferred")
        })
        .await;
    world.context.room.release("other");
    let status = until_resized(&world, "30m").await;
    assert_eq!(reason(&status, "PodResizePending"), None);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_a_running_container_cannot_take_is_told_or_restarts_it() {
    let world = World::new(&one("Always")).await;
    world.until_running().await;
    resize(&world, "1m", "1Ki");
    world
        .until("failed", |status| {
            reason(status, "PodResizeInProgress") == Some("Error")
        })
        .await;

    let policy = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    let world = World::new(&with(&json!({ "resizePolicy": policy }))).await;
    world.until_running().await;
    resize(&world, "1m", "1Mi");
    world
        .until("restarted", |status| container(status).restart_count == 1)
        .await;
    assert!(world.saw_event("Killing", "Container a resize requires restart"));
    let status = until_resized(&world, "1m").await;
    assert_eq!(reason(&status, "PodResizeInProgress"), None);
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_room_fails_and_says_why() {
    let short = Room::of(&Machine::inspect())
        .take(
            "u",
            &pod(&with(
                &json!({ "resources": { "requests": { "cpu": "9999" } } }),
            )),
        )
        .unwrap_err();
    let world = World::refused(&one("Always"), short.into()).await;
    let status = world
        .until("failed", |status| phase(status) == "Failed")
        .await;
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    let message = status.message.unwrap();
    let wanted = "Pod was rejected: Node didn't have enough resource: cpu, requested: 9999000";
    assert!(message.starts_with(wanted), "{message}");
    world
        .api
        .until_event("OutOfcpu", "Node didn't have enough resource: cpu")
        .await;
    assert!(world.runtime.starts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_keeps_more_on_disk_than_it_may_is_evicted() {
    let mut spec = with(&json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }));
    spec["volumes"] = json!([{ "name": "v", "emptyDir": { "sizeLimit": "1Ki" } }]);
    let world = World::new(&spec).await;
    world.until_running().await;
    let volume = world.directory.path().join("pods/uid-1/volumes/v");
    std::fs::write(volume.join("file"), vec![0; 2048]).unwrap();
    let status = world
        .until("evicted", |status| phase(status) == "Failed")
        .await;
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    let target = reason(&status, "DisruptionTarget");
    assert_eq!(target, Some("TerminationByKubelet"));
    let words = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\"";
    world.api.until_event("Evicted", words).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_makes_room_for_its_node_fails_at_once() {
    let world = World::new(&one("Always")).await;
    world.until_running().await;
    let message = "The node was low on resource: memory. ".to_owned();
    world
        .desired
        .send_modify(|desired| desired.evicted = Some(message));
    let status = world
        .until("evicted", |status| phase(status) == "Failed")
        .await;
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(
        reason(&status, "DisruptionTarget"),
        Some("TerminationByKubelet")
    );
}
