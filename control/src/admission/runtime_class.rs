//! A pod that names a RuntimeClass gets what the class says: overhead, node selector, tolerations.
//!
//! A class that is not there refuses the pod, and so does one that contradicts it.

use serde_json::{Map, Value};
use windlass_api::quantity::Quantity;

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::store::ObjectKey;

pub(super) struct RuntimeClass;

impl Admission for RuntimeClass {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        if !attributes.creates("Pod") {
            return Ok(());
        }
        let target = attributes.call.target_of(meta::name(object));
        let spec = meta::member_mut(object, "spec");
        let class = match spec.get("runtimeClassName").and_then(Value::as_str) {
            Some(name) => class(attributes, name)?,
            None => Ok(Value::Null),
        };
        let fitted = class.and_then(|class| {
            fit_overhead(spec, class.pointer("/overhead/podFixed"))?;
            fit_node_selector(spec, class.pointer("/scheduling/nodeSelector"))?;
            fit_tolerations(spec, class.pointer("/scheduling/tolerations"));
            Ok(())
        });
        fitted.map_err(|reason| ApiError::Forbidden {
            target,
            reason,
            cause: None,
        })
    }
}

/// The class, or why the pod that names it is refused.
fn class(attributes: &Attributes<'_>, name: &str) -> Result<Result<Value, String>, ApiError> {
    let key = ObjectKey::new("node.k8s.io", "runtimeclasses", "", name);
    match attributes.snapshot.get(&key) {
        Some(entry) => Ok(Ok(parse(entry)?)),
        None => Ok(Err(format!(
            "pod rejected: RuntimeClass {name:?} not found"
        ))),
    }
}

fn fit_overhead(spec: &mut Map<String, Value>, of_class: Option<&Value>) -> Result<(), String> {
    let of_pod = spec.get("overhead").and_then(Value::as_object);
    let of_pod = of_pod.filter(|overhead| !overhead.is_empty());
    let Some(of_class) = of_class else {
        return match of_pod {
            Some(_) => Err(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                    .to_owned(),
            ),
            None => Ok(()),
        };
    };
    if of_pod.is_some_and(|overhead| amounts(overhead) != of_class.as_object().and_then(amounts)) {
        return Err(
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned(),
        );
    }
    spec.insert("overhead".into(), of_class.clone());
    Ok(())
}

/// Amounts by resource, however they are written.
fn amounts(list: &Map<String, Value>) -> Option<Vec<(&str, Quantity)>> {
    let amount = |value: &Value| value.as_str()?.parse().ok();
    let amounts = list
        .iter()
        .map(|(name, value)| Some((&**name, amount(value)?)));
    let mut amounts = amounts.collect::<Option<Vec<_>>>()?;
    amounts.sort_by_key(|(name, _)| *name);
    Some(amounts)
}

fn fit_node_selector(
    spec: &mut Map<String, Value>,
    of_class: Option<&Value>,
) -> Result<(), String> {
    let Some(of_class) = of_class.and_then(Value::as_object) else {
        return Ok(());
    };
    let selector = spec
        .entry("nodeSelector")
        .or_insert_with(|| Map::new().into());
    let Some(selector) = selector.as_object_mut() else {
        return Ok(());
    };
    for (key, value) in of_class {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(of_pod) = selector.get(key).filter(|of_pod| *of_pod != value) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(of_pod)
            ));
        }
        selector.insert(key.clone(), value.clone());
    }
    Ok(())
}

/// Adds the class's tolerations, and leaves out those that others include.
fn fit_tolerations(spec: &mut Map<String, Value>, of_class: Option<&Value>) {
    let items = |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
    let of_class = items(of_class);
    if of_class.is_empty() {
        return;
    }
    let mut all = items(spec.get("tolerations"));
    all.extend(of_class);
    let mut merged: Vec<Value> = Vec::new();
    for (at, toleration) in all.iter().enumerate() {
        // Of two that are equal, the first stays.
        let mut later = all.iter().skip(at + 1).filter(|later| *later != toleration);
        let redundant = merged.iter().any(|kept| includes(kept, toleration))
            || later.any(|later| includes(later, toleration));
        if !redundant {
            merged.push(toleration.clone());
        }
    }
    spec.insert("tolerations".into(), merged.into());
}

/// Whether `wide` tolerates all that `toleration` does.
fn includes(wide: &Value, toleration: &Value) -> bool {
    if wide == toleration {
        return true;
    }
    let text = |of: &Value, field: &str| {
        let text = of.get(field).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let seconds = |of: &Value| of.get("tolerationSeconds").and_then(Value::as_i64);
    let same = |field: &str| text(wide, field) == text(toleration, field);
    let exists = text(wide, "operator") == "Exists";
    let ends_sooner = text(wide, "effect") == "NoExecute"
        && seconds(wide).is_some_and(|end| seconds(toleration).is_none_or(|other| other > end));
    let key = same("key") || (text(wide, "key").is_empty() && exists);
    let effect = same("effect") || text(wide, "effect").is_empty();
    let value = match &*text(wide, "operator") {
        "Equal" | "" => text(toleration, "operator") == "Equal" && same("value"),
        _ => exists,
    };
    key && effect && !ends_sooner && value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn overhead_is_the_class_s() {
        let class = json!({"cpu": "100m"});
        for (pod, class, expected) in [
            (json!({}), Some(&class), Ok(json!({"overhead": class}))),
            (
                json!({"overhead": {"cpu": "0.1"}}),
                Some(&class),
                Ok(json!({"overhead": class})),
            ),
            (json!({}), None, Ok(json!({}))),
            (
                json!({"overhead": {"cpu": "1"}}),
                Some(&class),
                Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"),
            ),
            (
                json!({"overhead": {"cpu": "1"}}),
                None,
                Err(
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
                ),
            ),
        ] {
            let mut spec = pod.as_object().unwrap().clone();
            let found = fit_overhead(&mut spec, class).map(|()| Value::Object(spec));
            assert_eq!(found, expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn selectors_merge_or_contradict() {
        let class = json!({"disk": "ssd"});
        let mut spec = json!({"nodeSelector": {"zone": "a"}});
        let spec = spec.as_object_mut().unwrap();
        assert_eq!(fit_node_selector(spec, Some(&class)), Ok(()));
        assert_eq!(spec["nodeSelector"], json!({"zone": "a", "disk": "ssd"}));
        spec["nodeSelector"]["disk"] = json!("hdd");
        assert_eq!(
            fit_node_selector(spec, Some(&class)).unwrap_err(),
            "conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; pod.spec.nodeSelector[disk] = hdd"
        );
    }

    #[test]
    fn tolerations_that_others_include_are_left_out() {
        let narrow = json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"});
        let other = json!({"key": "o", "operator": "Exists"});
        let wide = json!({"key": "k", "operator": "Exists"});
        let mut spec = json!({"tolerations": [narrow, other]});
        let spec = spec.as_object_mut().unwrap();
        fit_tolerations(spec, Some(&json!([wide, other])));
        assert_eq!(spec["tolerations"], json!([other, wide]));
    }
}
