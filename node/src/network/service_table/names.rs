//! The endpoints of a Service that have names of their own: those of headless Services, and those that say a host
//! name. Pure.
//!
//! Spec: DNS-based service discovery of Kubernetes 1.1.0, 2.4: an endpoint's name is its host name, or one made
//! for it, here of its address.

use std::net::IpAddr;
use std::sync::Arc;

use super::{ServiceFacts, SliceFacts};
use crate::network::switch::Transport;

/// Name, transport and number of each port of a slice.
type Ports = Arc<[(String, Transport, u16)]>;

/// An endpoint with a name below its Service's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::network) struct NamedEndpoint {
    pub(in crate::network) host: String,
    pub(in crate::network) address: IpAddr,
    ports: Ports,
}

impl NamedEndpoint {
    /// The number of the port that has this name.
    pub(in crate::network) fn port(&self, name: &str, transport: Transport) -> Option<u16> {
        let mut ports = self.ports.iter();
        let found = ports.find(|(of, over, _)| of == name && *over == transport);
        found.map(|(.., number)| *number)
    }

    /// The ports, by name and transport.
    pub(in crate::network) fn ports(&self) -> impl Iterator<Item = (&str, Transport)> {
        self.ports
            .iter()
            .map(|(name, over, _)| (name.as_str(), *over))
    }
}

/// The label made of an address: `10-1-2-3`.
pub(in crate::network) fn label_of(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The ready endpoints that have a name, by name.
pub(super) fn named(service: &ServiceFacts, slices: &[&SliceFacts]) -> Vec<NamedEndpoint> {
    let mut all = Vec::new();
    for slice in slices {
        let mut ports: Option<Ports> = None;
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            let given = endpoint.hostname.as_ref().map(|it| it.to_ascii_lowercase());
            let made = || service.is_headless().then(|| label_of(endpoint.address));
            if let Some(host) = given.or_else(made) {
                let ports = ports.get_or_insert_with(|| slice.ports.as_slice().into());
                all.push(NamedEndpoint {
                    host,
                    address: endpoint.address,
                    ports: ports.clone(),
                });
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}
