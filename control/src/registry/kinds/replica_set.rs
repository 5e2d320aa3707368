//! ReplicaSet.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::{integer, workload};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct ReplicaSet;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("apps", "v1", "ReplicaSet");
    workload::scaled(Kind::namespaced(gvk, "replicasets", &ReplicaSet))
        .short_names(&["rs"])
        .categories(&["all"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Desired", "integer", "Pods wanted."),
    Column::new("Current", "integer", "Pods there are."),
    Column::new("Ready", "integer", "Pods that are ready."),
    AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    workload::SELECTOR,
];

const COUNTS: &[&str] = &[
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
];
const PARTS: &[(&str, &str, &str)] = &[
    ("fullyLabeledReplicas", "replicas", workload::MORE_THAN_ALL),
    ("readyReplicas", "replicas", workload::MORE_THAN_ALL),
    ("availableReplicas", "replicas", workload::MORE_THAN_ALL),
    (
        "availableReplicas",
        "readyReplicas",
        workload::MORE_THAN_READY,
    ),
];

impl Strategy for ReplicaSet {
    fn set_defaults(&self, object: &mut Value) {
        workload::set_defaults(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _: &crate::identity::UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), serde_json::json!({"replicas": 0}));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        workload::validate(object)
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            workload::validate_status(old, new, COUNTS, PARTS)
        } else {
            workload::validate_update(old, new)
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        workload::warnings(object)
    }

    fn has_status(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [containers, images, selector] = workload::wide_cells(object);
        vec![
            meta::name(object).into(),
            integer(object, "/spec/replicas").into(),
            integer(object, "/status/replicas").into(),
            integer(object, "/status/readyReplicas").into(),
            age(object, now).into(),
            containers,
            images,
            selector,
        ]
    }
}
