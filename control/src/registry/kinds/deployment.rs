//! Deployment.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;

use super::field::{Errors, Field};
use super::{default, integer, workload};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct Deployment;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("apps", "v1", "Deployment");
    workload::scaled(Kind::namespaced(gvk, "deployments", &Deployment))
        .short_names(&["deploy"])
        .categories(&["all"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Ready", "string", "Ready pods of wanted pods."),
    Column::new("Up-to-date", "string", "Pods of the current template."),
    Column::new("Available", "string", "Pods ready for long enough."),
    AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    workload::SELECTOR,
];

const COUNTS: &[&str] = &[
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
];
const PARTS: &[(&str, &str, &str)] = &[
    ("updatedReplicas", "replicas", workload::MORE_THAN_ALL),
    ("readyReplicas", "replicas", workload::MORE_THAN_ALL),
    ("availableReplicas", "replicas", workload::MORE_THAN_ALL),
    (
        "availableReplicas",
        "readyReplicas",
        workload::MORE_THAN_READY,
    ),
];

const STRATEGIES: &[&str] = &["Recreate", "RollingUpdate"];

impl Strategy for Deployment {
    fn set_defaults(&self, object: &mut Value) {
        workload::set_defaults(object);
        let spec = meta::member_mut(object, "spec");
        default(spec, "revisionHistoryLimit", 10);
        default(spec, "progressDeadlineSeconds", 600);
        default(spec, "strategy", json!({}));
        let Some(strategy) = spec.get_mut("strategy").and_then(Value::as_object_mut) else {
            return;
        };
        default(strategy, "type", "RollingUpdate");
        if strategy.get("type") == Some(&"RollingUpdate".into()) {
            default(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = strategy
                .get_mut("rollingUpdate")
                .and_then(Value::as_object_mut)
            {
                default(rolling, "maxUnavailable", "25%");
                default(rolling, "maxSurge", "25%");
            }
        }
    }

    fn prepare_for_update(&self, old: &Value, new: &mut Value, endpoint: Endpoint) {
        // A rollback may change annotations alone, and its observer waits for a new generation.
        if endpoint == Endpoint::Main
            && meta::get(old, "annotations") != meta::get(new, "annotations")
        {
            meta::set(new, "generation", meta::generation(old) + 1);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = workload::validate(object);
        let root = Field::root("", object);
        let spec = root.child("spec");
        validate_strategy(&spec.child("strategy"), &mut errors);
        let deadline = spec.child("progressDeadlineSeconds");
        let ready = spec.integer_of("minReadySeconds").unwrap_or_default();
        if deadline.integer().is_some_and(|deadline| deadline <= ready) {
            errors.push(deadline.invalid("must be greater than minReadySeconds"));
        }
        errors
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

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = |field: &str| integer(object, &format!("/status/{field}"));
        let wanted = integer(object, "/spec/replicas");
        let [containers, images, selector] = workload::wide_cells(object);
        vec![
            meta::name(object).into(),
            format!("{}/{wanted}", status("readyReplicas")).into(),
            status("updatedReplicas").to_string().into(),
            status("availableReplicas").to_string().into(),
            age(object, now).into(),
            containers,
            images,
            selector,
        ]
    }
}

fn validate_strategy(strategy: &Field<'_, '_>, errors: &mut Errors) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text_of("type") {
        "Recreate" => {
            if rolling.is_set() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(rolling.forbidden(detail));
            }
        }
        "RollingUpdate" => validate_rolling(&rolling, errors),
        _ => errors.push(strategy.not_supported(STRATEGIES)),
    }
}

fn validate_rolling(rolling: &Field<'_, '_>, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
    workload::validate_amount(&unavailable, errors);
    workload::validate_amount(&surge, errors);
    if workload::amount(unavailable.value()) == 0 && workload::amount(surge.value()) == 0 {
        errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
    }
    workload::validate_part(&unavailable, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        let mut object = json!({
            "metadata": {"name": "web"},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "web:1"}]},
                },
            },
        });
        Deployment.set_defaults(&mut object);
        object
    }

    fn errors(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut object = deployment();
        change(&mut object);
        Deployment
            .validate(&object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_deployment_with_defaults_is_valid() {
        assert_eq!(errors(|_| {}), Vec::<String>::new());
        let object = deployment();
        assert_eq!(
            object["spec"]["strategy"]["rollingUpdate"]["maxSurge"],
            "25%"
        );
        assert_eq!(
            object["spec"]["template"]["spec"]["restartPolicy"],
            "Always"
        );
    }

    #[test]
    fn defaulting_twice_changes_nothing() {
        let mut twice = deployment();
        Deployment.set_defaults(&mut twice);
        assert_eq!(twice, deployment());
    }

    #[test]
    fn a_selector_that_misses_its_template_is_refused() {
        let found = errors(|object| {
            object["spec"]["selector"]["matchLabels"]["app"] = "other".into();
        });
        assert_eq!(
            found,
            [
                r#"spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`"#
            ]
        );
    }

    #[test]
    fn both_bounds_of_a_rolling_update_cannot_be_zero() {
        let found = errors(|object| {
            object["spec"]["strategy"]["rollingUpdate"] =
                json!({"maxSurge": 0, "maxUnavailable": "0%"});
        });
        assert_eq!(
            found,
            [
                r#"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0"#
            ]
        );
    }
}
