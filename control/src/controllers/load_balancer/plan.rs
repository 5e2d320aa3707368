//! Which addresses each load balancer should have. Pure.
//!
//! With a pool each Service gets an address of its own and keeps it. Without one a Service gets the addresses
//! of the nodes, as long as no older Service has one of its ports there.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Node, Service};

use super::pool::AddressRange;
use crate::controllers::runtime::key::Key;
use crate::controllers::runtime::metadata::Metadata;

/// The class of load balancers that name one and are ours.
pub(super) const CLASS: &str = "windlass.dev/load-balancer";

/// Nodes with this label take no part.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What a Service should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// These addresses; none if there are no nodes yet.
    Addresses(Vec<String>),
    /// Nothing, and the reason.
    Pending(String),
}

/// Whether the Service is a load balancer, and is to stay.
pub(super) fn is_balancer(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
        && !service.metadata.is_terminating()
}

/// Whether the Service is a load balancer that is ours.
pub(super) fn is_ours(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let class = spec.and_then(|spec| spec.load_balancer_class.as_deref());
    is_balancer(service) && class.is_none_or(|class| class == CLASS)
}

/// The addresses that a Service has.
pub(super) fn assigned(service: &Service) -> Vec<String> {
    let status = service.status.as_ref();
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let ingress = ingress.into_iter().flatten();
    ingress.filter_map(|each| each.ip.clone()).collect()
}

/// Whether an address is of the pool.
pub(super) fn is_of_pool(ip: &str, pool: &[AddressRange]) -> bool {
    let ip: Option<Ipv4Addr> = ip.parse().ok();
    ip.is_some_and(|ip| pool.iter().any(|range| range.contains(ip)))
}

/// The addresses of the nodes by which clients outside reach them.
pub(in crate::controllers) fn node_addresses<'a>(
    nodes: impl Iterator<Item = &'a Node>,
) -> Vec<String> {
    let addresses = nodes.filter(|node| takes_part(node)).filter_map(|node| {
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        let of = |kind: &str| {
            let mut all = addresses.iter().filter(|it| it.type_ == kind);
            all.next().map(|it| it.address.clone())
        };
        of("ExternalIP").or_else(|| of("InternalIP"))
    });
    let all: BTreeSet<String> = addresses.collect();
    all.into_iter().collect()
}

fn takes_part(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let is_ready = conditions.into_iter().flatten();
    let mut is_ready = is_ready.filter(|it| it.type_ == "Ready" && it.status == "True");
    is_ready.next().is_some() && !node.metadata.labels().contains_key(EXCLUDED)
}

/// Decides for all load balancers at once: those that have an address already keep it, and then the older one
/// comes first.
pub(super) fn plan(
    services: &[&Service],
    pool: &[AddressRange],
    nodes: &[String],
) -> BTreeMap<Key, Verdict> {
    let mut ordered: Vec<&&Service> = services.iter().collect();
    ordered.sort_by_key(|service| {
        let made = service.metadata.creation_timestamp.as_ref().map(|it| it.0);
        (
            assigned(service).is_empty(),
            made,
            Key::of(&service.metadata),
        )
    });
    let mut taken = Taken::default();
    let decided = ordered.into_iter().map(|service| {
        let verdict = if pool.is_empty() {
            taken.on_nodes(service, nodes)
        } else {
            taken.of_pool(service, pool)
        };
        (Key::of(&service.metadata), verdict)
    });
    decided.collect()
}

#[derive(Default)]
struct Taken {
    addresses: HashSet<Ipv4Addr>,
    ports: BTreeMap<(String, i32), Key>,
}

