//! What lasts on a connection: exec, attach and port-forward, by WebSocket or SPDY.
//!
//! 1. A handler checks the request and looks up what it is about; whatever is wrong is an ordinary answer.
//! 2. [`Opening::of`] agrees on a protocol with the client, and answers `101 Switching Protocols`.
//! 3. [`Carrier`] runs what follows as a task that ends with the connection, or with the agent.
//!
//! ```text
//!   exec          exec.rs ───┐
//!   attach        attach.rs ─┴► remote_command.rs: streams by number or type ─┬─ WebSocket, channel.k8s.io
//!   port-forward  port_forward.rs: pairs of data and error ──────────────────┴─ SPDY/3.1
//! ```

use std::future::Future;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_api::stream::channel::Protocol;
use windlass_api::stream::spdy;
use windlass_api::stream::websocket::{self, OpenError};

use super::DaemonState;

mod attach;
mod exec;
mod port_forward;
mod remote_command;
mod screen;
mod sizes;
mod terminal;
#[cfg(test)]
mod tests;

/// The header by which a client of SPDY names protocols, best first, and the server the one chosen.
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// An upgraded connection.
type Connection = TokioIo<Upgraded>;

/// Runs what was upgraded; cheap to clone.
#[derive(Clone)]
pub(super) struct Carrier {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the routes answer from.
#[derive(Clone)]
struct Routes {
    state: DaemonState,
    carrier: Carrier,
}

/// The routes of exec, attach and port-forward.
pub(super) fn routes(state: DaemonState, carrier: Carrier) -> Router {
    Router::new()
        .route(
            "/attach/{namespace}/{pod}/{container}",
            begins(attach::attach),
        )
        .route(
            "/attach/{namespace}/{pod}/{uid}/{container}",
            begins(attach::attach),
        )
        .route("/exec/{namespace}/{pod}/{container}", begins(exec::exec))
        .route(
            "/exec/{namespace}/{pod}/{uid}/{container}",
            begins(exec::exec),
        )
        .route("/portForward/{namespace}/{pod}", any(port_forward::serve))
        .route(
            "/portForward/{namespace}/{pod}/{uid}",
            any(port_forward::serve_uid),
        )
        .with_state(Routes { state, carrier })
}

/// The container that a request is about.
#[derive(Clone, Copy)]
struct Place<'a> {
    namespace: &'a str,
    pod: &'a str,
    /// `metadata.uid` of the pod, where the path has one.
    uid: Option<&'a str>,
    container: &'a str,
}

/// Begins a session with a container, as a query says.
type Begin = fn(&Routes, Place<'_>, &str, Request) -> Result<Response, Refusal>;

/// The handler of paths that name a container.
fn begins(begin: Begin) -> MethodRouter<Routes> {
    let handler = move |State(routes): State<Routes>,
                        Path(parts): Path<Vec<String>>,
                        RawQuery(query): RawQuery,
                        request: Request| async move {
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        let (uid, (namespace, pod, container)) = match parts.as_slice() {
            [namespace, pod, container] => (None, (*namespace, *pod, *container)),
            [namespace, pod, uid, container] => (Some(*uid), (*namespace, *pod, *container)),
            _ => return Refusal::NotFound("no such path".to_owned()).into_response(),
        };
        let place = Place {
            namespace,
            pod,
            uid,
            container,
        };
        let begun = begin(&routes, place, &query.unwrap_or_default(), request);
        begun.unwrap_or_else(IntoResponse::into_response)
    };
    any(handler)
}

impl Carrier {
    /// Runs connections as tasks of `tasks` until `stop`.
    pub(super) fn new(tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { tasks, stop }
    }

    /// Runs `serve` on the connection once it is there.
    fn carry<F: Future<Output = ()> + Send>(
        &self,
        upgrade: OnUpgrade,
        serve: impl FnOnce(Connection) -> F + Send + 'static,
    ) {
        let stop = self.stop.clone();
        let carried = async move {
            match upgrade.await {
                Ok(connection) => serve(TokioIo::new(connection)).await,
                Err(error) => tracing::debug!(%error, "a client went away before its upgrade"),
            }
        };
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = carried => {}
            }
        });
    }
}

/// Why there is nothing to stream.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    NotFound(String),
    #[error("Upgrade request required")]
    NoUpgrade,
    #[error("unable to upgrade: {0}")]
    Protocol(OpenError),
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Malformed => Self::BadRequest(error.to_string()),
            OpenError::Protocol { .. } => Self::Protocol(error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::BadRequest(_) | Self::NoUpgrade => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Protocol(_) => StatusCode::FORBIDDEN,
        };
        (status, self.to_string()).into_response()
    }
}

/// What was agreed on.
enum Agreed {
    WebSocket(Protocol),
    Spdy(&'static str),
}

/// An upgrade that was agreed on.
struct Opening {
    agreed: Agreed,
    upgrade: OnUpgrade,
    response: Response,
}

impl Opening {
    /// Agrees on a protocol with the client of `request`.
    fn of(
        mut request: Request,
        channels: &[Protocol],
        versions: &[&'static str],
    ) -> Result<Self, Refusal> {
        // Without the extension there is no connection to hand over (HTTP/2, or no upgrade wanted).
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or(Refusal::NoUpgrade)?;
        let headers = request.headers();
        let (agreed, answer) = if websocket::is_requested(headers) {
            let (protocol, name) = Protocol::select(headers, channels)?;
            let answer = websocket::response_headers(headers, name)?;
            (Agreed::WebSocket(protocol), answer)
        } else if websocket::upgrade(headers).is_some_and(is_spdy) {
            let version = spdy_version(headers, versions)?;
            (Agreed::Spdy(version), spdy_headers(version))
        } else {
            return Err(Refusal::NoUpgrade);
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = answer;
        Ok(Self {
            agreed,
            upgrade,
            response,
        })
    }
}

fn is_spdy(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case(spdy::PROTOCOL)
}

/// The first version the client names that there is. A client that names none speaks the oldest.
fn spdy_version(headers: &HeaderMap, versions: &[&'static str]) -> Result<&'static str, Refusal> {
    let mut offered = websocket::items(headers, PROTOCOL_VERSION).peekable();
    if offered.peek().is_none() {
        return versions.last().copied().ok_or(Refusal::NoUpgrade);
    }
    let known = |offer: &str| versions.iter().copied().find(|version| *version == offer);
    offered.find_map(known).ok_or_else(|| {
        Refusal::Protocol(OpenError::Protocol {
            offered: websocket::items(headers, PROTOCOL_VERSION)
                .map(str::to_owned)
                .collect(),
            supported: versions.to_vec(),
        })
    })
}

fn spdy_headers(version: &'static str) -> HeaderMap {
    let upgrade = HeaderValue::from_static("Upgrade");
    HeaderMap::from_iter([
        (header::CONNECTION, upgrade),
        (header::UPGRADE, HeaderValue::from_static(spdy::PROTOCOL)),
        (PROTOCOL_VERSION, HeaderValue::from_static(version)),
    ])
}
