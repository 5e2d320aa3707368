//! What Deployment and ReplicaSet share: selector and template, the scale subresource, columns.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ObjectSelector;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::label_selector::LabelSelector;
use windlass_api::resource::GroupVersionKind;

use super::{items, pod_spec, text};
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::Kind;
use crate::registry::validation;

/// Adds the `scale` subresource.
pub(super) fn scaled(kind: Kind) -> Kind {
    let scale = GroupVersionKind::of("autoscaling", "v1", "Scale");
    kind.subresource("scale", scale, &["get", "patch", "update"])
}

/// Fills in replicas and the defaults of the pod template.
pub(super) fn set_defaults(object: &mut Value) {
    let spec = meta::member_mut(object, "spec");
    super::default(spec, "replicas", 1);
    if let Some(template) = spec
        .get_mut("template")
        .filter(|template| template.is_object())
    {
        pod_spec::set_defaults(meta::member_mut(template, "spec"));
    }
}

/// All that is wrong with replicas, selector and template.
pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in [
        "replicas",
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        let value = object
            .pointer(&format!("/spec/{field}"))
            .and_then(Value::as_i64);
        if let Some(value) = value
            && value < 0
        {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(format!("spec.{field}"), value, detail));
        }
    }
    errors.extend(selector(object));
    let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
    let labels = template.pointer("/metadata/labels");
    errors.extend(validation::labels("spec.template.metadata.labels", labels));
    let spec = template.get("spec").unwrap_or(&Value::Null);
    errors.extend(pod_spec::validate("spec.template.spec", spec));
    let policy = text(spec, "/restartPolicy");
    if !policy.is_empty() && policy != "Always" {
        let path = "spec.template.spec.restartPolicy";
        errors.push(FieldError::not_supported(path, policy, &["Always"]));
    }
    errors
}

fn selector(object: &Value) -> Vec<FieldError> {
    let value = object
        .pointer("/spec/selector")
        .cloned()
        .unwrap_or(Value::Null);
    if value.is_null() {
        return vec![FieldError::required("spec.selector", "")];
    }
    let empty = json!({}) == value;
    let parsed = ObjectSelector::deserialize(&value)
        .map_err(|error| error.to_string())
        .and_then(|s| LabelSelector::from_object(Some(&s)).map_err(|error| error.to_string()));
    let selector = match parsed {
        Ok(selector) => selector,
        Err(error) => return vec![FieldError::invalid("spec.selector", value, error)],
    };
    if empty {
        let detail = "empty selector is invalid for deployment";
        return vec![FieldError::invalid("spec.selector", value, detail)];
    }
    let labels = object.pointer("/spec/template/metadata/labels");
    let pairs: Vec<(String, String)> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    if selector.matches(pairs.as_slice()) {
        return Vec::new();
    }
    let labels = labels.cloned().unwrap_or_else(|| json!({}));
    let detail = "`selector` does not match template `labels`";
    vec![FieldError::invalid(
        "spec.template.metadata.labels",
        labels,
        detail,
    )]
}

/// The selector may not change.
pub(super) fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let (before, after) = (old.pointer("/spec/selector"), new.pointer("/spec/selector"));
    if before == after {
        return Vec::new();
    }
    vec![FieldError::immutable(
        "spec.selector",
        after.cloned().unwrap_or_default(),
    )]
}

/// Wide cells: container names, images, selector.
pub(super) fn wide_cells(object: &Value) -> [Value; 3] {
    let containers = items(object, "/spec/template/spec/containers");
    let column = |field: &str| -> Value {
        let texts: Vec<_> = containers
            .iter()
            .map(|container| text(container, field))
            .collect();
        texts.join(",").into()
    };
    [
        column("/name"),
        column("/image"),
        selector_text(object).into(),
    ]
}

/// A selector in the form that `-l` takes.
pub(super) fn selector_text(object: &Value) -> String {
    let labels = object
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object);
    let mut parts: Vec<_> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in items(object, "/spec/selector/matchExpressions") {
        let key = text(expression, "/key");
        let values: Vec<_> = items(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        parts.push(match text(expression, "/operator") {
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            operator => format!("{key} {} ({})", operator.to_lowercase(), values.join(",")),
        });
    }
    parts.sort_unstable();
    parts.join(",")
}

/// The Scale of an object with replicas and a selector.
pub(crate) fn scale_of(object: &Value) -> Value {
    let mut metadata = json!({});
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let (Some(value), Some(map)) = (meta::get(object, field), metadata.as_object_mut()) {
            map.insert(field.into(), value.clone());
        }
    }
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata,
        "spec": {"replicas": super::integer(object, "/spec/replicas")},
        "status": {
            "replicas": super::integer(object, "/status/replicas"),
            "selector": selector_text(object),
        },
    })
}
