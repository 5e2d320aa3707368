//! Which node has which pod addresses.
//!
//! The table is immutable behind one atomic pointer, as the service table is: a lookup takes no lock.
//! It is fed from the cluster's Nodes, of which it keeps the pod CIDRs and where the agent's daemon
//! endpoint answers; heartbeats change nothing of that and publish nothing.
//!
//! Invariant: pod CIDRs of different nodes do not overlap (the node IPAM sees to that); should they,
//! the longer prefix wins, and of equal ones the Node told last.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

use super::address_pool::Cidr;
use super::follow::{Feed, ObjectKey, follow};

/// The label that names a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A node and its pods' addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRoute {
    /// Name of the Node.
    pub(crate) name: String,
    /// Where its daemon endpoint answers, best first.
    pub(crate) endpoints: Vec<SocketAddr>,
    /// The zone it is in, by its label.
    pub(super) zone: Option<String>,
    pod_cidrs: Vec<Cidr>,
}

/// One version of the cluster's routes.
#[derive(Debug, Clone, Default)]
struct Routes {
    nodes: imbl::HashMap<String, Arc<NodeRoute>>,
    /// By length of the prefix, longest first; then by network address.
    by_prefix: Vec<(u8, imbl::HashMap<u32, Arc<NodeRoute>>)>,
}

impl Routes {
    fn owner(&self, ip: Ipv4Addr) -> Option<&Arc<NodeRoute>> {
        self.by_prefix
            .iter()
            .find_map(|(prefix, networks)| networks.get(&Cidr::of(ip, *prefix).network()))
    }

    fn remove(&mut self, name: &str) {
        let Some(old) = self.nodes.remove(name) else {
            return;
        };
        for cidr in &old.pod_cidrs {
            let level = self
                .by_prefix
                .iter_mut()
                .find(|(prefix, _)| *prefix == cidr.prefix());
            if let Some((_, networks)) = level
                && networks
                    .get(&cidr.network())
                    .is_some_and(|route| route.name == name)
            {
                networks.remove(&cidr.network());
            }
        }
        self.by_prefix.retain(|(_, networks)| !networks.is_empty());
    }

    fn insert(&mut self, route: NodeRoute) {
        let route = Arc::new(route);
        for cidr in &route.pod_cidrs {
            // Sorted downwards.
            let at = self
                .by_prefix
                .partition_point(|(prefix, _)| *prefix > cidr.prefix());
            if self
                .by_prefix
                .get(at)
                .is_none_or(|(prefix, _)| *prefix != cidr.prefix())
            {
                self.by_prefix
                    .insert(at, (cidr.prefix(), imbl::HashMap::new()));
            }
            if let Some((_, networks)) = self.by_prefix.get_mut(at) {
                networks.insert(cidr.network(), route.clone());
            }
        }
        self.nodes.insert(route.name.clone(), route);
    }
}

/// The cluster's nodes by pod address.
pub(crate) struct NodeTable {
    routes: ArcSwap<Routes>,
    /// Held by who makes a new version, so that versions follow each other.
    writing: Mutex<()>,
    changed: watch::Sender<()>,
}

impl NodeTable {
    pub(super) fn new() -> Self {
        Self {
            routes: ArcSwap::default(),
            writing: Mutex::default(),
            changed: watch::channel(()).0,
        }
    }

    /// The node whose pods have the address.
    pub(crate) fn owner(&self, ip: IpAddr) -> Option<Arc<NodeRoute>> {
        let IpAddr::V4(ip) = ip else { return None };
        self.routes.load().owner(ip).cloned()
    }

    /// Keeps telling in which zone the node of that name is, until dropped.
    pub(super) async fn follow_zone(&self, name: &str, told: impl Fn(Option<String>)) {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let zone = self
                .routes
                .load()
                .nodes
                .get(name)
                .map(|node| node.zone.clone());
            if let Some(zone) = zone {
                told(zone);
            }
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// The node whose pods have the address, once there is one. Cancel-safe.
    pub(crate) async fn owner_once_known(&self, ip: IpAddr) -> Arc<NodeRoute> {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(route) = self.owner(ip) {
                return route;
            }
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// Keeps the table in step with the cluster's Nodes until dropped.
    pub(super) async fn watch(&self, client: Client) {
        follow(Api::<Node>::all(client), NodeFeed(self)).await;
    }

    pub(super) fn apply(&self, route: NodeRoute) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes = Routes::clone(&self.routes.load());
        if routes
            .nodes
            .get(&route.name)
            .is_some_and(|old| **old == route)
        {
            return;
        }
        routes.remove(&route.name);
        routes.insert(route);
        self.publish(routes);
    }

    fn retain(&self, keep: impl Fn(&str) -> bool) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes = Routes::clone(&self.routes.load());
        let gone: Vec<String> = routes
            .nodes
            .keys()
            .filter(|name| !keep(name))
            .cloned()
            .collect();
        for name in &gone {
            routes.remove(name);
        }
        if !gone.is_empty() {
            self.publish(routes);
        }
    }

