//! Deployment.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;

use super::{default, integer, text, workload};
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
    Column::wide("Containers", "string", "Names of the containers."),
    Column::wide("Images", "string", "Images of the containers."),
    Column::wide("Selector", "string", "Which pods belong to it."),
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

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = workload::validate(object);
        let kind = text(object, "/spec/strategy/type");
        let rolling = object.pointer("/spec/strategy/rollingUpdate");
        if !STRATEGIES.contains(&kind) {
            errors.push(FieldError::not_supported(
                "spec.strategy.type",
                kind,
                STRATEGIES,
            ));
        } else if kind == "Recreate" && rolling.is_some() {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
        } else if let Some(rolling) = rolling {
            errors.extend(validate_rolling(rolling));
        }
        if let Some(deadline) = object
            .pointer("/spec/progressDeadlineSeconds")
            .and_then(Value::as_i64)
            && deadline <= integer(object, "/spec/minReadySeconds")
        {
            let detail = "must be greater than minReadySeconds";
            errors.push(FieldError::invalid(
                "spec.progressDeadlineSeconds",
                deadline,
                detail,
            ));
        }
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            Vec::new()
        } else {
            workload::validate_update(old, new)
        }
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

fn validate_rolling(rolling: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.strategy.rollingUpdate";
    let mut errors = Vec::new();
    let mut zeros = 0;
    for field in ["maxUnavailable", "maxSurge"] {
        let value = rolling.get(field).cloned().unwrap_or_default();
        let path = format!("{PATH}.{field}");
        match amount(&value) {
            Some(0) => zeros += 1,
            Some(n) if n < 0 => {
                errors.push(FieldError::invalid(
                    path,
                    value,
                    "must be greater than or equal to 0",
                ));
            }
            Some(n) if value.is_string() && n > 100 && field == "maxUnavailable" => {
                errors.push(FieldError::invalid(
                    path,
                    value,
                    "must not be greater than 100%",
                ));
            }
            Some(_) => {}
            None => {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', or '93%', regex used for validation is '[0-9]+%')";
                errors.push(FieldError::invalid(path, value, detail));
            }
        }
    }
    if zeros == 2 {
        let path = format!("{PATH}.maxUnavailable");
        errors.push(FieldError::invalid(
            path,
            0,
            "may not be 0 when `maxSurge` is 0",
        ));
    }
    errors
}

/// The number in `3` or `25%`.
fn amount(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => {
            let digits = text.strip_suffix('%')?;
            digits
                .chars()
                .all(|c| c.is_ascii_digit())
                .then(|| digits.parse().ok())
                .flatten()
        }
        other => other.as_i64(),
    }
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
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"
            ]
        );
    }
}
