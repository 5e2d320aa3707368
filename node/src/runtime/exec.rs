//! Commands that run inside a container beside its own program: for `kubectl exec`, probes and hooks.
//!
//! A command has the files, the network, the environment and the limits of its container, and streams of its own. It
//! ends with its container.

use std::future::poll_fn;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
pub use windlass_api::stream::remote_command::TerminalSize;
use windlass_wasi_shims::pipe::{Chunk, Reader, Writer, one_way};

use super::{ExitStatus, RunningContainer};

/// Bytes of output that probes and hooks look at; the rest is thrown away.
const COLLECTED: usize = 10 << 10;

/// A command's way to its end. Dropping it ends the command at once.
pub type Running = BoxFuture<'static, Result<ExitStatus, ExecError>>;

/// What a command is connected to. Ends of it that are dropped are closed.
pub struct ExecStreams {
    /// Standard input; `None` is at its end from the start.
    pub stdin: Option<Reader>,
    /// Standard output. The command waits while it is full.
    pub stdout: Writer,
    /// Standard error; `None` goes where standard output goes.
    pub stderr: Option<Writer>,
    /// Whether the command is told that the streams are a terminal's.
    pub terminal: bool,
    /// The sizes of the terminal at the other end, one after another; for containers that have terminals.
    pub sizes: Option<TerminalSizes>,
}

/// Sizes of a terminal as they change.
pub type TerminalSizes = mpsc::Receiver<TerminalSize>;

/// Why a command did not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// No words at all.
    #[error("no command was given")]
    Empty,
    /// There is no such program.
    #[error("exec: {name:?}: executable file not found: {known}")]
    NotFound {
        /// What was asked for.
        name: String,
        /// What there is instead.
        known: String,
    },
    /// It is there and can't be run.
    #[error("exec: {name:?}: {message}")]
    CannotRun {
        /// What was asked for.
        name: String,
        /// Why, and what to do about it.
        message: String,
    },
    /// The container's runtime refuses: its own words, which name the command.
    #[error("{0}")]
    Runtime(String),
}

/// How a command ended whose output was collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// How it ended.
    pub exit: ExitStatus,
    /// The begin of what it wrote to both outputs.
    pub output: String,
}

/// Runs a command without input to its end, and keeps the begin of its output.
///
/// # Errors
/// It did not run.
pub async fn collect(
    container: &dyn RunningContainer,
    command: &[String],
) -> Result<Collected, ExecError> {
    let (stdout, mut output) = one_way();
    let streams = ExecStreams {
        stdin: None,
        stdout,
        stderr: None,
        terminal: false,
        sizes: None,
    };
    let running = container.exec(command.to_vec(), streams);
    let read = async {
        let mut kept = Vec::new();
        while let Chunk::Data(data) = poll_fn(|cx| output.poll_chunk(cx, COLLECTED)).await {
            let room = COLLECTED - kept.len();
            kept.extend(data.into_iter().take(room));
        }
        String::from_utf8_lossy(&kept).into_owned()
    };
    let (exit, output) = tokio::join!(running, read);
    Ok(Collected {
        exit: exit?,
        output,
    })
}
