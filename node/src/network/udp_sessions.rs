//! Datagrams from clients outside of the cluster to pods of this node, and the pods' answers.
//!
//! A client's first datagram chooses an endpoint; while either side goes on sending, the others follow it, and
//! what the endpoint sends back to the client leaves by the socket that the client knows. A session that is
//! silent for [`IDLE`] is forgotten.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::UdpSocket;
use windlass_wasi_shims::net::{Datagram, MAX_DATAGRAM};

use super::flows::PeerName;
use super::follow::ObjectKey;
use super::host::HostNetwork;
use super::outside::Purpose;
use super::policy::Direction;
use super::service_table::{Origin, ServicePort};
use super::switch::Transport;

/// How long a session may be silent.
const IDLE: Duration = Duration::from_secs(120);

/// Sessions of a node; beyond it, and after the silent ones were dropped, new clients are not served.
const MAX_SESSIONS: usize = 16_384;

/// Both ends of a session: the pod's port, the client as the pod sees it.
type Ends = (SocketAddr, SocketAddr);

struct Session {
    /// What the client sends to, and where it is.
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    service: ObjectKey,
    active: Instant,
}

/// The sessions of a node.
#[derive(Default)]
pub(super) struct UdpSessions(Mutex<HashMap<Ends, Session>>);

impl UdpSessions {
    /// Notes that the client sends to the pod's port by this socket; whether there was room for it.
    fn refresh(&self, ends: Ends, session: Session) -> bool {
        let now = session.active;
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_SESSIONS && !sessions.contains_key(&ends) {
            sessions.retain(|_, session| now.duration_since(session.active) < IDLE);
            if sessions.len() >= MAX_SESSIONS {
                return false;
            }
        }
        sessions.insert(ends, session);
        true
    }

    /// The endpoint among these that the client was sent to before.
    fn endpoint(
        &self,
        service: &ServicePort,
        client: SocketAddr,
        candidates: impl Iterator<Item = SocketAddr>,
    ) -> Option<SocketAddr> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |endpoint: &SocketAddr| {
            let session = sessions.get(&(*endpoint, client));
            session.is_some_and(|it| it.service == service.service && it.active.elapsed() < IDLE)
        };
        let mut candidates = candidates;
        candidates.find(is_known)
    }

    /// Sends a pod's answer to a client that sent to it; nothing if it did not.
    pub(super) fn answer(&self, ends: Ends, data: &[u8]) -> Option<()> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get_mut(&ends)?;
        session.active = Instant::now();
        let (socket, client) = (session.socket.clone(), session.client);
        drop(sessions);
        // A full socket loses the datagram, which is what UDP promises.
        let _lost = socket.try_send_to(data, client);
        Some(())
    }
}

/// Takes the datagrams of one socket to the Service behind it, until dropped.
pub(super) async fn receive(host: HostNetwork, socket: UdpSocket, purpose: Purpose) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                let data = buffer.get(..length).unwrap_or_default();
                forward(&host, &socket, purpose, client, data);
            }
            Err(error) => {
                // An earlier answer may have been refused by a client that is gone.
                tracing::debug!(?purpose, %error, "a datagram from outside was not received");
                tokio::task::yield_now().await;
            }
        }
    }
}

fn forward(
    host: &HostNetwork,
    socket: &Arc<UdpSocket>,
    purpose: Purpose,
    client: SocketAddr,
    data: &[u8],
) {
    let core = host.core();
    let Some(service) = host.service_behind(Transport::Udp, purpose) else {
        return;
    };
    if !core.policies.are_known() {
        return;
    }
    // Differs from Kubernetes: datagrams go to pods of this node only.
    let here = || {
        let candidates = service.candidates(client.ip(), Origin::Outside);
        candidates.filter(|endpoint| core.pod(endpoint.ip()).is_some())
    };
    let seen = host.seen_as(client);
    let known = core.udp_sessions.endpoint(&service, seen, here());
    let Some(endpoint) = known.or_else(|| here().next()) else {
        return;
    };
    let Some(pod) = core.pod(endpoint.ip()) else {
        return;
    };
    let (transport, port) = (Transport::Udp, endpoint.port());
    let flow = if seen == client {
        let admitted = core.check_ingress(&pod, transport, client.ip(), None, port);
        let Ok(flow) = admitted else { return };
        flow
    } else {
        let (direction, peer) = (Direction::Ingress, PeerName::Node);
        pod.flows.with(direction, peer, transport, port)
    };
    let session = Session {
        socket: socket.clone(),
        client,
        service: service.service.clone(),
        active: Instant::now(),
    };
    if core.udp_sessions.refresh((endpoint, seen), session) {
        flow.count_received(data.len());
        let data = Bytes::copy_from_slice(data);
        pod.ports.deliver(endpoint, Datagram { from: seen, data });
    }
}
