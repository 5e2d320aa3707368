//! UDP ports of pods.
//!
//! Datagrams go straight to the receiver's queue and are lost if it is full. A datagram sent to a
//! Service goes to one of its endpoints; the sender's port remembers which, so that it stays with
//! it and so that an answer seems to come from the Service, as connection tracking does it in a
//! kernel.
//!
//! Datagrams to other nodes and to the world outside are refused: only TCP leaves a node so far.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;
use windlass_api::grants::Egress;
use windlass_wasi_shims::net::{Datagram, MAX_DATAGRAM, NetError, UdpPort};

use super::Core;
use super::switch::{PodPorts, PortLease, Transport};

/// Datagrams that may wait at one port.
const QUEUE: usize = 256;

/// Service addresses one port remembers endpoints of.
const MAX_TRACKED: usize = 256;

/// An open UDP port of a pod.
pub(super) struct PodUdpPort {
    core: Arc<Core>,
    ports: Arc<PodPorts>,
    lease: PortLease,
    granted: Egress,
    queue: Mutex<mpsc::Receiver<Datagram>>,
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
    pub(super) fn open(
        core: Arc<Core>,
        ports: Arc<PodPorts>,
        lease: PortLease,
        granted: Egress,
    ) -> Result<Self, NetError> {
        let queue = Mutex::new(lease.datagrams(QUEUE)?);
        Ok(Self {
            core,
            ports,
            lease,
            granted,
            queue,
            tracked: Mutex::default(),
        })
    }

    /// The endpoint behind a Service address, the address itself if it is no Service's, or nothing
    /// if the Service has no endpoint: then the datagram is lost.
    fn endpoint(&self, to: SocketAddr) -> Option<SocketAddr> {
        let table = self.core.services.load();
        let Some(service) = table.by_address(Transport::Udp, to) else {
            return (!table.is_service_address(to.ip())).then_some(to);
        };
        let mut tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut candidates = service.candidates(self.ports.address().into());
        let known = tracked.endpoints.get(&to).copied();
        if let Some(known) = known
            && candidates.any(|candidate| candidate == known)
        {
            return Some(known);
        }
        let endpoint = service.candidates(self.ports.address().into()).next()?;
        tracked.remember(to, endpoint);
        Some(endpoint)
    }

    /// The address an answer seems to come from.
    fn seen_from(&self, from: SocketAddr) -> SocketAddr {
        let tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        tracked.services.get(&from).copied().unwrap_or(from)
    }
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
            self.ports.deliver(
                to,
                Datagram {
                    from: SocketAddr::new(to.ip(), port),
                    data,
                },
            );
            return Ok(());
        }
        let Some(to) = self.endpoint(to) else {
            return Ok(());
        };
        if self.granted == Egress::None && to.ip() != self.ports.address() {
            return Err(NetError::AccessDenied);
        }
        let from = SocketAddr::new(self.ports.address().into(), port);
        match self.core.pod(to.ip()) {
            Some(receiver) => receiver.deliver(to, Datagram { from, data }),
            None if self.core.is_of_this_node(to.ip()) => return Err(NetError::RemoteUnreachable),
            // Differs from Kubernetes: the tunnel carries TCP only.
            None if self.core.is_pod_address(to.ip()) => return Err(NetError::NotSupported),
            None if self.granted != Egress::All => return Err(NetError::AccessDenied),
            None => {
                self.core.egress.check(to.ip())?;
                return Err(NetError::RemoteUnreachable);
            }
        }
        Ok(())
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
