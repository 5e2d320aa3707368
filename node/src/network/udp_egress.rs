//! Datagrams from a pod's port to the world outside, and back.
//!
//! A port gets a kernel socket per family with its first datagram out; a task takes what comes back to the port.
//! Only addresses that the port sent to are heard, and only so many of them: a pod is no server for strangers.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;
use windlass_wasi_shims::net::{Datagram, MAX_DATAGRAM, NetError};

use super::Core;
use super::flows::Flow;
use super::switch::PodPorts;

/// Addresses one port may wait for answers from; the one sent to longest ago goes first.
const MAX_PEERS: usize = 256;

/// The ways out of one port; empty until it sends.
#[derive(Default)]
pub(super) struct UdpEgress(Mutex<Sockets>);

/// Who was sent to: when last, and what counts the answers.
type Peers = Mutex<HashMap<SocketAddr, (Instant, Arc<Flow>)>>;

#[derive(Default)]
struct Sockets {
    v4: Option<Outlet>,
    v6: Option<Outlet>,
}

struct Outlet {
    /// The same socket as the task receives from. Not tokio's: that one would lose what is sent before it was
    /// polled once.
    sending: StdSocket,
    peers: Arc<Peers>,
    _receiving: AbortOnDropHandle<()>,
}

impl UdpEgress {
    /// Sends a datagram of the port `own`, which hears the answers.
    pub(super) fn send(
        &self,
        core: &Core,
        ports: &Arc<PodPorts>,
        (own, to): (SocketAddr, SocketAddr),
        data: &[u8],
        flow: Arc<Flow>,
    ) -> Result<(), NetError> {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (outlet, any): (_, IpAddr) = match to {
            SocketAddr::V4(_) => (&mut sockets.v4, Ipv4Addr::UNSPECIFIED.into()),
            SocketAddr::V6(_) => (&mut sockets.v6, Ipv6Addr::UNSPECIFIED.into()),
        };
        if outlet.is_none() {
            let opened = Outlet::open(core, ports.clone(), own, any);
            // No IPv6, or no descriptor left.
            *outlet = Some(opened.map_err(|_| NetError::RemoteUnreachable)?);
        }
        if let Some(outlet) = outlet {
            outlet.expect(to, flow);
            // A full socket loses the datagram, which is what UDP promises.
            let _lost = outlet.sending.send_to(data, to);
        }
        Ok(())
    }
}

impl Outlet {
    fn open(core: &Core, ports: Arc<PodPorts>, own: SocketAddr, any: IpAddr) -> io::Result<Self> {
        let sending = StdSocket::bind((any, 0))?;
        sending.set_nonblocking(true)?;
        // Kernel sockets live on the system runtime, whichever thread a guest runs on.
        let _system = core.egress.system().enter();
        let socket = UdpSocket::from_std(sending.try_clone()?)?;
        let peers: Arc<Peers> = Arc::default();
        let receiving = tokio::spawn(receive(socket, peers.clone(), ports, own));
        Ok(Self {
            sending,
            peers,
            _receiving: AbortOnDropHandle::new(receiving),
        })
    }

    fn expect(&self, peer: SocketAddr, flow: Arc<Flow>) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
            let oldest = peers.iter().min_by_key(|(_, (sent, _))| *sent);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                peers.remove(&oldest);
            }
        }
        peers.insert(peer, (Instant::now(), flow));
    }
}

async fn receive(socket: UdpSocket, peers: Arc<Peers>, ports: Arc<PodPorts>, own: SocketAddr) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let known = peers.lock().unwrap_or_else(PoisonError::into_inner);
                let expected = known.get(&from).map(|(_, flow)| flow.clone());
                drop(known);
                if let Some(flow) = expected {
                    flow.count_received(length);
                    let data = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                    ports.deliver(own, Datagram { from, data });
                }
            }
            Err(error) => {
                // What was sent before may have been refused.
                tracing::debug!(%own, %error, "a datagram from outside was not received");
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use windlass_wasi_shims::net::VirtualNetwork;

    use super::super::flows::PeerName;
    use super::super::policy::Direction;
    use super::super::switch::Transport;
    use super::super::{Network, NetworkConfig, PodNetworkRequest};
    use super::*;

    #[tokio::test]
    async fn only_who_was_sent_to_is_heard() {
        let network = Network::new(NetworkConfig::default());
        network.set_pod_cidr("10.42.0.0/24".parse().unwrap());
        let pod = network.set_up(&PodNetworkRequest::default()).unwrap();
        let port = pod.bind_udp(SocketAddr::new(pod.ip(), 5000)).unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        let peer = PeerName::Outside(to.ip());
        let flow = pod
            .0
            .local
            .flows
            .with(Direction::Egress, peer, Transport::Udp, to.port());
        // Below the rules of egress, which refuse this machine's addresses.
        let egress = UdpEgress::default();
        let ends = (port.local(), to);
        let sent = egress.send(&network.0, &pod.0.local.ports, ends, b"ask", flow.clone());
        sent.unwrap();
        let mut buffer = [0; 16];
        let (length, back) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"ask");
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = SocketAddr::new(to.ip(), back.port());
        stranger.send_to(b"forged", back).await.unwrap();
        server.send_to(b"answer", back).await.unwrap();
        let heard = poll_fn(|cx| port.poll_receive(cx)).await.unwrap();
        assert_eq!((heard.from, &heard.data[..]), (to, &b"answer"[..]));
    }
}
