//! Port-forward: for clients, and as the way of proxies to pods.
//!
//! | the client speaks | the node is spoken to |
//! |---|---|
//! | WebSocket, `v4.channel.k8s.io` and others | the same, passed through |
//! | SPDY/3.1 | the same, passed through |
//! | WebSocket, `SPDY/3.1+portforward.k8s.io` | SPDY/3.1, unwrapped from the messages |
//! | HTTP, to a proxy | SPDY/3.1, one pair of streams ([`PodConnection`]) |

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use windlass_api::stream::port_forward::{Half, Request, SPDY_PROTOCOL, TUNNEL_PROTOCOL, ports};
use windlass_api::stream::spdy::{self, Role, Session};
use windlass_api::stream::websocket;

use super::upgrade::{relay, web_socket};
use super::{Daemon, NodeConnector};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::server::Context;
use crate::store::Snapshot;

/// How long to wait for a node's word on why there is no connection.
const REASON_LIMIT: Duration = Duration::from_secs(1);
/// How much of that is taken.
const MAX_REASON: u64 = 4096;

impl NodeConnector {
    /// Connects the client to ports of `pod`.
    pub(crate) async fn port_forward(
        &self,
        pod: &Value,
        context: &Context,
        snapshot: &Snapshot,
    ) -> Result<Response, ApiError> {
        let daemon = Daemon::of_pod(pod, snapshot)?;
        let headers = &context.headers;
        if !websocket::is_requested(headers) {
            return self.pass_upgrade(&daemon, path(pod), context).await;
        }
        if websocket::offered(headers).any(|offer| offer == TUNNEL_PROTOCOL) {
            return self.tunnel(&daemon, pod, context).await;
        }
        let ports = ports(context.query.all("ports")).map_err(ApiError::BadRequest)?;
        let ports: Vec<_> = ports.iter().map(|port| format!("port={port}")).collect();
        let path = format!("{}?{}", path(pod), ports.join("&"));
        self.pass_upgrade(&daemon, path, context).await
    }

    /// A session of SPDY whose bytes come in a WebSocket's messages.
    async fn tunnel(
        &self,
        daemon: &Daemon,
        pod: &Value,
        context: &Context,
    ) -> Result<Response, ApiError> {
        let response = self.upgrade(daemon, path(pod), spdy_headers()).await?;
        let node = hyper::upgrade::on(response);
        web_socket(
            context,
            Some(TUNNEL_PROTOCOL),
            async move |socket| match node.await {
                Ok(node) => relay(websocket::bytes(socket), TokioIo::new(node)).await,
                Err(error) => tracing::debug!(%error, "a node went away before its upgrade"),
            },
        )
    }

    /// A connection to a port of a pod, and where the node says why if there is none after all.
    pub(super) async fn dial_pod(
        &self,
        daemon: &Daemon,
        pod: &Value,
        port: u16,
    ) -> Result<(PodConnection, Reason), ApiError> {
        let response = self.upgrade(daemon, path(pod), spdy_headers()).await?;
        let node = hyper::upgrade::on(response).await;
        let node = node.map_err(|error| daemon.unreachable("talk to", &error))?;
        let (session, driver) = Session::new(TokioIo::new(node), Role::Client);
        // Ends when the connection is dropped, which closes the session.
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to a pod broke");
            }
        });
        let open = |half| {
            let id = "0".to_owned();
            let stream = session.open(Request { half, port, id }.headers());
            stream.map_err(|error| daemon.unreachable("talk to", &error))
        };
        let (error, data) = (open(Half::Error)?, open(Half::Data)?);
        let connection = PodConnection {
            stream: data,
            _open: OpenSession(session),
        };
        Ok((connection, Reason(error)))
    }
}

fn path(pod: &Value) -> String {
    format!("/portForward/{}/{}", meta::namespace(pod), meta::name(pod))
}

fn spdy_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static(spdy::PROTOCOL)),
        (
            HeaderName::from_static("x-stream-protocol-version"),
            HeaderValue::from_static(SPDY_PROTOCOL),
        ),
    ])
}

/// A connection to a port of a pod. Dropping it closes it.
pub(super) struct PodConnection {
    stream: spdy::Stream,
    _open: OpenSession,
}

/// Closes the session when dropped, once what was written is sent.
struct OpenSession(Session);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Where a node says why a connection failed.
pub(super) struct Reason(spdy::Stream);

impl Reason {
    /// What it says, if it does.
    pub(super) async fn text(self) -> Option<String> {
        let mut text = Vec::new();
        let mut stream = self.0.take(MAX_REASON);
        let read = stream.read_to_end(&mut text);
        // What was read until an error or the limit is what there is.
        let _cut = tokio::time::timeout(REASON_LIMIT, read).await;
        (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
    }
}

impl AsyncRead for PodConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PodConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