    fn publish(&self, routes: Routes) {
        self.routes.store(Arc::new(routes));
        self.changed.send_replace(());
    }
}

struct NodeFeed<'a>(&'a NodeTable);

impl Feed<Node> for NodeFeed<'_> {
    fn apply(&self, object: &Node) {
        self.0.apply(route(object));
    }

    fn delete(&self, key: &ObjectKey) {
        self.0.retain(|name| name != key.name);
    }

    fn retain(&self, present: &HashSet<ObjectKey>) {
        self.0
            .retain(|name| present.contains(&ObjectKey::new("", name)));
    }
}

/// What is read of a Node.
fn route(node: &Node) -> NodeRoute {
    let spec = node.spec.as_ref();
    let single = spec.and_then(|spec| spec.pod_cidr.clone());
    // Spec: the first of `podCIDRs` is `podCIDR`. Ranges of IPv6 are not for this network.
    let all = spec.and_then(|spec| spec.pod_cidrs.clone());
    let texts = all
        .filter(|all| !all.is_empty())
        .unwrap_or_else(|| single.into_iter().collect());
    NodeRoute {
        name: node.name_any(),
        endpoints: endpoints(node),
        zone: node.labels().get(ZONE).cloned(),
        pod_cidrs: texts.iter().filter_map(|text| text.parse().ok()).collect(),
    }
}

fn endpoints(node: &Node) -> Vec<SocketAddr> {
    let status = node.status.as_ref();
    let port = status
        .and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref())
        .and_then(|endpoint| u16::try_from(endpoint.port).ok());
    let addresses = status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    let ips = addresses
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse::<IpAddr>().ok());
    port.map_or_else(Vec::new, |port| {
        ips.map(|ip| SocketAddr::new(ip, port)).collect()
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A route of one range and one endpoint.
    pub(in super::super) fn to(name: &str, cidrs: &[&str], endpoint: &str) -> NodeRoute {
        NodeRoute {
            name: name.to_owned(),
            endpoints: vec![endpoint.parse().unwrap()],
            zone: None,
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        }
    }

    fn owner(table: &NodeTable, ip: &str) -> Option<String> {
        let route = table.owner(ip.parse().unwrap());
        route.map(|route| route.name.clone())
    }

    #[test]
    fn the_longest_prefix_wins_and_goes_with_its_node() {
        let table = NodeTable::new();
        table.apply(to("wide", &["10.0.0.0/8"], "192.0.2.1:1"));
        table.apply(to("a", &["10.1.0.0/16", "10.2.0.0/24"], "192.0.2.2:1"));
        table.apply(to("b", &["10.1.2.0/24"], "192.0.2.3:1"));
        for (ip, want) in [
            ("10.1.2.9", Some("b")),
            ("10.1.3.9", Some("a")),
            ("10.2.0.255", Some("a")),
            ("10.2.1.0", Some("wide")),
            ("11.0.0.1", None),
            ("::ffff:10.1.2.9", None),
        ] {
            assert_eq!(owner(&table, ip).as_deref(), want, "{ip}");
        }
        table.retain(|name| name != "b");
        assert_eq!(owner(&table, "10.1.2.9").as_deref(), Some("a"));
    }

    #[test]
    fn a_range_that_moved_to_another_node_stays_there_when_the_first_one_goes() {
        let table = NodeTable::new();
        table.apply(to("old", &["10.1.0.0/24"], "192.0.2.1:1"));
        table.apply(to("new", &["10.1.0.0/24"], "192.0.2.2:1"));
        table.retain(|name| name != "old");
        assert_eq!(owner(&table, "10.1.0.9").as_deref(), Some("new"));
    }

    #[test]
    fn only_changes_of_what_is_read_are_published() {
        let table = NodeTable::new();
        let mut changes = table.changed.subscribe();
        table.apply(to("a", &["10.1.0.0/24"], "192.0.2.1:1"));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        table.apply(to("a", &["10.1.0.0/24"], "192.0.2.1:1"));
        assert!(!changes.has_changed().unwrap());
    }

    #[test]
    fn a_node_is_read_with_its_gaps() {
        let parse = |value: serde_json::Value| route(&serde_json::from_value(value).unwrap());
        let whole = parse(serde_json::json!({
            "metadata": {"name": "a"},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"]},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "a"},
                    {"type": "InternalIP", "address": "192.0.2.1"},
                    {"type": "ExternalIP", "address": "203.0.113.1"},
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            },
        }));
        assert_eq!(whole, to("a", &["10.1.0.0/24"], "192.0.2.1:10250"));
        let bare = parse(serde_json::json!({"metadata": {"name": "b"}}));
        assert_eq!((bare.endpoints.len(), bare.pod_cidrs.len()), (0, 0));
    }
}
