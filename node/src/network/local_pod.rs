//! A pod of this node: its ports, who it is, and what went in and out of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;

use super::flows::Flows;
use super::pod::Pod;
use super::policy::PodIdentity;
use super::switch::PodPorts;

/// A pod of this node.
pub(super) struct LocalPod {
    /// `metadata.uid`.
    pub(super) uid: String,
    pub(super) ports: Arc<PodPorts>,
    pub(super) identity: ArcSwap<PodIdentity>,
    pub(super) flows: Flows,
    /// The network as the pod sees it.
    network: OnceLock<Weak<Pod>>,
}

impl LocalPod {
    pub(super) fn new(address: Ipv4Addr, uid: String, identity: PodIdentity) -> Self {
        Self {
            uid,
            ports: Arc::new(PodPorts::new(address)),
            identity: ArcSwap::from_pointee(identity),
            flows: Flows::default(),
            network: OnceLock::new(),
        }
    }

    /// Says once what the pod sees of the network.
    pub(super) fn sees(&self, network: &Arc<Pod>) {
        // A second one would be another pod.
        let _first = self.network.set(Arc::downgrade(network));
    }

    /// The network as the pod sees it, while it has one.
    pub(super) fn network(&self) -> Option<Arc<Pod>> {
        self.network.get()?.upgrade()
    }

    pub(super) fn ip(&self) -> IpAddr {
        self.ports.address().into()
    }
}
