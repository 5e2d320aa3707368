//! The way to pods of other nodes.
//!
//! Without root there are no routes between nodes; a connection to a pod elsewhere is carried by
//! the agents. [`Tunnel`] is the calling side: given the address of a pod it opens a byte stream to
//! that pod by whatever link the agents have. The receiving side hands the stream to
//! [`super::HostNetwork::connect_local`].

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to another node.
pub trait TunnelStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> TunnelStream for T {}

/// Carries connections to pods of other nodes.
#[async_trait]
pub trait Tunnel: Send + Sync + 'static {
    /// Opens a connection from the pod at `from` to the pod at `to`.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody listens there, `HostUnreachable` if no node has the address,
    /// anything else if the link fails.
    async fn connect(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Box<dyn TunnelStream>>;
}
