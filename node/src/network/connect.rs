//! How a connection comes about: where it leads, whether it may be, who carries it.
//!
//! 1. A Service's address becomes an endpoint's ([`Core::connect`]).
//! 2. The policies of the pod that asks are checked on the endpoint's address, those of the pod that is asked
//!    on the asking one's; for a pod of another node its own agent checks them ([`Core::connect_local`]).
//! 3. The connection is a pipe between two pods of this node, a stream of the tunnel, or a kernel socket.
//! 4. Both pods' flows count it, denied ones too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use windlass_api::grants::Egress;
use windlass_wasi_shims::net::{Meters, NetError, Stream};

use super::Core;
use super::dns::{self, Asker};
use super::egress::Ends;
use super::flows::{Flow, PeerName};
use super::follow::ObjectKey;
use super::local_pod::LocalPod;
use super::pod::Pod;
use super::policy::{Direction, Isolation, Peer, PodIdentity, Traffic};
use super::service_table::Origin;
use super::switch::Transport;
use super::tunnel::Call;

/// Who wants a connection.
#[derive(Clone, Copy)]
pub(super) enum Caller<'a> {
    /// A pod of this node.
    Pod(&'a Arc<Pod>),
    /// The agent itself, for its own pods: not subject to policies.
    Node,
    /// Somebody outside of the cluster, by a port of this node.
    Outside,
    /// The server of Ingresses, to policies a pod of that name and those labels.
    Ingress,
}

/// Who the server of Ingresses is to policies.
fn ingress_server() -> PodIdentity {
    let label = ("app.kubernetes.io/name", "windlass-ingress");
    PodIdentity {
        namespace: "kube-system".to_owned(),
        name: "windlass-ingress".to_owned(),
        labels: BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]),
        ports: Vec::new(),
    }
}

impl Caller<'_> {
    fn egress(&self) -> Egress {
        match self {
            Self::Pod(pod) => pod.granted,
            Self::Node | Self::Outside | Self::Ingress => Egress::All,
        }
    }

    fn identity(&self) -> Option<Arc<PodIdentity>> {
        match self {
            Self::Pod(pod) => Some(pod.local.identity.load_full()),
            Self::Ingress => Some(Arc::new(ingress_server())),
            Self::Node | Self::Outside => None,
        }
    }
}

/// Who carries a connection that a pod's kernel opens.
pub(super) enum Carried {
    /// The kernel, from end to end.
    ByKernel,
    /// The agent, by this connection of its own.
    ByAgent(Stream),
}

/// A connection to be made.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// The address that was dialled.
    pub(super) seen_as: SocketAddr,
    /// The Service whose address that is.
    pub(super) service: Option<&'a ObjectKey>,
}

impl Attempt<'_> {
    fn ends(&self, passage: &Passage) -> Ends {
        Ends {
            from: self.from,
            seen_as: self.seen_as,
            meters: passage.meters(),
        }
    }
}

/// The flows that a connection is counted by.
#[derive(Default)]
pub(super) struct Passage {
    egress: Option<Arc<Flow>>,
    ingress: Option<Arc<Flow>>,
}

impl Passage {
    /// What counts the caller's bytes, and those it gets.
    fn meters(&self) -> [Meters; 2] {
        let mut meters = [Meters::new(), Meters::new()];
        let [from_caller, to_caller] = &mut meters;
        if let Some(flow) = &self.egress {
            from_caller.push(flow.sent.clone());
            to_caller.push(flow.received.clone());
        }
        if let Some(flow) = &self.ingress {
            from_caller.push(flow.received.clone());
            to_caller.push(flow.sent.clone());
        }
        meters
    }

    fn opened(&self) {
        for flow in self.egress.iter().chain(&self.ingress) {
            flow.count_connection();
        }
    }
}

/// No name was looked up for a pod's address.
fn nameless(_: &super::policy::NamePattern) -> bool {
    false
}

