//! The streams of a remote command, in whichever protocol they come.
//!
//! 1. The streams the client asked for are there before the command runs: a WebSocket has all channels
//!    from the start; of a SPDY session they are awaited, since the client opens them one by one.
//! 2. The command runs until it is done, or the client has left; a client that leaves drops it.
//! 3. How it ended is said on the error stream, after all output.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use axum::response::Response;
use tokio::io::AsyncWriteExt;
use windlass_api::stream::ByteStream;
use windlass_api::stream::channel::{Direction, Protocol, REMOTE_COMMAND, channels};
use windlass_api::stream::remote_command::{Outcome, SPDY_PROTOCOLS, Streams};
use windlass_api::stream::spdy::{Role, Session, Stream};
use windlass_api::stream::websocket;

use super::{Agreed, Carrier, Connection, Opening, Refusal};

/// How long a client of SPDY may take to open its streams.
const STREAMS_LIMIT: Duration = Duration::from_secs(30);
/// How long a client may take to read the end of it.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A stream to the client.
pub(super) type Pipe = Box<dyn ByteStream>;

/// What a command talks to; the streams that the client did not ask for are absent.
pub(super) struct RemoteStreams {
    pub(super) stdin: Option<Pipe>,
    pub(super) stdout: Option<Pipe>,
    pub(super) stderr: Option<Pipe>,
    /// Sizes of the client's terminal, as JSON.
    pub(super) resize: Option<Pipe>,
}

/// Something that a client's streams are connected to.
#[async_trait]
pub(super) trait RemoteCommand: Send + 'static {
    /// Runs to its end. Dropping the future means that the client has left.
    async fn run(self: Box<Self>, streams: RemoteStreams) -> Outcome;
}

/// Answers a request with the streams of a command.
pub(super) fn open(
    carrier: &Carrier,
    request: axum::extract::Request,
    streams: Streams,
    command: Box<dyn RemoteCommand>,
) -> Result<Response, Refusal> {
    let opening = Opening::of(request, REMOTE_COMMAND, SPDY_PROTOCOLS)?;
    match opening.agreed {
        Agreed::WebSocket(protocol) => carrier.carry(opening.upgrade, move |connection| {
            over_websocket(connection, protocol, streams, command)
        }),
        Agreed::Spdy(version) => carrier.carry(opening.upgrade, move |connection| {
            over_spdy(connection, version, streams, command)
        }),
    }
    Ok(opening.response)
}

async fn over_websocket(
    connection: Connection,
    protocol: Protocol,
    streams: Streams,
    command: Box<dyn RemoteCommand>,
) {
    let wanted = |wanted: bool, direction| {
        if wanted {
            direction
        } else {
            Direction::Neither
        }
    };
    let directions = [
        wanted(streams.stdin, Direction::FromClient),
        wanted(streams.stdout, Direction::ToClient),
        wanted(streams.stderr, Direction::ToClient),
        Direction::ToClient,
        wanted(streams.tty, Direction::FromClient),
    ];
    // Tells the client at once that it is connected, on the first channel that it reads.
    let greeting = directions.iter().position(|of| *of == Direction::ToClient);
    let greeting = greeting.and_then(|channel| u8::try_from(channel).ok());
    let greetings = greeting
        .map(|channel| (channel, Vec::new()))
        .into_iter()
        .collect();
    let socket = websocket::server(connection).await;
    let (pipes, driver) = channels(socket, protocol, &directions, greetings);
    let mut pipes = pipes.into_iter();
    let mut pipe = |wanted: bool| {
        let pipe = pipes.next().filter(|_| wanted);
        pipe.map(|pipe| Box::new(pipe) as Pipe)
    };
    let (stdin, stdout, stderr) = (
        pipe(streams.stdin),
        pipe(streams.stdout),
        pipe(streams.stderr),
    );
    let (error, resize) = (pipe(true), pipe(streams.tty));
    let pipes = RemoteStreams {
        stdin,
        stdout,
        stderr,
        resize,
    };
    let mut driver = std::pin::pin!(driver);
    tokio::select! {
        () = run(command, pipes, error, protocol.has_status()) => driver.await,
        () = &mut driver => {}
    }
}

async fn over_spdy(
    connection: Connection,
    version: &'static str,
    streams: Streams,
    command: Box<dyn RemoteCommand>,
) {
    let (session, driver) = Session::new(connection, Role::Server);
    let serve = async {
        let opened = tokio::time::timeout(STREAMS_LIMIT, gather(&session, streams, version)).await;
        match opened {
            Ok(Some((pipes, error))) => {
                run(command, pipes, error, version == "v4.channel.k8s.io").await;
            }
            Ok(None) => {}
            Err(_) => tracing::debug!("a client did not open its streams in time"),
        }
        session.close();
    };
    let mut driver = std::pin::pin!(driver);
    let ended = tokio::select! {
        () = serve => tokio::time::timeout(END_LIMIT, driver).await.unwrap_or(Ok(())),
        ended = &mut driver => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's session broke");
    }
}

/// The streams that the client opens, once all are there; `None` if it leaves before.
async fn gather(
    session: &Session,
    streams: Streams,
    version: &str,
) -> Option<(RemoteStreams, Option<Pipe>)> {
    // The versions before the third know no resize.
    let resizes = streams.tty && matches!(version, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let mut wanted = vec!["error"];
    for (kind, given) in [
        ("stdin", streams.stdin),
        ("stdout", streams.stdout),
        ("stderr", streams.stderr),
        ("resize", resizes),
    ] {
        if given {
            wanted.push(kind);
        }
    }
    let mut opened: HashMap<&str, Stream> = HashMap::new();
    while opened.len() < wanted.len() {
        let incoming = session.accept().await?;
        let kind = incoming.headers.get("streamtype");
        let kind = wanted.iter().copied().find(|wanted| *wanted == kind);
        match kind.filter(|kind| !opened.contains_key(kind)) {
            Some(kind) => drop(opened.insert(kind, incoming.accept())),
            None => incoming.refuse(),
        }
    }
    let mut pipe = |kind| opened.remove(kind).map(|stream| Box::new(stream) as Pipe);
    let error = pipe("error");
    let streams = RemoteStreams {
        stdin: pipe("stdin"),
        stdout: pipe("stdout"),
        stderr: pipe("stderr"),
        resize: pipe("resize"),
    };
    Some((streams, error))
}

/// Runs the command and says how it ended.
async fn run(
    command: Box<dyn RemoteCommand>,
    streams: RemoteStreams,
    error: Option<Pipe>,
    has_status: bool,
) {
    let outcome = command.run(streams).await;
    let Some(mut error) = error else { return };
    let message = outcome.message(has_status);
    let said = async {
        error.write_all(message.as_bytes()).await?;
        error.shutdown().await
    };
    if let Err(error) = said.await {
        tracing::debug!(%error, "a client left before the end");
    }
}
