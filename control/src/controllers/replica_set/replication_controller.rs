//! ReplicationControllers as the ReplicaSets they would be today.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{
    ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerSpec,
    ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ObjectSelector;
use windlass_api::label_selector::LabelSelector;

use super::Replicas;
use crate::controllers::runtime::informer::Informer;
use crate::controllers::runtime::informers::Informers;
use crate::controllers::runtime::pod_owners::{PodOwner, selector_of};
use crate::controllers::runtime::worker::ReconcileError;

impl PodOwner for ReplicationController {
    fn selector(&self) -> Result<LabelSelector, ReconcileError> {
        selector_of(self.spec.as_ref().map(selector).as_ref())
    }
}

fn selector(spec: &ReplicationControllerSpec) -> ObjectSelector {
    ObjectSelector {
        match_labels: spec.selector.clone(),
        match_expressions: None,
    }
}

impl Replicas for ReplicationController {
    const NAME: &'static str = "replication-controller";

    fn informer(informers: &Informers) -> &Arc<Informer<Self>> {
        &informers.replication_controllers
    }

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Owned(ReplicaSet {
            metadata: self.metadata.clone(),
            spec: self.spec.as_ref().map(|spec| ReplicaSetSpec {
                min_ready_seconds: spec.min_ready_seconds,
                replicas: spec.replicas,
                selector: selector(spec),
                template: spec.template.clone(),
            }),
            status: self.status.clone().map(as_set_status),
        })
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self {
            status: Some(as_own_status(status)),
            ..self.clone()
        }
    }
}

fn as_set_status(status: ReplicationControllerStatus) -> ReplicaSetStatus {
    let condition = |of: ReplicationControllerCondition| ReplicaSetCondition {
        last_transition_time: of.last_transition_time,
        message: of.message,
        reason: of.reason,
        status: of.status,
        type_: of.type_,
    };
    ReplicaSetStatus {
        available_replicas: status.available_replicas,
        conditions: status
            .conditions
            .map(|all| all.into_iter().map(condition).collect()),
        fully_labeled_replicas: status.fully_labeled_replicas,
        observed_generation: status.observed_generation,
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
        terminating_replicas: None,
    }
}

fn as_own_status(status: ReplicaSetStatus) -> ReplicationControllerStatus {
    let condition = |of: ReplicaSetCondition| ReplicationControllerCondition {
        last_transition_time: of.last_transition_time,
        message: of.message,
        reason: of.reason,
        status: of.status,
        type_: of.type_,
    };
    ReplicationControllerStatus {
        available_replicas: status.available_replicas,
        conditions: status
            .conditions
            .map(|all| all.into_iter().map(condition).collect()),
        fully_labeled_replicas: status.fully_labeled_replicas,
        observed_generation: status.observed_generation,
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn the_status_is_the_same_there_and_back() {
        let own: ReplicationControllerStatus = serde_json::from_value(json!({
            "replicas": 3, "readyReplicas": 2, "availableReplicas": 1, "fullyLabeledReplicas": 3,
            "observedGeneration": 4,
            "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}],
        }))
        .unwrap();
        assert_eq!(as_own_status(as_set_status(own.clone())), own);
    }

    #[test]
    fn its_map_of_labels_is_a_selector() {
        let object = json!({"metadata": {"name": "a"}, "spec": {"selector": {"app": "web"}}});
        let controller: ReplicationController = serde_json::from_value(object).unwrap();
        let selector = controller.selector().unwrap();
        let labels = |app: &str| BTreeMap::from([("app".to_owned(), app.to_owned())]);
        assert!(selector.matches(labels("web")) && !selector.matches(labels("db")));
        let as_set = controller.as_set().selector().unwrap();
        assert!(as_set.matches(labels("web")) && !as_set.matches(labels("db")));
    }
}
