//! `ephemeralcontainers` adds containers to a running pod, `resize` changes what its containers may use.

use serde_json::{Map, Value};

use super::super::field::{Errors, Field, pointer};
use super::super::{items, text};
use super::{is_mirror, qos, update};
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;

const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Keeps everything of `old` but the ephemeral containers.
pub(super) fn keep_ephemeral(old: &Value, new: &mut Value) {
    let wanted = new.pointer("/spec/ephemeralContainers").cloned();
    keep(old, new);
    let spec = meta::member_mut(new, "spec");
    match wanted {
        Some(wanted) => drop(spec.insert("ephemeralContainers".into(), wanted)),
        None => drop(spec.shift_remove("ephemeralContainers")),
    }
}

/// Keeps everything of `old` but resources of containers, and what a change of these does to them.
pub(super) fn keep_resources(old: &Value, new: &mut Value) {
    let wanted = new.get("spec").cloned().unwrap_or_default();
    keep(old, new);
    let spec = meta::member_mut(new, "spec");
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let same = |other: &&Value| other.get("name") == container.get("name");
            let wanted = items(&wanted, &format!("/{list}"));
            let Some(wanted) = wanted.iter().find(same).cloned() else {
                continue;
            };
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            for field in ["resources", "resizePolicy"] {
                match wanted.get(field) {
                    Some(value) => drop(container.insert(field.into(), value.clone())),
                    None => drop(container.shift_remove(field)),
                }
            }
        }
    }
}

/// Makes `new` what `old` is, but for the record of who manages which field.
fn keep(old: &Value, new: &mut Value) {
    let managed = meta::get(new, "managedFields").cloned();
    *new = old.clone();
    match managed {
        Some(managed) => meta::set(new, "managedFields", managed),
        None => meta::remove(new, "managedFields"),
    }
}

/// Ephemeral containers are added, never changed or removed.
pub(super) fn validate_ephemeral(old: &Value, new: &Value, errors: &mut Errors) {
    if is_mirror(old) {
        let detail = "static pods do not support ephemeral containers";
        *errors = vec![FieldError::forbidden("", detail)];
        return;
    }
    const PATH: &str = "spec.ephemeralContainers";
    let after = items(new, "/spec/ephemeralContainers");
    for container in items(old, "/spec/ephemeralContainers") {
        let name = text(container, "/name");
        let detail = match after.iter().find(|other| text(other, "/name") == name) {
            None => format!("existing ephemeral containers {name:?} may not be removed\n"),
            Some(other) => {
                let mut differences = Vec::new();
                update::compare(PATH, container, other, &mut differences);
                if differences.is_empty() {
                    continue;
                }
                let differences = differences.join("\n");
                format!("existing ephemeral containers {name:?} may not be changed\n{differences}")
            }
        };
        errors.push(FieldError::forbidden(PATH, detail));
    }
}

/// Only cpu and memory change, and not so far that the pod gets into another class of service.
pub(super) fn validate_resize(old: &Value, new: &Value, errors: &mut Errors) {
    let refusals = [
        (
            has_pod_resources(old),
            "pods with pod-level resources cannot be resized",
        ),
        (is_mirror(old), "static pods cannot be resized"),
        (
            text(old, "/spec/os/name") == "windows",
            "windows pods cannot be resized",
        ),
    ];
    if let Some((_, detail)) = refusals.into_iter().find(|(refused, _)| *refused) {
        *errors = vec![FieldError::forbidden("", detail)];
        return;
    }
    let root = Field::root("", new);
    let spec = root.child("spec");
    if qos(old) != qos(new) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        let class = text(new, "/status/qosClass");
        errors.push(spec.invalid_as(class, detail));
    }
    if !node_resizes(old) {
        let detail = "Pod running on node without support for resize";
        errors.push(spec.forbidden(detail));
    }
    for list in ["initContainers", "containers"] {
        let before = items(old, &format!("/spec/{list}"));
        for (container, before) in spec.child(list).items().zip(before) {
            let fixed = list == "initContainers" && text(before, "/restartPolicy") != "Always";
            validate_container(&spec, &container, before, fixed, errors);
        }
    }
}

