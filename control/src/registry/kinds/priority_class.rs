//! PriorityClass: how important pods are. Its value never changes.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::field_path::Field;
use super::{default, integer, text};
use crate::identity::UserInfo;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct PriorityClass;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("scheduling.k8s.io", "v1", "PriorityClass");
    Kind::cluster(gvk, "priorityclasses", &PriorityClass).short_names(&["pc"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Value", "integer", "Higher is more important."),
    Column::new(
        "Global-Default",
        "boolean",
        "Whether pods that name no class have this one.",
    ),
    AGE,
    Column::new(
        "PreemptionPolicy",
        "string",
        "Whether its pods drive others out.",
    ),
];

const PREEMPTION_POLICIES: &[&str] = &["Never", "PreemptLowerPriority"];

/// Highest value outside the classes of the system.
const HIGHEST: i64 = 1_000_000_000;

/// The classes whose names begin with [`SYSTEM`].
const SYSTEM_CLASSES: [(&str, i64); 2] = [
    ("system-node-critical", 2 * HIGHEST + 1000),
    ("system-cluster-critical", 2 * HIGHEST),
];
const SYSTEM: &str = "system-";

impl Strategy for PriorityClass {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(object) = object.as_object_mut() {
            default(object, "preemptionPolicy", "PreemptLowerPriority");
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        meta::set(object, "generation", 1);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let class = Field::root(object);
        let mut errors = Vec::new();
        if meta::name(object).starts_with(SYSTEM) {
            if let Err(error) = known_class(object) {
                let detail = format!(
                    "priority class names with '{SYSTEM}' prefix are reserved for system use only. error: {error}"
                );
                errors.push(FieldError::forbidden("metadata.name", detail));
            }
        } else if class.at("value").integer() > HIGHEST {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.push(class.at("value").forbidden(detail));
        }
        errors.extend(
            class
                .at("preemptionPolicy")
                .must_be_one_of(PREEMPTION_POLICIES),
        );
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if integer(old, "/value") != integer(new, "/value") {
            // The capital letter is upstream's.
            errors.push(FieldError::forbidden(
                "Value",
                "may not be changed in an update.",
            ));
        }
        let policy = |object| Field::root(object).at("preemptionPolicy");
        errors.extend(policy(new).unchanged(&policy(old)));
        errors
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("PriorityClass orders the pods that wait for a node, but Windlass preempts none yet")
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            meta::name(object).into(),
            integer(object, "/value").into(),
            Field::root(object).at("globalDefault").is_true().into(),
            age(object, now).into(),
            text(object, "/preemptionPolicy").into(),
        ]
    }
}

fn known_class(object: &Value) -> Result<(), String> {
    let name = meta::name(object);
    let Some((_, value)) = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if integer(object, "/value") != *value {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if Field::root(object).at("globalDefault").is_true() {
        return Err(format!(
            "globalDefault of {name} PriorityClass must be false"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_highest_classes_are_the_systems() {
        for (name, value, valid) in [
            ("mine", HIGHEST, true),
            ("mine", HIGHEST + 1, false),
            ("system-cluster-critical", 2 * HIGHEST, true),
            ("system-cluster-critical", 1, false),
            ("system-mine", 1, false),
        ] {
            let mut object = json!({"metadata": {"name": name}, "value": value});
            PriorityClass.set_defaults(&mut object);
            assert_eq!(
                PriorityClass.validate(&object).is_empty(),
                valid,
                "{object}"
            );
        }
    }
}
