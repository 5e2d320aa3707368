//! The way out: kernel sockets on behalf of pods, and what they may never reach.
//!
//! 1. The rules are checked on the address that is dialled, after every name and Service was
//!    resolved; an IPv6 address that embeds an IPv4 one is checked as both.
//! 2. Addresses of this machine are recognised by asking the kernel for the route: a destination
//!    whose source address is itself is local. No packet is sent for that.
//! 3. The connection is joined to an in-memory [`Stream`] by a task on the system runtime, so that a
//!    busy guest never delays the kernel's side.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use windlass_wasi_shims::net::{Meters, NetError, Stream};

use super::policy::PodIdentity;
use super::switch::CONNECT_TIMEOUT;
use super::tunnel::{Call, Tunnel};

/// The two ends of a connection as a pod sees them, and what counts its bytes.
pub(super) struct Ends {
    pub(super) from: SocketAddr,
    /// The address that was dialled.
    pub(super) seen_as: SocketAddr,
    /// Bytes out, and back.
    pub(super) meters: [Meters; 2],
}

/// Opens kernel sockets for pods, within the rules.
pub(super) struct Egress {
    node_addresses: HashSet<IpAddr>,
    system: Handle,
}

impl Egress {
    pub(super) fn new(node_addresses: impl Iterator<Item = IpAddr>) -> Self {
        Self {
            node_addresses: node_addresses.collect(),
            system: Handle::current(),
        }
    }

    /// The runtime that kernel sockets live on.
    pub(super) fn system(&self) -> &Handle {
        &self.system
    }

    /// Connects to the world outside, if the rules allow it.
    pub(super) async fn connect(&self, ends: Ends, to: SocketAddr) -> Result<Stream, NetError> {
        self.check(to.ip())?;
        self.open(ends, async move { TcpStream::connect(to).await })
            .await
    }

    /// Connects to an address that the node's configuration names: the rules do not apply.
    pub(super) async fn connect_trusted(
        &self,
        ends: Ends,
        to: SocketAddr,
    ) -> Result<Stream, NetError> {
        self.open(ends, async move { TcpStream::connect(to).await })
            .await
    }

    /// Connects to a pod of another node.
    pub(super) async fn connect_tunnel(
        &self,
        ends: Ends,
        tunnel: &Arc<dyn Tunnel>,
        call: Call,
    ) -> Result<Stream, NetError> {
        let tunnel = tunnel.clone();
        self.open(ends, async move { tunnel.connect(call).await })
            .await
    }

    /// Asks the agent of another node which of its pods has the address.
    pub(super) async fn describe(
        &self,
        tunnel: &Arc<dyn Tunnel>,
        pod: IpAddr,
    ) -> Result<PodIdentity, NetError> {
        let tunnel = tunnel.clone();
        let asking = async move { tunnel.describe(pod).await };
        let task = tokio_util::task::AbortOnDropHandle::new(self.system.spawn(asking));
        match tokio::time::timeout(CONNECT_TIMEOUT, task).await {
            Ok(Ok(answer)) => answer.map_err(|error| net_error(&error)),
            Ok(Err(_)) => Err(NetError::ConnectionReset),
            Err(_) => Err(NetError::Timeout),
        }
    }

    /// As [`open`], on this network's system runtime.
    async fn open<C>(
        &self,
        ends: Ends,
        connecting: impl Future<Output = io::Result<C>> + Send + 'static,
    ) -> Result<Stream, NetError>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        open(&self.system, ends, connecting).await
    }

    /// Whether pods may reach the address.
    pub(super) fn check(&self, to: IpAddr) -> Result<(), NetError> {
        let to = to.to_canonical();
        let forbidden = is_reserved(to)
            || self.node_addresses.contains(&to)
            || embedded_v4(to).is_some_and(|v4| {
                is_reserved(v4.into()) || self.node_addresses.contains(&v4.into())
            })
            || is_this_machine(to);
        if forbidden {
            Err(NetError::AccessDenied)
        } else {
            Ok(())
        }
    }
}

