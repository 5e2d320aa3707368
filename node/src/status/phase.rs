//! From facts to status: phase, conditions and container statuses, purely.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use windlass_api::pod_resources;

use super::reason::{ContainerReason, EventReason};
use crate::pods::facts::{
    ContainerFacts, Ended, Phase, PodFacts, Resize, Role, Setup, containers, of_ephemeral,
};

/// What the node adds to every status.
#[derive(Clone, Debug)]
pub(crate) struct HostFacts {
    /// Address of the node.
    pub(crate) host_ip: String,
}

/// The whole status this node reports for a pod, given the one it reported before.
pub(crate) fn status(
    pod: &Pod,
    old: &PodStatus,
    facts: &PodFacts,
    host: &HostFacts,
    now: Timestamp,
) -> PodStatus {
    let Some(spec) = &pod.spec else {
        return PodStatus::default();
    };
    let phase = phase(pod, spec, old, facts);
    let ips = facts.pod_ip.map(|ip| ip.to_string());
    let (reason, message) = match &facts.failed {
        Some((reason, message)) => (Some((*reason).to_owned()), Some(message.clone())),
        None => (old.reason.clone(), old.message.clone()),
    };
    let statuses = |wanted: fn(Role) -> bool| {
        let of_role = containers(spec).filter(|(role, _)| wanted(*role));
        let list: Vec<_> = of_role
            .map(|(_, container)| container_status(container, facts))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(pod, spec, (old, phase), facts, now)),
        container_statuses: statuses(|role| role == Role::App),
        init_container_statuses: statuses(|role| role != Role::App),
        ephemeral_container_statuses: ephemeral_statuses(spec, facts),
        host_ip: Some(host.host_ip.clone()),
        host_ips: Some(vec![HostIP {
            ip: host.host_ip.clone(),
        }]),
        pod_ip: ips.clone(),
        pod_ips: ips.map(|ip| vec![PodIP { ip }]),
        start_time: Some(Time(whole_second(facts.start_time))),
        qos_class: Some(
            old.qos_class
                .clone()
                .unwrap_or_else(|| format!("{:?}", pod_resources::qos_class(spec))),
        ),
        observed_generation: pod.metadata.generation,
        reason,
        message,
        ..PodStatus::default()
    }
}

/// Spec: the phase as the pod lifecycle page defines it.
fn phase(pod: &Pod, spec: &PodSpec, old: &PodStatus, facts: &PodFacts) -> &'static str {
    match old.phase.as_deref() {
        Some("Failed") => return "Failed",
        Some("Succeeded") => return "Succeeded",
        _ => {}
    }
    if facts.failed.is_some() {
        return if facts.any_active() {
            "Running"
        } else {
            "Failed"
        };
    }
    let ending = pod.metadata.deletion_timestamp.is_some();
    if facts.any_active() || !(ending || crate::pods::plan::is_done(spec, facts)) {
        return live_phase(spec, facts);
    }
    let started: Vec<_> = containers(spec)
        .filter(|(role, _)| *role != Role::Sidecar)
        .filter_map(|(_, container)| facts.containers.get(&container.name))
        .collect();
    let well = started.iter().all(|found| found.ended_well());
    if well { "Succeeded" } else { "Failed" }
}

fn live_phase(spec: &PodSpec, facts: &PodFacts) -> &'static str {
    let waits = |container: &Container| {
        let found = facts.containers.get(&container.name);
        found.is_none_or(|found| {
            matches!(found.phase, Phase::Waiting { .. } | Phase::Starting) && found.last.is_none()
        })
    };
    let ran_before = |container: &Container| {
        facts
            .containers
            .get(&container.name)
            .is_some_and(|found| found.ended().is_some())
    };
    let pending_init = !facts.initialized && !spec.containers.iter().any(ran_before);
    if pending_init || spec.containers.iter().any(waits) {
        "Pending"
    } else {
        "Running"
    }
}

