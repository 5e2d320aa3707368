//! The task of one pod: plan, act, report, wait.
//!
//! ```text
//!   object (watch) ─┐                       ┌─ tasks: set up, start a container, stop it, probe
//!   messages ───────┼─► facts ─► plan ─► actions
//!   wake-up time ───┘        └─► status ─► publisher
//! ```
//!
//! 1. Everything slow runs in a task that ends with a message; the worker itself only waits.
//! 2. A message carries the number of the start it belongs to; one of an earlier start is dropped.
//! 3. The worker ends when the pod is gone from the API and everything is given back.
//!
//! Invariant: facts change only here, so plan and status always see one consistent state.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Preconditions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use windlass_oci::content_store::Lease;

use super::NodeContext;
use super::facts::{PodFacts, Resize, Setup};
use super::hooks::PreStop;
use super::plan::{self, Action};
use super::room::Refusal;
use super::start::{self, StartedContainer};
use windlass_api::grants::{Egress, Grants};

use crate::downward::NodeView;
use crate::events::{EventType, ObjectEvents};
use crate::logs::LogSink;
use crate::network::{NamedPort, PodDns, PodNetwork, PodNetworkRequest};
use crate::probes::{Target, Verdict};
use crate::runtime::{ExitStatus, ImageKind, PodIdentity, StartError, Survivor};
use crate::static_pods::is_static;
use crate::status::reason::EventReason;
use crate::status::{Published, StatusPublisher, phase};
use crate::tasks::OwnedTask;
use crate::volumes::{self, PodVolumes, VolumeContext};

mod containers;
#[cfg(test)]
mod fake_api;
mod resize;
pub(super) mod storage;
mod termination;
#[cfg(test)]
mod tests;

const SETUP_RETRY: Duration = Duration::from_millis(500);
const MAX_SETUP_RETRY: Duration = Duration::from_secs(30);
const DELETE_RETRY: Duration = Duration::from_secs(1);

/// What the dispatcher wants of a worker.
#[derive(Clone, Debug)]
pub(super) struct Desired {
    pub(super) pod: Arc<Pod>,
    /// Uid of what stands for the pod in the API, if it is a static one.
    pub(super) mirror: Option<String>,
    /// The object is gone from the API.
    pub(super) gone: bool,
    /// The agent is stopping.
    pub(super) shutdown: bool,
    /// The node runs low, and this pod makes room: why, in words.
    pub(super) evicted: Option<String>,
}

/// What a worker's tasks report.
enum Message {
    SetUp(Result<Surroundings, (EventReason, String)>),
    Started {
        name: String,
        start: u64,
        container: StartedContainer,
    },
    /// It started, and was ended since its hook failed.
    HookFailed {
        name: String,
        start: u64,
        container: StartedContainer,
        exit: ExitStatus,
    },
    StartFailed {
        name: String,
        start: u64,
        error: StartError,
    },
    Exited {
        name: String,
        start: u64,
        exit: ExitStatus,
    },
    Probed {
        name: String,
        start: u64,
        verdict: Verdict,
    },
    /// It keeps more on disk than it may: which bound, in words.
    Evicted(String),
    Deleted(Result<(), kube::Error>),
}

/// Network and volumes.
struct Surroundings {
    network: PodNetwork,
    volumes: Arc<PodVolumes>,
}

/// What belongs to one start of a container; dropping it ends the instance.
struct Instance {
    start: u64,
    logs: LogSink,
    container: Option<Target>,
    _task: OwnedTask,
    probes: Vec<OwnedTask>,
    pre_stop: Option<PreStop>,
    stopping: Option<OwnedTask>,
}

