//! sig-apps: StatefulSets, DaemonSets, ControllerRevisions, Jobs and CronJobs.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{owned_by, pod_spec, template, workload};
use crate::cluster::{Cluster, create, eventually, merge};

fn daemon_set() -> Value {
    json!({"metadata": {"name": "d", "labels": {"app": "d"}}, "spec": {
        "selector": {"matchLabels": {"app": "d"}}, "template": template("d")}})
}

fn is_on_all(all: &BTreeMap<String, DaemonSet>, nodes: i32) -> bool {
    let status = all.get("d").and_then(|set| set.status.as_ref());
    status.is_some_and(|status| {
        (status.desired_number_scheduled, status.number_ready) == (nodes, nodes)
            && status.observed_generation == all["d"].metadata.generation
            && status.updated_number_scheduled == Some(nodes)
    })
}

async fn strategic_status<K>(api: &Api<K>, name: &str) -> K
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let condition =
        json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set"});
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    api.patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap()
}

/// Conformance: [sig-apps] Daemon set should run and stop complex daemon [Conformance] [Serial]
/// Conformance: [sig-apps] Daemon set should verify changes to a daemon set status [Conformance] [Serial]
/// Conformance: [sig-apps] Daemon set should list and delete a collection of DaemonSets [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_follows_the_labels_of_nodes_and_goes_with_others() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (sets, pods) = (cluster.api::<DaemonSet>(), cluster.api::<Pod>());
    let mut object = daemon_set();
    object["spec"]["template"]["spec"]["nodeSelector"] = json!({"color": "blue"});
    create(&sets, object).await;
    eventually(&sets, |all| is_on_all(all, 0)).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    merge(
        &nodes,
        "n1",
        json!({"metadata": {"labels": {"color": "blue"}}}),
    )
    .await;
    eventually(&sets, |all| is_on_all(all, 1)).await;
    merge(
        &nodes,
        "n1",
        json!({"metadata": {"labels": {"color": "green"}}}),
    )
    .await;
    eventually(&pods, |all| all.is_empty()).await;
    merge(
        &sets,
        "d",
        json!({"spec": {"template": {"spec": {"nodeSelector": {"color": "green"}}}}}),
    )
    .await;
    eventually(&sets, |all| is_on_all(all, 1)).await;
    let written = strategic_status(&sets, "d").await.status.unwrap();
    assert!(
        written
            .conditions
            .unwrap()
            .iter()
            .any(|of| of.type_ == "StatusUpdate")
    );
    let own = ListParams::default().labels("app=d");
    sets.delete_collection(&DeleteParams::background(), &own)
        .await
        .unwrap();
    eventually(&sets, |all| all.is_empty()).await;
    eventually(&pods, |all| all.is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] Daemon set should rollback without unnecessary restarts [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn undoing_a_rollout_that_is_stuck_leaves_the_pods_alone_that_it_did_not_reach() {
    let mut cluster = Cluster::start().await;
    for node in ["n1", "n2"] {
        cluster.node(node).await;
    }
    let (sets, pods) = (cluster.api::<DaemonSet>(), cluster.api::<Pod>());
    create(&sets, daemon_set()).await;
    eventually(&sets, |all| is_on_all(all, 2)).await;
    let before = eventually(&pods, |all| all.len() == 2).await;
    // No node has what the new pods ask for, so the first of them never runs.
    let container = |more: Value| json!({"spec": {"template": {"spec": {"containers": [more]}}}});
    let asks = json!({"name": "c", "image": "new", "resources": {"requests": {"cpu": "999"}}});
    merge(&sets, "d", container(asks)).await;
    eventually(&pods, |all| {
        all.keys().any(|name| !before.contains_key(name))
    })
    .await;
    merge(&sets, "d", container(json!({"name": "c", "image": "i"}))).await;
    eventually(&sets, |all| is_on_all(all, 2)).await;
    let after = eventually(&pods, |all| all.len() == 2).await;
    assert_eq!(
        after
            .keys()
            .filter(|name| before.contains_key(*name))
            .count(),
        1
    );
    cluster.stop().await;
}

/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource [Conformance]
/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints [Conformance]
/// Conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of StatefulSets [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_is_scaled_given_a_status_patched_and_deleted_with_others() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (sets, pods) = (cluster.api::<StatefulSet>(), cluster.api::<Pod>());
    let mut object = workload("s", 1);
    object["spec"]["serviceName"] = json!("s");
    create(&sets, object).await;
    let ready = |all: &BTreeMap<String, StatefulSet>, count: i32| {
        let status = all.get("s").and_then(|set| set.status.as_ref());
        status.is_some_and(|status| status.ready_replicas == Some(count))
    };
    eventually(&sets, |all| ready(all, 1)).await;
    assert_eq!(
        sets.get_scale("s").await.unwrap().spec.unwrap().replicas,
        Some(1)
    );
    let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
    sets.patch_scale("s", &PatchParams::default(), &scale)
        .await
        .unwrap();
    eventually(&sets, |all| ready(all, 2)).await;
    let written = strategic_status(&sets, "s").await.status.unwrap();
    assert!(
        written
            .conditions
            .unwrap()
            .iter()
            .any(|of| of.type_ == "StatusUpdate")
    );
    let change = json!({"metadata": {"labels": {"step": "two"}}, "spec": {"template": {"spec": {
        "containers": [{"name": "c", "image": "new"}]}}}});
    merge(&sets, "s", change).await;
    eventually(&pods, |all| {
        let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone();
        all.len() == 2 && all.values().all(|pod| image(pod).as_deref() == Some("new"))
    })
    .await;
    let own = ListParams::default().labels("step=two");
    sets.delete_collection(&DeleteParams::background(), &own)
        .await
        .unwrap();
    eventually(&sets, |all| all.is_empty()).await;
    eventually(&pods, |all| all.is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] ControllerRevision should manage the lifecycle of a ControllerRevision [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_lost_is_made_again() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (sets, revisions) = (
        cluster.api::<DaemonSet>(),
        cluster.api::<ControllerRevision>(),
    );
    create(&sets, daemon_set()).await;
    let all = eventually(&revisions, |all| all.len() == 1).await;
    let (name, first) = all.iter().next().unwrap();
    let labelled = merge(
        &revisions,
        name,
        json!({"metadata": {"labels": {"step": "two"}}}),
    )
    .await;
    assert_eq!(labelled.metadata.labels.unwrap()["step"], "two");
    revisions
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    merge(
        &sets,
        "d",
        json!({"metadata": {"labels": {"look": "again"}}}),
    )
    .await;
    let again = eventually(&revisions, |all| {
        all.get(name)
            .is_some_and(|found| found.metadata.uid != first.metadata.uid)
    })
    .await;
    assert_eq!(again[name].data, first.data);
    merge(
        &sets,
        "d",
        json!({"spec": {"template": {"metadata": {"labels": {"new": "yes"}}}}}),
    )
    .await;
    eventually(&revisions, |all| all.len() == 2).await;
    cluster.stop().await;
}

fn job(name: &str, parallelism: i32) -> Value {
    let mut spec = pod_spec();
    spec["restartPolicy"] = json!("Never");
    json!({"metadata": {"name": name}, "spec": {"parallelism": parallelism, "completions": 9,
        "template": {"spec": spec}}})
}

/// Conformance: [sig-apps] Job should adopt matching orphans and release non-matching pods [Conformance]
/// Conformance: [sig-apps] Job should apply changes to a job status [Conformance]
/// Conformance: [sig-apps] Job should delete a job [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_adopts_and_releases_pods_has_a_status_and_takes_its_pods_with_it() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (jobs, pods) = (cluster.api::<Job>(), cluster.api::<Pod>());
    create(&jobs, job("j", 2)).await;
    let all = eventually(&pods, |all| owned_by(all, "Job") == 2).await;
    let name = all.keys().next().unwrap();
    let labels = all[name].metadata.labels.clone().unwrap();
    merge(&pods, name, json!({"metadata": {"ownerReferences": null}})).await;
    let owners = |all: &BTreeMap<String, Pod>| -> usize {
        all.get(name).map_or(0, |pod| {
            pod.metadata.owner_references.iter().flatten().count()
        })
    };
    eventually(&pods, |all| owners(all) == 1).await;
    let none: BTreeMap<_, _> = labels
        .keys()
        .map(|key| (key.clone(), Value::Null))
        .collect();
    merge(&pods, name, json!({"metadata": {"labels": none}})).await;
    eventually(&pods, |all| owners(all) == 0 && owned_by(all, "Job") == 2).await;
    let written = strategic_status(&jobs, "j").await.status.unwrap();
    assert!(
        written
            .conditions
            .unwrap()
            .iter()
            .any(|of| of.type_ == "StatusUpdate")
    );
    jobs.delete("j", &DeleteParams::foreground()).await.unwrap();
    eventually(&jobs, |all| all.is_empty()).await;
    eventually(&pods, |all| owned_by(all, "Job") == 0).await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] CronJob should schedule multiple jobs concurrently [Conformance]
