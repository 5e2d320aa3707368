//! The network as one pod sees it.
//!
//! [`PodNetwork`] is what a runtime puts behind a container's `wasi:sockets` and `wasi:http`. All
//! containers of a pod share it: the same address, the same loopback, the same ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use windlass_api::grants::Egress;
use windlass_wasi_shims::net::{NetError, NetFuture, Stream, TcpBinding, UdpPort, VirtualNetwork};

use tokio::sync::Semaphore;

use super::connect::Caller;
use super::dns::{self, Dns, PodNames, Whose};
use super::local_pod::LocalPod;
use super::policy::{Direction, Isolation, KnownNames, Peer, PodIdentity, Traffic};
use super::switch::Transport;
use super::udp::PodUdpPort;
use super::{Core, PodNetworkRequest};
#[cfg(feature = "containerd")]
use super::{dns::PodResolvConf, follow::ObjectKey, service_table::DNS_SERVICE};

/// The network of one pod. Cheap to clone; when the last clone goes, so does the pod's address.
#[derive(Clone)]
pub struct PodNetwork(pub(super) Arc<Pod>);

pub(super) struct Pod {
    pub(super) core: Arc<Core>,
    pub(super) local: Arc<LocalPod>,
    pub(super) names: PodNames,
    /// Room for questions about names outside.
    pub(super) lookups: Arc<Semaphore>,
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
        let whose = Whose {
            namespace: &request.namespace,
            hostname: &request.hostname,
            address: local.ports.address(),
        };
        let names = core.dns.names(&whose, &request.dns);
        let pod = Arc::new(Pod {
            core,
            local,
            names,
            lookups: Dns::waiting_of_pod(),
            granted: request.egress,
            known: KnownNames::default(),
        });
        pod.local.sees(&pod);
        Self(pod)
    }

    /// The pod's address.
    pub fn ip(&self) -> IpAddr {
        self.0.local.ip()
    }

    /// What the pod's `resolv.conf` says; `None` if that is the host's.
    #[cfg(feature = "containerd")]
    pub(crate) fn resolv_conf(&self) -> Option<PodResolvConf> {
        let (namespace, name) = DNS_SERVICE;
        let service = ObjectKey::new(namespace, name);
        let services = self.0.core.services.load();
        let cluster = services.address(&service).map(|found| found.address);
        self.0.core.dns.resolv_conf(&self.0.names, cluster)
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
        Ok(Arc::new(self.0.bind_udp(local)?))
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
    /// Opens a UDP port of the pod.
    pub(super) fn bind_udp(self: &Arc<Self>, local: SocketAddr) -> Result<PodUdpPort, NetError> {
        let lease = self.local.ports.bind(Transport::Udp, local)?;
        PodUdpPort::open(self.clone(), lease)
    }

    /// A UDP port of the host's choice.
    pub(super) fn open_udp(self: &Arc<Self>) -> Result<PodUdpPort, NetError> {
        self.bind_udp(SocketAddr::new(self.local.ip(), 0))
    }

    pub(super) async fn connect(
        self: &Arc<Self>,
        from: Option<SocketAddr>,
        to: SocketAddr,
    ) -> Result<Stream, NetError> {
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

    /// Whether the pod may ask for a name outside of the cluster: if it may go anywhere, and its policies open the
    /// cluster's DNS to it, the name itself, or the world.
    pub(super) fn may_look_up(&self, name: &str) -> bool {
        // A name can carry a message to whoever answers for it.
        if self.granted != Egress::All {
            return false;
        }
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
                port: dns::PORT,
            })
        })
    }
}

/// What policies are told of the cluster's DNS, which here is no pod: as the labels of upstream's are.
fn dns_server() -> PodIdentity {
    PodIdentity {
        namespace: "kube-system".to_owned(),
        name: "kube-dns".to_owned(),
        labels: BTreeMap::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
        ports: Vec::new(),
    }
}
