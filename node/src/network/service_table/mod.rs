//! Where Services lead.
//!
//! The table is an immutable [`Table`] behind one atomic pointer: lookups take no lock. A change
//! recomputes the entries of the one Service it concerns and publishes a new table that shares
//! everything else with the old one.
//!
//! ```text
//!   Service ─┐
//!            ├─ facts (what is read of them) ─ ServiceEntry::compute (pure) ─► Table
//!   slices  ─┘
//! ```
//!
//! `service_port.rs` is what of a Service outlives updates, `names.rs` what DNS asks for.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::endpoints::{self, Place, TrafficPolicy};
use super::follow::ObjectKey;
use super::switch::Transport;

mod names;
mod service_port;

pub(super) use names::{NamedEndpoint, label_of};
pub(super) use service_port::{DNS_SERVICE, ServicePort};

use service_port::service_port;

/// What is read of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceFacts {
    pub(super) key: ObjectKey,
    /// Empty for headless and ExternalName Services.
    pub(super) cluster_ips: Vec<IpAddr>,
    pub(super) external_name: Option<String>,
    pub(super) ports: Vec<PortFacts>,
    /// How long a client stays with its endpoint (`sessionAffinity: ClientIP`).
    pub(super) affinity: Option<Duration>,
    /// Addresses outside of the cluster's ranges: `externalIPs` and those of its load balancer.
    pub(super) external_ips: Vec<IpAddr>,
    /// How far traffic from pods may go, and traffic from outside.
    pub(super) inside: TrafficPolicy,
    pub(super) outside: TrafficPolicy,
    /// Where a load balancer asks whether this node has endpoints.
    pub(super) health_check_port: Option<u16>,
}

impl ServiceFacts {
    /// Whether its name leads to its endpoints rather than to an address of its own.
    fn is_headless(&self) -> bool {
        self.cluster_ips.is_empty() && self.external_name.is_none()
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortFacts {
    /// Empty for the only port of a Service.
    pub(super) name: String,
    pub(super) transport: Transport,
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
    /// Whether its `appProtocol` is HTTP/2 from the first byte on.
    pub(super) speaks_h2: bool,
}

/// What is read of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SliceFacts {
    pub(super) service: ObjectKey,
    /// Name, transport and number of each port.
    pub(super) ports: Vec<(String, Transport, u16)>,
    pub(super) endpoints: Vec<EndpointFacts>,
}

/// An endpoint of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointFacts {
    pub(super) address: IpAddr,
    pub(super) hostname: Option<String>,
    pub(super) ready: bool,
    /// Still answering, though perhaps on its way out.
    pub(super) serving: bool,
    pub(super) node: Option<String>,
    /// Zones and nodes whose traffic it is meant for.
    pub(super) for_zones: Vec<String>,
    pub(super) for_nodes: Vec<String>,
}

/// Where traffic comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A pod, or the node itself.
    Inside,
    /// A client that came by a port of this node.
    Outside,
}

/// A Service with an address of its own, as containers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceAddress {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) ports: Vec<LinkedPort>,
}

/// A port of a [`ServiceAddress`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkedPort {
    /// Empty for the only port of a Service.
    pub(crate) name: String,
    pub(crate) number: u16,
    /// As a Service spells it: `TCP` or `UDP`.
    pub(crate) protocol: &'static str,
}

/// What a load balancer is told that asks this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HealthCheck {
    pub(super) port: u16,
    pub(super) local_endpoints: usize,
}

/// A Service with everything a lookup may want of it.
#[derive(Debug)]
pub(super) struct ServiceEntry {
    pub(super) cluster_ips: Vec<IpAddr>,
    pub(super) external_name: Option<String>,
    ports: Vec<Arc<ServicePort>>,
    external_ips: Vec<IpAddr>,
    pub(super) health_check: Option<HealthCheck>,
    is_headless: bool,
    /// In the order of their names.
    named: Vec<NamedEndpoint>,
}

impl ServiceEntry {
    /// The endpoints by whose addresses a headless Service's name resolves; none for others.
    pub(super) fn headless(&self) -> &[NamedEndpoint] {
        if self.is_headless { &self.named } else { &[] }
    }

    /// The endpoints of that host name.
    pub(super) fn hosts(&self, host: &str) -> impl Iterator<Item = &NamedEndpoint> {
        let start = self.named.partition_point(|each| *each.host < *host);
        let rest = self.named.get(start..).unwrap_or_default();
        rest.iter().take_while(move |each| each.host == host)
    }

    /// The TCP port of whose name and number `fits` holds.
    pub(super) fn tcp_port(&self, fits: impl Fn(&str, u16) -> bool) -> Option<&ServicePort> {
        let ports = self.ports.iter().map(AsRef::as_ref);
        let mut tcp = ports.filter(|port: &&ServicePort| port.transport == Transport::Tcp);
        tcp.find(|port| fits(&port.name, port.port))
    }

