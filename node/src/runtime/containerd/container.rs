//! Containers of Linux: made, watched, stopped.
//!
//! 1. `start` has the image and the sandbox ready, makes the container and lets it run. A container of the same pod, name
//!    and attempt that an earlier process of the agent made is taken over instead, whether it runs or has ended.
//! 2. A task waits for the container's end (`Tasks.Wait`, which containerd answers when it happens), and follows its log
//!    meanwhile. While containerd is down it waits for that.
//! 3. A handle that is dropped leaves the container alone: it belongs to its sandbox and goes with that. A start that is
//!    dropped before it is done leaves nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;

use super::Parts;
use super::attach::Attachment;
use super::cgroup::Cgroup;
use super::client::CallError;
use super::config::{self, CONTAINER_NAME, ContainerFacts, resources};
use super::cri::messages::{Container, ContainerState, ContainerStatus, CreateContainerRequest};
use super::mounts::{self, Places};
use super::native::ProcessRef;
use super::pods::{PodState, Sandbox};
use super::{exec, log_watch};
use crate::host_mounts;
use crate::logs::{LogSink, WrittenLog};
use crate::network::PodNetwork;
use crate::runtime::exec::{ExecStreams, Running, TerminalSize};
use crate::runtime::{
    ContainerSpec, ExitStatus, LinuxImage, ResourceLimits, RunningContainer, StartError, Stdin,
    Usage,
};
use crate::status::reason::ContainerReason;
use crate::tasks::OwnedTask;

/// How long after a failed look a container is looked at again.
const RETRY: Duration = Duration::from_secs(1);
/// How soon CRI is asked again after a container has ended, at first.
const NOTICE: Duration = Duration::from_millis(5);
/// `reason` of a container that the kernel killed.
const OOM_KILLED: &str = "OOMKilled";

/// A container that was started.
pub(super) struct LinuxContainer {
    parts: Arc<Parts>,
    id: String,
    started_at: Timestamp,
    cgroup: Cgroup,
    tty: bool,
    attachment: Option<Attachment>,
    exit: watch::Receiver<Option<ExitStatus>>,
    _follow: OwnedTask,
}

/// Starts a container, or takes over the one that is there.
pub(super) async fn start(
    parts: &Arc<Parts>,
    spec: ContainerSpec,
    network: &PodNetwork,
    logs: LogSink,
) -> Result<LinuxContainer, StartError> {
    let Some(image) = spec.image.linux.clone() else {
        return Err(StartError::create("the image is not one for Linux"));
    };
    if spec.args.is_empty() {
        // In the runtime's own words.
        return Err(StartError::create("no command specified"));
    }
    let imported = import(parts, &spec, &image).await?;
    let state = parts.pods.state(&spec.pod);
    let mut state = state.lock().await;
    let facts = parts.sandbox_facts(&spec, network);
    let sandbox = parts.pods.sandbox(&spec, facts, &spec.handler);
    let sandbox = sandbox.await.map_err(|error| sandbox_failed(&error))?;
    let making = Making {
        parts,
        spec: &spec,
        sandbox: &sandbox,
    };
    let earlier = making.earlier(&mut state).await?;
    let mounts = making
        .mounts(network, &mut state, earlier.is_none())
        .await?;
    drop(state);
    let id = match earlier {
        Some(id) => id,
        None => making.make(mounts, imported, &logs).await?,
    };
    adopt(parts, &spec, id, logs).await
}

async fn import(
    parts: &Parts,
    spec: &ContainerSpec,
    image: &LinuxImage,
) -> Result<String, StartError> {
    let parsed = spec
        .image
        .reference
        .parse::<windlass_oci::reference::Reference>();
    let name = parsed.map(|name| name.with_digest(spec.image.digest.clone()).to_string());
    let name = name.map_err(|error| StartError::create(error.to_string()))?;
    let imported = parts.importer.import(&name, image).await;
    imported.map_err(|error| StartError::create(error.to_string()))
}

/// Spec: the container goes on waiting as before; the message says for what.
fn sandbox_failed(error: &CallError) -> StartError {
    StartError {
        reason: ContainerReason::ContainerCreating,
        message: format!("Failed to create pod sandbox: {error}"),
    }
}

fn failed(error: &CallError) -> StartError {
    StartError::create(error.to_string())
}

/// A container on its way.
struct Making<'a> {
    parts: &'a Arc<Parts>,
    spec: &'a ContainerSpec,
    sandbox: &'a Sandbox,
}

