//! What a pod worker does about single containers: start, watch, probe, end, back off.
//!
//! Invariant: an [`Instance`] is in the worker's table exactly while its container is starting, running or
//! stopping; taking it out drops the instance and with it everything that was started.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::mpsc;

use super::{Instance, Message, PodWorker, grown, termination};
use crate::events::{EventType, ObjectEvents};
use crate::pods::facts::{self, ContainerFacts, Ended, Phase};
use crate::pods::hooks::{self, PreStop};
use crate::pods::plan;
use crate::pods::start::{self, StartRequest, StartedContainer};
use crate::probes::{self, Purpose, Target, Verdict};
use crate::runtime::{ExitStatus, PodIdentity, StartError};
use crate::status::reason::{ContainerReason, EventReason};
use crate::tasks::OwnedTask;

const START_RETRY: Duration = Duration::from_secs(2);
const MAX_START_RETRY: Duration = Duration::from_secs(60);

impl PodWorker {
    pub(super) fn start(&mut self, pod: &Arc<Pod>, name: &str, now: Timestamp) {
        let Some(container) = find_container(pod, name) else {
            return;
        };
        let (Some(surroundings), Some(facts)) =
            (&self.surroundings, self.facts.containers.get_mut(name))
        else {
            return;
        };
        begin_attempt(facts);
        let attempt = facts.restart_count;
        let start = self.next_start;
        self.next_start += 1;
        let logs = self.context.logs.begin(&self.identity, name, attempt);
        let request = StartRequest {
            context: self.context.clone(),
            pod: pod.clone(),
            identity: self.identity.clone(),
            container: Arc::new(container.into_owned()),
            attempt,
            resume: facts.resume,
            network: surroundings.network.clone(),
            volumes: surroundings.volumes.clone(),
            node: self
                .context
                .node_view(surroundings.network.ip().to_string()),
            logs: logs.clone(),
            events: self.events.clone(),
        };
        tracing::debug!(pod = self.identity.name, container = name, attempt, %now, "start");
        let task = OwnedTask::spawn(run_container(
            request,
            name.to_owned(),
            start,
            self.sender.clone(),
        ));
        let instance = Instance {
            start,
            logs,
            container: None,
            _task: task,
            probes: Vec::new(),
            pre_stop: None,
            stopping: None,
        };
        self.instances.insert(name.to_owned(), instance);
    }