    /// Name, transport and number of each port.
    pub(super) fn ports(&self) -> impl Iterator<Item = (&str, Transport, u16)> {
        let ports = self.ports.iter();
        ports.map(|port| (port.name.as_str(), port.transport, port.port))
    }

    /// The entry of a Service with these slices; `old` is the entry it replaces.
    fn compute(
        service: &ServiceFacts,
        slices: &[&SliceFacts],
        place: &Place,
        old: Option<&Self>,
    ) -> Self {
        let inside = endpoints::choose(slices, place, service.inside);
        let outside = endpoints::choose(slices, place, service.outside);
        let port = |facts: &PortFacts| {
            let old = old.and_then(|old| old.port(&facts.name, facts.transport));
            Arc::new(service_port(service, facts, [&inside, &outside], old))
        };
        Self {
            external_ips: service.external_ips.clone(),
            health_check: service.health_check_port.map(|port| HealthCheck {
                port,
                local_endpoints: endpoints::choose(slices, place, TrafficPolicy::Local).len(),
            }),
            cluster_ips: service.cluster_ips.clone(),
            external_name: service.external_name.clone(),
            ports: service.ports.iter().map(port).collect(),
            is_headless: service.is_headless(),
            named: names::named(service, slices),
        }
    }

    fn address(&self, key: &ObjectKey) -> Option<ServiceAddress> {
        let port = |port: &Arc<ServicePort>| LinkedPort {
            name: port.name.clone(),
            number: port.port,
            protocol: port.transport.as_str(),
        };
        Some(ServiceAddress {
            name: key.name.clone(),
            address: *self.cluster_ips.first()?,
            ports: self.ports.iter().map(port).collect(),
        })
    }

    fn port(&self, name: &str, transport: Transport) -> Option<&Arc<ServicePort>> {
        self.ports
            .iter()
            .find(|port| port.name == name && port.transport == transport)
    }
}

/// One version of the cluster's Services.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// In order, so that the Services of a namespace are neighbours.
    by_name: imbl::OrdMap<ObjectKey, Arc<ServiceEntry>>,
    by_address: imbl::HashMap<(Transport, SocketAddr), Arc<ServicePort>>,
    by_node_port: imbl::OrdMap<(Transport, u16), Arc<ServicePort>>,
    /// Addresses outside of the cluster's ranges.
    external: imbl::OrdMap<(Transport, SocketAddr), Arc<ServicePort>>,
    health_checks: imbl::OrdMap<u16, ObjectKey>,
    cluster_ips: imbl::HashMap<IpAddr, ObjectKey>,
    /// The headless Services that an address is behind.
    headless: imbl::OrdMap<(IpAddr, ObjectKey), ()>,
}

impl Table {
    /// The Service port at a cluster address.
    pub(super) fn by_address(&self, transport: Transport, to: SocketAddr) -> Option<&ServicePort> {
        let inside = self.by_address.get(&(transport, to));
        inside
            .or_else(|| self.external.get(&(transport, to)))
            .map(AsRef::as_ref)
    }

    /// The Service port at an address outside of the cluster's ranges.
    pub(super) fn by_external(
        &self,
        transport: Transport,
        at: SocketAddr,
    ) -> Option<Arc<ServicePort>> {
        self.external.get(&(transport, at)).cloned()
    }

    /// Whether the address is a Service's, at whatever port.
    pub(super) fn is_service_address(&self, ip: IpAddr) -> bool {
        self.cluster_ips.contains_key(&ip)
    }

    /// The Service that has the address.
    pub(super) fn by_cluster_ip(&self, ip: IpAddr) -> Option<&ObjectKey> {
        self.cluster_ips.get(&ip)
    }

    /// The headless Services with an endpoint at the address.
    pub(super) fn headless_at(&self, ip: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        let from = (ip, ObjectKey::new("", ""));
        let at = self.headless.range(from..);
        at.take_while(move |((at, _), ())| *at == ip)
            .map(|((_, key), ())| key)
    }

    /// Whether the namespace has a Service.
    pub(super) fn has_services_in(&self, namespace: &str) -> bool {
        let mut from = self.by_name.range(ObjectKey::new(namespace, "")..);
        from.next()
            .is_some_and(|(key, _)| key.namespace == namespace)
    }

    /// The addresses of the cluster's DNS.
    pub(super) fn dns_addresses(&self) -> &[IpAddr] {
        let (namespace, name) = DNS_SERVICE;
        self.by_name(&ObjectKey::new(namespace, name))
            .map_or(&[], |entry| &entry.cluster_ips)
    }

    pub(super) fn by_name(&self, key: &ObjectKey) -> Option<&ServiceEntry> {
        self.by_name.get(key).map(AsRef::as_ref)
    }

