//! `/exec/{namespace}/{pod}/{container}?command=…&input=1&output=1&error=1&tty=1`: what `kubectl exec` ends at.
//!
//! The command runs in the container (`runtime/exec.rs`); its streams are the client's. With a terminal both outputs are
//! one. Guests have no line discipline, so that one of ours ([`super::screen`]) stands between; containers of Linux have
//! the kernel's, which is told the size of the client's.

use std::future::poll_fn;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Request;
use axum::response::Response;
use bytes::BytesMut;
use futures::FutureExt;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use windlass_api::stream::remote_command::Outcome;
use windlass_wasi_shims::pipe::{Chunk, Reader, Writer, one_way};

use super::attach::{PIECE, find_running, ignore, streams};
use super::remote_command::{Pipe, RemoteCommand, RemoteStreams, open};
use super::screen::{End, Screen, send};
use super::sizes::Sizes;
use super::{Place, Refusal, Routes};
use crate::runtime::exec::{ExecError, ExecStreams, Running, TerminalSize};
use crate::runtime::{ExitStatus, RunningContainer, Stdin};

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
                let input = Some(Stdin::new(input));
                let screen = Screen::new(streams.stdin, streams.stdout, input, true);
                return on_screen(screen, running, output).await;
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

/// Runs a command whose streams are a terminal, until it has ended and all it wrote is shown.
async fn on_screen(
    screen: Screen,
    mut running: Running,
    mut output: Reader,
) -> Result<ExitStatus, ExecError> {
    let mut shown = std::pin::pin!(screen.carry(&mut output));
    let mut ended = None;
    loop {
        tokio::select! {
            biased;
            result = &mut running, if ended.is_none() => ended = Some(result),
            end = &mut shown => return match (end, ended) {
                (End::Signal(code), None) => Ok(ExitStatus::exited(code)),
                (_, Some(result)) => result,
                // The command closed its output: nothing is shown any more.
                (End::Output, None) => running.await,
            },
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
            && send(pipe, &data).await.is_err()
        {
            to = None;
        }
    }
}
