//! ReplicaSet.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::workload;
use crate::registry::field_error::FieldError;
use crate::registry::strategy::{Column, Endpoint, Kind, Strategy};

struct ReplicaSet;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("apps", "v1", "ReplicaSet");
    workload::scaled(Kind::namespaced(gvk, "replicasets", &ReplicaSet))
        .short_names(&["rs"])
        .categories(&["all"])
}

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
            workload::validate_status(old, new, workload::REPLICA_COUNTS, workload::REPLICA_PARTS)
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
        workload::REPLICA_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        workload::replica_cells(object, now)
    }
}