    pub(super) fn observe_start(&mut self, name: &str, start: u64, started: StartedContainer) {
        if !self.is_current(name, start) {
            return;
        }
        let now = self.context.clock.now();
        let pod = self.pod.borrow().clone();
        let Some(container) = find_container(&pod, name) else {
            return;
        };
        self.observe_image(name, &started);
        if let Some(facts) = self.facts.containers.get_mut(name) {
            facts.phase = Phase::Running {
                since: started.since.unwrap_or(now),
            };
            facts.resume = false;
            facts.start_failures = 0;
            facts
                .resources
                .clone_from(&started.target.container.resources);
            facts.started = container.startup_probe.is_none();
            facts.ready = container.readiness_probe.is_none();
            facts.unhealthy = None;
        }
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.clone());
        let pre_stop = hook.map(|handler| PreStop {
            handler,
            target: started.target.clone(),
            events: self.events.clone(),
        });
        if let Some(instance) = self.instances.get_mut(name) {
            let containers = &self.context.containers;
            containers.insert(&self.identity.uid, name, &started.target.instance);
            instance.container = Some(started.target);
            instance.pre_stop = pre_stop;
        }
        self.images.insert(name.to_owned(), started.image);
        // The pod may say something else by now than when the start began.
        self.resize();
        if container.startup_probe.is_some() {
            self.probe(&container, start, &[Purpose::Startup]);
        } else {
            self.probe(&container, start, &[Purpose::Liveness, Purpose::Readiness]);
        }
    }

    /// What is known of a container once it has been made.
    pub(super) fn observe_image(&mut self, name: &str, started: &StartedContainer) {
        if let Some(facts) = self.facts.containers.get_mut(name) {
            facts.image_id.clone_from(&started.image_id);
            facts.container_id = Some(started.container_id.clone());
        }
    }

    pub(super) fn observe_failure(&mut self, name: &str, error: StartError) {
        let now = self.context.clock.now();
        self.end_instance(name);
        let Some(facts) = self.facts.containers.get_mut(name) else {
            return;
        };
        let is_image = matches!(
            error.reason,
            ContainerReason::ErrImagePull
                | ContainerReason::InvalidImageName
                | ContainerReason::ErrImageNeverPull
        );
        let (first, longest) = if is_image {
            (plan::INITIAL_BACK_OFF, plan::MAX_BACK_OFF)
        } else {
            (START_RETRY, MAX_START_RETRY)
        };
        let delay = grown(first, facts.start_failures, longest);
        facts.start_failures += 1;
        facts.phase = Phase::Waiting {
            reason: error.reason,
            message: error.message,
            since: now,
            retry_at: Some(now + delay),
        };
    }

    pub(super) async fn observe_exit(&mut self, name: &str, mut exit: ExitStatus) {
        self.end_instance(name);
        let policy = self.termination_policy(name);
        let found = termination::Source {
            file: start::termination_file(&self.context.data_dir, &self.identity, name),
            logs: &self.context.logs,
            pod: &self.identity,
            container: name,
        };
        if let Some(message) = found.message(&exit, policy.as_deref()).await {
            exit.message = message;
        }
        if self.facts.shutdown && exit.exit_code == 0 {
            // Not the container's own success: after a restart of the agent it runs again.
            exit = ExitStatus {
                exit_code: 143,
                message: "the node agent stopped".to_owned(),
                ..exit
            };
        }
        let now = self.context.clock.now();
        let Some(facts) = self.facts.containers.get_mut(name) else {
            return;
        };
        let started_at = match facts.phase {
            Phase::Running { since } | Phase::Stopping { since } => since,
            _ => now,
        };
        let ended = Ended::new(exit, started_at, now, facts.container_id.clone());
        facts.phase = Phase::Ended(ended);
        (facts.started, facts.ready, facts.unhealthy) = (false, false, None);
    }

    fn termination_policy(&self, name: &str) -> Option<String> {
        let pod = self.pod.borrow();
        find_container(&pod, name)?
            .termination_message_policy
            .clone()
    }

    fn end_instance(&mut self, name: &str) {
        if let Some(instance) = self.instances.remove(name) {
            self.context.containers.remove(&self.identity.uid, name);
            instance.logs.close();
        }
    }

    pub(super) fn stop(&mut self, name: &str, grace: Duration, why: &str) {
        let Some(facts) = self.facts.containers.get_mut(name) else {
            return;
        };
        let Phase::Running { since } = facts.phase else {
            // It was still being started: there is nothing to wait for.
            let now = self.context.clock.now();
            let restart_count = facts.restart_count;
            let last = facts.last.take();
            *facts = ContainerFacts {
                restart_count,
                last,
                ..ContainerFacts::new(now)
            };
            self.end_instance(name);
            return;
        };
        facts.phase = Phase::Stopping { since };
        facts.ready = false;
        let text = if why.is_empty() {
            format!("Stopping container {name}")
        } else {
            why.to_owned()
        };
        self.events
            .container(name, EventType::Normal, EventReason::Killing, text);
        if let Some(instance) = self.instances.get_mut(name) {
            instance.probes.clear();
            instance.stop(grace);
        }
    }

    /// Ends at once what was still given time.
    pub(super) fn force_stops(&mut self) {
        for instance in self.instances.values_mut() {
            if instance.stopping.is_some() {
                instance.stop(Duration::ZERO);
            }
        }
    }

    pub(super) fn back_off(&mut self, name: &str, until: Timestamp, now: Timestamp) {
        let Some(facts) = self.facts.containers.get_mut(name) else {
            return;
        };
        let (reason, message, event) = match &facts.phase {
            Phase::Ended(_) => {
                let delay = facts.back_off.as_secs();
                let PodIdentity {
                    namespace,
                    name: pod,
                    uid,
                } = &self.identity;
                let of_pod = format!("{pod}_{namespace}({uid})");
                (
                    ContainerReason::CrashLoopBackOff,
                    format!(
                        "back-off {} restarting failed container={name} pod={of_pod}",
                        go_duration(delay)
                    ),
                    format!("Back-off restarting failed container {name} in pod {of_pod}"),
                )
            }
            Phase::Waiting {
                reason, message, ..
            } => {
                let pod = self.pod.borrow();
                let image = find_container(&pod, name)
                    .and_then(|container| container.image.clone())
                    .unwrap_or_default();
                let text = format!("Back-off pulling image {image:?}");
                (
                    ContainerReason::ImagePullBackOff,
                    format!("{text}: {reason}: {message}"),
                    text,
                )
            }
            _ => return,
        };
        if let Phase::Ended(ended) = &facts.phase {
            facts.last = Some(ended.clone());
        }
        facts.phase = Phase::Waiting {
            reason,
            message,
            since: now,
            retry_at: Some(until),
        };
        let kind = if reason == ContainerReason::CrashLoopBackOff {
            EventType::Warning
        } else {
            EventType::Normal
        };
        self.events
            .container(name, kind, EventReason::BackOff, event);
    }

    fn probe(&mut self, container: &Container, start: u64, purposes: &[Purpose]) {
        let Some(instance) = self.instances.get_mut(&container.name) else {
            return;
        };
        let Some(target) = instance.container.clone() else {
            return;
        };
        for purpose in purposes {
            let probe = match purpose {
                Purpose::Startup => &container.startup_probe,
                Purpose::Liveness => &container.liveness_probe,
                Purpose::Readiness => &container.readiness_probe,
            };
            let Some(probe) = probe else { continue };
            let (name, sender) = (container.name.clone(), self.sender.clone());
            let verdict = move |verdict| {
                let _ = sender.send(Message::Probed {
                    name: name.clone(),
                    start,
                    verdict,
                });
            };
            let events = self.events.clone();
            let task = probes::run(*purpose, probe.clone(), target.clone(), events, verdict);
            instance.probes.push(OwnedTask::spawn(task));
        }
    }

    pub(super) fn observe_verdict(&mut self, name: &str, verdict: Verdict) {
        let Some(facts) = self.facts.containers.get_mut(name) else {
            return;
        };
        if !facts.is_running() {
            return;
        }
        match verdict {
            Verdict::Ready(ready) => facts.ready = ready,
            Verdict::Unhealthy(why) => facts.unhealthy = Some(why),
            Verdict::Started => {
                facts.started = true;
                let pod = self.pod.borrow().clone();
                let found = find_container(&pod, name);
                let start = self.instances.get(name).map(|instance| instance.start);
                if let (Some(container), Some(start)) = (found, start) {
                    self.probe(&container, start, &[Purpose::Liveness, Purpose::Readiness]);
                }
            }
        }
    }
}

fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    facts::container(pod.spec.as_ref()?, name)
}

impl Instance {
    /// Ends the container: its hook is called once, and not at all when there is no time.
    fn stop(&mut self, grace: Duration) {
        let Some(target) = &self.container else {
            return;
        };
        let container = target.instance.clone();
        let hook = self.pre_stop.take().filter(|_| !grace.is_zero());
        self.stopping = Some(OwnedTask::spawn(async move {
            let grace = match hook {
                Some(hook) => hook.call(grace).await,
                None => grace,
            };
            container.stop(grace).await;
        }));
    }
}

/// The facts of a container that is about to be started, for the first time or again.
fn begin_attempt(facts: &mut ContainerFacts) {
    let is_restart = match &facts.phase {
        Phase::Ended(_) => true,
        Phase::Waiting { reason, .. } => *reason == ContainerReason::CrashLoopBackOff,
        _ => false,
    };
    if is_restart {
        facts.back_off = plan::back_off_after_restart(facts);
        facts.restart_count += 1;
    }
    if let Phase::Ended(ended) = &facts.phase {
        facts.last = Some(ended.clone());
    }
    facts.phase = Phase::Starting;
    (facts.started, facts.ready, facts.unhealthy) = (false, false, None);
}

/// The task of one start: ends with the container.
async fn run_container(
    request: StartRequest,
    name: String,
    start: u64,
    sender: mpsc::UnboundedSender<Message>,
) {
    let events = request.events.clone();
    let grace = request
        .pod
        .spec
        .as_ref()
        .map_or(Duration::ZERO, plan::grace_of);
    let resumed = request.resume;
    let container = match request.start().await {
        Ok(container) => container,
        Err(error) => {
            let _ = sender.send(Message::StartFailed { name, start, error });
            return;
        }
    };
    let instance = container.target.instance.clone();
    // The hook of a container that runs already was called by whoever started it.
    if !resumed && hook_fails(&container.target, &events).await {
        let text = "FailedPostStartHook".to_owned();
        events.container(&name, EventType::Normal, EventReason::Killing, text);
        instance.stop(grace).await;
        let exit = instance.wait().await;
        let _ = sender.send(Message::HookFailed {
            name,
            start,
            container,
            exit,
        });
        return;
    }
    let _ = sender.send(Message::Started {
        name: name.clone(),
        start,
        container,
    });
    let exit = instance.wait().await;
    let _ = sender.send(Message::Exited { name, start, exit });
}

/// Calls the hook after the start, if the container has one.
async fn hook_fails(target: &Target, events: &ObjectEvents) -> bool {
    let lifecycle = target.container.lifecycle.as_ref();
    match lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) {
        Some(handler) => hooks::post_start(handler, target, events).await.is_err(),
        None => false,
    }
}

/// Seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
fn go_duration(seconds: u64) -> String {
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}
