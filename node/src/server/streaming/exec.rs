//! `/exec/{namespace}/{pod}/{container}?command=…&input=1&output=1&error=1&tty=1`: what `kubectl exec` ends at.
//!
//! The command runs in the container (`runtime/exec.rs`); its streams are the client's. With a terminal both outputs are
//! one. Guests have no line discipline, so that one of ours ([`super::terminal`]) stands between; containers of Linux have
//! the kernel's, which is told the size of the client's.

use std::future::poll_fn;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Request;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use windlass_api::stream::remote_command::Outcome;
use windlass_wasi_shims::pipe::{Chunk, Reader, Writer, one_way};

use super::attach::{PIECE, find_running, ignore, streams};
use super::remote_command::{Pipe, RemoteCommand, RemoteStreams, open};
use super::sizes::Sizes;
use super::terminal::{self, Terminal};
use super::{Place, Refusal, Routes};
use crate::runtime::ExitStatus;
use crate::runtime::RunningContainer;
use crate::runtime::exec::{ExecError, ExecStreams, Running, TerminalSize};

/// Sizes of a terminal that may wait.
const SIZES: usize = 4;

/// A command that a client wants to run.
struct Exec {
    container: Arc<dyn RunningContainer>,
    command: Vec<String>,
    terminal: bool,
}

/// Begins a command.
pub(super) fn exec(
    routes: &Routes,
    place: Place<'_>,
    query: &str,
    request: Request,
) -> Result<Response, Refusal> {
    let streams = streams(query)?;
    let words = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "command");
    let command: Vec<_> = words.map(|(_, word)| word.into_owned()).collect();
    if command.is_empty() {
        return Err(Refusal::BadRequest(ExecError::Empty.to_string()));
    }
    let container = find_running(&routes.state, place)?.running;
    let exec = Exec {
        container,
        command,
        terminal: streams.tty,
    };
    open(&routes.carrier, request, streams, Box::new(exec))
}

