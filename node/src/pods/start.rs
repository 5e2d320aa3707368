//! Starts one container: image, environment, mounts, runtime; and makes the spec they add up to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, VolumeMount};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use kube::Api;
use windlass_api::quantity::Quantity;
use windlass_oci::content_store::Lease;
use windlass_wasi_shims::state::TrapListener;

use super::NodeContext;
use super::env::{self, EnvObjects, Environment};
use crate::downward::NodeView;
use crate::events::{EventType, ObjectEvents};
use crate::images::{ImageRequest, PullSecrets};
use crate::logs::LogSink;
use crate::network::PodNetwork;
use crate::probes::Target;
use crate::runtime::{
    ContainerPort, ContainerSpec, ImageKind, Mount, MountPropagation, Objects, PodIdentity,
    Protocol, ResolvedImage, ResourceLimits, Runtime, StartError, TerminationMessage,
};
use crate::service_links;
use crate::status::reason::EventReason;
use crate::volumes::PodVolumes;

/// Between two events about traps of one container.
const BETWEEN_TRAPS: Duration = Duration::from_secs(10);
/// Bytes of a trap in an event; the container's log has all of it.
const MAX_TRAP: usize = 4096;

/// What starting a container needs.
pub(super) struct StartRequest {
    pub(super) context: Arc<NodeContext>,
    pub(super) pod: Arc<Pod>,
    pub(super) identity: PodIdentity,
    pub(super) container: Arc<Container>,
    pub(super) attempt: u32,
    /// Whether it runs already, since an earlier process of the agent.
    pub(super) resume: bool,
    pub(super) network: PodNetwork,
    pub(super) volumes: Arc<PodVolumes>,
    pub(super) node: NodeView,
    pub(super) logs: LogSink,
    pub(super) events: ObjectEvents,
}

/// A container that runs.
pub(super) struct StartedContainer {
    pub(super) target: Target,
    pub(super) image_id: String,
    pub(super) container_id: String,
    /// Keeps the image on the node.
    pub(super) image: Lease,
    /// When it was started, if that was earlier than now.
    pub(super) since: Option<Timestamp>,
}

impl StartRequest {
    /// Pulls, resolves and starts. Dropping it mid-way leaves nothing running.
    pub(super) async fn start(self) -> Result<StartedContainer, StartError> {
        let mut wanted = ImageRequest::from(self.container.as_ref());
        if self.resume {
            // What runs has its image, whatever its registry says by now.
            wanted.pull_policy = Some("IfNotPresent".to_owned());
        }
        let image = self
            .context
            .images
            .resolve(
                &wanted,
                &PullSecrets::of(&self.pod, self.context.client.clone()),
                &self.events,
            )
            .await?;
        let result = self.start_image(&image).await;
        if let Err(error) = &result {
            let text = format!("Error: {}", error.message);
            let name = &self.container.name;
            self.events
                .container(name, EventType::Warning, EventReason::Failed, text);
        }
        result
    }

    async fn start_image(&self, image: &ResolvedImage) -> Result<StartedContainer, StartError> {
        let name = &self.container.name;
        let handler = self.handler().await.map_err(StartError::config)?;
        let runtime = self.runtime(image, &handler)?;
        let environment = self.environment(image).await.map_err(StartError::config)?;
        let termination_message = self.termination_message().await?;
        let spec = self.spec(image.clone(), environment, termination_message, handler);
        let spec = spec.map_err(StartError::config)?;
        self.tell(EventReason::Created, format!("Created container: {name}"));
        let started = runtime
            .start(spec, self.network.clone(), self.logs.clone())
            .await?;
        self.tell(EventReason::Started, format!("Started container {name}"));
        let id = started.id();
        let id = id.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        Ok(StartedContainer {
            since: started.started_at(),
            target: Target {
                instance: started.into(),
                network: self.context.network.host(),
                pod_ip: self.address(image.kind),
                container: self.container.clone(),
            },
            image_id: image_id(image),
            image: image.lease.clone(),
            container_id: format!("{}://{id}", runtime.handler()),
        })
    }

    /// An event about the container; nothing has happened to one that runs already.
    fn tell(&self, reason: EventReason, text: String) {
        if !self.resume {
            let name = &self.container.name;
            self.events.container(name, EventType::Normal, reason, text);
        }
    }

    /// Makes events of traps. One that serves requests may trap at each: one event in a while tells enough.
    fn trap_listener(&self) -> TrapListener {
        let (events, name) = (self.events.clone(), self.container.name.clone());
        let last: Mutex<Option<Instant>> = Mutex::new(None);
        TrapListener::new(move |text| {
            let now = Instant::now();
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_none_or(|last| now.duration_since(last) >= BETWEEN_TRAPS) {
                *last = Some(now);
                let text = cause_first(text);
                let text = cut(&text, MAX_TRAP);
                events.container(&name, EventType::Warning, EventReason::Trapped, text);
            }
        })
    }

