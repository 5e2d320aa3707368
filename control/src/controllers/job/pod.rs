//! The pods of a Job: how they are made, and what their metadata says of them.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{self as core, EnvVar, EnvVarSource, ObjectFieldSelector};

use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::Pod;
use crate::controllers::runtime::pod_owners::PodOwners;

/// Finalizer of pods whose result has not been counted.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Label of a Job's pods: its name.
pub(super) const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// Annotation and label of the completion index.
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation that counts the failures of the index before this pod.
pub(crate) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The variable that tells a container its index.
const VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// A pod of the Job; of that index, which has failed so often before, if the Job has indexes.
pub(super) fn pod(job: &Job, index: Option<(i32, i32)>) -> core::Pod {
    let template = job.spec.as_ref().map(|spec| &spec.template);
    let mut pod = PodOwners::pod(job, template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    finalizers.push(TRACKING.to_owned());
    let Some((index, failures)) = index else {
        return pod;
    };
    let name = job.metadata.name();
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(INDEX.into(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    if counts_by_index(job) {
        annotations.insert(INDEX_FAILURES.into(), failures.to_string());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    let containers = spec.init_containers.iter_mut().flatten();
    for container in containers.chain(&mut spec.containers) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|variable| variable.name == VARIABLE) {
            env.push(variable());
        }
    }
    pod
}

fn variable() -> EnvVar {
    EnvVar {
        name: VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// Whether failures are counted for each index.
pub(super) fn counts_by_index(job: &Job) -> bool {
    job.spec
        .as_ref()
        .is_some_and(|spec| spec.backoff_limit_per_index.is_some())
}

/// The completion index of a pod.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    pod.metadata.annotation(INDEX).parse().ok()
}

/// How often its index had failed before the pod.
pub(super) fn index_failures(pod: &Pod) -> i32 {
    pod.metadata.annotation(INDEX_FAILURES).parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_indexed_pod_knows_its_index() {
        let job: Job = serde_json::from_value(json!({
            "metadata": {"name": "sum", "uid": "u"},
            "spec": {"backoffLimitPerIndex": 1, "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c"}], "restartPolicy": "Never"}}},
        }))
        .unwrap();
        let made = serde_json::to_value(pod(&job, Some((3, 1)))).unwrap();
        assert_eq!(made["metadata"]["generateName"], "sum-3-");
        assert_eq!(made["metadata"]["finalizers"], json!([TRACKING]));
        assert_eq!(made["metadata"]["labels"], json!({"a": "b", INDEX: "3"}));
        assert_eq!(
            made["metadata"]["annotations"],
            json!({INDEX: "3", INDEX_FAILURES: "1"})
        );
        assert_eq!(made["spec"]["hostname"], "sum-3");
        assert_eq!(made["spec"]["containers"][0]["env"][0]["name"], VARIABLE);
        let plain = serde_json::to_value(pod(&job, None)).unwrap();
        assert_eq!(plain["metadata"]["generateName"], "sum-");
        assert!(plain["spec"]["hostname"].is_null());
    }
}