fn ephemeral_statuses(spec: &PodSpec, facts: &PodFacts) -> Option<Vec<ContainerStatus>> {
    let ephemeral = spec.ephemeral_containers.as_ref()?;
    let statuses = ephemeral.iter().map(|container| ContainerStatus {
        // Nobody waits for one.
        ready: false,
        ..container_status(&of_ephemeral(container), facts)
    });
    Some(statuses.collect())
}

fn container_status(container: &Container, facts: &PodFacts) -> ContainerStatus {
    let found = facts.containers.get(&container.name);
    let unknown = ContainerFacts::new(facts.start_time);
    let found = found.unwrap_or(&unknown);
    let running = matches!(found.phase, Phase::Running { .. } | Phase::Stopping { .. });
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: found.image_id.clone(),
        container_id: found.container_id.clone(),
        ready: is_ready(container, found, facts),
        started: Some(running && found.started),
        restart_count: i32::try_from(found.restart_count).unwrap_or(i32::MAX),
        state: Some(state(found, facts)),
        last_state: Some(found.last.as_ref().map(terminated).unwrap_or_default()),
        resources: found.resources.clone(),
        allocated_resources: found
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.clone()),
        ..ContainerStatus::default()
    }
}

fn is_ready(container: &Container, found: &ContainerFacts, facts: &PodFacts) -> bool {
    let always = container.restart_policy.as_deref() == Some("Always");
    let is_init = facts.initialized && !always && found.ended_well();
    (found.is_running() && found.started && found.ready) || is_init
}

fn state(found: &ContainerFacts, facts: &PodFacts) -> ContainerState {
    let waiting = |reason: ContainerReason, message: &str| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.as_str().to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    };
    match &found.phase {
        Phase::Waiting {
            reason: ContainerReason::ContainerCreating,
            ..
        } if facts.setup == Setup::Done && !facts.initialized => {
            waiting(ContainerReason::PodInitializing, "")
        }
        Phase::Waiting {
            reason, message, ..
        } => waiting(*reason, message),
        Phase::Starting => waiting(ContainerReason::ContainerCreating, ""),
        Phase::Running { since } | Phase::Stopping { since } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(whole_second(*since))),
            }),
            ..ContainerState::default()
        },
        Phase::Ended(ended) => terminated(ended),
    }
}

fn terminated(ended: &Ended) -> ContainerState {
    let message = (!ended.message.is_empty()).then(|| ended.message.clone());
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: ended.exit_code,
            signal: ended.signal,
            reason: Some(ended.reason.clone()),
            message,
            started_at: ended.started_at.map(|time| Time(whole_second(time))),
            finished_at: Some(Time(whole_second(ended.finished_at))),
            container_id: ended.container_id.clone(),
        }),
        ..ContainerState::default()
    }
}

fn conditions(
    pod: &Pod,
    spec: &PodSpec,
    (old, phase): (&PodStatus, &str),
    facts: &PodFacts,
    now: Timestamp,
) -> Vec<PodCondition> {
    let sandbox = matches!(facts.setup, Setup::Done);
    let (containers_ready, why) = containers_ready(spec, facts, phase);
    let gates_missing = missing_gates(pod, spec);
    let ready = containers_ready && gates_missing.is_none();
    let ready_why = if containers_ready {
        gates_missing
    } else {
        why.clone()
    };
    let initialized_why =
        (!facts.initialized && phase != "Succeeded").then(|| init_why(spec, facts));
    let resize = facts.resize.as_ref().map(|resize| match resize {
        Resize::Infeasible(text) => ("PodResizePending", true, Some(("Infeasible", text.clone()))),
        Resize::Deferred(text) => ("PodResizePending", true, Some(("Deferred", text.clone()))),
        Resize::Failed(text) => ("PodResizeInProgress", true, Some(("Error", text.clone()))),
    });
    let evicted = facts.failed.as_ref().and_then(|(reason, text)| {
        let is_eviction = *reason == EventReason::Evicted.as_str();
        is_eviction.then(|| {
            let why = ("TerminationByKubelet", text.clone());
            ("DisruptionTarget", true, Some(why))
        })
    });
    [
        ("PodReadyToStartContainers", sandbox, None),
        ("Initialized", initialized_why.is_none(), initialized_why),
        ("Ready", ready, ready_why),
        ("ContainersReady", containers_ready, why),
    ]
    .into_iter()
    .chain(resize)
    .chain(evicted)
    .map(|(kind, holds, why)| condition((pod.metadata.generation, old), kind, holds, why, now))
    .collect()
}

