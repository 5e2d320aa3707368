//! What kinds that make pods share: replicas, selector and template, the scale subresource, columns.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::field::{Errors, Field, pointer};
use super::{integer, items, label_selector, pod_spec, text};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Kind, NAME};

const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// Why a count in a status is wrong.
pub(super) const MORE_THAN_ALL: &str = "cannot be greater than status.replicas";
pub(super) const MORE_THAN_READY: &str = "cannot be greater than readyReplicas";

/// Wide columns of kinds with a template of pods.
pub(super) const CONTAINERS: Column = Column::wide(
    "Containers",
    "string",
    "Names of each container in the template.",
);
pub(super) const IMAGES: Column = Column::wide(
    "Images",
    "string",
    "Images referenced by each container in the template.",
);
pub(super) const SELECTOR: Column =
    Column::wide("Selector", "string", "Which pods belong to the object.");

/// Adds the `scale` subresource.
pub(super) fn scaled(kind: Kind) -> Kind {
    let scale = GroupVersionKind::of("autoscaling", "v1", "Scale");
    kind.subresource("scale", scale, &["get", "patch", "update"])
}

/// Fills in replicas and the defaults of the pod template.
pub(super) fn set_defaults(object: &mut Value) {
    let spec = meta::member_mut(object, "spec");
    super::default(spec, "replicas", 1);
    set_template_defaults(spec);
}

/// Fills in the defaults of the pod template in `holder`.
pub(super) fn set_template_defaults(holder: &mut Map<String, Value>) {
    let template = holder.get_mut("template");
    if let Some(template) = template.filter(|template| template.is_object()) {
        pod_spec::set_defaults(meta::member_mut(template, "spec"));
    }
}

/// All that is wrong with replicas, selector and template of a Deployment or ReplicaSet.
pub(super) fn validate(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = Field::root("", object);
    let spec = root.child("spec");
    let numbers = [
        "replicas",
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ];
    non_negative(&spec, &numbers, &mut errors);
    validate_selector(&spec, "deployment", &mut errors);
    let template = spec.child("template");
    validate_match(&spec, &mut errors);
    pod_spec::validate_template(&template, &mut errors);
    validate_always(&template, "ReplicaSet", &mut errors);
    errors
}

/// The numbers may not be negative.
pub(super) fn non_negative(holder: &Field<'_, '_>, numbers: &[&str], errors: &mut Errors) {
    for number in numbers {
        errors.extend(holder.child(number).non_negative());
    }
}

/// `spec.selector` is there, well formed, and asks for something.
pub(super) fn validate_selector(spec: &Field<'_, '_>, kind: &str, errors: &mut Errors) {
    let selector = spec.child("selector");
    if !selector.is_set() {
        errors.push(selector.required(""));
        return;
    }
    label_selector::validate(&selector, errors);
    if label_selector::is_empty(&selector) {
        errors.push(selector.invalid(format!("empty selector is invalid for {kind}")));
    }
}

/// `spec.selector` selects the pods of `spec.template`.
pub(super) fn validate_match(spec: &Field<'_, '_>, errors: &mut Errors) {
    let selector = spec.child("selector");
    let template = spec.child("template");
    let metadata = template.child("metadata");
    let labels = metadata.child("labels");
    let empty = label_selector::is_empty(&selector);
    if !empty && label_selector::matches(selector.value(), labels.value()) == Some(false) {
        let shown = match labels.value() {
            Value::Null => json!({}),
            other => other.clone(),
        };
        let detail = "`selector` does not match template `labels`";
        errors.push(labels.invalid_as(shown, detail));
    }
}

/// Pods of the template run for ever.
pub(super) fn validate_always(template: &Field<'_, '_>, kind: &str, errors: &mut Errors) {
    let spec = template.child("spec");
    let policy = spec.child("restartPolicy");
    if policy.text() != "Always" && pod_spec::RESTART_POLICIES.contains(&policy.text()) {
        errors.push(policy.not_supported(&["Always"]));
    }
    let deadline = spec.child("activeDeadlineSeconds");
    if deadline.is_set() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(deadline.forbidden(detail));
    }
}

/// The selector may not change.
pub(super) fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let root = Field::root("", new);
    let spec = root.child("spec");
    let changed = spec
        .child("selector")
        .unchanged(pointer(old, "/spec/selector"));
    changed.into_iter().collect()
}

