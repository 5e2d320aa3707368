//! What a pod worker knows of its pod: the observed half of the plan.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStatus, EphemeralContainer, Pod, PodSpec, PodStatus,
    ResourceRequirements,
};

use crate::runtime::{ExitStatus, Survivor};
use crate::status::reason::ContainerReason;

/// Part a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, runs beside the others.
    Sidecar,
    /// An entry of `spec.containers`.
    App,
    /// An entry of `spec.ephemeralContainers`: runs once, beside the others, for who wants to look at them.
    Ephemeral,
}

/// The containers of a pod in the order they start, each with its role.
pub(crate) fn containers(spec: &PodSpec) -> impl Iterator<Item = (Role, &Container)> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let always = container.restart_policy.as_deref() == Some("Always");
        (if always { Role::Sidecar } else { Role::Init }, container)
    });
    init.chain(
        spec.containers
            .iter()
            .map(|container| (Role::App, container)),
    )
}

/// The names of all containers, in the order they start, ephemeral ones last.
pub(crate) fn names(spec: &PodSpec) -> impl Iterator<Item = (Role, &str)> {
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    containers(spec)
        .map(|(role, container)| (role, container.name.as_str()))
        .chain(ephemeral.map(|container| (Role::Ephemeral, container.name.as_str())))
}

/// The container of that name.
pub(crate) fn container<'a>(spec: &'a PodSpec, name: &str) -> Option<Cow<'a, Container>> {
    if let Some((_, found)) = containers(spec).find(|(_, container)| container.name == name) {
        return Some(Cow::Borrowed(found));
    }
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    let found = ephemeral.find(|container| container.name == name)?;
    Some(Cow::Owned(of_ephemeral(found)))
}

/// An ephemeral container as what it is but for the name of its type.
pub(crate) fn of_ephemeral(ephemeral: &EphemeralContainer) -> Container {
    let EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        name,
        security_context,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
        // Those that the API refuses in ephemeral containers, and `targetContainerName`: there are no processes to see.
        ..
    } = ephemeral.clone();
    Container {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        name,
        security_context,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
        ..Container::default()
    }
}

/// Everything observed of one pod.
#[derive(Clone, Debug)]
pub(crate) struct PodFacts {
    /// Network and volumes.
    pub(crate) setup: Setup,
    /// All init containers have ended well once.
    pub(crate) initialized: bool,
    /// The pod as a whole has failed: reason and message of its status.
    pub(crate) failed: Option<(&'static str, String)>,
    /// A change of resources that is not done.
    pub(crate) resize: Option<Resize>,
    /// The object is gone from the API, or replaced by another of its name.
    pub(crate) gone: bool,
    /// The agent is stopping; the pod will run again.
    pub(crate) shutdown: bool,
    /// When the agent first saw the pod.
    pub(crate) start_time: Timestamp,
    /// When the end of the pod began; its grace counts from there.
    pub(crate) ending_since: Option<Timestamp>,
    /// Addresses, once the network is set up.
    pub(crate) pod_ip: Option<std::net::IpAddr>,
    /// By container name.
    pub(crate) containers: BTreeMap<String, ContainerFacts>,
}

/// Why a change of resources is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resize {
    /// The node is too small for it.
    Infeasible(String),
    /// Other pods take the room it needs.
    Deferred(String),
    /// It was tried, and the container can't use less.
    Failed(String),
}

/// How far the pod's surroundings are set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// Not yet; try at this time.
    Due(Timestamp),
    /// Being set up.
    Working,
    /// Network and volumes are there.
    Done,
    /// Given back.
    TornDown,
}

