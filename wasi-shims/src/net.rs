//! The network of a guest, as the shims see it.
//!
//! `wasi:sockets` and `wasi:http` are implemented over [`VirtualNetwork`]; whoever embeds the
//! shims decides what an address means. Nothing here knows a kernel socket, a wasmtime type or a
//! pod. Connections are [`Stream`]s: in-memory, back-pressured pipes (see `pipe.rs`), so that two
//! guests on one host exchange bytes without a copy or a task in between.
//!
//! Invariant: every call returns at once; waiting is a future or a `poll_*` function.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

pub use crate::pipe::{Meters, Stream};

/// A boxed future that owns all it needs.
pub type NetFuture<T> = Pin<Box<dyn Future<Output = Result<T, NetError>> + Send>>;

/// Why the network did not do what was asked; the shims map it to WASI's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NetError {
    /// A rule of the network forbids it (egress rule, network policy).
    #[error("access denied")]
    AccessDenied,
    /// The port is taken, or no ephemeral port is left.
    #[error("address in use")]
    AddressInUse,
    /// The address is not one of this network's own.
    #[error("address not bindable")]
    AddressNotBindable,
    /// Nobody listens there.
    #[error("connection refused")]
    ConnectionRefused,
    /// The other side broke the connection.
    #[error("connection reset")]
    ConnectionReset,
    /// There is no way to that address.
    #[error("remote unreachable")]
    RemoteUnreachable,
    /// The other side did not answer in time.
    #[error("timed out")]
    Timeout,
    /// The argument makes no sense here (family, port 0, ...).
    #[error("invalid argument")]
    InvalidArgument,
    /// The name does not exist.
    #[error("name does not resolve")]
    NameUnresolvable,
    /// The resolver could not be asked; trying later may help.
    #[error("temporary resolver failure")]
    TemporaryResolverFailure,
    /// A datagram longer than [`MAX_DATAGRAM`].
    #[error("datagram too large")]
    DatagramTooLarge,
    /// The network has as many sockets as it may have.
    #[error("too many sockets")]
    TooManySockets,
    /// The network does not offer this.
    #[error("not supported")]
    NotSupported,
}

/// The longest UDP payload over IPv4: 65,535 less the IP and UDP headers.
pub const MAX_DATAGRAM: usize = 65_507;

/// One guest's view of a network: its own addresses, its peers, its names.
pub trait VirtualNetwork: Send + Sync + 'static {
    /// Reserves a TCP address; port 0 picks a free one. Dropping the binding frees it.
    fn bind_tcp(&self, local: SocketAddr) -> Result<Box<dyn TcpBinding>, NetError>;

    /// Opens a UDP port; port 0 picks a free one. Dropping the last reference closes it.
    fn bind_udp(&self, local: SocketAddr) -> Result<Arc<dyn UdpPort>, NetError>;

    /// Opens a connection. `from` is the address the socket was bound to, if it was.
    ///
    /// Dropping the future gives the attempt up.
    fn connect(&self, from: Option<SocketAddr>, remote: SocketAddr) -> NetFuture<Stream>;

    /// The addresses of `name`, best first; never an empty list.
    fn resolve(&self, name: &str) -> NetFuture<Vec<IpAddr>>;
}

/// A reserved TCP address.
pub trait TcpBinding: Send + Sync {
    /// The address with its port filled in.
    fn local(&self) -> SocketAddr;

    /// Starts to accept connections, of which up to `backlog` wait.
    fn listen(self: Box<Self>, backlog: usize) -> Result<Box<dyn TcpListener>, NetError>;
}

/// A listening TCP port; dropping it closes the port and the connections not yet accepted.
pub trait TcpListener: Send + Sync {
    /// The address listened on.
    fn local(&self) -> SocketAddr;

    /// The next connection; an error means that the listener is finished.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, NetError>>;

    /// Refuses connections from now on. Those that were let in before are still accepted; after the last
    /// of them accepting fails.
    fn close(&mut self);
}

/// A datagram and the address it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The sender's address.
    pub from: SocketAddr,
    /// The payload.
    pub data: Bytes,
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Datagram({} bytes from {})", self.data.len(), self.from)
    }
}

/// An open UDP port. Like UDP itself it loses datagrams rather than wait.
pub trait UdpPort: Send + Sync {
    /// The address with its port filled in.
    fn local(&self) -> SocketAddr;

    /// Sends one datagram. Nobody listening there is not an error.
    fn send(&self, to: SocketAddr, data: Bytes) -> Result<(), NetError>;

    /// The next datagram. Only the last caller's waker is kept.
    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Result<Datagram, NetError>>;
}

/// A network without addresses: every call is refused. The default grant.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoNetwork;

impl VirtualNetwork for NoNetwork {
    fn bind_tcp(&self, _: SocketAddr) -> Result<Box<dyn TcpBinding>, NetError> {
        Err(NetError::AccessDenied)
    }

    fn bind_udp(&self, _: SocketAddr) -> Result<Arc<dyn UdpPort>, NetError> {
        Err(NetError::AccessDenied)
    }

    fn connect(&self, _: Option<SocketAddr>, _: SocketAddr) -> NetFuture<Stream> {
        Box::pin(std::future::ready(Err(NetError::AccessDenied)))
    }

    fn resolve(&self, _: &str) -> NetFuture<Vec<IpAddr>> {
        Box::pin(std::future::ready(Err(NetError::AccessDenied)))
    }
}
