//! A pod that has a network namespace of its own, and a link to this machine's.
//!
//! ```text
//!   other pods, the node ── switch ──┬─ who listens in the switch: wasm containers
//!                                    └─ else: a kernel socket, from the caller's address, over the pod's link
//!   the pod itself, by loopback  ────── a socket within its namespace
//! ```
//!
//! What wasm containers of the pod listen at, they listen at within the namespace too, so that Linux containers beside
//! them find them at loopback, and a port is taken for both.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use windlass_wasi_shims::net::{Datagram, Meters, NetError, Stream};

use super::netns::NetworkNamespace;
use super::uplink::Uplink;
use crate::network::egress::{self, Ends};

/// A pod's side of the kernel.
pub(in crate::network) struct Joined {
    namespace: NetworkNamespace,
    uplink: Arc<Uplink>,
    /// The node, as its pods see it.
    gateway: Ipv4Addr,
    /// The runtime that kernel sockets live on.
    system: Handle,
}

/// A listening socket within the namespace, as long as it is held.
pub(in crate::network) type Mirror = AbortOnDropHandle<()>;

impl Joined {
    pub(super) fn new(
        namespace: NetworkNamespace,
        uplink: Arc<Uplink>,
        gateway: Ipv4Addr,
        system: Handle,
    ) -> Self {
        Self {
            namespace,
            uplink,
            gateway,
            system,
        }
    }

    /// Connects to a program of the pod's Linux containers.
    pub(in crate::network) async fn connect(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        seen_as: SocketAddr,
        meters: [Meters; 2],
    ) -> Result<Stream, NetError> {
        let ends = Ends {
            from,
            seen_as,
            meters,
        };
        let connecting = self.dial(from.ip(), to).map_err(|error| {
            tracing::debug!(%from, %to, %error, "no socket to a pod's link");
            NetError::RemoteUnreachable
        })?;
        egress::open(&self.system, ends, connecting).await
    }

    fn dial(
        &self,
        from: IpAddr,
        to: SocketAddr,
    ) -> io::Result<impl Future<Output = io::Result<TcpStream>> + Send + 'static> {
        let _system = self.system.enter();
        let is_own = to.ip().is_loopback() || from == to.ip();
        let socket = if is_own {
            self.namespace.socket(to)?
        } else {
            let socket = TcpSocket::new_v4()?;
            let from = match from {
                IpAddr::V4(from) if !from.is_loopback() && !from.is_unspecified() => from,
                _ => self.gateway,
            };
            // Another pod's address is none of this machine's, to the kernel.
            SockRef::from(&socket).set_ip_transparent_v4(true)?;
            socket.bind((from, 0).into())?;
            socket
        };
        Ok(async move {
            let connection = socket.connect(to).await?;
            connection.set_nodelay(true)?;
            Ok(connection)
        })
    }

    /// Gives a datagram to the pod's link, or loses it.
    pub(in crate::network) fn deliver(&self, to: SocketAddr, datagram: &Datagram) {
        self.uplink.deliver(datagram.from, to, &datagram.data);
    }

    /// Listens within the namespace for a listener of the switch.
    ///
    /// # Errors
    /// The port is taken there.
    pub(in crate::network) fn mirror(
        &self,
        local: SocketAddr,
        listener: mpsc::Sender<Stream>,
    ) -> Result<Mirror, NetError> {
        let listening = || {
            let socket = self.namespace.listen(local)?;
            let _system = self.system.enter();
            TcpListener::from_std(socket)
        };
        let socket = listening().map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => NetError::AddressInUse,
            _ => NetError::AddressNotBindable,
        })?;
        Ok(AbortOnDropHandle::new(
            self.system.spawn(accept(socket, listener)),
        ))
    }
}

/// Takes connections of the pod's own programs to the switch's listener.
async fn accept(socket: TcpListener, listener: mpsc::Sender<Stream>) {
    loop {
        let (connection, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most likely out of descriptors: pause rather than spin.
                tracing::warn!(%error, "a connection within a pod was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(local) = connection.local_addr() else {
            continue;
        };
        let (client, server) = Stream::pair(peer, local, local);
        if listener.send(server).await.is_err() {
            return;
        }
        tokio::spawn(egress::join(connection, client));
    }
}
