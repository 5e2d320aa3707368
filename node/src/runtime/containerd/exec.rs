//! Commands in a container of Linux, over containerd's own tasks and named pipes (ADR 34).
//!
//! 1. The command is described as the container's first process is (its user, environment, capabilities, directory), with
//!    other arguments. containerd keeps that description.
//! 2. Named pipes in a directory of the agent's own are the command's streams. Our ends are opened first, so that nobody
//!    waits for nobody; the command's are open when it was started.
//! 3. It has ended when containerd says so and its outputs have; then it is forgotten. A command that is dropped is killed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use windlass_wasi_shims::pipe::{Chunk, Reader, Writer};

use super::Parts;
use super::native::{Pipes, ProcessRef};
use crate::runtime::ExitStatus;
use crate::runtime::exec::{ExecError, ExecStreams, Running, TerminalSizes};
use crate::tasks::OwnedTask;

/// Bytes that are carried at once.
const PIECE: usize = 32 << 10;
const SIGKILL: u32 = 9;
/// How long after a command's end its outputs may stay open: what it left running may hold them.
const LINGER: Duration = Duration::from_secs(2);

/// Runs a command in a container to its end.
pub(super) fn run(
    parts: &Arc<Parts>,
    container: &str,
    command: Vec<String>,
    streams: ExecStreams,
) -> Running {
    let process = ProcessRef {
        container: container.to_owned(),
        exec: uuid::Uuid::new_v4().simple().to_string(),
    };
    let parts = parts.clone();
    async move {
        let name = command.first().cloned().ok_or(ExecError::Empty)?;
        let failed = |message: String| ExecError::CannotRun {
            name: name.clone(),
            message,
        };
        let directory = parts
            .config
            .data_dir
            .join("containerd/exec")
            .join(&process.exec);
        let made = OurPipes::make(&directory, &streams);
        let pipes = made.map_err(|error| failed(format!("make its streams: {error}")))?;
        let spec = parts.tasks.container_spec(&process.container).await;
        let spec = spec.map_err(|error| failed(error.to_string()))?;
        let spec = describe(&spec, &command, streams.terminal);
        let spec = spec.map_err(|error| failed(error.to_string()))?;
        let command = Command { parts, process };
        command
            .run(spec, pipes, streams)
            .await
            .map_err(ExecError::Runtime)
    }
    .boxed()
}

/// The command as the OCI runtime specification describes a process: as the container's own, with other arguments.
fn describe(spec: &[u8], command: &[String], terminal: bool) -> Result<Bytes, serde_json::Error> {
    let mut spec: Value = serde_json::from_slice(spec)?;
    let mut process = spec
        .get_mut("process")
        .map(Value::take)
        .unwrap_or_else(|| json!({}));
    if let Some(fields) = process.as_object_mut() {
        fields.insert("args".to_owned(), json!(command));
        fields.insert("terminal".to_owned(), json!(terminal));
        fields.remove("consoleSize");
        let env = fields.entry("env").or_insert_with(|| json!([]));
        if terminal && let Some(env) = env.as_array_mut() {
            let has = |entry: &Value| {
                entry
                    .as_str()
                    .is_some_and(|entry| entry.starts_with("TERM="))
            };
            if !env.iter().any(has) {
                env.push(json!("TERM=xterm"));
            }
        }
    }
    Ok(Bytes::from(serde_json::to_vec(&process)?))
}

/// Our ends of a command's streams; the files go when this is dropped.
struct OurPipes {
    directory: PathBuf,
    stdin: Option<pipe::Sender>,
    stdout: pipe::Receiver,
    stderr: Option<pipe::Receiver>,
    terminal: bool,
}

impl OurPipes {
    fn make(directory: &Path, streams: &ExecStreams) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let fifo = |name: &str| {
            let path = directory.join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            Ok::<_, io::Error>(path)
        };
        let receiver = |name: &str| pipe::OpenOptions::new().open_receiver(fifo(name)?);
        let stdin = streams.stdin.is_some().then(|| {
            // Read too, or it could not be opened before the command does.
            pipe::OpenOptions::new()
                .read_write(true)
                .open_sender(fifo("stdin")?)
        });
        let errors = streams.stderr.is_some() && !streams.terminal;
        Ok(Self {
            stdin: stdin.transpose()?,
            stdout: receiver("stdout")?,
            stderr: errors.then(|| receiver("stderr")).transpose()?,
            terminal: streams.terminal,
            directory: directory.to_owned(),
        })
    }

    fn names(&self) -> Pipes {
        let name = |name: &str, there: bool| match there {
            true => self.directory.join(name).display().to_string(),
            false => String::new(),
        };
        Pipes {
            stdin: name("stdin", self.stdin.is_some()),
            stdout: name("stdout", true),
            stderr: match (self.terminal, &self.stderr) {
                (true, _) => String::new(),
                (false, Some(_)) => name("stderr", true),
                // Both go the same way.
                (false, None) => name("stdout", true),
            },
        }
    }
}

impl Drop for OurPipes {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::debug!(path = %self.directory.display(), %error, "the streams of a command stay");
        }
    }
}

/// A command on its way. Dropped before its end, it is killed.
struct Command {
    parts: Arc<Parts>,
    process: ProcessRef,
}

