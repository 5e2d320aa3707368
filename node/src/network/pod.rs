//! The network as one pod sees it.
//!
//! [`PodNetwork`] is what a runtime puts behind a container's `wasi:sockets` and `wasi:http`. All
//! containers of a pod share it: the same address, the same loopback, the same ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use windlass_api::grants::Egress;
use windlass_wasi_shims::net::{NetError, NetFuture, Stream, TcpBinding, UdpPort, VirtualNetwork};

use super::dns::{self, Answer, PodNames};
use super::switch::{PodPorts, Transport};
use super::udp::PodUdpPort;
use super::{Core, PodNetworkRequest};

/// The network of one pod. Cheap to clone; when the last clone goes, so does the pod's address.
#[derive(Clone)]
pub struct PodNetwork(Arc<Pod>);

struct Pod {
    core: Arc<Core>,
    ports: Arc<PodPorts>,
    names: PodNames,
    /// Where the pod may connect to.
    granted: Egress,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.ports.close();
        self.core.release(&self.ports);
    }
}

impl PodNetwork {
    pub(super) fn new(core: Arc<Core>, ports: Arc<PodPorts>, request: &PodNetworkRequest) -> Self {
        let names = PodNames::new(request, &core.config.cluster_domain, ports.address());
        Self(Arc::new(Pod {
            core,
            ports,
            names,
            granted: request.egress,
        }))
    }

    /// The pod's address.
    pub fn ip(&self) -> IpAddr {
        self.0.ports.address().into()
    }

    /// Closes every port of the pod and frees its address, even while clones of this value live.
    pub fn tear_down(&self) {
        self.0.ports.close();
        self.0.core.release(&self.0.ports);
    }
}

impl std::fmt::Debug for PodNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PodNetwork({})", self.ip())
    }
}

impl VirtualNetwork for PodNetwork {
    fn bind_tcp(&self, local: SocketAddr) -> Result<Box<dyn TcpBinding>, NetError> {
        Ok(Box::new(self.0.ports.bind(Transport::Tcp, local)?))
    }

    fn bind_udp(&self, local: SocketAddr) -> Result<Arc<dyn UdpPort>, NetError> {
        let lease = self.0.ports.bind(Transport::Udp, local)?;
        Ok(Arc::new(PodUdpPort::open(
            self.0.core.clone(),
            self.0.ports.clone(),
            lease,
            self.0.granted,
        )?))
    }

    fn connect(&self, from: Option<SocketAddr>, remote: SocketAddr) -> NetFuture<Stream> {
        let pod = self.clone();
        Box::pin(async move { pod.0.connect(from, remote).await })
    }

    fn resolve(&self, name: &str) -> NetFuture<Vec<IpAddr>> {
        let pod = self.clone();
        let name = name.to_owned();
        Box::pin(async move { pod.0.resolve(&name).await })
    }
}

impl Pod {
    async fn connect(&self, from: Option<SocketAddr>, to: SocketAddr) -> Result<Stream, NetError> {
        if to.ip().is_loopback() {
            let from = self.source(from, to.ip())?;
            return self.ports.connect(from, to, to).await;
        }
        let from = self.source(from, self.ports.address().into())?;
        if self.granted == Egress::None && to.ip() != self.ports.address() {
            return Err(NetError::AccessDenied);
        }
        self.core.connect(from, to, self.granted).await
    }

    /// The client's address: what the socket was bound to, or an ephemeral port of `ip`.
    fn source(&self, bound: Option<SocketAddr>, ip: IpAddr) -> Result<SocketAddr, NetError> {
        match bound {
            Some(bound) if bound.ip().is_unspecified() => Ok(SocketAddr::new(ip, bound.port())),
            Some(bound) => Ok(bound),
            None => self.ports.ephemeral(Transport::Tcp, ip),
        }
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let mut name = name.to_owned();
        // A CNAME may lead to another; a loop of them must end.
        for _ in 0..MAX_CNAMES {
            match dns::resolve(&self.core.services.load(), &self.names, &name) {
                Answer::Addresses(addresses) => return Ok(addresses),
                Answer::NotFound => return Err(NetError::NameUnresolvable),
                Answer::CanonicalName(next) => name = next,
                // A name can carry a message to whoever answers for it.
                Answer::Outside if self.granted != Egress::All => {
                    return Err(NetError::NameUnresolvable);
                }
                Answer::Outside => return self.core.egress.resolve(name).await,
            }
        }
        Err(NetError::NameUnresolvable)
    }
}

/// How many ExternalName Services are followed for one name.
const MAX_CNAMES: usize = 8;

impl Core {
    /// Connects to any address but loopback: a Service, a pod, or the world outside if that is `granted`.
    pub(super) async fn connect(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        granted: Egress,
    ) -> Result<Stream, NetError> {
        let table = self.services.load();
        let Some(service) = table.by_address(Transport::Tcp, to) else {
            if table.is_service_address(to.ip()) {
                return Err(NetError::ConnectionRefused);
            }
            return self.connect_endpoint(from, to, to, granted).await;
        };
        if let Some(api_server) = self.config.api_server.filter(|_| service.is_api_server()) {
            return self.egress.connect_trusted(from, api_server, to).await;
        }
        // Most pods' first choice answers; the others are for endpoints that went away just now.
        let mut failure = NetError::ConnectionRefused;
        for endpoint in service.candidates(from.ip()) {
            match self.connect_endpoint(from, endpoint, to, granted).await {
                Err(error @ (NetError::ConnectionRefused | NetError::RemoteUnreachable)) => {
                    service.forget(from.ip(), endpoint);
                    failure = error;
                }
                result => return result,
            }
        }
        Err(failure)
    }

    /// Connects to an address that is not a Service's. An endpoint of a Service may well be outside.
    pub(super) async fn connect_endpoint(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        seen_as: SocketAddr,
        granted: Egress,
    ) -> Result<Stream, NetError> {
        if let Some(ports) = self.pod(to.ip()) {
            return ports.connect(from, to, seen_as).await;
        }
        if self.is_pod_address(to.ip()) {
            return match self.tunnel.load_full() {
                Some(tunnel) if !self.is_of_this_node(to.ip()) => {
                    self.egress.connect_tunnel(&tunnel, from, to, seen_as).await
                }
                _ => Err(NetError::RemoteUnreachable),
            };
        }
        if granted != Egress::All {
            return Err(NetError::AccessDenied);
        }
        self.egress.connect(from, to, seen_as).await
    }

    /// The address by which the node itself shows up at its pods.
    pub(super) fn host_address(&self) -> IpAddr {
        self.pod_cidr
            .borrow()
            .map_or(Ipv4Addr::UNSPECIFIED, |cidr| cidr.gateway())
            .into()
    }
}
