//! A runtime that runs nothing: its containers start, exit and fail as a test says.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::watch;
use windlass_wasi_shims::pipe::Chunk;

use super::exec::{ExecError, ExecStreams, Running};
use super::{
    ContainerSpec, ExitStatus, ImageKind, ResourceLimits, RunningContainer, Runtime, StartError,
    Usage,
};
use crate::logs::{LogSink, Output};
use crate::network::PodNetwork;

/// Containers that a test controls by name.
#[derive(Clone, Debug, Default)]
pub struct FakeRuntime(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    starts: Vec<ContainerSpec>,
    failures: HashMap<String, StartError>,
    scripts: HashMap<String, i32>,
    running: HashMap<String, watch::Sender<Option<ExitStatus>>>,
}

impl FakeRuntime {
    /// A runtime whose containers run until they are told otherwise.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A container that runs until it is stopped.
    #[must_use]
    pub fn container() -> Arc<dyn RunningContainer> {
        Arc::new(FakeContainer(watch::Sender::new(None)))
    }

    /// From now on, starting this container fails.
    pub fn fail_start(&self, container: &str, error: StartError) {
        self.state().failures.insert(container.to_owned(), error);
    }

    /// From now on, starting this container succeeds.
    pub fn allow_start(&self, container: &str) {
        self.state().failures.remove(container);
    }

    /// From now on, this container exits as soon as it started.
    pub fn exit_at_once(&self, container: &str, exit_code: i32) {
        self.state().scripts.insert(container.to_owned(), exit_code);
    }

    /// Ends a running container.
    pub fn exit(&self, container: &str, status: ExitStatus) {
        if let Some(running) = self.state().running.get(container) {
            running.send_if_modified(|known| {
                let first = known.is_none();
                if first {
                    *known = Some(status);
                }
                first
            });
        }
    }

    /// Every start so far, in order.
    #[must_use]
    pub fn starts(&self) -> Vec<ContainerSpec> {
        self.state().starts.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn handler(&self) -> &'static str {
        "fake"
    }

    fn version(&self) -> String {
        "fake://1".to_owned()
    }

    fn accepts(&self, kind: ImageKind) -> bool {
        kind != ImageKind::Linux
    }

    async fn start(
        &self,
        spec: ContainerSpec,
        _network: PodNetwork,
        logs: LogSink,
    ) -> Result<Box<dyn RunningContainer>, StartError> {
        let mut state = self.state();
        state.starts.push(spec.clone());
        if let Some(error) = state.failures.get(&spec.name) {
            return Err(error.clone());
        }
        logs.write(
            Output::Stdout,
            format!("{} started\n", spec.name).as_bytes(),
        );
        let exit = state
            .scripts
            .get(&spec.name)
            .map(|code| ExitStatus::exited(*code));
        let sender = watch::Sender::new(exit);
        state.running.insert(spec.name, sender.clone());
        Ok(Box::new(FakeContainer(sender)))
    }
}

struct FakeContainer(watch::Sender<Option<ExitStatus>>);

#[async_trait]
impl RunningContainer for FakeContainer {
    async fn wait(&self) -> ExitStatus {
        let mut changes = self.0.subscribe();
        match changes.wait_for(Option::is_some).await {
            Ok(status) => status.clone().unwrap_or_else(|| ExitStatus::exited(0)),
            Err(_) => ExitStatus::killed("dropped"),
        }
    }

    async fn stop(&self, grace: Duration) {
        let status = if grace.is_zero() {
            ExitStatus::killed("killed")
        } else {
            ExitStatus::exited(0)
        };
        self.0.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(status);
            }
            first
        });
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn exec(&self, command: Vec<String>, streams: ExecStreams) -> Running {
        exec(command, streams)
    }

    /// It uses a megabyte, so to speak.
    fn resize(&self, limits: ResourceLimits) -> Result<(), String> {
        match limits.memory_bytes {
            Some(bytes) if bytes < 1 << 20 => Err("it uses more".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The two commands of a fake container: `cat`, and `exit CODE`, which says something before.
#[must_use]
pub fn exec(command: Vec<String>, streams: ExecStreams) -> Running {
    async move {
        let ExecStreams {
            stdin, mut stdout, ..
        } = streams;
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        match (words.as_slice(), stdin) {
            (["cat"], Some(mut stdin)) => {
                while let Chunk::Data(data) = poll_fn(|cx| stdin.poll_chunk(cx, 1024)).await {
                    if stdout.push(data).is_err() {
                        return Ok(ExitStatus::killed("nobody reads"));
                    }
                }
                Ok(ExitStatus::exited(0))
            }
            (["exit", code], _) => {
                let code = code.parse().unwrap_or(1);
                let said = format!("exit with {code}\n");
                // The code tells as much.
                let _closed = stdout.push(said.into());
                Ok(ExitStatus::exited(code))
            }
            _ => Err(ExecError::NotFound {
                name: command.into_iter().next().unwrap_or_default(),
                known: "there are cat and exit".to_owned(),
            }),
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::suite::{self, Subject};

    struct Fake;

    #[async_trait]
    impl Subject for Fake {
        async fn endless(&self) -> Arc<dyn RunningContainer> {
            FakeRuntime::container()
        }

        async fn exiting(&self, exit_code: i32) -> Arc<dyn RunningContainer> {
            Arc::new(FakeContainer(watch::Sender::new(Some(ExitStatus::exited(
                exit_code,
            )))))
        }
    }

    #[tokio::test]
    async fn the_fake_keeps_what_every_runtime_promises() {
        suite::run(&Fake).await;
    }
}
