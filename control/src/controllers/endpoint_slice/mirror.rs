//! The Endpoints of a Service: the older form of the same facts, for clients that read nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::endpoints::{Port, hostname, ports, target_ref};
use super::is_headless;
use super::slices::HEADLESS;
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::Pod;

/// Addresses in one object at most; the rest is only in the slices.
const MAX: usize = 1000;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Whether this controller made them.
pub(super) fn is_managed(endpoints: &Endpoints) -> bool {
    endpoints
        .metadata
        .labels()
        .get(MANAGED_BY)
        .is_some_and(|by| by == MANAGER)
}

/// What the Endpoints should be, if they are not.
pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    known: Option<&Endpoints>,
) -> Option<Endpoints> {
    let (subsets, cut) = subsets(service, pods);
    let subsets = (!subsets.is_empty()).then_some(subsets);
    let mut wanted = known.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    wanted.metadata.labels = Some(labels(service));
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    if cut {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    wanted.metadata.annotations = wanted.metadata.annotations.filter(|map| !map.is_empty());
    wanted.subsets = subsets;
    (known != Some(&wanted)).then_some(wanted)
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels().clone();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// Addresses that are ready and addresses that are not.
type Addresses = (Vec<EndpointAddress>, Vec<EndpointAddress>);

/// Addresses by their ports, and whether some had to be left out.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let publishes = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let mut by_ports: BTreeMap<Vec<Port>, Addresses> = BTreeMap::new();
    let mut count = 0;
    for pod in pods {
        let goes = pod.metadata.is_terminating() && !publishes;
        let (Some(ip), Some(ports)) = (pod.addresses.first(), ports(service, pod)) else {
            continue;
        };
        if goes || pod.has_ended() {
            continue;
        }
        count += 1;
        if count > MAX {
            break;
        }
        let address = EndpointAddress {
            ip: ip.clone(),
            hostname: hostname(service, pod),
            node_name: (!pod.node.is_empty()).then(|| pod.node.clone()),
            target_ref: Some(target_ref(pod)),
        };
        let (ready, not_ready) = by_ports.entry(ports).or_default();
        if pod.ready || publishes {
            ready
        } else {
            not_ready
        }
        .push(address);
    }
    let subsets = by_ports
        .into_iter()
        .map(|(ports, addresses)| subset(ports, addresses));
    (subsets.collect(), count > MAX)
}

fn subset(ports: Vec<Port>, (ready, not_ready): Addresses) -> EndpointSubset {
    let sorted = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!addresses.is_empty()).then_some(addresses)
    };
    let ports = ports.into_iter().map(|port| EndpointPort {
        name: (!port.name.is_empty()).then_some(port.name),
        port: port.number,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    });
    let ports: Vec<_> = ports.collect();
    EndpointSubset {
        addresses: sorted(ready),
        not_ready_addresses: sorted(not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

#[cfg(test)]
mod tests {
    use super::super::endpoints::tests::{pod, service};
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_and_other_addresses_are_listed_apart_and_written_once() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let pods = [
            pod("a", "10.0.0.2", true, json!({})),
            pod("b", "10.0.0.1", true, json!({})),
            pod("c", "10.0.0.3", false, json!({})),
            pod("d", "10.0.0.4", true, going),
        ];
        let endpoints = plan(&service, &pods, None).unwrap();
        let subset = &endpoints.subsets.as_ref().unwrap()[0];
        let ips = |addresses: &Option<Vec<EndpointAddress>>| -> Vec<String> {
            addresses
                .iter()
                .flatten()
                .map(|address| address.ip.clone())
                .collect()
        };
        assert_eq!(ips(&subset.addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subset.not_ready_addresses), ["10.0.0.3"]);
        assert_eq!(plan(&service, &pods, Some(&endpoints)), None);
    }
}
