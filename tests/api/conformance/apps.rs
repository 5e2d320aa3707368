//! sig-apps: CronJobs and budgets as objects.

use serde_json::json;

use super::collection::{Collection, PatchType, SELECTOR, named, names_of};
use super::matrix::{Matrix, NAMESPACE, with_namespace};

/// Conformance: [sig-apps] CronJob should support CronJob API operations [Conformance]
#[tokio::test]
async fn cron_jobs_can_be_operated_on() {
    let pod = json!({"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i:1"}]});
    let cron_job = json!({"spec": {
        "schedule": "0 0 1 1 *", "concurrencyPolicy": "Allow", "suspend": true,
        "jobTemplate": {"spec": {"template": {"spec": pod}}},
    }});
    Matrix::new("batch/v1", "CronJob", "cronjobs", cron_job)
        .namespaced()
        .change(json!({"spec": {"concurrencyPolicy": "Forbid"}}))
        .status(json!({"lastScheduleTime": "2026-01-01T00:00:00Z"}))
        .walk()
        .await;
}

/// Conformance: [sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets [Conformance]
#[tokio::test]
async fn budgets_are_listed_everywhere_and_deleted_in_one_namespace() {
    let cluster = with_namespace().await;
    let here = Collection::new(
        &cluster,
        "policy/v1",
        "poddisruptionbudgets",
        Some(NAMESPACE),
    );
    let there = here.of("default");
    let budget = json!({"spec": {
        "minAvailable": "1%", "selector": {"matchLabels": {"foo": "bar"}},
    }});
    for name in ["a", "b"] {
        here.create(&named(name, &budget)).await;
    }
    there.create(&named("c", &budget)).await;
    let mut found = here.list_everywhere(SELECTOR).await;
    found.sort_by_key(|budget| budget["metadata"]["name"].to_string());
    assert_eq!(names_of(&found), ["a", "b", "c"]);
    let change = json!({"metadata": {"annotations": {"patched": "yes"}}});
    here.patch(PatchType::Merge, "a", &change).await;
    here.delete_all(SELECTOR).await;
    assert_eq!(names_of(&here.list_everywhere(SELECTOR).await), ["c"]);
}
