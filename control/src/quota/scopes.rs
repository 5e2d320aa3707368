//! Which objects a quota is about: all of its namespace, or pods (or claims) of certain kinds.

use serde_json::Value;

use super::usage::Counted;

/// Whether every scope of the quota, listed or selected, holds for the object. Scopes select pods, one of
/// them claims; an object of another kind is out of every scope.
pub(super) fn select(quota: &Value, counted: &Counted<'_>) -> bool {
    let listed = quota.pointer("/spec/scopes").and_then(Value::as_array);
    let mut listed = listed.into_iter().flatten().filter_map(Value::as_str);
    let selected = quota.pointer("/spec/scopeSelector/matchExpressions");
    let selected = selected.and_then(Value::as_array);
    listed.all(|scope| holds(counted, scope, "Exists", &[]))
        && selected.into_iter().flatten().all(|term| {
            let text = |field: &str| term.get(field).and_then(Value::as_str).unwrap_or_default();
            let values = term.get("values").and_then(Value::as_array);
            let values = values.into_iter().flatten().filter_map(Value::as_str);
            let values: Vec<_> = values.collect();
            holds(counted, text("scopeName"), text("operator"), &values)
        })
}

fn holds(counted: &Counted<'_>, scope: &str, operator: &str, values: &[&str]) -> bool {
    let is_core = counted.group.is_empty();
    match (scope, counted.resource) {
        ("VolumeAttributesClass", "persistentvolumeclaims") if is_core => matches(
            counted.text("/spec/volumeAttributesClassName"),
            operator,
            values,
        ),
        ("PriorityClass", "pods") if is_core => {
            matches(counted.text("/spec/priorityClassName"), operator, values)
        }
        ("Terminating", "pods") if is_core => has_deadline(counted),
        ("NotTerminating", "pods") if is_core => !has_deadline(counted),
        ("BestEffort", "pods") if is_core => is_best_effort(counted),
        ("NotBestEffort", "pods") if is_core => !is_best_effort(counted),
        ("CrossNamespacePodAffinity", "pods") if is_core => crosses_namespaces(counted),
        _ => false,
    }
}

/// Whether a name, empty when there is none, is what the operator wants.
fn matches(name: &str, operator: &str, values: &[&str]) -> bool {
    match operator {
        "Exists" => !name.is_empty(),
        "DoesNotExist" => name.is_empty(),
        "In" => values.contains(&name),
        "NotIn" => !values.contains(&name),
        _ => false,
    }
}

fn has_deadline(counted: &Counted<'_>) -> bool {
    let deadline = counted.object.pointer("/spec/activeDeadlineSeconds");
    deadline.and_then(Value::as_i64).is_some()
}

fn is_best_effort(counted: &Counted<'_>) -> bool {
    use windlass_api::pod_resources::{QosClass, qos_class};
    let spec = counted.pod_spec();
    spec.is_some_and(|spec| qos_class(&spec) == QosClass::BestEffort)
}

/// Whether any term of the pod's affinity or anti-affinity looks at other namespaces.
fn crosses_namespaces(counted: &Counted<'_>) -> bool {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let crosses = |term: &Value| {
        let names = term.get("namespaces").and_then(Value::as_array);
        names.is_some_and(|names| !names.is_empty()) || term.get("namespaceSelector").is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|affinity| {
        let terms = |list: &str| {
            let path = format!("/spec/affinity/{affinity}/{list}");
            let terms = counted.object.pointer(&path).and_then(Value::as_array);
            terms.into_iter().flatten()
        };
        let preferred = terms(PREFERRED).filter_map(|term| term.get("podAffinityTerm"));
        terms(REQUIRED).chain(preferred).any(crosses)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_select_the_pods_they_name() {
        let term = json!({"topologyKey": "k", "namespaces": ["other"]});
        let affinity =
            json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        let pods = [
            ("plain", json!({"spec": {"containers": [{"name": "c"}]}})),
            (
                "deadline",
                json!({"spec": {"activeDeadlineSeconds": 5, "containers": [{"name": "c"}]}}),
            ),
            (
                "asking",
                json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}),
            ),
            (
                "urgent",
                json!({"spec": {"priorityClassName": "high", "containers": [{"name": "c"}]}}),
            ),
            (
                "crossing",
                json!({"spec": {"affinity": affinity, "containers": [{"name": "c"}]}}),
            ),
        ];
        let scope = |name: &str| json!({"spec": {"scopes": [name]}});
        let selector = |operator: &str, values: &[&str]| {
            json!({"spec": {"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}}})
        };
        let all = ["plain", "deadline", "asking", "urgent", "crossing"];
        let cases = [
            (json!({"spec": {}}), all.to_vec()),
            (scope("Terminating"), vec!["deadline"]),
            (
                scope("NotTerminating"),
                vec!["plain", "asking", "urgent", "crossing"],
            ),
            (
                scope("BestEffort"),
                vec!["plain", "deadline", "urgent", "crossing"],
            ),
            (scope("NotBestEffort"), vec!["asking"]),
            (scope("PriorityClass"), vec!["urgent"]),
            (scope("CrossNamespacePodAffinity"), vec!["crossing"]),
            (selector("In", &["high", "low"]), vec!["urgent"]),
            (
                selector("NotIn", &["high"]),
                vec!["plain", "deadline", "asking", "crossing"],
            ),
            (
                selector("DoesNotExist", &[]),
                vec!["plain", "deadline", "asking", "crossing"],
            ),
        ];
        for (quota, expected) in cases {
            let selects = |(_, object): &&(&str, Value)| {
                let counted = Counted {
                    group: "",
                    resource: "pods",
                    object,
                };
                select(&quota, &counted)
            };
            let selected: Vec<_> = pods.iter().filter(selects).map(|(name, _)| *name).collect();
            assert_eq!(selected, expected, "{quota}");
        }
        let map = json!({});
        let counted = Counted {
            group: "",
            resource: "configmaps",
            object: &map,
        };
        assert!(!select(&scope("BestEffort"), &counted));
    }
}
