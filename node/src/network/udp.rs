//! UDP ports of pods.
//!
//! Datagrams go straight to the receiver's queue and are lost if it is full. A datagram sent to a
//! Service goes to one of its endpoints; the sender's port remembers which, so that it stays with
//! it and so that an answer seems to come from the Service, as connection tracking does it in a
//! kernel.
//!
//! The world outside is reached by a kernel socket (`udp_egress.rs`), and clients outside that came by a port of the
//! node are answered by that (`udp_sessions.rs`). Datagrams to pods of other nodes are refused so far.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;
use windlass_api::grants::Egress;
use windlass_wasi_shims::net::{Datagram, MAX_DATAGRAM, NetError, UdpPort};

use super::dns::{Asker, Begun};
use super::flows::{Flow, PeerName};
use super::local_pod::LocalPod;
use super::pod::Pod;
use super::policy::Direction;
use super::service_table::{DNS_SERVICE, Origin, ServicePort};
use super::switch::{PortLease, Transport};
use super::udp_egress::UdpEgress;

/// Datagrams that may wait at one port.
const QUEUE: usize = 256;

/// Service addresses one port remembers endpoints of.
const MAX_TRACKED: usize = 256;

/// An open UDP port of a pod.
pub(super) struct PodUdpPort {
    pod: Arc<Pod>,
    lease: PortLease,
    queue: Mutex<mpsc::Receiver<Datagram>>,
    outside: UdpEgress,
    tracked: Mutex<Tracked>,
}

/// Which endpoint stands for which Service address, and back.
#[derive(Default)]
struct Tracked {
    endpoints: HashMap<SocketAddr, SocketAddr>,
    services: HashMap<SocketAddr, SocketAddr>,
}

impl Tracked {
    fn remember(&mut self, service: SocketAddr, endpoint: SocketAddr) {
        if self.endpoints.len() >= MAX_TRACKED {
            *self = Self::default();
        }
        if let Some(before) = self.endpoints.insert(service, endpoint) {
            self.services.remove(&before);
        }
        self.services.insert(endpoint, service);
    }
}

impl PodUdpPort {
    pub(super) fn open(pod: Arc<Pod>, lease: PortLease) -> Result<Self, NetError> {
        let queue = Mutex::new(lease.datagrams(QUEUE)?);
        Ok(Self {
            pod,
            lease,
            queue,
            outside: UdpEgress::default(),
            tracked: Mutex::default(),
        })
    }

    /// The endpoint behind a Service address, the address itself if it is no Service's, or nothing
    /// if the Service has no endpoint: then the datagram is lost.
    fn endpoint(&self, to: SocketAddr) -> Option<SocketAddr> {
        let table = self.pod.core.services.load();
        let Some(service) = table.by_address(Transport::Udp, to) else {
            return (!table.is_service_address(to.ip())).then_some(to);
        };
        let mut tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut candidates = service.candidates(self.pod.local.ip(), Origin::Inside);
        let known = tracked.endpoints.get(&to).copied();
        if let Some(known) = known
            && candidates.any(|candidate| candidate == known)
        {
            return Some(known);
        }
        let endpoint = service
            .candidates(self.pod.local.ip(), Origin::Inside)
            .next()?;
        tracked.remember(to, endpoint);
        Some(endpoint)
    }

    fn is_dns(&self, to: SocketAddr) -> bool {
        let table = self.pod.core.services.load();
        let service = table.by_address(Transport::Udp, to);
        service.is_some_and(ServicePort::is_dns)
    }

