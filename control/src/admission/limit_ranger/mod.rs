//! Pods and claims keep within the LimitRanges of their namespace, and containers get their defaults.
//!
//! 1. Every LimitRange gives the containers of a new pod the requests and limits they do not name, and an
//!    annotation says which.
//! 2. Then each is asked whether containers, the pod as a whole, or the claim break its bounds; the first
//!    that is broken refuses the object, with everything it finds.

mod bounds;

use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize;
use serde_json::{Map, Value};
use windlass_api::pod_resources::{self, ResourceList};

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::registry::strategy::Endpoint;
use crate::store::KeyRange;
use bounds::{amounts, broken};

/// Says what was defaulted.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Lists of containers, with what one is called.
const CONTAINERS: [(&str, &str); 2] = [
    ("containers", "container"),
    ("initContainers", "init container"),
];

pub(super) struct LimitRanger;

impl Admission for LimitRanger {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        if object.is_null() || !concerns(attributes) {
            return Ok(());
        }
        let limits = limits(attributes)?;
        let broken_by = match &*attributes.call.served.kind.info.gvk.kind {
            "Pod" => {
                for limits in &limits {
                    set_defaults(object, limits);
                }
                broken_by_pod
            }
            _ => broken_by_claim,
        };
        let mut broken = limits.iter().map(|limits| broken_by(object, limits));
        let Some(broken) = broken.find(|broken| !broken.is_empty()) else {
            return Ok(());
        };
        Err(attributes.forbidden(object, aggregate(broken)))
    }
}

/// Containers change only by `resize`, claims by any write.
fn concerns(attributes: &Attributes<'_>) -> bool {
    if attributes.old.is_some_and(meta::is_terminating) {
        return false;
    }
    let kind = &*attributes.call.served.kind.info.gvk.kind;
    match attributes.endpoint {
        Endpoint::Main => attributes.creates("Pod") || kind == "PersistentVolumeClaim",
        Endpoint::Named("resize") => kind == "Pod",
        _ => false,
    }
}

/// `spec.limits` of each LimitRange of the namespace.
fn limits(attributes: &Attributes<'_>) -> Result<Vec<Vec<Value>>, ApiError> {
    let range = KeyRange::namespace("", "limitranges", attributes.call.namespace);
    let ranges = attributes.snapshot.range(&range, None);
    let limits = ranges.map(|entry| {
        let range = parse(entry)?;
        let limits = range.pointer("/spec/limits").and_then(Value::as_array);
        Ok(limits.cloned().unwrap_or_default())
    });
    limits.collect()
}

fn of_type<'a>(limits: &'a [Value], of: &str) -> impl Iterator<Item = &'a Value> {
    limits
        .iter()
        .filter(move |limit| limit.get("type").and_then(Value::as_str) == Some(of))
}