/// Reason and message of a condition that does not hold.
type Why = Option<(&'static str, String)>;

fn containers_ready(spec: &PodSpec, facts: &PodFacts, phase: &str) -> (bool, Why) {
    match phase {
        "Succeeded" => return (false, Some(("PodCompleted", String::new()))),
        "Failed" => return (false, Some(("PodFailed", String::new()))),
        _ => {}
    }
    let must_be_ready = containers(spec).filter(|(role, _)| *role != Role::Init);
    let unready: Vec<&str> = must_be_ready
        .filter(|(_, container)| {
            let found = facts.containers.get(&container.name);
            !found.is_some_and(|found| is_ready(container, found, facts))
        })
        .map(|(_, container)| container.name.as_str())
        .collect();
    if unready.is_empty() {
        return (true, None);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    (false, Some(("ContainersNotReady", message)))
}

fn init_why(spec: &PodSpec, facts: &PodFacts) -> (&'static str, String) {
    let incomplete = containers(spec).filter(|(role, container)| {
        let found = facts.containers.get(&container.name);
        match role {
            Role::Init => !found.is_some_and(ContainerFacts::ended_well),
            Role::Sidecar => !found.is_some_and(|found| found.is_running() && found.started),
            Role::App | Role::Ephemeral => false,
        }
    });
    let names: Vec<&str> = incomplete
        .map(|(_, container)| container.name.as_str())
        .collect();
    let message = format!("containers with incomplete status: [{}]", names.join(" "));
    ("ContainersNotInitialized", message)
}

fn missing_gates(pod: &Pod, spec: &PodSpec) -> Why {
    let present = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let holds = |kind: &str| {
        let mut all = present.into_iter().flatten();
        all.any(|found| found.type_ == kind && found.status == "True")
    };
    let gates = spec.readiness_gates.iter().flatten();
    let missing: Vec<String> = gates
        .filter(|gate| !holds(&gate.condition_type))
        .map(|gate| {
            format!(
                "the status of pod readiness gate {:?} is not \"True\", but False",
                gate.condition_type
            )
        })
        .collect();
    (!missing.is_empty()).then(|| ("ReadinessGatesNotReady", missing.join("; ")))
}

fn condition(
    (generation, old): (Option<i64>, &PodStatus),
    kind: &str,
    holds: bool,
    why: Why,
    now: Timestamp,
) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let old = old
        .conditions
        .iter()
        .flatten()
        .find(|old| old.type_ == kind);
    let kept = old
        .filter(|old| old.status == status)
        .and_then(|old| old.last_transition_time.clone());
    let (reason, message) = match why {
        Some((reason, message)) => (Some(reason.to_owned()), Some(message)),
        None => (None, None),
    };
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        observed_generation: generation,
        last_transition_time: kept.or_else(|| Some(Time(whole_second(now)))),
        message: message.filter(|message| !message.is_empty()),
        reason,
        ..PodCondition::default()
    }
}

