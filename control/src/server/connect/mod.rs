//! The way from the API server to node agents, as to kubelets: HTTPS to the node's daemon endpoint, with
//! a client certificate of the server's, and the node's serving certificate checked.

mod log;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pki::{Authority, Identity};
use crate::registry::error::ApiError;
use crate::store::{ObjectKey, Snapshot};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Connects to node agents.
#[derive(Clone)]
pub struct NodeConnector {
    tls: TlsConnector,
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
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let (chain, key) = identity.for_rustls();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Sends a request to a node's agent and answers with its response, body streaming.
    async fn send(&self, daemon: &Daemon, uri: Uri) -> Result<Response, ApiError> {
        let unreachable = |what: &str, error: &dyn std::fmt::Display| {
            ApiError::Internal(format!(
                "{what} node {:?} at {}:{}: {error}",
                daemon.node, daemon.address, daemon.port
            ))
        };
        let connect = async {
            let stream = TcpStream::connect((daemon.address, daemon.port)).await?;
            self.tls
                .connect(ServerName::from(daemon.address), stream)
                .await
        };
        let stream = tokio::time::timeout(CONNECT_LIMIT, connect)
            .await
            .map_err(|error| unreachable("connect to", &error))?
            .map_err(|error| unreachable("connect to", &error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable("talk to", &error))?;
        // Ends with the response's body.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a node ended");
            }
        });
        let request = Request::get(uri)
            .header(
                http::header::HOST,
                format!("{}:{}", daemon.address, daemon.port),
            )
            .body(Body::empty())
            .map_err(|error| ApiError::Internal(error.to_string()))?;
        let response = sender.send_request(request).await;
        Ok(response
            .map_err(|error| unreachable("talk to", &error))?
            .map(Body::new))
    }
}

impl std::fmt::Debug for NodeConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeConnector")
    }
}

impl Daemon {
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
