//! Jobs: results counted once, indexes, limits, suspension.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, eventually, merge};

fn job(spec: Value) -> Value {
    let mut spec = spec;
    spec["template"] = json!({"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "i"}]}});
    json!({"metadata": {"name": "sum"}, "spec": spec})
}

/// Ends a pod as its node would.
async fn end(pods: &Api<Pod>, name: &str, phase: &str) {
    let code = i32::from(phase == "Failed");
    let status = json!({"status": {"phase": phase, "containerStatuses": [{
        "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"}}}]}});
    let patch = Patch::Merge(&status);
    pods.patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

fn running(all: &BTreeMap<String, Pod>) -> Vec<String> {
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    let running = all.iter().filter(|(_, pod)| {
        pod.metadata.deletion_timestamp.is_none()
            && phase(pod).is_none_or(|phase| phase == "Pending")
    });
    running.map(|(name, _)| name.clone()).collect()
}

fn holds(all: &BTreeMap<String, Job>, kind: &str) -> bool {
    let status = all.get("sum").and_then(|job| job.status.as_ref());
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|of| of.type_ == kind && of.status == "True")
}

/// Conformance: [sig-apps] Job should manage the lifecycle of a job [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_until_enough_pods_have_succeeded_and_lets_them_go() {
    let cluster = Cluster::start().await;
    let (jobs, pods) = (cluster.api::<Job>(), cluster.api::<Pod>());
    create(&jobs, job(json!({"completions": 3, "parallelism": 2}))).await;
    for _ in 0..3 {
        let all = eventually(&pods, |all| {
            !running(all).is_empty() && running(all).len() <= 2
        })
        .await;
        end(&pods, &running(&all)[0], "Succeeded").await;
        let left = running(&all).len() - 1;
        eventually(&pods, |now| {
            running(now).len() != left + 1 || now.len() > all.len()
        })
        .await;
    }
    let done = eventually(&jobs, |all| holds(all, "Complete")).await;
    let status = done["sum"].status.as_ref().unwrap();
    assert_eq!(
        (status.succeeded, status.failed, status.active),
        (Some(3), None, None)
    );
    assert!(status.completion_time.is_some() && holds(&done, "SuccessCriteriaMet"));
    let all = eventually(&pods, |all| {
        all.values()
            .all(|pod| pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty))
    })
    .await;
    assert_eq!(all.len(), 3);
    eventually(&cluster.api::<Event>(), |all| {
        all.values()
            .any(|event| event.reason.as_deref() == Some("Completed"))
    })
    .await;
    // With the Job go its pods.
    jobs.delete("sum", &DeleteParams::background())
        .await
        .unwrap();
    eventually(&pods, |all| all.is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_fifty_indexes_says_which_two_failed() {
    let cluster = Cluster::start().await;
    let (jobs, pods) = (cluster.api::<Job>(), cluster.api::<Pod>());
    let spec = json!({"completions": 50, "parallelism": 50, "completionMode": "Indexed",
        "backoffLimitPerIndex": 0});
    create(&jobs, job(spec)).await;
    let all = eventually(&pods, |all| running(all).len() == 50).await;
    for (name, pod) in &all {
        let index =
            &pod.metadata.annotations.as_ref().unwrap()["batch.kubernetes.io/job-completion-index"];
        let phase = if ["7", "20"].contains(&index.as_str()) {
            "Failed"
        } else {
            "Succeeded"
        };
        assert_eq!(
            pod.spec.as_ref().unwrap().hostname.as_ref().unwrap(),
            &format!("sum-{index}")
        );
        end(&pods, name, phase).await;
    }
    let done = eventually(&jobs, |all| holds(all, "Failed")).await;
    let status = done["sum"].status.as_ref().unwrap();
    assert_eq!(status.completed_indexes.as_deref(), Some("0-6,8-19,21-49"));
    assert_eq!(status.failed_indexes.as_deref(), Some("7,20"));
    assert_eq!((status.succeeded, status.failed), (Some(48), Some(2)));
    let conditions = status.conditions.as_ref().unwrap();
    let failed = conditions.iter().find(|of| of.type_ == "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("FailedIndexes"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_too_often_or_is_suspended_has_no_pods_running() {
    let cluster = Cluster::start().await;
    let (jobs, pods) = (cluster.api::<Job>(), cluster.api::<Pod>());
    create(
        &jobs,
        job(json!({"parallelism": 2, "completions": 2, "backoffLimit": 0})),
    )
    .await;
    let all = eventually(&pods, |all| running(all).len() == 2).await;
    merge(&jobs, "sum", json!({"spec": {"suspend": true}})).await;
    eventually(&jobs, |all| holds(all, "Suspended")).await;
    eventually(&pods, |now| all.keys().all(|name| !now.contains_key(name))).await;
    merge(&jobs, "sum", json!({"spec": {"suspend": false}})).await;
    let all = eventually(&pods, |all| running(all).len() == 2).await;
    eventually(&jobs, |all| !holds(all, "Suspended")).await;
    // The pods that the suspension cost have not failed.
    let now = eventually(&jobs, |_| true).await;
    assert_eq!(now["sum"].status.as_ref().unwrap().failed, None);
    end(&pods, all.keys().next().unwrap(), "Failed").await;
    let done = eventually(&jobs, |all| holds(all, "Failed")).await;
    let conditions = done["sum"]
        .status
        .as_ref()
        .unwrap()
        .conditions
        .as_ref()
        .unwrap();
    let failed = conditions.iter().find(|of| of.type_ == "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
    eventually(&pods, |all| running(all).is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] CronJob should not schedule jobs when suspended [Conformance] [Slow]
#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_makes_what_is_due_and_nothing_while_it_is_suspended() {
    let cluster = Cluster::start().await;
    let (cron_jobs, jobs) = (cluster.api::<CronJob>(), cluster.api::<Job>());
    let template = job(json!({"ttlSecondsAfterFinished": 0}))["spec"].clone();
    let spec = |suspend: bool| {
        json!({"schedule": "* * * * *", "suspend": suspend, "concurrencyPolicy": "Forbid",
            "jobTemplate": {"spec": template}})
    };
    create(
        &cron_jobs,
        json!({"metadata": {"name": "suspended"}, "spec": spec(true)}),
    )
    .await;
    create(
        &cron_jobs,
        json!({"metadata": {"name": "due"}, "spec": spec(false)}),
    )
    .await;
    // The time that was last served is long ago, so one is due now.
    let status = json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}});
    for name in ["due", "suspended"] {
        let patch = Patch::Merge(&status);
        cron_jobs
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    let made = eventually(&jobs, |all| !all.is_empty()).await;
    let (name, made) = made.iter().next().unwrap();
    assert!(name.starts_with("due-"), "{name}");
    assert_eq!(
        made.metadata.owner_references.as_ref().unwrap()[0].name,
        "due"
    );
    eventually(&cron_jobs, |all| {
        let active = all["due"]
            .status
            .as_ref()
            .and_then(|status| status.active.as_ref());
        active.is_some_and(|active| active[0].name.as_ref() == Some(name))
    })
    .await;
    let suspended = &eventually(&cron_jobs, |_| true).await["suspended"];
    assert!(suspended.status.as_ref().unwrap().active.is_none());
    // The Job ends, and goes at once, as it says.
    let pods = cluster.api::<Pod>();
    let all = eventually(&pods, |all| running(all).len() == 1).await;
    end(&pods, all.keys().next().unwrap(), "Succeeded").await;
    eventually(&jobs, |all| !all.contains_key(name)).await;
    eventually(&cron_jobs, |all| {
        let status = all["due"].status.as_ref().unwrap();
        status
            .active
            .as_ref()
            .is_none_or(|active| active[0].name.as_ref() != Some(name))
    })
    .await;
    cluster.stop().await;
}
