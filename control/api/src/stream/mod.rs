//! Streams of bytes between clients, the API server and node agents, as Kubernetes carries them.
//!
//! | file | protocol | who speaks it |
//! |---|---|---|
//! | [`spdy`] | SPDY/3.1, a session of many streams | port-forward of kubectl; exec and attach of older clients |
//! | [`websocket`] | the opening of a WebSocket, and one as a plain stream of bytes | everything newer |
//! | [`channel`] | `channel.k8s.io`: numbered channels in one WebSocket | exec, attach, port-forward |
//! | [`port_forward`] | which stream or channel is which port | port-forward |
//! | [`remote_command`] | which streams exec and attach have, and how they end | exec, attach |
//! | [`local`] | none: connections within one process | an API server and an agent that share one |
//!
//! Nothing here serves HTTP or spawns a task: an opened connection (tokio's `AsyncRead` and `AsyncWrite`)
//! goes in, streams and a future that drives them come out.

pub mod channel;
pub mod local;
pub mod port_forward;
pub mod remote_command;
pub mod spdy;
pub mod websocket;

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// How long the other side may take to answer that a connection is closed. Leaving before it has may lose
/// what is on its way to it.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// A stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Copies both ways until both directions have ended or one of them failed. The end of one direction is
/// passed on while the other still runs.
///
/// # Errors
/// Reading or writing failed on either side.
pub async fn join(mut a: impl ByteStream, mut b: impl ByteStream) -> std::io::Result<()> {
    tokio::io::copy_bidirectional(&mut a, &mut b)
        .await
        .map(|_| ())
}
