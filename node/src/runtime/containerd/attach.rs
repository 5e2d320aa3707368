//! The terminal, or the open input, of a container: one connection for as long as it runs, over CRI's `Attach`.
//!
//! A container without either is heard by its log, line by line. One with a terminal must be heard as it prints: a prompt
//! has no end of line. Those who attach to it later share the one connection, through the log's sink and [`Stdin`].
//!
//! 1. CRI answers `Attach` with a URL of containerd's own server on loopback, good for one connection.
//! 2. It is a WebSocket whose messages begin with the number of a stream, in version 4 of Kubernetes' protocol.
//! 3. A connection that breaks, as when containerd is restarted, is made anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::HeaderValue;
use std::future::poll_fn;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use windlass_wasi_shims::pipe::{Chunk, Reader, one_way};

use super::Parts;
use super::cri::messages::AttachRequest;
use super::native::ProcessRef;
use crate::logs::{Output, WrittenLog};
use crate::runtime::{ContainerSpec, Stdin};
use crate::tasks::OwnedTask;

const PROTOCOL: &str = "v4.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
/// How long after a broken connection another is tried.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes of input that are sent at once.
const PIECE: usize = 16 << 10;

type Socket = WebSocketStream<TcpStream>;

/// A container's connection.
pub(super) struct Attachment {
    stdin: Option<Stdin>,
    _carry: OwnedTask,
}

impl Attachment {
    /// Connects, now and whenever that breaks, until dropped.
    pub(super) fn open(
        parts: &Arc<Parts>,
        id: &str,
        spec: &ContainerSpec,
        log: WrittenLog,
    ) -> Self {
        let (writer, reader) = one_way();
        let request = AttachRequest {
            container_id: id.to_owned(),
            stdin: spec.stdin,
            tty: spec.tty,
            stdout: true,
            stderr: !spec.tty,
        };
        let parts = parts.clone();
        let input = spec.stdin.then_some(reader);
        let carry = OwnedTask::spawn(async move { carry(&parts, request, input, &log).await });
        Self {
            stdin: spec.stdin.then(|| Stdin::new(writer)),
            _carry: carry,
        }
    }

    /// Where the container's input is written to, if it is open.
    pub(super) fn stdin(&self) -> Option<Stdin> {
        self.stdin.clone()
    }
}

async fn carry(parts: &Parts, request: AttachRequest, mut input: Option<Reader>, log: &WrittenLog) {
    loop {
        match connect(parts, request.clone()).await {
            Ok(socket) => carry_one(parts, &request.container_id, socket, &mut input, log).await,
            Err(error) => {
                tracing::debug!(id = request.container_id, error, "attach to a container");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn connect(parts: &Parts, request: AttachRequest) -> Result<Socket, String> {
    let url = parts
        .cri
        .attach(request)
        .await
        .map_err(|error| error.to_string())?;
    let url = url.replacen("http://", "ws://", 1);
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|error| error.to_string())?;
    request.headers_mut().insert(
        http::header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(PROTOCOL),
    );
    let authority = request.uri().authority().map(ToString::to_string);
    let stream = TcpStream::connect(authority.unwrap_or_default()).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let opened = tokio_tungstenite::client_async(request, stream).await;
    opened
        .map(|(socket, _answer)| socket)
        .map_err(|error| error.to_string())
}

/// Carries both directions until the connection ends.
async fn carry_one(
    parts: &Parts,
    id: &str,
    socket: Socket,
    input: &mut Option<Reader>,
    log: &WrittenLog,
) {
    let (mut sender, mut receiver) = socket.split();
    loop {
        tokio::select! {
            message = receiver.next() => match message {
                Some(Ok(Message::Binary(data))) => print(log, &data),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            chunk = next(input) => match chunk {
                Chunk::Data(data) => {
                    let mut message = BytesMut::with_capacity(data.len() + 1);
                    message.extend_from_slice(&[STDIN]);
                    message.extend_from_slice(&data);
                    if sender.send(Message::Binary(message.freeze())).await.is_err() {
                        return;
                    }
                }
                Chunk::End | Chunk::Reset => {
                    *input = None;
                    // This protocol has no word for the end of one stream.
                    if let Err(error) = parts.tasks.close_stdin(&ProcessRef::first(id)).await {
                        tracing::debug!(id, %error, "close a container's input");
                    }
                }
            },
        }
    }
}

/// What is sent to the container next; never where it has no input.
async fn next(input: &mut Option<Reader>) -> Chunk {
    match input {
        Some(input) => poll_fn(|cx| input.poll_chunk(cx, PIECE)).await,
        None => std::future::pending().await,
    }
}

fn print(log: &WrittenLog, message: &Bytes) {
    match message.split_first() {
        Some((&STDOUT, text)) if !text.is_empty() => log.print(Output::Stdout, text),
        Some((&STDERR, text)) if !text.is_empty() => log.print(Output::Stderr, text),
        // A greeting, or the word about the end, which others wait for.
        _ => {}
    }
}
