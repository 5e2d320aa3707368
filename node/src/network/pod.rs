//! The network as one pod sees it.
//!
//! [`PodNetwork`] is what a runtime puts behind a container's `wasi:sockets` and `wasi:http`. All
//! containers of a pod share it: the same address, the same loopback, the same ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use windlass_api::grants::Egress;
use windlass_wasi_shims::net::{NetError, NetFuture, Stream, TcpBinding, UdpPort, VirtualNetwork};

use super::connect::Caller;
use super::dns::{self, Answer, PodNames};
use super::local_pod::LocalPod;
use super::policy::{Direction, Isolation, KnownNames, Peer, PodIdentity, Traffic};
use super::switch::Transport;
use super::udp::PodUdpPort;
use super::{Core, PodNetworkRequest};

/// The network of one pod. Cheap to clone; when the last clone goes, so does the pod's address.
#[derive(Clone)]
pub struct PodNetwork(pub(super) Arc<Pod>);

pub(super) struct Pod {
    pub(super) core: Arc<Core>,
    pub(super) local: Arc<LocalPod>,
    names: PodNames,
    /// Where the pod may connect to.
    pub(super) granted: Egress,
    /// The addresses it was told for names outside of the cluster.
    pub(super) known: KnownNames,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.local.ports.close();
        self.core.release(&self.local);
    }
}

impl PodNetwork {
    pub(super) fn new(core: Arc<Core>, local: Arc<LocalPod>, request: &PodNetworkRequest) -> Self {
        let names = PodNames::new(request, &core.config.cluster_domain, local.ports.address());
        Self(Arc::new(Pod {
            core,
            local,
            names,
            granted: request.egress,
            known: KnownNames::default(),
        }))
    }

    /// The pod's address.
    pub fn ip(&self) -> IpAddr {
        self.0.local.ip()
    }

    /// The pod has other labels now: policies go by them from its next connection on.
    pub fn set_labels(&self, labels: &BTreeMap<String, String>) {
        let identity = self.0.local.identity.load();
        if identity.labels != *labels {
            let mut changed = PodIdentity::clone(&identity);
            changed.labels.clone_from(labels);
            self.0.local.identity.store(Arc::new(changed));
        }
    }

    /// Closes every port of the pod and frees its address, even while clones of this value live.
    pub fn tear_down(&self) {
        self.0.local.ports.close();
        self.0.core.release(&self.0.local);
    }
}

impl std::fmt::Debug for PodNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PodNetwork({})", self.ip())
    }
}

impl VirtualNetwork for PodNetwork {
    fn bind_tcp(&self, local: SocketAddr) -> Result<Box<dyn TcpBinding>, NetError> {
        Ok(Box::new(self.0.local.ports.bind(Transport::Tcp, local)?))
    }

    fn bind_udp(&self, local: SocketAddr) -> Result<Arc<dyn UdpPort>, NetError> {
        let lease = self.0.local.ports.bind(Transport::Udp, local)?;
        Ok(Arc::new(PodUdpPort::open(self.0.clone(), lease)?))
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
            let ports = &self.local.ports;
            return ports.connect(from, to, to, Default::default()).await;
        }
        let from = self.source(from, self.local.ip())?;
        if self.granted == Egress::None && to.ip() != self.local.ip() {
            return Err(NetError::AccessDenied);
        }
        self.core.connect(from, to, Caller::Pod(self)).await
    }

    /// The client's address: what the socket was bound to, or an ephemeral port of `ip`.
    fn source(&self, bound: Option<SocketAddr>, ip: IpAddr) -> Result<SocketAddr, NetError> {
        match bound {
            Some(bound) if bound.ip().is_unspecified() => Ok(SocketAddr::new(ip, bound.port())),
            Some(bound) => Ok(bound),
            None => self.local.ports.ephemeral(Transport::Tcp, ip),
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
                Answer::Outside => return self.resolve_outside(name).await,
            }
        }
        Err(NetError::NameUnresolvable)
    }

    async fn resolve_outside(&self, name: String) -> Result<Vec<IpAddr>, NetError> {
        self.core.policies.known().await?;
        if !self.may_look_up(&name) {
            return Err(NetError::AccessDenied);
        }
        let addresses = self.core.egress.resolve(name.clone()).await?;
        self.known.remember(&name, &addresses);
        Ok(addresses)
    }

    /// Whether the pod's policies let it ask for a name outside of the cluster: those that open the cluster's
    /// DNS to it, the name itself, or the world.
    pub(super) fn may_look_up(&self, name: &str) -> bool {
        let subject = self.local.identity.load();
        let policies = &self.core.policies;
        if policies.isolation(&subject, Direction::Egress) == Isolation::None {
            return true;
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let server = dns_server();
        let peers = [
            (Some(&server), Transport::Udp),
            (Some(&server), Transport::Tcp),
            (None, Transport::Udp),
        ];
        peers.into_iter().any(|(pod, transport)| {
            policies.allows(&Traffic {
                subject: &subject,
                direction: Direction::Egress,
                peer: Peer {
                    ip: Ipv4Addr::UNSPECIFIED.into(),
                    pod,
                    known_as: &|pattern| pattern.matches(&name),
                },
                transport,
                port: DNS,
            })
        })
    }
}

/// The port of DNS servers.
const DNS: u16 = 53;

/// What policies are told of the cluster's DNS, which here is no pod: as the labels of upstream's are.
fn dns_server() -> PodIdentity {
    PodIdentity {
        namespace: "kube-system".to_owned(),
        name: "kube-dns".to_owned(),
        labels: BTreeMap::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
        ports: Vec::new(),
    }
}

/// How many ExternalName Services are followed for one name.
const MAX_CNAMES: usize = 8;
