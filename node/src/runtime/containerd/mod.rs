//! Runs containers of Linux through containerd, one shim per pod.
//!
//! ```text
//!   start ─► image.rs      our store's blobs, imported
//!            pods.rs       the pod's sandbox, with its namespaces and our pause program
//!            mounts.rs     volumes as files of the host; trees.rs writes out those in memory
//!            config/       the pod in CRI's words, purely
//!            container.rs  made, let run, followed to its end
//!              ├ log_watch.rs  the log that containerd writes
//!              ├ attach.rs     terminal and open input
//!              ├ exec.rs       commands, over named pipes
//!              └ cgroup.rs     what it uses
//!   service.rs             containerd itself: started, watched, restarted
//!   client.rs, cri/, native/   calls over its socket
//! ```
//!
//! Invariants: what runs is known to containerd, and nothing else has to be remembered; a containerd that dies takes no
//! container with it; nothing that is not whole and verified is run (ADR 34, ADR 35).

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use windlass_oci::content_store::{ContentError, ContentStore};

use super::{
    ContainerSpec, ImageKind, PodIdentity, RunningContainer, Runtime, RuntimeState, StartError,
    Survivor,
};
use crate::host_mounts;
use crate::logs::LogSink;
use crate::network::PodNetwork;
use crate::registration::meminfo;
use crate::status::reason::ContainerReason;
use crate::tasks::OwnedTask;

mod attach;
mod cgroup;
mod client;
mod config;
mod container;
mod cri;
mod exec;
mod image;
mod log_watch;
mod mounts;
mod native;
mod pause;
mod pods;
mod service;
mod trees;

pub use client::CallError;
pub use pause::PauseError;

use client::Client;
use config::{CONTAINER_NAME, POD_UID, SandboxFacts};
use cri::Cri;
use cri::messages::{ContainerState, DnsConfig};
use image::Importer;
use log_watch::LogWatches;
use native::Tasks;
use pods::Pods;
use service::Private;

/// The handler of pods that name no RuntimeClass.
const HANDLER: &str = "runc";

/// How the runtime is set up.
#[derive(Clone, Debug)]
pub struct ContainerdConfig {
    /// The agent's data directory.
    pub data_dir: PathBuf,
    /// The socket of a containerd that somebody else runs. Without it the agent runs its own.
    pub socket: Option<PathBuf>,
    /// Domain of the cluster's names.
    pub cluster_domain: String,
}

impl ContainerdConfig {
    /// Where a containerd of the agent's own looks for network plugins: for programs, and for configurations.
    #[must_use]
    pub fn network_plugins(&self) -> [PathBuf; 2] {
        ["cni/bin", "cni/conf"].map(|name| self.data_dir.join("containerd").join(name))
    }
}

/// Why there can be no containers of Linux.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdSetupError {
    /// Something that is needed is not on this machine.
    #[error("containers of Linux need root, containerd and runc: {0}")]
    Missing(String),
    /// The image of sandboxes can't be made.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// The directory of images can't be used.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// The runtime for containers of Linux.
pub struct ContainerdRuntime {
    parts: Arc<Parts>,
    handlers: Vec<String>,
    private: Option<Private>,
    state: watch::Receiver<RuntimeState>,
    /// Somebody needs containerd.
    wanted: CancellationToken,
    stop: CancellationToken,
    service: Mutex<Option<tokio::task::JoinHandle<()>>>,
    _pause: OwnedTask,
}

/// What containers are made from.
struct Parts {
    config: ContainerdConfig,
    cri: Cri,
    tasks: Tasks,
    importer: Importer,
    pods: Pods,
    logs: LogWatches,
    /// Which agent this is, to a containerd that several share.
    agent: String,
    /// Memory of the node, in bytes.
    node_memory: i64,
}

impl ContainerdRuntime {
    /// Finds out whether this machine can run containers of Linux.
    ///
    /// # Errors
    /// Why it can't, and what to do about it.
    pub fn check(config: &ContainerdConfig) -> Result<(), ContainerdSetupError> {
        private(config).map(drop)
    }