/// Awaits a kernel connection on the system runtime and joins it to a new stream.
pub(super) async fn open<C>(
    system: &Handle,
    ends: Ends,
    connecting: impl Future<Output = io::Result<C>> + Send + 'static,
) -> Result<Stream, NetError>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (inside, outside) =
        Stream::metered_pair(ends.from, ends.seen_as, ends.seen_as, ends.meters);
    let connect = async move {
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| NetError::Timeout)?
            .map_err(|error| net_error(&error))?;
        tokio::spawn(join(connection, outside));
        Ok(())
    };
    // Aborted when the guest gives the attempt up.
    let task = tokio_util::task::AbortOnDropHandle::new(system.spawn(connect));
    task.await.map_err(|_| NetError::ConnectionReset)??;
    Ok(inside)
}

/// Copies both ways until both ends finished. A failure breaks the stream instead of ending it, so
/// that half a message is not taken for a whole one.
pub(crate) async fn join<C: AsyncRead + AsyncWrite + Unpin>(mut connection: C, mut stream: Stream) {
    if tokio::io::copy_bidirectional(&mut connection, &mut stream)
        .await
        .is_err()
    {
        stream.reset();
    }
}

fn net_error(error: &io::Error) -> NetError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => NetError::ConnectionRefused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            NetError::ConnectionReset
        }
        io::ErrorKind::TimedOut => NetError::Timeout,
        io::ErrorKind::PermissionDenied => NetError::AccessDenied,
        _ => NetError::RemoteUnreachable,
    }
}

/// Addresses no pod may reach, wherever it runs.
fn is_reserved(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.octets()[0] >= 240
                || CLOUD_METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6 == CLOUD_METADATA_V6
        }
    }
}

/// Metadata services that are not link-local: Alibaba's and Oracle's.
const CLOUD_METADATA_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// The metadata service of EC2 over IPv6.
const CLOUD_METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// The IPv4 address that a gateway may make of an IPv6 one: mapped, compatible, NAT64 and 6to4.
fn embedded_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = ip else { return None };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let (high, low) = match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0 | 0xffff) | (0x64, 0xff9b, _, _, _, _) => (g, h),
        (0x2002, high, low, ..) => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
}

/// Whether the kernel would deliver to this machine itself.
pub(super) fn is_this_machine(ip: IpAddr) -> bool {
    let any: SocketAddr = match ip {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Connecting a UDP socket only looks the route up. No route: not this machine either.
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pods_do_not_reach_the_host_or_its_surroundings() {
        let node: IpAddr = "203.0.113.7".parse().unwrap();
        let egress = Egress::new([node].into_iter());
        for (address, allowed) in [
            ("127.0.0.1", false),
            ("127.8.8.8", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("169.254.169.254", false),
            ("169.254.1.1", false),
            ("224.0.0.251", false),
            ("255.255.255.255", false),
            ("100.100.100.200", false),
            ("203.0.113.7", false),
            ("::", false),
            ("::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("fd00:ec2::254", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:203.0.113.7", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("2002:7f00:1::", false),
            ("::7f00:1", false),
            ("203.0.113.8", true),
            ("::ffff:203.0.113.8", true),
            ("2001:db8::1", true),
        ] {
            let got = egress.check(address.parse().unwrap());
            assert_eq!(got.is_ok(), allowed, "{address}: {got:?}");
        }
    }

    #[tokio::test]
    async fn a_broken_connection_is_not_taken_for_a_finished_one() {
        use tokio::io::AsyncReadExt;
        let broken = tokio_test_reader();
        let any: SocketAddr = "10.0.0.1:1".parse().unwrap();
        let (mut inside, outside) = Stream::pair(any, any, any);
        join(broken, outside).await;
        let error = inside.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// A connection whose reads fail.
    fn tokio_test_reader() -> impl AsyncRead + AsyncWrite + Unpin {
        let any: SocketAddr = "10.0.0.1:1".parse().unwrap();
        let (near, far) = Stream::pair(any, any, any);
        far.reset();
        near
    }
}