pub(super) struct PodWorker {
    context: Arc<NodeContext>,
    desired: watch::Receiver<Desired>,
    /// Tells that there may be room now for what did not fit.
    freed: watch::Receiver<()>,
    pod: watch::Sender<Arc<Pod>>,
    identity: PodIdentity,
    events: ObjectEvents,
    facts: PodFacts,
    publisher: StatusPublisher,
    surroundings: Option<Surroundings>,
    instances: HashMap<String, Instance>,
    /// What keeps the images of its containers on the node, also between restarts.
    images: HashMap<String, Lease>,
    /// Number of the next start.
    next_start: u64,
    setup_failures: u32,
    setup_task: Option<OwnedTask>,
    storage_task: Option<OwnedTask>,
    delete_task: Option<OwnedTask>,
    /// Gives back what the containers shared; the pod's directory goes after that.
    teardown: Option<JoinHandle<()>>,
    sender: mpsc::UnboundedSender<Message>,
    messages: mpsc::UnboundedReceiver<Message>,
}

impl PodWorker {
    /// A worker for a pod, or for telling that there is no room for it.
    pub(super) fn new(
        context: Arc<NodeContext>,
        desired: watch::Receiver<Desired>,
        refused: Option<Refusal>,
        survivors: &[Survivor],
    ) -> Self {
        let Desired { pod, mirror, .. } = desired.borrow().clone();
        let metadata = &pod.metadata;
        let identity = PodIdentity {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        };
        let api = Api::namespaced(context.client.clone(), &identity.namespace);
        let reports_to = match is_static(&pod) {
            true => mirror,
            false => Some(identity.uid.clone()),
        };
        let publisher = StatusPublisher::new(api, identity.name.clone(), reports_to);
        let (sender, messages) = mpsc::unbounded_channel();
        let events = context.events.for_pod(&pod);
        let mut facts = PodFacts::begin(&pod, context.clock.now(), survivors);
        if let Some(Refusal { reason, message }) = refused {
            events.record(EventType::Warning, reason, message.clone());
            let message = format!("Pod was rejected: {message}");
            facts.failed = Some((reason.as_str(), message));
        }
        Self {
            events,
            facts,
            freed: context.room.freed(),
            pod: watch::Sender::new(pod),
            publisher,
            identity,
            desired,
            surroundings: None,
            instances: HashMap::new(),
            images: HashMap::new(),
            next_start: 0,
            setup_failures: 0,
            setup_task: None,
            storage_task: None,
            delete_task: None,
            teardown: None,
            sender,
            messages,
            context,
        }
    }

    /// Works until the pod is gone, or stopped together with the agent.
    pub(super) async fn run(mut self) {
        loop {
            let mut wake_at = self.act();
            if matches!(self.facts.resize, Some(Resize::Failed(_))) {
                let retry = self.context.clock.now() + resize::RETRY;
                wake_at = Some(wake_at.map_or(retry, |at| at.min(retry)));
            }
            self.report();
            if self.is_over() {
                break;
            }
            self.wait(wake_at).await;
        }
        self.clean_up().await;
    }

    /// Plans and acts until there is nothing to do now; answers when to plan again.
    fn act(&mut self) -> Option<Timestamp> {
        loop {
            let pod = self.pod.borrow().clone();
            let now = self.context.clock.now();
            let plan = plan::plan(&pod, &self.facts, now);
            if plan.actions.is_empty() {
                return plan.wake_at;
            }
            let mut waits = false;
            for action in plan.actions {
                waits |= self.take(action, &pod, now);
            }
            if waits {
                return plan.wake_at;
            }
        }
    }

    /// Carries out one action; `true` if the plan would repeat it until a message comes.
    fn take(&mut self, action: Action, pod: &Arc<Pod>, now: Timestamp) -> bool {
        match action {
            Action::SetUp => self.set_up(pod),
            Action::Start(name) => self.start(pod, &name, now),
            Action::Stop {
                container,
                grace,
                why,
            } => self.stop(&container, grace, &why),
            Action::BackOff { container, until } => self.back_off(&container, until, now),
            Action::Initialized => self.facts.initialized = true,
            Action::TearDown => self.tear_down(),
            Action::Fail { reason, message } => {
                self.events.record(
                    EventType::Normal,
                    EventReason::DeadlineExceeded,
                    message.clone(),
                );
                self.facts.failed = Some((reason, message));
                self.facts.ending_since = Some(now);
            }
            Action::FinishDeletion => {
                self.finish_deletion();
                return true;
            }
        }
        false
    }

