//! ResourceQuota: bounds for all of a namespace together.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::field_path::Field;
use super::{resource_names, text};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct ResourceQuota;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("", "v1", "ResourceQuota");
    Kind::namespaced(gvk, "resourcequotas", &ResourceQuota).short_names(&["quota"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new(
        "Request",
        "string",
        "Used and allowed requests and objects.",
    ),
    Column::new("Limit", "string", "Used and allowed limits."),
    AGE,
];

/// Scopes with the resources they go with; the others select pods, and bound what pods request.
const SCOPES: &[(&str, &[&str])] = &[
    ("BestEffort", &["pods"]),
    ("NotBestEffort", POD_RESOURCES),
    ("Terminating", POD_RESOURCES),
    ("NotTerminating", POD_RESOURCES),
    ("PriorityClass", POD_RESOURCES),
    ("CrossNamespacePodAffinity", POD_RESOURCES),
    (
        "VolumeAttributesClass",
        &["persistentvolumeclaims", "requests.storage"],
    ),
];
const POD_RESOURCES: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "limits.cpu",
    "limits.memory",
    "requests.cpu",
    "requests.memory",
];
const CONFLICTS: [[&str; 2]; 2] = [
    ["BestEffort", "NotBestEffort"],
    ["Terminating", "NotTerminating"],
];

impl Strategy for ResourceQuota {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let mut errors = amounts(&spec.at("hard"));
        errors.extend(validate_scopes(&spec));
        errors.extend(validate_selector(&spec));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            let status = Field::root(new).at("status");
            let mut errors = amounts(&status.at("hard"));
            errors.extend(amounts(&status.at("used")));
            return errors;
        }
        let scopes = |object| Field::root(object).at("spec").at("scopes");
        let set = |object| scopes(object).texts().into_iter().collect::<BTreeSet<_>>();
        if set(old) == set(new) {
            return Vec::new();
        }
        vec![scopes(new).invalid("field is immutable")]
    }

    fn has_status(&self) -> bool {
        true
    }

    fn counts_generations(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (limits, requests): (Vec<_>, Vec<_>) = usage(object)
            .into_iter()
            .partition(|text| text.starts_with("limits."));
        vec![
            meta::name(object).into(),
            requests.join(", ").into(),
            limits.join(", ").into(),
            age(object, now).into(),
        ]
    }
}

/// `cpu: 1/2` for each bounded resource, sorted.
fn usage(object: &Value) -> Vec<String> {
    let status = Field::root(object).at("status");
    let mut shown: Vec<_> = status
        .at("hard")
        .entries()
        .iter()
        .map(|(name, hard)| {
            let used = match status.at("used").key(name).text() {
                "" => "0",
                used => used,
            };
            format!("{name}: {used}/{}", text(hard.value(), ""))
        })
        .collect();
    shown.sort_unstable();
    shown
}

fn amounts(list: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, amount) in list.entries() {
        errors.extend(resource_names::quota_resource(&amount, name));
        errors.extend(resource_names::amount(&amount, name));
    }
    errors
}

/// Whether every bounded resource goes with the scope; `None` for a scope that does not exist.
fn fits(spec: &Field<'_>, scope: &str) -> Option<usize> {
    let (_, resources) = SCOPES.iter().find(|(name, _)| *name == scope)?;
    let hard = spec.at("hard").entries().into_iter();
    let misfits = hard
        .map(|(name, _)| name)
        .filter(|name| resource_names::is_quota(name) && !resources.contains(name));
    Some(misfits.count())
}

fn conflicting(scopes: &[&str]) -> usize {
    let both = |pair: &&[&str; 2]| pair.iter().all(|scope| scopes.contains(scope));
    CONFLICTS.iter().filter(both).count()
}

