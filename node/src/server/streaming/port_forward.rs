//! `/portForward/{namespace}/{pod}`: connections to ports of a pod.
//!
//! A connection is made inside of the pod, as upstream makes it in the pod's network namespace: what
//! listens on the pod's loopback only is reached as well. Each has a stream for bytes and one for an
//! error in words; both end when the connection does.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::task::JoinSet;
use windlass_api::stream::ByteStream;
use windlass_api::stream::channel::{Direction, PORT_FORWARD, Protocol, channels};
use windlass_api::stream::port_forward::{self, Half, SPDY_PROTOCOL, preface};
use windlass_api::stream::spdy::{Incoming, Role, Session, Stream};
use windlass_api::stream::websocket;
use windlass_wasi_shims::net::Stream as PodStream;

use super::attach::no_such_pod;
use super::{Agreed, Connection, Opening, Refusal, Routes};
use crate::network::HostNetwork;

/// How long a client may go on sending to a pod that has said all it had to. A WebSocket has no way to end
/// one direction, so waiting for its end would be waiting for the client to leave.
const LINGER: Duration = Duration::from_secs(1);

/// A pod whose ports are forwarded.
#[derive(Clone)]
struct Target {
    network: HostNetwork,
    pod: String,
    uid: String,
    address: IpAddr,
}

pub(super) async fn serve(
    State(routes): State<Routes>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let query = query.unwrap_or_default();
    let answer = forward(&routes, (&namespace, &pod), &query, request);
    answer.unwrap_or_else(IntoResponse::into_response)
}

pub(super) async fn serve_uid(
    State(routes): State<Routes>,
    Path((namespace, pod, uid)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let query = query.unwrap_or_default();
    let known = routes.state.pods.find(&namespace, &pod);
    if known.is_none_or(|pod| pod.metadata.uid.as_ref() != Some(&uid)) {
        return no_such_pod(&namespace, &pod).into_response();
    }
    let answer = forward(&routes, (&namespace, &pod), &query, request);
    answer.unwrap_or_else(IntoResponse::into_response)
}

fn forward(
    routes: &Routes,
    (namespace, name): (&str, &str),
    query: &str,
    request: Request,
) -> Result<Response, Refusal> {
    let pod = routes.state.pods.find(namespace, name);
    let pod = pod.ok_or_else(|| no_such_pod(namespace, name))?;
    let target = Target::of(&pod, routes.state.network.clone())?;
    let opening = Opening::of(request, PORT_FORWARD, &[SPDY_PROTOCOL])?;
    match opening.agreed {
        Agreed::WebSocket(protocol) => {
            let ports = ports(query).map_err(Refusal::BadRequest)?;
            routes.carrier.carry(opening.upgrade, move |connection| {
                over_websocket(connection, protocol, ports, target)
            });
        }
        Agreed::Spdy(_) => routes.carrier.carry(opening.upgrade, move |connection| {
            over_spdy(connection, target)
        }),
    }
    Ok(opening.response)
}

fn ports(query: &str) -> Result<Vec<u16>, String> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let values: Vec<_> = pairs
        .filter(|(name, _)| name == "port")
        .map(|(_, value)| value)
        .collect();
    port_forward::ports(values.iter().map(|value| &**value))
}

async fn over_websocket(
    connection: Connection,
    protocol: Protocol,
    ports: Vec<u16>,
    target: Target,
) {
    let pair = [Direction::Both, Direction::ToClient];
    let directions: Vec<_> = ports.iter().flat_map(|_| pair).collect();
    let socket = websocket::server(connection).await;
    let (pipes, driver) = channels(socket, protocol, &directions, prefaces(&ports));
    let mut pipes = pipes.into_iter();
    let pairs = ports
        .into_iter()
        .map_while(|port| Some((port, pipes.next()?, pipes.next()?)));
    let connections = pairs.map(|(port, data, error)| target.carry(port, data, error));
    let connections = join_all(connections);
    let mut driver = std::pin::pin!(driver);
    tokio::select! {
        _ = connections => driver.await,
        () = &mut driver => {}
    }
}

