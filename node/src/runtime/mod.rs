//! The trait behind which containers run, and the values that cross it.
//!
//! 1. A pod worker pulls the image, sets up volumes and the pod's network, and makes a
//!    [`ContainerSpec`]: everything that runtimes need, resolved, and the objects themselves ([`Objects`]), for what
//!    means something to one of them only.
//! 2. [`Runtime::start`] returns once the container runs (a command was called, an http component is
//!    linked and its port listens), or a [`StartError`] that carries the container's reason.
//! 3. The worker waits on [`RunningContainer::wait`] and ends it with [`RunningContainer::stop`].
//!
//! Which runtime runs a container is decided by its image: see [`Runtimes::for_image`].
//!
//! Invariant: a runtime never restarts anything by itself and never reads the API; restart policy,
//! back-off and status belong to `pods` and `status`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use windlass_api::grants::Grants;
use windlass_api::node_info::Component;
use windlass_oci::content_store::{ContentStore, Lease};
use windlass_oci::digest::Digest;
use windlass_oci::manifest::{Descriptor, ImageManifest};
use windlass_wasi_shims::fs::MemoryTree;
use windlass_wasi_shims::state::TrapListener;

use crate::logs::LogSink;
use crate::network::PodNetwork;
use crate::status::reason::ContainerReason;

#[cfg(feature = "containerd")]
pub mod containerd;
pub mod exec;
pub mod fake;
mod stdin;
pub mod suite;
pub mod wasm;

pub use stdin::{Stdin, StdinClosed};

use exec::{ExecStreams, Running, TerminalSize};

/// Runs containers of one kind, such as Wasm components.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The scheme of container ids: `wasm`.
    fn handler(&self) -> &'static str;

    /// The handlers that a RuntimeClass can name, as `status.runtimeHandlers` publishes them.
    fn handlers(&self) -> Vec<String> {
        vec![self.handler().to_owned()]
    }

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

    /// Gives back what the containers of a pod shared, once they have ended; returns when that is done.
    async fn tear_down(&self, _pod: &PodIdentity) {}

    /// The containers that an earlier process of the agent has started and this runtime still knows.
    async fn survivors(&self) -> Vec<Survivor> {
        Vec::new()
    }

    /// Removes what is left of pods that are not among these.
    async fn keep_pods(&self, _uids: &HashSet<String>) {}

    /// Removes images that are not among these, which are the digests of manifests.
    async fn keep_images(&self, _digests: &HashSet<String>) {}

    /// Whether it can start containers, where that may change.
    fn state(&self) -> Option<watch::Receiver<RuntimeState>> {
        None
    }

    /// Ends what the runtime itself runs, after all containers.
    async fn shut_down(&self) {}
}

/// Whether a runtime can start containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeState {
    /// It will, with the first one: nothing runs before it is needed.
    Idle {
        /// Name and version, as a Node shows it.
        version: String,
    },
    /// It can.
    Ready {
        /// Name and version, as a Node shows it.
        version: String,
    },
    /// It can't, for now.
    Down {
        /// Why, in words for the user.
        message: String,
    },
}

impl RuntimeState {
    /// Whether it can start containers.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }
}

/// A container that has outlived the process that started it, whether it runs or has ended meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Survivor {
    /// The pod's uid.
    pub uid: String,
    /// Name of the container.
    pub container: String,
    /// How often it had been restarted before.
    pub attempt: u32,
}

/// A container that was started.
///
/// Dropping it ends an instance that lives in this process at once, as `stop` with no grace does. What lives elsewhere
/// is left alone, and ends with [`Runtime::tear_down`].
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

    /// Whether terminals of its commands are the kernel's, and need no line discipline of ours.
    fn has_terminals(&self) -> bool {
        false
    }

    /// Tells its terminal, if it has one of the kernel's, how large it is shown.
    async fn resize_terminal(&self, _size: TerminalSize) {}

    /// What the runtime itself calls it.
    fn id(&self) -> Option<String> {
        None
    }

    /// When it was started, if that was earlier than now.
    fn started_at(&self) -> Option<Timestamp> {
        None
    }

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
    /// Processes and threads now; a wasm container has none of its own.
    pub processes: u64,
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
    /// Its share of the processor time when others want it too, in thousandths of a core.
    pub cpu_request_millis: Option<u64>,
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
    /// Hears of traps of a wasm container.
    pub on_trap: Option<TrapListener>,
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
    /// Whether standard input stays open (`stdin: true`).
    pub stdin: bool,
    /// Whether the program is told that its streams are a terminal's (`tty: true`).
    pub tty: bool,
    /// The handler that the pod's RuntimeClass names; empty without one.
    pub handler: String,
    /// Whether a container of this pod, name and attempt that runs already is to be taken over.
    pub resume: bool,
    /// The pod and the container as the API has them.
    pub objects: Objects,
}