    fn report(&mut self) {
        // What the status says of containers that run on stays true until they are taken over.
        if self.facts.gone || self.facts.is_resuming() {
            return;
        }
        let pod = self.pod.borrow().clone();
        let in_api = pod.status.clone().unwrap_or_default();
        let old: &PodStatus = self.publisher.reported().unwrap_or(&in_api);
        let status = phase::status(
            &pod,
            old,
            &self.facts,
            &self.context.host,
            self.context.clock.now(),
        );
        self.publisher.publish(status);
    }

    fn is_over(&self) -> bool {
        let given_back = self.facts.setup == Setup::TornDown && !self.facts.any_active();
        given_back && (self.facts.gone || (self.facts.shutdown && self.publisher.is_settled()))
    }

    /// Waits for whatever happens next and takes it into the facts.
    async fn wait(&mut self, wake_at: Option<Timestamp>) {
        let delay = wake_at.map(|at| {
            Duration::try_from(at.duration_since(self.context.clock.now())).unwrap_or_default()
        });
        let woken = async {
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(message) = self.messages.recv() => self.observe(message).await,
            changed = self.desired.changed() => match changed {
                Ok(()) => self.desire(),
                // The dispatcher is gone, and with it the agent.
                Err(_) => self.facts.gone = true,
            },
            published = self.publisher.progress() => if published == Published::Gone && !self.is_static() {
                self.facts.gone = true;
                self.force_stops();
            },
            Ok(()) = self.freed.changed(), if matches!(self.facts.resize, Some(Resize::Deferred(_))) => {
                self.resize();
            }
            () = woken => if matches!(self.facts.resize, Some(Resize::Failed(_))) {
                self.resize();
            }
        }
    }

    fn is_static(&self) -> bool {
        is_static(&self.pod.borrow())
    }

    fn desire(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        let now = self.context.clock.now();
        let deleting = desired.pod.metadata.deletion_timestamp.is_some();
        if deleting || desired.gone || desired.shutdown {
            self.facts.ending_since.get_or_insert(now);
        }
        self.facts.gone |= desired.gone;
        self.facts.shutdown |= desired.shutdown;
        let no_grace = desired.pod.metadata.deletion_grace_period_seconds == Some(0);
        self.facts.follow(&desired.pod, now);
        if let Some(message) = desired.evicted {
            self.evict(message);
        }
        if self.is_static() {
            self.publisher.report_to(desired.mirror);
        }
        self.pod.send_replace(desired.pod);
        self.follow_labels();
        self.resize();
        if self.facts.gone || (deleting && no_grace) {
            self.force_stops();
        }
    }

    /// Policies go by the labels that the pod has now.
    fn follow_labels(&self) {
        if let Some(surroundings) = &self.surroundings {
            let pod = self.pod.borrow();
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            surroundings.network.set_labels(&labels);
        }
    }

    async fn observe(&mut self, message: Message) {
        match message {
            Message::SetUp(result) => self.observe_set_up(result),
            Message::Started {
                name,
                start,
                container,
            } => self.observe_start(&name, start, container),
            Message::HookFailed {
                name,
                start,
                container,
                exit,
            } => {
                if self.is_current(&name, start) {
                    self.observe_image(&name, &container);
                    self.observe_exit(&name, exit).await;
                }
            }
            Message::StartFailed { name, start, error } => {
                if self.is_current(&name, start) {
                    self.observe_failure(&name, error);
                }
            }
            Message::Exited { name, start, exit } => {
                if self.is_current(&name, start) {
                    self.observe_exit(&name, exit).await;
                }
            }
            Message::Probed {
                name,
                start,
                verdict,
            } => {
                if self.is_current(&name, start) {
                    self.observe_verdict(&name, verdict);
                }
            }
            Message::Evicted(message) => self.evict(message),
            Message::Deleted(result) => self.observe_deletion(result),
        }
    }

