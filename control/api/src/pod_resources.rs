//! What a pod asks of a node: effective requests and limits, and its quality-of-service class.
//!
//! Containers run side by side, so their amounts add up. Init containers run one after another before
//! them, each beside the sidecars (init containers that restart always) started before it, so the largest
//! moment counts. Overhead comes on top. Source: `component-helpers/resource` and `qos`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use crate::quantity::Quantity;

/// Amounts by resource name, such as `cpu`.
pub type ResourceList = BTreeMap<String, Quantity>;

type WireList = BTreeMap<String, WireQuantity>;

/// Quality-of-service class, which decides who is evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Every container's limits equal its requests, for cpu and memory.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// Nobody asks for anything.
    BestEffort,
}

impl QosClass {
    /// As `status.qosClass` writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// What the scheduler counts against a node: requests of the pod at its largest moment, plus overhead.
#[must_use]
pub fn requests(spec: &PodSpec) -> ResourceList {
    let of_pod = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    let mut total = largest_moment(spec, container_requests);
    replace(&mut total, of_pod);
    add_wire(&mut total, spec.overhead.as_ref());
    total
}

/// The most the pod may use, where every container running at that moment has a limit.
#[must_use]
pub fn limits(spec: &PodSpec) -> ResourceList {
    let of_pod = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.as_ref());
    let mut total = largest_moment(spec, |container| {
        amounts(
            container
                .resources
                .as_ref()
                .and_then(|resources| resources.limits.as_ref()),
        )
    });
    replace(&mut total, of_pod);
    for (name, overhead) in amounts(spec.overhead.as_ref()) {
        if let Some(limit) = total.get_mut(&name) {
            *limit += overhead;
        }
    }
    total
}

/// The pod's quality-of-service class.
#[must_use]
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let of_pod = spec.resources.as_ref().filter(|resources| asks(resources));
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let all: Vec<_> = match of_pod {
        Some(resources) => vec![Some(resources)],
        None => containers
            .map(|container| container.resources.as_ref())
            .collect(),
    };
    if !all.iter().flatten().any(|resources| asks(resources)) {
        return QosClass::BestEffort;
    }
    if all
        .iter()
        .all(|resources| resources.is_some_and(guaranteed))
    {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

fn asks(resources: &ResourceRequirements) -> bool {
    [&resources.requests, &resources.limits]
        .into_iter()
        .any(|list| {
            let list = amounts(list.as_ref());
            ["cpu", "memory"]
                .into_iter()
                .any(|name| list.get(name).is_some_and(|q| !q.is_zero()))
        })
}

fn guaranteed(resources: &ResourceRequirements) -> bool {
    let limits = amounts(resources.limits.as_ref());
    let requests = amounts(resources.requests.as_ref());
    ["cpu", "memory"]
        .into_iter()
        .all(|name| match (limits.get(name), requests.get(name)) {
            (Some(limit), Some(request)) => !limit.is_zero() && limit == request,
            // An absent request defaults to the limit.
            (Some(limit), None) => !limit.is_zero(),
            (None, _) => false,
        })
}

/// A container's requests; an absent one is its limit, as defaulting makes it.
fn container_requests(container: &Container) -> ResourceList {
    let Some(resources) = &container.resources else {
        return ResourceList::new();
    };
    let mut total = amounts(resources.limits.as_ref());
    total.extend(amounts(resources.requests.as_ref()));
    total
}

fn largest_moment(spec: &PodSpec, of: impl Fn(&Container) -> ResourceList) -> ResourceList {
    let mut running = ResourceList::new();
    for container in &spec.containers {
        add(&mut running, &of(container));
    }
    let mut sidecars = ResourceList::new();
    let mut starting = ResourceList::new();
    for container in spec.init_containers.iter().flatten() {
        let mut moment = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut running, &moment);
            add(&mut sidecars, &moment);
            moment.clone_from(&sidecars);
        } else {
            add(&mut moment, &sidecars);
        }
        raise(&mut starting, &moment);
    }
    raise(&mut running, &starting);
    running
}

fn add(total: &mut ResourceList, more: &ResourceList) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += *amount;
    }
}

fn raise(total: &mut ResourceList, to: &ResourceList) {
    for (name, amount) in to {
        let entry = total.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

fn add_wire(total: &mut ResourceList, more: Option<&WireList>) {
    add(total, &amounts(more));
}

/// Resources set for the pod as a whole take the place of what its containers add up to.
fn replace(total: &mut ResourceList, by: Option<&WireList>) {
    total.extend(amounts(by));
}

/// Reads a wire list. Objects from the API were checked; what is no quantity counts as absent.
#[must_use]
pub fn amounts(list: Option<&WireList>) -> ResourceList {
    let parse = |(name, amount): (&String, &WireQuantity)| {
        amount.0.parse().ok().map(|amount| (name.clone(), amount))
    };
    list.into_iter().flatten().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).expect("is a pod spec")
    }

    fn texts(list: &ResourceList) -> Vec<String> {
        list.iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect()
    }

    #[test]
    fn requests_are_those_of_the_largest_moment() {
        let c = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        for (value, expected) in [
            (json!({"containers": [c("1"), c("500m")]}), "cpu=1500m"),
            (
                json!({"containers": [c("1")], "initContainers": [c("3"), c("2")]}),
                "cpu=3",
            ),
            (
                json!({"containers": [c("2")], "initContainers": [sidecar("1"), c("3")]}),
                "cpu=4",
            ),
            (
                json!({"containers": [c("2")], "initContainers": [c("3"), sidecar("1")]}),
                "cpu=3",
            ),
            (
                json!({"containers": [c("1")], "overhead": {"cpu": "250m"}}),
                "cpu=1250m",
            ),
            (
                json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}),
                "cpu=2",
            ),
            (
                json!({"containers": [c("1")], "resources": {"requests": {"cpu": "5"}}}),
                "cpu=5",
            ),
        ] {
            assert_eq!(
                texts(&requests(&spec(value.clone()))),
                [expected],
                "{value}"
            );
        }
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let container =
            |resources: Value| json!({"containers": [{"name": "c", "resources": resources}]});
        for (value, expected) in [
            (json!({"containers": [{"name": "c"}]}), "BestEffort"),
            (container(json!({"requests": {"cpu": "0"}})), "BestEffort"),
            (container(json!({"requests": {"cpu": "1"}})), "Burstable"),
            (container(json!({"limits": {"cpu": "1"}})), "Burstable"),
            (
                container(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
                "Guaranteed",
            ),
            (
                container(
                    json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
                ),
                "Guaranteed",
            ),
            (
                container(
                    json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
                ),
                "Burstable",
            ),
            (
                json!({"containers": [
                {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}, {"name": "b"}]}),
                "Burstable",
            ),
        ] {
            assert_eq!(
                qos_class(&spec(value.clone())).as_str(),
                expected,
                "{value}"
            );
        }
    }
}
