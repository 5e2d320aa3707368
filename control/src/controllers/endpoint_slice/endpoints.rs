//! Who is behind a Service, and on which ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::is_headless;
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::Pod;

/// A port that endpoints share: name, protocol, application protocol, number.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) app_protocol: Option<String>,
    pub(super) number: i32,
}

/// What endpoints of one slice have in common: the family of their addresses and their ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    /// `IPv4` or `IPv6`.
    pub(super) family: String,
    pub(super) ports: Vec<Port>,
}

/// Whether the change of a pod can matter to its Services.
pub(super) fn differ(old: &Pod, new: &Pod) -> bool {
    let seen = |pod: &Pod| {
        let metadata = &pod.metadata;
        (
            metadata.labels().clone(),
            metadata.is_terminating(),
            pod.has_ended(),
            pod.ready,
            pod.node.clone(),
            (pod.hostname.clone(), pod.subdomain.clone()),
            pod.addresses.clone(),
        )
    };
    seen(old) != seen(new)
}

/// The endpoints of the Service, by what they have in common. There is always a group for each family,
/// even with nobody in it.
pub(super) fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    zone: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for family in families(service) {
        let mut is_empty = true;
        for pod in pods.iter().filter(|pod| !pod.has_ended()) {
            let address = pod
                .addresses
                .iter()
                .find(|address| family_of(address) == family);
            let (Some(address), Some(ports)) = (address, ports(service, pod)) else {
                continue;
            };
            let group = Group {
                family: family.clone(),
                ports,
            };
            is_empty = false;
            groups
                .entry(group)
                .or_default()
                .push(endpoint(service, pod, address, zone));
        }
        if is_empty {
            let ports = Vec::new();
            groups.entry(Group { family, ports }).or_default();
        }
    }
    groups
}

fn families(service: &Service) -> Vec<String> {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.clone());
    families
        .filter(|families| !families.is_empty())
        .unwrap_or_else(|| vec!["IPv4".into()])
}

pub(super) fn family_of(address: &str) -> &'static str {
    if address.contains(':') {
        "IPv6"
    } else {
        "IPv4"
    }
}

/// The Service's ports as this pod has them; `None` if it has none of them.
pub(super) fn ports(service: &Service, pod: &Pod) -> Option<Vec<Port>> {
    let wanted = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    if wanted.is_empty() {
        return is_headless(service).then(Vec::new);
    }
    let found = wanted.iter().filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            number: target(port, &protocol, pod)?,
            app_protocol: port.app_protocol.clone(),
            protocol,
        })
    });
    let mut found: Vec<_> = found.collect();
    found.sort();
    (!found.is_empty()).then_some(found)
}

fn target(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let mut declared = pod.ports.iter();
            let found = declared.find(|port| port.name == *name && port.protocol == protocol);
            found.map(|port| port.port)
        }
    }
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: &str,
    zone: &dyn Fn(&str) -> Option<String>,
) -> Endpoint {
    let spec = service.spec.as_ref();
    let publishes = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let terminating = pod.metadata.is_terminating();
    let node = (!pod.node.is_empty()).then(|| pod.node.clone());
    let zone = node.as_deref().and_then(zone);
    let distribution = spec.and_then(|spec| spec.traffic_distribution.as_deref());
    Endpoint {
        hints: hints(distribution, node.as_deref(), zone.as_deref()),
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes || (pod.ready && !terminating)),
            serving: Some(pod.ready),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        zone,
        node_name: node,
        target_ref: Some(target_ref(pod)),
        ..Endpoint::default()
    }
}

/// Whose traffic an endpoint is meant for, where the Service would have it near by.
fn hints(
    distribution: Option<&str>,
    node: Option<&str>,
    zone: Option<&str>,
) -> Option<EndpointHints> {
    let for_zones = || {
        let name = zone?.to_owned();
        Some(vec![ForZone { name }])
    };
    let for_nodes = || {
        let name = node?.to_owned();
        Some(vec![ForNode { name }])
    };
    let hints = match distribution? {
        "PreferClose" | "PreferSameZone" => EndpointHints {
            for_zones: for_zones(),
            for_nodes: None,
        },
        "PreferSameNode" => EndpointHints {
            for_zones: for_zones(),
            for_nodes: for_nodes(),
        },
        _ => return None,
    };
    (hints != EndpointHints::default()).then_some(hints)
}

