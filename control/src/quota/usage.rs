//! What an object takes of countable resources.
//!
//! Every object counts as one of its resource, `count/deployments.apps`; the oldest kinds also under
//! their plain name. Pods that have not ended take what they ask for, Services their node ports, claims
//! their storage.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::Value;
use windlass_api::pod_resources::{self, ResourceList};
use windlass_api::quantity::{Format, Quantity};

/// An object, under the resource it is served as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted<'a> {
    /// API group, empty for core.
    pub(crate) group: &'a str,
    /// Plural name.
    pub(crate) resource: &'a str,
    /// The object.
    pub(crate) object: &'a Value,
}

/// Resources of the core group that count under their plain name too.
const PLAIN: [&str; 6] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// What a pod asks for under its own name as well as under `requests.`.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";
/// Parts between the class and the resource, of what a claim takes of its class.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

impl Counted<'_> {
    /// What it takes, by the names that quotas use.
    #[must_use]
    pub(crate) fn usage(&self) -> ResourceList {
        let mut usage = ResourceList::new();
        // Upstream leaves events out, which would otherwise be refused when they matter most.
        if self.resource == "events" {
            return usage;
        }
        let name = match self.group {
            "" => format!("count/{}", self.resource),
            group => format!("count/{}.{group}", self.resource),
        };
        usage.insert(name, one());
        if !self.group.is_empty() {
            return usage;
        }
        if PLAIN.contains(&self.resource) {
            usage.insert(self.resource.to_owned(), one());
        }
        match self.resource {
            "pods" if !self.has_ended() => self.add_pod(&mut usage),
            "services" => self.add_service(&mut usage),
            "persistentvolumeclaims" => self.add_claim(&mut usage),
            _ => {}
        }
        usage
    }

    /// Whether it is a pod whose containers have ended for good.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.text("/status/phase"), "Succeeded" | "Failed")
    }

    pub(super) fn text(&self, pointer: &str) -> &str {
        let value = self.object.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default()
    }

    /// The spec of a pod; `None` for anything else.
    pub(super) fn pod_spec(&self) -> Option<PodSpec> {
        if (self.group, self.resource) != ("", "pods") {
            return None;
        }
        // What is stored has passed the schema, from which this type is made.
        serde_json::from_value(self.object.get("spec")?.clone()).ok()
    }

    fn add_pod(&self, usage: &mut ResourceList) {
        usage.insert("pods".to_owned(), one());
        let Some(spec) = self.pod_spec() else { return };
        for (name, amount) in pod_resources::requests(&spec) {
            let is_plain = COMPUTE.contains(&name.as_str()) || name.starts_with(HUGE_PAGES);
            usage.insert(format!("requests.{name}"), amount);
            if is_plain {
                usage.insert(name, amount);
            }
        }
        for (name, amount) in pod_resources::limits(&spec) {
            if COMPUTE.contains(&name.as_str()) {
                usage.insert(format!("limits.{name}"), amount);
            }
        }
    }

    fn add_service(&self, usage: &mut ResourceList) {
        let ports = self.object.pointer("/spec/ports").and_then(Value::as_array);
        let ports = i64::try_from(ports.map_or(0, Vec::len)).unwrap_or(i64::MAX);
        let allocates = self.object.pointer("/spec/allocateLoadBalancerNodePorts");
        let node_ports = match self.text("/spec/type") {
            "NodePort" => ports,
            "LoadBalancer" if allocates != Some(&Value::Bool(false)) => ports,
            _ => 0,
        };
        let balancers = i64::from(self.text("/spec/type") == "LoadBalancer");
        for (name, count) in [("nodeports", node_ports), ("loadbalancers", balancers)] {
            usage.insert(format!("services.{name}"), units(count));
        }
    }

    fn add_claim(&self, usage: &mut ResourceList) {
        let requested = self.object.pointer("/spec/resources/requests");
        let requested = requested
            .map(|of| super::amounts(of, ""))
            .unwrap_or_default();
        let storage = requested.get("storage").copied().unwrap_or_default();
        usage.insert("requests.storage".to_owned(), storage);
        let class = match self.text("/spec/storageClassName") {
            "" => return,
            class => class,
        };
        usage.insert(format!("{class}{OF_CLASS}requests.storage"), storage);
        usage.insert(format!("{class}{OF_CLASS}persistentvolumeclaims"), one());
    }

    /// What a quota with these hard resources wants every container of a pod to say, and whose do not:
    /// `requests.cpu for: a,b; ...`.
    pub(super) fn missing(&self, hard: &ResourceList) -> Option<String> {
        let spec = self.pod_spec()?;
        let containers = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers);
        let containers: Vec<_> = containers.collect();
        let of_pod = spec.resources.as_ref();
        let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for name in hard.keys() {
            let Some((limits, resource)) = stated(name) else {
                continue;
            };
            let of_pod = of_pod.and_then(|of| {
                if limits {
                    of.limits.as_ref()
                } else {
                    of.requests.as_ref()
                }
            });
            if of_pod.is_some_and(|of| of.contains_key(resource)) {
                continue;
            }
            let silent = containers.iter().filter(|of| !says(of, limits, resource));
            let silent: Vec<_> = silent.map(|of| of.name.as_str()).collect();
            if !silent.is_empty() {
                missing.insert(name, silent);
            }
        }
        let said = missing
            .into_iter()
            .map(|(name, containers)| format!("{name} for: {}", containers.join(",")));
        let said = said.collect::<Vec<_>>().join("; ");
        (!said.is_empty()).then_some(said)
    }
}