    /// Where the container's ports are: those of Linux in the host's network are the host's.
    fn address(&self, kind: ImageKind) -> IpAddr {
        let spec = self.pod.spec.as_ref();
        let in_host = spec.is_some_and(|spec| spec.host_network == Some(true));
        let host = self.context.host.host_ip.parse();
        match (kind, host) {
            (ImageKind::Linux, Ok(host)) if in_host => host,
            _ => self.network.ip(),
        }
    }

    /// The handler that the pod's RuntimeClass names; empty if it names none.
    async fn handler(&self) -> Result<String, String> {
        let spec = self.pod.spec.as_ref();
        let class = spec.and_then(|spec| spec.runtime_class_name.as_deref());
        let Some(class) = class.filter(|class| !class.is_empty()) else {
            return Ok(String::new());
        };
        let api: Api<RuntimeClass> = Api::all(self.context.client.clone());
        let found = api.get(class).await;
        let found = found.map_err(|error| {
            format!("failed to get sandbox runtime: failed to get runtimeclass {class:?}: {error}")
        })?;
        Ok(found.handler)
    }

    /// Who runs the image.
    fn runtime(
        &self,
        image: &ResolvedImage,
        handler: &str,
    ) -> Result<&Arc<dyn Runtime>, StartError> {
        let runtimes = &self.context.runtimes;
        let Some(runtime) = runtimes.for_image(image.kind) else {
            let (reference, kind) = (&image.reference, image.kind);
            return Err(StartError::create(match kind {
                ImageKind::Linux => format!(
                    "image {reference:?} is for Linux, and this node runs WebAssembly only: {}",
                    runtimes.without_linux()
                ),
                _ => format!("no runtime of this node runs images of kind {kind:?}: {reference:?}"),
            }));
        };
        let mut handlers = runtime.handlers().into_iter();
        if handler.is_empty() || handlers.any(|known| known == handler) {
            return Ok(runtime);
        }
        Err(StartError::config(format!(
            "RuntimeHandler {handler:?} not supported: this node runs the image with {}",
            runtime.handlers().join(" or ")
        )))
    }

    async fn environment(&self, image: &ResolvedImage) -> Result<Environment, String> {
        let objects = self.fetch_objects().await?;
        let mut inherited = image.env.clone();
        let spec = self.pod.spec.as_ref();
        let hostname = spec.and_then(|spec| spec.hostname.clone());
        let hostname = hostname.unwrap_or_else(|| self.identity.name.clone());
        inherited.push(("HOSTNAME".to_owned(), hostname));
        let links = spec
            .and_then(|spec| spec.enable_service_links)
            .unwrap_or(true);
        let namespace = links.then_some(self.identity.namespace.as_str());
        inherited.extend(service_links::variables(&self.context.network, namespace));
        env::resolve(&self.pod, &self.container, &self.node, &objects, inherited)
    }

    async fn fetch_objects(&self) -> Result<EnvObjects, String> {
        let (config_maps, secrets) = env::references(&self.container);
        let mut objects = EnvObjects::default();
        let namespace = &self.identity.namespace;
        for name in config_maps {
            let api: Api<ConfigMap> = Api::namespaced(self.context.client.clone(), namespace);
            let found = api.get_opt(&name).await;
            let found = found.map_err(|error| format!("get configmap {name:?}: {error}"))?;
            objects.config_maps.insert(name, found);
        }
        for name in secrets {
            let api: Api<Secret> = Api::namespaced(self.context.client.clone(), namespace);
            let found = api.get_opt(&name).await;
            let found = found.map_err(|error| format!("get secret {name:?}: {error}"))?;
            objects.secrets.insert(name, found);
        }
        Ok(objects)
    }

    fn spec(
        &self,
        mut image: ResolvedImage,
        environment: Environment,
        termination_message: TerminationMessage,
        handler: String,
    ) -> Result<ContainerSpec, String> {
        let container = &self.container;
        let command = container.command.iter().flatten().next();
        if let Some(program) = command.map(|text| environment.expand(text)) {
            image.choose(&program);
        }
        let limits = limits(container)?;
        let mounts = container.volume_mounts.iter().flatten();
        let mounts: Result<Vec<_>, _> = mounts
            .map(|mount| self.mount(mount, &environment))
            .collect();
        Ok(ContainerSpec {
            pod: self.identity.clone(),
            name: container.name.clone(),
            attempt: self.attempt,
            on_trap: Some(self.trap_listener()),
            args: arguments(container, &image, &environment),
            image,
            mounts: mounts?,
            env: environment.into_entries(),
            limits,
            ports: ports(container),
            termination_message: Some(termination_message),
            annotations: Arc::new(self.pod.metadata.annotations.clone().unwrap_or_default()),
            stdin: container.stdin.unwrap_or(false),
            tty: container.tty.unwrap_or(false),
            handler,
            resume: self.resume,
            objects: Objects {
                pod: self.pod.clone(),
                container: self.container.clone(),
            },
        })
    }