/// A pod has a DNS name of its own in the Service whose name is its subdomain.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let named = !pod.hostname.is_empty() && pod.subdomain == service.metadata.name();
    named.then(|| pod.hostname.clone())
}

pub(super) fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
pub(super) mod tests {
    use super::*;
    use crate::controllers::runtime::informer::Cached;
    use serde_json::{Value, json};

    pub(in super::super) fn service(spec: Value) -> Service {
        let object = json!({"metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"a": "b"}}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    pub(in super::super) fn pod(name: &str, ip: &str, ready: bool, more: Value) -> Arc<Pod> {
        let mut object = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"nodeName": "n", "containers": [
                {"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        json_patch::merge(&mut object, &more);
        Arc::new(Pod::project(serde_json::from_value(object).unwrap()))
    }

    fn conditions(endpoint: &Endpoint) -> [bool; 3] {
        let conditions = endpoint.conditions.as_ref().unwrap();
        [conditions.ready, conditions.serving, conditions.terminating].map(Option::unwrap)
    }

    #[test]
    fn endpoints_say_whether_they_are_ready_serving_and_terminating() {
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let plain = service(json!({"ports": [{"port": 80}]}));
        let publishing =
            service(json!({"ports": [{"port": 80}], "publishNotReadyAddresses": true}));
        for (service, pod, expected) in [
            (
                &plain,
                pod("a", "1.1.1.1", true, json!({})),
                Some([true, true, false]),
            ),
            (
                &plain,
                pod("a", "1.1.1.1", false, json!({})),
                Some([false, false, false]),
            ),
            (
                &plain,
                pod("a", "1.1.1.1", true, going.clone()),
                Some([false, true, true]),
            ),
            (
                &publishing,
                pod("a", "1.1.1.1", false, going),
                Some([true, false, true]),
            ),
            (
                &plain,
                pod("a", "1.1.1.1", true, json!({"status": {"phase": "Failed"}})),
                None,
            ),
            (
                &plain,
                pod("a", "1.1.1.1", true, json!({"status": {"podIPs": null}})),
                None,
            ),
        ] {
            let groups = groups(service, &[pod], &|_| None);
            let found = groups.into_values().flatten().next();
            assert_eq!(found.as_ref().map(conditions), expected);
        }
    }

    #[test]
    fn endpoints_are_meant_for_those_near_by_where_the_service_says_so() {
        for (distribution, zones, nodes) in [
            (json!(null), 0, 0),
            (json!("PreferClose"), 1, 0),
            (json!("PreferSameZone"), 1, 0),
            (json!("PreferSameNode"), 1, 1),
        ] {
            let spec = json!({"ports": [{"port": 80}], "trafficDistribution": distribution});
            let pods = [pod("a", "1.1.1.1", true, json!({}))];
            let groups = groups(&service(spec), &pods, &|_| Some("z".into()));
            let endpoint = groups.into_values().flatten().next().unwrap();
            let hints = endpoint.hints.unwrap_or_default();
            let count = |list: Option<usize>| list.unwrap_or_default();
            let found = (
                count(hints.for_zones.map(|all| all.len())),
                count(hints.for_nodes.map(|all| all.len())),
            );
            assert_eq!(found, (zones, nodes), "{distribution}");
        }
    }

    #[test]
    fn ports_are_resolved_per_pod() {
        let service = service(json!({"ports": [
            {"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 9}]}));
        let with = pod("a", "1.1.1.1", true, json!({}));
        let without = pod(
            "b",
            "1.1.1.2",
            true,
            json!({"spec": {"containers": [{"name": "c"}]}}),
        );
        let groups = groups(&service, &[with, without], &|_| Some("z".into()));
        let numbers: Vec<Vec<i32>> = groups
            .keys()
            .map(|group| group.ports.iter().map(|port| port.number).collect())
            .collect();
        assert_eq!(numbers, [vec![8080, 9], vec![9]]);
        let endpoint = groups.values().flatten().next().unwrap();
        assert_eq!(
            (endpoint.node_name.as_deref(), endpoint.zone.as_deref()),
            (Some("n"), Some("z"))
        );
    }
}
