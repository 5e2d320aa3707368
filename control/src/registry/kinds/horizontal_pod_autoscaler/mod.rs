//! HorizontalPodAutoscaler, in the form it is stored in: autoscaling/v2.

mod conversion;
mod metrics;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::field::{Errors, Field, objects_mut};
use super::{default, integer, pod_spec, text};
use crate::identity::UserInfo;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Conversion, Endpoint, Kind, NAME, Strategy};

struct HorizontalPodAutoscaler;

/// The row of autoscaling/v1, which is stored as autoscaling/v2.
pub(super) fn kind_v1() -> Kind {
    static FORM: Conversion = Conversion {
        stored: GroupVersionKind::of("autoscaling", "v2", "HorizontalPodAutoscaler"),
        to_stored: conversion::from_v1,
        from_stored: conversion::to_v1,
        refuses: |_, _| Vec::new(),
        fields: &[],
    };
    let mut kind = kind().stored_as(&FORM);
    kind.info.gvk = GroupVersionKind::of("autoscaling", "v1", "HorizontalPodAutoscaler");
    for subresource in kind.info.subresources.to_mut() {
        subresource.gvk = kind.info.gvk.clone();
    }
    kind
}

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("autoscaling", "v2", "HorizontalPodAutoscaler");
    let plural = "horizontalpodautoscalers";
    Kind::namespaced(gvk, plural, &HorizontalPodAutoscaler)
        .short_names(&["hpa"])
        .categories(&["all"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Reference", "string", "What is scaled."),
    Column::new(
        "Targets",
        "string",
        "Each metric's value, and the value wanted.",
    ),
    Column::new("MinPods", "string", "Fewest pods."),
    Column::new("MaxPods", "string", "Most pods."),
    Column::new("Replicas", "string", "Pods there are."),
    AGE,
];

const SELECT_POLICIES: &[&str] = &["Disabled", "Max", "Min"];
const POLICY_TYPES: &[&str] = &["Percent", "Pods"];

/// Longest stabilisation window and longest period of a policy, in seconds.
const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;

impl Strategy for HorizontalPodAutoscaler {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        default(spec, "minReplicas", 1);
        let metrics = spec.get("metrics").and_then(Value::as_array);
        if metrics.is_none_or(Vec::is_empty) {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
            spec.insert("metrics".into(), json!([metric]));
        }
        if let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_object_mut) {
            set_behavior_defaults(behavior);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({"desiredReplicas": 0}));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let root = Field::root("", object);
        let spec = root.child("spec");
        let (least, most) = (spec.child("minReplicas"), spec.child("maxReplicas"));
        let number = most.integer().unwrap_or_default();
        if least.integer().is_some_and(|least| least < 1) {
            errors.push(least.invalid("must be greater than or equal to 1"));
        }
        if number < 1 {
            errors.push(most.invalid_as(number, "must be greater than 0"));
        }
        if least.integer().is_some_and(|least| number < least) {
            let detail = "must be greater than or equal to `minReplicas`";
            errors.push(most.invalid_as(number, detail));
        }
        validate_reference(&spec.child("scaleTargetRef"), &mut errors);
        for metric in spec.child("metrics").items() {
            metrics::validate(&metric, &mut errors);
        }
        let behavior = spec.child("behavior");
        for direction in ["scaleUp", "scaleDown"] {
            let rules = behavior.child(direction);
            if rules.is_set() {
                validate_rules(&rules, &mut errors);
            }
        }
        errors
    }

    fn validate_update(&self, _: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint != Endpoint::Status {
            return Vec::new();
        }
        let root = Field::root("", new);
        let status = root.child("status");
        let counts = ["currentReplicas", "desiredReplicas"];
        let errors = counts.iter().filter_map(|c| status.child(c).non_negative());
        errors.collect()
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
        let target = |field: &str| text(object, &format!("/spec/scaleTargetRef/{field}"));
        let least = object.pointer("/spec/minReplicas").and_then(Value::as_i64);
        let least = least.map_or_else(|| "<unset>".into(), |least| least.to_string());
        vec![
            meta::name(object).into(),
            format!("{}/{}", target("kind"), target("name")).into(),
            metrics::shown(object).into(),
            least.into(),
            integer(object, "/spec/maxReplicas").to_string().into(),
            integer(object, "/status/currentReplicas")
                .to_string()
                .into(),
            age(object, now).into(),
        ]
    }
}

/// Fills in what the rules for growing and shrinking leave open.
fn set_behavior_defaults(behavior: &mut Map<String, Value>) {
    let all = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let four = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    for (direction, window, policies) in [
        ("scaleUp", Some(0), json!([four, all])),
        ("scaleDown", None, json!([all])),
    ] {
        default(behavior, direction, json!({}));
        let rules = behavior.get_mut(direction).and_then(Value::as_object_mut);
        let Some(rules) = rules else { continue };
        if let Some(window) = window {
            default(rules, "stabilizationWindowSeconds", window);
        }
        default(rules, "selectPolicy", "Max");
        default(rules, "policies", policies);
        // A policy that is there is whole.
        for policy in objects_mut(rules, "policies") {
            policy.retain(|_, value| !value.is_null());
        }
    }
}