fn has_pod_resources(object: &Value) -> bool {
    ["requests", "limits"].iter().any(|list| {
        let list = pointer(object, "/spec/resources").get(list);
        list.and_then(Value::as_object)
            .is_some_and(|list| !list.is_empty())
    })
}

/// A node that can resize reports the resources of what it runs.
fn node_resizes(object: &Value) -> bool {
    let mut running = items(object, "/status/containerStatuses")
        .iter()
        .filter(|status| status.pointer("/state/running").is_some());
    running
        .next()
        .is_none_or(|status| status.get("resources").is_some())
}

fn validate_container(
    spec: &Field<'_, '_>,
    container: &Field<'_, '_>,
    old: &Value,
    fixed: bool,
    errors: &mut Errors,
) {
    let mut differences = Vec::new();
    let resources = container.child("resources");
    if fixed {
        update::compare("", old, container.value(), &mut differences);
        if !differences.is_empty() {
            let detail = "resources for non-sidecar init containers are immutable";
            errors.push(spec.forbidden(detail));
        }
        return;
    }
    for (list, what) in [
        ("requests", "resource requests"),
        ("limits", "resource limits"),
    ] {
        let after = resources.child(list);
        let before = old.pointer(&format!("/resources/{list}"));
        let mut names = before.and_then(Value::as_object).into_iter().flatten();
        if names.any(|(name, _)| !after.has(name)) {
            errors.push(after.forbidden(format!("{what} cannot be removed")));
        }
        let (before, after) = (others(before), others(Some(after.value())));
        update::compare(".resources.", &before, &after, &mut differences);
    }
    if !differences.is_empty() {
        let detail = if text(old, "/restartPolicy") == "Always" {
            "only cpu and memory resources for sidecar containers are mutable"
        } else {
            "only cpu and memory resources are mutable"
        };
        errors.push(spec.forbidden(detail));
    }
}

/// The amounts that no resize changes.
fn others(list: Option<&Value>) -> Value {
    let list = list.and_then(Value::as_object).into_iter().flatten();
    let others = list.filter(|(name, _)| !RESIZABLE.contains(&name.as_str()));
    let others: Map<_, _> = others.map(|(k, v)| (k.clone(), v.clone())).collect();
    Value::Object(others)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "labels": {"a": "1"}},
            "spec": {
                "nodeName": "n",
                "containers": [{"name": "a", "image": "a", "resources": {"requests": {"cpu": "1"}}}],
            },
        })
    }

    #[test]
    fn a_subresource_changes_its_part_alone() {
        let old = pod();
        let mut new = pod();
        new["metadata"]["labels"]["a"] = "2".into();
        new["spec"]["nodeName"] = "other".into();
        new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2".into();
        new["spec"]["ephemeralContainers"] = json!([{"name": "debug"}]);
        let mut resized = new.clone();
        keep_resources(&old, &mut resized);
        let mut expected = pod();
        expected["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2".into();
        assert_eq!(resized, expected);
        keep_ephemeral(&old, &mut new);
        let mut expected = pod();
        expected["spec"]["ephemeralContainers"] = json!([{"name": "debug"}]);
        assert_eq!(new, expected);
    }

    #[test]
    fn a_resize_keeps_the_class_of_service_and_every_resource() {
        let old = pod();
        let mut new = pod();
        new["spec"]["containers"][0]["resources"] = json!({});
        let mut errors = Errors::new();
        validate_resize(&old, &new, &mut errors);
        let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                r#"spec: Invalid value: "": Pod QOS Class may not change as a result of resizing"#,
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            ]
        );
    }

    #[test]
    fn an_ephemeral_container_stays() {
        let mut old = pod();
        old["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "d"}]);
        let mut errors = Errors::new();
        validate_ephemeral(&old, &pod(), &mut errors);
        assert_eq!(errors[0].path, "spec.ephemeralContainers");
    }
}