/// A whole number or a percentage, not negative.
pub(super) fn validate_amount(amount: &Field<'_, '_>, errors: &mut Errors) {
    if let Value::String(_) = amount.value() {
        if percent(amount.value()).is_none() {
            errors.push(amount.invalid(PERCENT));
        }
    } else {
        errors.extend(amount.non_negative());
    }
}

/// At most all of them.
pub(super) fn validate_part(amount: &Field<'_, '_>, errors: &mut Errors) {
    if percent(amount.value()).is_some_and(|percent| percent > 100) {
        errors.push(amount.invalid("must not be greater than 100%"));
    }
}

/// The number in `25%`.
fn percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    let numeric = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // A number too large for us is too large for anybody.
    numeric.then(|| digits.parse().unwrap_or(i64::MAX))
}

/// The number in `3` or `25%`, 0 for anything else.
pub(super) fn amount(value: &Value) -> i64 {
    percent(value).or_else(|| value.as_i64()).unwrap_or(0)
}

/// All that is wrong with a status: counts that are negative, or larger than what they are part of.
pub(super) fn validate_status(
    old: &Value,
    new: &Value,
    counts: &[&str],
    parts: &[(&str, &str, &'static str)],
) -> Errors {
    let mut errors = Errors::new();
    let root = Field::root("", new);
    let status = root.child("status");
    non_negative(&status, counts, &mut errors);
    non_negative(
        &status,
        &["observedGeneration", "collisionCount"],
        &mut errors,
    );
    let count = |name| status.integer_of(name).unwrap_or_default();
    for (part, whole, detail) in parts {
        if count(part) > count(whole) {
            errors.push(status.child(part).invalid_as(count(part), *detail));
        }
    }
    let before = old
        .pointer("/status/collisionCount")
        .and_then(Value::as_i64);
    let after = status.integer_of("collisionCount");
    if before.is_some_and(|before| after.is_none_or(|after| after < before)) {
        let collisions = status.child("collisionCount");
        let shown = after.unwrap_or_default();
        errors.push(collisions.invalid_as(shown, "cannot be decremented"));
    }
    errors
}

/// Warnings about the object's name, which becomes part of its pods' names, and its template.
pub(super) fn warnings(object: &Value) -> Vec<String> {
    let mut found: Vec<_> = name_warning(object, "Pod names and hostnames")
        .into_iter()
        .collect();
    let root = Field::root("", object);
    let spec = root.child("spec");
    found.extend(pod_spec::warnings(&spec.child("template")));
    found
}

/// A warning unless the name can be a host's name.
pub(super) fn name_warning(object: &Value, used_in: &str) -> Option<String> {
    let problems = names::dns1123_label(meta::name(object));
    (!problems.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            problems.join(" ")
        )
    })
}

/// Wide cells: container names, images, selector.
pub(super) fn wide_cells(object: &Value) -> [Value; 3] {
    let [containers, images] = container_cells(object, "/spec/template/spec/containers");
    let selector = label_selector::shown(pointer(object, "/spec/selector"));
    [containers, images, selector]
}

/// Columns of what keeps a number of pods: ReplicaSet and ReplicationController.
pub(super) const REPLICA_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Desired", "integer", "Pods wanted."),
    Column::new("Current", "integer", "Pods there are."),
    Column::new("Ready", "integer", "Pods that are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Counts in their status.
pub(super) const REPLICA_COUNTS: &[&str] = &[
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
];

/// Which of the counts is a part of which, and what is said when it is more.
pub(super) const REPLICA_PARTS: &[(&str, &str, &str)] = &[
    ("fullyLabeledReplicas", "replicas", MORE_THAN_ALL),
    ("readyReplicas", "replicas", MORE_THAN_ALL),
    ("availableReplicas", "replicas", MORE_THAN_ALL),
    ("availableReplicas", "readyReplicas", MORE_THAN_READY),
];

/// Their cells.
pub(super) fn replica_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images, selector] = wide_cells(object);
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

/// Names and images of the containers at a JSON pointer.
pub(super) fn container_cells(object: &Value, containers: &str) -> [Value; 2] {
    let column = |field: &str| -> Value {
        let texts: Vec<_> = items(object, containers)
            .iter()
            .map(|container| text(container, field))
            .collect();
        texts.join(",").into()
    };
    [column("/name"), column("/image")]
}

/// The Scale of an object with replicas and a selector, be it a selector or a map of labels.
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
        "spec": {"replicas": integer(object, "/spec/replicas")},
        "status": {
            "replicas": integer(object, "/status/replicas"),
            "selector": label_selector::text(pointer(object, "/spec/selector")),
        },
    })
}