/// What is said first on both channels of each port.
fn prefaces(ports: &[u16]) -> Vec<(u8, Vec<u8>)> {
    let twice = ports.iter().flat_map(|port| [preface(*port); 2]);
    (0..).zip(twice.map(Vec::from)).collect()
}

async fn over_spdy(connection: Connection, target: Target) {
    let (session, driver) = Session::new(connection, Role::Server);
    tokio::select! {
        () = accept_pairs(&session, target) => {}
        ended = driver => if let Err(error) = ended {
            tracing::debug!(%error, "a client's session broke");
        },
    }
}

/// Carries a connection for each pair of streams, until the session ends.
async fn accept_pairs(session: &Session, target: Target) {
    let mut halves = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = session.accept() => incoming,
            Some(_) = connections.join_next() => continue,
        };
        let Some(incoming) = incoming else { return };
        if let Some((port, data, error)) = pair(&mut halves, incoming) {
            let target = target.clone();
            connections.spawn(async move { target.carry(port, data, error).await });
        }
    }
}

/// Takes a stream; answers its pair once both halves are there. The session bounds how many wait.
fn pair(
    halves: &mut HashMap<(u16, String), (Half, Stream)>,
    incoming: Incoming,
) -> Option<(u16, Stream, Stream)> {
    let request = match port_forward::Request::parse(&incoming.headers) {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(error, "a stream was refused");
            incoming.refuse();
            return None;
        }
    };
    let key = (request.port, request.id);
    match (halves.remove(&key), request.half) {
        (Some((Half::Error, error)), Half::Data) => Some((key.0, incoming.accept(), error)),
        (Some((Half::Data, data)), Half::Error) => Some((key.0, data, incoming.accept())),
        // The same half once more takes the place of one that nobody completed.
        (_, half) => {
            halves.insert(key, (half, incoming.accept()));
            None
        }
    }
}

impl Target {
    fn of(pod: &Pod, network: HostNetwork) -> Result<Self, Refusal> {
        let metadata = &pod.metadata;
        let name = metadata.name.clone().unwrap_or_default();
        let address = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.as_ref());
        let address = address.and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| {
            Refusal::BadRequest(format!("pod {name} is not running: it has no address"))
        })?;
        Ok(Self {
            network,
            address,
            uid: metadata.uid.clone().unwrap_or_default(),
            pod: name,
        })
    }

    /// One connection, until it ends.
    async fn carry(&self, port: u16, data: impl ByteStream, mut error: impl ByteStream) {
        let failure = match self.network.connect_inside(self.address, port).await {
            Ok(stream) => return join(data, stream).await,
            Err(failure) => failure,
        };
        let Self { pod, uid, .. } = self;
        let text = format!(
            "error forwarding port {port} to pod {pod}, uid {uid}: failed to connect to localhost:{port} inside of the pod: {failure}"
        );
        let said = async {
            error.write_all(text.as_bytes()).await?;
            error.shutdown().await
        };
        if let Err(error) = said.await {
            tracing::debug!(%error, "a client left before it heard of an error");
        }
    }
}

/// Copies both ways until the pod has ended its direction, and a little longer the other way.
async fn join(data: impl ByteStream, stream: PodStream) {
    let (mut from_client, mut to_client) = split(data);
    let (mut from_pod, mut to_pod) = split(stream);
    let inward = async {
        copy(&mut from_client, &mut to_pod).await?;
        to_pod.shutdown().await
    };
    let outward = async {
        copy(&mut from_pod, &mut to_client).await?;
        to_client.shutdown().await
    };
    let ended = {
        let (mut inward, mut outward) = (std::pin::pin!(inward), std::pin::pin!(outward));
        tokio::select! {
            ended = &mut inward => match ended {
                Ok(()) => outward.await,
                broken => broken,
            },
            ended = &mut outward => match ended {
                Ok(()) => tokio::time::timeout(LINGER, inward).await.unwrap_or(Ok(())),
                broken => broken,
            },
        }
    };
    if ended.is_err() {
        from_pod.unsplit(to_pod).reset();
    }
}
