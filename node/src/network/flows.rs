//! What went between a pod and its peers, counted.
//!
//! A [`Flow`] is all traffic of one pod with one peer in one direction at one port. Connections hold their
//! flow and add to it as bytes pass; nothing is looked up after a connection was made.
//!
//! A pod has at most [`MAX_FLOWS`]; what comes beyond is counted under the peer `Other`, so that a guest that
//! knocks at every address costs a bounded amount of memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_api::node_info::{self, FlowPeer};

use super::policy::{Direction, PodIdentity};
use super::switch::Transport;

/// Flows that are told apart per pod.
const MAX_FLOWS: usize = 512;

/// The other end of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum PeerName {
    Pod {
        namespace: String,
        name: String,
    },
    Service {
        namespace: String,
        name: String,
    },
    /// The agent itself: probes, port-forward.
    Node,
    Outside(IpAddr),
    /// A pod of another node whose name was not asked for.
    Address(IpAddr),
    /// Everybody beyond the flows that are told apart.
    Other,
}

impl From<&PodIdentity> for PeerName {
    fn from(pod: &PodIdentity) -> Self {
        Self::Pod {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct FlowKey {
    direction: Direction,
    peer: PeerName,
    transport: Transport,
    port: u16,
}

/// Counts of one flow. Cheap to add to.
#[derive(Debug, Default)]
pub(super) struct Flow {
    connections: AtomicU64,
    denied: AtomicU64,
    /// Bytes that the pod sent and received.
    pub(super) sent: Arc<AtomicU64>,
    pub(super) received: Arc<AtomicU64>,
}

impl Flow {
    pub(super) fn count_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }
}

/// The flows of one pod.
#[derive(Debug, Default)]
pub(super) struct Flows(Mutex<HashMap<FlowKey, Arc<Flow>>>);

impl Flows {
    /// The flow with that peer, made if it is the first time.
    pub(super) fn with(
        &self,
        direction: Direction,
        peer: PeerName,
        transport: Transport,
        port: u16,
    ) -> Arc<Flow> {
        let mut flows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = FlowKey {
            direction,
            peer,
            transport,
            port,
        };
        if flows.len() >= MAX_FLOWS && !flows.contains_key(&key) {
            key.peer = PeerName::Other;
            key.port = 0;
        }
        flows.entry(key).or_default().clone()
    }

    /// Every flow, in a stable order.
    pub(super) fn told(&self) -> Vec<node_info::Flow> {
        let flows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = flows.iter().collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter().map(|(key, flow)| told(key, flow)).collect()
    }
}

/// A flow as it is told.
fn told(key: &FlowKey, flow: &Flow) -> node_info::Flow {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let direction = match key.direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    };
    node_info::Flow {
        direction: direction.to_owned(),
        peer: told_peer(&key.peer),
        protocol: key.transport.as_str().to_owned(),
        port: key.port,
        connections: count(&flow.connections),
        denied: count(&flow.denied),
        bytes_sent: count(&flow.sent),
        bytes_received: count(&flow.received),
    }
}

fn told_peer(peer: &PeerName) -> FlowPeer {
    let (kind, named, address) = match peer {
        PeerName::Pod { namespace, name } => ("Pod", Some((namespace, name)), None),
        PeerName::Service { namespace, name } => ("Service", Some((namespace, name)), None),
        PeerName::Address(address) => ("Pod", None, Some(*address)),
        PeerName::Outside(address) => ("Outside", None, Some(*address)),
        PeerName::Node => ("Node", None, None),
        PeerName::Other => ("Other", None, None),
    };
    let (namespace, name) = named
        .map(|(namespace, name)| (namespace.clone(), name.clone()))
        .unzip();
    FlowPeer {
        kind: kind.to_owned(),
        namespace,
        name,
        address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_knocks_everywhere_costs_a_bounded_amount() {
        let flows = Flows::default();
        for n in 0..10_000_u32 {
            let peer = PeerName::Outside(std::net::Ipv4Addr::from(n).into());
            flows
                .with(Direction::Egress, peer, Transport::Tcp, 80)
                .count_denied();
        }
        let records = flows.told();
        assert_eq!(records.len(), MAX_FLOWS + 1);
        assert_eq!(records.iter().map(|flow| flow.denied).sum::<u64>(), 10_000);
        let other = records.iter().find(|flow| flow.peer.kind == "Other");
        assert_eq!(other.unwrap().denied, 10_000 - MAX_FLOWS as u64);
    }
}