impl Core {
    /// Connects to any address but loopback: a Service, a pod, or the world outside if that is granted.
    pub(super) async fn connect(
        self: &Arc<Self>,
        from: SocketAddr,
        to: SocketAddr,
        caller: Caller<'_>,
    ) -> Result<Stream, NetError> {
        self.policies.known().await?;
        let table = self.services.load();
        let Some(service) = table.by_address(Transport::Tcp, to) else {
            if table.is_service_address(to.ip()) {
                return Err(NetError::ConnectionRefused);
            }
            let attempt = Attempt {
                from,
                to,
                seen_as: to,
                service: None,
            };
            return self.connect_endpoint(attempt, caller).await;
        };
        let attempt = |endpoint| Attempt {
            from,
            to: endpoint,
            seen_as: to,
            service: Some(&service.service),
        };
        if service.is_dns() {
            return self.connect_dns(attempt(to), caller);
        }
        if let Some(api_server) = self.config.api_server.filter(|_| service.is_api_server()) {
            return self.connect_trusted(attempt(api_server), caller).await;
        }
        // Most pods' first choice answers; the others are for endpoints that went away just now.
        let mut failure = NetError::ConnectionRefused;
        for endpoint in service.candidates(from.ip(), Origin::Inside) {
            match self.connect_endpoint(attempt(endpoint), caller).await {
                Err(error @ (NetError::ConnectionRefused | NetError::RemoteUnreachable)) => {
                    service.forget(from.ip(), endpoint);
                    failure = error;
                }
                result => return result,
            }
        }
        Err(failure)
    }

    /// Decides about a connection that a Linux container opens, or a program of this machine: as [`Self::connect`], but
    /// what two kernels can do among themselves is left to them.
    pub(super) async fn connect_for_kernel(
        self: &Arc<Self>,
        from: SocketAddr,
        to: SocketAddr,
        caller: Caller<'_>,
    ) -> Result<Carried, NetError> {
        if caller.egress() == Egress::None {
            return Err(NetError::AccessDenied);
        }
        self.policies.known().await?;
        let attempt = Attempt {
            from,
            to,
            seen_as: to,
            service: None,
        };
        let is_pod = matches!(caller, Caller::Pod(_));
        if is_pod && !self.services.load().is_service_address(to.ip()) {
            let passage = if let Some(pod) = self.pod(to.ip()) {
                let by_kernel = pod.ports.leads_to_kernel(to);
                by_kernel.then(|| self.passage_here(&attempt, caller, &pod))
            } else if self.is_pod_address(to.ip()) {
                None
            } else {
                Some(self.passage_out(&attempt, caller))
            };
            if let Some(passage) = passage {
                passage?.opened();
                return Ok(Carried::ByKernel);
            }
        }
        self.connect(from, to, caller).await.map(Carried::ByAgent)
    }

    /// Whether a pod may connect to the world outside.
    fn passage_out(&self, attempt: &Attempt<'_>, caller: Caller<'_>) -> Result<Passage, NetError> {
        if caller.egress() != Egress::All {
            return Err(NetError::AccessDenied);
        }
        self.egress.check(attempt.to.ip())?;
        Ok(Passage {
            egress: self.check_egress(attempt, caller, None)?,
            ingress: None,
        })
    }

    /// Connects to this node's own DNS, whatever policies say: those are asked about names outside.
    fn connect_dns(
        self: &Arc<Self>,
        attempt: Attempt<'_>,
        caller: Caller<'_>,
    ) -> Result<Stream, NetError> {
        let asker = match caller {
            Caller::Pod(pod) => Asker::Pod(pod.clone()),
            Caller::Node => Asker::Machine,
            Caller::Outside | Caller::Ingress => Asker::Stranger,
        };
        let permit = asker.permit(self).ok_or(NetError::ConnectionRefused)?;
        let passage = Passage {
            egress: self.flow_out(&attempt, caller, None),
            ingress: None,
        };
        let Attempt {
            from, to, seen_as, ..
        } = attempt;
        let (near, far) = Stream::metered_pair(from, seen_as, to, passage.meters());
        passage.opened();
        let core = self.clone();
        self.egress.system().spawn(async move {
            dns::serve_stream(&core, &asker, far).await;
            drop(permit);
        });
        Ok(near)
    }

