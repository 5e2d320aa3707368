//! `POST /tunnel?from=IP:PORT&to=IP:PORT`: connections from pods of other nodes (`network::tunnel`).
//!
//! 1. The caller is a node's agent (`tls`); it gets this endpoint and no other.
//! 2. `to` must be of this node's pod CIDR: an agent is no relay. `from` must be of the caller's, so that
//!    a node speaks for its own pods only, and what a pod sees as its peer can be believed; or else be no
//!    pod's at all, and then it claims to be none.
//! 3. The pod is connected to before the upgrade is answered: a refusal is the answer.
//! 4. From then on a task joins both sides until both ended, or the agent stops.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_wasi_shims::net::{NetError, Stream};

use super::json;
use crate::network::tunnel::wire::{self, Call};
use crate::network::tunnel::{Outcome, Side};
use crate::network::{self, HostNetwork};

/// Connections carried at the same time; each holds a socket.
const MAX_TUNNELS: usize = 16_384;

/// How long to wait for word of the Node that a caller's address belongs to: its pods may call before
/// this node heard of it.
const NEWS_OF_NODE: Duration = Duration::from_secs(5);

/// What the endpoint works with; cheap to clone.
#[derive(Clone)]
pub(super) struct Tunnels {
    network: HostNetwork,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why a call is not put through.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("nodes may open tunnels here and nothing else")]
    NotATunnel,
    #[error("a tunnel needs `Upgrade: {}`", wire::PROTOCOL)]
    NoUpgrade,
    #[error("{0}")]
    Malformed(String),
    #[error("{0} is not an address of this node's pods")]
    NotOurs(IpAddr),
    #[error("{address} is not an address of pods of node {node}")]
    NotTheirs { address: IpAddr, node: String },
    #[error("this node carries as many connections as it can")]
    TooMany,
    #[error(transparent)]
    Network(#[from] NetError),
}

impl Refusal {
    fn answer(&self) -> (StatusCode, Option<&'static str>) {
        let of = |error| {
            let (status, word) = wire::refusal(error);
            (status, Some(word))
        };
        match self {
            Self::NotATunnel => (StatusCode::FORBIDDEN, None),
            Self::NoUpgrade => (StatusCode::UPGRADE_REQUIRED, None),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, None),
            Self::NotOurs(_) | Self::NotTheirs { .. } => of(NetError::AccessDenied),
            Self::TooMany => (StatusCode::SERVICE_UNAVAILABLE, None),
            Self::Network(error) => of(*error),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::NotATunnel | Self::NoUpgrade | Self::Malformed(_) => Outcome::Malformed,
            Self::NotOurs(_) => Outcome::ForeignTarget,
            Self::NotTheirs { .. } => Outcome::ForeignSource,
            Self::TooMany => Outcome::TooMany,
            Self::Network(NetError::AccessDenied) => Outcome::Denied,
            Self::Network(_) => Outcome::Failed,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, word) = self.answer();
        let mut response = (status, format!("{self}\n")).into_response();
        let headers = response.headers_mut();
        if let Some(word) = word {
            headers.insert(wire::ERROR, HeaderValue::from_static(word));
        }
        if self == Self::NoUpgrade {
            let protocol = HeaderValue::from_static(wire::PROTOCOL);
            headers.insert(header::UPGRADE, protocol);
        }
        response
    }
}

impl Tunnels {
    /// Carries connections as tasks of `tasks` until `stop`.
    pub(super) fn new(network: HostNetwork, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self {
            network,
            permits: Arc::new(Semaphore::new(MAX_TUNNELS)),
            tasks,
            stop,
        }
    }

    /// Answers a request of the agent of `node`.
    ///
    /// Dropping the future mid-way leaves no connection behind.
    pub(super) async fn answer(&self, node: &str, mut request: Request<Incoming>) -> Response {
        if request.uri().path() == wire::POD_PATH && request.method() == http::Method::GET {
            return self.describe(&request);
        }
        let opened = self.open(node, &mut request).await;
        let outcome = opened
            .as_ref()
            .map_or_else(Refusal::outcome, |()| Outcome::Opened);
        self.network.tunnel_counts().count(Side::Answered, outcome);
        match opened {
            Ok(()) => switching(),
            Err(refusal) => {
                tracing::debug!(node, uri = %request.uri(), %refusal, "no tunnel");
                refusal.into_response()
            }
        }
    }

    /// Tells which pod of this node has the address asked for.
    fn describe(&self, request: &Request<Incoming>) -> Response {
        let asked = wire::asked_pod(request.uri().query().unwrap_or_default());
        match asked.and_then(|ip| self.network.describe(ip)) {
            Some(pod) => json(pod.as_ref()),
            None => Refusal::Network(NetError::RemoteUnreachable).into_response(),
        }
    }

    async fn open(&self, node: &str, request: &mut Request<Incoming>) -> Result<(), Refusal> {
        let call = read(request)?;
        self.admit(node, &call).await?;
        let permit = self.permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Refusal::TooMany)?;
        let stream = self.network.connect_local(&call).await?;
        let carried = carry(hyper::upgrade::on(request), stream);
        let stop = self.stop.clone();
        let counted = self.network.tunnel_counts().carry();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = carried => {}
            }
            drop((permit, counted));
        });
        Ok(())
    }

    async fn admit(&self, node: &str, call: &Call) -> Result<(), Refusal> {
        if !self.network.is_of_this_node(call.to.ip()) {
            return Err(Refusal::NotOurs(call.to.ip()));
        }
        let address = call.from.ip();
        if call.caller.is_none() && !self.network.is_pod_address(address) {
            // Somebody outside, by a port of that node.
            return Ok(());
        }
        let owner = tokio::time::timeout(NEWS_OF_NODE, self.network.node_of(address)).await;
        match owner {
            Ok(owner) if owner == node => Ok(()),
            _ => Err(Refusal::NotTheirs {
                address,
                node: node.to_owned(),
            }),
        }
    }
}

fn read(request: &Request<Incoming>) -> Result<Call, Refusal> {
    if request.uri().path() != wire::PATH || request.method() != http::Method::POST {
        return Err(Refusal::NotATunnel);
    }
    let upgrade = request.headers().get(header::UPGRADE);
    // Without the extension hyper has no connection to hand over (HTTP/2, or no `Connection: upgrade`).
    if upgrade.is_none_or(|protocol| protocol != wire::PROTOCOL)
        || request.extensions().get::<OnUpgrade>().is_none()
    {
        return Err(Refusal::NoUpgrade);
    }
    let caller = request.headers().get(wire::CALLER);
    let query = request.uri().query().unwrap_or_default();
    Call::parse(query, caller.map(HeaderValue::as_bytes)).map_err(Refusal::Malformed)
}

async fn carry(upgrade: OnUpgrade, stream: Stream) {
    match upgrade.await {
        Ok(link) => network::join(TokioIo::new(link), stream).await,
        Err(error) => {
            tracing::debug!(%error, "the caller of a tunnel went away");
            stream.reset();
        }
    }
}

fn switching() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    let protocol = HeaderValue::from_static(wire::PROTOCOL);
    headers.insert(header::UPGRADE, protocol);
    response
}

#[cfg(test)]
mod tests;