    /// Sets the runtime up. A containerd of the agent's own is started when the first container needs it.
    ///
    /// # Errors
    /// [`ContainerdSetupError`].
    pub async fn new(config: ContainerdConfig) -> Result<Self, ContainerdSetupError> {
        let private = private(&config)?;
        let socket = match (&private, &config.socket) {
            (Some(private), _) => private.socket(),
            (None, socket) => socket.clone().unwrap_or_default(),
        };
        let store = ContentStore::open(config.data_dir.join("containerd/own")).await?;
        let pause = pause::image(&store).await?;
        let client = Client::new(&socket);
        let data_dir =
            std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
        let identity = data_dir.display().to_string();
        let agent = windlass_oci::digest::Digest::sha256(identity.as_bytes());
        let agent = agent.hex().get(..32).unwrap_or_default().to_owned();
        let parts = Arc::new(Parts {
            config: ContainerdConfig { data_dir, ..config },
            cri: Cri::new(client.clone()),
            tasks: Tasks::new(client.clone()),
            importer: Importer::new(&client),
            pods: Pods::new(&client, agent.clone()),
            logs: LogWatches::default(),
            agent,
            node_memory: meminfo("MemTotal").unwrap_or(1 << 30),
        });
        let (wanted, stop) = (CancellationToken::new(), CancellationToken::new());
        let begin = match &private {
            Some(private) => RuntimeState::Idle {
                version: private.version().await,
            },
            None => {
                wanted.cancel();
                let message = "containerd was not asked yet".to_owned();
                RuntimeState::Down { message }
            }
        };
        let (sender, state) = watch::channel(begin);
        let handlers = match &private {
            Some(_) => service::shims().into_iter().map(|(name, _)| name).collect(),
            None => Vec::new(),
        };
        let service = service::keep(
            client,
            private.clone(),
            sender,
            wanted.clone(),
            stop.clone(),
        );
        let service = tokio::spawn(service);
        let pause = keep_pause(parts.clone(), pause, state.clone());
        Ok(Self {
            parts,
            handlers: [HANDLER.to_owned()].into_iter().chain(handlers).collect(),
            private,
            state,
            wanted,
            stop,
            service: Mutex::new(Some(service)),
            _pause: OwnedTask::spawn(pause),
        })
    }
}

impl ContainerdRuntime {
    /// Has containerd started if it is not, and waits until it answers.
    ///
    /// # Errors
    /// Why it does not, in words for the user.
    async fn up(&self) -> Result<(), String> {
        self.wanted.cancel();
        let mut state = self.state.clone();
        let ready = state.wait_for(RuntimeState::is_ready);
        let ready = tokio::time::timeout(service::PATIENCE, ready).await;
        if matches!(ready, Ok(Ok(_))) {
            return Ok(());
        }
        match &*self.state.borrow() {
            RuntimeState::Down { message } => Err(message.clone()),
            _ => Err(format!(
                "containerd does not answer within {}s",
                service::PATIENCE.as_secs()
            )),
        }
    }

    /// The same, for those who look for what runs already. A containerd that never answers has nothing that could be used.
    async fn is_up(&self) -> bool {
        let up = self.up().await;
        if let Err(message) = &up {
            tracing::warn!(message, "what runs already is not known");
        }
        up.is_ok()
    }
}

fn private(config: &ContainerdConfig) -> Result<Option<Private>, ContainerdSetupError> {
    if !rustix::process::geteuid().is_root() {
        let text = "the agent does not run as root".to_owned();
        return Err(ContainerdSetupError::Missing(text));
    }
    if config.socket.is_some() {
        return Ok(None);
    }
    let directory = std::path::absolute(config.data_dir.join("containerd"));
    let directory = directory.map_err(|error| ContainerdSetupError::Missing(error.to_string()))?;
    Private::find(directory)
        .map(Some)
        .map_err(ContainerdSetupError::Missing)
}

/// Has the image of sandboxes in containerd, each time that comes up.
async fn keep_pause(
    parts: Arc<Parts>,
    image: super::LinuxImage,
    mut state: watch::Receiver<RuntimeState>,
) {
    let name = pause::name();
    loop {
        // An error means that the runtime is gone, and this task with it.
        if state.wait_for(RuntimeState::is_ready).await.is_err() {
            return;
        }
        if let Err(error) = parts.importer.import(&name, &image).await {
            tracing::warn!(%error, "the image of sandboxes is not in containerd");
        }
        if state.wait_for(|state| !state.is_ready()).await.is_err() {
            return;
        }
    }
}