    /// Connects to an address that is not a Service's. An endpoint of a Service may well be outside.
    pub(super) async fn connect_endpoint(
        &self,
        attempt: Attempt<'_>,
        caller: Caller<'_>,
    ) -> Result<Stream, NetError> {
        let to = attempt.to.ip();
        if let Some(pod) = self.pod(to) {
            return self.connect_here(attempt, caller, &pod).await;
        }
        if self.is_pod_address(to) {
            return self.connect_elsewhere(attempt, caller).await;
        }
        if caller.egress() != Egress::All {
            return Err(NetError::AccessDenied);
        }
        let passage = Passage {
            egress: self.check_egress(&attempt, caller, None)?,
            ingress: None,
        };
        let opening = self.egress.connect(attempt.ends(&passage), attempt.to);
        let stream = opening.await?;
        passage.opened();
        Ok(stream)
    }

    /// Connects to the API server, which may well be at an address that pods may not reach otherwise.
    async fn connect_trusted(
        &self,
        attempt: Attempt<'_>,
        caller: Caller<'_>,
    ) -> Result<Stream, NetError> {
        let passage = Passage {
            egress: self.check_egress(&attempt, caller, None)?,
            ingress: None,
        };
        let ends = attempt.ends(&passage);
        let stream = self.egress.connect_trusted(ends, attempt.to).await?;
        passage.opened();
        Ok(stream)
    }

    async fn connect_here(
        &self,
        attempt: Attempt<'_>,
        caller: Caller<'_>,
        pod: &LocalPod,
    ) -> Result<Stream, NetError> {
        let passage = self.passage_here(&attempt, caller, pod)?;
        let Attempt {
            from, to, seen_as, ..
        } = attempt;
        let meters = passage.meters();
        let stream = pod.ports.connect(from, to, seen_as, meters).await?;
        passage.opened();
        Ok(stream)
    }

    /// Whether two pods of this node, or a pod and whoever is no pod, may have that connection.
    fn passage_here(
        &self,
        attempt: &Attempt<'_>,
        caller: Caller<'_>,
        pod: &LocalPod,
    ) -> Result<Passage, NetError> {
        if matches!(caller, Caller::Pod(own) if own.local.ip() == attempt.to.ip()) {
            return Ok(Passage::default());
        }
        let egress = self.check_egress(attempt, caller, Some(&pod.identity.load()))?;
        let peer = caller.identity();
        let ingress = match caller {
            Caller::Node => Some(pod.flows.with(
                Direction::Ingress,
                PeerName::Node,
                Transport::Tcp,
                attempt.to.port(),
            )),
            Caller::Pod(_) | Caller::Outside | Caller::Ingress => Some(self.check_ingress(
                pod,
                Transport::Tcp,
                attempt.from.ip(),
                peer.as_deref(),
                attempt.to.port(),
            )?),
        };
        Ok(Passage { egress, ingress })
    }

    async fn connect_elsewhere(
        &self,
        attempt: Attempt<'_>,
        caller: Caller<'_>,
    ) -> Result<Stream, NetError> {
        let to = attempt.to.ip();
        let Some(tunnel) = self
            .tunnel
            .load_full()
            .filter(|_| !self.is_of_this_node(to))
        else {
            return Err(NetError::RemoteUnreachable);
        };
        let identity = caller.identity();
        let asks = matches!(caller, Caller::Pod(_))
            && identity.as_deref().is_some_and(|pod| {
                self.policies.isolation(pod, Direction::Egress) == Isolation::Pods
            });
        let peer = if asks {
            Some(self.egress.describe(&tunnel, to).await?)
        } else {
            None
        };
        let passage = Passage {
            egress: self.check_egress(&attempt, caller, peer.as_ref())?,
            ingress: None,
        };
        let call = Call {
            from: attempt.from,
            to: attempt.to,
            caller: identity.as_deref().cloned(),
        };
        let carried = self
            .egress
            .connect_tunnel(attempt.ends(&passage), &tunnel, call);
        let stream = carried.await?;
        passage.opened();
        Ok(stream)
    }

