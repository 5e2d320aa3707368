//! PodDisruptionBudget.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;

use super::field::{Errors, Field, pointer};
use super::{integer, label_selector, workload};
use crate::identity::UserInfo;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct PodDisruptionBudget;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("policy", "v1", "PodDisruptionBudget");
    let plural = "poddisruptionbudgets";
    Kind::namespaced(gvk, plural, &PodDisruptionBudget).short_names(&["pdb"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Min Available", "string", "Pods that must stay."),
    Column::new("Max Unavailable", "string", "Pods that may be gone."),
    Column::new("Allowed Disruptions", "integer", "Pods that may go now."),
    AGE,
];

const EVICTION_POLICIES: &[&str] = &["AlwaysAllow", "IfHealthyBudget"];
const COUNTS: &[&str] = &[
    "disruptionsAllowed",
    "currentHealthy",
    "desiredHealthy",
    "expectedPods",
];

impl Strategy for PodDisruptionBudget {
    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        if let Some(object) = object.as_object_mut() {
            let status = json!({
                "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
            });
            object.insert("status".into(), status);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let root = Field::root("", object);
        let spec = root.child("spec");
        if spec.has("minAvailable") && spec.has("maxUnavailable") {
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.push(spec.invalid(detail));
        }
        for amount in ["minAvailable", "maxUnavailable"] {
            let amount = spec.child(amount);
            if amount.is_set() {
                workload::validate_amount(&amount, &mut errors);
                workload::validate_part(&amount, &mut errors);
            }
        }
        label_selector::validate(&spec.child("selector"), &mut errors);
        let policy = spec.child("unhealthyPodEvictionPolicy");
        errors.extend(policy.one_of(EVICTION_POLICIES));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            workload::validate_status(old, new, COUNTS, &[])
        } else {
            Vec::new()
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let amount = |field: &str| -> Value {
            match pointer(object, &format!("/spec/{field}")) {
                Value::Null => "N/A".into(),
                Value::String(text) => text.as_str().into(),
                other => other.to_string().into(),
            }
        };
        vec![
            meta::name(object).into(),
            amount("minAvailable"),
            amount("maxUnavailable"),
            integer(object, "/status/disruptionsAllowed").into(),
            age(object, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_says_one_amount() {
        let object = json!({"spec": {"minAvailable": "120%", "maxUnavailable": -1}});
        let found = PodDisruptionBudget.validate(&object);
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                r#"spec: Invalid value: {"minAvailable":"120%","maxUnavailable":-1}: minAvailable and maxUnavailable cannot be both set"#,
                r#"spec.minAvailable: Invalid value: "120%": must not be greater than 100%"#,
                "spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }
}
