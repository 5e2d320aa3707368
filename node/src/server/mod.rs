//! The node's daemon endpoint: the part of kubelet's HTTPS API that the API server uses.
//!
//! 1. [`DaemonServer::bind`] listens; [`DaemonServer::serve`] accepts until stopped.
//! 2. A connection must show a client certificate of the cluster's CA ([`tls`]), whose name or group is
//!    one of the API server's; everything else is refused before a byte of HTTP is read.
//! 3. Routes: `containerLogs`, `pods`, `healthz`; `exec`, `attach` and `portForward` answer 501 until they
//!    are offered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::{StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::List;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::logs::Logs;
use crate::pods::KnownPods;

mod container_logs;
pub mod tls;

use tls::DaemonTls;

const MAX_CONNECTIONS: usize = 1024;
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What the routes answer from.
#[derive(Clone)]
pub(crate) struct DaemonState {
    pub(crate) pods: KnownPods,
    pub(crate) logs: Logs,
}

/// A daemon endpoint that listens.
pub(crate) struct DaemonServer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    allowed: Arc<tls::AllowedClients>,
}

impl DaemonServer {
    /// Listens on `address`; port 0 picks one.
    pub(crate) async fn bind(address: SocketAddr, tls: &DaemonTls) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let acceptor = TlsAcceptor::from(tls.server_config());
        Ok(Self {
            listener,
            acceptor,
            allowed: tls.allowed(),
        })
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`; then lets running requests end their current piece and returns.
    pub(crate) async fn serve(self, state: DaemonState, stop: CancellationToken) {
        let service = TowerToHyperService::new(router(state));
        let connections = TaskTracker::new();
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                break;
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: the next accept would fail at once too.
                    tracing::warn!(%error, "daemon endpoint: accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let connection = serve_connection(
                stream,
                self.acceptor.clone(),
                self.allowed.clone(),
                service.clone(),
            );
            let stop = stop.clone();
            connections.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = connection => {}
                }
                drop(permit);
            });
        }
        connections.close();
        connections.wait().await;
    }
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    allowed: Arc<tls::AllowedClients>,
    service: TowerToHyperService<Router>,
) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "daemon endpoint: handshake failed"),
        Err(_) => return tracing::debug!("daemon endpoint: handshake timed out"),
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    if !certificates
        .first()
        .is_some_and(|certificate| allowed.admits(certificate))
    {
        return tracing::warn!("daemon endpoint: a client that is not the API server was refused");
    }
    let served = auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "daemon endpoint: connection ended");
    }
}

fn router(state: DaemonState) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(container_logs::serve),
        )
        .route("/exec/{*path}", any(|| not_offered("exec")))
        .route("/attach/{*path}", any(|| not_offered("attach")))
        .route("/portForward/{*path}", any(|| not_offered("portForward")))
        .with_state(state)
}

async fn not_offered(what: &str) -> Response {
    let text = format!("{what} is not supported yet by this node");
    (StatusCode::NOT_IMPLEMENTED, text).into_response()
}

async fn pods(State(state): State<DaemonState>) -> Response {
    let items = state.pods.all().iter().map(|pod| (**pod).clone()).collect();
    let list = List {
        items,
        ..List::default()
    };
    match serde_json::to_vec(&list) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
