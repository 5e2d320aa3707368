//! `/attach/{namespace}/{pod}/{container}?input=1&output=1&error=1`: what `kubectl attach` ends at.
//!
//! Output comes from the container's log sink, as the guest writes it; input goes to its standard input,
//! if it was left open. With `stdinOnce` the input ends with the first client that attached to it. A client's terminal
//! has the same line discipline as with exec; what ends a command there (Ctrl-C) ends the container here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::Request;
use axum::response::Response;
use bytes::BytesMut;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::AsyncReadExt;
use windlass_api::stream::remote_command::{Outcome, Streams};

use super::remote_command::{Pipe, RemoteCommand, RemoteStreams, open};
use super::screen::{End, Screen, send};
use super::sizes::Sizes;
use super::{Place, Refusal, Routes};
use crate::logs::{LiveOutput, Output};
use crate::pods::{NodeContext, facts};
use crate::runtime::{PodIdentity, RunningContainer, Stdin};
use crate::server::DaemonState;
use crate::server::container_logs::has_container;

/// Bytes of input taken at once.
pub(super) const PIECE: usize = 16 << 10;

/// A client's connection to a container that runs.
struct Attach {
    /// Keeps nothing running: that is its worker's alone.
    running: Weak<dyn RunningContainer>,
    output: LiveOutput,
    stdin: Option<OpenStdin>,
    /// Whether the client has a terminal, and the container none of the kernel's.
    needs_discipline: bool,
}

/// The container's input; with `once`, it is closed when the client is done.
struct OpenStdin {
    stdin: Stdin,
    once: bool,
}

impl Drop for OpenStdin {
    fn drop(&mut self) {
        if self.once {
            self.stdin.close();
        }
    }
}

pub(super) fn no_such_pod(namespace: &str, pod: &str) -> Refusal {
    Refusal::NotFound(format!("pod \"{namespace}/{pod}\" not found"))
}

/// What a request is about.
pub(super) struct Found {
    pod: Arc<Pod>,
    identity: PodIdentity,
    pub(super) running: Arc<dyn RunningContainer>,
}

/// A container that runs, by namespace, pod, uid of the pod where one is given, and name.
pub(super) fn find_running(state: &DaemonState, place: Place<'_>) -> Result<Found, Refusal> {
    let Place {
        namespace,
        pod: name,
        uid,
        container,
    } = place;
    let pod = state.pods.find(namespace, name);
    let pod = pod.filter(|pod| uid.is_none() || pod.metadata.uid.as_deref() == uid);
    let pod = pod.ok_or_else(|| no_such_pod(namespace, name))?;
    let identity = NodeContext::identity(&pod);
    let running = has_container(&pod, container)
        .then(|| state.containers.find(&identity.uid, container))
        .flatten();
    let running = running.ok_or_else(|| absent(&identity, container))?;
    Ok(Found {
        pod,
        identity,
        running,
    })
}

fn absent(pod: &PodIdentity, container: &str) -> Refusal {
    let PodIdentity {
        namespace, name, ..
    } = pod;
    Refusal::NotFound(format!(
        "container {container} not found in pod {name}_{namespace}"
    ))
}

/// Connects to a container.
pub(super) fn attach(
    routes: &Routes,
    place: Place<'_>,
    query: &str,
    request: Request,
) -> Result<Response, Refusal> {
    let streams = streams(query)?;
    let container = place.container;
    let Found {
        pod,
        identity,
        running,
    } = find_running(&routes.state, place)?;
    let output = routes.state.logs.attach(&identity, container);
    let output = output.ok_or_else(|| absent(&identity, container))?;
    let once = is_stdin_once(&pod, container);
    let stdin = running.stdin().filter(|_| streams.stdin);
    let attach = Attach {
        running: Arc::downgrade(&running),
        output,
        stdin: stdin.map(|stdin| OpenStdin { stdin, once }),
        needs_discipline: streams.tty && !running.has_terminals(),
    };
    open(&routes.carrier, request, streams, Box::new(attach))
}