/// Everything observed of one container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContainerFacts {
    /// What it does now.
    pub(crate) phase: Phase,
    /// How often it was started again.
    pub(crate) restart_count: u32,
    /// How it ended before.
    pub(crate) last: Option<Ended>,
    /// Delay before the next restart; zero before the first.
    pub(crate) back_off: Duration,
    /// Start attempts that failed in a row.
    pub(crate) start_failures: u32,
    /// The startup probe has passed, or there is none.
    pub(crate) started: bool,
    /// The readiness probe's verdict; true without one.
    pub(crate) ready: bool,
    /// A liveness or startup probe wants it killed: why.
    pub(crate) unhealthy: Option<String>,
    /// What it may use, as its runtime was told last.
    pub(crate) resources: Option<ResourceRequirements>,
    /// `imageID` once the image is resolved.
    pub(crate) image_id: String,
    /// `containerID` of the current or last start.
    pub(crate) container_id: Option<String>,
    /// It was started by an earlier process of the agent, and is still to be taken over.
    pub(crate) resume: bool,
}

/// What a container does now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// Does not run.
    Waiting {
        /// Why.
        reason: ContainerReason,
        /// More words on why.
        message: String,
        /// When this began.
        since: Timestamp,
        /// Not to be started before.
        retry_at: Option<Timestamp>,
    },
    /// Its image is pulled or its runtime is starting it.
    Starting,
    /// Runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// Was asked to end.
    Stopping {
        /// When it had started.
        since: Timestamp,
    },
    /// Has ended.
    Ended(Ended),
}

/// One end of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
    pub(crate) container_id: Option<String>,
}

impl Ended {
    /// From a runtime's exit status.
    pub(crate) fn new(
        exit: ExitStatus,
        started_at: Timestamp,
        finished_at: Timestamp,
        container_id: Option<String>,
    ) -> Self {
        Self {
            reason: exit.reason().as_str().to_owned(),
            exit_code: exit.exit_code,
            signal: exit.signal,
            message: exit.message,
            started_at: Some(started_at),
            finished_at,
            container_id,
        }
    }
}

impl ContainerFacts {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            phase: Phase::Waiting {
                reason: ContainerReason::ContainerCreating,
                message: String::new(),
                since: now,
                retry_at: None,
            },
            restart_count: 0,
            last: None,
            back_off: Duration::ZERO,
            start_failures: 0,
            started: false,
            ready: false,
            unhealthy: None,
            resources: None,
            image_id: String::new(),
            container_id: None,
            resume: false,
        }
    }

    /// Whether an instance may exist.
    pub(crate) fn is_active(&self) -> bool {
        matches!(
            self.phase,
            Phase::Starting | Phase::Running { .. } | Phase::Stopping { .. }
        )
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// How it ended, if it has and was not started since.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        match &self.phase {
            Phase::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    pub(crate) fn ended_well(&self) -> bool {
        self.ended().is_some_and(|ended| ended.exit_code == 0)
    }
}

impl PodFacts {
    /// What is known when a worker begins: nothing, or what an earlier agent process left in the status.
    ///
    /// A container found running that did not survive that process is recorded as ended with an unknown
    /// status, so that the restart policy decides about it and the restart is counted. One that did is taken over by
    /// starting it under the number that it has.
    pub(crate) fn begin(pod: &Pod, now: Timestamp, survivors: &[Survivor]) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let mut containers_by_name = BTreeMap::new();
        for (role, name) in spec.into_iter().flat_map(names) {
            let found = find_status(&status, name);
            let of_name = survivors
                .iter()
                .filter(|survivor| survivor.container == name);
            let last = of_name.map(|survivor| survivor.attempt).max();
            let context = Recovery {
                role,
                now,
                survives: last,
                same_sandbox: !survivors.is_empty(),
            };
            let facts = context.recover(found);
            containers_by_name.insert(name.to_owned(), facts);
        }
        Self {
            setup: Setup::Due(now),
            initialized: false,
            failed: None,
            resize: None,
            gone: false,
            shutdown: false,
            start_time: status.start_time.as_ref().map_or(now, |time| time.0),
            ending_since: None,
            pod_ip: None,
            containers: containers_by_name,
        }
    }

    /// Takes in what was added to the pod: ephemeral containers.
    pub(crate) fn follow(&mut self, pod: &Pod, now: Timestamp) {
        for (_, name) in pod.spec.iter().flat_map(names) {
            if !self.containers.contains_key(name) {
                let new = ContainerFacts::new(now);
                self.containers.insert(name.to_owned(), new);
            }
        }
    }

    /// Whether containers that run already are still to be taken over.
    pub(crate) fn is_resuming(&self) -> bool {
        self.containers.values().any(|facts| facts.resume)
    }

    /// Whether any instance may exist.
    pub(crate) fn any_active(&self) -> bool {
        self.containers.values().any(ContainerFacts::is_active)
    }
}