/// Conformance: [sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Conformance] [Slow]
/// Conformance: [sig-apps] CronJob should replace jobs when ReplaceConcurrent [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_due_run_beside_instead_of_or_after_those_that_run() {
    let cluster = Cluster::start().await;
    let (cron_jobs, jobs) = (cluster.api::<CronJob>(), cluster.api::<Job>());
    let names = |all: &BTreeMap<String, Job>, of: &str| -> Vec<String> {
        all.keys()
            .filter(|name| name.starts_with(of))
            .cloned()
            .collect()
    };
    for policy in ["Allow", "Forbid", "Replace"] {
        let name = policy.to_lowercase();
        let object = json!({"metadata": {"name": name}, "spec": {"schedule": "* * * * *", "suspend": true,
            "concurrencyPolicy": policy, "jobTemplate": {"spec": job("", 1)["spec"]}}});
        let made = create(&cron_jobs, object).await;
        let uid = made.metadata.uid.unwrap();
        // One of its Jobs runs, and never ends.
        let mut running = job(&format!("{name}-running"), 1);
        running["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "CronJob",
            "name": name, "uid": uid, "controller": true}]);
        let running = create(&jobs, running).await;
        let active = json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": "default",
            "name": running.metadata.name, "uid": running.metadata.uid});
        let status =
            json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z", "active": [active]}});
        let patch = Patch::Merge(status);
        cron_jobs
            .patch_status(&name, &PatchParams::default(), &patch)
            .await
            .unwrap();
        merge(&cron_jobs, &name, json!({"spec": {"suspend": false}})).await;
    }
    let old = |of: &str| format!("{of}-running");
    eventually(&jobs, |all| {
        names(all, "allow").len() >= 2
            && !names(all, "replace").contains(&old("replace"))
            && names(all, "replace").len() == 1
    })
    .await;
    eventually(&cluster.api::<Event>(), |all| {
        all.values()
            .any(|event| event.reason.as_deref() == Some("JobAlreadyActive"))
    })
    .await;
    assert_eq!(
        names(&eventually(&jobs, |_| true).await, "forbid"),
        [old("forbid")]
    );
    cluster.stop().await;
}
