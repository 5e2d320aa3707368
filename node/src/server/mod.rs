//! The node's daemon endpoint: the part of kubelet's HTTPS API that the API server uses.
//!
//! 1. [`DaemonServer::bind`] listens; [`DaemonServer::serve`] accepts until stopped.
//! 2. A connection must show a client certificate of the cluster's CA ([`tls`]), whose name or group is
//!    one of the API server's or a node's; everything else is refused before a byte of HTTP is read.
//! 3. Routes of the API server: `containerLogs`, `pods`, `stats/summary`, `metrics` ([`metrics`]), `healthz`, `windlass/…` ([`info`]), and by upgrade `exec`,
//!    `attach` and `portForward` ([`streaming`]).
//! 4. An API server of this process connects without a socket ([`DaemonServer::dialer`]); whoever holds the
//!    dialer is the API server.
//! 5. Nodes get the tunnel between agents ([`tunnel`]) and nothing else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::List;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_api::node_info;
use windlass_api::stream::ByteStream;
use windlass_api::stream::local::{self, Acceptor, Dialer};

use crate::logs::Logs;
use crate::network::HostNetwork;
use crate::network::tunnel::prepare_link;
use crate::pods::{KnownPods, RunningContainers};

mod container_logs;
mod info;
mod metrics;
pub(crate) mod stats;
mod streaming;
#[cfg(test)]
pub(crate) mod test_pki;
pub mod tls;
mod tunnel;

use streaming::Carrier;
use tls::{Client, DaemonTls};
use tunnel::Tunnels;

const MAX_CONNECTIONS: usize = 1024;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take for the head of a request.
const REQUEST_HEAD: Duration = Duration::from_secs(30);

/// What the routes answer from.
#[derive(Clone)]
pub(crate) struct DaemonState {
    /// Name of the node.
    pub(crate) node: Arc<str>,
    pub(crate) pods: KnownPods,
    pub(crate) logs: Logs,
    pub(crate) containers: RunningContainers,
    pub(crate) looks: stats::Looks,
    /// The way to the pods of this node.
    pub(crate) network: HostNetwork,
    /// The pods that other nodes may connect to, if nodes are let in.
    pub(crate) tunnels: Option<HostNetwork>,
}

/// What a connection is served with.
#[derive(Clone)]
struct Endpoint {
    tls: Option<DaemonTls>,
    api_server: TowerToHyperService<Router>,
    tunnels: Option<Tunnels>,
}

/// A daemon endpoint that listens, or only waits for an API server of this process.
pub(crate) struct DaemonServer {
    socket: Option<(TcpListener, DaemonTls)>,
    dialer: Dialer,
    local: Acceptor,
}

/// A connection that was accepted.
enum Link {
    Socket(TcpStream),
    Process(DuplexStream),
}

impl DaemonServer {
    /// Listens on `address`; port 0 picks one.
    pub(crate) async fn bind(address: SocketAddr, tls: &DaemonTls) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            socket: Some((listener, tls.clone())),
            ..Self::in_process()
        })
    }

    /// Without a socket.
    pub(crate) fn in_process() -> Self {
        let (dialer, local) = local::pair();
        Self {
            socket: None,
            dialer,
            local,
        }
    }

    /// Where it listens, if it does.
    pub(crate) fn local_addr(&self) -> std::io::Result<Option<SocketAddr>> {
        let socket = self.socket.as_ref();
        socket
            .map(|(listener, _)| listener.local_addr())
            .transpose()
    }

    /// Connects the API server of this process.
    pub(crate) fn dialer(&self) -> Dialer {
        self.dialer.clone()
    }

    /// Serves until `stop`; then lets running requests end their current piece and returns.
    pub(crate) async fn serve(mut self, state: DaemonState, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let tunnels = state
            .tunnels
            .clone()
            .map(|pods| Tunnels::new(pods, connections.clone(), stop.clone()));
        let carrier = Carrier::new(connections.clone(), stop.clone());
        let (listener, tls) = self.socket.unzip();
        let endpoint = Endpoint {
            tls,
            api_server: TowerToHyperService::new(router(state, carrier)),
            tunnels,
        };
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                break;
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(listener.as_ref()) => accepted.map(Link::Socket),
                Some(pipe) = self.local.accept() => Ok(Link::Process(pipe)),
            };
            let link = match accepted {
                Ok(link) => link,
                Err(error) => {
                    // Out of descriptors: the next accept would fail at once too.
                    tracing::warn!(%error, "daemon endpoint: accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let connection = endpoint.clone().serve(link);
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

/// The next connection to a socket; never without one.
async fn accept(listener: Option<&TcpListener>) -> std::io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

impl Endpoint {
    async fn serve(self, link: Link) {
        match link {
            Link::Socket(socket) => self.serve_socket(socket).await,
            Link::Process(pipe) => self.answer(pipe, Some(Client::ApiServer)).await,
        }
    }

    async fn serve_socket(self, stream: TcpStream) {
        let Some(tls) = self.tls.clone() else {
            return;
        };
        if let Err(error) = prepare_link(&stream) {
            return tracing::debug!(%error, "daemon endpoint: the connection is gone");
        }
        let acceptor = TlsAcceptor::from(tls.server_config());
        let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "daemon endpoint: handshake failed"),
            Err(_) => return tracing::debug!("daemon endpoint: handshake timed out"),
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let client = certificates
            .first()
            .and_then(|certificate| tls.allowed().identify(certificate));
        self.answer(stream, client).await;
    }

    async fn answer(self, connection: impl ByteStream + 'static, client: Option<Client>) {
        let io = TokioIo::new(connection);
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_HEAD);
        let served = match (client, self.tunnels) {
            (Some(Client::ApiServer), _) => {
                http.serve_connection_with_upgrades(io, self.api_server)
                    .await
            }
            (Some(Client::Node(node)), Some(tunnels)) => {
                let service = service_fn(move |request| {
                    let (tunnels, node) = (tunnels.clone(), node.clone());
                    async move { Ok::<_, Infallible>(tunnels.answer(&node, request).await) }
                });
                http.serve_connection_with_upgrades(io, service).await
            }
            (client, _) => {
                return tracing::warn!(?client, "daemon endpoint: a client was refused");
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "daemon endpoint: connection ended");
        }
    }
}

fn router(state: DaemonState, carrier: Carrier) -> Router {
    let streaming = streaming::routes(state.clone(), carrier);
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(container_logs::serve),
        )
        .route("/stats/summary", get(stats::serve))
        .route("/metrics", get(metrics::of_agent))
        .route("/metrics/resource", get(metrics::resource))
        .route("/metrics/cadvisor", get(metrics::cadvisor))
        .route(node_info::COMPONENTS_PATH, get(info::components))
        .route(node_info::FLOWS_PATH, get(info::flows))
        .with_state(state)
        .merge(streaming)
}