    fn mount(&self, mount: &VolumeMount, environment: &Environment) -> Result<Mount, String> {
        let source = self.volumes.source(&mount.name).ok_or_else(|| {
            format!(
                "volumeMount {:?} names a volume the pod does not have",
                mount.name
            )
        })?;
        let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(expression)) if !expression.is_empty() => Some(environment.expand(expression)),
            _ => None,
        };
        if let Some(path) = &sub_path
            && (path.starts_with('/') || path.split('/').any(|part| part == ".."))
        {
            return Err(format!(
                "subPath {path:?} of volume {:?} leaves the volume",
                mount.name
            ));
        }
        Ok(Mount {
            volume: mount.name.clone(),
            path: mount.mount_path.clone(),
            read_only: mount.read_only.unwrap_or(false) || self.volumes.is_read_only(&mount.name),
            sub_path,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::HostToContainer,
                Some("Bidirectional") => MountPropagation::Bidirectional,
                _ => MountPropagation::None,
            },
            source: source.clone(),
        })
    }

    /// The file behind the termination message, empty for this attempt.
    async fn termination_message(&self) -> Result<TerminationMessage, StartError> {
        let host = termination_file(&self.context.data_dir, &self.identity, &self.container.name);
        let write = async {
            if let Some(directory) = host.parent() {
                tokio::fs::create_dir_all(directory).await?;
            }
            // What a container that runs already wrote is its message.
            if self.resume {
                return Ok(());
            }
            tokio::fs::write(&host, b"").await
        };
        write
            .await
            .map_err(|error| StartError::create(format!("make {}: {error}", host.display())))?;
        let path = self.container.termination_message_path.clone();
        let path = path.unwrap_or_else(|| "/dev/termination-log".to_owned());
        Ok(TerminationMessage { path, host })
    }
}

/// A trap with what it was before where: wasmtime says it last, after a backtrace that may be long. The host's own
/// backtrace, which follows where the environment asks for one, is nobody's who looks at pods.
fn cause_first(text: &str) -> Cow<'_, str> {
    let (text, _) = text
        .split_once("\n\nStack backtrace:")
        .unwrap_or((text, ""));
    match text.split_once("\n\nCaused by:\n") {
        Some((place, cause)) => format!("{}: {place}", cause.trim()).into(),
        None => text.into(),
    }
}

/// The beginning of a text, in whole lines if that leaves any.
fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = text.floor_char_boundary(most);
    let (start, _) = text.split_at(end);
    start.rsplit_once('\n').map_or(start, |(lines, _)| lines)
}

/// `imageID` of a container status: the repository with the digest that was resolved.
fn image_id(image: &ResolvedImage) -> String {
    let reference = image
        .reference
        .parse::<windlass_oci::reference::Reference>();
    reference.map_or_else(
        |_| image.digest.to_string(),
        |reference| reference.with_digest(image.digest.clone()).to_string(),
    )
}

/// Where everything of one pod is on disk.
pub(super) fn pod_directory(data_dir: &Path, pod: &PodIdentity) -> PathBuf {
    data_dir.join("pods").join(&pod.uid)
}

/// Where a container's termination message is on disk.
pub(super) fn termination_file(data_dir: &Path, pod: &PodIdentity, container: &str) -> PathBuf {
    pod_directory(data_dir, pod)
        .join("containers")
        .join(container)
        .join("termination-log")
}

/// Spec: `command` replaces the image's entrypoint and drops its cmd; `args` replaces its cmd.
///
/// A wasm artifact names no program, so the container's name stands in for it.
fn arguments(
    container: &Container,
    image: &ResolvedImage,
    environment: &Environment,
) -> Vec<String> {
    let expand = |list: &[String]| -> Vec<String> {
        list.iter().map(|text| environment.expand(text)).collect()
    };
    let command = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    let mut all = if command.is_empty() {
        image.entrypoint.clone()
    } else {
        expand(command)
    };
    if args.is_empty() && command.is_empty() {
        all.extend(image.cmd.iter().cloned());
    }
    if all.is_empty() && image.kind != ImageKind::Linux {
        all.push(container.name.clone());
    }
    all.extend(expand(args));
    all
}

