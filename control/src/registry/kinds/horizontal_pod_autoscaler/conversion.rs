//! The same autoscaler in autoscaling/v1, which knows nothing but a percentage of cpu.
//!
//! What v1 cannot say it carries in annotations, as JSON in v1's own, older form of metrics. Whoever reads
//! v1 and writes it back loses nothing; on the way back the annotations go.

use serde_json::{Map, Value, json};

use super::super::text;
use crate::registry::object_meta as meta;

type Object = Map<String, Value>;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Members of the spec or status that both versions have.
const SPEC: [&str; 3] = ["scaleTargetRef", "minReplicas", "maxReplicas"];
const STATUS: [&str; 4] = [
    "observedGeneration",
    "lastScaleTime",
    "currentReplicas",
    "desiredReplicas",
];

/// A target or a value in v2, and what v1 calls it within each type of metric.
struct Names {
    /// v2's member that describes the metric.
    source: &'static str,
    /// v2's `value`, `averageValue`, `averageUtilization`.
    value: &'static str,
    average_value: &'static str,
    utilization: &'static str,
    /// v2's `metric.name` and `metric.selector`.
    name: &'static str,
    selector: &'static str,
}

const fn names(source: &'static str, values: [&'static str; 3], id: [&'static str; 2]) -> Names {
    let [value, average_value, utilization] = values;
    let [name, selector] = id;
    Names {
        source,
        value,
        average_value,
        utilization,
        name,
        selector,
    }
}

/// How v1 writes the metrics of a spec. An empty name is a value the type does not have.
const TARGETS: [Names; 5] = [
    names(
        "object",
        ["targetValue", "averageValue", ""],
        ["metricName", "selector"],
    ),
    names(
        "pods",
        ["", "targetAverageValue", ""],
        ["metricName", "selector"],
    ),
    names(
        "resource",
        ["", "targetAverageValue", "targetAverageUtilization"],
        ["", ""],
    ),
    names(
        "containerResource",
        ["", "targetAverageValue", "targetAverageUtilization"],
        ["", ""],
    ),
    names(
        "external",
        ["targetValue", "targetAverageValue", ""],
        ["metricName", "metricSelector"],
    ),
];

/// How v1 writes the metrics of a status.
const CURRENT: [Names; 5] = [
    names(
        "object",
        ["currentValue", "averageValue", ""],
        ["metricName", "selector"],
    ),
    names(
        "pods",
        ["", "currentAverageValue", ""],
        ["metricName", "selector"],
    ),
    names(
        "resource",
        ["", "currentAverageValue", "currentAverageUtilization"],
        ["", ""],
    ),
    names(
        "containerResource",
        ["", "currentAverageValue", "currentAverageUtilization"],
        ["", ""],
    ),
    names(
        "external",
        ["currentValue", "currentAverageValue", ""],
        ["metricName", "metricSelector"],
    ),
];

/// The v1 form of a stored autoscaler.
pub(super) fn to_v1(stored: &Value) -> Value {
    let mut object = stored.clone();
    let (spec, status) = (member(stored, "spec"), member(stored, "status"));
    let mut spec_v1 = pick(&spec, &SPEC);
    let mut status_v1 = pick(&status, &STATUS);
    let (cpu, others) = split(list(&spec, "metrics"), "target");
    if let Some(percent) = cpu {
        spec_v1.insert("targetCPUUtilizationPercentage".into(), percent);
    }
    let (current, all_current) = split(list(&status, "currentMetrics"), "current");
    if let Some(percent) = current {
        status_v1.insert("currentCPUUtilizationPercentage".into(), percent);
    }
    let others: Vec<_> = others
        .iter()
        .map(|m| older(m, &TARGETS, "target"))
        .collect();
    let current: Vec<_> = all_current
        .iter()
        .map(|m| older(m, &CURRENT, "current"))
        .collect();
    for (annotation, value) in [
        (METRICS, Value::from(others)),
        (CURRENT_METRICS, Value::from(current)),
        (CONDITIONS, list(&status, "conditions").to_vec().into()),
        (BEHAVIOR, spec.get("behavior").cloned().unwrap_or_default()),
    ] {
        if value != json!([]) && !value.is_null() {
            annotate(&mut object, annotation, &value);
        }
    }
    put(&mut object, "apiVersion", "autoscaling/v1".into());
    put(&mut object, "spec", spec_v1.into());
    if stored.get("status").is_some() {
        put(&mut object, "status", status_v1.into());
    }
    object
}

