//! What an ordinary update of a pod may change: images, deadlines, and little else.

use serde_json::{Map, Value};

use super::super::field::{Errors, Field, pointer};
use super::super::{items, pod_spec};

const FORBIDDEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Differences named in an error before it says no more.
const SHOWN: usize = 3;

/// All that is wrong with the change from `old` to `new`.
pub(super) fn validate(old: &Value, new: &Value, errors: &mut Errors) {
    let root = Field::root("", new);
    let spec = root.child("spec");
    for list in ["containers", "initContainers"] {
        let containers = spec.child(list);
        if containers.len() != items(old, &format!("/spec/{list}")).len() {
            errors.push(containers.forbidden("pod updates may not add or remove containers"));
            return;
        }
    }
    let before = pointer(old, "/spec");
    if !validate_deadline(before, &spec, errors) {
        return;
    }
    validate_tolerations(before, &spec.child("tolerations"), errors);
    validate_gates(before, &spec.child("schedulingGates"), errors);
    let mut rest = spec.value().clone();
    if let Some(rest) = rest.as_object_mut() {
        take_back(before, rest);
        if !items(old, "/spec/schedulingGates").is_empty() {
            validate_gated(before, &spec, errors);
            take_back_node_choice(before, rest);
        }
    }
    let mut differences = Vec::new();
    compare("spec", before, &rest, &mut differences);
    if !differences.is_empty() {
        differences.truncate(SHOWN);
        let detail = format!("{FORBIDDEN}\n{}", differences.join("\n"));
        errors.push(spec.forbidden(detail));
    }
}

/// A deadline may be set, and come nearer. Whether the rest is worth looking at.
fn validate_deadline(old: &Value, spec: &Field<'_, '_>, errors: &mut Errors) -> bool {
    let deadline = spec.child("activeDeadlineSeconds");
    let before = old.get("activeDeadlineSeconds").and_then(Value::as_i64);
    match (before, deadline.integer()) {
        (Some(before), Some(after)) if after > before => {
            let detail = "must be less than or equal to previous value";
            errors.push(deadline.invalid(detail));
            false
        }
        (Some(_), None) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(deadline.invalid(detail));
            true
        }
        _ => true,
    }
}

/// Tolerations may be added, and last for another time.
fn validate_tolerations(old: &Value, tolerations: &Field<'_, '_>, errors: &mut Errors) {
    let lasting = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(toleration) = toleration.as_object_mut() {
            toleration.shift_remove("tolerationSeconds");
        }
        toleration
    };
    let after: Vec<_> = tolerations.items().map(|t| lasting(t.value())).collect();
    let kept = items(old, "/tolerations");
    if !kept.iter().all(|old| after.contains(&lasting(old))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(tolerations.forbidden(detail));
    }
}

/// Gates may go.
fn validate_gates(old: &Value, gates: &Field<'_, '_>, errors: &mut Errors) {
    let before = items(old, "/schedulingGates");
    for gate in gates.items() {
        let name = gate.child("name");
        let known = before
            .iter()
            .any(|old| old.get("name") == Some(name.value()));
        if !known {
            let detail = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                name.text()
            );
            errors.push(name.forbidden(detail));
        }
    }
}

/// Makes what may change what it was.
fn take_back(old: &Value, spec: &mut Map<String, Value>) {
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        restore(old, spec, field);
    }
    for list in ["containers", "initContainers"] {
        let before = items(old, &format!("/{list}"));
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for (container, before) in containers.into_iter().flatten().zip(before) {
            if let Some(container) = container.as_object_mut() {
                restore(before, container, "image");
            }
        }
    }
    const GRACE: &str = "terminationGracePeriodSeconds";
    let before = old.get(GRACE).and_then(Value::as_i64);
    if before.is_some_and(|before| before < 0) && spec.get(GRACE) == Some(&1.into()) {
        restore(old, spec, GRACE);
    }
}

fn restore(from: &Value, to: &mut Map<String, Value>, field: &str) {
    match from.get(field) {
        Some(value) => drop(to.insert(field.to_owned(), value.clone())),
        None => drop(to.shift_remove(field)),
    }
}

/// While a pod waits at a gate, its choice of nodes may become narrower.
fn validate_gated(old: &Value, spec: &Field<'_, '_>, errors: &mut Errors) {
    let selector = spec.child("nodeSelector");
    let before = old.get("nodeSelector").and_then(Value::as_object);
    let mut labels = before.into_iter().flatten();
    if labels.any(|(key, value)| selector.key(key).value() != value) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(selector.invalid(detail));
    }
    let before = items(
        old,
        &format!("/affinity/nodeAffinity/{REQUIRED}/nodeSelectorTerms"),
    );
    let affinity = spec.child("affinity");
    let node = affinity.child("nodeAffinity");
    let required = node.child(REQUIRED);
    let terms = required.child("nodeSelectorTerms");
    if before.is_empty() {
        return;
    }
    if terms.len() != before.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(terms.invalid(detail));
        return;
    }
    for (term, before) in terms.items().zip(before) {
        if !only_adds(before, term.value()) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(term.invalid(detail));
        }
    }
}

