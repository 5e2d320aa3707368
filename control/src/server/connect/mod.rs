//! The way from the API server to node agents, as to kubelets: HTTPS to the node's daemon endpoint, with
//! a client certificate of the server's, and the node's serving certificate checked.
//!
//! | file | for | the node's endpoint |
//! |---|---|---|
//! | `log.rs` | pods/log | `/containerLogs` |
//! | `remote_command.rs` | pods/exec, pods/attach | `/exec`, `/attach`: the upgrade is passed through |
//! | `port_forward.rs` | pods/portforward, and connections of proxies | `/portForward` |
//! | `stats.rs` | metrics.k8s.io | `/stats/summary` |
//! | `proxy.rs` | pods/proxy, services/proxy, nodes/proxy | a connection to the pod; the node itself |
//!
//! An agent of this process is reached without a socket ([`NodeConnector::reach_locally`]), by the same
//! HTTP.
//!
//! What goes wrong before an upgrade is answered with a Status, whatever the node said.

mod log;
mod pod;
mod port_forward;
mod proxy;
mod remote_command;
mod stats;
pub(super) mod upgrade;

pub(crate) use proxy::Proxied;
pub(crate) use remote_command::RemoteCommand;
pub(crate) use upgrade::web_socket;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use windlass_api::stream::ByteStream;
use windlass_api::stream::local::Dialer;

use crate::pki::{Authority, Identity};
use crate::registry::error::ApiError;
use crate::store::{ObjectKey, Snapshot};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How much of a node's error text is passed on.
const MAX_ERROR: usize = 4096;

/// Connects to node agents.
#[derive(Clone)]
pub struct NodeConnector {
    tls: Arc<ArcSwap<ClientConfig>>,
    /// Agents of this process, by the name of their node.
    local: Arc<RwLock<HashMap<String, Dialer>>>,
}

/// Where a node's agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Daemon {
    node: String,
    address: IpAddr,
    port: u16,
}

impl NodeConnector {
    /// Connects as `identity` to nodes whose certificates `authority` issued.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn new(authority: &Authority, identity: &Identity) -> Result<Self, rustls::Error> {
        let config = client_config(authority, identity)?;
        Ok(Self {
            tls: Arc::new(ArcSwap::from_pointee(config)),
            local: Arc::default(),
        })
    }

    /// Makes the connections from now on so.
    ///
    /// # Errors
    /// When the certificate cannot be used; everything stays as it was then.
    pub fn replace(&self, authority: &Authority, identity: &Identity) -> Result<(), rustls::Error> {
        self.tls
            .store(Arc::new(client_config(authority, identity)?));
        Ok(())
    }

    /// Sends a request to a node's agent and answers with its response, body streaming.
    async fn send(
        &self,
        daemon: &Daemon,
        mut request: Request<Body>,
    ) -> Result<Response, ApiError> {
        let connection = self.connect(daemon).await?;
        let host = format!("{}:{}", daemon.address, daemon.port);
        let host = HeaderValue::try_from(host);
        let host = host.map_err(|error| ApiError::Internal(error.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        let response = exchange(connection, request).await;
        response.map_err(|error| daemon.unreachable("talk to", &error))
    }

    /// From now on the agent of this node, which is of this process, is connected to by `dialer`.
    pub fn reach_locally(&self, node: &str, dialer: Dialer) {
        let mut local = self.local.write().unwrap_or_else(PoisonError::into_inner);
        local.insert(node.to_owned(), dialer);
    }

    fn local(&self, node: &str) -> Option<Dialer> {
        let local = self.local.read().unwrap_or_else(PoisonError::into_inner);
        local.get(node).cloned()
    }

    async fn connect(&self, daemon: &Daemon) -> Result<Box<dyn ByteStream>, ApiError> {
        // An agent that has stopped may be followed by one in another process.
        if let Some(dialer) = self.local(&daemon.node)
            && let Some(connection) = dialer.dial().await
        {
            return Ok(Box::new(connection));
        }
        Ok(Box::new(self.connect_by_tls(daemon).await?))
    }

    async fn connect_by_tls(&self, daemon: &Daemon) -> Result<impl ByteStream + use<>, ApiError> {
        let connect = async {
            let stream = TcpStream::connect((daemon.address, daemon.port)).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(self.tls.load_full())
                .connect(ServerName::from(daemon.address), stream)
                .await
        };
        tokio::time::timeout(CONNECT_LIMIT, connect)
            .await
            .map_err(|error| daemon.unreachable("connect to", &error))?
            .map_err(|error| daemon.unreachable("connect to", &error))
    }
}

fn client_config(
    authority: &Authority,
    identity: &Identity,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in authority.trusted() {
        roots.add(certificate)?;
    }
    let (chain, key) = identity.for_rustls();
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
}

/// One request over a connection of its own, which ends with the response's body or goes on as what it
/// was upgraded to.
async fn exchange(
    connection: impl ByteStream + 'static,
    request: Request<Body>,
) -> Result<Response, hyper::Error> {
    let io = TokioIo::new(connection);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection ended");
        }
    });
    let response = sender.send_request(request).await?;
    Ok(response.map(Body::new))
}

/// What a node says in place of what was asked for, as an error.
async fn refused(daemon: &Daemon, response: Response) -> ApiError {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ERROR)
        .collect()
        .await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
    let text = text.unwrap_or_else(|error| format!("{status}: {error}"));
    match status.as_u16() {
        400 | 403 | 404 => ApiError::BadRequest(text),
        501 => ApiError::NotImplemented(text),
        _ => ApiError::Internal(format!("node {:?} answered {status}: {text}", daemon.node)),
    }
}

impl std::fmt::Debug for NodeConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeConnector")
    }
}

impl Daemon {
    fn unreachable(&self, what: &str, error: &dyn std::fmt::Display) -> ApiError {
        let Self {
            node,
            address,
            port,
        } = self;
        ApiError::Internal(format!("{what} node {node:?} at {address}:{port}: {error}"))
    }

    /// The agent of the node that runs `pod`.
    fn of_pod(pod: &Value, snapshot: &Snapshot) -> Result<Self, ApiError> {
        Self::of(pod::node(pod)?, snapshot)
    }

    /// The agent of the node called `name`.
    fn of(name: &str, snapshot: &Snapshot) -> Result<Self, ApiError> {
        let key = ObjectKey::new("", "nodes", "", name);
        let missing = || ApiError::Internal(format!("node {name:?} is not registered"));
        let node = crate::registry::parse(snapshot.get(&key).ok_or_else(missing)?)?;
        let addresses = node.pointer("/status/addresses").and_then(Value::as_array);
        let internal = addresses
            .into_iter()
            .flatten()
            .find(|a| a.get("type") == Some(&"InternalIP".into()));
        let address = internal.and_then(|address| address.get("address")?.as_str()?.parse().ok());
        let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port");
        let port = port
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok());
        match (address, port) {
            (Some(address), Some(port)) => Ok(Self {
                node: name.into(),
                address,
                port,
            }),
            _ => Err(ApiError::Internal(format!(
                "node {name:?} does not say where its agent listens"
            ))),
        }
    }
}
