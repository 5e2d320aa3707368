//! The TLS listener: connections to requests.
//!
//! HTTP/2 and HTTP/1.1 by ALPN; whose certificates are shown and believed is `tls.rs`. On shutdown the listener closes, requests in flight end, and what lasts by nature
//! (watches) is cut after a grace period.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::authn::PeerCertificate;
use super::peers::Peers;
use super::tls::{Accept, Tls};

/// A client gets this long to finish its handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A client of HTTP/2 that is silent for so long is asked whether it is there, and cut off if it is not.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Requests in flight get this long when the server stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// After a failed accept (out of descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The client's end of a connection, as an extension of its requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAddress(pub(super) SocketAddr);

/// What requests are answered by.
pub(crate) trait Responder: Send + Sync + 'static {
    /// What strangers may cost.
    fn peers(&self) -> &Arc<Peers>;

    /// Answers a request. Never fails: an error is a response.
    fn respond(self: Arc<Self>, request: Request<Body>) -> impl Future<Output = Response> + Send;
}

/// Why the API cannot be served.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("set up TLS: {0}")]
    Tls(String),
}

/// Opens the listening socket.
///
/// # Errors
/// [`ListenError::Bind`], with the port that is taken.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError::Bind { address, source })
}

/// Serves connections until `stop`, without TLS if there is none.
pub(crate) async fn serve<S: Responder>(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    server: Arc<S>,
    stop: CancellationToken,
) {
    let graceful = Arc::new(GracefulShutdown::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(connected) = server.peers().connect(peer.ip()) else {
                    tracing::debug!(%peer, "refused: too many connections");
                    continue;
                };
                let tls = tls.as_ref().map(|tls| tls.accept());
                let server = Arc::clone(&server);
                let watcher = graceful.watcher();
                tokio::spawn(async move {
                    let peer = PeerAddress(peer);
                    if let Err(error) = accept(stream, peer, tls, server, watcher).await {
                        tracing::debug!(peer = %peer.0, error, "connection ended");
                    }
                    drop(connected);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let Some(graceful) = Arc::into_inner(graceful) else {
        return;
    };
    if tokio::time::timeout(DRAIN_LIMIT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("connections were cut at shutdown");
    }
}

async fn accept<S: Responder>(
    stream: TcpStream,
    address: PeerAddress,
    tls: Option<Arc<Accept>>,
    server: Arc<S>,
    watcher: Watcher,
) -> Result<(), String> {
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let Some(tls) = tls else {
        return connection(stream, address, None, server, watcher).await;
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await;
    let stream = handshake
        .map_err(|_| "handshake timed out".to_owned())?
        .map_err(|error| format!("handshake: {error}"))?;
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = certificates.and_then(|chain| tls.read(chain));
    connection(stream, address, peer, server, watcher).await
}

async fn connection<S: Responder>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: PeerAddress,
    peer: Option<PeerCertificate>,
    server: Arc<S>,
    watcher: Watcher,
) -> Result<(), String> {
    let head = server.peers().limits().head;
    let service = service_fn(move |request: Request<Incoming>| {
        let server = Arc::clone(&server);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(address);
        if let Some(peer) = peer.clone() {
            request.extensions_mut().insert(peer);
        }
        async move { Ok::<_, std::convert::Infallible>(server.respond(request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(1000);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    watcher
        .watch(connection.into_owned())
        .await
        .map_err(|error| error.to_string())
}
