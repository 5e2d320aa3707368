//! Feeds the service table from the cluster's Services and EndpointSlices.
//!
//! This is the node's only watch of either kind: whatever else needs Services reads the table.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice};
use kube::{Api, Client, ResourceExt};

use super::endpoints::TrafficPolicy;
use super::follow::{Feed, ObjectKey, follow};
use super::service_table::{EndpointFacts, PortFacts, ServiceFacts, ServiceTable, SliceFacts};
use super::switch::Transport;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Keeps `table` in step until dropped.
pub(super) async fn run(table: &ServiceTable, client: Client) {
    let services = follow(Api::<Service>::all(client.clone()), ServiceFeed(table));
    let slices = follow(Api::<EndpointSlice>::all(client), SliceFeed(table));
    tokio::join!(services, slices);
}

struct ServiceFeed<'a>(&'a ServiceTable);

impl Feed<Service> for ServiceFeed<'_> {
    fn apply(&self, object: &Service) {
        self.0.apply_service(service_facts(object));
    }

    fn delete(&self, id: &ObjectKey) {
        self.0.delete_service(id);
    }

    fn retain(&self, present: &HashSet<ObjectKey>) {
        self.0.retain_services(present);
    }
}

struct SliceFeed<'a>(&'a ServiceTable);

impl Feed<EndpointSlice> for SliceFeed<'_> {
    fn apply(&self, object: &EndpointSlice) {
        match slice_facts(object) {
            Some(facts) => self.0.apply_slice(&ObjectKey::of(object), facts),
            None => self.0.delete_slice(&ObjectKey::of(object)),
        }
    }

    fn delete(&self, id: &ObjectKey) {
        self.0.delete_slice(id);
    }

    fn retain(&self, present: &HashSet<ObjectKey>) {
        self.0.retain_slices(present);
    }
}

/// The default of `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const AFFINITY_TIMEOUT: i32 = 10_800;

pub(super) fn service_facts(object: &Service) -> ServiceFacts {
    let spec = object.spec.clone().unwrap_or_default();
    let single = spec.cluster_ip.clone().into_iter().collect();
    let cluster_ips = spec
        .cluster_ips
        .filter(|all| !all.is_empty())
        .unwrap_or(single);
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(PortFacts {
            name: port.name.clone().unwrap_or_default(),
            transport: Transport::parse(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
            node_port: port
                .node_port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0),
            speaks_h2: port.app_protocol.as_deref() == Some("kubernetes.io/h2c"),
        })
    };
    let timeout = spec
        .session_affinity_config
        .and_then(|config| config.client_ip?.timeout_seconds)
        .unwrap_or(AFFINITY_TIMEOUT);
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    ServiceFacts {
        key: ObjectKey::of(object),
        // A headless Service says "None", which is no address.
        cluster_ips: cluster_ips
            .iter()
            .filter_map(|ip| ip.parse().ok())
            .collect(),
        external_name: spec
            .external_name
            .filter(|_| spec.type_.as_deref() == Some("ExternalName")),
        ports: spec
            .ports
            .unwrap_or_default()
            .iter()
            .filter_map(port)
            .collect(),
        external_ips: external_ips(object),
        inside: TrafficPolicy::parse(spec.internal_traffic_policy.as_deref()),
        outside: TrafficPolicy::parse(spec.external_traffic_policy.as_deref()),
        health_check_port: spec
            .health_check_node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0),
        affinity: sticky.then(|| Duration::from_secs(timeout.max(1).unsigned_abs().into())),
    }
}

/// The addresses by which a Service is reached from outside, without ports of nodes.
fn external_ips(object: &Service) -> Vec<IpAddr> {
    let spec = object.spec.as_ref();
    let named = spec
        .into_iter()
        .flat_map(|spec| spec.external_ips.iter().flatten());
    let balancer = object.status.as_ref();
    let balancer = balancer.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    // Spec: what is behind an address of mode Proxy is reached at the proxy only.
    let assigned = balancer
        .into_iter()
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_ref());
    named
        .chain(assigned)
        .filter_map(|ip| ip.parse().ok())
        .collect()
}