fn validate_scopes(spec: &Field<'_>) -> Vec<FieldError> {
    let scopes = spec.at("scopes");
    let mut errors = Vec::new();
    for scope in scopes.texts() {
        match fits(spec, scope) {
            None => errors.push(scopes.invalid("unsupported scope")),
            Some(misfits) => {
                let detail = "unsupported scope applied to resource";
                errors.extend((0..misfits).map(|_| scopes.invalid(detail)));
            }
        }
    }
    let conflicts = conflicting(&scopes.texts());
    errors.extend((0..conflicts).map(|_| scopes.invalid("conflicting scopes")));
    errors
}

fn validate_selector(spec: &Field<'_>) -> Vec<FieldError> {
    let selector = spec.at("scopeSelector");
    let expressions = selector.at("matchExpressions");
    let mut errors = Vec::new();
    for expression in expressions.items() {
        let scope = expression.at("scopeName");
        // Upstream names the list of expressions, not the expression.
        let at = |field: &str| {
            let path = format!("{}.{field}", expressions.path());
            Field::new(path, expression.at(field).value())
        };
        match fits(spec, scope.text()) {
            None => errors.push(at("scopeName").invalid("unsupported scope")),
            Some(misfits) => {
                let whole = Field::new(expressions.path(), selector.value());
                let detail = "unsupported scope applied to resource";
                errors.extend((0..misfits).map(|_| whole.invalid(detail)));
            }
        }
        errors.extend(validate_operator(
            scope.text(),
            &at("operator"),
            &at("values"),
        ));
    }
    let scopes: Vec<_> = expressions
        .items()
        .iter()
        .map(|expression| expression.at("scopeName").text())
        .collect();
    let conflicts = conflicting(&scopes);
    let at = Field::new(expressions.path(), spec.at("scopes").value());
    errors.extend((0..conflicts).map(|_| at.invalid("conflicting scopes")));
    errors
}

fn validate_operator(scope: &str, operator: &Field<'_>, values: &Field<'_>) -> Vec<FieldError> {
    const HAVE_VALUES: [&str; 2] = ["PriorityClass", "VolumeAttributesClass"];
    let mut errors = Vec::new();
    let known = SCOPES.iter().any(|(name, _)| *name == scope);
    if known && !HAVE_VALUES.contains(&scope) && operator.text() != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(operator.invalid(detail));
    }
    match operator.text() {
        "In" | "NotIn" if values.is_empty() => {
            let detail =
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(values.required(detail));
        }
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if values.is_empty() => {}
        "Exists" | "DoesNotExist" => {
            let detail =
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(values.invalid(detail));
        }
        _ => errors.push(operator.invalid("not a valid selector operator")),
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_go_with_the_resources_they_select() {
        let cases = [
            (
                json!({"hard": {"pods": "5"}, "scopes": ["BestEffort"]}),
                None,
            ),
            (
                json!({"hard": {"cpu": "5"}, "scopes": ["BestEffort"]}),
                Some("unsupported scope applied to resource"),
            ),
            (
                json!({"hard": {"pods": "5"}, "scopes": ["Terminating", "NotTerminating"]}),
                Some("conflicting scopes"),
            ),
            (json!({"hard": {"pods": "1.5"}}), Some("must be an integer")),
            (
                json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
                    {"scopeName": "PriorityClass", "operator": "In"}]}}),
                Some(
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ),
            ),
        ];
        for (spec, expected) in cases {
            let errors = ResourceQuota.validate(&json!({"spec": spec}));
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            match expected {
                None => assert!(texts.is_empty(), "{texts:?}"),
                Some(end) => assert!(
                    texts.len() == 1 && texts.iter().all(|t| t.ends_with(end)),
                    "{texts:?}"
                ),
            }
        }
    }

    #[test]
    fn the_table_shows_limits_apart() {
        let object = json!({"metadata": {"name": "q"}, "status": {
            "hard": {"pods": "5", "limits.cpu": "2"}, "used": {"pods": "1"}}});
        let cells = ResourceQuota.cells(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(cells.get(1), Some(&json!("pods: 1/5")));
        assert_eq!(cells.get(2), Some(&json!("limits.cpu: 0/2")));
    }
}
