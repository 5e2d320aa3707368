//! A port of a Service: which endpoints are behind it, and whose turn it is.
//!
//! Invariant: what a Service has in all versions of itself (the turn of its round robin, its clients' affinity) lives in
//! [`PickState`], which an update carries over.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Origin, PortFacts, ServiceFacts};
use crate::network::dns;
use crate::network::endpoints::Member;
use crate::network::follow::ObjectKey;
use crate::network::switch::Transport;

/// The part of a Service port that outlives updates.
#[derive(Debug, Default)]
struct PickState {
    turn: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, (SocketAddr, Instant)>>,
}

/// A port of a Service and the endpoints behind it.
#[derive(Debug)]
pub(in crate::network) struct ServicePort {
    pub(in crate::network) service: ObjectKey,
    pub(super) name: String,
    pub(super) transport: Transport,
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
    pub(in crate::network) speaks_h2: bool,
    inside: Vec<SocketAddr>,
    outside: Vec<SocketAddr>,
    affinity: Option<Duration>,
    state: Arc<PickState>,
}

/// Namespace and name of the Service of the cluster's DNS.
pub(in crate::network) const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// Clients whose affinity is remembered per Service port; beyond it the stale ones are swept.
const MAX_CLIENTS: usize = 10_000;

impl ServicePort {
    /// Whether this is the Service of the API server.
    pub(in crate::network) fn is_api_server(&self) -> bool {
        self.service.namespace == "default" && self.service.name == "kubernetes"
    }

    /// Whether the cluster's DNS is asked here, which every node answers for itself.
    pub(in crate::network) fn is_dns(&self) -> bool {
        let (namespace, name) = DNS_SERVICE;
        self.port == dns::PORT && self.service.namespace == namespace && self.service.name == name
    }

    /// The endpoints in the order in which to try them for a client.
    pub(in crate::network) fn candidates(
        &self,
        client: IpAddr,
        origin: Origin,
    ) -> impl Iterator<Item = SocketAddr> {
        let endpoints = match origin {
            Origin::Inside => &self.inside,
            Origin::Outside => &self.outside,
        };
        let count = endpoints.len();
        let start = self.start(client, endpoints);
        (0..count).filter_map(move |step| endpoints.get((start + step) % count).copied())
    }

    fn start(&self, client: IpAddr, endpoints: &[SocketAddr]) -> usize {
        let count = endpoints.len();
        let Some(timeout) = self.affinity else {
            return if count == 0 { 0 } else { self.turn(count) };
        };
        if count == 0 {
            return 0;
        }
        let now = Instant::now();
        let mut clients = self
            .state
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS {
            clients.retain(|_, (_, seen)| now.duration_since(*seen) < timeout);
        }
        let known = clients
            .get(&client)
            .filter(|(_, seen)| now.duration_since(*seen) < timeout)
            .and_then(|(endpoint, _)| endpoints.iter().position(|other| other == endpoint));
        let start = known.unwrap_or_else(|| self.turn(count));
        if let Some(endpoint) = endpoints.get(start)
            && (clients.len() < MAX_CLIENTS || clients.contains_key(&client))
        {
            clients.insert(client, (*endpoint, now));
        }
        start
    }

    fn turn(&self, count: usize) -> usize {
        self.state.turn.fetch_add(1, Ordering::Relaxed) % count
    }

    /// Ends a client's affinity to an endpoint that did not answer.
    pub(in crate::network) fn forget(&self, client: IpAddr, endpoint: SocketAddr) {
        if self.affinity.is_some() {
            let mut clients = self
                .state
                .clients
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if clients
                .get(&client)
                .is_some_and(|(known, _)| *known == endpoint)
            {
                clients.remove(&client);
            }
        }
    }
}

/// The port of a Service; `old` is the one that it replaces.
pub(super) fn service_port(
    service: &ServiceFacts,
    facts: &PortFacts,
    [inside, outside]: [&[Member<'_>]; 2],
    old: Option<&Arc<ServicePort>>,
) -> ServicePort {
    let addresses = |members: &[Member<'_>]| {
        let of_member = |(slice, endpoint): &Member<'_>| {
            let matching = slice.ports.iter().filter(|(name, transport, _)| {
                *name == facts.name && *transport == facts.transport
            });
            let address = endpoint.address;
            let sockets = matching.map(|(_, _, port)| SocketAddr::new(address, *port));
            sockets.collect::<Vec<_>>()
        };
        let mut all: Vec<_> = members.iter().flat_map(of_member).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    ServicePort {
        service: service.key.clone(),
        name: facts.name.clone(),
        transport: facts.transport,
        port: facts.port,
        node_port: facts.node_port,
        speaks_h2: facts.speaks_h2,
        inside: addresses(inside),
        outside: addresses(outside),
        affinity: service.affinity,
        state: old.map(|old| old.state.clone()).unwrap_or_default(),
    }
}