/// Times in the API have whole seconds.
fn whole_second(time: Timestamp) -> Timestamp {
    windlass_api::time::to_seconds(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn pod(policy: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "uid": "u", "generation": 2 },
            "spec": {
                "restartPolicy": policy,
                "initContainers": [{ "name": "i" }],
                "containers": [{ "name": "a", "image": "img" }],
            },
        }))
        .unwrap()
    }

    fn status(pod: &Pod, facts: &PodFacts, host: &HostFacts, now: Timestamp) -> PodStatus {
        super::status(
            pod,
            &pod.status.clone().unwrap_or_default(),
            facts,
            host,
            now,
        )
    }

    fn host() -> HostFacts {
        HostFacts {
            host_ip: "10.0.0.1".to_owned(),
        }
    }

    fn end(exit_code: i32) -> Ended {
        Ended {
            exit_code,
            signal: None,
            reason: "x".to_owned(),
            message: String::new(),
            started_at: Some(at(0)),
            finished_at: at(1),
            container_id: None,
        }
    }

    fn facts(pod: &Pod, init: Option<i32>, app: Phase) -> PodFacts {
        let mut facts = PodFacts {
            setup: Setup::Done,
            ..PodFacts::begin(pod, at(0), &[])
        };
        if let Some(exit_code) = init {
            facts.containers.get_mut("i").unwrap().phase = Phase::Ended(end(exit_code));
            facts.initialized = exit_code == 0;
        }
        let container = facts.containers.get_mut("a").unwrap();
        container.phase = app;
        (container.started, container.ready) = (true, true);
        facts
    }

    #[test]
    fn phases_follow_restart_policy_and_ends() {
        let waiting = ContainerFacts::new(at(0)).phase;
        let running = Phase::Running { since: at(0) };
        let cases = [
            ("Always", None, waiting.clone(), "Pending"),
            ("Always", Some(1), waiting.clone(), "Pending"),
            ("Never", Some(1), waiting.clone(), "Failed"),
            ("Always", Some(0), waiting, "Pending"),
            ("Always", Some(0), running, "Running"),
            ("Always", Some(0), Phase::Ended(end(0)), "Running"),
            ("OnFailure", Some(0), Phase::Ended(end(0)), "Succeeded"),
            ("OnFailure", Some(0), Phase::Ended(end(1)), "Running"),
            ("Never", Some(0), Phase::Ended(end(0)), "Succeeded"),
            ("Never", Some(0), Phase::Ended(end(1)), "Failed"),
        ];
        for (policy, init, app, want) in cases {
            let pod = pod(policy);
            let facts = facts(&pod, init, app.clone());
            let found = status(&pod, &facts, &host(), at(2)).phase.unwrap();
            assert_eq!(found, want, "{policy} {init:?} {app:?}");
        }
    }

    #[test]
    fn a_running_ready_pod_has_all_conditions() {
        let pod = pod("Always");
        let facts = facts(&pod, Some(0), Phase::Running { since: at(0) });
        let status = status(&pod, &facts, &host(), at(2));
        for condition in status.conditions.unwrap() {
            assert_eq!(condition.status, "True", "{}", condition.type_);
            assert_eq!(condition.last_transition_time, Some(Time(at(2))));
        }
        let statuses = status.container_statuses.unwrap();
        assert!(statuses[0].ready && statuses[0].started == Some(true));
        assert_eq!(status.observed_generation, Some(2));
    }

    #[test]
    fn an_unready_container_is_named_and_gates_are_waited_for() {
        let mut pod = pod("Always");
        let mut facts = facts(&pod, Some(0), Phase::Running { since: at(0) });
        facts.containers.get_mut("a").unwrap().ready = false;
        let find = |pod: &Pod, facts: &PodFacts| {
            let all = status(pod, facts, &host(), at(2)).conditions.unwrap();
            all.into_iter()
                .find(|condition| condition.type_ == "Ready")
                .unwrap()
        };
        let ready = find(&pod, &facts);
        assert_eq!(
            ready.message.unwrap(),
            "containers with unready status: [a]"
        );
        facts.containers.get_mut("a").unwrap().ready = true;
        pod.spec.as_mut().unwrap().readiness_gates =
            serde_json::from_value(json!([{ "conditionType": "example.com/g" }])).unwrap();
        assert_eq!(find(&pod, &facts).reason.unwrap(), "ReadinessGatesNotReady");
        pod.status = serde_json::from_value(json!({
            "conditions": [{ "type": "example.com/g", "status": "True" }],
        }))
        .unwrap();
        assert_eq!(find(&pod, &facts).status, "True");
    }

    #[test]
    fn a_transition_time_changes_only_with_the_status() {
        let mut pod = pod("Always");
        let facts = facts(&pod, Some(0), Phase::Running { since: at(0) });
        pod.status = Some(status(&pod, &facts, &host(), at(2)));
        let again = status(&pod, &facts, &host(), at(99));
        assert_eq!(pod.status.unwrap(), again);
    }
}