    /// Puts a connection from another node through to a pod of this one.
    pub(super) async fn connect_local(&self, call: &Call) -> Result<Stream, NetError> {
        self.policies.known().await?;
        let pod = self.pod(call.to.ip()).ok_or(NetError::RemoteUnreachable)?;
        let peer = call.caller.as_ref();
        let (from, to) = (call.from, call.to);
        let ingress = self.check_ingress(&pod, Transport::Tcp, from.ip(), peer, to.port())?;
        let passage = Passage {
            egress: None,
            ingress: Some(ingress),
        };
        let stream = pod.ports.connect(from, to, to, passage.meters()).await?;
        passage.opened();
        Ok(stream)
    }

    /// The calling pod's flow, if its policies let it go there; none where the caller is no pod.
    fn check_egress(
        &self,
        attempt: &Attempt<'_>,
        caller: Caller<'_>,
        peer: Option<&PodIdentity>,
    ) -> Result<Option<Arc<Flow>>, NetError> {
        let (Caller::Pod(pod), Some(flow)) = (caller, self.flow_out(attempt, caller, peer)) else {
            return Ok(None);
        };
        if self.lets_out(pod, peer, Transport::Tcp, attempt.to) {
            return Ok(Some(flow));
        }
        flow.count_denied();
        Err(NetError::AccessDenied)
    }

    /// The calling pod's flow to there; none where the caller is no pod.
    fn flow_out(
        &self,
        attempt: &Attempt<'_>,
        caller: Caller<'_>,
        peer: Option<&PodIdentity>,
    ) -> Option<Arc<Flow>> {
        let Caller::Pod(pod) = caller else {
            return None;
        };
        let (to, dialled) = (attempt.to, attempt.seen_as.port());
        let name = match (attempt.service, peer) {
            (Some(service), _) => PeerName::Service {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
            },
            (None, Some(peer)) => PeerName::from(peer),
            (None, None) if self.is_pod_address(to.ip()) => PeerName::Address(to.ip()),
            (None, None) => PeerName::Outside(to.ip()),
        };
        let flows = &pod.local.flows;
        Some(flows.with(Direction::Egress, name, Transport::Tcp, dialled))
    }

    /// Whether the pod's policies let it send to the address.
    pub(super) fn lets_out(
        &self,
        pod: &Pod,
        peer: Option<&PodIdentity>,
        transport: Transport,
        to: SocketAddr,
    ) -> bool {
        let known_as = |pattern: &_| pod.known.fits(to.ip(), pattern);
        self.policies.allows(&Traffic {
            subject: &pod.local.identity.load(),
            direction: Direction::Egress,
            peer: Peer {
                ip: to.ip(),
                pod: peer,
                known_as: &known_as,
            },
            transport,
            port: to.port(),
        })
    }

    /// The pod's flow, if its policies let the peer in.
    pub(super) fn check_ingress(
        &self,
        pod: &LocalPod,
        transport: Transport,
        from: IpAddr,
        peer: Option<&PodIdentity>,
        port: u16,
    ) -> Result<Arc<Flow>, NetError> {
        let name = match peer {
            Some(peer) => PeerName::from(peer),
            None if self.is_pod_address(from) => PeerName::Address(from),
            None => PeerName::Outside(from),
        };
        let flow = pod.flows.with(Direction::Ingress, name, transport, port);
        let allowed = self.policies.allows(&Traffic {
            subject: &pod.identity.load(),
            direction: Direction::Ingress,
            peer: Peer {
                ip: from,
                pod: peer,
                known_as: &nameless,
            },
            transport,
            port,
        });
        if allowed {
            return Ok(flow);
        }
        flow.count_denied();
        Err(NetError::AccessDenied)
    }

    /// The address by which the node itself shows up at its pods.
    pub(super) fn host_address(&self) -> IpAddr {
        self.pod_cidr
            .borrow()
            .map_or(Ipv4Addr::UNSPECIFIED, |cidr| cidr.gateway())
            .into()
    }
}