/// Which resource of a container a hard resource is about: its limit or its request.
fn stated(hard: &str) -> Option<(bool, &str)> {
    let (limits, resource) = match hard.split_once('.') {
        Some(("limits", resource)) => (true, resource),
        Some(("requests", resource)) => (false, resource),
        _ => (false, hard),
    };
    COMPUTE.contains(&resource).then_some((limits, resource))
}

fn says(container: &Container, limits: bool, resource: &str) -> bool {
    let of = container.resources.as_ref();
    let amounts = of.and_then(|of| {
        if limits {
            of.limits.as_ref()
        } else {
            of.requests.as_ref()
        }
    });
    amounts.is_some_and(|amounts| amounts.contains_key(resource))
}

/// The resources, as group and plural, of which objects are counted for a quota's hard resource.
#[must_use]
pub(crate) fn counted_resources(hard: &str) -> Option<(&str, &str)> {
    if let Some(counted) = hard.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group, resource));
    }
    if let Some(plain) = PLAIN.iter().find(|plain| **plain == hard) {
        return Some(("", plain));
    }
    let resource = match hard {
        "services.nodeports" | "services.loadbalancers" => "services",
        "requests.storage" => "persistentvolumeclaims",
        of_class if of_class.contains(OF_CLASS) => "persistentvolumeclaims",
        "pods" | "cpu" | "memory" | "ephemeral-storage" => "pods",
        other
            if ["requests.", "limits.", HUGE_PAGES]
                .iter()
                .any(|prefix| other.starts_with(prefix)) =>
        {
            "pods"
        }
        _ => return None,
    };
    Some(("", resource))
}

fn one() -> Quantity {
    units(1)
}

fn units(count: i64) -> Quantity {
    Quantity::from_units(count, Format::Decimal)
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use crate::quota::written;
    use serde_json::json;

    fn usage(group: &str, resource: &str, object: Value) -> Value {
        let counted = Counted {
            group,
            resource,
            object: &object,
        };
        written(&counted.usage())
    }

    #[test]
    fn objects_take_what_their_kind_takes() {
        let resources = json!({"requests": {"cpu": "1", "memory": "1Gi", "example.com/gpu": "2"}, "limits": {"cpu": "2"}});
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        let expected = json!({
            "count/pods": "1", "pods": "1", "cpu": "1", "requests.cpu": "1", "memory": "1Gi",
            "requests.memory": "1Gi", "requests.example.com/gpu": "2", "limits.cpu": "2",
        });
        assert_eq!(usage("", "pods", pod.clone()), expected);
        let mut ended = pod;
        ended["status"] = json!({"phase": "Failed"});
        assert_eq!(usage("", "pods", ended), json!({"count/pods": "1"}));
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}});
        let expected = json!({
            "count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2Gi",
            "fast.storageclass.storage.k8s.io/requests.storage": "2Gi",
            "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        });
        assert_eq!(usage("", "persistentvolumeclaims", claim), expected);
        let balanced = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        let expected = json!({"count/services": "1", "services": "1", "services.nodeports": "2", "services.loadbalancers": "1"});
        assert_eq!(usage("", "services", balanced), expected);
        assert_eq!(
            usage("apps", "deployments", json!({})),
            json!({"count/deployments.apps": "1"})
        );
        assert_eq!(usage("", "events", json!({})), json!({}));
    }

    #[test]
    fn a_hard_resource_says_which_objects_to_count() {
        let cases = [
            ("count/deployments.apps", Some(("apps", "deployments"))),
            ("count/pods", Some(("", "pods"))),
            ("secrets", Some(("", "secrets"))),
            ("services.nodeports", Some(("", "services"))),
            ("requests.storage", Some(("", "persistentvolumeclaims"))),
            (
                "fast.storageclass.storage.k8s.io/requests.storage",
                Some(("", "persistentvolumeclaims")),
            ),
            ("requests.example.com/gpu", Some(("", "pods"))),
            ("limits.cpu", Some(("", "pods"))),
            ("unknown", None),
        ];
        for (hard, expected) in cases {
            assert_eq!(counted_resources(hard), expected, "{hard}");
        }
    }
}