    fn evict(&mut self, message: String) {
        // Static pods are critical, as upstream has it.
        if self.facts.failed.is_some() || self.is_static() {
            return;
        }
        let reason = EventReason::Evicted;
        self.events
            .record(EventType::Warning, reason, message.clone());
        self.facts.failed = Some((reason.as_str(), message));
        self.facts.ending_since = Some(self.context.clock.now());
    }

    fn is_current(&self, name: &str, start: u64) -> bool {
        self.instances
            .get(name)
            .is_some_and(|instance| instance.start == start)
    }

    // Set-up and its end

    fn set_up(&mut self, pod: &Arc<Pod>) {
        self.facts.setup = Setup::Working;
        let context = self.context.clone();
        let sender = self.sender.clone();
        let request = PodNetworkRequest {
            namespace: self.identity.namespace.clone(),
            name: self.identity.name.clone(),
            uid: self.identity.uid.clone(),
            hostname: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.hostname.clone())
                .unwrap_or_else(|| self.identity.name.clone()),
            dns: pod.spec.as_ref().map(PodDns::of).unwrap_or_default(),
            egress: granted_egress(pod),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            // A sandbox that is still there has its address.
            address: self.facts.is_resuming().then(|| address(pod)).flatten(),
            host_network: pod
                .spec
                .as_ref()
                .is_some_and(|spec| spec.host_network == Some(true)),
            ports: named_ports(pod),
        };
        let pod_changes = self.pod.subscribe();
        let events = self.events.clone();
        let directory = start::pod_directory(&context.data_dir, &self.identity).join("volumes");
        self.setup_task = Some(OwnedTask::spawn(async move {
            let result = set_up(&context, &request, pod_changes, directory, &events).await;
            let _ = sender.send(Message::SetUp(result));
        }));
    }

    fn observe_set_up(&mut self, result: Result<Surroundings, (EventReason, String)>) {
        if self.facts.setup != Setup::Working {
            return;
        }
        self.setup_task = None;
        match result {
            Ok(surroundings) => {
                self.setup_failures = 0;
                self.facts.pod_ip = Some(surroundings.network.ip());
                let pod = self.pod.borrow().clone();
                self.storage_task = self.watch_storage(&pod, &surroundings.volumes);
                self.surroundings = Some(surroundings);
                self.follow_labels();
                self.facts.setup = Setup::Done;
            }
            Err((reason, message)) => {
                self.events.record(EventType::Warning, reason, message);
                let delay = grown(SETUP_RETRY, self.setup_failures, MAX_SETUP_RETRY);
                self.setup_failures += 1;
                self.facts.setup = Setup::Due(self.context.clock.now() + delay);
            }
        }
    }

    fn tear_down(&mut self) {
        (self.setup_task, self.storage_task) = (None, None);
        self.instances.clear();
        self.context.room.release(&self.identity.uid);
        let surroundings = self.surroundings.take();
        let (runtimes, pod) = (self.context.runtimes.clone(), self.identity.clone());
        // Not one that ends with the worker: a sandbox must not stay behind because its pod was quick.
        self.teardown = Some(tokio::spawn(async move {
            runtimes.tear_down(&pod).await;
            if let Some(surroundings) = surroundings {
                surroundings.network.tear_down();
            }
        }));
        self.facts.setup = Setup::TornDown;
    }

    fn finish_deletion(&mut self) {
        if self.is_static() {
            // The API has only its mirror.
            self.facts.gone = true;
            return;
        }
        if self.delete_task.is_some() || !self.publisher.is_settled() {
            return;
        }
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.identity.namespace);
        let PodIdentity { name, uid, .. } = self.identity.clone();
        let sender = self.sender.clone();
        self.delete_task = Some(OwnedTask::spawn(async move {
            let uid = Some(uid);
            let preconditions = Some(Preconditions {
                uid,
                resource_version: None,
            });
            let parameters = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions,
                ..DeleteParams::default()
            };
            let result = api.delete(&name, &parameters).await.map(drop);
            if result.as_ref().is_err_and(|error| !is_gone(error)) {
                tokio::time::sleep(DELETE_RETRY).await;
            }
            let _ = sender.send(Message::Deleted(result));
        }));
    }

    fn observe_deletion(&mut self, result: Result<(), kube::Error>) {
        match result {
            Err(error) if is_gone(&error) => self.facts.gone = true,
            Err(error) => {
                tracing::warn!(pod = self.identity.name, %error, "deletion not finished, will retry");
                self.delete_task = None;
            }
            // The watch says when the object is gone: finalizers may hold it.
            Ok(()) => {}
        }
    }

    async fn clean_up(&mut self) {
        if let Some(teardown) = self.teardown.take()
            && let Err(error) = teardown.await
        {
            tracing::error!(pod = self.identity.name, %error, "a pod's teardown failed");
        }
        if !self.facts.gone {
            return;
        }
        let directory = start::pod_directory(&self.context.data_dir, &self.identity);
        if let Err(error) = volumes::remove(&directory).await {
            tracing::warn!(path = %directory.display(), %error, "leave a pod's directory behind");
        }
        if let Err(error) = self.context.logs.remove(&self.identity).await {
            tracing::warn!(pod = self.identity.name, %error, "leave a pod's logs behind");
        }
    }
}

