//! Connections that change their protocol: a client's, a node's, and what goes between them.
//!
//! Upgrades are HTTP/1.1's. A client that comes by HTTP/2, or asks for none, has no connection to hand
//! over and is told so.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use windlass_api::stream::websocket::{self, OpenError};
use windlass_api::stream::{ByteStream, join};

use super::{Daemon, NodeConnector, refused};
use crate::registry::error::ApiError;
use crate::server::Context;

/// Headers by which client and server agree on a protocol.
pub(super) const AGREEMENT: [HeaderName; 8] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_VERSION,
    HeaderName::from_static("x-stream-protocol-version"),
];

/// An upgraded connection.
pub(crate) type Connection = TokioIo<Upgraded>;

/// The client's connection, once the answer has been sent.
pub(super) fn required(context: &Context) -> Result<OnUpgrade, ApiError> {
    let wanted = websocket::upgrade(&context.headers).is_some();
    let upgrade = context.upgrade.clone().filter(|_| wanted);
    upgrade.ok_or_else(|| ApiError::BadRequest("Upgrade request required".into()))
}

/// Answers `101 Switching Protocols` and runs `serve` on the connection.
pub(crate) fn switch<F: Future<Output = ()> + Send>(
    upgrade: OnUpgrade,
    headers: HeaderMap,
    serve: impl FnOnce(Connection) -> F + Send + 'static,
) -> Response {
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => serve(TokioIo::new(connection)).await,
            Err(error) => tracing::debug!(%error, "a client went away before its upgrade"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

/// Opens a WebSocket with the client, of this subprotocol, and runs `serve` on it.
pub(crate) fn web_socket<F: Future<Output = ()> + Send>(
    context: &Context,
    protocol: Option<&str>,
    serve: impl FnOnce(WebSocketStream<Connection>) -> F + Send + 'static,
) -> Result<Response, ApiError> {
    let upgrade = required(context)?;
    let headers =
        websocket::response_headers(&context.headers, protocol).map_err(|e| refusal(&e))?;
    Ok(switch(upgrade, headers, async move |connection| {
        serve(websocket::server(connection).await).await;
    }))
}

/// What a client is told when there is no protocol that both know.
pub(crate) fn refusal(error: &OpenError) -> ApiError {
    ApiError::BadRequest(format!("unable to upgrade: {error}"))
}

/// Copies between a client and what it is connected to, until both have ended.
pub(super) async fn relay(client: impl ByteStream, other: impl ByteStream) {
    if let Err(error) = join(client, other).await {
        tracing::debug!(%error, "an upgraded connection broke");
    }
}

/// The headers of `from` that agree on a protocol.
pub(super) fn agreement(from: &HeaderMap) -> HeaderMap {
    let agrees = |(name, _): &(&HeaderName, _)| AGREEMENT.contains(name);
    let lines = from.iter().filter(agrees);
    lines
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

impl NodeConnector {
    /// Passes the client's upgrade through to a node: the two agree on a protocol, and speak it past us.
    pub(super) async fn pass_upgrade(
        &self,
        daemon: &Daemon,
        path: String,
        context: &Context,
    ) -> Result<Response, ApiError> {
        let client = required(context)?;
        let response = self
            .upgrade(daemon, path, agreement(&context.headers))
            .await?;
        let headers = agreement(response.headers());
        let node = hyper::upgrade::on(response);
        Ok(switch(client, headers, async move |client| {
            match node.await {
                Ok(node) => relay(client, TokioIo::new(node)).await,
                Err(error) => tracing::debug!(%error, "a node went away before its upgrade"),
            }
        }))
    }

    /// Asks a node for an upgrade; answers its response, which grants it.
    pub(super) async fn upgrade(
        &self,
        daemon: &Daemon,
        path: String,
        headers: HeaderMap,
    ) -> Result<Response, ApiError> {
        let mut request = Request::get(path)
            .body(Body::empty())
            .map_err(|error| ApiError::BadRequest(error.to_string()))?;
        *request.headers_mut() = headers;
        let response = self.send(daemon, request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        Err(refused(daemon, response).await)
    }
}
