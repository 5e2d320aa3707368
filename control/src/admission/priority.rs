//! What the PriorityClass of a pod says: its priority, and whether it may drive others out.
//!
//! A pod that names no class has the class that is the default of all, or priority 0. Only one class may be
//! that default.

use serde_json::Value;

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::kinds::text;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::registry::strategy::Endpoint;
use crate::store::{KeyRange, ObjectKey};

const GROUP: &str = "scheduling.k8s.io";
const CLASSES: &str = "priorityclasses";
const USUAL_POLICY: &str = "PreemptLowerPriority";

pub(super) struct Priority;

impl Admission for Priority {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        let kind = &*attributes.call.served.kind.info.gvk.kind;
        match (kind, attributes.endpoint, attributes.old) {
            _ if object.is_null() => Ok(()),
            ("Pod", _, None) => pod(attributes, object),
            ("Pod", Endpoint::Main, Some(old)) => {
                keep(old, object);
                Ok(())
            }
            ("PriorityClass", ..) => class(attributes, object),
            _ => Ok(()),
        }
    }
}

/// A pod that is written back without what admission gave it keeps it.
fn keep(old: &Value, pod: &mut Value) {
    let spec = meta::member_mut(pod, "spec");
    for field in ["priority", "preemptionPolicy"] {
        let known = old.get("spec").and_then(|spec| spec.get(field));
        if let (Some(known), None) = (known, spec.get(field)) {
            spec.insert(field.to_owned(), known.clone());
        }
    }
}

fn pod(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let refused = |reason: String| attributes.forbidden(pod, reason);
    let class = match text(pod, "/spec/priorityClassName") {
        "" => default_class(attributes)?,
        name => {
            let key = ObjectKey::new(GROUP, CLASSES, "", name);
            let found = attributes.snapshot.get(&key);
            let found = found.map(|entry| parse(entry)).transpose()?;
            let missing = || refused(format!("no PriorityClass with name {name} was found"));
            Some(found.ok_or_else(missing)?)
        }
    };
    let value = |of: Option<&Value>| of.and_then(Value::as_i64);
    let priority = value(class.as_ref().and_then(|class| class.get("value"))).unwrap_or(0);
    let policy = class
        .as_ref()
        .map_or("", |class| text(class, "/preemptionPolicy"));
    let policy = if policy.is_empty() {
        USUAL_POLICY
    } else {
        policy
    };
    if let Some(given) = value(pod.pointer("/spec/priority")).filter(|given| *given != priority) {
        return Err(refused(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        )));
    }
    let given = text(pod, "/spec/preemptionPolicy");
    if !given.is_empty() && given != policy {
        return Err(refused(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    let spec = meta::member_mut(pod, "spec");
    if let Some(class) = &class {
        spec.insert("priorityClassName".into(), meta::name(class).into());
    }
    spec.insert("priority".into(), priority.into());
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}

/// The class of pods that name none; of several the least.
fn default_class(attributes: &Attributes<'_>) -> Result<Option<Value>, ApiError> {
    let range = KeyRange::resource(GROUP, CLASSES);
    let mut found: Option<Value> = None;
    for entry in attributes.snapshot.range(&range, None) {
        let class = parse(entry)?;
        let value = |class: &Value| class.get("value").and_then(Value::as_i64);
        let is_less = found
            .as_ref()
            .is_none_or(|found| value(&class) < value(found));
        if class.get("globalDefault") == Some(&Value::Bool(true)) && is_less {
            found = Some(class);
        }
    }
    Ok(found)
}

fn class(attributes: &Attributes<'_>, class: &Value) -> Result<(), ApiError> {
    if class.get("globalDefault") != Some(&Value::Bool(true)) {
        return Ok(());
    }
    match default_class(attributes)? {
        Some(other) if meta::name(&other) != meta::name(class) => {
            let target = attributes.call.target_of(meta::name(class));
            let name = meta::name(&other);
            Err(ApiError::Forbidden {
                target,
                reason: format!(
                    "PriorityClass {name} is already marked as default. Only one default can exist"
                ),
                cause: None,
            })
        }
        _ => Ok(()),
    }
}