/// Whether a term's requirements begin with the old ones; a term without any matches nothing and stays so.
fn only_adds(old: &Value, new: &Value) -> bool {
    const LISTS: [&str; 2] = ["/matchExpressions", "/matchFields"];
    let empty = |term: &Value| LISTS.iter().all(|list| items(term, list).is_empty());
    let starts = |list: &&str| items(new, list).starts_with(items(old, list));
    LISTS.iter().all(starts) && (!empty(old) || empty(new))
}

fn take_back_node_choice(old: &Value, spec: &mut Map<String, Value>) {
    restore(old, spec, "nodeSelector");
    let before = old.pointer("/affinity/nodeAffinity").cloned();
    let affinity = spec
        .entry("affinity")
        .or_insert_with(|| Value::Object(Map::new()));
    if !affinity.is_object() {
        *affinity = Value::Object(Map::new());
    }
    if let Some(affinity) = affinity.as_object_mut() {
        match before {
            Some(before) => drop(affinity.insert("nodeAffinity".into(), before)),
            None => drop(affinity.shift_remove("nodeAffinity")),
        }
    }
}

/// Whether there is nothing: absent, null, or empty, which mean the same to Kubernetes.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
        _ => false,
    }
}

/// Writes down where two values differ.
pub(super) fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new || (is_nothing(old) && is_nothing(new)) {
        return;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let added = after.keys().filter(|key| !before.contains_key(*key));
            for key in before.keys().chain(added) {
                let member = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(
                    &format!("{path}.{key}"),
                    &member(before),
                    &member(after),
                    found,
                );
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{path}[{index}]"), before, after, found);
            }
        }
        _ => {
            let same = |a: &Value, b: &Value| {
                let amounts = (pod_spec::amount(a), pod_spec::amount(b));
                matches!(amounts, (Some(a), Some(b)) if a == b)
            };
            if !(path.contains(".resources.") && same(old, new)) {
                found.push(format!("  {path}: {old} -> {new}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: &Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    fn found(old: &Value, new: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        validate(&pod(old), &pod(new), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn images_tolerations_and_nearer_deadlines_may_change() {
        let old = json!({
            "containers": [{"name": "a", "image": "a:1"}],
            "tolerations": [{"key": "k", "operator": "Exists"}],
            "terminationGracePeriodSeconds": -1,
        });
        let new = json!({
            "containers": [{"name": "a", "image": "a:2"}],
            "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 5}, {"operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
            "activeDeadlineSeconds": 10,
            "volumes": [],
        });
        assert_eq!(found(&old, &new), Vec::<String>::new());
    }

    #[test]
    fn everything_else_stays_and_the_error_says_what_differs() {
        let old = json!({"containers": [{"name": "a", "image": "a:1"}], "nodeName": "n"});
        let new = json!({"containers": [{"name": "b", "image": "a:1"}], "nodeName": "n"});
        let errors = found(&old, &new);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("spec: Forbidden: pod updates may not change fields"));
        assert!(errors[0].ends_with("\n  spec.containers[0].name: \"a\" -> \"b\""));
    }

    #[test]
    fn a_gated_pod_may_narrow_its_choice_of_nodes() {
        let gate = json!([{"name": "a/b"}]);
        let old = json!({"schedulingGates": gate, "nodeSelector": {"a": "1"}});
        let narrower = json!({"nodeSelector": {"a": "1", "b": "2"}});
        assert_eq!(found(&old, &narrower), Vec::<String>::new());
        let wider = json!({"schedulingGates": gate, "nodeSelector": {"b": "2"}});
        assert_eq!(
            found(&old, &wider),
            [
                r#"spec.nodeSelector: Invalid value: {"b":"2"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"#
            ]
        );
    }

    #[test]
    fn a_new_gate_or_a_later_deadline_is_refused() {
        let old = json!({"activeDeadlineSeconds": 5});
        let new = json!({"activeDeadlineSeconds": 9});
        assert_eq!(
            found(&old, &new),
            [
                "spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value"
            ]
        );
        assert_eq!(
            found(&json!({}), &json!({"schedulingGates": [{"name": "x"}]})),
            [
                "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'x'"
            ]
        );
    }
}
