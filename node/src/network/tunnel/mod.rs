//! The way to pods of other nodes.
//!
//! Without root there are no routes between nodes; a connection to a pod elsewhere is carried by
//! the agents, over mTLS:
//!
//! ```text
//!   pod ─► pipe ─► agent.rs ══ POST /tunnel?from=…&to=… ══► server/tunnel.rs ─► pipe ─► pod
//!                  (identity.rs)     Upgrade: windlass-tunnel   HostNetwork::connect_local
//! ```
//!
//! 1. [`Tunnel`] is the calling side as the network sees it; [`AgentTunnel`] is the one that dials.
//! 2. The owner of the pod's address is looked up among the cluster's Nodes (`node_table.rs`), and its
//!    daemon endpoint is dialled with the node's client certificate. The certificate shown there must
//!    be that of the very node.
//! 3. The call says which pod it is for. The receiving agent checks who calls, from where and whereto, asks the
//!    pod's policies, connects to it, and answers `101`; from then on the connection is the pod's. What went wrong is said in a header (`wire.rs`).
//! 4. The end of a direction is TLS's close_notify and then TCP's FIN; a connection that ends without
//!    it was broken, and is broken at the other end too. Back-pressure is TCP's.
//!
//! An agent whose pod may only send to certain pods asks first who has the address: `GET /tunnel/pod?ip=…`.
//!
//! One TLS connection per stream: a slow reader holds up nobody else, which streams that share one
//! connection's window could. Resumed sessions keep the handshake to one round trip without
//! signatures.
//!
//! Differs from Kubernetes: Nodes may read all Nodes here; where an API server grants them their own
//! only, pods of other nodes stay unreachable until the agent's user is allowed to.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

mod agent;
mod counts;
mod identity;
pub(crate) mod wire;

pub(crate) use agent::AgentTunnel;
pub(crate) use counts::{Outcome, Side, TunnelCounts};
pub use identity::TunnelIdentity;
pub use wire::Call;

use super::policy::PodIdentity;

/// A byte stream to another node.
pub trait TunnelStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> TunnelStream for T {}

/// Carries connections to pods of other nodes.
#[async_trait]
pub trait Tunnel: Send + Sync + 'static {
    /// Opens a connection to a pod of another node.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody listens there, `HostUnreachable` if no node has the address,
    /// anything else if the link fails.
    async fn connect(&self, call: Call) -> io::Result<Box<dyn TunnelStream>>;

    /// Asks which pod of another node has the address.
    ///
    /// # Errors
    /// `HostUnreachable` if none has, anything else if the link fails.
    async fn describe(&self, pod: IpAddr) -> io::Result<PodIdentity>;
}

/// How long a silent link is trusted before it is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Prepares a link between agents: small writes go at once, and a peer that vanished without a word
/// is noticed within two minutes though neither side has anything to say.
///
/// # Errors
/// The socket refuses, which a broken one does.
pub(crate) fn prepare_link(link: &TcpStream) -> io::Result<()> {
    link.set_nodelay(true)?;
    sockopt::set_socket_keepalive(link, true)?;
    sockopt::set_tcp_keepidle(link, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(link, KEEP_ALIVE / 3)?;
    sockopt::set_tcp_keepcnt(link, 6)?;
    Ok(())
}