/// What a slice says, if it belongs to a Service and holds addresses.
fn slice_facts(object: &EndpointSlice) -> Option<SliceFacts> {
    let service = object.labels().get(SERVICE_NAME)?;
    let ports = object.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port?).ok()?;
        Some((
            port.name.clone().unwrap_or_default(),
            Transport::parse(port.protocol.as_deref())?,
            number,
        ))
    });
    Some(SliceFacts {
        service: ObjectKey::new(&object.namespace().unwrap_or_default(), service),
        ports: ports.collect(),
        endpoints: object.endpoints.iter().filter_map(endpoint_facts).collect(),
    })
}

fn endpoint_facts(endpoint: &Endpoint) -> Option<EndpointFacts> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // Spec: an absent condition counts as true; `serving` falls back to `ready`.
    let ready = conditions.ready.unwrap_or(true);
    Some(EndpointFacts {
        // Spec: all addresses of an endpoint are the same; clients use the first.
        address: endpoint.addresses.first()?.parse().ok()?,
        hostname: endpoint.hostname.clone(),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        node: endpoint.node_name.clone(),
        for_zones: hints(endpoint, |hints| {
            let zones = hints.for_zones.iter().flatten();
            zones.map(|zone| zone.name.clone()).collect()
        }),
        for_nodes: hints(endpoint, |hints| {
            let nodes = hints.for_nodes.iter().flatten();
            nodes.map(|node| node.name.clone()).collect()
        }),
    })
}

fn hints(endpoint: &Endpoint, of: impl Fn(&EndpointHints) -> Vec<String>) -> Vec<String> {
    endpoint.hints.as_ref().map(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn services_are_read_with_their_defaults() {
        let facts = service_facts(&parse(serde_json::json!({
            "metadata": {"name": "web", "namespace": "a"},
            "spec": {
                "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
                "sessionAffinity": "ClientIP",
                "ports": [
                    {"port": 80, "nodePort": 30080},
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "x", "port": 99, "protocol": "SCTP"},
                ],
            },
        })));
        assert_eq!(facts.cluster_ips, ["10.96.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(facts.affinity, Some(Duration::from_secs(10_800)));
        assert_eq!(facts.ports.len(), 2);
        assert_eq!(facts.ports[0].node_port, Some(30_080));
        assert_eq!(facts.ports[1].transport, Transport::Udp);
    }

    #[test]
    fn headless_and_external_services_have_no_address() {
        let headless = service_facts(&parse(serde_json::json!({
            "metadata": {"name": "db", "namespace": "a"},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"]},
        })));
        assert_eq!(
            (headless.cluster_ips.len(), headless.external_name),
            (0, None)
        );
        let external = service_facts(&parse(serde_json::json!({
            "metadata": {"name": "away", "namespace": "a"},
            "spec": {"type": "ExternalName", "externalName": "example.com"},
        })));
        assert_eq!(external.external_name.as_deref(), Some("example.com"));
    }

    #[test]
    fn slices_are_read_with_their_defaults() {
        let slice = |labels: serde_json::Value| {
            slice_facts(&parse(serde_json::json!({
                "metadata": {"name": "web-x", "namespace": "a", "labels": labels},
                "addressType": "IPv4",
                "ports": [{"port": 8080}],
                "endpoints": [
                    {"addresses": ["10.42.0.2"]},
                    {"addresses": ["10.42.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                    {"addresses": ["not an address"]},
                ],
            })))
        };
        assert_eq!(slice(serde_json::json!({})), None);
        let facts = slice(serde_json::json!({SERVICE_NAME: "web"})).unwrap();
        assert_eq!(facts.service, ObjectKey::new("a", "web"));
        let states: Vec<_> = facts
            .endpoints
            .iter()
            .map(|each| (each.ready, each.serving))
            .collect();
        assert_eq!(states, [(true, true), (false, true)]);
    }
}
