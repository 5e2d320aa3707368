//! Metrics of an autoscaler: validation, and their cell in the table.

use serde_json::Value;
use windlass_api::names;

use super::super::field::{Errors, Field, pointer};
use super::super::{items, label_selector, pod_spec, text};
use super::validate_reference;

/// Types of metrics and the member each is described in.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: &[&str] = &[
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];
const TARGETS: [&str; 3] = ["Utilization", "Value", "AverageValue"];

/// Metrics shown in the table before it abbreviates.
const SHOWN: usize = 2;

/// All that is wrong with a metric.
pub(super) fn validate(metric: &Field<'_, '_>, errors: &mut Errors) {
    let kind = metric.child("type");
    if kind.text().is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    if !TYPES.contains(&kind.text()) {
        errors.push(kind.not_supported(TYPES));
    }
    let given: Vec<_> = SOURCES
        .iter()
        .filter(|(_, member)| metric.has(member))
        .collect();
    if let Some((kind, member)) = given.first() {
        validate_source(&metric.child(member), kind, errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text());
    let expected = expected.map(|(_, member)| *member).unwrap_or_default();
    if !expected.is_empty() && !metric.has(expected) {
        let detail = "must populate information for the given metric source";
        errors.push(metric.child(expected).required(detail));
    }
    if given.len() != 1 {
        for (_, member) in given.iter().filter(|(_, member)| *member != expected) {
            let detail = "must populate the given metric source only";
            errors.push(metric.child(member).forbidden(detail));
        }
    }
}

fn validate_source(source: &Field<'_, '_>, kind: &str, errors: &mut Errors) {
    match kind {
        "Object" => validate_reference(&source.child("describedObject"), errors),
        "Resource" | "ContainerResource" => validate_resource(source, kind, errors),
        _ => {}
    }
    if ["Object", "External", "Pods"].contains(&kind) {
        validate_identifier(&source.child("metric"), errors);
    }
    let target = source.child("target");
    validate_target(&target, errors);
    let (value, average) = (target.child("value"), target.child("averageValue"));
    let utilization = target.child("averageUtilization");
    match (kind, value.is_set(), average.is_set()) {
        ("Object", false, false) => {
            errors.push(average.required("must set either a target value or averageValue"));
        }
        ("External", false, false) => {
            let detail = "must set either a target value for metric or a per-pod target";
            errors.push(average.required(detail));
        }
        ("External", true, true) => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.push(value.forbidden(detail));
        }
        ("Pods", _, false) => {
            errors.push(average.required("must specify a positive target averageValue"));
        }
        ("Resource" | "ContainerResource", _, false) if !utilization.is_set() => {
            let detail = "must set either a target raw value or a target utilization";
            errors.push(utilization.required(detail));
        }
        ("Resource" | "ContainerResource", _, true) if utilization.is_set() => {
            let detail = "may not set both a target raw value and a target utilization";
            errors.push(average.forbidden(detail));
        }
        _ => {}
    }
}

fn validate_resource(source: &Field<'_, '_>, kind: &str, errors: &mut Errors) {
    let name = source.child("name");
    if name.text().is_empty() {
        errors.push(name.required("must specify a resource name"));
    }
    if kind != "ContainerResource" {
        return;
    }
    let container = source.child("container");
    if container.text().is_empty() {
        errors.push(container.required("must specify a container"));
    } else {
        errors.extend(container.follows(names::dns1123_label));
    }
}

fn validate_identifier(metric: &Field<'_, '_>, errors: &mut Errors) {
    let name = metric.child("name");
    if name.text().is_empty() {
        errors.push(name.required("must specify a metric name"));
    } else {
        errors.extend(name.follows(names::path_segment));
    }
    label_selector::validate(&metric.child("selector"), errors);
}

fn validate_target(target: &Field<'_, '_>, errors: &mut Errors) {
    let kind = target.child("type");
    if kind.text().is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    }
    if !TARGETS.contains(&kind.text()) {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(kind.invalid_as(kind.text(), detail));
    }
    for field in ["value", "averageValue"] {
        let field = target.child(field);
        let amount = pod_spec::amount(field.value());
        if amount.is_some_and(|amount| amount.is_zero() || amount.is_negative()) {
            errors.push(field.invalid("must be positive"));
        }
    }
    let utilization = target.child("averageUtilization");
    if utilization.integer().is_some_and(|percent| percent < 1) {
        errors.push(utilization.invalid("must be greater than 0"));
    }
}

/// The cell that names each metric with its value and the value wanted.
pub(super) fn shown(object: &Value) -> String {
    let metrics = items(object, "/spec/metrics");
    let current = items(object, "/status/currentMetrics");
    let mut texts: Vec<_> = metrics
        .iter()
        .enumerate()
        .map(|(index, metric)| one(metric, current.get(index).unwrap_or(&Value::Null)))
        .collect();
    match texts.len() {
        0 => "<none>".into(),
        count if count > SHOWN => {
            texts.truncate(SHOWN);
            format!("{} + {} more...", texts.join(", "), count - SHOWN)
        }
        _ => texts.join(", "),
    }
}

fn one(metric: &Value, current: &Value) -> String {
    let kind = text(metric, "/type");
    let Some((_, member)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return "<unknown type>".into();
    };
    let target = pointer(metric, &format!("/{member}/target"));
    let current = pointer(current, &format!("/{member}/current"));
    let value = |of: &Value, field: &str| of.get(field).map(plain);
    let unknown = || "<unknown>".to_owned();
    let average = value(target, "averageValue");
    if kind == "Resource" || kind == "ContainerResource" {
        let name = text(metric, &format!("/{member}/name"));
        let percent = |of: &Value| value(of, "averageUtilization").map(|text| format!("{text}%"));
        return match average {
            Some(wanted) => {
                let current = value(current, "averageValue").unwrap_or_else(unknown);
                format!("{name}: {current}/{wanted}")
            }
            None => {
                let current = percent(current).unwrap_or_else(unknown);
                let wanted = percent(target).unwrap_or_else(|| "<auto>".into());
                format!("{name}: {current}/{wanted}")
            }
        };
    }
    match average {
        Some(wanted) => {
            let current = value(current, "averageValue").unwrap_or_else(unknown);
            let note = if kind == "Pods" { "" } else { " (avg)" };
            format!("{current}/{wanted}{note}")
        }
        None => {
            let current = value(current, "value").unwrap_or_else(unknown);
            let wanted = value(target, "value").unwrap_or_default();
            format!("{current}/{wanted}")
        }
    }
}

/// A number or text without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