impl Making<'_> {
    /// The container to take over, if there is one. Others of its name, which have ended or belong to a start that was
    /// given up, are removed.
    async fn earlier(&self, _locked: &mut PodState) -> Result<Option<String>, StartError> {
        let all = self.parts.pods.containers(&self.spec.pod).await;
        let all = all.map_err(|error| failed(&error))?;
        let of_name =
            |container: &&Container| container.labels.get(CONTAINER_NAME) == Some(&self.spec.name);
        let mut found = None;
        for container in all.iter().filter(of_name) {
            let attempt = container.metadata.as_ref().map(|of| of.attempt);
            let is_same = attempt == Some(self.spec.attempt)
                && container.pod_sandbox_id == self.sandbox.id
                && container.state() != ContainerState::Created;
            if self.spec.resume && is_same {
                found = Some(container.id.clone());
                continue;
            }
            remove(self.parts, &container.id)
                .await
                .map_err(|error| failed(&error))?;
        }
        Ok(found)
    }

    async fn mounts(
        &self,
        network: &PodNetwork,
        state: &mut PodState,
        is_new: bool,
    ) -> Result<Vec<super::cri::messages::Mount>, StartError> {
        let places = Places {
            pod: self.parts.pod_directory(&self.spec.pod),
            cluster_domain: self.parts.config.cluster_domain.clone(),
        };
        if is_new {
            // What earlier attempts had mounted; they are gone.
            let earlier = places.pod.join("subpaths").join(&self.spec.name);
            let removed = host_mounts::remove_all(&earlier).await;
            removed.map_err(|error| StartError::create(error.to_string()))?;
        }
        mounts::of_container(self.spec, &places, network.ip(), &mut state.files, is_new).await
    }

    /// The id of the container whose processes this one is to see.
    async fn target(&self) -> Result<Option<String>, StartError> {
        let Some(name) = config::target(&self.spec.objects.pod, &self.spec.name) else {
            return Ok(None);
        };
        let all = self.parts.pods.containers(&self.spec.pod).await;
        let all = all.map_err(|error| failed(&error))?;
        let found = all.into_iter().find(|container| {
            let of_name = container.labels.get(CONTAINER_NAME).map(String::as_str);
            of_name == Some(name) && container.state() == ContainerState::Running
        });
        let found = found.ok_or_else(|| {
            StartError::config(format!(
                "unable to find target container {name:?} for container {:?}",
                self.spec.name
            ))
        })?;
        Ok(Some(found.id))
    }

    /// Makes the container and lets it run.
    async fn make(
        &self,
        mounts: Vec<super::cri::messages::Mount>,
        image: String,
        logs: &LogSink,
    ) -> Result<String, StartError> {
        let log = logs.path();
        if let Some(directory) = log.parent() {
            let made = tokio::fs::create_dir_all(directory).await;
            made.map_err(|error| {
                StartError::create(format!("make {}: {error}", directory.display()))
            })?;
        }
        let relative = log.strip_prefix(&self.sandbox.config.log_directory);
        let facts = ContainerFacts {
            agent: self.parts.agent.clone(),
            image,
            mounts,
            log_path: relative.unwrap_or(log).display().to_string(),
            node_memory: self.parts.node_memory,
            profiles: self.parts.config.data_dir.join("seccomp"),
            target: self.target().await?,
        };
        let config = config::container(self.spec, facts).map_err(StartError::config)?;
        let request = CreateContainerRequest {
            pod_sandbox_id: self.sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.sandbox.config.clone()),
        };
        let made = self.parts.cri.create_container(request).await;
        let mut unfinished = Unfinished {
            parts: self.parts.clone(),
            id: Some(made.map_err(|error| failed(&error))?),
        };
        let id = unfinished.id.clone().unwrap_or_default();
        let started = self.parts.cri.start_container(&id).await;
        started.map_err(|error| StartError::run(error.to_string()))?;
        unfinished.id = None;
        Ok(id)
    }
}

/// Ends a container at once and forgets it.
async fn remove(parts: &Parts, id: &str) -> Result<(), CallError> {
    match parts.cri.remove_container(id).await {
        Err(error) if error.is_not_found() => Ok(()),
        removed => removed,
    }
}

/// A container whose start is not done: removed when this is dropped.
struct Unfinished {
    parts: Arc<Parts>,
    id: Option<String>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let parts = self.parts.clone();
        runtime.spawn(async move {
            if let Err(error) = remove(&parts, &id).await {
                tracing::warn!(id, %error, "a container that was given up stays until its pod ends");
            }
        });
    }
}