/// Objects of the API behind a container.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container.
    pub container: Arc<Container>,
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
    /// How mounts in the volume get to the container and back, where there are mounts.
    pub propagation: MountPropagation,
    /// Where the files are.
    pub source: MountSource,
}

/// How mounts that are made in a volume later are seen (`mountPropagation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountPropagation {
    /// Nowhere else.
    #[default]
    None,
    /// The host's are seen by the container.
    HostToContainer,
    /// The container's are seen by the host too.
    Bidirectional,
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
    /// `WorkingDir` of the image's configuration.
    pub working_dir: Option<String>,
    /// The components of a wasm image that have names.
    pub components: Vec<ImageComponent>,
    /// What only an image for Linux has.
    pub linux: Option<LinuxImage>,
}

/// A component of a wasm image that has a name.
#[derive(Clone, Debug)]
pub struct ImageComponent {
    /// Its path from the image's root without a slash before it, or its layer's title.
    pub name: String,
    /// Digest of the wasm blob.
    pub digest: Digest,
    /// The wasm blob in the content store; the image's lease keeps it there.
    pub blob: PathBuf,
}

impl ImageComponent {
    /// The file's name without its directory and `.wasm`.
    #[must_use]
    pub fn stem(&self) -> &str {
        let file = self.file();
        file.strip_suffix(".wasm").unwrap_or(file)
    }

    /// The file's name without its directory.
    #[must_use]
    pub fn file(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}

impl ResolvedImage {
    /// The component that a name means: its path in the image, else its file's name, else that without `.wasm`.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&ImageComponent> {
        let path = name.strip_prefix('/').unwrap_or(name);
        let ways: [fn(&ImageComponent) -> &str; 3] =
            [|it| &it.name, ImageComponent::file, ImageComponent::stem];
        let ways = ways
            .into_iter()
            .take(if name.starts_with('/') { 1 } else { 3 });
        ways.into_iter().find_map(|called| {
            let mut all = self.components.iter();
            all.find(|component| called(component) == path)
        })
    }

    /// Makes the component that a name means the program; a name that means none changes nothing.
    pub fn choose(&mut self, name: &str) {
        if let Some(ImageComponent { digest, blob, .. }) = self.component(name).cloned() {
            self.blob_digest = digest;
            self.blob = blob;
        }
    }
}

/// An image for Linux, whole in the content store.
#[derive(Clone, Debug)]
pub struct LinuxImage {
    /// Points at the manifest.
    pub descriptor: Descriptor,
    /// The manifest: configuration and layers.
    pub manifest: ImageManifest,
    /// Where their blobs are.
    pub store: ContentStore,
    /// `User` of the image's configuration.
    pub user: String,
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

/// What to do about containers of Linux on a node that was built without them.
const WITHOUT_LINUX: &str = "containers of Linux need root, containerd and runc";

/// The runtimes of a node, in order of preference.
#[derive(Clone, Default)]
pub struct Runtimes {
    all: Vec<Arc<dyn Runtime>>,
    without_linux: Option<Arc<str>>,
}

impl Runtimes {
    /// A node's runtimes, preferred first.
    #[must_use]
    pub fn new(runtimes: Vec<Arc<dyn Runtime>>) -> Self {
        Self {
            all: runtimes,
            without_linux: None,
        }
    }

    /// Why none of them runs containers of Linux, for those who would like to.
    #[must_use]
    pub fn explained(mut self, without_linux: Option<String>) -> Self {
        self.without_linux = without_linux.map(Into::into);
        self
    }

    /// What to do about containers of Linux where there are none.
    #[must_use]
    pub fn without_linux(&self) -> &str {
        self.without_linux.as_deref().unwrap_or(WITHOUT_LINUX)
    }

    /// The first runtime that runs images of this kind.
    #[must_use]
    pub fn for_image(&self, kind: ImageKind) -> Option<&Arc<dyn Runtime>> {
        self.all.iter().find(|runtime| runtime.accepts(kind))
    }

    /// All runtimes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        self.all.iter()
    }

    /// The state of the runtime that has one.
    #[must_use]
    pub fn state(&self) -> Option<watch::Receiver<RuntimeState>> {
        self.all.iter().find_map(|runtime| runtime.state())
    }

    /// Gives back what the containers of a pod shared; returns when all of it is.
    pub async fn tear_down(&self, pod: &PodIdentity) {
        for runtime in &self.all {
            runtime.tear_down(pod).await;
        }
    }
}

impl std::fmt::Debug for Runtimes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_list()
            .entries(self.all.iter().map(|runtime| runtime.handler()))
            .finish()
    }
}