    /// A Service that has an address of its own.
    pub(super) fn address(&self, key: &ObjectKey) -> Option<ServiceAddress> {
        self.by_name.get(key)?.address(key)
    }

    /// The Services of a namespace that have an address of their own, by name.
    pub(super) fn addresses_in(&self, namespace: &str) -> impl Iterator<Item = ServiceAddress> {
        self.by_name
            .range(ObjectKey::new(namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .filter_map(|(key, entry)| entry.address(key))
    }

    /// The Service port behind a node port.
    pub(super) fn by_node_port(&self, transport: Transport, port: u16) -> Option<Arc<ServicePort>> {
        self.by_node_port.get(&(transport, port)).cloned()
    }

    /// The addresses by which Services are reached from outside.
    pub(super) fn external_addresses(
        &self,
    ) -> impl Iterator<Item = (Transport, SocketAddr, &ObjectKey)> {
        self.external
            .iter()
            .map(|((transport, address), port)| (*transport, *address, &port.service))
    }

    /// The ports at which load balancers ask for the Services' endpoints here.
    pub(super) fn health_checks(&self) -> impl Iterator<Item = (u16, &ObjectKey)> {
        self.health_checks.iter().map(|(port, key)| (*port, key))
    }

    /// All node ports in use and the Services they belong to.
    pub(super) fn node_ports(&self) -> impl Iterator<Item = (Transport, u16, &ObjectKey)> {
        self.by_node_port
            .iter()
            .map(|((transport, port), entry)| (*transport, *port, &entry.service))
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<ServiceEntry>> {
        let old = self.by_name.remove(key)?;
        for ip in &old.cluster_ips {
            if self.cluster_ips.get(ip) == Some(key) {
                self.cluster_ips.remove(ip);
            }
        }
        for endpoint in old.headless() {
            self.headless.remove(&(endpoint.address, key.clone()));
        }
        for port in &old.ports {
            for ip in &old.cluster_ips {
                let address = (port.transport, SocketAddr::new(*ip, port.port));
                if self
                    .by_address
                    .get(&address)
                    .is_some_and(|entry| entry.service == *key)
                {
                    self.by_address.remove(&address);
                }
            }
            for ip in &old.external_ips {
                let address = (port.transport, SocketAddr::new(*ip, port.port));
                if self
                    .external
                    .get(&address)
                    .is_some_and(|entry| entry.service == *key)
                {
                    self.external.remove(&address);
                }
            }
            if let Some(number) = port.node_port {
                let number = (port.transport, number);
                if self
                    .by_node_port
                    .get(&number)
                    .is_some_and(|entry| entry.service == *key)
                {
                    self.by_node_port.remove(&number);
                }
            }
        }
        if let Some(check) = &old.health_check
            && self.health_checks.get(&check.port) == Some(key)
        {
            self.health_checks.remove(&check.port);
        }
        Some(old)
    }

    /// Gives a Service the external addresses that it names and nobody else has.
    fn claim(&mut self, entry: &ServiceEntry) {
        for port in &entry.ports {
            for ip in &entry.external_ips {
                let address = (port.transport, SocketAddr::new(*ip, port.port));
                if !self.external.contains_key(&address) {
                    self.external.insert(address, port.clone());
                }
            }
        }
    }

    fn insert(&mut self, key: &ObjectKey, entry: ServiceEntry) {
        for ip in &entry.cluster_ips {
            self.cluster_ips.insert(*ip, key.clone());
        }
        for endpoint in entry.headless() {
            let at = (endpoint.address, key.clone());
            self.headless.insert(at, ());
        }
        for port in &entry.ports {
            for ip in &entry.cluster_ips {
                let address = SocketAddr::new(*ip, port.port);
                self.by_address
                    .insert((port.transport, address), port.clone());
            }
            if let Some(number) = port.node_port {
                self.by_node_port
                    .insert((port.transport, number), port.clone());
            }
        }
        if let Some(check) = &entry.health_check {
            self.health_checks.insert(check.port, key.clone());
        }
        self.claim(&entry);
        self.by_name.insert(key.clone(), Arc::new(entry));
    }
}

/// The facts the table was made of.
#[derive(Debug, Default)]
struct Facts {
    services: HashMap<ObjectKey, ServiceFacts>,
    /// By Service, then by name of the slice.
    slices: HashMap<ObjectKey, BTreeMap<String, SliceFacts>>,
    /// Which Service a slice belonged to when last seen, by namespace and name of the slice.
    owner: HashMap<ObjectKey, ObjectKey>,
    place: Place,
}

/// The current [`Table`] and the facts behind it.
pub(super) struct ServiceTable {
    facts: Mutex<Facts>,
    table: ArcSwap<Table>,
    changed: watch::Sender<()>,
    listed: watch::Sender<bool>,
}

impl ServiceTable {
    pub(super) fn new() -> Self {
        Self {
            facts: Mutex::default(),
            table: ArcSwap::default(),
            changed: watch::channel(()).0,
            listed: watch::channel(false).0,
        }
    }

    /// Waits until the Services were listed once. Cancel-safe.
    pub(super) async fn listed(&self) {
        let mut listed = self.listed.subscribe();
        // The sender lives as long as `self`.
        let _ = listed.wait_for(|listed| *listed).await;
    }

    /// The table as it is now.
    pub(super) fn load(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Reports every change of the table.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// This node is there, or is where it is told to be now.
    pub(super) fn set_place(&self, place: Place) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if facts.place != place {
            facts.place = place;
            let all: Vec<_> = facts.services.keys().cloned().collect();
            self.publish(&facts, &all);
        }
    }

    /// A Service is there, or is as told now.
    pub(super) fn apply_service(&self, service: ServiceFacts) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = service.key.clone();
        if facts.services.get(&key) != Some(&service) {
            facts.services.insert(key.clone(), service);
            self.publish(&facts, [&key]);
        }
    }

    /// A Service is gone.
    pub(super) fn delete_service(&self, key: &ObjectKey) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.services.remove(key);
        self.publish(&facts, [key]);
    }

    /// An EndpointSlice is there, or is as told now. `id` is its namespace and name.
    pub(super) fn apply_slice(&self, id: &ObjectKey, slice: SliceFacts) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let service = slice.service.clone();
        let before = facts.owner.insert(id.clone(), service.clone());
        let moved = before.filter(|before| *before != service);
        if let Some(before) = &moved {
            facts.remove_slice(before, id);
        }
        let of_service = facts.slices.entry(service.clone()).or_default();
        if of_service.get(&id.name) == Some(&slice) && moved.is_none() {
            return;
        }
        of_service.insert(id.name.clone(), slice);
        self.publish(&facts, moved.iter().chain([&service]));
    }