impl Command {
    async fn run(
        self,
        spec: Bytes,
        mut pipes: OurPipes,
        streams: ExecStreams,
    ) -> Result<ExitStatus, String> {
        let (parts, process) = (self.parts.clone(), self.process.clone());
        let said = |error: super::client::CallError| error.to_string();
        let made = parts
            .tasks
            .exec(&process, spec, pipes.names(), streams.terminal);
        made.await.map_err(said)?;
        let unfinished = Unfinished(Some(self));
        let started = parts.tasks.start(&process).await;
        started.map_err(said)?;
        let ExecStreams {
            stdin,
            stdout,
            stderr,
            sizes,
            ..
        } = streams;
        let _input = pipes.stdin.take().zip(stdin).map(|(to, from)| {
            let (tasks, process) = (parts.tasks.clone(), process.clone());
            OwnedTask::spawn(async move {
                carry_in(from, to).await;
                // The shim holds an end of its own open until it is told.
                if let Err(error) = tasks.close_stdin(&process).await {
                    tracing::debug!(%error, "close a command's input");
                }
            })
        });
        let _sizes = sizes.map(|sizes| {
            let (parts, process) = (parts.clone(), process.clone());
            OwnedTask::spawn(async move { follow_sizes(&parts, &process, sizes).await })
        });
        let errors = pipes.stderr.take();
        let outputs = async {
            let errors = async {
                if let (Some(from), Some(to)) = (errors, stderr) {
                    carry_out(from, to).await;
                }
            };
            tokio::join!(carry_out_ref(&mut pipes.stdout, stdout), errors);
        };
        let waiting = parts.tasks.wait(&process);
        let (mut outputs, mut waiting) = (std::pin::pin!(outputs), std::pin::pin!(waiting));
        let ended = tokio::select! {
            ended = &mut waiting => {
                let rest = tokio::time::timeout(LINGER, outputs);
                if rest.await.is_err() {
                    tracing::debug!("what a command left running holds its outputs");
                }
                ended
            }
            () = &mut outputs => waiting.await,
        };
        let code = ended.map_err(said)?;
        unfinished.done();
        if let Err(error) = parts.tasks.delete(&process).await {
            tracing::debug!(%error, "a command that has ended stays known");
        }
        Ok(ExitStatus::exited(i32::try_from(code).unwrap_or(255)))
    }
}

/// Kills its command when dropped.
struct Unfinished(Option<Command>);

impl Unfinished {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (Some(Command { parts, process }), Ok(runtime)) =
            (self.0.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            let ended = async {
                match parts.tasks.kill(&process, SIGKILL).await {
                    Ok(()) => parts.tasks.wait(&process).await.map(drop)?,
                    // It has ended already, or did not begin.
                    Err(error) if error.is_unreachable() => return Err(error),
                    Err(_) => {}
                }
                parts.tasks.delete(&process).await
            };
            if let Err(error) = ended.await {
                tracing::debug!(%error, "a command that was given up");
            }
        });
    }
}

async fn carry_in(mut from: Reader, mut to: pipe::Sender) {
    while let Chunk::Data(data) = poll_fn(|cx| from.poll_chunk(cx, PIECE)).await {
        // An error means that the command does not read any more.
        if to.write_all(&data).await.is_err() {
            return;
        }
    }
}

async fn carry_out(mut from: pipe::Receiver, to: Writer) {
    carry_out_ref(&mut from, to).await;
}

/// Carries what a command prints; what nobody wants is thrown away, so that the command does not wait for ever.
async fn carry_out_ref(from: &mut pipe::Receiver, mut to: Writer) {
    let mut piece = BytesMut::new();
    let mut wanted = true;
    loop {
        piece.reserve(PIECE);
        // An error of a pipe is its end.
        if from.read_buf(&mut piece).await.unwrap_or(0) == 0 {
            return;
        }
        let mut data = piece.split().freeze();
        while wanted && !data.is_empty() {
            match poll_fn(|cx| to.poll_space(cx)).await {
                Ok(space) => {
                    let some = data.split_to(space.min(data.len()));
                    wanted = to.push(some).is_ok();
                }
                Err(_) => wanted = false,
            }
        }
    }
}

async fn follow_sizes(parts: &Parts, process: &ProcessRef, mut sizes: TerminalSizes) {
    while let Some(size) = sizes.recv().await {
        if let Err(error) = parts.tasks.resize(process, size.width, size.height).await {
            tracing::debug!(%error, "resize a terminal");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_described_as_the_containers_own_process() {
        let spec = json!({ "process": {
            "args": ["sleep", "1"], "user": { "uid": 5 }, "env": ["A=1"], "cwd": "/x", "consoleSize": { "height": 1 },
        } });
        let command = ["id".to_owned()];
        let found = |terminal| {
            let text = describe(spec.to_string().as_bytes(), &command, terminal).unwrap();
            serde_json::from_slice::<Value>(&text).unwrap()
        };
        let plain = json!({ "args": ["id"], "user": { "uid": 5 }, "env": ["A=1"], "cwd": "/x", "terminal": false });
        assert_eq!(found(false), plain);
        assert_eq!(found(true)["env"], json!(["A=1", "TERM=xterm"]));
        assert!(describe(b"no json", &command, false).is_err());
    }
}
