//! The calling side of the tunnel: dials the agent of the node that has the pod.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::wire::{self, Call};
use super::{Outcome, Side, Tunnel, TunnelCounts, TunnelIdentity, TunnelStream, prepare_link};
use crate::network::node_table::{NodeRoute, NodeTable};
use crate::network::policy::PodIdentity;
use crate::server::tls;

/// How long one address of a node may take to answer, before the next one is tried.
const DIAL: Duration = Duration::from_secs(10);

/// The longest description of a pod that is read: as long as an object may be.
const MAX_DESCRIPTION: usize = 3 << 20;

/// The tunnel between node agents.
pub(crate) struct AgentTunnel {
    nodes: Arc<NodeTable>,
    identity: TunnelIdentity,
    counts: Arc<TunnelCounts>,
}

impl AgentTunnel {
    pub(crate) fn new(
        nodes: Arc<NodeTable>,
        identity: TunnelIdentity,
        counts: Arc<TunnelCounts>,
    ) -> Self {
        Self {
            nodes,
            identity,
            counts,
        }
    }

    fn count(&self, outcome: Outcome) {
        self.counts.count(Side::Called, outcome);
    }

    /// A link to the node's agent, by the first of its addresses that answers.
    async fn dial(&self, node: &NodeRoute) -> io::Result<TlsStream<TcpStream>> {
        for endpoint in &node.endpoints {
            let dialled = tokio::time::timeout(DIAL, self.dial_endpoint(node, *endpoint)).await;
            match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(link) => return Ok(link),
                Err(error) => {
                    // A node that is down has all its peers' connections fail; its lease tells of it.
                    tracing::debug!(node = node.name, %endpoint, %error, "no tunnel to a node");
                    self.count(match error.kind() {
                        // What both TLS and the check of the name make of a certificate.
                        io::ErrorKind::InvalidData => Outcome::Certificate,
                        _ => Outcome::Unreachable,
                    });
                }
            }
        }
        // Not the last error: an agent that refuses connections is no pod that does.
        Err(io::ErrorKind::HostUnreachable.into())
    }

    async fn dial_endpoint(
        &self,
        node: &NodeRoute,
        endpoint: SocketAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let link = TcpStream::connect(endpoint).await?;
        prepare_link(&link)?;
        let name = ServerName::from(endpoint.ip());
        let link = TlsConnector::from(self.identity.config())
            .connect(name, link)
            .await?;
        // A node chooses its addresses, not its name: the address alone would let one node stand in
        // for another.
        let shown = link.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = shown.first().and_then(tls::node_name);
        if shown.as_deref() != Some(node.name.as_str()) {
            tracing::warn!(node = node.name, %endpoint, ?shown, "another node answers");
            let error = "the certificate shown is another node's";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(link)
    }
}

#[async_trait]
impl Tunnel for AgentTunnel {
    /// Dropping the future gives the call up; the other agent notices.
    async fn connect(&self, call: Call) -> io::Result<Box<dyn TunnelStream>> {
        let node = self.nodes.owner(call.to.ip()).ok_or_else(unreachable)?;
        let link = self.dial(&node).await?;
        let opened = open(link, &node, &call).await;
        self.count(match &opened {
            Ok(_) => Outcome::Opened,
            // No word of a refusal means this.
            Err(error) if error.kind() == io::ErrorKind::Other => Outcome::Broken,
            Err(_) => Outcome::Refused,
        });
        opened
    }

    async fn describe(&self, pod: IpAddr) -> io::Result<PodIdentity> {
        let node = self.nodes.owner(pod).ok_or_else(unreachable)?;
        let link = self.dial(&node).await?;
        let request = Request::get(wire::pod_uri(pod)).header(header::HOST, &node.name);
        let (response, _connection) = send(link, request).await?;
        if response.status() != StatusCode::OK {
            return Err(unreachable());
        }
        let body = Limited::new(response.into_body(), MAX_DESCRIPTION);
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        serde_json::from_slice(&body).map_err(io::Error::other)
    }
}

fn unreachable() -> io::Error {
    io::ErrorKind::HostUnreachable.into()
}

/// Sends a request without a body over a new link; the link ends when the second value is dropped, unless it
/// was handed over.
async fn send(
    link: TlsStream<TcpStream>,
    request: http::request::Builder,
) -> io::Result<(Response<Incoming>, AbortOnDropHandle<hyper::Result<()>>)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(link))
        .await
        .map_err(io::Error::other)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await;
    Ok((response.map_err(io::Error::other)?, connection))
}

async fn open(
    link: TlsStream<TcpStream>,
    node: &NodeRoute,
    call: &Call,
) -> io::Result<Box<dyn TunnelStream>> {
    let mut request = Request::post(call.uri())
        .header(header::HOST, &node.name)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, wire::PROTOCOL);
    if let Some(caller) = call.caller_header() {
        request = request.header(wire::CALLER, caller);
    }
    let (response, _connection) = send(link, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(node, call, &response));
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(io::Error::other)?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

fn refused(node: &NodeRoute, call: &Call, response: &Response<Incoming>) -> io::Error {
    let word = response
        .headers()
        .get(wire::ERROR)
        .map(HeaderValue::to_str)
        .and_then(Result::ok);
    let status = response.status();
    tracing::debug!(node = node.name, ?call, %status, word, "a tunnel was refused");
    word.map_or(io::ErrorKind::HostUnreachable, wire::error_kind)
        .into()
}