/// What a container may use.
pub(super) fn limits(container: &Container) -> Result<ResourceLimits, String> {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let memory = limit(limits, "memory")?;
    let millis = |cpu: Option<Quantity>| cpu.and_then(|cpu| u64::try_from(cpu.millis()).ok());
    Ok(ResourceLimits {
        memory_bytes: memory.and_then(|limit| u64::try_from(limit.units()).ok()),
        cpu_millis: millis(limit(limits, "cpu")?),
        cpu_request_millis: millis(limit(requests, "cpu")?),
    })
}

fn limit(
    limits: Option<&BTreeMap<String, WireQuantity>>,
    name: &str,
) -> Result<Option<Quantity>, String> {
    let Some(text) = limits.and_then(|limits| limits.get(name)) else {
        return Ok(None);
    };
    let parsed = text.0.parse::<Quantity>();
    let parsed = parsed.map_err(|error| format!("limit {name}: {:?}: {error}", text.0))?;
    Ok((!parsed.is_zero()).then_some(parsed))
}

fn ports(container: &Container) -> Vec<ContainerPort> {
    let ports = container.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(ContainerPort {
                name: port.name.clone(),
                port: u16::try_from(port.container_port).ok()?,
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{ImageComponent, ImageKind};

    fn image(entrypoint: &[&str], cmd: &[&str]) -> ResolvedImage {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        ResolvedImage {
            reference: "registry.windlass.local/default/a:v1".to_owned(),
            digest: windlass_oci::digest::Digest::sha256(b""),
            blob_digest: windlass_oci::digest::Digest::sha256(b""),
            blob: PathBuf::new(),
            lease: Lease::default(),
            kind: ImageKind::Component,
            entrypoint: strings(entrypoint),
            cmd: strings(cmd),
            env: Vec::new(),
            working_dir: None,
            components: Vec::new(),
            linux: None,
        }
    }

    #[test]
    fn command_and_args_replace_the_images_own() {
        type Strings = &'static [&'static str];
        let cases: [[Strings; 5]; 6] = [
            [&["e"], &["c"], &[], &[], &["e", "c"]],
            [&["e"], &["c"], &["x"], &[], &["x"]],
            [&["e"], &["c"], &[], &["y"], &["e", "y"]],
            [&["e"], &["c"], &["x"], &["y"], &["x", "y"]],
            [&[], &[], &[], &["y"], &["name", "y"]],
            [&[], &[], &[], &[], &["name"]],
        ];
        for [entrypoint, cmd, command, args, want] in cases {
            let strings =
                |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect());
            let container = Container {
                name: "name".to_owned(),
                command: strings(command),
                args: strings(args),
                ..Container::default()
            };
            let found = arguments(&container, &image(entrypoint, cmd), &Environment::default());
            assert_eq!(found, want);
        }
    }

    #[test]
    fn the_image_id_is_by_digest() {
        assert!(
            image_id(&image(&[], &[])).starts_with("registry.windlass.local/default/a@sha256:")
        );
    }

    #[test]
    fn a_command_chooses_a_component_of_its_image() {
        let component = |name: &str| ImageComponent {
            name: name.to_owned(),
            digest: windlass_oci::digest::Digest::sha256(name.as_bytes()),
            blob: PathBuf::from(name),
        };
        let cases = [
            ("tool", "a/tool.wasm"),
            ("tool.wasm", "a/tool.wasm"),
            ("/a/tool.wasm", "a/tool.wasm"),
            ("b/tool.wasm", "b/tool.wasm"),
            ("/tool.wasm", ""),
            ("other", ""),
        ];
        for (name, chosen) in cases {
            let mut image = image(&[], &[]);
            image.components = ["a/tool.wasm", "b/tool.wasm"].map(component).to_vec();
            image.choose(name);
            assert_eq!(image.blob, PathBuf::from(chosen), "{name}");
        }
    }

    #[test]
    fn what_trapped_is_said_before_where() {
        let said =
            "error while executing at wasm backtrace:\n    0: a\n\nCaused by:\n    wasm trap: x";
        let told = "wasm trap: x: error while executing at wasm backtrace:\n    0: a";
        assert_eq!(cause_first(said), told);
        let with_host = format!("{said}\n\nStack backtrace:\n   0: the host");
        assert_eq!(cause_first(&with_host), told);
        assert_eq!(cause_first("request failed"), "request failed");
    }

    #[test]
    fn a_long_backtrace_is_cut_between_lines() {
        for (text, most, cut_off) in [
            ("one\ntwo", 7, "one\ntwo"),
            ("one\ntwo", 6, "one"),
            ("one", 2, "on"),
            ("é", 1, ""),
        ] {
            assert_eq!(cut(text, most), cut_off, "{text:?}");
        }
    }
}