/// Follows a container that was started, now or earlier.
async fn adopt(
    parts: &Arc<Parts>,
    spec: &ContainerSpec,
    id: String,
    logs: LogSink,
) -> Result<LinuxContainer, StartError> {
    let status = parts
        .cri
        .container_status(&id)
        .await
        .map_err(|error| failed(&error))?;
    let started_at = status
        .map(|status| status.started_at)
        .filter(|nanos| *nanos > 0);
    let started_at = started_at.and_then(|nanos| Timestamp::from_nanosecond(nanos.into()).ok());
    let pid = parts
        .tasks
        .pid(&ProcessRef::first(&id))
        .await
        .map_err(|error| failed(&error))?;
    let interactive = spec.stdin || spec.tty;
    let attachment = interactive
        .then(|| Attachment::open(parts, &id, spec, WrittenLog::new(logs.clone(), false)));
    let log = WrittenLog::new(logs, !interactive);
    let (publish, exit) = watch::channel(None);
    let follow = OwnedTask::spawn({
        let (parts, id) = (parts.clone(), id.clone());
        async move {
            let ended = log_watch::until(&parts, &id, log, until_ended(&parts, &id)).await;
            publish.send_replace(Some(ended));
        }
    });
    Ok(LinuxContainer {
        parts: parts.clone(),
        id,
        started_at: started_at.unwrap_or_else(Timestamp::now),
        cgroup: pid.map_or(Cgroup::Unknown, Cgroup::of_process),
        tty: spec.tty,
        attachment,
        exit,
        _follow: follow,
    })
}

/// Waits until CRI says that the container has ended.
async fn until_ended(parts: &Parts, id: &str) -> ExitStatus {
    let process = ProcessRef::first(id);
    let mut delay = NOTICE;
    loop {
        match parts.cri.container_status(id).await {
            Ok(Some(status)) if status.state() == ContainerState::Exited => return exit_of(status),
            Ok(Some(status)) if status.state() != ContainerState::Unknown => {
                if parts.tasks.wait(&process).await.is_err() {
                    tokio::time::sleep(RETRY).await;
                }
            }
            Ok(_) => {
                return ExitStatus::killed(
                    "the container is not known to the container runtime any more",
                );
            }
            Err(error) => {
                tracing::debug!(id, %error, "look at a container");
                tokio::time::sleep(RETRY).await;
            }
        }
        // Its end reaches CRI by an event, a moment after the wait is over.
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY);
    }
}

fn exit_of(status: ContainerStatus) -> ExitStatus {
    let oom_killed = status.reason == OOM_KILLED;
    ExitStatus {
        exit_code: status.exit_code,
        signal: None,
        oom_killed,
        message: status.message,
    }
}

#[async_trait]
impl RunningContainer for LinuxContainer {
    async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(status)) => status.clone(),
            Ok(None) | Err(_) => ExitStatus::killed("the agent is shutting down"),
        }
    }

    async fn stop(&self, grace: Duration) {
        let (cri, id) = (self.parts.cri.clone(), self.id.clone());
        let mut exit = self.exit.clone();
        // A task of its own: who asked may not wait, and the request is in force all the same.
        tokio::spawn(async move {
            loop {
                let stopped = tokio::select! {
                    stopped = cri.stop_container(&id, grace) => stopped,
                    _ended = exit.wait_for(Option::is_some) => return,
                };
                match stopped {
                    Ok(()) => return,
                    Err(error) if error.is_not_found() => return,
                    Err(error) => {
                        tracing::warn!(id, %error, "a container is not stopped, will retry");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        });
        self.wait().await;
    }

    fn usage(&self) -> Usage {
        self.cgroup.usage()
    }

    fn stdin(&self) -> Option<Stdin> {
        self.attachment.as_ref().and_then(Attachment::stdin)
    }

    fn exec(&self, command: Vec<String>, streams: ExecStreams) -> Running {
        exec::run(&self.parts, &self.id, command, streams)
    }

    fn has_terminals(&self) -> bool {
        true
    }

    async fn resize_terminal(&self, size: TerminalSize) {
        if !self.tty {
            return;
        }
        let process = ProcessRef::first(&self.id);
        let resized = self.parts.tasks.resize(&process, size.width, size.height);
        if let Err(error) = resized.await {
            tracing::debug!(id = self.id, %error, "resize a terminal");
        }
    }

    fn resize(&self, limits: ResourceLimits) -> Result<(), String> {
        let used = self.usage().memory_bytes;
        if limits.memory_bytes.is_some_and(|limit| limit < used) {
            return Err(format!(
                "attempting to set its memory limit below its current usage ({used})"
            ));
        }
        let (cri, id) = (self.parts.cri.clone(), self.id.clone());
        let resources = resources::of_limits(&limits);
        tokio::spawn(async move {
            if let Err(error) = cri.update_container_resources(&id, resources).await {
                tracing::warn!(id, %error, "a container's resources stay as they are");
            }
        });
        Ok(())
    }

    fn id(&self) -> Option<String> {
        Some(self.id.clone())
    }

    fn started_at(&self) -> Option<Timestamp> {
        Some(self.started_at)
    }
}