impl Taken {
    fn of_pool(&mut self, service: &Service, pool: &[AddressRange]) -> Verdict {
        let is_free = |taken: &HashSet<Ipv4Addr>, address: &Ipv4Addr| {
            !taken.contains(address) && pool.iter().any(|range| range.contains(*address))
        };
        let spec = service.spec.as_ref();
        let wanted = spec.and_then(|spec| spec.load_balancer_ip.clone());
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
            let address: Option<Ipv4Addr> = wanted.parse().ok();
            return match address.filter(|address| is_free(&self.addresses, address)) {
                Some(address) => self.give(address),
                None => Verdict::Pending(format!("address {wanted} is not a free one of the pool")),
            };
        }
        let current = assigned(service)
            .into_iter()
            .filter_map(|it| it.parse().ok());
        let all = pool.iter().flat_map(|range| range.addresses());
        let mut candidates = current.chain(all);
        match candidates.find(|address| is_free(&self.addresses, address)) {
            Some(address) => self.give(address),
            None => Verdict::Pending("every address of the pool is in use".to_owned()),
        }
    }

    fn give(&mut self, address: Ipv4Addr) -> Verdict {
        self.addresses.insert(address);
        Verdict::Addresses(vec![address.to_string()])
    }

    fn on_nodes(&mut self, service: &Service, nodes: &[String]) -> Verdict {
        let spec = service.spec.as_ref();
        let ports = spec
            .into_iter()
            .flat_map(|spec| spec.ports.iter().flatten());
        let ports: Vec<_> = ports
            .map(|port| {
                (
                    port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                    port.port,
                )
            })
            .collect();
        let held = ports
            .iter()
            .find_map(|port| Some((port, self.ports.get(port)?)));
        if let Some(((protocol, port), by)) = held {
            let (namespace, name) = (&by.namespace, &by.name);
            return Verdict::Pending(format!(
                "port {port}/{protocol} of the nodes is in use by service {namespace}/{name}; give Services addresses of their own with --load-balancer-pool"
            ));
        }
        let key = Key::of(&service.metadata);
        self.ports
            .extend(ports.into_iter().map(|port| (port, key.clone())));
        Verdict::Addresses(nodes.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(name: &str, second: u32, more: &Value) -> Service {
        let mut object = json!({
            "metadata": {"namespace": "a", "name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}]},
        });
        json_patch::merge(&mut object, more);
        serde_json::from_value(object).unwrap()
    }

    fn has(ip: &str) -> Value {
        json!({"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}})
    }

    fn told(services: &[&Service], pool: &[&str], nodes: &[&str]) -> Vec<String> {
        let pool: Vec<_> = pool.iter().map(|range| range.parse().unwrap()).collect();
        let nodes: Vec<_> = nodes.iter().map(|&node| node.to_owned()).collect();
        let plan = plan(services, &pool, &nodes);
        let text = |service: &&Service| match plan.get(&Key::of(&service.metadata)).unwrap() {
            Verdict::Addresses(all) => all.join(","),
            Verdict::Pending(why) => why.clone(),
        };
        services.iter().map(text).collect()
    }

    #[test]
    fn each_service_gets_an_address_of_the_pool_and_keeps_it() {
        let pool = &["192.0.2.1-192.0.2.2", "192.0.2.9/32"];
        let (old, new) = (service("old", 1, &json!({})), service("new", 2, &json!({})));
        let holder = service("holder", 3, &has("192.0.2.1"));
        let foreign = service("foreign", 4, &has("198.51.100.1"));
        assert_eq!(
            told(&[&new, &old, &holder], pool, &[]),
            ["192.0.2.9", "192.0.2.2", "192.0.2.1"]
        );
        let full = "every address of the pool is in use";
        assert_eq!(
            told(&[&new, &old, &holder, &foreign], pool, &[]),
            [full, "192.0.2.9", "192.0.2.1", "192.0.2.2"]
        );
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_if_it_is_free() {
        let asks =
            |name: &str, ip: &str| service(name, 1, &json!({"spec": {"loadBalancerIP": ip}}));
        let (one, two, far) = (
            asks("1", "192.0.2.2"),
            asks("2", "192.0.2.2"),
            asks("3", "9.9.9.9"),
        );
        assert_eq!(
            told(&[&one, &two, &far], &["192.0.2.1-192.0.2.2"], &[]),
            [
                "192.0.2.2",
                "address 192.0.2.2 is not a free one of the pool",
                "address 9.9.9.9 is not a free one of the pool"
            ]
        );
    }

    #[test]
    fn without_a_pool_ports_of_the_nodes_go_to_the_first() {
        let (old, new) = (service("old", 1, &json!({})), service("new", 2, &json!({})));
        let other = service(
            "other",
            3,
            &json!({"spec": {"ports": [{"port": 80, "protocol": "UDP"}]}}),
        );
        let told = told(&[&new, &old, &other], &[], &["192.0.2.1", "192.0.2.2"]);
        assert!(
            told[0].contains("80/TCP of the nodes is in use by service a/old"),
            "{}",
            told[0]
        );
        assert_eq!(told[1..], ["192.0.2.1,192.0.2.2", "192.0.2.1,192.0.2.2"]);
    }

    #[test]
    fn nodes_that_are_ready_and_not_excluded_take_part() {
        let node = |ready: &str, labels: &Value, kind: &str, address: &str| -> Node {
            serde_json::from_value(json!({"metadata": {"labels": labels}, "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "addresses": [{"type": "Hostname", "address": "h"}, {"type": kind, "address": address}]}}))
            .unwrap()
        };
        let excluded = json!({EXCLUDED: ""});
        let nodes = [
            node("True", &json!({}), "InternalIP", "192.0.2.2"),
            node("True", &json!({}), "ExternalIP", "192.0.2.1"),
            node("Unknown", &json!({}), "InternalIP", "192.0.2.3"),
            node("True", &excluded, "InternalIP", "192.0.2.4"),
        ];
        assert_eq!(node_addresses(nodes.iter()), ["192.0.2.1", "192.0.2.2"]);
    }
}