    /// Has this node's own DNS answer, whatever policies say: those are asked about names outside.
    fn ask_dns(&self, server: SocketAddr, data: &[u8]) -> Result<(), NetError> {
        if self.pod.granted == Egress::None {
            return Err(NetError::AccessDenied);
        }
        let core = &self.pod.core;
        let (namespace, name) = DNS_SERVICE;
        let peer = PeerName::Service {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let (flows, port) = (&self.pod.local.flows, server.port());
        let flow = flows.with(Direction::Egress, peer, Transport::Udp, port);
        flow.count_sent(data.len());
        let own = SocketAddr::new(self.pod.local.ip(), self.lease.local().port());
        let asker = Asker::Pod(self.pod.clone());
        let ends = (server, own);
        match core.begin_datagram(data) {
            Begun::Nothing => {}
            Begun::Answer(answer) => deliver_answer(&self.pod.local, &flow, ends, answer),
            Begun::Outside(pending) => match asker.permit(core) {
                None => deliver_answer(&self.pod.local, &flow, ends, pending.refuse(core)),
                Some(permit) => {
                    let (core, local) = (core.clone(), self.pod.local.clone());
                    core.egress.system().clone().spawn(async move {
                        let answer = pending.finish(&core, &asker).await;
                        deliver_answer(&local, &flow, ends, answer);
                        drop(permit);
                    });
                }
            },
        }
        Ok(())
    }

    /// The address an answer seems to come from.
    fn seen_from(&self, from: SocketAddr) -> SocketAddr {
        let tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        tracked.services.get(&from).copied().unwrap_or(from)
    }

    /// Sends to an address outside, by a kernel socket of this port's own.
    fn send_outside(&self, to: SocketAddr, data: &[u8]) -> Result<(), NetError> {
        let core = &self.pod.core;
        if self.pod.granted != Egress::All {
            return Err(NetError::AccessDenied);
        }
        core.egress.check(to.ip())?;
        if !core.policies.are_known() {
            return Ok(());
        }
        let (direction, transport) = (Direction::Egress, Transport::Udp);
        let peer = PeerName::Outside(to.ip());
        let flow = self
            .pod
            .local
            .flows
            .with(direction, peer, transport, to.port());
        if !core.lets_out(&self.pod, None, transport, to) {
            flow.count_denied();
            return Err(NetError::AccessDenied);
        }
        flow.count_sent(data.len());
        let port = self.lease.local().port();
        let own = SocketAddr::new(self.pod.local.ip(), port);
        let ports = &self.pod.local.ports;
        self.outside.send(core, ports, (own, to), data, flow)
    }

    /// Delivers to another pod of this node what the policies of both let through. A sender learns of its
    /// own policies only: what the receiver's refuse is lost, as any datagram may be.
    fn send_here(
        &self,
        receiver: &LocalPod,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    ) -> Result<(), NetError> {
        let core = &self.pod.core;
        if !core.policies.are_known() {
            return Ok(());
        }
        let sender = self.pod.local.identity.load();
        let peer = receiver.identity.load();
        let (direction, transport) = (Direction::Egress, Transport::Udp);
        let name = PeerName::from(peer.as_ref());
        let flows = &self.pod.local.flows;
        let sent = flows.with(direction, name, transport, to.port());
        if !core.lets_out(&self.pod, Some(&peer), transport, to) {
            sent.count_denied();
            return Err(NetError::AccessDenied);
        }
        let (ip, port) = (from.ip(), to.port());
        let Ok(received) = core.check_ingress(receiver, transport, ip, Some(&sender), port) else {
            return Ok(());
        };
        sent.count_sent(data.len());
        received.count_received(data.len());
        receiver.ports.deliver(to, Datagram { from, data });
        Ok(())
    }
}

/// Queues an answer of this node's DNS at the port that asked.
fn deliver_answer(
    pod: &LocalPod,
    flow: &Flow,
    (server, own): (SocketAddr, SocketAddr),
    answer: Vec<u8>,
) {
    flow.count_received(answer.len());
    let (from, data) = (server, answer.into());
    pod.ports.deliver(own, Datagram { from, data });
}

impl UdpPort for PodUdpPort {
    fn local(&self) -> SocketAddr {
        self.lease.local()
    }

    fn send(&self, to: SocketAddr, data: Bytes) -> Result<(), NetError> {
        if data.len() > MAX_DATAGRAM {
            return Err(NetError::DatagramTooLarge);
        }
        let port = self.lease.local().port();
        if to.ip().is_loopback() {
            self.pod.local.ports.deliver(
                to,
                Datagram {
                    from: SocketAddr::new(to.ip(), port),
                    data,
                },
            );
            return Ok(());
        }
        if self.is_dns(to) {
            return self.ask_dns(to, &data);
        }
        let Some(to) = self.endpoint(to) else {
            return Ok(());
        };
        let own = self.pod.local.ip();
        let from = SocketAddr::new(own, port);
        if to.ip() == own {
            self.pod.local.ports.deliver(to, Datagram { from, data });
            return Ok(());
        }
        if self.pod.granted == Egress::None {
            return Err(NetError::AccessDenied);
        }
        let core = &self.pod.core;
        // Who sent to this port from outside may be answered wherever it is.
        if core.udp_sessions.answer((from, to), &data).is_some() {
            return Ok(());
        }
        match core.pod(to.ip()) {
            Some(receiver) => self.send_here(&receiver, from, to, data),
            None if core.is_of_this_node(to.ip()) => Err(NetError::RemoteUnreachable),
            // Differs from Kubernetes: the tunnel carries TCP only.
            None if core.is_pod_address(to.ip()) => Err(NetError::NotSupported),
            None => self.send_outside(to, &data),
        }
    }

    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Result<Datagram, NetError>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let received = std::task::ready!(queue.poll_recv(cx));
        drop(queue);
        Poll::Ready(match received {
            Some(Datagram { from, data }) => Ok(Datagram {
                from: self.seen_from(from),
                data,
            }),
            None => Err(NetError::ConnectionReset),
        })
    }
}