impl Parts {
    fn pod_directory(&self, pod: &PodIdentity) -> PathBuf {
        self.config.data_dir.join("pods").join(&pod.uid)
    }

    fn sandbox_facts(&self, spec: &ContainerSpec, network: &PodNetwork) -> SandboxFacts {
        let logs = format!("{}_{}_{}", spec.pod.namespace, spec.pod.name, spec.pod.uid);
        let dns = network.resolv_conf().map(|found| DnsConfig {
            servers: found.servers.iter().map(ToString::to_string).collect(),
            searches: found.searches,
            options: found.options,
        });
        SandboxFacts {
            agent: self.agent.clone(),
            attempt: 0,
            log_directory: self
                .config
                .data_dir
                .join("logs")
                .join(logs)
                .display()
                .to_string(),
            dns,
            cluster_domain: self.config.cluster_domain.clone(),
        }
    }
}

#[async_trait]
impl Runtime for ContainerdRuntime {
    fn handler(&self) -> &'static str {
        "containerd"
    }

    fn handlers(&self) -> Vec<String> {
        self.handlers.clone()
    }

    fn version(&self) -> String {
        match &*self.state.borrow() {
            RuntimeState::Ready { version } | RuntimeState::Idle { version } => version.clone(),
            RuntimeState::Down { .. } => "containerd".to_owned(),
        }
    }

    fn accepts(&self, kind: ImageKind) -> bool {
        kind == ImageKind::Linux
    }

    async fn start(
        &self,
        spec: ContainerSpec,
        network: PodNetwork,
        logs: LogSink,
    ) -> Result<Box<dyn RunningContainer>, StartError> {
        self.up().await.map_err(|message| StartError {
            reason: ContainerReason::ContainerCreating,
            message,
        })?;
        let started = Box::pin(container::start(&self.parts, spec, &network, logs)).await?;
        Ok(Box::new(started))
    }

    async fn tear_down(&self, pod: &PodIdentity) {
        if !self.wanted.is_cancelled() {
            return;
        }
        self.parts.pods.tear_down(pod).await;
        // Secrets and what else is in memory go with the containers, also where the pod's object stays.
        let directory = self.parts.pod_directory(pod);
        if let Err(error) = host_mounts::unmount(&directory).await {
            tracing::warn!(pod = pod.name, %error, "mounts of a pod stay until it is removed");
        }
    }

    async fn survivors(&self) -> Vec<Survivor> {
        if !self.is_up().await {
            return Vec::new();
        }
        let found = match self.parts.pods.all_containers().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "containers that run already are not known");
                return Vec::new();
            }
        };
        let survivor = |container: cri::messages::Container| {
            let known = [ContainerState::Running, ContainerState::Exited];
            known.contains(&container.state()).then_some(())?;
            Some(Survivor {
                uid: container.labels.get(POD_UID)?.clone(),
                container: container.labels.get(CONTAINER_NAME)?.clone(),
                attempt: container.metadata.as_ref()?.attempt,
            })
        };
        found.into_iter().filter_map(survivor).collect()
    }

    async fn keep_pods(&self, uids: &HashSet<String>) {
        if !self.wanted.is_cancelled() && !self.private.as_ref().is_some_and(Private::has_run) {
            return;
        }
        if !self.is_up().await {
            return;
        }
        if let Err(error) = self.parts.pods.remove_but(uids).await {
            tracing::warn!(%error, "sandboxes of earlier pods stay");
        }
    }

    async fn keep_images(&self, digests: &HashSet<String>) {
        if !self.state.borrow().is_ready() {
            return;
        }
        let pause = pause::name();
        let keep = |name: &str, digest: &str| name == pause || digests.contains(digest);
        if let Err(error) = self.parts.importer.forget_but(keep).await {
            tracing::warn!(%error, "images that nothing uses stay in containerd");
        }
    }

    fn state(&self) -> Option<watch::Receiver<RuntimeState>> {
        Some(self.state.clone())
    }

    async fn shut_down(&self) {
        self.stop.cancel();
        if let Some(service) = self.service.lock().await.take()
            && let Err(error) = service.await
        {
            tracing::warn!(%error, "containerd was not ended in order");
        }
    }
}

impl Drop for ContainerdRuntime {
    fn drop(&mut self) {
        // As a crash would: the process of ours is killed, its containers live on.
        if let Some(service) = self.service.get_mut() {
            service.abort();
        }
    }
}