/// The stored form of a v1 autoscaler.
pub(super) fn from_v1(given: &Value) -> Value {
    let mut object = given.clone();
    let (spec, status) = (member(given, "spec"), member(given, "status"));
    let mut spec_v2 = pick(&spec, &SPEC);
    let mut status_v2 = pick(&status, &STATUS);
    let mut metrics = Vec::new();
    if let Some(percent) = spec.get("targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    let others = take_annotation(&mut object, METRICS);
    metrics.extend(elements(&others).map(|metric| newer(metric, &TARGETS, "target")));
    if !metrics.is_empty() {
        spec_v2.insert("metrics".into(), metrics.into());
    }
    let current = take_annotation(&mut object, CURRENT_METRICS);
    let mut current: Vec<_> = elements(&current)
        .map(|metric| newer(metric, &CURRENT, "current"))
        .collect();
    if let Some(percent) = status.get("currentCPUUtilizationPercentage")
        && !current
            .iter()
            .any(|metric| cpu_percent(metric, "current").is_some())
    {
        let value = json!({"averageUtilization": percent});
        current.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": value}}));
    }
    if !current.is_empty() {
        status_v2.insert("currentMetrics".into(), current.into());
    }
    if let Some(conditions @ Value::Array(_)) = take_annotation(&mut object, CONDITIONS) {
        status_v2.insert("conditions".into(), conditions);
    }
    if let Some(behavior @ Value::Object(_)) = take_annotation(&mut object, BEHAVIOR) {
        spec_v2.insert("behavior".into(), behavior);
    }
    put(&mut object, "apiVersion", "autoscaling/v2".into());
    put(&mut object, "spec", spec_v2.into());
    if given.get("status").is_some() {
        put(&mut object, "status", status_v2.into());
    }
    object
}

fn member(object: &Value, name: &str) -> Object {
    let member = object.get(name).and_then(Value::as_object);
    member.cloned().unwrap_or_default()
}

fn list<'a>(holder: &'a Object, name: &str) -> &'a [Value] {
    let list = holder.get(name).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

fn elements(list: &Option<Value>) -> impl Iterator<Item = &Value> {
    list.iter().filter_map(Value::as_array).flatten()
}

fn pick(from: &Object, members: &[&str]) -> Object {
    let present = members.iter().filter_map(|name| from.get_key_value(*name));
    present
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.into(), value);
    }
}

/// The percentage of a metric that v1 has a member for.
fn cpu_percent<'a>(metric: &'a Value, holder: &str) -> Option<&'a Value> {
    let resource = metric.get("resource")?;
    let cpu = text(metric, "/type") == "Resource" && text(resource, "/name") == "cpu";
    let percent = resource.get(holder)?.get("averageUtilization")?;
    cpu.then_some(percent)
}

/// The percentage of cpu, and the metrics to be written otherwise. What is measured is written both ways.
fn split<'a>(metrics: &'a [Value], holder: &str) -> (Option<Value>, Vec<&'a Value>) {
    let percent = metrics
        .iter()
        .find_map(|metric| cpu_percent(metric, holder));
    let both = holder == "current";
    let others = metrics
        .iter()
        .filter(|metric| both || cpu_percent(metric, holder).is_none());
    (percent.cloned(), others.collect())
}

/// A metric in v1's form.
fn older(metric: &Value, forms: &[Names], holder: &str) -> Value {
    let mut result = json!({"type": text(metric, "/type")});
    for form in forms {
        let Some(source) = metric.get(form.source).and_then(Value::as_object) else {
            continue;
        };
        let source = Value::Object(source.clone());
        let mut flat = Object::new();
        for (from, to) in [
            ("/name".to_owned(), "name"),
            ("/container".to_owned(), "container"),
            ("/describedObject".to_owned(), "target"),
            ("/metric/name".to_owned(), form.name),
            ("/metric/selector".to_owned(), form.selector),
            (format!("/{holder}/value"), form.value),
            (format!("/{holder}/averageValue"), form.average_value),
            (format!("/{holder}/averageUtilization"), form.utilization),
        ] {
            if let (Some(value), false) = (source.pointer(&from), to.is_empty()) {
                flat.insert(to.into(), value.clone());
            }
        }
        put(&mut result, form.source, flat.into());
    }
    result
}

