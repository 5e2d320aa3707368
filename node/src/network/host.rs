//! The node agent's own way to its pods: probes, port-forward, NodePorts and tunnels from other
//! agents.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use windlass_api::node_info::{Flow, PodInfo};
use windlass_wasi_shims::net::{NetError, Stream};

use super::Core;
use super::connect::{Attempt, Caller};
use super::counts::Requests;
use super::follow::ObjectKey;
use super::ingress::PortRef;
use super::outside::Purpose;
use super::policy::PodIdentity;
use super::service_table::{Origin, ServicePort};
use super::switch::Transport;
use super::tunnel::{Call, TunnelCounts};

/// The network as the node itself sees it. Cheap to clone.
#[derive(Clone)]
pub struct HostNetwork(Arc<Core>);

/// What is behind a port of a Service.
pub(super) struct BackendPort {
    pub(super) endpoints: Vec<SocketAddr>,
    /// Whether it is spoken to in HTTP/2 from the first byte on.
    pub(super) speaks_h2: bool,
}

impl HostNetwork {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// Connects to a pod's or a Service's address. Everything else is refused: the agent has a
    /// kernel for that.
    ///
    /// # Errors
    /// [`NetError`] as a client in a pod would see it.
    pub async fn connect(&self, to: SocketAddr) -> Result<Stream, NetError> {
        let core = &self.0;
        if !core.is_pod_address(to.ip()) && !core.services.load().is_service_address(to.ip()) {
            return Err(NetError::RemoteUnreachable);
        }
        let from = SocketAddr::new(core.host_address(), 0);
        core.connect(from, to, Caller::Node).await
    }

    /// Connects to a pod of this node and nowhere else: the receiving end of a tunnel.
    ///
    /// # Errors
    /// [`NetError::RemoteUnreachable`] if the address is not of a pod here, [`NetError`] as a client
    /// in a pod would see it otherwise.
    pub async fn connect_local(&self, call: &Call) -> Result<Stream, NetError> {
        self.0.connect_local(call).await
    }

    /// Which pod of this node has the address.
    pub(crate) fn describe(&self, pod: IpAddr) -> Option<Arc<PodIdentity>> {
        Some(self.0.pod(pod)?.identity.load_full())
    }

    /// What went between the pods of this node and their peers.
    pub(crate) fn flows(&self) -> Vec<PodInfo<Flow>> {
        let pods = self.0.pods.read().unwrap_or_else(PoisonError::into_inner);
        let pods: Vec<_> = pods.values().cloned().collect();
        let told = pods.iter().map(|pod| PodInfo {
            uid: pod.uid.clone(),
            items: pod.flows.told(),
        });
        told.filter(|pod| !pod.items.is_empty()).collect()
    }

    /// Questions that were answered: type, code and how many.
    pub(crate) fn dns_answers(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.0.dns_counts.told()
    }

    /// Requests to Ingresses that were answered.
    pub(crate) fn ingress_requests(&self) -> Requests {
        self.0.ingress_counts.told()
    }

    /// How calls to and from other nodes ended.
    pub(crate) fn tunnel_counts(&self) -> &Arc<TunnelCounts> {
        &self.0.tunnel_counts
    }

    /// A request to an Ingress was answered; the Service is the one that its rule names.
    pub(super) fn count_request(&self, service: Option<&ObjectKey>, status: u16, took: Duration) {
        self.0.ingress_counts.count(service, status, took);
    }

    /// Whether the address is a pod's, here or elsewhere.
    pub(crate) fn is_pod_address(&self, ip: IpAddr) -> bool {
        self.0.is_pod_address(ip)
    }