/// Gives containers what they do not name.
fn set_defaults(pod: &mut Value, limits: &[Value]) {
    let defaults = |field: &str| {
        let mut defaults = Map::new();
        for limit in of_type(limits, "Container") {
            let amounts = limit.get(field).and_then(Value::as_object).cloned();
            defaults.extend(amounts.into_iter().flatten());
        }
        defaults
    };
    let lists = [
        ("requests", "request", defaults("defaultRequest")),
        ("limits", "limit", defaults("default")),
    ];
    let spec = meta::member_mut(pod, "spec");
    let mut told = Vec::new();
    for (containers, what) in CONTAINERS {
        let containers = spec.get_mut(containers).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container.get("name").and_then(Value::as_str);
            let name = name.unwrap_or_default().to_owned();
            for (list, one, defaults) in &lists {
                let filled = fill(container, list, defaults);
                if !filled.is_empty() {
                    told.push(format!("{} {one} for {what} {name}", filled.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        let annotations = meta::metadata_mut(pod)
            .entry("annotations")
            .or_insert_with(|| Map::new().into());
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(ANNOTATION.into(), text.into());
        }
    }
}

/// Adds to a list of a container's resources what it has not; the names of what was added, in order.
fn fill(container: &mut Value, list: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let own = container.get("resources").and_then(|own| own.get(list));
    let own = own.and_then(Value::as_object);
    let is_missing = |name: &String| own.is_none_or(|own| !own.contains_key(name));
    let missing = defaults.iter().filter(|(name, _)| is_missing(name));
    let missing: Map<_, _> = missing.map(|(n, a)| (n.clone(), a.clone())).collect();
    let mut names: Vec<String> = missing.keys().cloned().collect();
    names.sort();
    if !names.is_empty() {
        let resources = meta::member_mut(container, "resources");
        let list = resources.entry(list).or_insert_with(|| Map::new().into());
        if let Some(list) = list.as_object_mut() {
            list.extend(missing);
        }
    }
    names
}

/// Every bound of a LimitRange that a claim breaks.
fn broken_by_claim(claim: &Value, limits: &[Value]) -> Vec<String> {
    let requests = amounts(claim.pointer("/spec/resources/requests"));
    let limits = of_type(limits, "PersistentVolumeClaim");
    limits
        .flat_map(|limit| broken(limit, &requests, &ResourceList::new()))
        .collect()
}

/// Every bound of a LimitRange that a pod or one of its containers breaks.
fn broken_by_pod(pod: &Value, limits: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for limit in of_type(limits, "Container") {
        for (containers, _) in CONTAINERS {
            let path = format!("/spec/{containers}");
            let containers = pod.pointer(&path).and_then(Value::as_array);
            for container in containers.into_iter().flatten() {
                let of = |list| amounts(container.pointer(&format!("/resources/{list}")));
                found.extend(broken(limit, &of("requests"), &of("limits")));
            }
        }
    }
    let spec = PodSpec {
        // Bounds are of what the pod asks for itself.
        overhead: None,
        ..pod_spec(pod)
    };
    let (requests, limited) = (pod_resources::requests(&spec), pod_resources::limits(&spec));
    let of_pod = of_type(limits, "Pod");
    found.extend(of_pod.flat_map(|limit| broken(limit, &requests, &limited)));
    found
}

/// The pod's spec. One that does not decode is refused by the schema before it gets here.
fn pod_spec(pod: &Value) -> PodSpec {
    let spec = pod.get("spec");
    let spec = spec.and_then(|spec| PodSpec::deserialize(spec).ok());
    spec.unwrap_or_default()
}

/// Several errors as upstream writes them as one.
fn aggregate(mut errors: Vec<String>) -> String {
    let mut seen = std::collections::HashSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.as_slice() {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: &Value) -> Value {
        json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "resources": resources}]},
        })
    }

    #[test]
    fn a_container_gets_what_it_does_not_name() {
        let limits = [json!({
            "type": "Container", "default": {"cpu": "500m", "memory": "500Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "200Mi"},
        })];
        let mut pod = pod(&json!({"requests": {"cpu": "300m"}, "limits": {"cpu": "300m"}}));
        set_defaults(&mut pod, &limits);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({
                "requests": {"cpu": "300m", "memory": "200Mi"},
                "limits": {"cpu": "300m", "memory": "500Mi"},
            })
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: memory request for container c; memory limit for container c"
        );
        let before = pod.clone();
        set_defaults(&mut pod, &limits);
        assert_eq!(pod, before);
    }

    #[test]
    fn containers_and_the_pod_have_bounds_of_their_own() {
        let limits = [
            json!({"type": "Container", "max": {"cpu": "1"}}),
            json!({"type": "Pod", "max": {"cpu": "1"}}),
        ];
        let mut pod = pod(&json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
        assert!(broken_by_pod(&pod, &limits).is_empty());
        let containers = pod["spec"]["containers"].as_array_mut().unwrap();
        containers.push(containers[0].clone());
        assert_eq!(
            broken_by_pod(&pod, &limits),
            ["maximum cpu usage per Pod is 1, but limit is 2"]
        );
    }

    #[test]
    fn several_errors_are_one_and_none_is_told_twice() {
        let errors = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(aggregate(errors(&["a", "a"])), "a");
        assert_eq!(aggregate(errors(&["a", "b", "a"])), "[a, b]");
    }
}
