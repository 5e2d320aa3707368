//! The trait behind which containers run, and the values that cross it.
//!
//! 1. A pod worker pulls the image, sets up volumes and the pod's network, and makes a
//!    [`ContainerSpec`]: everything a runtime needs, with no Kubernetes type in it.
//! 2. [`Runtime::start`] returns once the container runs (a command was called, an http component is
//!    linked and its port listens), or a [`StartError`] that carries the container's reason.
//! 3. The worker waits on [`RunningContainer::wait`] and ends it with [`RunningContainer::stop`].
//!
//! Which runtime runs a container is decided by its image: see [`Runtimes::for_image`].
//!
//! Invariant: a runtime never restarts anything by itself and never reads the API; restart policy,
//! back-off and status belong to `pods` and `status`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use windlass_api::grants::Grants;
use windlass_api::node_info::Component;
use windlass_oci::content_store::Lease;
use windlass_oci::digest::Digest;
use windlass_wasi_shims::fs::MemoryTree;

use crate::logs::LogSink;
use crate::network::PodNetwork;
use crate::status::reason::ContainerReason;

pub mod exec;
pub mod fake;
mod stdin;
pub mod suite;
pub mod wasm;

pub use stdin::{Stdin, StdinClosed};

use exec::{ExecStreams, Running};

/// Runs containers of one kind, such as Wasm components.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The handler name published in `status.runtimeHandlers`, also the scheme of container ids: `wasm`.
    fn handler(&self) -> &'static str;

    /// The runtime's name and version as `nodeInfo.containerRuntimeVersion` shows it: `wasmtime://48.0.8`.
    fn version(&self) -> String;

    /// Whether this runtime can run images of the kind.
    fn accepts(&self, kind: ImageKind) -> bool;

    /// Starts a container and returns once it runs.
    ///
    /// Dropping the future before it returns leaves nothing running.
    ///
    /// # Errors
    /// A [`StartError`] whose reason and message become the container's waiting state.
    async fn start(
        &self,
        spec: ContainerSpec,
        network: PodNetwork,
        logs: LogSink,
    ) -> Result<Box<dyn RunningContainer>, StartError>;
}

/// A container that was started.
///
/// Dropping it ends the instance at once, as `stop` with no grace does.
#[async_trait]
pub trait RunningContainer: Send + Sync {
    /// Waits until the container has ended. Every call answers the same status, also after the end.
    ///
    /// Cancel-safe.
    async fn wait(&self) -> ExitStatus;

    /// Asks the container to end, forces it after `grace`, and returns when it has ended.
    ///
    /// Cancel-safe: a dropped call leaves the request to end in force; calling again with a shorter
    /// grace shortens it.
    async fn stop(&self, grace: Duration);

    /// What the container has used so far.
    fn usage(&self) -> Usage;

    /// Its standard input, if it was left open (`stdin: true`) and the runtime has one.
    fn stdin(&self) -> Option<Stdin> {
        None
    }

    /// Runs a command in the container, with its files, network, environment and limits, and streams of its own.
    ///
    /// The future keeps nothing of the container running: when that ends, the command does.
    fn exec(&self, command: Vec<String>, streams: ExecStreams) -> Running;

    /// Changes what the container may use, while it runs.
    ///
    /// # Errors
    /// It uses more already, in words for the user. Nothing is changed then.
    fn resize(&self, limits: ResourceLimits) -> Result<(), String>;

    /// What it runs, if that is a component.
    fn component(&self) -> Option<Component> {
        None
    }
}

/// What a container has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the start, in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory in use now, in bytes.
    pub memory_bytes: u64,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code: 0 for success, 137 for a container that was killed.
    pub exit_code: i32,
    /// Signal, where the runtime knows signals.
    pub signal: Option<i32>,
    /// Whether the container was ended because it exceeded its memory limit.
    pub oom_killed: bool,
    /// What went wrong in the runtime's words (a trap and its backtrace), empty after an ordinary exit.
    pub message: String,
}

impl ExitStatus {
    /// An ordinary end with this code.
    #[must_use]
    pub fn exited(exit_code: i32) -> Self {
        Self {
            exit_code,
            signal: None,
            oom_killed: false,
            message: String::new(),
        }
    }

    /// An end forced from outside, with the exit code of SIGKILL.
    #[must_use]
    pub fn killed(message: impl Into<String>) -> Self {
        Self {
            exit_code: 137,
            signal: None,
            oom_killed: false,
            message: message.into(),
        }
    }

    /// The reason Kubernetes shows for this end: `Completed`, `Error` or `OOMKilled`.
    #[must_use]
    pub fn reason(&self) -> ContainerReason {
        match (self.oom_killed, self.exit_code) {
            (true, _) => ContainerReason::OomKilled,
            (false, 0) => ContainerReason::Completed,
            (false, _) => ContainerReason::Error,
        }
    }
}

/// Which pod a container belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodIdentity {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// `metadata.uid`; a pod deleted and created again under the same name has another one.
    pub uid: String,
}

/// What a container may use; `None` has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Bound of the linear memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Bound of the processor time in thousandths of a core.
    pub cpu_millis: Option<u64>,
}

