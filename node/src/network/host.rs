//! The node agent's own way to its pods: probes, port-forward, NodePorts and tunnels from other
//! agents.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use windlass_api::grants::Egress;
use windlass_wasi_shims::net::{NetError, Stream};

use super::Core;
use super::service_table::ServicePort;
use super::switch::Transport;

/// The network as the node itself sees it. Cheap to clone.
#[derive(Clone)]
pub struct HostNetwork(Arc<Core>);

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
        core.connect(from, to, Egress::All).await
    }

    /// Connects to a pod of this node and nowhere else: the receiving end of a tunnel.
    ///
    /// # Errors
    /// [`NetError::RemoteUnreachable`] if the address is not of a pod here, [`NetError`] as a client
    /// in a pod would see it otherwise.
    pub async fn connect_local(
        &self,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Stream, NetError> {
        let ports = self.0.pod(to.ip()).ok_or(NetError::RemoteUnreachable)?;
        ports.connect(from, to, to).await
    }

    /// Connects to a port of a pod of this node as a process inside of it would: by loopback, where
    /// what is not meant for others listens, and else by the pod's own address.
    ///
    /// # Errors
    /// [`NetError::RemoteUnreachable`] if the address is not of a pod here, [`NetError`] as a client
    /// in the pod would see it otherwise.
    pub async fn connect_inside(&self, pod: IpAddr, port: u16) -> Result<Stream, NetError> {
        let ports = self.0.pod(pod).ok_or(NetError::RemoteUnreachable)?;
        let mut failure = NetError::ConnectionRefused;
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), pod] {
            let (from, to) = (
                ports.ephemeral(Transport::Tcp, ip)?,
                SocketAddr::new(ip, port),
            );
            match ports.connect(from, to, to).await {
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

    /// Connects to an endpoint of a Service on behalf of a client outside the cluster.
    pub(super) async fn connect_service(
        &self,
        service: &ServicePort,
        client: IpAddr,
    ) -> Result<Stream, NetError> {
        let from = SocketAddr::new(self.0.host_address(), 0);
        let mut failure = NetError::ConnectionRefused;
        for endpoint in service.candidates(client) {
            let connected = self
                .0
                .connect_endpoint(from, endpoint, endpoint, Egress::All);
            match connected.await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    service.forget(client, endpoint);
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    pub(super) fn core(&self) -> &Core {
        &self.0
    }
}