    /// An EndpointSlice is gone.
    pub(super) fn delete_slice(&self, id: &ObjectKey) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = facts.owner.remove(id) {
            facts.remove_slice(&service, id);
            self.publish(&facts, [&service]);
        }
    }

    /// Drops every Service that is not in `present`: they were listed, for the first time or anew.
    pub(super) fn retain_services(&self, present: &std::collections::HashSet<ObjectKey>) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = facts
            .services
            .keys()
            .filter(|key| !present.contains(key))
            .cloned()
            .collect();
        for key in &gone {
            facts.services.remove(key);
        }
        self.publish(&facts, &gone);
        self.listed.send_replace(true);
    }

    /// Drops every EndpointSlice that is not in `present`: a watch started anew.
    pub(super) fn retain_slices(&self, present: &std::collections::HashSet<ObjectKey>) {
        let gone: Vec<_> = {
            let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            facts
                .owner
                .keys()
                .filter(|id| !present.contains(id))
                .cloned()
                .collect()
        };
        for id in &gone {
            self.delete_slice(id);
        }
    }

    /// Recomputes the entries of `keys`. The caller holds the facts, so that versions of the table
    /// follow each other.
    fn publish<'a>(&self, facts: &Facts, keys: impl IntoIterator<Item = &'a ObjectKey>) {
        let mut table = Table::clone(&self.table.load());
        let mut any = false;
        for key in keys {
            any = true;
            let old = table.remove(key);
            if let Some(service) = facts.services.get(key) {
                let slices: Vec<_> = facts
                    .slices
                    .get(key)
                    .map(|each| each.values().collect())
                    .unwrap_or_default();
                let before = old.as_deref();
                let entry = ServiceEntry::compute(service, &slices, &facts.place, before);
                table.insert(key, entry);
            }
            if let Some(old) = old.filter(|old| !old.external_ips.is_empty()) {
                facts.inherit(&mut table, key, &old.external_ips);
            }
        }
        if any {
            self.table.store(Arc::new(table));
            self.changed.send_replace(());
        }
    }
}

impl Facts {
    /// Lets other Services have the external addresses that one may have given up.
    fn inherit(&self, table: &mut Table, from: &ObjectKey, ips: &[IpAddr]) {
        let names_one = |service: &&ServiceFacts| {
            let mut named = service.external_ips.iter();
            service.key != *from && named.any(|ip| ips.contains(ip))
        };
        for heir in self.services.values().filter(names_one) {
            if let Some(entry) = table.by_name.get(&heir.key).cloned() {
                table.claim(&entry);
            }
        }
    }

    fn remove_slice(&mut self, service: &ObjectKey, id: &ObjectKey) {
        if let Some(slices) = self.slices.get_mut(service) {
            slices.remove(&id.name);
            if slices.is_empty() {
                self.slices.remove(service);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