/// Everything a runtime needs to start one container, after all references were resolved.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// The pod.
    pub pod: PodIdentity,
    /// Name of the container in the pod.
    pub name: String,
    /// How often the container was restarted before; 0 at the first start.
    pub attempt: u32,
    /// What to run.
    pub image: ResolvedImage,
    /// Arguments in the order a process sees them: the pod's `command` and `args` merged with the
    /// image's own by Kubernetes' rules. The first is the program name; may be empty.
    pub args: Vec<String>,
    /// Environment in order; names are unique.
    pub env: Vec<(String, String)>,
    /// What the container sees of the file system; nothing else is visible.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub limits: ResourceLimits,
    /// Ports the container declares.
    pub ports: Vec<ContainerPort>,
    /// Path at which the container may leave a termination message, and the host file it lands in.
    pub termination_message: Option<TerminationMessage>,
    /// Annotations of the pod, for settings of a runtime's own.
    pub annotations: Arc<BTreeMap<String, String>>,
    /// The directory the program starts in (`workingDir`); the runtime's default without.
    pub working_dir: Option<String>,
    /// Whether standard input stays open (`stdin: true`).
    pub stdin: bool,
    /// Whether the program is told that its streams are a terminal's (`tty: true`).
    pub tty: bool,
}

impl ContainerSpec {
    /// What the annotations of the pod grant.
    ///
    /// # Errors
    /// The annotation that cannot be understood.
    pub fn grants(&self) -> Result<Grants, StartError> {
        let annotation = |key: &str| self.annotations.get(key).map(String::as_str);
        Grants::read(annotation).map_err(|error| StartError::config(error.to_string()))
    }
}

/// Where a container writes why it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminationMessage {
    /// Absolute path inside the container: `/dev/termination-log`.
    pub path: String,
    /// File on the host that backs it; it exists and is empty when the container starts.
    pub host: PathBuf,
}

/// A port a container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name of the port, if it has one.
    pub name: Option<String>,
    /// Number, 1 to 65535.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// Transport of a declared port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP; no runtime of ours serves it.
    Sctp,
}

/// One volume as seen by one container.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Name of the volume, for messages.
    pub volume: String,
    /// Absolute path inside the container.
    pub path: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Path below the volume's root that is mounted instead of the root; already expanded, relative and
    /// free of `..`. It may name a single file.
    pub sub_path: Option<String>,
    /// Where the files are.
    pub source: MountSource,
}

/// Where the files of a mount are.
#[derive(Clone, Debug)]
pub enum MountSource {
    /// A directory (or one file) of the host.
    Host {
        /// Path on the host.
        path: PathBuf,
        /// What of it is the volume, if not all: a way that must not lead out of `path`.
        below: Option<PathBuf>,
    },
    /// Files in memory, replaced as a whole when their source changes (ConfigMap, Secret, downward API).
    Memory(Arc<MemoryTree>),
}

/// What kind of program an image holds; decides the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageKind {
    /// A WebAssembly component.
    Component,
    /// A core WebAssembly module (wasip1).
    CoreModule,
    /// A Linux container image.
    Linux,
}

/// An image that is on this node.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The reference as the pod writes it.
    pub reference: String,
    /// Digest of the manifest: the identity of the image.
    pub digest: Digest,
    /// Digest of the wasm blob itself; the key of the compilation cache.
    pub blob_digest: Digest,
    /// The wasm blob in the content store. It stays there as long as this value (or a clone) is held.
    pub blob: PathBuf,
    /// What keeps it there.
    pub lease: Lease,
    /// What the blob is.
    pub kind: ImageKind,
    /// `Entrypoint` of the image's configuration.
    pub entrypoint: Vec<String>,
    /// `Cmd` of the image's configuration.
    pub cmd: Vec<String>,
    /// `Env` of the image's configuration.
    pub env: Vec<(String, String)>,
}

/// Why a container could not be started; its reason and message become the waiting state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct StartError {
    /// Why, in Kubernetes' words.
    pub reason: ContainerReason,
    /// What a reader needs to know to fix it: the import that is missing, the path that is not there.
    pub message: String,
}

impl StartError {
    /// The container can't be made from its configuration (`CreateContainerConfigError`).
    #[must_use]
    pub fn config(message: impl Into<String>) -> Self {
        Self {
            reason: ContainerReason::CreateContainerConfigError,
            message: message.into(),
        }
    }

    /// The container can't be made from its image (`CreateContainerError`): not wasm, a missing import.
    #[must_use]
    pub fn create(message: impl Into<String>) -> Self {
        Self {
            reason: ContainerReason::CreateContainerError,
            message: message.into(),
        }
    }

    /// The container was made but can't run (`RunContainerError`): its port is taken, it trapped at start.
    #[must_use]
    pub fn run(message: impl Into<String>) -> Self {
        Self {
            reason: ContainerReason::RunContainerError,
            message: message.into(),
        }
    }
}

/// The runtimes of a node, in order of preference.
#[derive(Clone, Default)]
pub struct Runtimes(Vec<Arc<dyn Runtime>>);

impl Runtimes {
    /// A node's runtimes, preferred first.
    #[must_use]
    pub fn new(runtimes: Vec<Arc<dyn Runtime>>) -> Self {
        Self(runtimes)
    }

    /// The first runtime that runs images of this kind.
    #[must_use]
    pub fn for_image(&self, kind: ImageKind) -> Option<&Arc<dyn Runtime>> {
        self.0.iter().find(|runtime| runtime.accepts(kind))
    }

    /// All runtimes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        self.0.iter()
    }
}

impl std::fmt::Debug for Runtimes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_list()
            .entries(self.0.iter().map(|runtime| runtime.handler()))
            .finish()
    }
}