/// What is scaled, or what a metric describes.
fn validate_reference(reference: &Field<'_, '_>, errors: &mut Errors) {
    for field in ["kind", "name"] {
        errors.extend(reference.child(field).named(names::path_segment));
    }
}

fn validate_rules(rules: &Field<'_, '_>, errors: &mut Errors) {
    let window = rules.child("stabilizationWindowSeconds");
    let seconds = window.integer().unwrap_or_default();
    if seconds < 0 {
        errors.push(window.invalid("must be greater than or equal to zero"));
    }
    if seconds > WINDOW_MAX {
        let detail = format!("must be less than or equal to {WINDOW_MAX}");
        errors.push(window.invalid(detail));
    }
    errors.extend(rules.child("selectPolicy").one_of(SELECT_POLICIES));
    let policies = rules.child("policies");
    if policies.len() == 0 {
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        validate_policy(&policy, errors);
    }
    let tolerance = rules.child("tolerance");
    if pod_spec::amount(tolerance.value()).is_some_and(|tolerance| tolerance.is_negative()) {
        errors.push(tolerance.invalid("must be greater than or equal to 0"));
    }
}

fn validate_policy(policy: &Field<'_, '_>, errors: &mut Errors) {
    let kind = policy.child("type");
    if !POLICY_TYPES.contains(&kind.text()) {
        errors.push(kind.not_supported(POLICY_TYPES));
    }
    for field in ["value", "periodSeconds"] {
        let field = policy.child(field);
        let number = field.integer().unwrap_or_default();
        if number <= 0 {
            errors.push(field.invalid_as(number, "must be greater than zero"));
        }
    }
    let period = policy.child("periodSeconds");
    if period.integer().is_some_and(|seconds| seconds > PERIOD_MAX) {
        let detail = format!("must be less than or equal to {PERIOD_MAX}");
        errors.push(period.invalid(detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn autoscaler(spec: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "web"}, "spec": spec});
        object["spec"]["scaleTargetRef"] = json!({"kind": "Deployment", "name": "web"});
        HorizontalPodAutoscaler.set_defaults(&mut object);
        object
    }

    fn errors(spec: &Value) -> Vec<String> {
        let found = HorizontalPodAutoscaler.validate(&autoscaler(spec));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_left_open_is_filled_in() {
        let object = autoscaler(
            &json!({"maxReplicas": 3, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}),
        );
        let spec = &object["spec"];
        assert_eq!(spec["minReplicas"], 1);
        assert_eq!(
            spec["metrics"][0]["resource"]["target"]["averageUtilization"],
            80
        );
        assert_eq!(
            spec["behavior"]["scaleUp"]["policies"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        assert_eq!(spec["behavior"]["scaleDown"]["selectPolicy"], "Max");
        assert_eq!(HorizontalPodAutoscaler.validate(&object), []);
    }

    #[test]
    fn a_spec_is_refused_for_each_broken_rule() {
        let cases = [
            (
                json!({"minReplicas": 3, "maxReplicas": 2}),
                vec![
                    "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`",
                ],
            ),
            (
                json!({"maxReplicas": 2, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Value", "value": "0"}}}]}),
                vec![
                    r#"spec.metrics[0].resource.target.value: Invalid value: "0": must be positive"#,
                    "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                ],
            ),
            (
                json!({"maxReplicas": 2, "metrics": [{"type": "Pods"}]}),
                vec![
                    "spec.metrics[0].pods: Required value: must populate information for the given metric source",
                ],
            ),
            (
                json!({"maxReplicas": 2, "behavior": {"scaleUp": {"policies": [{"type": "Some", "value": 1, "periodSeconds": 9999}]}}}),
                vec![
                    r#"spec.behavior.scaleUp.policies[0].type: Unsupported value: "Some": supported values: "Percent", "Pods""#,
                    "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 9999: must be less than or equal to 1800",
                ],
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(errors(&spec), expected);
        }
    }

    #[test]
    fn the_table_reads_as_kubectl_prints_it() {
        let mut object = autoscaler(&json!({"maxReplicas": 3}));
        let cells = |object: &Value| HorizontalPodAutoscaler.cells(object, Timestamp::UNIX_EPOCH);
        assert_eq!(
            cells(&object)[1..3],
            [json!("Deployment/web"), json!("cpu: <unknown>/80%")]
        );
        object["status"] = json!({"currentMetrics": [{
            "type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40}},
        }]});
        assert_eq!(cells(&object)[2], "cpu: 40%/80%");
    }
}