/// A metric in v2's form.
fn newer(metric: &Value, forms: &[Names], holder: &str) -> Value {
    let mut result = json!({"type": text(metric, "/type")});
    for form in forms {
        let Some(flat) = metric.get(form.source).and_then(Value::as_object) else {
            continue;
        };
        let get = |name: &str| flat.get(name).filter(|value| !value.is_null());
        let mut source = Object::new();
        for (from, to) in [
            ("name", "name"),
            ("container", "container"),
            ("target", "describedObject"),
        ] {
            if let Some(value) = get(from) {
                source.insert(to.into(), value.clone());
            }
        }
        let mut id = Object::new();
        for (from, to) in [(form.name, "name"), (form.selector, "selector")] {
            if let Some(value) = get(from) {
                id.insert(to.into(), value.clone());
            }
        }
        if !id.is_empty() {
            source.insert("metric".into(), id.into());
        }
        let mut values = Object::new();
        // The most special value that is there says what kind of target it is.
        for (from, to, kind) in [
            (form.utilization, "averageUtilization", "Utilization"),
            (form.average_value, "averageValue", "AverageValue"),
            (form.value, "value", "Value"),
        ] {
            let Some(value) = get(from).filter(|value| **value != json!("0")) else {
                continue;
            };
            if holder == "target" {
                values.entry("type").or_insert_with(|| kind.into());
            }
            values.insert(to.into(), value.clone());
        }
        source.insert(holder.into(), values.into());
        put(&mut result, form.source, source.into());
    }
    result
}

fn annotate(object: &mut Value, annotation: &str, value: &Value) {
    let mut metadata = object.get("metadata").cloned().unwrap_or_default();
    let annotations = meta::member_mut(&mut metadata, "annotations");
    annotations.insert(annotation.into(), value.to_string().into());
    put(object, "metadata", metadata);
}

/// Takes an annotation away and reads it; one that does not read is as good as none.
fn take_annotation(object: &mut Value, annotation: &str) -> Option<Value> {
    let annotations = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)?;
    let value = annotations.shift_remove(annotation);
    if annotations.is_empty() {
        meta::remove(object, "annotations");
    }
    serde_json::from_str(value?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_of_cpu_is_a_member_and_nothing_else() {
        let stored = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web"},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {
                    "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50},
                }}],
            },
        });
        let older = to_v1(&stored);
        assert_eq!(
            older,
            json!({
                "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "web"},
                "spec": {
                    "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3,
                    "targetCPUUtilizationPercentage": 50,
                },
            })
        );
        assert_eq!(from_v1(&older), stored);
    }

    #[test]
    fn what_v1_cannot_say_is_carried_along() {
        let stored = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web", "annotations": {"mine": "1"}},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                "minReplicas": 1, "maxReplicas": 3,
                "metrics": [
                    {"type": "Pods", "pods": {
                        "metric": {"name": "requests", "selector": {"matchLabels": {"a": "1"}}},
                        "target": {"type": "AverageValue", "averageValue": "5"},
                    }},
                    {"type": "Object", "object": {
                        "describedObject": {"kind": "Service", "name": "web"},
                        "metric": {"name": "rate"},
                        "target": {"type": "Value", "value": "9"},
                    }},
                    {"type": "ContainerResource", "containerResource": {
                        "name": "memory", "container": "web",
                        "target": {"type": "Utilization", "averageUtilization": 70},
                    }},
                    {"type": "External", "external": {
                        "metric": {"name": "queue"},
                        "target": {"type": "AverageValue", "averageValue": "2"},
                    }},
                ],
                "behavior": {"scaleUp": {"selectPolicy": "Max"}},
            },
            "status": {
                "desiredReplicas": 2,
                "currentMetrics": [{"type": "Pods", "pods": {
                    "metric": {"name": "requests"}, "current": {"averageValue": "4"},
                }}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let older = to_v1(&stored);
        let metrics = older["metadata"]["annotations"][METRICS].as_str().unwrap();
        let metrics: Value = serde_json::from_str(metrics).unwrap();
        assert_eq!(metrics[0]["pods"]["targetAverageValue"], "5");
        assert_eq!(metrics[1]["object"]["target"]["kind"], "Service");
        assert_eq!(metrics[3]["external"]["metricName"], "queue");
        assert_eq!(from_v1(&older), stored);
    }
}