#[async_trait]
impl RemoteCommand for Exec {
    async fn run(self: Box<Self>, streams: RemoteStreams) -> Outcome {
        let Self {
            container,
            command,
            terminal,
        } = *self;
        let is_raw = terminal && container.has_terminals();
        let (input, stdin) = one_way();
        let (stdout, output) = one_way();
        let (stderr, errors) = one_way();
        let of_command = ExecStreams {
            stdin: streams.stdin.is_some().then_some(stdin),
            stdout,
            stderr: (!terminal).then_some(stderr),
            terminal,
            sizes: None,
        };
        let (of_command, resized) = if is_raw {
            let (sizes, receiver) = mpsc::channel(SIZES);
            let of_command = ExecStreams {
                sizes: Some(receiver),
                ..of_command
            };
            (of_command, pass_sizes(streams.resize, sizes).boxed())
        } else {
            (of_command, ignore(streams.resize).boxed())
        };
        let running = container.exec(command, of_command);
        // Its worker's alone, which may want to end it while the command runs.
        drop(container);
        let carried = async {
            if terminal && !is_raw {
                let screen = Screen {
                    keys: streams.stdin,
                    client: streams.stdout,
                    terminal: Terminal::default(),
                };
                return screen.carry(running, input, output).await;
            }
            let outputs = async {
                tokio::join!(
                    pass_out(output, streams.stdout),
                    pass_out(errors, streams.stderr)
                )
            };
            let ended = async { tokio::join!(running, outputs).0 };
            tokio::select! {
                ended = ended => ended,
                never = pass_in(streams.stdin, input) => match never {},
            }
        };
        let ended = tokio::select! {
            ended = carried => ended,
            () = resized => return Outcome::Success,
        };
        match ended {
            Ok(exit) if exit.exit_code == 0 => Outcome::Success,
            Ok(exit) => Outcome::Exited(exit.exit_code),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

/// The client's sizes to the command's terminal, as they come. Never ends.
async fn pass_sizes(from: Option<Pipe>, to: mpsc::Sender<TerminalSize>) {
    let mut sizes = Sizes::new(from);
    while let Some(size) = sizes.next().await {
        // An error means that the command has ended.
        if to.send(size).await.is_err() {
            break;
        }
    }
    std::future::pending::<()>().await;
}

/// Never.
enum Never {}

/// The client's input to the command; then its end. Goes on waiting, since the command may.
async fn pass_in(from: Option<Pipe>, mut to: Writer) -> Never {
    if let Some(mut from) = from {
        let mut piece = BytesMut::new();
        while let Ok(space) = poll_fn(|cx| to.poll_space(cx)).await {
            let room = space.min(PIECE);
            piece.resize(room, 0);
            // An error means that the client is gone: its input has ended as well.
            let length = from.read(&mut piece).await.unwrap_or(0);
            if length == 0 || to.push(piece.split_to(length).freeze()).is_err() {
                break;
            }
        }
    }
    drop(to);
    std::future::pending().await
}

/// The command's output to the client until its end; what the client does not want, or can't take, is thrown away.
async fn pass_out(mut from: Reader, mut to: Option<Pipe>) {
    while let Chunk::Data(data) = poll_fn(|cx| from.poll_chunk(cx, usize::MAX)).await {
        if let Some(pipe) = &mut to
            && write(pipe, &data).await.is_err()
        {
            to = None;
        }
    }
}

async fn write(pipe: &mut Pipe, data: &[u8]) -> std::io::Result<()> {
    pipe.write_all(data).await?;
    pipe.flush().await
}

/// A client's terminal.
struct Screen {
    keys: Option<Pipe>,
    client: Option<Pipe>,
    terminal: Terminal,
}

impl Screen {
    /// Carries keys and output until the command has ended and all it wrote is shown.
    async fn carry(
        mut self,
        running: Running,
        input: Writer,
        mut output: Reader,
    ) -> Result<ExitStatus, ExecError> {
        let mut running = running;
        let mut ended = None;
        let mut input = Some(input);
        // Typed, and not taken by the command yet; keys are read when it is empty.
        let mut pending = Bytes::new();
        let mut piece = BytesMut::zeroed(PIECE);
        loop {
            if self.keys.is_none() && pending.is_empty() {
                input = None;
            }
            tokio::select! {
                biased;
                result = &mut running, if ended.is_none() => ended = Some(result),
                chunk = poll_fn(|cx| output.poll_chunk(cx, PIECE)) => match (chunk, ended.take()) {
                    (Chunk::Data(data), before) => {
                        self.show(&terminal::shown(&data)).await;
                        ended = before;
                    }
                    (Chunk::End | Chunk::Reset, Some(result)) => return result,
                    // The command closed its output: nothing is shown any more.
                    (Chunk::End | Chunk::Reset, None) => return running.await,
                },
                space = has_space(&mut input), if !pending.is_empty() => {
                    let taken = pending.split_to(space.min(pending.len()));
                    if let Some(writer) = &mut input && writer.push(taken).is_err() {
                        input = None;
                    }
                }
                length = read(&mut self.keys, &mut piece), if pending.is_empty() => {
                    let typed = self.terminal.typed(piece.get(..length).unwrap_or_default());
                    self.show(&typed.echo).await;
                    if let Some(code) = typed.signal {
                        return Ok(ExitStatus::exited(code));
                    }
                    pending = typed.input.into();
                    if length == 0 || typed.end {
                        self.keys = None;
                    }
                }
            }
        }
    }

    /// What a client that is gone can't see is thrown away.
    async fn show(&mut self, data: &[u8]) {
        if let Some(client) = &mut self.client
            && write(client, data).await.is_err()
        {
            self.client = None;
        }
    }
}

/// How much the command takes; an input that is closed takes all.
async fn has_space(input: &mut Option<Writer>) -> usize {
    match input {
        Some(writer) => poll_fn(|cx| writer.poll_space(cx))
            .await
            .unwrap_or(usize::MAX),
        None => usize::MAX,
    }
}

/// Reads some keys; 0 at their end. Without a keyboard, never.
async fn read(keys: &mut Option<Pipe>, piece: &mut BytesMut) -> usize {
    match keys {
        Some(keys) => keys.read(piece).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}