async fn set_up(
    context: &Arc<NodeContext>,
    request: &PodNetworkRequest,
    pod: watch::Receiver<Arc<Pod>>,
    directory: std::path::PathBuf,
    events: &ObjectEvents,
) -> Result<Surroundings, (EventReason, String)> {
    // The first pods may come before the node has its range of addresses.
    context.network.pod_cidr().await;
    let is_static = is_static(&pod.borrow());
    if !is_static {
        context.network.services_listed().await;
    }
    let network = context.network.set_up(request).map_err(|error| {
        let text = format!("Failed to create pod sandbox: {error}");
        (EventReason::FailedCreatePodSandBox, text)
    })?;
    let volumes = volumes::set_up(VolumeContext {
        client: context.client.clone(),
        objects: context.objects.clone(),
        pod,
        node: context.node_view(network.ip().to_string()),
        directory,
        host_paths: context.host_paths.clone(),
        data_dir: context.data_dir.clone(),
        for_linux: context.runtimes.for_image(ImageKind::Linux).is_some(),
        images: context.images.clone(),
        events: events.clone(),
    });
    match volumes.await {
        Ok(volumes) => Ok(Surroundings {
            network,
            volumes: Arc::new(volumes),
        }),
        Err(error) => {
            network.tear_down();
            Err((EventReason::FailedMount, error.to_string()))
        }
    }
}

/// Where the pod may connect to. What cannot be understood grants nothing, and the start of a container says so.
fn granted_egress(pod: &Pod) -> Egress {
    let annotations = pod.metadata.annotations.as_ref();
    let annotation = |key: &str| annotations?.get(key).map(String::as_str);
    match Grants::read(annotation) {
        Ok(grants) => grants.egress.unwrap_or_default(),
        Err(_) => Egress::None,
    }
}

/// The address that the pod had.
fn address(pod: &Pod) -> Option<Ipv4Addr> {
    let status = pod.status.as_ref()?;
    status.pod_ip.as_ref()?.parse().ok()
}

/// The ports of the pod's containers that have a name; sidecars have ports too.
fn named_ports(pod: &Pod) -> Vec<NamedPort> {
    let spec = pod.spec.as_ref();
    let main = spec.into_iter().flat_map(|spec| &spec.containers);
    let init = spec
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    let ports = main
        .chain(init)
        .flat_map(|container| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        Some(NamedPort {
            name: port.name.clone()?,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            number: u16::try_from(port.container_port).ok()?,
        })
    });
    named.collect()
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

/// `first`, doubled for each failure before, at most `longest`.
fn grown(first: Duration, failures: u32, longest: Duration) -> Duration {
    first
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(longest)
}

impl NodeContext {
    fn node_view(&self, pod_ip: String) -> NodeView {
        NodeView {
            host_ip: self.host.host_ip.clone(),
            pod_ip,
            cpu_millis: self.machine.cpu_millis,
            memory_bytes: self.machine.memory_bytes,
        }
    }
}