    /// Connects to a port of a pod of this node as a process inside of it would: by loopback, where
    /// what is not meant for others listens, and else by the pod's own address.
    ///
    /// # Errors
    /// [`NetError::RemoteUnreachable`] if the address is not of a pod here, [`NetError`] as a client
    /// in the pod would see it otherwise.
    pub async fn connect_inside(&self, pod: IpAddr, port: u16) -> Result<Stream, NetError> {
        let local = self.0.pod(pod).ok_or(NetError::RemoteUnreachable)?;
        let ports = &local.ports;
        let mut failure = NetError::ConnectionRefused;
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), pod] {
            let (from, to) = (
                ports.ephemeral(Transport::Tcp, ip)?,
                SocketAddr::new(ip, port),
            );
            match ports.connect(from, to, to, Default::default()).await {
                Err(error @ NetError::ConnectionRefused) => failure = error,
                result => return result,
            }
        }
        Err(failure)
    }

    /// Whether the address is of this node's pod CIDR.
    pub(crate) fn is_of_this_node(&self, ip: IpAddr) -> bool {
        self.0.is_of_this_node(ip)
    }

    /// The name of the node whose pod CIDR has the address, once there is one. Cancel-safe.
    pub(crate) async fn node_of(&self, ip: IpAddr) -> String {
        self.0.nodes.owner_once_known(ip).await.name.clone()
    }

    /// What pods see of a client that came by a port of this node: its own address, but the node's if it is the
    /// node. To a guest, loopback is its own pod.
    pub(super) fn seen_as(&self, client: SocketAddr) -> SocketAddr {
        if client.ip().to_canonical().is_loopback() {
            SocketAddr::new(self.0.host_address(), client.port())
        } else {
            client
        }
    }

    /// The Service port that a listener of this node is for.
    pub(super) fn service_behind(
        &self,
        transport: Transport,
        purpose: Purpose,
    ) -> Option<Arc<ServicePort>> {
        let table = self.0.services.load();
        match purpose {
            Purpose::NodePort(port) => table.by_node_port(transport, port),
            Purpose::External(at) => table.by_external(transport, at),
            Purpose::HealthCheck(_) => None,
        }
    }

    /// Connects to an endpoint of a Service on behalf of a client outside the cluster.
    pub(super) async fn connect_service(
        &self,
        service: &ServicePort,
        client: SocketAddr,
    ) -> Result<Stream, NetError> {
        self.0.policies.known().await?;
        let seen = self.seen_as(client);
        let caller = if seen == client {
            Caller::Outside
        } else {
            Caller::Node
        };
        let mut failure = NetError::ConnectionRefused;
        for endpoint in service.candidates(client.ip(), Origin::Outside) {
            let attempt = Attempt {
                from: seen,
                to: endpoint,
                seen_as: endpoint,
                service: Some(&service.service),
            };
            match self.0.connect_endpoint(attempt, caller).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    service.forget(client.ip(), endpoint);
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    /// The endpoints of a Service's port, in the order in which to try them for a client; none if there is no such
    /// port.
    pub(super) fn backend(
        &self,
        service: &ObjectKey,
        port: &PortRef,
        client: IpAddr,
    ) -> Option<BackendPort> {
        let table = self.0.services.load();
        let port = table
            .by_name(service)?
            .tcp_port(|name, number| match port {
                PortRef::Name(wanted) => wanted == name,
                PortRef::Number(wanted) => *wanted == number,
            })?;
        Some(BackendPort {
            endpoints: port.candidates(client, Origin::Inside).collect(),
            speaks_h2: port.speaks_h2,
        })
    }

    /// Connects to an endpoint of a Service for a client of an Ingress.
    ///
    /// # Errors
    /// [`NetError`] as a client in a pod would see it.
    pub(super) async fn connect_for_ingress(&self, to: SocketAddr) -> Result<Stream, NetError> {
        self.0.policies.known().await?;
        let attempt = Attempt {
            from: SocketAddr::new(self.0.host_address(), 0),
            to,
            seen_as: to,
            service: None,
        };
        self.0.connect_endpoint(attempt, Caller::Ingress).await
    }

    pub(super) fn core(&self) -> &Core {
        &self.0
    }
}