/// Whether a container of the pod was started by the runtime of this scheme.
pub(crate) fn has_container_of(pod: &Pod, scheme: &str) -> bool {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|status| {
        let main = status.container_statuses.iter();
        main.chain(&status.init_container_statuses)
            .chain(&status.ephemeral_container_statuses)
            .flatten()
    });
    let mut ids = all.filter_map(|found| found.container_id.as_deref());
    ids.any(|id| id.starts_with(scheme))
}

fn find_status<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .chain(&status.ephemeral_container_statuses);
    all.flatten().find(|found| found.name == name)
}

/// What an earlier process of the agent left behind of one container.
struct Recovery {
    role: Role,
    now: Timestamp,
    /// The number of its last start, if its runtime still knows that.
    survives: Option<u32>,
    /// The pod's sandbox is still there.
    same_sandbox: bool,
}

impl Recovery {
    fn recover(&self, found: Option<&ContainerStatus>) -> ContainerFacts {
        let now = self.now;
        let mut facts = ContainerFacts::new(now);
        let mut ended = None;
        if let Some(found) = found {
            facts.restart_count = u32::try_from(found.restart_count).unwrap_or(0);
            facts.last = found.last_state.as_ref().and_then(terminated);
            facts.image_id = found.image_id.clone();
            facts.container_id = found.container_id.clone();
            ended = found.state.as_ref().and_then(terminated);
        }
        let is_known = |attempt: &u32| {
            // An end that was told already is not told again.
            *attempt > facts.restart_count || (*attempt == facts.restart_count && ended.is_none())
        };
        if let Some(attempt) = self.survives.filter(is_known) {
            facts.restart_count = attempt;
            facts.last = ended.or(facts.last);
            facts.resume = true;
            return facts;
        }
        let running = found.filter(|found| {
            let state = found.state.as_ref();
            state.is_some_and(|state| state.running.is_some())
        });
        let Some(ended) = ended.or_else(|| running.map(|found| lost(found, now))) else {
            return facts;
        };
        // A pod that gets a new network runs its init containers again, as in a new sandbox.
        if self.role == Role::Init && !self.same_sandbox {
            facts.restart_count += 1;
            facts.last = Some(ended);
        } else {
            facts.phase = Phase::Ended(ended);
        }
        facts
    }
}

fn lost(found: &ContainerStatus, now: Timestamp) -> Ended {
    let running = found
        .state
        .as_ref()
        .and_then(|state| state.running.as_ref());
    Ended {
        exit_code: 137,
        signal: None,
        reason: ContainerReason::ContainerStatusUnknown.as_str().to_owned(),
        message: "The container could not be located when the node agent started".to_owned(),
        started_at: running
            .and_then(|running| running.started_at.as_ref())
            .map(|time| time.0),
        finished_at: now,
        container_id: found.container_id.clone(),
    }
}

fn terminated(state: &ContainerState) -> Option<Ended> {
    let state = state.terminated.as_ref()?;
    Some(Ended {
        exit_code: state.exit_code,
        signal: state.signal,
        reason: state.reason.clone().unwrap_or_default(),
        message: state.message.clone().unwrap_or_default(),
        started_at: state.started_at.as_ref().map(|time| time.0),
        finished_at: state
            .finished_at
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        container_id: state.container_id.clone(),
    })
}
