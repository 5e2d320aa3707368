//! Label selectors within objects: validation, matching, and the form that `-l` takes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ObjectSelector;
use serde::Deserialize;
use serde_json::Value;
use windlass_api::label_selector::LabelSelector;
use windlass_api::names;

use super::field::{Errors, Field};
use crate::registry::validation;

/// All that is wrong with the selector at `field`, which may be absent.
pub(super) fn validate(field: &Field<'_, '_>, errors: &mut Errors) {
    let labels = field.child("matchLabels");
    if labels.is_set() {
        errors.extend(validation::labels(&labels.path(), Some(labels.value())));
    }
    for expression in field.child("matchExpressions").items() {
        let values = expression.child("values");
        match expression.text_of("operator") {
            "In" | "NotIn" if values.len() == 0 => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(values.required(detail));
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(values.forbidden(detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(
                expression
                    .child("operator")
                    .invalid("not a valid selector operator"),
            ),
        }
        errors.extend(expression.child("key").follows(names::qualified_name));
        for value in values.items() {
            errors.extend(value.follows(names::label_value));
        }
    }
}

/// Whether the selector, absent for none, selects `labels`; `None` if it is no selector at all.
pub(super) fn matches(selector: &Value, labels: &Value) -> Option<bool> {
    let selector = Option::<ObjectSelector>::deserialize(selector).ok()?;
    let selector = LabelSelector::from_object(selector.as_ref()).ok()?;
    let labels = labels.as_object().into_iter().flatten();
    let labels: BTreeMap<String, String> = labels
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    Some(selector.matches(labels))
}

/// Whether the selector is there and asks for nothing.
pub(super) fn is_empty(selector: &Field<'_, '_>) -> bool {
    let parts = ["matchLabels", "matchExpressions"];
    selector.is_set() && parts.iter().all(|part| selector.child(part).len() == 0)
}

/// A selector, or a plain map of labels, in the form that `-l` takes; empty if it asks for nothing.
pub(super) fn text(selector: &Value) -> String {
    let labels = match selector.get("matchLabels") {
        Some(labels) => Some(labels),
        None if selector.get("matchExpressions").is_some() => None,
        None => Some(selector),
    };
    let labels = labels.and_then(Value::as_object).into_iter().flatten();
    let mut parts: Vec<_> = labels
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let expressions = Field::root("", selector);
    for expression in expressions.child("matchExpressions").items() {
        let key = expression.text_of("key");
        let mut values: Vec<_> = expression.child("values").texts().collect();
        values.sort_unstable();
        parts.push(match expression.text_of("operator") {
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            operator => format!("{key} {} ({})", operator.to_lowercase(), values.join(",")),
        });
    }
    parts.sort_unstable();
    parts.join(",")
}

/// The same for a table, which says `<none>` where there is nothing to say.
pub(super) fn shown(selector: &Value) -> Value {
    match text(selector) {
        text if text.is_empty() => "<none>".into(),
        text => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_and_maps_read_as_the_client_writes_them() {
        let cases = [
            (json!({"b": "2", "a": "1"}), "a=1,b=2"),
            (json!({"matchLabels": {"a": "1"}}), "a=1"),
            (
                json!({"matchExpressions": [
                    {"key": "z", "operator": "NotIn", "values": ["y", "x"]},
                    {"key": "k", "operator": "DoesNotExist"},
                ]}),
                "!k,z notin (x,y)",
            ),
            (json!({}), ""),
            (Value::Null, ""),
        ];
        for (selector, expected) in cases {
            assert_eq!(text(&selector), expected);
        }
    }

    #[test]
    fn each_broken_requirement_is_named() {
        let selector = json!({
            "matchLabels": {"a b": "1"},
            "matchExpressions": [{"key": "k", "operator": "In"}, {"key": "k", "operator": "Is"}],
        });
        let mut errors = Errors::new();
        validate(&Field::root("spec.selector", &selector), &mut errors);
        let paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "spec.selector.matchLabels",
                "spec.selector.matchExpressions[0].values",
                "spec.selector.matchExpressions[1].operator",
            ]
        );
    }
}
