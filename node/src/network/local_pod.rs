//! A pod of this node: its ports, who it is, and what went in and out of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::flows::Flows;
use super::policy::PodIdentity;
use super::switch::PodPorts;

/// A pod of this node.
pub(super) struct LocalPod {
    /// `metadata.uid`.
    pub(super) uid: String,
    pub(super) ports: Arc<PodPorts>,
    pub(super) identity: ArcSwap<PodIdentity>,
    pub(super) flows: Flows,
}

impl LocalPod {
    pub(super) fn new(address: Ipv4Addr, uid: String, identity: PodIdentity) -> Self {
        Self {
            uid,
            ports: Arc::new(PodPorts::new(address)),
            identity: ArcSwap::from_pointee(identity),
            flows: Flows::default(),
        }
    }

    pub(super) fn ip(&self) -> IpAddr {
        self.ports.address().into()
    }
}