/// The streams that a client wants.
pub(super) fn streams(query: &str) -> Result<Streams, Refusal> {
    let given = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.any(|(name, value)| name == wanted && matches!(&*value, "1" | "true"))
    };
    let streams = Streams {
        stdin: given("input"),
        stdout: given("output"),
        stderr: given("error"),
        tty: given("tty"),
    };
    streams
        .checked()
        .map_err(|text| Refusal::BadRequest(text.to_owned()))
}

fn is_stdin_once(pod: &Pod, name: &str) -> bool {
    let spec = pod.spec.as_ref();
    let found = spec.and_then(|spec| facts::container(spec, name));
    found.is_some_and(|container| container.stdin_once == Some(true))
}

#[async_trait]
impl RemoteCommand for Attach {
    async fn run(mut self: Box<Self>, streams: RemoteStreams) -> Outcome {
        if self.needs_discipline {
            return self.on_screen(streams).await;
        }
        let has_output = streams.stdout.is_some() || streams.stderr.is_some();
        let input = pass_in(streams.stdin, self.stdin.take());
        let output = pass_out(&mut self.output, streams.stdout, streams.stderr);
        let (mut input, mut output) = (std::pin::pin!(input), std::pin::pin!(output));
        tokio::select! {
            () = &mut output => {}
            // A client that only sends is done when it has sent all.
            () = &mut input => if has_output {
                output.await;
            },
            () = resize(&self.running, streams.resize) => {}
        }
        Outcome::Success
    }
}

impl Attach {
    async fn on_screen(mut self, streams: RemoteStreams) -> Outcome {
        let input = self.stdin.as_ref().map(|open| open.stdin.clone());
        let screen = Screen::new(streams.stdin, streams.stdout, input, false);
        let end = tokio::select! {
            end = screen.carry(&mut self.output) => end,
            () = ignore(streams.resize) => return Outcome::Success,
        };
        match end {
            End::Output => Outcome::Success,
            End::Signal(code) => {
                if let Some(container) = self.running.upgrade() {
                    container.stop(Duration::ZERO).await;
                }
                Outcome::Exited(code)
            }
        }
    }
}

/// The client's input to the container's, until either ends. What a container without an open input is
/// sent is thrown away.
async fn pass_in(from: Option<Pipe>, to: Option<OpenStdin>) {
    let Some(mut from) = from else {
        return std::future::pending().await;
    };
    let mut piece = BytesMut::new();
    loop {
        piece.reserve(PIECE);
        // An error means that the client is gone: its input has ended as well.
        if from.read_buf(&mut piece).await.unwrap_or(0) == 0 {
            return;
        }
        let data = piece.split().freeze();
        if let Some(to) = &to
            && to.stdin.write(data).await.is_err()
        {
            return;
        }
    }
}

/// The sizes of the client's terminal to the container's. Never ends. It keeps no container alive.
async fn resize(container: &Weak<dyn RunningContainer>, sizes: Option<Pipe>) {
    let mut sizes = Sizes::new(sizes);
    while let Some(size) = sizes.next().await {
        let Some(container) = container.upgrade() else {
            break;
        };
        container.resize_terminal(size).await;
    }
    std::future::pending::<()>().await;
}

/// Sizes of the client's terminal: a guest has none that could have a size. Never ends.
pub(super) async fn ignore(sizes: Option<Pipe>) {
    if let Some(mut sizes) = sizes {
        // An error means that the client is gone, which others notice as well.
        let _gone = tokio::io::copy(&mut sizes, &mut tokio::io::sink()).await;
    }
    std::future::pending::<()>().await;
}

/// The container's output to the client, until the container ends or the client is gone.
async fn pass_out(output: &mut LiveOutput, stdout: Option<Pipe>, stderr: Option<Pipe>) {
    let (mut stdout, mut stderr) = (stdout, stderr);
    while let Some((of, data)) = output.next().await {
        let pipe = match of {
            Output::Stdout => &mut stdout,
            Output::Stderr => &mut stderr,
        };
        let Some(pipe) = pipe else { continue };
        if send(pipe, &data).await.is_err() {
            return;
        }
    }
}