async fn pods(State(state): State<DaemonState>) -> Response {
    let items = state.pods.all().iter().map(|pod| (**pod).clone()).collect();
    let list = List {
        items,
        ..List::default()
    };
    json(&list)
}

/// An answer in JSON.
fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::{BodyExt, Empty};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use serde_json::json;

    use super::test_pki::Authority;
    use super::*;
    use crate::logs::{LogLimits, Output};
    use crate::network::{Network, NetworkConfig};
    use crate::pods::NodeContext;

    struct World {
        ca: Authority,
        address: SocketAddr,
        _directory: tempfile::TempDir,
        _stop: tokio_util::sync::DropGuard,
    }

    async fn world() -> World {
        let ca = Authority::new();
        let tls = ca.daemon("system:node:a");
        let daemon = DaemonServer::bind(([127, 0, 0, 1], 0).into(), &tls)
            .await
            .unwrap();
        let address = daemon.local_addr().unwrap().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::new(directory.path().to_owned(), LogLimits::default());
        let pods = KnownPods::default();
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "default", "uid": "u" },
            "spec": { "containers": [{ "name": "a" }] },
        }))
        .unwrap();
        logs.begin(&NodeContext::identity(&pod), "a", 0)
            .write(Output::Stdout, b"one\ntwo\n");
        pods.insert("u", Arc::new(pod));
        let stop = CancellationToken::new();
        tokio::spawn(daemon.serve(
            DaemonState {
                node: "a".into(),
                looks: stats::Looks::default(),
                pods,
                logs,
                containers: RunningContainers::default(),
                network: Network::new(NetworkConfig::default()).host(),
                tunnels: None,
            },
            stop.clone(),
        ));
        World {
            ca,
            address,
            _directory: directory,
            _stop: stop.drop_guard(),
        }
    }

    impl World {
        async fn get(&self, client: &str, path: &str) -> Result<(StatusCode, String), String> {
            let (certificate, key) = self.ca.issue(client, None);
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.ca.der()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let stream = TcpStream::connect(self.address).await.unwrap();
            let name = ServerName::from(self.address.ip());
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|e| e.to_string())?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(|e| e.to_string())?;
            tokio::spawn(connection);
            let request = Request::get(path).header(header::HOST, "node");
            let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| e.to_string())?;
            let status = response.status();
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(|e| e.to_string())?
                .to_bytes();
            Ok((status, String::from_utf8(body.to_vec()).unwrap()))
        }
    }

    const API_SERVER: &str = "kube-apiserver-kubelet-client";

    #[tokio::test]
    async fn the_api_server_reads_logs_and_nobody_else() {
        let world = world().await;
        let path = "/containerLogs/default/p/a?tailLines=1";
        assert_eq!(
            world.get(API_SERVER, path).await.unwrap(),
            (StatusCode::OK, "two\n".to_owned())
        );
        assert!(world.get("system:node:other", path).await.is_err());
    }

    #[tokio::test]
    async fn what_is_not_there_is_said() {
        let world = world().await;
        let cases = [
            ("/healthz", 200, "ok"),
            (
                "/containerLogs/default/no/a",
                404,
                "pod \"default/no\" not found",
            ),
            (
                "/containerLogs/default/p/no",
                400,
                "container \"no\" is not valid for pod \"p\"",
            ),
            ("/containerLogs/default/p/a?tailLines=x", 400, "tailLines"),
            (
                "/containerLogs/default/p/a?previous=true",
                400,
                "previous terminated container",
            ),
            ("/exec/default/p/a?output=1", 400, "no command was given"),
            (
                "/exec/default/p/a?output=1&command=x",
                404,
                "container a not found in pod p_default",
            ),
            ("/pods", 200, "\"uid\":\"u\""),
        ];
        for (path, want, part) in cases {
            let (status, body) = world.get(API_SERVER, path).await.unwrap();
            assert_eq!(status.as_u16(), want, "{path}");
            assert!(body.contains(part), "{path}: {body}");
        }
    }
}
